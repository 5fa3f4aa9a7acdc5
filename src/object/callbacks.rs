//! What is called when an object's signals change.
//!
//! One thread at a time runs the callbacks of an object, with no lock: they may do whatever they like with it. A thread
//! that finds another running them leaves a note, and that one runs them once more. So a callback that changes the
//! signals comes back to them, and no thread waits for another's callback.
//!
//! Each callback has what it was last told. A change that comes between the call by which it is added and its being kept
//! is found by comparing with that.

use std::fmt;
use std::mem::take;
use std::sync::Mutex;

use super::kernel_object::SignalCallback;
use super::signal::Signal;
use crate::mutex::lock;
use crate::wait::run_foreign;

/// Rounds that one call runs at most: signals that change all the time hold up no thread for ever.
const ROUNDS_MAX: u32 = 16;

/// The callbacks of an object.
#[derive(Default)]
pub(super) struct Callbacks {
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    kept: Vec<Kept>,
    turn: Turn,
}

struct Kept {
    callback: SignalCallback,
    told: Signal,
}

/// Whether a thread runs them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Turn {
    #[default]
    Free,
    Taken,
    /// The thread that runs them is to do so once more.
    Again,
}

/// How a run has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// All know what there is, or another thread sees to that.
    Told,
    /// The signals have changed so often that another run is due.
    IsDue,
}

impl Callbacks {
    /// Calls `callback` with the signals that there are, and keeps it unless it wants no more. A [run](Self::run) is to
    /// follow.
    pub(super) fn add(&self, mut callback: SignalCallback, observe: impl FnOnce() -> Signal) {
        let told = observe();
        if wants_more(&mut callback, told) {
            lock(&self.inside).kept.push(Kept { callback, told });
        } else {
            discard(callback);
        }
    }

    /// Tells all of them what `observe` gives, if that is news to them, until it is none to any.
    pub(super) fn run(&self, mut observe: impl FnMut() -> Signal) -> Ended {
        let mut inside = lock(&self.inside);
        if inside.turn != Turn::Free {
            inside.turn = Turn::Again;
            return Ended::Told;
        }
        for _ in 0..ROUNDS_MAX {
            if inside.kept.is_empty() {
                inside.turn = Turn::Free;
                return Ended::Told;
            }
            inside.turn = Turn::Taken; // before the signals are looked at: what changes then is found
            let kept = take(&mut inside.kept);
            drop(inside);
            let mut rest = tell(kept, observe());
            inside = lock(&self.inside);
            rest.append(&mut inside.kept); // added meanwhile
            inside.kept = rest;
            if inside.turn == Turn::Taken {
                inside.turn = Turn::Free;
                return Ended::Told;
            }
        }
        inside.turn = Turn::Free;
        Ended::IsDue
    }
}

/// Tells those of `kept` to which `signals` are news, and gives those that are to be kept.
fn tell(kept: Vec<Kept>, signals: Signal) -> Vec<Kept> {
    let is_over = signals.contains(Signal::HANDLE_CLOSED);
    let mut rest = Vec::with_capacity(kept.len());
    for Kept { mut callback, told } in kept {
        let is_kept = (told == signals || wants_more(&mut callback, signals)) && !is_over;
        match is_kept {
            true => rest.push(Kept { callback, told: signals }),
            false => discard(callback),
        }
    }
    rest
}

/// Whether a callback that was told wants to be kept. One that panics is called no more.
fn wants_more(callback: &mut SignalCallback, signals: Signal) -> bool {
    run_foreign(|| callback(signals)) == Some(false)
}

fn discard(callback: SignalCallback) {
    run_foreign(|| drop(callback));
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;

    fn signals(now: &AtomicU32) -> Signal {
        Signal::from_bits_truncate(now.load(SeqCst))
    }

    /// A callback that notes what it is told and then does `act`.
    fn noting(
        log: &Arc<Mutex<Vec<u32>>>,
        mut act: impl FnMut(u32) -> bool + Send + 'static,
    ) -> SignalCallback {
        let log = log.clone();
        Box::new(move |signals| {
            lock(&log).push(signals.bits());
            act(signals.bits())
        })
    }

    #[test]
    fn a_change_between_the_first_call_and_the_keeping_is_told_by_the_run_that_follows() {
        let (callbacks, log) = (Callbacks::default(), Arc::default());
        let now = Arc::new(AtomicU32::new(1));
        let change = now.clone();
        callbacks.add(
            noting(&log, move |_| {
                change.store(2, SeqCst);
                false
            }),
            || signals(&now),
        );
        assert_eq!(callbacks.run(|| signals(&now)), Ended::Told);
        callbacks.run(|| signals(&now));
        assert_eq!(*lock(&log), [1, 2]);
    }

    #[test]
    fn a_change_by_a_callback_is_told_by_the_run_that_goes_on() {
        let (callbacks, log) = (Arc::new(Callbacks::default()), Arc::default());
        let now = Arc::new(AtomicU32::new(1));
        let (inner, change) = (callbacks.clone(), now.clone());
        callbacks.add(
            noting(&log, move |bits| {
                if bits == 2 {
                    change.store(4, SeqCst);
                    assert_eq!(
                        inner.run(|| signals(&change)),
                        Ended::Told,
                        "left to the outer one"
                    );
                }
                bits == 4
            }),
            || signals(&now),
        );
        now.store(2, SeqCst);
        callbacks.run(|| signals(&now));
        assert_eq!(*lock(&log), [1, 2, 4]);
        now.store(1, SeqCst);
        callbacks.run(|| signals(&now));
        assert_eq!(lock(&log).len(), 3, "it wanted no more");
    }

    #[test]
    fn signals_that_change_with_each_call_hold_up_no_thread_for_ever() {
        let callbacks = Arc::new(Callbacks::default());
        let (now, log) = (Arc::new(AtomicU32::new(0)), Arc::default());
        let (inner, change) = (callbacks.clone(), now.clone());
        callbacks.add(
            noting(&log, move |bits| {
                change.store(bits ^ 1, SeqCst);
                inner.run(|| signals(&change));
                false
            }),
            || signals(&now),
        );
        assert_eq!(callbacks.run(|| signals(&now)), Ended::IsDue);
        assert_eq!(lock(&log).len() as u32, ROUNDS_MAX + 1);
    }

    /// Panics when it is dropped, too.
    struct Rough;

    impl Drop for Rough {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[test]
    fn a_callback_that_panics_is_dropped_and_the_others_are_called() {
        let (callbacks, log) = (Callbacks::default(), Arc::default());
        let now = AtomicU32::new(1);
        let rough = Rough;
        let panics: SignalCallback = Box::new(move |signals| {
            let _ = &rough;
            if signals.bits() == 1 { false } else { panic!("called") }
        });
        callbacks.add(panics, || signals(&now));
        callbacks.add(noting(&log, |_| false), || signals(&now));
        for bits in [2, 1] {
            now.store(bits, SeqCst);
            callbacks.run(|| signals(&now));
        }
        assert_eq!(*lock(&log), [1, 2, 1]);
        assert_eq!(lock(&callbacks.inside).kept.len(), 1);
    }

    #[test]
    fn all_are_dropped_once_their_object_is_closed() {
        let (callbacks, log) = (Callbacks::default(), Arc::default());
        callbacks.add(noting(&log, |_| false), Signal::empty);
        callbacks.run(|| Signal::HANDLE_CLOSED);
        assert_eq!(*lock(&log), [0, Signal::HANDLE_CLOSED.bits()]);
        assert!(lock(&callbacks.inside).kept.is_empty());
    }
}
