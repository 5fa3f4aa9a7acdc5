//! Reading, in all its forms: a message whole, or left as it was.

use std::thread;
use std::time::Instant;

use tombolo::object::{ChannelError, MessageBuf};
use tombolo::{Channel, Handle, HandleType, Rights};

use super::ends::{LONG, SHORT, SOON, message, names, shown, status};
use super::support::witness::{is_closed, witness};

/// Needed bytes and handles, and whether the message was discarded.
fn too_small(refused: Result<(usize, usize), ChannelError>) -> (usize, usize, bool) {
    let Err(ChannelError::BufferTooSmall { needed, needed_handles, is_discarded, .. }) = refused
    else {
        panic!("{refused:?}")
    };
    (needed, needed_handles, is_discarded)
}

fn places(count: usize) -> Vec<Option<Handle>> {
    (0..count).map(|_| None).collect()
}

/// What each way to read without waiting says that has nothing to give.
fn each_way(near: &Channel) -> [String; 6] {
    let checked = near.check_and_read(|_, _| -> Result<(), ChannelError> { panic!("no message") });
    [
        status(near.read()),
        status(near.read_parts(&mut [0; 9], &mut [])),
        status(near.read_or_discard(&mut [0; 9], &mut [])),
        status(near.read_into(&mut MessageBuf::new())),
        status(near.read_etc()),
        status(checked),
    ]
}

