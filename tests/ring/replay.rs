//! Running the real code one access at a time.
//!
//! An operation runs over a log of what its accesses gave so far. At the first access beyond the
//! log it is stopped, and that access is its next step. So the state of a thread is a value: the
//! operation it is in, what it kept from earlier ones, and the log. Whoever explores interleavings
//! copies and compares such values, and what is explored is the code itself.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;
use std::thread;

use super::super::memory::Sleepers;
use super::super::{Memory, Word};
use super::processes::Call;
use super::recording::Access;

/// Answers accesses from a log and stops at its end.
#[derive(Debug)]
pub(super) struct Replay<'a> {
    log: &'a [u64],
    answered: Cell<usize>,
    next: RefCell<Option<Access>>,
}

/// Thrown to leave the operation at its next step.
struct Stopped;

/// What running an operation over a log led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reached<T> {
    /// It wants to do this.
    Step(Access),
    /// It is over.
    End(T),
}

/// Runs `operation` over `log`, which must be what it was given before.
pub(super) fn replay<T>(log: &[u64], operation: impl FnOnce(&Replay<'_>) -> T) -> Reached<T> {
    let replay = Replay { log, answered: Cell::new(0), next: RefCell::new(None) };
    match catch_unwind(AssertUnwindSafe(|| operation(&replay))) {
        Ok(_) if replay.next.borrow().is_some() => Reached::Step(stopped_at(&replay)),
        Ok(result) => {
            assert_eq!(replay.answered.get(), log.len(), "the operation is not deterministic");
            Reached::End(result)
        }
        Err(thrown) if thrown.is::<Stopped>() => Reached::Step(stopped_at(&replay)),
        Err(panic) => resume_unwind(panic),
    }
}

fn stopped_at(replay: &Replay<'_>) -> Access {
    replay.next.take().expect("stopped at an access")
}

impl Replay<'_> {
    /// Asks for what no ring has: a step like any other.
    pub(super) fn call(&self, call: Call) -> u64 {
        self.answer(Access::Call(call))
    }

    fn answer(&self, access: Access) -> u64 {
        if self.next.borrow().is_some() {
            return 0; // unwinding: what destructors do is not part of a process that is stopped
        }
        if let Some(value) = self.log.get(self.answered.get()) {
            self.answered.set(self.answered.get() + 1);
            return *value;
        }
        self.next.replace(Some(access));
        if thread::panicking() {
            return 0; // an operation that unwinds by itself: its destructors' accesses are its steps
        }
        resume_unwind(Box::new(Stopped))
    }
}

impl Memory for &Replay<'_> {
    fn load(&self, word: Word, order: Ordering) -> u64 {
        self.answer(Access::Load(word, order.into()))
    }

    fn store(&self, word: Word, value: u64, order: Ordering) {
        self.answer(Access::Store(word, value, order.into()));
    }

    fn compare_exchange(&self, word: Word, current: u64, new: u64) -> Result<u64, u64> {
        let found = self.answer(Access::CompareExchange(word, current, new));
        if found == current { Ok(found) } else { Err(found) }
    }

    fn fetch_or(&self, word: Word, bits: u64) {
        self.answer(Access::FetchOr(word, bits));
    }

    fn fetch_and(&self, word: Word, bits: u64) {
        self.answer(Access::FetchAnd(word, bits));
    }

    fn fence(&self, order: Ordering) {
        self.answer(Access::Fence(order.into()));
    }

    fn barrier(&self) -> bool {
        self.answer(Access::Barrier) == 1
    }

    fn is_reached_by_barriers(&self) -> bool {
        self.answer(Access::AskReached) == 1
    }

    fn notify(&self, word: Word, sleepers: Sleepers) {
        self.answer(Access::Notify(word, sleepers));
    }
}
