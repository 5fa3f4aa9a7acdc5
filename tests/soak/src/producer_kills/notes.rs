//! What the processes of the run tell each other in shared words: line 0 is the run's own, line `n`
//! that of life `n`. Each word has one writer.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

use crate::Failure;
use crate::clock::now_ns;
use crate::shared_words::SharedWords;

/// Words of a life. The receiver's lies apart.
const BEGAN: usize = 0;
const RETURNED: usize = 1;
const SINCE: usize = 2;
const RECEIVED: usize = 8;
/// Word of the run: what phase it is in.
const PHASE: usize = 0;

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Producers are killed.
    Kills = 0,
    /// No more kills: the producers end by themselves.
    Ending = 1,
    /// All producers have ended.
    Ended = 2,
}

/// What a life noted, and what became of it. Counts of messages from the first on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    /// Sent or about to be sent.
    pub(super) began: u64,
    /// Their send returned.
    pub(super) returned: u64,
    /// When the send under way began, by [`now_ns`]; 0 where none is.
    pub(super) since_ns: u64,
    /// Received.
    pub(super) received: u64,
}

/// The shared words.
#[derive(Debug)]
pub(super) struct Notes {
    words: SharedWords,
}

impl Notes {
    /// Makes room at `path` for the notes of `lives` lives.
    ///
    /// # Errors
    /// The system's refusal.
    pub(super) fn create(path: &Path, lives: u64) -> Result<Self, Failure> {
        let notes = Self { words: SharedWords::create(path, lives as usize + 1)? };
        notes.reach(Phase::Kills);
        Ok(notes)
    }

    /// The notes at `path`, which are there.
    ///
    /// # Errors
    /// The system's refusal.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        Ok(Self { words: SharedWords::open(path)? })
    }

    /// Whether the run has come as far as `phase`.
    pub(super) fn has_reached(&self, phase: Phase) -> bool {
        self.words.word(0, PHASE).load(Acquire) >= phase as u64
    }

    /// Notes that the run has come to `phase`.
    pub(super) fn reach(&self, phase: Phase) {
        self.words.word(0, PHASE).store(phase as u64, Release);
    }

    /// Notes that `life` sends its messages up to number `last` now, and gives when that is.
    pub(super) fn begin(&self, life: u64, last: u64) -> u64 {
        let now = now_ns();
        self.of(life, BEGAN).store(last, Release);
        self.of(life, SINCE).store(now, Release);
        now
    }

    /// Notes that the send begun last has returned.
    pub(super) fn end(&self, life: u64, last: u64) {
        self.of(life, SINCE).store(0, Release);
        self.of(life, RETURNED).store(last, Release);
    }

    /// Notes that `count` messages of `life` have come.
    pub(super) fn receive(&self, life: u64, count: u64) {
        self.of(life, RECEIVED).store(count, Release);
    }

    /// What is noted of `life`.
    pub(super) fn life(&self, life: u64) -> Life {
        let at = |index| self.of(life, index).load(Acquire);
        Life {
            began: at(BEGAN),
            returned: at(RETURNED),
            since_ns: at(SINCE),
            received: at(RECEIVED),
        }
    }

    fn of(&self, life: u64, index: usize) -> &AtomicU64 {
        self.words.word(life as usize, index)
    }
}
