//! What waiter and victims tell the run in shared words. Each word has one writer.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

use crate::Failure;
use crate::clock::now_ns;
use crate::shared_words::SharedWords;

/// Words of the waiter, on line 0. On line 1 lies the victims' own.
const PASSED: usize = 0;
const ENDED: usize = 1;
const ENDED_NS: usize = 2;

/// The shared words.
#[derive(Debug)]
pub(super) struct Notes {
    words: SharedWords,
}

impl Notes {
    /// Makes them at `path`, or finds those that are there.
    ///
    /// # Errors
    /// The system's refusal.
    pub(super) fn at(path: &Path) -> Result<Self, Failure> {
        Ok(Self { words: SharedWords::create(path, 2)? })
    }

    /// The waiter notes that a message has passed.
    pub(super) fn pass(&self) {
        self.of_waiter(PASSED).fetch_add(1, Release);
    }

    /// The waiter notes that a wait has ended with nobody at the other end, now.
    pub(super) fn end(&self) {
        self.of_waiter(ENDED_NS).store(now_ns(), Release);
        self.of_waiter(ENDED).fetch_add(1, Release);
    }

    /// How many messages have passed.
    pub(super) fn passed(&self) -> u64 {
        self.of_waiter(PASSED).load(Acquire)
    }

    /// How many waits have ended.
    pub(super) fn ended(&self) -> u64 {
        self.of_waiter(ENDED).load(Acquire)
    }

    /// When the last of them did, by [`now_ns`].
    pub(super) fn ended_ns(&self) -> u64 {
        self.of_waiter(ENDED_NS).load(Acquire)
    }

    /// Victim `number` notes that it has done all that it does.
    pub(super) fn settle(&self, number: u64) {
        self.words.word(1, 0).store(number, Release);
    }

    /// The victim that has settled last.
    pub(super) fn settled(&self) -> u64 {
        self.words.word(1, 0).load(Acquire)
    }

    fn of_waiter(&self, index: usize) -> &AtomicU64 {
        self.words.word(0, index)
    }
}
