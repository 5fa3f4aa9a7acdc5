//! Waiting for signals.

use std::thread;
use std::time::{Duration, Instant};

use tombolo::object::{KernelObject, Status};
use tombolo::{Channel, Deadline, Signal};

use super::ends::{LONG, SHORT, fill, wait};

/// What `wait` has given, and what it says when `act` is done while it sleeps.
fn while_it_waits(
    near: &Channel,
    signals: Signal,
    act: impl FnOnce(),
) -> Result<Signal, (Status, Signal)> {
    thread::scope(|scope| {
        let waits = scope.spawn(move || near.wait_one(signals, LONG.into()));
        thread::sleep(SHORT);
        act();
        waits.join().unwrap().map_err(|error| (error.status(), error.observed))
    })
}

sentences! {
    fn a_wait_gives_all_signals_once_one_of_those_is_there(near, far) {
        let asked = Signal::USER_0 | Signal::USER_1;
        near.signal_set(Signal::USER_5).unwrap();
        let seen = while_it_waits(&near, asked, || far.set(Signal::USER_1));
        assert_eq!(seen, Ok(Signal::WRITABLE | Signal::USER_1 | Signal::USER_5));
        assert_eq!(near.wait_one(asked, Deadline::PAST).unwrap(), seen.unwrap());
    }

    fn it_ends_for_a_message_and_a_read_that_follows_gets_it(near, far) {
        for _ in 0..10 {
            let seen = while_it_waits(&near, Signal::READABLE, || {
                assert_eq!(far.ask("write text"), "OK");
            });
            assert_eq!(seen, Ok(Signal::WRITABLE | Signal::READABLE));
            assert_eq!(near.read().unwrap().data, b"text");
        }
    }

    fn it_ends_when_the_peer_dies(near, far) {
        let seen = while_it_waits(&near, Signal::READABLE | Signal::PEER_CLOSED, || far.die());
        assert_eq!(seen, Ok(Signal::PEER_CLOSED));
    }

    fn it_ends_for_a_signal_that_this_end_sets(near, far) {
        let seen = while_it_waits(&near, Signal::USER_3, || near.signal_set(Signal::USER_3).unwrap());
        assert_eq!(seen, Ok(Signal::WRITABLE | Signal::USER_3));
        assert_eq!(far.ask("signals"), "Signal(WRITABLE)");
    }

    fn after_the_deadline_it_tells_what_there_is(near, far) {
        far.set(Signal::USER_0);
        for (deadline, at_least) in [(Deadline::PAST, Duration::ZERO), (SHORT.into(), SHORT)] {
            let start = Instant::now();
            let told = near.wait_one(Signal::USER_1, deadline).unwrap_err();
            assert!(start.elapsed() >= at_least);
            assert_eq!(told.status(), Status::TIMED_OUT);
            assert_eq!(told.observed, Signal::WRITABLE | Signal::USER_0);
        }
    }

    fn it_is_canceled_when_the_end_is_closed_or_released(near, far) {
        let other = Channel::create().unwrap();
        assert_eq!(far.ask("write met"), "OK");
        let canceled = Err((Status::CANCELED, Signal::HANDLE_CLOSED));
        let released = while_it_waits(&other.0, Signal::USER_0, || drop(other.0.release().unwrap()));
        assert_eq!(released, canceled);
        assert_eq!(while_it_waits(&near, Signal::USER_0, || near.close()), canceled);
        let told = near.wait_one(Signal::USER_0, LONG.into()).unwrap_err();
        assert_eq!((told.status(), told.observed), (Status::BAD_HANDLE, Signal::HANDLE_CLOSED));
    }

    fn it_ends_when_there_is_space_again(near, far) {
        let count = fill(&near);
        assert_eq!(near.wait_one(Signal::WRITABLE, SHORT.into()).unwrap_err().observed, Signal::empty());
        let seen = while_it_waits(&near, Signal::WRITABLE, || {
            assert_eq!(far.ask(&format!("take {count}")), "OK");
        });
        assert_eq!(seen, Ok(Signal::WRITABLE));
        near.try_write("again").unwrap();
    }

    fn many_threads_wait_at_once_beside_one_that_reads(near, far) {
        thread::scope(|scope| {
            let waits: Vec<_> = (24..32)
                .map(|bit| Signal::from_bits(1 << bit).unwrap())
                .map(|signal| (signal, scope.spawn({ let near = &near; move || wait(near, signal) })))
                .collect();
            let reads = scope.spawn(|| near.read_timeout(LONG));
            thread::sleep(SHORT);
            assert_eq!(far.ask("write text"), "OK");
            assert_eq!(reads.join().unwrap().unwrap().data, b"text");
            assert!(waits.iter().all(|(_, one)| !one.is_finished()));
            for (signal, one) in waits {
                far.set(signal);
                assert!(one.join().unwrap().contains(signal));
            }
        });
    }

    fn signals_that_come_and_go_all_the_time_keep_no_wait_from_its_end(near, far) {
        thread::scope(|scope| {
            let waits = scope.spawn(|| wait(&near, Signal::USER_0));
            assert_eq!(far.ask("pulse 20000"), "OK");
            assert!(!waits.is_finished());
            far.set(Signal::USER_0);
            assert!(waits.join().unwrap().contains(Signal::USER_0));
        });
    }
}
