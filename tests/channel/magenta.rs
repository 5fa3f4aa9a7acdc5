//! What only Magenta has: failures that keep the handles, ids of the caller's, and calls that say
//! whether the request was delivered.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;

use tombolo::object::{CallPhase, NotWritten};
use tombolo::{Channel, Handle, MessagePacket, Rights};

use super::ends::{Failure, LONG, SHORT, SOON, fill, message, shown, shown_call, status, with_id};
use super::support::witness::{is_closed, witness};

type Write = fn(&Channel, MessagePacket) -> Result<(), NotWritten>;

/// Both forms that keep the message, which differ in how they call a lack of space.
const FORMS: [Write; 2] =
    [|end, message| end.try_write(message), |end, message| end.write_timeout(message, SHORT)];

sentences! { "Magenta":
    fn a_message_that_was_written_is_all_in_the_channel(near, far) {
        for write in FORMS {
            write(&near, message("all", far.files(["a", "b"]))).unwrap();
            assert_eq!(far.open_files(), 0);
            assert_eq!(far.ask("read"), "all with a b");
        }
    }

    /// *Decision*: with Zircon's order of checks and its statuses.
    fn one_that_was_refused_is_with_the_caller_with_every_handle_as_it_was(near, far) {
        let weak = || far.file("weak").replace(Rights::READ).unwrap();
        let mut long = message("", far.files(["a"]));
        long.data = vec![b'a'; 65537];
        let many = (0..65).map(|_| far.file("a")).collect();
        let strong = far.file("strong");
        let rows = [
            (long, "OUT_OF_RANGE"),
            (message("many", many), "OUT_OF_RANGE"),
            (message("weak", vec![strong, weak()]), "ACCESS_DENIED"),
        ];
        let (open, mut kept) = (far.open_files(), Vec::new());
        for (mut given, wanted) in rows {
            for write in FORMS {
                let ids = |message: &MessagePacket| {
                    message
                        .handles
                        .iter()
                        .map(|handle| (handle.id(), handle.rights()))
                        .collect::<Vec<_>>()
                };
                let (before, len) = (ids(&given), given.data.len());
                let refused = write(&near, given).unwrap_err();
                assert_eq!(refused.outcome(), wanted);
                given = refused.message;
                assert_eq!((ids(&given), given.data.len()), (before, len));
                assert_eq!(far.open_files(), open);
            }
            kept.push(given);
        }
        drop(kept);
        far.nothing_came(&near);
    }

    fn one_that_found_no_space_or_no_peer_is_with_the_caller_and_goes_when_it_can(near, far) {
        let (count, _) = fill(&near);
        let mut given = message("again", far.files(["a", "b"]));
        for (write, wanted) in FORMS.into_iter().zip(["SHOULD_WAIT", "TIMED_OUT"]) {
            let refused = write(&near, given).unwrap_err();
            assert_eq!(
                (refused.outcome(), shown(&refused.message)),
                (wanted.into(), "again with a b".into())
            );
            given = refused.message;
        }
        assert_eq!(far.ask(&format!("drain {count}")), "OK");
        near.try_write(given).unwrap();
        assert_eq!(far.ask("read"), "again with a b");
        assert_eq!(far.ask("close"), "OK");
        let mut given = message("late", far.files(["a", "b"]));
        for wanted in ["PEER_CLOSED", "BAD_HANDLE"] {
            for write in FORMS {
                let refused = write(&near, given).unwrap_err();
                assert_eq!(
                    (refused.outcome(), shown(&refused.message)),
                    (wanted.into(), "late with a b".into())
                );
                given = refused.message;
            }
            near.close();
        }
    }

    fn a_write_that_waits_gives_its_message_back_when_an_end_is_closed(near, far) {
        let (_, kept) = (fill(&near), far.file("a"));
        thread::scope(|scope| {
            let writers = [(); 2].map(|()| {
                scope.spawn(|| {
                    near.write_timeout(message("waits", vec![copy(&kept)]), LONG).unwrap_err()
                })
            });
            thread::sleep(SHORT * 10);
            near.close();
            for writer in writers {
                let ended = writer.join().unwrap();
                assert_eq!(
                    (ended.outcome(), shown(&ended.message)),
                    ("CANCELED".into(), "waits with a".into())
                );
            }
        });
        let (near, other) = Channel::create().unwrap();
        let (_, kept) = (fill(&near), far.file("a"));
        thread::scope(|scope| {
            let writers = [(); 2].map(|()| {
                scope.spawn(|| {
                    near.write_timeout(message("waits", vec![copy(&kept)]), LONG).unwrap_err()
                })
            });
            thread::sleep(SHORT);
            drop(other);
            for writer in writers {
                let ended = writer.join().unwrap();
                assert_eq!(
                    (ended.outcome(), shown(&ended.message)),
                    ("PEER_CLOSED".into(), "waits with a".into())
                );
            }
        });
    }

    fn ids_are_up_to_the_callers_who_may_count_them_from_many_threads(near, far) {
        let (next, calls) = (AtomicU32::new(1), 8 * 50);
        assert_eq!(far.ask(&format!("later serve {calls}")), "begun");
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let given = with_id(next.fetch_add(1, Relaxed), "opcode");
                        assert_eq!(near.call_with_txid(given.clone(), LONG).unwrap().data, given);
                    }
                });
            }
        });
        assert_eq!(far.ask("result"), "OK");
        assert_eq!(status(near.read()), "SHOULD_WAIT");
    }

    /// So that a caller knows whether the other end may have acted on it.
    fn in_the_read_phase_the_request_was_delivered_and_in_the_write_phase_it_never_is(near, far) {
        let (count, _) = fill(&near);
        let failed = near.call_with_txid(with_id(1, "unmount"), SHORT).unwrap_err();
        assert_eq!((failed.phase, failed.message.is_some()), (CallPhase::Write, true));
        assert_eq!(far.ask(&format!("drain {count}")), "OK");
        far.nothing_came(&near);
        thread::scope(|scope| {
            let call =
                scope.spawn(|| near.call_with_txid(with_id(2, "unmount"), LONG).unwrap_err());
            assert_eq!(far.ask("await-call"), "00000002 unmount");
            far.die();
            let failed = call.join().unwrap();
            assert_eq!((failed.phase, failed.message.is_none()), (CallPhase::Read, true));
            assert_eq!(failed.outcome(), "PEER_CLOSED in the read phase");
        });
    }

    fn handles_of_a_request_that_was_not_written_come_back(near, far) {
        let (handle, mut witness) = witness();
        let mut given: MessagePacket = with_id(1, "ping").into();
        given.handles = vec![handle, far.file("weak").replace(Rights::READ).unwrap()];
        let refused = near.call_with_txid(given, LONG).unwrap_err();
        assert_eq!(refused.outcome(), "ACCESS_DENIED in the write phase");
        let mut back = refused.message.unwrap();
        assert!(!is_closed(&mut witness, SHORT));
        back.handles.pop();
        thread::scope(|scope| {
            let call = scope.spawn(|| near.call_with_txid(back, LONG).unwrap());
            assert_eq!(far.ask("reply pong"), "00000001 ping with ");
            assert_eq!(shown_call(&call.join().unwrap()), "00000001 pong");
        });
        assert!(is_closed(&mut witness, SOON));
    }
}

fn copy(handle: &Handle) -> Handle {
    handle.duplicate(Rights::SAME_RIGHTS).unwrap()
}
