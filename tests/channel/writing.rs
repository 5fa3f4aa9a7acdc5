//! Writing: whole or not at all, and with every handle consumed whatever happens.

use std::fs::File;
use std::io::{IoSlice, PipeReader};
use std::thread;

use tombolo::{Channel, Handle, MessagePacket, Rights};

use super::ends::{Failure, LONG, SHORT, SOON, fill, message, shown, status};
use super::support::witness::{is_closed, witness};

/// A handle that no message takes.
fn weak(handle: Handle) -> Handle {
    handle.replace(Rights::READ | Rights::WRITE).unwrap()
}

/// `message` with handles of which one is at each side of what it had.
fn between_witnesses(mut message: MessagePacket) -> (MessagePacket, [PipeReader; 2]) {
    let ((first, before), (last, behind)) = (witness(), witness());
    message.handles.insert(0, first);
    message.handles.push(last);
    (message, [before, behind])
}

fn are_closed(witnesses: [PipeReader; 2]) -> bool {
    witnesses.into_iter().all(|mut witness| is_closed(&mut witness, SOON))
}

fn many(count: usize) -> MessagePacket {
    let (reader, _) = std::io::pipe().unwrap();
    let handle = Handle::new(reader);
    let mut message = MessagePacket::from("many");
    message.handles = (0..count).map(|_| handle.duplicate(Rights::SAME_RIGHTS).unwrap()).collect();
    message
}

/// `message` with that many bytes.
fn of_bytes(len: usize, mut message: MessagePacket) -> MessagePacket {
    message.data = vec![b'a'; len];
    message
}

