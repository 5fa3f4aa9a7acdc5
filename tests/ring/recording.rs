//! A memory that writes down every access.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use super::super::memory::Sleepers;
use super::super::{Memory, Word};
use super::processes::Call;

/// One access to a shared word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Access {
    Load(Word, Order),
    Store(Word, u64, Order),
    CompareExchange(Word, u64, u64),
    FetchOr(Word, u64),
    FetchAnd(Word, u64),
    Fence(Order),
    Barrier,
    AskReached,
    Notify(Word, Sleepers),
    /// Nothing of the ring's: asked of the kernel, or of the slot table.
    Call(Call),
}

/// `Ordering`, with the traits that the search needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Order {
    Relaxed,
    Acquire,
    Release,
    SeqCst,
}

impl From<Ordering> for Order {
    fn from(order: Ordering) -> Self {
        match order {
            Ordering::Relaxed => Self::Relaxed,
            Ordering::Acquire => Self::Acquire,
            Ordering::Release => Self::Release,
            _ => Self::SeqCst,
        }
    }
}

/// Passes every access on and keeps a list of them.
#[derive(Debug)]
pub(super) struct Recording<M> {
    pub(super) memory: M,
    pub(super) accesses: RefCell<Vec<Access>>,
}

impl<M> Recording<M> {
    pub(super) fn new(memory: M) -> Self {
        Self { memory, accesses: RefCell::default() }
    }

    fn note(&self, access: Access) {
        self.accesses.borrow_mut().push(access);
    }
}

impl<M: Memory> Memory for &Recording<M> {
    fn load(&self, word: Word, order: Ordering) -> u64 {
        self.note(Access::Load(word, order.into()));
        self.memory.load(word, order)
    }

    fn store(&self, word: Word, value: u64, order: Ordering) {
        self.note(Access::Store(word, value, order.into()));
        self.memory.store(word, value, order);
    }

    fn compare_exchange(&self, word: Word, current: u64, new: u64) -> Result<u64, u64> {
        self.note(Access::CompareExchange(word, current, new));
        self.memory.compare_exchange(word, current, new)
    }

    fn fetch_or(&self, word: Word, bits: u64) {
        self.note(Access::FetchOr(word, bits));
        self.memory.fetch_or(word, bits);
    }

    fn fetch_and(&self, word: Word, bits: u64) {
        self.note(Access::FetchAnd(word, bits));
        self.memory.fetch_and(word, bits);
    }

    fn fence(&self, order: Ordering) {
        self.note(Access::Fence(order.into()));
        self.memory.fence(order);
    }

    fn barrier(&self) -> bool {
        self.note(Access::Barrier);
        self.memory.barrier()
    }

    fn is_reached_by_barriers(&self) -> bool {
        self.note(Access::AskReached);
        self.memory.is_reached_by_barriers()
    }

    fn notify(&self, word: Word, sleepers: Sleepers) {
        self.note(Access::Notify(word, sleepers));
        self.memory.notify(word, sleepers);
    }
}
