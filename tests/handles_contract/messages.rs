//! Whole messages: each sentence is held against a receiver in this process and against one in a
//! process of its own, on both rings.

use std::os::fd::AsFd;
use std::time::Duration;

use tombolo::handle::{DispositionError, HandleDisposition, HandleError};
use tombolo::object::HandleTable;
use tombolo::{
    Error, EventsRegion, Handle, HandleType, MessagePacket, Rights, SendError, SendTimeoutError,
    TrySendError,
};

use super::case::{duplicating, moving};
use super::ends::{Ends, Kind, message, message_of, one};
use super::support::witness::{is_closed, witness};

const SOON: Duration = Duration::from_secs(2);
const SHORT: Duration = Duration::from_millis(20);
const ALL: Rights = Rights::BASIC.union(Rights::IO).union(Rights::MAP);

/// Holds each sentence against both places of the receiver, on both rings.
macro_rules! sentences {
    ($(fn $name:ident($ends:ident) $body:block)*) => {
        $(mod $name {
            use super::*;

            fn holds<K: Kind>(mut ends: Ends<K>) {
                let $ends = &mut ends;
                $body
                assert_eq!(ends.far("close"), "0", "what was held is closed in the sentence");
            }

            #[test]
            fn within_a_process_spsc() {
                holds(Ends::<tombolo::ends::Spsc>::in_one_process());
            }

            #[test]
            fn within_a_process_mpsc() {
                holds(Ends::<tombolo::ends::Mpsc>::in_one_process());
            }

            #[test]
            fn across_two_processes_spsc() {
                holds(Ends::<tombolo::ends::Spsc>::in_two_processes());
            }

            #[test]
            fn across_two_processes_mpsc() {
                holds(Ends::<tombolo::ends::Mpsc>::in_two_processes());
            }
        })*
    };
}

/// Sends a list in which the second handle is refused as `wanted`: no message is sent, what was to be
/// moved is closed, and what was to be duplicated stays.
fn refuses<K: Kind>(
    ends: &mut Ends<K>,
    spoiled: HandleDisposition<'_>,
    wanted: impl Fn(&HandleError) -> bool,
) {
    let (moved, mut witness) = witness();
    let kept = ends.file("kept");
    let mut list = [HandleDisposition::moved(moved), spoiled, HandleDisposition::duplicate(&kept)];
    let refused = HandleDisposition::resolve_all(&mut list, &[]).unwrap_err();
    let DispositionError::Handle { index: 1, source } = refused else { panic!("{refused}") };
    assert!(wanted(&source), "{source}");
    assert_eq!(list[1].result, Err(source));
    assert!(is_closed(&mut witness, SOON));
    ends.send("kept", vec![kept]).unwrap();
    assert_eq!(ends.far("read"), message("kept", &["kept"]));
    ends.nothing_came();
}

