//! What the victim notes in shared words before and after each step, for the survivor to compare when it is dead.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

use crate::Failure;
use crate::shared_words::SharedWords;

/// Ends that there may be in a round: half of them of channels that the survivor makes, half of the victim's.
pub(super) const ENDS_MAX: u64 = 512;
/// The first of the victim's.
pub(super) const VICTIMS_FIRST: u64 = 256;
/// Stands for a closing without a reason.
pub(super) const NO_REASON: u64 = u64::MAX;

/// A word of the victim.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    /// It has opened the channel.
    Opened,
    /// It has the channel to talk over.
    Started,
    /// Messages that it has written to it.
    Written,
    /// Requests that it was about to write.
    Asked,
    /// Those that have their replies.
    Answered,
    /// Replies that it has written.
    Replied,
}

/// A word of the victim about one end.
#[derive(Clone, Copy, Debug)]
pub(super) enum OfEnd {
    /// Messages written to it.
    Written,
    /// Messages read from it.
    Read,
    /// It is about to be closed, with that code or [`NO_REASON`].
    Closing,
    /// So it was.
    Closed,
    /// It is about to be sent back.
    Returning,
    /// So it was.
    Returned,
}

/// The words.
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
        // Words of two threads lie on lines of their own.
        Ok(Self { words: SharedWords::create(path, 6 + ENDS_MAX as usize)? })
    }

    pub(super) fn get(&self, of: Of) -> u64 {
        self.word(of).load(Acquire)
    }

    pub(super) fn set(&self, of: Of, value: u64) {
        self.word(of).store(value, Release);
    }

    pub(super) fn get_end(&self, id: u64, of: OfEnd) -> u64 {
        self.end_word(id, of).load(Acquire)
    }

    pub(super) fn set_end(&self, id: u64, of: OfEnd, value: u64) {
        self.end_word(id, of).store(value, Release);
    }

    fn word(&self, of: Of) -> &AtomicU64 {
        self.words.word(of as usize, 0)
    }

    fn end_word(&self, id: u64, of: OfEnd) -> &AtomicU64 {
        self.words.word(6 + id as usize, of as usize)
    }
}
