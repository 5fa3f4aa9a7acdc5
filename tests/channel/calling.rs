//! Calling: what is sent, how it fails, and in which phase.

use std::thread;
use std::time::{Duration, Instant};

use tombolo::handle::HandleDisposition;
use tombolo::object::CallPhase;
use tombolo::{Channel, Handle, HandleType, MessagePacket, Rights};

use super::ends::{
    Failure, LONG, SHORT, SOON, fill, id_of, message, request, shown, shown_call, status, with_id,
};
use super::support::witness::{is_closed, witness};

fn with_handles(request: impl Into<MessagePacket>, handles: Vec<Handle>) -> MessagePacket {
    let mut request = request.into();
    request.handles = handles;
    request
}

sentences! { "calling":
    fn the_first_four_bytes_become_an_id_with_bit_31_set_and_the_reply_has_the_same(near, far) {
        thread::scope(|scope| {
            let call = scope.spawn(|| near.call(with_id(7, "ping"), LONG).unwrap());
            assert_eq!(far.ask("reply pong"), "80000000 ping");
            assert_eq!(shown_call(&call.join().unwrap()), "80000000 pong");
        });
    }

    fn an_id_that_another_call_waits_with_is_passed_over(near, far) {
        thread::scope(|scope| {
            let own = scope.spawn(|| near.call_with_txid(with_id(1 << 31, "own"), LONG).unwrap());
            assert_eq!(far.ask("await-call"), "80000000 own");
            let call = scope.spawn(|| near.call(request("generated"), LONG).unwrap());
            assert_eq!(far.ask("reply to-the-generated"), "80000001 generated");
            assert_eq!(shown_call(&call.join().unwrap()), "80000001 to-the-generated");
            assert_eq!(far.ask("write-as 80000000 to-the-own"), "OK");
            assert_eq!(shown_call(&own.join().unwrap()), "80000000 to-the-own");
        });
    }

    fn handles_go_with_the_request_and_come_with_the_reply(near, far) {
        let handles = far.files(["a", "b"]);
        thread::scope(|scope| {
            let call =
                scope.spawn(|| near.call(with_handles(request("ping"), handles), LONG).unwrap());
            assert_eq!(far.ask("reply pong c d e"), "80000000 ping with a b");
            assert_eq!(shown_call(&call.join().unwrap()), "80000000 pong with c d e");
        });
    }

    /// A caller expects its reply before the request can be seen.
    fn a_reply_is_not_lost_however_soon_it_comes(near, far) {
        assert_eq!(far.ask("later serve 3000"), "begun");
        for _ in 0..3000 {
            near.call(request("ping"), LONG).unwrap();
        }
        assert_eq!(far.ask("result"), "OK");
        assert_eq!(status(near.read()), "SHOULD_WAIT");
    }

    fn fewer_than_four_bytes_are_an_invalid_argument_and_are_given_back(near, far) {
        for len in 0..4 {
            let short = with_handles(vec![7; len], far.files(["a"]));
            let refused = near.call(short, LONG).unwrap_err();
            assert_eq!(refused.outcome(), "INVALID_ARGS in the write phase");
            let back = refused.message.unwrap();
            assert_eq!((back.data, back.handles.len()), (vec![7; len], 1));
            let refused = near.call_with_txid(vec![7; len], LONG).unwrap_err();
            assert_eq!(refused.outcome(), "INVALID_ARGS in the write phase");
        }
        far.nothing_came(&near);
    }

    fn limits_are_checked_before_that_and_handles_behind_it(near, far) {
        let weak = || far.file("weak").replace(Rights::READ).unwrap();
        let many = || (0..65).map(|_| weak()).collect();
        let rows = [
            (MessagePacket::from(vec![0; 65537]), "OUT_OF_RANGE in the write phase"),
            (with_handles(vec![0; 3], many()), "OUT_OF_RANGE in the write phase"),
            (with_handles(vec![0; 3], vec![weak()]), "INVALID_ARGS in the write phase"),
            (with_handles(vec![0; 4], vec![weak()]), "ACCESS_DENIED in the write phase"),
        ];
        for (message, wanted) in rows {
            assert_eq!(status(near.call(message, LONG)), wanted);
        }
        far.nothing_came(&near);
        near.close();
        assert_eq!(status(near.call(vec![0; 3], LONG)), "BAD_HANDLE in the write phase");
    }

    /// *Decision*: the message comes back, as in Magenta; dropping the error consumes it, as Zircon does.
    fn a_call_to_a_closed_peer_fails_in_the_write_phase_with_the_request_as_it_was(near, far) {
        assert_eq!(far.ask("close"), "OK");
        let (handle, mut witness) = witness();
        let refused = near.call(with_handles(with_id(7, "ping"), vec![handle]), LONG).unwrap_err();
        assert_eq!(refused.outcome(), "PEER_CLOSED in the write phase");
        let back = refused.message.unwrap();
        assert_eq!((shown_call(&back), back.handles.len()), ("00000007 ping with ".into(), 1));
        drop(back);
        assert!(is_closed(&mut witness, SOON));
    }

    fn a_deadline_that_has_passed_still_sends_and_then_times_out(near, far) {
        let late =
            near.call(with_handles(request("late"), far.files(["a"])), Duration::ZERO).unwrap_err();
        assert_eq!(
            (late.outcome(), late.message.is_none()),
            ("TIMED_OUT in the read phase".into(), true)
        );
        assert_eq!(far.ask("await-call"), "80000000 late with a");
    }

    /// *Decision*: the queue is bounded; Zircon's calls always send.
    fn a_call_without_space_fails_in_the_write_phase_with_its_message_at_its_deadline(near, far) {
        let (count, _) = fill(&near);
        for deadline in [Duration::ZERO, SHORT] {
            let start = Instant::now();
            let late = near
                .call(with_handles(with_id(7, "late"), far.files(["a"])), deadline)
                .unwrap_err();
            assert!(start.elapsed() >= deadline);
            assert_eq!(late.outcome(), "TIMED_OUT in the write phase");
            assert_eq!(shown_call(&late.message.unwrap()), "00000007 late with a");
        }
        assert_eq!(far.ask(&format!("drain {count}")), "OK");
        far.nothing_came(&near);
    }

    fn a_call_waits_for_space_to_send(near, far) {
        let (count, _) = fill(&near);
        thread::scope(|scope| {
            let call = scope.spawn(|| near.call(request("waits"), LONG).unwrap());
            thread::sleep(SHORT);
            assert_eq!(far.ask(&format!("drain {count}")), "OK");
            let asked = far.ask("reply pong");
            assert!(asked.ends_with(" waits"), "{asked}");
            assert!(shown_call(&call.join().unwrap()).ends_with(" pong"));
        });
    }

    fn a_call_without_a_reply_times_out_in_the_read_phase_and_its_handles_are_gone(near, far) {
        let (handle, mut witness) = witness();
        let start = Instant::now();
        let late = near.call(with_handles(request("ping"), vec![handle]), SHORT).unwrap_err();
        assert!(start.elapsed() >= SHORT);
        assert_eq!(
            (late.outcome(), late.phase),
            ("TIMED_OUT in the read phase".into(), CallPhase::Read)
        );
        assert!(late.message.is_none());
        assert!(!is_closed(&mut witness, SHORT), "the other end may read it still");
        assert_eq!(far.ask("read").len(), r"\x00\x00\x00\x80ping with ".len());
        assert!(is_closed(&mut witness, SOON));
    }

    fn a_call_whose_own_end_is_closed_is_canceled(near, far) {
        thread::scope(|scope| {
            let calls = [(); 3].map(|()| scope.spawn(|| status(near.call(request("ping"), LONG))));
            for _ in &calls {
                far.ask("await-call");
            }
            let start = Instant::now();
            near.close();
            for call in calls {
                assert_eq!(call.join().unwrap(), "CANCELED in the read phase");
            }
            assert!(start.elapsed() < SOON);
        });
    }

    fn a_call_whose_peer_is_closed_ends(near, far) {
        thread::scope(|scope| {
            let calls = [(); 3].map(|()| scope.spawn(|| status(near.call(request("ping"), LONG))));
            for _ in &calls {
                far.ask("await-call");
            }
            let start = Instant::now();
            assert_eq!(far.ask("close"), "OK");
            for call in calls {
                assert_eq!(call.join().unwrap(), "PEER_CLOSED in the read phase");
            }
            assert!(start.elapsed() < SOON);
        });
    }

    fn a_call_whose_peer_is_killed_ends(near, far) {
        thread::scope(|scope| {
            let calls = [(); 3].map(|()| scope.spawn(|| status(near.call(request("ping"), LONG))));
            for _ in &calls {
                far.ask("await-call");
            }
            let start = Instant::now();
            far.die();
            for call in calls {
                assert_eq!(call.join().unwrap(), "PEER_CLOSED in the read phase");
            }
            assert!(start.elapsed() < SOON);
        });
    }

    fn handles_of_a_request_that_was_sent_are_gone_however_the_call_ends(near, far) {
        let call = |handle, deadline| {
            status(near.call(with_handles(request("ping"), vec![handle]), deadline))
        };
        thread::scope(|scope| {
            let ((read, mut one), (unread, mut other)) = (witness(), witness());
            let first = scope.spawn(|| call(read, LONG));
            far.ask("await-call");
            assert!(is_closed(&mut one, SOON), "read, and dropped by its reader");
            assert_eq!(call(unread, Duration::ZERO), "TIMED_OUT in the read phase");
            assert!(!is_closed(&mut other, SHORT), "in the channel");
            far.die();
            assert_eq!(first.join().unwrap(), "PEER_CLOSED in the read phase");
            assert!(is_closed(&mut other, SOON));
        });
    }

    fn a_call_that_waits_for_space_ends_when_an_end_is_closed(near, far) {
        let _ = fill(&near);
        thread::scope(|scope| {
            let calls =
                [(); 2].map(|()| scope.spawn(|| near.call(with_id(7, "ping"), LONG).unwrap_err()));
            thread::sleep(SHORT);
            assert_eq!(far.ask("close"), "OK");
            for call in calls {
                let ended = call.join().unwrap();
                assert_eq!(ended.outcome(), "PEER_CLOSED in the write phase");
                assert_eq!(ended.message.unwrap().data, with_id(7, "ping"));
            }
        });
        let (near, _other) = Channel::create().unwrap();
        let _ = fill(&near);
        thread::scope(|scope| {
            let calls =
                [(); 2].map(|()| scope.spawn(|| near.call(with_id(7, "ping"), LONG).unwrap_err()));
            thread::sleep(SHORT * 10);
            near.close();
            for call in calls {
                let ended = call.join().unwrap();
                assert_eq!(ended.outcome(), "CANCELED in the write phase");
                assert_eq!(ended.message.unwrap().data, with_id(7, "ping"));
            }
        });
    }

    fn a_list_says_what_becomes_of_handles_and_types_and_rights_come_with_the_reply(near, far) {
        let kept = far.file("kept");
        thread::scope(|scope| {
            let call = scope.spawn(|| {
                let mut list =
                    [HandleDisposition::moved(copy(&kept)), HandleDisposition::duplicate(&kept)];
                near.call_etc(&with_id(0, "ping"), &mut list, LONG).unwrap()
            });
            assert_eq!(far.ask("reply pong a"), "80000000 ping with kept kept");
            let (bytes, infos) = call.join().unwrap();
            assert_eq!(bytes, with_id(1 << 31, "pong"));
            assert_eq!((infos.len(), infos[0].handle_type), (1, HandleType::File));
            assert_eq!(infos[0].rights, Rights::BASIC | Rights::IO | Rights::MAP);
        });
        assert_eq!(far.open_files(), 1);
    }

    fn a_list_that_fails_closes_what_was_to_be_moved_in_either_phase(near, far) {
        let kept = far.file("kept");
        let mut fails = |bytes: &[u8], spoiled: bool, wanted: &str| {
            let (handle, mut witness) = witness();
            let mut list =
                vec![HandleDisposition::moved(handle), HandleDisposition::duplicate(&kept)];
            if spoiled {
                list[1].handle_type = Some(HandleType::Socket);
            }
            let failed = near.call_etc(bytes, &mut list, SHORT).unwrap_err();
            assert_eq!((failed.outcome(), failed.message.is_none()), (wanted.into(), true));
            if wanted.ends_with("read phase") {
                far.ask("await");
            }
            assert!(is_closed(&mut witness, SOON), "{wanted}");
            assert_eq!(far.open_files(), 1, "{wanted}");
        };
        fails(&[0; 65537], false, "OUT_OF_RANGE in the write phase");
        fails(&[0; 3], false, "INVALID_ARGS in the write phase");
        fails(&[0; 4], true, "WRONG_TYPE in the write phase");
        fails(&[0; 4], false, "TIMED_OUT in the read phase");
        near.close();
        fails(&[0; 4], false, "BAD_HANDLE in the write phase");
    }

    /// A request is never a reply, whatever it begins with, so both ends may call with the same id.
    fn both_ends_call_at_once_with_one_id(near, far) {
        thread::scope(|scope| {
            let call = scope.spawn(|| near.call(request("near"), LONG).unwrap());
            assert_eq!(far.ask("await-call"), "80000000 near");
            assert_eq!(far.ask("later call far a"), "begun");
            let request = near.read_timeout(LONG).unwrap();
            assert_eq!(shown_call(&request), "80000000 far with a");
            near.write(with_id(id_of(&request), "to-far")).unwrap();
            assert_eq!(far.ask("result"), "80000000 to-far");
            assert_eq!(far.ask("write-as 80000000 to-near"), "OK");
            assert_eq!(shown_call(&call.join().unwrap()), "80000000 to-near");
        });
    }

    fn what_is_written_while_a_call_waits_is_no_request(near, far) {
        thread::scope(|scope| {
            let call = scope.spawn(|| near.call(request("ping"), LONG).unwrap());
            assert_eq!(far.ask("await-call"), "80000000 ping");
            near.write(message("beside", far.files(["a"]))).unwrap();
            assert_eq!(far.ask("read"), "beside with a");
            assert_eq!(far.ask("write-as 80000000 pong"), "OK");
            assert_eq!(shown(&call.join().unwrap()), r"\x00\x00\x00\x80pong");
        });
    }
}

fn copy(handle: &Handle) -> Handle {
    handle.duplicate(Rights::SAME_RIGHTS).unwrap()
}
