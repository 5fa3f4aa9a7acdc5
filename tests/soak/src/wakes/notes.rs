//! What waiter and actor tell each other in shared words, beside the ring. Each word has one writer.

use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::{hint, thread};

use super::combination::Place;
use crate::Failure;
use crate::clock::now_ns;
use crate::shared_words::SharedWords;

/// Lines.
const WAITER: usize = 0;
const ACTOR: usize = 1;
/// Words of either: the round, and when it acted in it.
const ROUND: usize = 0;
const ACTED_NS: usize = 1;
/// Looks before the processor is offered to others.
const LOOKS: u32 = 1000;

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

    /// The waiter announces `round`, from 1 on.
    pub(super) fn announce(&self, round: u64) {
        self.words.word(WAITER, ROUND).store(round, Release);
    }

    /// Looks until `round` has been announced, without ever sleeping.
    pub(super) fn look_for(&self, round: u64, place: Place) {
        let mut looks = 0;
        while self.words.word(WAITER, ROUND).load(Acquire) < round {
            looks += 1;
            if place == Place::Together || looks > LOOKS {
                thread::yield_now();
            } else {
                hint::spin_loop();
            }
        }
    }

    /// The actor notes that it has acted in `round`.
    pub(super) fn act(&self, round: u64) {
        self.words.word(ACTOR, ACTED_NS).store(now_ns(), Release);
        self.words.word(ACTOR, ROUND).store(round, Release);
    }

    /// How long ago the actor acted in `round`, in nanoseconds; 0 where it is about to note that.
    pub(super) fn since_act_ns(&self, round: u64) -> u64 {
        if self.words.word(ACTOR, ROUND).load(Acquire) != round {
            return 0;
        }
        now_ns().saturating_sub(self.words.word(ACTOR, ACTED_NS).load(Acquire))
    }
}