sentences! { "writing":
    fn a_message_comes_whole_with_its_handles_in_their_order(near, far) {
        near.write(message("three", far.files(["b", "c", "a"]))).unwrap();
        assert_eq!(far.open_files(), 0, "they are in the channel, or the other end's");
        assert_eq!(far.ask("read"), "three with b c a");
        assert_eq!(far.ask("write two d c"), "OK");
        assert_eq!(shown(&near.read().unwrap()), "two with d c");
    }

    fn messages_come_in_the_order_in_which_they_were_written_each_way(near, far) {
        for number in ["0", "1", "2"] {
            near.write(number).unwrap();
            assert_eq!(far.ask(&format!("write -{number} a")), "OK");
            near.write(message("between", far.files(["a"]))).unwrap();
        }
        for number in ["0", "1", "2"] {
            assert_eq!(far.ask("read"), number);
            assert_eq!(far.ask("read"), "between with a");
            assert_eq!(shown(&near.read().unwrap()), format!("-{number} with a"));
        }
    }

    fn a_message_without_bytes_and_handles_is_valid(near, far) {
        near.write("").unwrap();
        assert_eq!(far.ask("write -"), "OK");
        near.write(message("", far.files(["alone"]))).unwrap();
        assert_eq!(far.ask("read"), "");
        assert_eq!(far.ask("read"), " with alone");
        let empty = near.read().unwrap();
        assert!(empty.data.is_empty() && empty.handles.is_empty());
    }

    fn up_to_65_536_bytes_and_64_handles_go_with_a_message(near, far) {
        assert_eq!(far.ask("write-many 65536 64"), "OK");
        let largest = near.read().unwrap();
        assert_eq!((largest.data, largest.handles.len()), (vec![7; 65536], 64));
        let largest = of_bytes(65536, many(64));
        near.write(largest).unwrap();
        assert_eq!(far.ask("read").trim_end().len(), 65536 + " with".len());
    }

    fn more_bytes_or_more_handles_are_out_of_range(near, far) {
        assert_eq!(status(near.write(vec![0; 65537])), "OUT_OF_RANGE");
        assert_eq!(status(near.write(many(65))), "OUT_OF_RANGE");
        far.nothing_came(&near);
    }

    fn the_limits_are_checked_before_any_handle(near, far) {
        let handles = vec![weak(far.file("weak"))];
        let too_long = of_bytes(65537, message("", handles));
        assert_eq!(status(near.write(too_long)), "OUT_OF_RANGE");
        let mut too_many = many(64);
        too_many.handles.insert(0, weak(far.file("weak")));
        assert_eq!(status(near.write(too_many)), "OUT_OF_RANGE");
        far.nothing_came(&near);
    }

    fn a_handle_that_is_refused_refuses_the_whole_message(near, far) {
        let mut handles = far.files(["a", "weak", "b"]);
        let spoiled = weak(handles.remove(1));
        handles.insert(1, spoiled);
        assert_eq!(status(near.write(message("all", handles))), "ACCESS_DENIED");
        assert_eq!(far.open_files(), 0);
        far.nothing_came(&near);
    }

    /// Also those beside the one that was refused, and also 66 of them. *Decision*: whatever the failure, as in
    /// Zircon; zCore keeps those of a message that is too long.
    fn a_write_that_fails_consumes_every_handle(near, far) {
        let mut failures = vec![
            (of_bytes(65537, many(1)), "OUT_OF_RANGE"),
            (many(64), "OUT_OF_RANGE"),
            (message("weak", vec![weak(far.file("weak"))]), "ACCESS_DENIED"),
        ];
        for (message, wanted) in failures.drain(..) {
            let (message, witnesses) = between_witnesses(message);
            assert_eq!(status(near.write(message)), wanted);
            assert!(are_closed(witnesses), "{wanted}");
        }
        far.nothing_came(&near);
        assert_eq!(far.ask("close"), "OK");
        let (message, witnesses) = between_witnesses("to nobody".into());
        assert_eq!(status(near.write(message)), "PEER_CLOSED");
        assert!(are_closed(witnesses));
        near.close();
        let (message, witnesses) = between_witnesses("from nobody".into());
        assert_eq!(status(near.write(message)), "BAD_HANDLE");
        assert!(are_closed(witnesses));
    }

    fn a_write_to_a_closed_peer_is_told_so_whatever_space_there_is(near, far) {
        near.write("taken by nobody").unwrap();
        assert_eq!(far.ask("close"), "OK");
        assert_eq!(status(near.write("late")), "PEER_CLOSED");
        assert_eq!(status(near.try_write("late")), "PEER_CLOSED");
        assert_eq!(status(near.write_timeout("late", LONG)), "PEER_CLOSED");
    }

    /// *Decision*: the queue is bounded, so that `write` waits if it is full; Zircon's grows.
    fn more_than_3_500_small_messages_fit_and_then_a_write_waits_for_space(near, far) {
        let (count, refused) = fill(&near);
        assert!(count > 3500, "{count}");
        assert_eq!(
            (refused.outcome(), &refused.message.data[..]),
            ("SHOULD_WAIT".into(), &count.to_ne_bytes()[..])
        );
        let late = near.write_timeout(message("late", far.files(["a"])), SHORT).unwrap_err();
        assert_eq!(
            (late.outcome(), shown(&late.message)),
            ("TIMED_OUT".into(), "late with a".into())
        );
        drop(late);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| near.write("waits"));
            thread::sleep(SHORT);
            assert!(!waiting.is_finished());
            assert_eq!(far.ask(&format!("drain {count}")), "OK");
            assert_eq!(status(waiting.join().unwrap()), "OK");
        });
        assert_eq!(far.ask("await"), "waits");
        far.nothing_came(&near);
    }

    /// *Decision*: nor through its peer. The file that a channel consists of is refused at both ends, as
    /// both could use it.
    fn a_channel_goes_neither_through_itself_nor_through_its_peer(_near, far) {
        let near = Channel::open_path(far.path("named")).unwrap();
        assert_eq!(far.ask("open named"), "OK");
        let own =
            || Handle::new(File::options().read(true).write(true).open(far.path("named")).unwrap());
        for wanted in ["NOT_SUPPORTED", "ACCESS_DENIED"] {
            let own = if wanted == "NOT_SUPPORTED" { own() } else { weak(own()) }; // its rights come first
            let (message, witnesses) = between_witnesses(message("itself", vec![own]));
            assert_eq!(status(near.write(message)), wanted);
            assert!(are_closed(witnesses));
        }
        far.nothing_came(&near);
    }

    fn parts_are_gathered_in_their_order(near, far) {
        let parts = [&b"one, "[..], b"", b"two, ", b"three"].map(IoSlice::new);
        near.write_vectored(&parts, far.files(["a", "b"])).unwrap();
        assert_eq!(far.ask("read"), "one, two, three with a b");
    }

    fn no_parts_are_a_message_without_bytes(near, far) {
        near.write_vectored(&[], Vec::new()).unwrap();
        near.write_vectored(&[IoSlice::new(b""); 3], far.files(["a"])).unwrap();
        assert_eq!(far.ask("read"), "");
        assert_eq!(far.ask("read"), " with a");
    }

    fn up_to_8_192_parts_are_gathered_and_more_are_out_of_range(near, far) {
        let parts = [IoSlice::new(b"12345678"); 8193];
        near.write_vectored(&parts[..8192], Vec::new()).unwrap();
        assert_eq!(far.ask("read"), "12345678".repeat(8192));
        let (handle, mut witness) = witness();
        let short = [IoSlice::new(b"1"); 8193];
        assert_eq!(status(near.write_vectored(&short, vec![handle])), "OUT_OF_RANGE");
        assert!(is_closed(&mut witness, SOON));
        far.nothing_came(&near);
    }

    fn parts_of_more_bytes_than_a_message_takes_are_out_of_range(near, far) {
        let (handle, mut witness) = witness();
        let long = vec![0; 1 << 16];
        let parts = [IoSlice::new(&long), IoSlice::new(b"1")];
        assert_eq!(status(near.write_vectored(&parts, vec![handle])), "OUT_OF_RANGE");
        assert!(is_closed(&mut witness, SOON));
        let most = [IoSlice::new(&long); 8192]; // half a gigabyte, of which nothing is copied
        assert_eq!(status(near.write_vectored(&most, many(65).handles)), "OUT_OF_RANGE");
        far.nothing_came(&near);
    }
}
