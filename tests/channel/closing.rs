//! Closing an end: what is left to read, what ends, and why.

use std::thread;
use std::time::Instant;

use super::ends::{Failure, LONG, SHORT, SOON, fill, message, shown, status};
use super::support::witness::{is_closed, witness};

sentences! { "closing":
    fn messages_in_the_closed_end_are_destroyed_and_their_handles_closed(near, far) {
        let (handle, mut witness) = witness();
        near.write("unread").unwrap();
        near.write(message("unread", vec![handle])).unwrap();
        assert!(!is_closed(&mut witness, SHORT), "it is in the message");
        assert_eq!(far.ask("close"), "OK");
        assert!(is_closed(&mut witness, SOON));
    }

    fn so_they_are_if_its_owner_is_killed(near, far) {
        let (handle, mut witness) = witness();
        near.write(message("unread", vec![handle])).unwrap();
        assert!(!is_closed(&mut witness, SHORT), "it is in the message");
        far.die();
        assert!(is_closed(&mut witness, SOON));
    }

    fn messages_to_the_other_end_stay_readable(near, far) {
        near.write(message("left", far.files(["a", "b"]))).unwrap();
        near.write("last").unwrap();
        drop(near);
        assert_eq!(far.ask("read"), "left with a b");
        assert_eq!(far.ask("read"), "last");
        assert_eq!(far.ask("read"), "PEER_CLOSED");
        assert_eq!(far.ask("write late"), "PEER_CLOSED");
    }

    fn so_they_do_if_the_closed_end_has_not_read_what_was_written_to_it(near, far) {
        for name in ["a", "b"] {
            assert_eq!(far.ask(&format!("write left {name}")), "OK");
        }
        near.write(message("unread", far.files(["c"]))).unwrap();
        far.die();
        for name in ["a", "b"] {
            assert_eq!(shown(&near.read_timeout(LONG).unwrap()), format!("left with {name}"));
        }
        assert_eq!(status(near.read_timeout(LONG)), "PEER_CLOSED");
    }

    fn a_closed_end_is_closed_once_more_without_harm(near, far) {
        near.close();
        near.close();
        near.close_with_reason(7, "too late");
        assert_eq!(far.ask("read"), "PEER_CLOSED");
        assert_eq!(far.ask("reason"), "None");
    }

    fn both_ends_may_close_at_once(near, far) {
        assert_eq!(far.ask("write unread a"), "OK");
        near.write(message("unread", far.files(["a"]))).unwrap();
        assert_eq!(far.ask("later close"), "begun");
        near.close();
        assert_eq!(far.ask("result"), "OK");
        assert_eq!(far.ask("read"), "BAD_HANDLE");
        assert_eq!(status(near.read()), "BAD_HANDLE");
    }

    fn reads_that_wait_end_here_and_there(near, far) {
        thread::scope(|scope| {
            let readers = [(); 3].map(|()| scope.spawn(|| status(near.read_timeout(LONG))));
            (0..3).for_each(|_| assert_eq!(far.ask("later await"), "begun"));
            thread::sleep(SHORT * 10);
            let start = Instant::now();
            near.close();
            for reader in readers {
                assert_eq!(reader.join().unwrap(), "CANCELED");
            }
            (0..3).for_each(|_| assert_eq!(far.ask("result"), "PEER_CLOSED"));
            assert!(start.elapsed() < SOON);
        });
    }

    fn calls_that_wait_end_here_and_there(near, far) {
        thread::scope(|scope| {
            let here = scope.spawn(|| status(near.call(b"\0\0\0\0", LONG)));
            far.ask("await-call");
            assert_eq!(far.ask("later call ping"), "begun");
            near.read_timeout(LONG).unwrap();
            let start = Instant::now();
            near.close();
            assert_eq!(here.join().unwrap(), "CANCELED in the read phase");
            assert_eq!(far.ask("result"), "PEER_CLOSED in the read phase");
            assert!(start.elapsed() < SOON);
        });
    }

    fn a_write_that_waits_for_space_ends_when_the_other_end_closes(near, far) {
        let _ = fill(&near);
        thread::scope(|scope| {
            let (handle, mut witness) = witness();
            let near = &near;
            let writer = scope.spawn(move || status(near.write(message("waits", vec![handle]))));
            thread::sleep(SHORT);
            let start = Instant::now();
            far.die();
            assert_eq!(writer.join().unwrap(), "PEER_CLOSED");
            assert!(start.elapsed() < SOON && is_closed(&mut witness, SOON));
        });
    }

    fn the_reason_is_told_once_all_is_read(near, far) {
        assert_eq!(near.close_reason().unwrap(), None);
        assert_eq!(far.ask("write last a"), "OK");
        assert_eq!(far.ask("close-with 7 out-of-paper"), "OK");
        assert_eq!(near.close_reason().unwrap(), None, "there is a message still");
        assert_eq!(shown(&near.read().unwrap()), "last with a");
        for _ in 0..2 {
            let reason = near.close_reason().unwrap().unwrap();
            assert_eq!((reason.code, &*reason.text), (7, "out-of-paper"));
        }
        assert_eq!(status(near.read()), "PEER_CLOSED");
    }

    fn without_a_reason_none_is_told(near, far) {
        far.die();
        assert_eq!(status(near.read_timeout(LONG)), "PEER_CLOSED");
        assert_eq!(near.close_reason().unwrap(), None);
    }

    fn a_reason_has_any_code_and_up_to_112_bytes_of_whole_characters(near, far) {
        let text = "ä".repeat(100);
        near.close_with_reason(u32::MAX, &text);
        assert_eq!(far.ask("read"), "PEER_CLOSED");
        let wanted = format!("CloseReason {{ code: {}, text: {:?} }}", u32::MAX, "ä".repeat(56));
        assert_eq!(far.ask("reason"), format!("Some({wanted})"));
    }

    fn what_the_reader_has_taken_stays_its_own(near, far) {
        assert_eq!(far.ask("write yours a"), "OK");
        let kept = near.read().unwrap();
        near.close();
        far.die();
        assert_eq!(shown(&kept), "yours with a");
    }

    fn a_failed_operation_changes_nothing_for_the_other_end(near, far) {
        assert_eq!(status(near.write(vec![0; 65537])), "OUT_OF_RANGE");
        assert_eq!(near.call(b"", SHORT).unwrap_err().outcome(), "INVALID_ARGS in the write phase");
        far.nothing_came(&near);
        assert_eq!(far.ask("write back"), "OK");
        assert_eq!(shown(&near.read().unwrap()), "back");
    }
}