sentences! {
    fn a_message_takes_every_handle_along_in_the_order_of_the_list(ends) {
        let handles = ["b", "c", "a"].map(|name| ends.file(name));
        ends.send("three", handles.into()).unwrap();
        assert_eq!(ends.far("read"), message("three", &["b", "c", "a"]));
    }

    fn a_message_without_bytes_and_handles_is_valid(ends) {
        ends.send("", vec![]).unwrap();
        assert_eq!(ends.far("read"), message("", &[]));
        ends.send("", vec![ends.file("alone")]).unwrap();
        assert_eq!(ends.far("read"), message("", &["alone"]));
    }

    fn messages_come_in_the_order_in_which_they_were_written(ends) {
        for name in ["0", "1", "2", "3"] {
            ends.send(name, vec![ends.file(name)]).unwrap();
            ends.send("between", vec![]).unwrap();
        }
        for name in ["0", "1", "2", "3"] {
            assert_eq!(ends.far("read"), message(name, &[name]));
            assert_eq!(ends.far("read"), message("between", &[]));
        }
    }

    fn an_empty_channel_has_nothing_to_read(ends) {
        ends.tx.attach().unwrap();
        assert_eq!(ends.far("read"), "empty");
        assert_eq!(ends.far("parts 0 0"), "empty");
    }

    fn up_to_sixty_four_handles_go_with_a_message(ends) {
        for count in [0, 1, 63, 64] {
            let handles = (0..count).map(|_| ends.file("same")).collect();
            ends.send("many", handles).unwrap();
            assert_eq!(ends.far("read"), message("many", &vec!["same"; count]));
        }
    }

    fn sixty_five_are_refused_before_anything_happens_and_are_given_back(ends) {
        let (first, mut witness) = witness();
        let mut handles = vec![first];
        handles.extend((0..64).map(|_| ends.file("same")));
        let open = ends.dir.open_fds();
        let refused = ends.send("too many", handles).unwrap_err();
        let SendError::Failed { message, source: Error::Handles { source } } = refused else { panic!("{refused}") };
        assert_eq!(source, DispositionError::TooManyHandles { found: 65, limit: 64 });
        assert_eq!((&message.data[..], message.handles.len()), (&b"too many"[..], 65));
        assert_eq!(ends.dir.open_fds(), open);
        drop(message);
        assert!(is_closed(&mut witness, SOON));
        assert_eq!(ends.dir.open_fds(), open - 64);
        ends.nothing_came();
    }

    fn every_handle_moves_out_of_the_callers_table(ends) {
        let table = HandleTable::new();
        let numbers = ["a", "b"].map(|name| table.insert(ends.file(name)));
        let handles = table.resolve_all(&mut numbers.map(moving), &[]).unwrap();
        ends.send("moved", handles).unwrap();
        assert!(table.is_empty());
        assert!(numbers.iter().all(|number| table.close(*number).is_err()));
        assert_eq!(ends.far("read"), message("moved", &["a", "b"]));
    }

    fn what_is_duplicated_stays_in_the_callers_table_and_is_the_same_file(ends) {
        let table = HandleTable::new();
        let number = table.insert(ends.file("shared"));
        let handles = table.resolve_all(&mut [duplicating(number)], &[]).unwrap();
        ends.send("copy", handles).unwrap();
        assert_eq!(ends.far("hold"), message("copy", &["shared"]));
        assert_eq!(ends.far("write ours"), "4");
        let kept = table.get(number, None, Rights::READ).unwrap();
        let mut rest = [0; 8];
        let len = rustix::io::read(kept, &mut rest).unwrap();
        assert_eq!(&rest[..len], b"ed", "one description, and so one position");
        assert_eq!(ends.far("close"), "1");
    }

    fn rights_are_the_exact_final_rights_and_type_and_rights_are_told(ends) {
        for rights in [Rights::TRANSFER, Rights::READ | Rights::TRANSFER, ALL] {
            let mut list = [HandleDisposition::moved(ends.file("narrow")).rights(rights)];
            ends.send_list("narrow", &mut list);
            let wanted = message_of("narrow", &[one("file", rights, "narrow")]);
            assert_eq!(ends.far("read"), wanted);
        }
    }

    fn same_rights_leave_them_as_they_are_and_no_type_checks_nothing(ends) {
        let narrow = ends.file("narrow").replace(Rights::TRANSFER | Rights::WRITE).unwrap();
        let (pipe, _reader) = witness();
        let pipe_rights = pipe.rights();
        ends.send_list("as is", &mut [narrow, pipe].map(HandleDisposition::moved));
        let wanted = [
            one("file", Rights::TRANSFER | Rights::WRITE, "narrow"),
            one("pipe", pipe_rights, ""),
        ];
        assert_eq!(ends.far("read"), message_of("as is", &wanted));
    }

    fn a_handle_that_was_moved_before_sends_no_message(ends) {
        let mut moved = HandleDisposition::moved(ends.file("moved"));
        ends.send_list("first", std::slice::from_mut(&mut moved));
        assert_eq!(ends.far("read"), message("first", &["moved"]));
        refuses(ends, moved, |error| *error == HandleError::AlreadyMoved);
    }

    fn a_handle_without_the_transfer_right_sends_no_message(ends) {
        let weak = ends.file("weak").replace(ALL - Rights::TRANSFER).unwrap();
        refuses(ends, HandleDisposition::moved(weak), |error| {
            matches!(error, HandleError::AccessDenied { missing: Rights::TRANSFER, .. })
        });
        let weak = ends.file("weak").replace(ALL - Rights::TRANSFER).unwrap();
        let refused = ends.send("weak", vec![weak]).unwrap_err();
        assert!(matches!(refused, SendError::Failed { source: Error::Handles { .. }, .. }), "{refused}");
        ends.nothing_came();
    }

    fn a_handle_of_another_type_than_expected_sends_no_message(ends) {
        let file = HandleDisposition::moved(ends.file("file")).expect_type(HandleType::Socket);
        refuses(ends, file, |error| matches!(error, HandleError::WrongType { .. }));
    }

    fn rights_that_it_lacks_send_no_message(ends) {
        let file = HandleDisposition::moved(ends.file("file")).rights(Rights::EXECUTE);
        refuses(ends, file, |error| matches!(error, HandleError::InvalidRights { .. }));
    }

    fn a_duplicate_without_the_duplicate_right_sends_no_message(ends) {
        let weak = ends.file("weak").replace(Rights::TRANSFER).unwrap();
        refuses(ends, HandleDisposition::duplicate(&weak), |error| {
            matches!(error, HandleError::AccessDenied { missing: Rights::DUPLICATE, .. })
        });
    }

    fn a_channel_does_not_go_through_itself(ends) {
        let region = EventsRegion::open_path(ends.dir.file("region")).unwrap();
        for connected in [false, true] {
            let own = Handle::new(region.to_fd().unwrap());
            let refused = ends.send("itself", vec![ends.file("file"), own]).unwrap_err();
            let SendError::Failed { source: Error::Handles { source }, .. } = refused else { panic!("{refused}") };
            let through_itself =
                DispositionError::Handle { index: 1, source: HandleError::ThroughItself };
            assert_eq!(source, through_itself, "connected: {connected}");
            ends.nothing_came();
        }
    }

    fn too_little_room_keeps_the_message_and_tells_the_needed_sizes(ends) {
        ends.send("12345", vec![ends.file("a"), ends.file("b")]).unwrap();
        for rooms in ["0 0", "4 2", "5 1", "64 0"] {
            let wanted = "needs 5 bytes, 2 handles";
            assert_eq!(ends.far(&format!("parts {rooms}")), wanted, "with {rooms}");
        }
        assert_eq!(ends.far("parts 5 2"), "5 bytes, 2 handles");
        ends.nothing_came();
    }

    fn what_may_be_discarded_is_gone_with_its_handles_and_its_sizes_are_told(ends) {
        for rooms in ["4 2", "5 0"] {
            let (handle, mut witness) = witness();
            ends.send("12345", vec![handle]).unwrap();
            assert_eq!(ends.far(&format!("discard {rooms}")), "needs 5 bytes, 1 handles");
            assert!(is_closed(&mut witness, SOON));
        }
        ends.nothing_came();
    }

    fn queued_messages_stay_whole_after_their_writer_closed(ends) {
        ends.send("left", vec![ends.file("a"), ends.file("b")]).unwrap();
        let region = EventsRegion::open_path(ends.dir.file("region")).unwrap();
        let old = std::mem::replace(&mut ends.tx, K::split(region).0);
        drop(old);
        assert_eq!(ends.far("read"), message("left", &["a", "b"]));
        assert_eq!(ends.far("read"), "disconnected");
        ends.send("from the next", vec![ends.file("c")]).unwrap();
        assert_eq!(ends.far("read"), message("from the next", &["c"]));
    }

    fn messages_never_read_are_destroyed_with_their_reader_and_peers_of_their_handles_see_it(ends) {
        let (handle, mut witness) = witness();
        ends.send("unread", vec![handle]).unwrap();
        assert!(!is_closed(&mut witness, SHORT), "it is in the message");
        assert_eq!(ends.far("go"), "gone");
        assert!(is_closed(&mut witness, SOON));
    }

    fn a_handle_that_was_read_belongs_to_its_reader_alone(ends) {
        let (handle, mut witness) = witness();
        ends.send("yours", vec![handle]).unwrap();
        let rights = Rights::BASIC | Rights::WRITE;
        assert_eq!(ends.far("hold"), message_of("yours", &[one("pipe", rights, "")]));
        assert!(!is_closed(&mut witness, SHORT));
        assert_eq!(ends.far("close"), "1");
        assert!(is_closed(&mut witness, SOON));
    }

    fn a_write_that_fails_behind_its_checks_gives_the_handles_back_too(ends) {
        assert_eq!(ends.far("go"), "gone");
        let (handle, mut witness) = witness();
        let packet = MessagePacket::from(b"nobody").handle(handle.into_fd());
        let refused = ends.tx.send_packet_timeout(packet, SHORT).unwrap_err();
        let SendTimeoutError::NoReceiver(back) = refused else { panic!("{refused}") };
        assert_eq!((&back.data[..], back.handles.len()), (&b"nobody"[..], 1));
        assert!(!is_closed(&mut witness, SHORT));
        drop(back);
        assert!(is_closed(&mut witness, SOON));
    }

    fn the_form_that_keeps_gives_message_and_handles_back_as_they_were(ends) {
        let open = ends.dir.open_fds();
        let weak = ends.file("weak").replace(Rights::READ).unwrap();
        let strong = ends.file("strong");
        let ids = [strong.id(), weak.id()];
        let mut packet = MessagePacket::from(b"try");
        packet.handles = vec![strong, weak];
        let refused = ends.tx.try_send_packet(packet).unwrap_err();
        let TrySendError::Failed { message: mut back, source: Error::Handles { .. } } = refused else { panic!("{refused}") };
        assert_eq!((&back.data[..], [back.handles[0].id(), back.handles[1].id()]), (&b"try"[..], ids));
        assert_eq!(ends.dir.open_fds(), open + 2);
        back.handles.pop();
        ends.tx.try_send_packet(back).unwrap(); // mended
        assert_eq!(ends.far("read"), message("try", &["strong"]));
    }

    fn the_form_that_keeps_consumes_what_it_sent_and_nothing_stays_open(ends) {
        ends.nothing_came(); // connects
        let open = ends.dir.open_fds();
        let mut packet = MessagePacket::from(b"kept");
        packet.handles = vec![ends.file("a"), ends.file("b")];
        let shared = packet.handles[0].as_fd().try_clone_to_owned().unwrap();
        ends.tx.try_send_packet(packet).unwrap();
        assert_eq!(ends.dir.open_fds(), open + 1);
        assert_eq!(ends.far("read"), message("kept", &["a", "b"]));
        drop(shared);
        assert_eq!(ends.dir.open_fds(), open);
    }
}
