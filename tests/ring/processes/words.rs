//! Replayed words that can fail under a copy, as the pages of a truncated file do.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::sync::atomic::Ordering;

use super::super::super::memory::Sleepers;
use super::super::super::{Memory, Word};
use super::super::replay::Replay;
use super::memory::{lane_position, lane_word};

/// A ring's words, replayed.
#[derive(Debug)]
pub(super) struct Words<'a> {
    pub(super) replay: &'a Replay<'a>,
    /// Of which lane; 0 for a ring that is none.
    pub(super) lane: u8,
    /// Whether the next copy of payload is left half way.
    pub(super) is_faulty: Cell<bool>,
}

/// Thrown out of a copy that is left half way.
pub(super) struct Fault;

impl<'a> Words<'a> {
    pub(super) fn new(replay: &'a Replay<'a>, lane: u8) -> Self {
        Self { replay, lane, is_faulty: Cell::new(false) }
    }
}

impl Memory for Words<'_> {
    fn load(&self, word: Word, order: Ordering) -> u64 {
        self.replay.load(lane_word(self.lane, word), order)
    }

    fn store(&self, word: Word, value: u64, order: Ordering) {
        self.replay.store(lane_word(self.lane, word), value, order);
    }

    fn compare_exchange(&self, word: Word, current: u64, new: u64) -> Result<u64, u64> {
        self.replay.compare_exchange(lane_word(self.lane, word), current, new)
    }

    fn fetch_or(&self, word: Word, bits: u64) {
        self.replay.fetch_or(lane_word(self.lane, word), bits);
    }

    fn fetch_and(&self, word: Word, bits: u64) {
        self.replay.fetch_and(lane_word(self.lane, word), bits);
    }

    fn fence(&self, order: Ordering) {
        self.replay.fence(order);
    }

    fn barrier(&self) -> bool {
        self.replay.barrier()
    }

    fn is_reached_by_barriers(&self) -> bool {
        self.replay.is_reached_by_barriers()
    }

    fn notify(&self, word: Word, sleepers: Sleepers) {
        self.replay.notify(lane_word(self.lane, word), sleepers);
    }

    fn copy_in(&self, position: u64, bytes: &[u8]) {
        self.replay.copy_in(lane_position(self.lane, position), bytes);
        if self.is_faulty.replace(false) {
            resume_unwind(Box::new(Fault));
        }
    }
}
