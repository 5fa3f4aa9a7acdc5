//! Which signals an end has, and who may change them.

use tombolo::object::{KernelObject, ObjectError, Status};
use tombolo::{Channel, Rights, Signal};

use super::ends::{LONG, comes_to, fill, peek, wait, with_rights};

const NEW: Signal = Signal::WRITABLE;
const NONE: Signal = Signal::empty();

sentences! {
    fn a_new_end_is_writable_and_nothing_else(near, far) {
        assert_eq!((near.signal(), peek(&near)), (NEW, NEW));
        assert_eq!(far.ask("signals"), "Signal(WRITABLE)");
        assert_eq!(near.allowed_signals(), Signal::USER_ALL);
    }

    fn it_is_readable_while_there_is_a_message(near, far) {
        for text in ["one", "two"] {
            assert_eq!(far.ask(&format!("write {text}")), "OK");
        }
        assert_eq!(near.signal(), NEW | Signal::READABLE);
        near.read().unwrap();
        assert_eq!(near.signal(), NEW | Signal::READABLE);
        near.read().unwrap();
        assert_eq!(near.signal(), NEW);
    }

    fn a_reply_to_a_call_makes_nothing_readable(near, far) {
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| near.call(b"\0\0\0\0", LONG));
            assert_eq!(far.ask("answer"), "OK");
            while !caller.is_finished() {
                assert!(!near.signal().contains(Signal::READABLE));
            }
            caller.join().unwrap().unwrap();
        });
        assert_eq!(near.signal(), NEW);
    }

    fn a_peer_that_goes_takes_writable_and_brings_peer_closed_in_one_step(near, far) {
        std::thread::scope(|scope| {
            let looks = scope.spawn(|| {
                let start = std::time::Instant::now();
                loop {
                    let seen = near.signal();
                    let both = Signal::WRITABLE | Signal::PEER_CLOSED;
                    assert_eq!((seen & both).bits().count_ones(), 1, "{seen:?}");
                    if seen.contains(Signal::PEER_CLOSED) {
                        break;
                    }
                    assert!(start.elapsed() < LONG);
                }
            });
            far.die();
            looks.join().unwrap();
        });
        assert_eq!(near.signal(), Signal::PEER_CLOSED);
        assert_eq!(near.write("late").unwrap_err().status(), Status::PEER_CLOSED);
    }

    fn what_a_peer_had_written_before_it_went_stays_readable(near, far) {
        assert_eq!(far.ask("write left"), "OK");
        far.die();
        assert_eq!(wait(&near, Signal::PEER_CLOSED), Signal::PEER_CLOSED | Signal::READABLE);
        assert_eq!(near.read().unwrap().data, b"left");
        assert_eq!(near.signal(), Signal::PEER_CLOSED);
    }

    fn a_write_that_says_that_the_peer_has_gone_is_not_contradicted(near, far) {
        far.die();
        while near.try_write("perhaps").is_ok() {}
        let refused = near.try_write("late").unwrap_err().status();
        if refused == Status::PEER_CLOSED {
            assert_eq!(near.signal() - Signal::READABLE, Signal::PEER_CLOSED);
        }
        comes_to(&near, Signal::PEER_CLOSED);
    }

    fn each_end_sets_and_clears_the_signals_of_both(near, far) {
        far.set(Signal::USER_0 | Signal::USER_7);
        assert_eq!(near.signal(), NEW | Signal::USER_0 | Signal::USER_7);
        near.signal_clear(Signal::USER_0).unwrap();
        near.signal_set(Signal::USER_3).unwrap();
        assert_eq!(near.signal(), NEW | Signal::USER_3 | Signal::USER_7);
        near.signal_peer(NONE, Signal::USER_1).unwrap();
        assert_eq!(far.ask("signals"), "Signal(WRITABLE | USER_1)");
        assert_eq!(far.ask("signal-change 2000000 4000000"), "OK");
        assert_eq!(far.ask("signals"), "Signal(WRITABLE | USER_2)");
        assert_eq!(near.peer().unwrap().signal(), NEW | Signal::USER_2);
    }

    fn clearing_comes_before_setting(near, far) {
        near.signal_change(Signal::USER_ALL, Signal::USER_4).unwrap();
        near.signal_change(Signal::USER_4, Signal::USER_4).unwrap();
        assert_eq!(near.signal(), NEW | Signal::USER_4);
        near.signal_peer(Signal::USER_5, Signal::USER_5).unwrap();
        assert_eq!(far.ask("signals"), "Signal(WRITABLE | USER_5)");
    }

    fn other_signals_than_those_for_programs_are_refused_and_nothing_is_changed(near, far) {
        for other in (0..24).filter_map(|bit| Signal::from_bits(1 << bit)) {
            for refused in [
                near.signal_set(other | Signal::USER_0),
                near.signal_clear(other),
                near.signal_peer(other, Signal::USER_0),
                near.signal_peer(NONE, Signal::USER_0 | other),
            ] {
                let refused = refused.unwrap_err();
                assert!(matches!(refused, ObjectError::InvalidSignals { .. }), "{refused}");
                assert_eq!(refused.status(), Status::INVALID_ARGS);
            }
        }
        assert_eq!((near.signal(), far.ask("signals")), (NEW, "Signal(WRITABLE)".into()));
    }

    fn signals_that_a_peer_has_set_outlive_it(near, far) {
        far.set(Signal::USER_2);
        far.die();
        assert_eq!(wait(&near, Signal::PEER_CLOSED), Signal::PEER_CLOSED | Signal::USER_2);
        near.signal_set(Signal::USER_3).unwrap();
        assert!(near.signal().contains(Signal::USER_2 | Signal::USER_3));
    }

    fn a_peer_that_has_gone_cannot_be_signaled(near, far) {
        far.die();
        wait(&near, Signal::PEER_CLOSED);
        let refused = near.signal_peer(NONE, Signal::USER_0).unwrap_err();
        assert_eq!(refused.status(), Status::PEER_CLOSED);
        assert_eq!(near.peer().unwrap_err().status(), Status::PEER_CLOSED);
    }

    fn an_end_that_was_closed_says_so_and_nothing_else(near, far) {
        far.set(Signal::USER_0);
        let view = near.peer().unwrap();
        near.close();
        assert_eq!(near.signal(), Signal::HANDLE_CLOSED);
        for refused in [
            near.signal_set(Signal::USER_0),
            near.signal_peer(NONE, Signal::USER_0),
            near.set_name("late"),
            near.add_signal_callback(Box::new(|_| panic!("called"))),
            near.peer().map(drop),
            view.signal_set(Signal::USER_0),
        ] {
            assert_eq!(refused.unwrap_err().status(), Status::BAD_HANDLE);
        }
        assert_eq!(far.ask("wait 4"), "Signal(PEER_CLOSED)");
    }

    fn without_the_right_to_signal_there_is_none(near, far) {
        assert_eq!(far.ask("write met"), "OK");
        let near = with_rights(near, Rights::CHANNEL_DEFAULT - Rights::SIGNAL - Rights::SIGNAL_PEER - Rights::WAIT);
        for (refused, wanted) in [
            (near.signal_set(Signal::USER_0), Rights::SIGNAL),
            (near.signal_peer(NONE, Signal::USER_0), Rights::SIGNAL_PEER),
            (near.peer().unwrap().signal_set(Signal::USER_0), Rights::SIGNAL_PEER),
            (near.wait_one(NEW, LONG.into()).map(drop).map_err(|it| it.error), Rights::WAIT),
        ] {
            let refused = refused.unwrap_err();
            assert_eq!(refused.status(), Status::ACCESS_DENIED);
            assert!(matches!(refused, ObjectError::AccessDenied { missing, .. } if missing == wanted));
        }
    }

    fn signals_and_name_go_with_an_end_that_is_released(near, far) {
        near.set_name("goes along").unwrap();
        far.set(Signal::USER_6);
        assert_eq!(far.ask("write unread"), "OK");
        let handle = near.release().unwrap();
        assert_eq!(near.signal(), Signal::HANDLE_CLOSED);
        far.set(Signal::USER_5); // on its way
        let near = Channel::from_handle(handle).unwrap();
        let expected = NEW | Signal::READABLE | Signal::USER_6 | Signal::USER_5;
        assert_eq!((near.signal(), near.name()), (expected, "goes along".into()));
        assert_eq!(far.ask("peers-name"), "goes along");
    }

    fn writable_goes_when_a_write_was_refused_and_comes_back_with_an_eighth(near, far) {
        let count = fill(&near);
        assert_eq!(near.signal(), NONE);
        assert_eq!(far.ask("take 1"), "OK");
        assert_eq!(near.signal(), NONE, "there is space for a message, and that is too little");
        assert_eq!(far.ask(&format!("take {}", count / 8 + 1)), "OK");
        comes_to(&near, NEW);
        near.try_write("again").unwrap();
        assert_eq!(near.signal(), NEW);
    }
}

/// As a message is that is written before the other end is there.
#[test]
fn what_is_set_before_the_other_end_is_opened_is_there_when_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("channel");
    let near = Channel::open_path(&path).unwrap();
    near.signal_peer(NONE, Signal::USER_1).unwrap();
    let far = Channel::open_path(&path).unwrap();
    assert_eq!(far.signal(), NEW | Signal::USER_1);
}
