//! Which message is the reply to which call, and what becomes of all others.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use super::ends::{Failure, LONG, SHORT, fill, request, shown, shown_call, status, with_id};

sentences! { "replies":
    fn a_reply_never_shows_as_readable(near, far) {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    assert_eq!(status(near.read()), "SHOULD_WAIT");
                    assert_eq!(status(near.read_timeout(Duration::from_micros(50))), "TIMED_OUT");
                }
            });
            assert_eq!(far.ask("later serve 500"), "begun");
            let replies =
                (0..500).map(|_| near.call(request("ping"), LONG)).filter(Result::is_ok).count();
            is_over.store(true, Relaxed);
            reader.join().unwrap();
            assert_eq!(replies, 500);
            assert_eq!(far.ask("result"), "OK");
        });
    }

    /// *Decision*: as in Zircon; zCore drops it, and its handles.
    fn a_reply_behind_the_deadline_is_a_message_like_any_other(near, far) {
        assert_eq!(status(near.call(request("ping"), SHORT)), "TIMED_OUT in the read phase");
        assert_eq!(far.ask("reply late a b"), "80000000 ping");
        assert_eq!(shown_call(&near.read().unwrap()), "80000000 late with a b");
        assert_eq!(status(near.call(request("ping"), SHORT)), "TIMED_OUT in the read phase");
        thread::scope(|scope| {
            let next = scope.spawn(|| near.call(request("next"), LONG).unwrap());
            assert_eq!(far.ask("reply late"), "80000001 ping");
            assert_eq!(far.ask("reply in-time"), "80000002 next");
            assert_eq!(shown_call(&next.join().unwrap()), "80000002 in-time");
        });
        assert_eq!(shown_call(&near.read().unwrap()), "80000001 late");
    }

    fn an_id_that_no_call_waits_with_is_a_message_like_any_other(near, far) {
        assert_eq!(far.ask("write-as 80000000 early a"), "OK");
        thread::scope(|scope| {
            let call = scope.spawn(|| near.call_with_txid(with_id(7, "ping"), LONG).unwrap());
            assert_eq!(far.ask("await-call"), "00000007 ping");
            assert_eq!(far.ask("write-as 90000000 stray b"), "OK");
            assert_eq!(far.ask("write-as 00000008 near-miss"), "OK");
            assert_eq!(far.ask("write-as 00000007 pong"), "OK");
            assert_eq!(shown_call(&call.join().unwrap()), "00000007 pong");
        });
        for wanted in ["80000000 early with a", "90000000 stray with b", "00000008 near-miss"] {
            assert_eq!(shown_call(&near.read().unwrap()), wanted);
        }
    }

    /// What was there before the request was sent cannot be its reply.
    fn a_message_from_before_the_call_is_no_reply_to_it(near, far) {
        assert_eq!(far.ask("write-as 00000007 before a"), "OK");
        thread::scope(|scope| {
            let call = scope.spawn(|| near.call_with_txid(with_id(7, "ping"), LONG).unwrap());
            assert_eq!(far.ask("reply pong"), "00000007 ping");
            assert_eq!(shown_call(&call.join().unwrap()), "00000007 pong");
        });
        assert_eq!(shown_call(&near.read().unwrap()), "00000007 before with a");
    }

    fn what_comes_while_a_request_finds_no_space_is_no_reply_to_it_and_is_not_lost(near, far) {
        let (count, _) = fill(&near);
        for _ in 0..2 {
            thread::scope(|scope| {
                let call = scope.spawn(|| near.call_with_txid(with_id(7, "ping"), SHORT * 10));
                thread::sleep(SHORT);
                assert_eq!(far.ask("write-as 00000007 stray a"), "OK");
                assert_eq!(shown_call(&near.read_timeout(LONG).unwrap()), "00000007 stray with a");
                assert_eq!(far.ask("write-as 00000007 unread"), "OK");
                assert_eq!(status(call.join().unwrap()), "TIMED_OUT in the write phase");
            });
            assert_eq!(shown_call(&near.read().unwrap()), "00000007 unread");
        }
        assert_eq!(far.ask(&format!("drain {count}")), "OK");
        far.nothing_came(&near);
    }

    /// *Decision*: Zircon looks only at ids with bit 31 set, and zCore at all but 0. Here the user of
    /// `call_with_txid` chooses, as in Magenta, and a reply to such a call is one whatever its id.
    fn any_id_that_a_call_was_given_is_matched_0_included(near, far) {
        for id in [0, 1, 7, (1 << 31) - 1, 1 << 31, u32::MAX] {
            thread::scope(|scope| {
                let call = scope.spawn(|| near.call_with_txid(with_id(id, "ping"), LONG).unwrap());
                assert_eq!(far.ask("reply pong a"), format!("{id:08x} ping"), "sent unchanged");
                assert_eq!(shown_call(&call.join().unwrap()), format!("{id:08x} pong with a"));
            });
        }
        assert_eq!(status(near.read()), "SHOULD_WAIT");
    }

    /// *Decision*: in Zircon and zCore such a message has the id 0, which no call ever has there. Here a
    /// call can have it, and a message without four bytes has none.
    fn a_message_of_fewer_than_four_bytes_is_no_reply(near, far) {
        thread::scope(|scope| {
            let call = scope.spawn(|| near.call_with_txid(with_id(0, "ping"), LONG).unwrap());
            assert_eq!(far.ask("await-call"), "00000000 ping");
            for wish in ["write - a", "write-many 3 0"] {
                assert_eq!(far.ask(wish), "OK");
            }
            assert_eq!(far.ask("write-as 00000000 pong"), "OK");
            assert_eq!(shown_call(&call.join().unwrap()), "00000000 pong");
        });
        assert_eq!(shown(&near.read().unwrap()), " with a");
        assert_eq!(near.read().unwrap().data, [7; 3]);
    }

    /// *Decision*: the sources leave it to the user; here it is an error, with the message back.
    fn an_id_that_a_call_waits_with_is_not_used_twice_at_once(near, far) {
        thread::scope(|scope| {
            let call = scope.spawn(|| near.call_with_txid(with_id(7, "first"), LONG).unwrap());
            assert_eq!(far.ask("await-call"), "00000007 first");
            let mut second: tombolo::MessagePacket = with_id(7, "second").into();
            second.handles = far.files(["a"]);
            let refused = near.call_with_txid(second, LONG).unwrap_err();
            assert_eq!(refused.status(), "ALREADY_EXISTS in the write phase");
            assert_eq!(shown_call(&refused.message.unwrap()), "00000007 second with a");
            far.nothing_came(&near);
            assert_eq!(far.ask("write-as 00000007 pong"), "OK");
            assert_eq!(shown_call(&call.join().unwrap()), "00000007 pong");
            let again = scope.spawn(|| near.call_with_txid(with_id(7, "again"), LONG).unwrap());
            assert_eq!(far.ask("reply pong"), "00000007 again");
            assert_eq!(shown_call(&again.join().unwrap()), "00000007 pong");
        });
    }

    fn an_id_is_free_again_after_a_time_out(near, far) {
        assert_eq!(
            status(near.call_with_txid(with_id(7, "first"), SHORT)),
            "TIMED_OUT in the read phase"
        );
        assert_eq!(far.ask("await-call"), "00000007 first");
        thread::scope(|scope| {
            let again = scope.spawn(|| near.call_with_txid(with_id(7, "again"), LONG).unwrap());
            assert_eq!(far.ask("reply pong"), "00000007 again");
            assert_eq!(shown_call(&again.join().unwrap()), "00000007 pong");
        });
    }

    fn of_several_replies_the_first_is_the_calls_and_the_others_are_messages(near, far) {
        thread::scope(|scope| {
            let call = scope.spawn(|| near.call(request("ping"), LONG).unwrap());
            assert_eq!(far.ask("await-call"), "80000000 ping");
            for name in ["a", "b", "c"] {
                assert_eq!(far.ask(&format!("write-as 80000000 {name} {name}")), "OK");
            }
            assert_eq!(shown_call(&call.join().unwrap()), "80000000 a with a");
        });
        assert_eq!(shown_call(&near.read().unwrap()), "80000000 b with b");
        assert_eq!(shown_call(&near.read().unwrap()), "80000000 c with c");
        assert_eq!(status(near.read()), "SHOULD_WAIT");
    }

    fn messages_that_a_call_passes_are_kept_in_their_order_with_their_handles(near, far) {
        thread::scope(|scope| {
            let calls = ["one", "two"].map(|name| {
                let call = scope.spawn(|| near.call(request("ping"), LONG).unwrap());
                let asked = far.ask("await-call");
                assert_eq!(far.ask(&format!("write before-{name} a b")), "OK");
                assert_eq!(far.ask(&format!("write-as {} {name} c", &asked[..8])), "OK");
                assert_eq!(far.ask(&format!("write behind-{name} d")), "OK");
                shown_call(&call.join().unwrap())
            });
            assert_eq!(calls, ["80000000 one with c", "80000001 two with c"]);
        });
        for wanted in
            ["before-one with a b", "behind-one with d", "before-two with a b", "behind-two with d"]
        {
            assert_eq!(shown(&near.read().unwrap()), wanted);
        }
        assert_eq!(status(near.read()), "SHOULD_WAIT");
    }

    fn messages_are_read_beside_a_call_that_waits(near, far) {
        thread::scope(|scope| {
            let call = scope.spawn(|| near.call(request("ping"), LONG).unwrap());
            assert_eq!(far.ask("await-call"), "80000000 ping");
            let reader = scope.spawn(|| shown(&near.read_timeout(LONG).unwrap()));
            thread::sleep(SHORT);
            assert_eq!(far.ask("write for-the-reader a"), "OK");
            assert_eq!(reader.join().unwrap(), "for-the-reader with a");
            assert_eq!(far.ask("write unread"), "OK");
            assert_eq!(shown(&near.read_timeout(LONG).unwrap()), "unread");
            assert_eq!(far.ask("write-as 80000000 pong"), "OK");
            assert_eq!(shown_call(&call.join().unwrap()), "80000000 pong");
        });
    }

    /// *Decision*: Zircon drops a reply for which the caller's buffers are too small.
    fn a_reply_may_be_as_large_as_any_message(near, far) {
        thread::scope(|scope| {
            let call =
                scope.spawn(|| near.call_with_txid(with_id(0x0707_0707, "ping"), LONG).unwrap());
            assert_eq!(far.ask("await-call"), "07070707 ping");
            assert_eq!(far.ask("write-many 65536 64"), "OK");
            let reply = call.join().unwrap();
            assert_eq!((reply.data, reply.handles.len()), (vec![7; 65536], 64));
        });
    }

    /// *Decision*: the queue is bounded, and a call never makes it grow.
    fn if_passed_messages_take_all_the_space_the_call_waits_until_they_are_read(near, far) {
        thread::scope(|scope| {
            let call = scope.spawn(|| near.call(request("ping"), LONG).unwrap());
            assert_eq!(far.ask("await-call"), "80000000 ping");
            let full = far.ask("fill");
            let count: u32 = full.strip_suffix(" SHOULD_WAIT").unwrap().parse().unwrap();
            assert_eq!(far.ask("later write-as 80000000 pong a"), "begun");
            thread::sleep(SHORT);
            assert!(!call.is_finished());
            for index in 0..count {
                assert_eq!(near.read().unwrap().data, index.to_ne_bytes());
            }
            assert_eq!(far.ask("result"), "OK");
            assert_eq!(shown_call(&call.join().unwrap()), "80000000 pong with a");
        });
        assert_eq!(status(near.read()), "SHOULD_WAIT");
    }

    fn or_until_its_deadline_and_they_stay_readable(near, far) {
        let full = far.ask("fill");
        let count: u32 = full.strip_suffix(" SHOULD_WAIT").unwrap().parse().unwrap();
        assert_eq!(status(near.call(request("ping"), SHORT)), "TIMED_OUT in the read phase");
        assert_eq!(far.ask("await-call"), "80000000 ping");
        for index in 0..count {
            assert_eq!(near.read().unwrap().data, index.to_ne_bytes());
        }
        assert_eq!(status(near.read()), "SHOULD_WAIT");
    }

    fn replies_give_their_space_back_though_nothing_is_read(near, far) {
        let large = || with_id(0, &"a".repeat(60_000));
        assert_eq!(far.ask("later serve 100"), "begun");
        let replies = (0..100).map(|_| near.call(large(), LONG).unwrap().data.len());
        assert_eq!(replies.sum::<usize>(), 100 * 60_004);
        assert_eq!(far.ask("result"), "OK");
        // An unread message keeps the space behind it only until it is read.
        assert_eq!(far.ask("write unread"), "OK");
        assert_eq!(far.ask("later serve 10"), "begun");
        for _ in 0..10 {
            near.call(large(), LONG).unwrap();
        }
        assert_eq!(far.ask("result"), "OK");
        assert_eq!(shown(&near.read().unwrap()), "unread");
        let (count, _) = fill(&near);
        let other = far.ask("fill");
        let other: u32 = other.strip_suffix(" SHOULD_WAIT").unwrap().parse().unwrap();
        assert!(count.abs_diff(other) < count / 100, "{count} this way, {other} that way");
    }

    fn a_reply_that_came_before_the_peer_closed_is_had(near, far) {
        thread::scope(|scope| {
            let call = scope.spawn(|| near.call(request("ping"), LONG).unwrap());
            assert_eq!(far.ask("await-call"), "80000000 ping");
            assert_eq!(far.ask("write unread"), "OK");
            assert_eq!(far.ask("write-as 80000000 last a"), "OK");
            far.die();
            assert_eq!(shown_call(&call.join().unwrap()), "80000000 last with a");
        });
        assert_eq!(shown(&near.read().unwrap()), "unread");
        assert_eq!(status(near.read_timeout(LONG)), "PEER_CLOSED");
    }
}
