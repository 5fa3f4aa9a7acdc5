//! What is called when signals change.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use tombolo::object::KernelObject;
use tombolo::{Channel, Signal};

use super::ends::{LONG, fill};

const NEW: Signal = Signal::WRITABLE;

/// Adds a callback that tells what it is called with, until `is_last`.
fn listen(end: &Channel, is_last: impl Fn(Signal) -> bool + Send + 'static) -> Receiver<Signal> {
    let (tell, told) = channel();
    let callback = move |signals| {
        tell.send(signals).unwrap();
        is_last(signals)
    };
    end.add_signal_callback(Box::new(callback)).unwrap();
    told
}

/// What it is called with next that is `wanted`; what comes before may be told or not.
fn until(told: &Receiver<Signal>, wanted: Signal) {
    while told.recv_timeout(LONG).unwrap() != wanted {}
}

sentences! {
    fn a_callback_is_called_at_once_and_kept_unless_it_says_that_it_is_done(near, far) {
        let kept = listen(&near, |_| false);
        let done = listen(&near, |_| true);
        assert_eq!((kept.try_recv(), done.try_recv()), (Ok(NEW), Ok(NEW)));
        assert!(done.recv().is_err(), "it was dropped");
        far.set(Signal::USER_0);
        assert_eq!(kept.recv_timeout(LONG), Ok(NEW | Signal::USER_0));
    }

    fn it_is_dropped_once_it_is_done(near, far) {
        let told = listen(&near, |signals| signals.contains(Signal::USER_1));
        far.set(Signal::USER_0);
        far.set(Signal::USER_1);
        until(&told, NEW | Signal::USER_0 | Signal::USER_1);
        assert!(told.recv_timeout(LONG).is_err());
    }

    fn what_this_end_changes_is_told_before_the_call_returns(near, far) {
        assert_eq!(far.ask("write text"), "OK");
        let told = listen(&near, |_| false);
        assert_eq!(told.try_recv(), Ok(NEW | Signal::READABLE));
        near.signal_set(Signal::USER_0).unwrap();
        assert_eq!(told.try_recv(), Ok(NEW | Signal::READABLE | Signal::USER_0));
        near.signal_set(Signal::USER_0).unwrap();
        assert!(told.try_recv().is_err(), "that is so already");
        near.read().unwrap();
        assert_eq!(told.try_recv(), Ok(NEW | Signal::USER_0));
        near.close();
        assert_eq!(told.try_recv(), Ok(Signal::HANDLE_CLOSED));
        assert!(told.recv().is_err(), "it was dropped");
    }

    fn messages_and_the_going_of_the_peer_are_told(near, far) {
        let told = listen(&near, |_| false);
        assert_eq!(far.ask("write text"), "OK");
        until(&told, NEW | Signal::READABLE);
        far.die();
        until(&told, Signal::PEER_CLOSED | Signal::READABLE);
        near.read().unwrap();
        until(&told, Signal::PEER_CLOSED); // by this thread, or by the one that is calling it still
        near.signal_set(Signal::USER_0).unwrap();
        until(&told, Signal::PEER_CLOSED | Signal::USER_0);
    }

    fn a_lack_of_space_and_its_end_are_told(near, far) {
        let told = listen(&near, |_| false);
        let count = fill(&near);
        assert_eq!(told.try_iter().last(), Some(Signal::empty()));
        assert_eq!(far.ask(&format!("take {count}")), "OK");
        until(&told, NEW);
    }

    fn a_callback_may_read_write_signal_add_one_and_close_its_end(near, far) {
        let near = Arc::new(near);
        let log = Arc::new(Mutex::new(Vec::new()));
        let (end, noted) = (Arc::downgrade(&near), log.clone());
        let callback = move |signals: Signal| {
            noted.lock().unwrap().push(signals);
            let Some(end) = end.upgrade() else { return true };
            if signals.contains(Signal::READABLE) {
                let message = end.read().unwrap();
                end.write(message).unwrap();
                end.signal_set(Signal::USER_0).unwrap();
                assert_eq!(end.signal(), NEW | Signal::USER_0);
                end.add_signal_callback(Box::new(|_| true)).unwrap();
                assert!(end.wait_one(Signal::USER_0, LONG.into()).is_ok());
            } else if signals.contains(Signal::USER_0) {
                end.close();
            }
            false
        };
        near.add_signal_callback(Box::new(callback)).unwrap();
        assert_eq!(far.ask("write text"), "OK");
        assert_eq!(far.ask("wait 4"), "Signal(READABLE | PEER_CLOSED)");
        assert_eq!(far.ask("read"), "text");
        let expected =
            [NEW, NEW | Signal::READABLE, NEW | Signal::USER_0, Signal::HANDLE_CLOSED];
        let start = std::time::Instant::now();
        while log.lock().unwrap().len() < expected.len() && start.elapsed() < LONG {
            std::thread::yield_now();
        }
        assert_eq!(*log.lock().unwrap(), expected);
    }

    fn one_that_panics_hurts_no_other(near, far) {
        near.add_signal_callback(Box::new(|signals| {
            if signals != NEW { panic!("as it is meant to") }
            false
        })).unwrap();
        let told = listen(&near, |_| false);
        for signals in [Signal::USER_0, Signal::USER_1] {
            far.set(signals);
        }
        until(&told, NEW | Signal::USER_0 | Signal::USER_1);
    }

    fn a_released_end_tells_its_callbacks_that_it_is_none_any_more(near, far) {
        assert_eq!(far.ask("write met"), "OK");
        let told = listen(&near, |_| false);
        let handle = near.release().unwrap();
        until(&told, Signal::HANDLE_CLOSED);
        assert!(told.recv().is_err(), "it was dropped");
        drop(handle);
    }
}
