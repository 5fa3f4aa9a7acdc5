//! Waiting for signals as futures.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Instant;

use tombolo::object::{KernelObject, Status, WaitError, WaitSignal};
use tombolo::{Channel, Signal};

use super::ends::{LONG, SHORT, fill};

const NEW: Signal = Signal::WRITABLE;

/// A task that counts how often it is woken.
#[derive(Default)]
struct Task(AtomicU32);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Task {
    fn poll(
        self: &Arc<Self>,
        wait: &mut Pin<&mut WaitSignal<'_>>,
    ) -> Poll<Result<Signal, WaitError>> {
        wait.as_mut().poll(&mut Context::from_waker(&Waker::from(self.clone())))
    }

    fn woken(&self) -> u32 {
        self.0.load(SeqCst)
    }

    /// Polls whenever it is woken, until there is a result.
    fn run(self: &Arc<Self>, wait: &mut Pin<&mut WaitSignal<'_>>) -> Result<Signal, WaitError> {
        let start = Instant::now();
        loop {
            let woken = self.woken();
            if let Poll::Ready(result) = self.poll(wait) {
                return result;
            }
            while self.woken() == woken {
                assert!(start.elapsed() < LONG, "it is not woken");
                thread::yield_now();
            }
        }
    }
}

sentences! {
    fn a_future_gives_all_signals_once_one_is_there(near, far) {
        let (task, mut wait) = (Arc::<Task>::default(), pin!(near.wait_signal(Signal::USER_0)));
        assert!(task.poll(&mut wait).is_pending());
        far.set(Signal::USER_1);
        far.set(Signal::USER_0);
        assert_eq!(task.run(&mut wait).unwrap(), NEW | Signal::USER_0 | Signal::USER_1);
    }

    fn one_that_is_there_already_is_given_at_the_first_poll(near, far) {
        far.set(Signal::USER_0);
        let mut wait = pin!(near.wait_signal(Signal::USER_0));
        let Poll::Ready(seen) = Arc::<Task>::default().poll(&mut wait) else { panic!() };
        assert_eq!(seen.unwrap(), NEW | Signal::USER_0);
    }

    fn messages_and_the_going_of_the_peer_wake_it(near, far) {
        let asked = Signal::READABLE | Signal::PEER_CLOSED;
        let (task, mut wait) = (Arc::<Task>::default(), pin!(near.wait_signal(asked)));
        assert!(task.poll(&mut wait).is_pending());
        assert_eq!(far.ask("write text"), "OK");
        assert_eq!(task.run(&mut wait).unwrap(), NEW | Signal::READABLE);
        near.read().unwrap();
        let mut wait = pin!(near.wait_signal(asked));
        assert!(task.poll(&mut wait).is_pending());
        far.die();
        assert_eq!(task.run(&mut wait).unwrap(), Signal::PEER_CLOSED);
    }

    fn space_wakes_it(near, far) {
        let count = fill(&near);
        let (task, mut wait) = (Arc::<Task>::default(), pin!(near.wait_signal(NEW)));
        assert!(task.poll(&mut wait).is_pending());
        assert_eq!(far.ask(&format!("take {count}")), "OK");
        assert_eq!(task.run(&mut wait).unwrap(), NEW);
    }

    fn a_poll_looks_again_though_nothing_woke_it(near, far) {
        let (task, mut wait) = (Arc::<Task>::default(), pin!(near.wait_signal(Signal::USER_0)));
        assert!(task.poll(&mut wait).is_pending());
        far.set(Signal::USER_0);
        assert!(task.poll(&mut wait).is_ready());
    }

    fn the_task_that_polled_last_is_woken(near, far) {
        let (first, second) = (Arc::<Task>::default(), Arc::<Task>::default());
        let mut wait = pin!(near.wait_signal(Signal::USER_0));
        assert!(first.poll(&mut wait).is_pending());
        assert!(second.poll(&mut wait).is_pending());
        let before = first.woken();
        far.set(Signal::USER_0);
        let start = Instant::now();
        while second.woken() == 0 {
            assert!(start.elapsed() < LONG);
            thread::yield_now();
        }
        assert!(second.poll(&mut wait).is_ready());
        assert_eq!(first.woken(), before);
    }

    fn one_that_was_dropped_wakes_no_task(near, far) {
        let task = Arc::<Task>::default();
        {
            let mut wait = pin!(near.wait_signal(Signal::USER_0));
            assert!(task.poll(&mut wait).is_pending());
        }
        let before = task.woken();
        far.set(Signal::USER_0);
        thread::sleep(SHORT);
        assert_eq!((task.woken(), Arc::strong_count(&task)), (before, 1));
    }

    fn it_is_canceled_when_the_end_is_closed(near, far) {
        let (task, mut wait) = (Arc::<Task>::default(), pin!(near.wait_signal(Signal::USER_0)));
        assert!(task.poll(&mut wait).is_pending());
        near.close();
        let told = task.run(&mut wait).unwrap_err();
        assert_eq!((told.status(), told.observed), (Status::CANCELED, Signal::HANDLE_CLOSED));
        let mut late = pin!(near.wait_signal(Signal::USER_0));
        assert_eq!(task.run(&mut late).unwrap_err().status(), Status::BAD_HANDLE);
        assert_eq!(far.ask("wait 4"), "Signal(PEER_CLOSED)");
    }

    fn threads_and_tasks_wait_side_by_side(near, far) {
        let near: &Channel = &near;
        thread::scope(|scope| {
            let waits = scope.spawn(|| near.wait_one(Signal::USER_0, LONG.into()));
            let (task, mut wait) = (Arc::<Task>::default(), pin!(near.wait_signal(Signal::USER_0)));
            assert!(task.poll(&mut wait).is_pending());
            thread::sleep(SHORT);
            far.set(Signal::USER_0);
            assert!(task.run(&mut wait).is_ok() && waits.join().unwrap().is_ok());
        });
    }
}