sentences! { "reading":
    /// *Decision*: the same answer each time; amy's differ.
    fn an_open_channel_without_messages_says_so_each_time(near, far) {
        assert_eq!(each_way(&near), ["SHOULD_WAIT"; 6]);
        assert_eq!(far.ask("write one"), "OK");
        near.read().unwrap();
        assert_eq!(each_way(&near), ["SHOULD_WAIT"; 6]);
    }

    fn a_closed_peer_is_told_once_its_messages_are_read_whole(near, far) {
        assert_eq!(far.ask("write one a b"), "OK");
        assert_eq!(far.ask("write two"), "OK");
        assert_eq!(far.ask("close"), "OK");
        assert_eq!(shown(&near.read().unwrap()), "one with a b");
        assert_eq!(shown(&near.read().unwrap()), "two");
        assert_eq!(each_way(&near), ["PEER_CLOSED"; 6]);
        assert_eq!(status(near.read_timeout(LONG)), "PEER_CLOSED");
    }

    fn messages_of_a_peer_that_was_killed_stay_readable(near, far) {
        assert_eq!(far.ask("write one a b"), "OK");
        assert_eq!(far.ask("write two"), "OK");
        far.die();
        assert_eq!(shown(&near.read().unwrap()), "one with a b");
        assert_eq!(shown(&near.read_timeout(LONG).unwrap()), "two");
        assert_eq!(status(near.read_timeout(LONG)), "PEER_CLOSED");
        assert_eq!(each_way(&near), ["PEER_CLOSED"; 6]);
    }

    fn a_closed_end_cannot_be_read(near, far) {
        assert_eq!(far.ask("write lost"), "OK");
        near.close();
        assert_eq!(each_way(&near), ["BAD_HANDLE"; 6]);
        assert_eq!(status(near.read_timeout(LONG)), "BAD_HANDLE");
        assert_eq!(status(near.close_reason()), "BAD_HANDLE");
    }

    fn bytes_and_handles_go_to_the_callers_buffers_and_their_counts_are_told(near, far) {
        assert_eq!(far.ask("write 12345 a b"), "OK");
        let (mut bytes, mut handles) = ([9; 7], places(3));
        assert_eq!(near.read_parts(&mut bytes, &mut handles).unwrap(), (5, 2));
        assert_eq!(&bytes, b"12345\x09\x09", "the rest is as it was");
        let got: Vec<_> = handles.into_iter().map_while(|place| place).collect();
        assert_eq!(names(&got), ["a", "b"]);
        assert_eq!(far.ask("write exact a"), "OK");
        assert_eq!(near.read_parts(&mut [0; 5], &mut places(1)).unwrap(), (5, 1));
    }

    fn buffers_that_are_too_small_keep_the_message_and_what_is_needed_is_told(near, far) {
        assert_eq!(far.ask("write 12345 a b"), "OK");
        assert_eq!(far.ask("write next"), "OK");
        for (len, count) in [(0, 0), (4, 2), (5, 1), (65536, 0), (0, 64)] {
            let mut bytes = vec![9; len];
            let refused = near.read_parts(&mut bytes, &mut places(count));
            assert_eq!(too_small(refused), (5, 2, false), "{len} bytes, {count} handles");
            assert!(bytes.iter().all(|byte| *byte == 9));
        }
        assert_eq!(near.read_parts(&mut [0; 5], &mut places(2)).unwrap(), (5, 2));
        assert_eq!(shown(&near.read().unwrap()), "next");
    }

    fn empty_buffers_take_an_empty_message(near, far) {
        assert_eq!(far.ask("write -"), "OK");
        assert_eq!(near.read_parts(&mut [], &mut []).unwrap(), (0, 0));
        assert_eq!(status(near.read_parts(&mut [], &mut [])), "SHOULD_WAIT");
    }

    fn a_message_that_may_be_discarded_is_read_if_it_fits(near, far) {
        assert_eq!(far.ask("write 12345 a b"), "OK");
        let (mut bytes, mut handles) = ([0; 5], places(2));
        assert_eq!(near.read_or_discard(&mut bytes, &mut handles).unwrap(), (5, 2));
        assert_eq!((&bytes, far.open_files()), (b"12345", 2));
    }

    fn a_message_that_does_not_fit_is_discarded_with_its_handles_and_its_sizes_are_told(near, far) {
        for (len, count) in [(4, 2), (5, 0), (0, 0), (4, 0)] {
            // The far end keeps nothing of what it wrote; the near end opens nothing of it.
            assert_eq!(far.ask("write 12345 a"), "OK");
            assert_eq!(far.ask("write next"), "OK");
            let refused = near.read_or_discard(&mut vec![0; len], &mut places(count));
            assert_eq!(too_small(refused), (5, 1, true));
            assert_eq!(shown(&near.read().unwrap()), "next");
            assert_eq!(far.open_files(), 0);
        }
        // That the handle is closed, and not only lost, is seen by its peer.
        let (near, other) = Channel::create().unwrap();
        let (handle, mut witness) = witness();
        other.write(message("12345", vec![handle])).unwrap();
        assert!(!is_closed(&mut witness, SHORT));
        assert_eq!(too_small(near.read_or_discard(&mut [], &mut [])), (5, 1, true));
        assert!(is_closed(&mut witness, SOON));
    }

    fn type_and_rights_come_with_each_handle(near, far) {
        assert_eq!(far.ask("write both a b"), "OK");
        let (bytes, infos) = near.read_etc().unwrap();
        assert_eq!((&bytes[..], infos.len()), (&b"both"[..], 2));
        for info in infos {
            assert_eq!(info.handle_type, HandleType::File);
            assert_eq!(info.rights, Rights::BASIC | Rights::IO | Rights::MAP);
            assert_eq!(info.rights, info.handle.rights());
        }
    }

    fn a_check_sees_the_first_message_and_if_it_agrees_that_is_taken(near, far) {
        assert_eq!(far.ask("write first a b"), "OK");
        assert_eq!(far.ask("write second"), "OK");
        let taken = near.check_and_read(|bytes, handle_count| {
            assert_eq!((bytes, handle_count), (&b"first"[..], 2));
            Ok::<_, ChannelError>(())
        });
        assert_eq!(shown(&taken.unwrap()), "first with a b");
        assert_eq!(shown(&near.read().unwrap()), "second");
    }

    fn a_check_that_refuses_keeps_the_message_and_its_error_is_returned(near, far) {
        #[derive(Debug, PartialEq)]
        struct Refused(usize);
        impl From<ChannelError> for Refused {
            fn from(error: ChannelError) -> Self {
                panic!("{error}")
            }
        }
        assert_eq!(far.ask("write first a b"), "OK");
        for number in 0..3 {
            assert_eq!(
                near.check_and_read(|_, _| Err::<(), _>(Refused(number))).unwrap_err(),
                Refused(number)
            );
        }
        assert_eq!(shown(&near.read().unwrap()), "first with a b");
    }

    fn a_check_that_panics_keeps_the_message(near, far) {
        assert_eq!(far.ask("write first a"), "OK");
        let check =
            || near.check_and_read(|_, _| -> Result<(), ChannelError> { panic!("as told") });
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err());
        assert_eq!(shown(&near.read().unwrap()), "first with a");
    }

    /// *Decision*: no lock is held meanwhile; in zCore, this would wait for itself for ever.
    fn a_check_may_use_its_own_end(near, far) {
        assert_eq!(far.ask("write first a"), "OK");
        assert_eq!(far.ask("write second b"), "OK");
        let taken = near.check_and_read(|bytes, _| {
            if bytes == b"first" {
                near.write("seen").unwrap();
                assert_eq!(shown(&near.read().unwrap()), "first with a");
            }
            Ok::<_, ChannelError>(())
        });
        assert_eq!(shown(&taken.unwrap()), "second with b", "checked as well");
        assert_eq!(far.ask("read"), "seen");
        assert_eq!(far.ask("write third"), "OK");
        let closed = near.check_and_read(|_, _| {
            near.close();
            Ok::<_, ChannelError>(())
        });
        assert_eq!(status(closed), "BAD_HANDLE");
    }

    fn a_buffer_grows_to_the_message_and_is_used_again_without_allocating(near, far) {
        let mut buffer = MessageBuf::new();
        assert_eq!(far.ask("write-many 65536 64"), "OK");
        near.read_into(&mut buffer).unwrap();
        assert_eq!((buffer.bytes(), buffer.handle_count()), (&[7; 65536][..], 64));
        let place = buffer.bytes().as_ptr();
        for wish in ["write 12345 a b", "write-many 65536 64", "write -"] {
            assert_eq!(far.ask(wish), "OK");
            near.read_into(&mut buffer).unwrap();
            assert_eq!(buffer.bytes().as_ptr(), place, "after {wish}");
        }
        assert_eq!((buffer.bytes(), buffer.handle_count(), far.open_files()), (&b""[..], 0, 0));
    }

    fn a_reserved_buffer_does_not_grow(near, far) {
        let mut buffer = MessageBuf::new();
        buffer.reserve(65536, 64);
        let place = buffer.bytes().as_ptr();
        assert_eq!(far.ask("write-many 65536 64"), "OK");
        near.read_into(&mut buffer).unwrap();
        assert_eq!(buffer.bytes().as_ptr(), place);
    }

    fn a_handle_is_taken_out_of_a_buffer_once_and_the_count_stays(near, far) {
        assert_eq!(far.ask("write two a b"), "OK");
        let mut buffer = MessageBuf::new();
        near.read_into(&mut buffer).unwrap();
        let taken = buffer.take_handle(1).unwrap();
        assert_eq!(names(&[taken]), ["b"]);
        assert!(buffer.take_handle(1).is_none() && buffer.take_handle(2).is_none());
        assert_eq!((buffer.handle_count(), far.open_files()), (2, 1));
        let (bytes, left) = buffer.into_parts();
        assert_eq!((&bytes[..], names(&left)), (&b"two"[..], vec!["a".to_owned()]));
    }

    fn clearing_a_buffer_or_reading_into_it_closes_what_it_held(near, far) {
        let mut buffer = MessageBuf::new();
        for _ in 0..2 {
            assert_eq!(far.ask("write two a b"), "OK");
        }
        near.read_into(&mut buffer).unwrap();
        near.read_into(&mut buffer).unwrap();
        assert_eq!(far.open_files(), 2);
        buffer.clear();
        assert_eq!((buffer.bytes(), buffer.handle_count(), far.open_files()), (&b""[..], 0, 0));
        assert_eq!(far.ask("write one a"), "OK");
        near.read_into(&mut buffer).unwrap();
        assert_eq!(status(near.read_into(&mut buffer)), "SHOULD_WAIT");
        assert_eq!((buffer.bytes(), buffer.handle_count(), far.open_files()), (&b""[..], 0, 0));
    }

    fn a_reader_waits_for_the_next_message_until_its_deadline(near, far) {
        let start = Instant::now();
        assert_eq!(status(near.read_timeout(SHORT)), "TIMED_OUT");
        assert!(start.elapsed() >= SHORT);
        thread::scope(|scope| {
            let readers =
                [(); 3].map(|()| scope.spawn(|| shown(&near.read_timeout(LONG).unwrap())));
            thread::sleep(SHORT);
            for name in ["a", "b", "c"] {
                assert_eq!(far.ask(&format!("write same {name}")), "OK");
            }
            let mut got = readers.map(|reader| reader.join().unwrap());
            got.sort();
            assert_eq!(got, ["same with a", "same with b", "same with c"], "each one of them");
        });
    }

    fn a_handle_that_was_read_belongs_to_its_reader_alone(near, far) {
        let (handle, mut witness) = witness();
        near.write(message("yours", vec![handle])).unwrap();
        assert!(!is_closed(&mut witness, SHORT));
        assert_eq!(far.ask("hold"), "yours with ");
        assert!(!is_closed(&mut witness, SHORT));
        assert_eq!(far.ask("release"), "1");
        assert!(is_closed(&mut witness, SOON));
    }
}
