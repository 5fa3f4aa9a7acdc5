//! Which lanes of a group have something in them: the summary, one bit for each lane.
//!
//! A lane is an SPSC ring. The consumer of a group may have hundreds of them, of which a few are
//! busy, so it polls only the *active* ones, and the summary for all others.
//!
//! The producer publishes, then loads its lane's bit, and sets it if it is clear. The bit of a busy lane is
//! set, so that costs one load of a line that no process writes. The consumer stops polling a lane in three
//! steps:
//!
//! ```text
//!           clear the bit           all producers fence         polled, empty
//!  active ----------------> draining -----------------> fenced ---------------> idle
//!    ^                          |                          |                     |
//!    +----- a record found -----+--------------------------+----- bit found set -+
//! ```
//!
//! Producers that fence for each message, see [`super::doorbell`], do the second step anyway; for others
//! the consumer executes a barrier, one for all draining lanes. A producer that found its bit set before the
//! clearing has a fence behind its message by then, so that the poll of the third step finds the message.
//! One that loads the bit later finds it clear and sets it. A fenced lane stays fenced when producers are
//! released from fencing: by edge `relax`, they see the bit cleared.
//!
//! A consumer that attaches doesn't know what its predecessor cleared: to it all lanes are draining.
//!
//! **No sleep depends on the summary.** The consumer polls all lanes behind each arming. So it does after
//! each exit of a peer: a producer that was killed before it set its bit has left a message of which no
//! other word tells.
//!
//! | edge | one side | other side | carries |
//! |---|---|---|---|
//! | `summary` | producer: record header, fence, load `summary` | consumer: clear in `summary`, fence, load header | one of the two sees the other |
//! | `relax` | producer: load-acquire `rx_wake` without a request for fences, load `summary` | consumer: clear in `summary`, store-release `rx_wake` | a producer that stops fencing sees every bit that was cleared while all fenced |
//!
//! Producers and the consumer change the words a bit at a time, so always by an atomic read-modify-write.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::compiler_fence;

use tombolo_abi::LANE_COUNT_MAX;

use super::doorbell::{Polled, poll};
use super::{Memory, Ring, Word};

/// Lanes of one word.
const LANES_A_WORD: usize = 64;
/// Words of a summary.
const WORDS: usize = LANE_COUNT_MAX as usize / LANES_A_WORD;

/// A lane's bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SummaryBit {
    word: u8,
    mask: u64,
}

impl SummaryBit {
    /// The bit of lane `index`, below 512.
    pub(crate) fn of(index: u16) -> Self {
        let index = usize::from(index % LANE_COUNT_MAX);
        Self { word: (index / LANES_A_WORD) as u8, mask: 1 << (index % LANES_A_WORD) }
    }

    /// Tells the consumer of what was just published. Comes after the check whether the consumer sleeps,
    /// which fences if that is requested.
    #[inline(always)]
    pub(crate) fn set<M: Memory>(self, ring: &Ring<M>) {
        compiler_fence(SeqCst); // the load stays behind the publishing store
        // Edge `summary`: the fence is that of the check before, or else the consumer's barrier.
        if ring.memory.load(Word::Summary(self.word), Relaxed) & self.mask == 0 {
            ring.memory.fetch_or(Word::Summary(self.word), self.mask);
        }
    }
}

/// A set of a group's lanes, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct LaneSet([u64; WORDS]);

impl LaneSet {
    /// The first `count` lanes.
    fn first(count: usize) -> Self {
        let mut set = Self::default();
        (0..count).for_each(|lane| set.insert(lane));
        set
    }

    #[inline]
    fn contains(&self, lane: usize) -> bool {
        self.0[lane / LANES_A_WORD % WORDS] >> (lane % LANES_A_WORD) & 1 == 1
    }

    fn insert(&mut self, lane: usize) {
        self.0[lane / LANES_A_WORD % WORDS] |= 1 << (lane % LANES_A_WORD);
    }

    fn remove(&mut self, lane: usize) {
        self.0[lane / LANES_A_WORD % WORDS] &= !(1 << (lane % LANES_A_WORD));
    }

    fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// The first lane of the set from `from` on.
    #[inline]
    pub(crate) fn next(&self, from: usize) -> Option<usize> {
        let mut word = from / LANES_A_WORD;
        let mut bits = self.0.get(word)? & (u64::MAX << (from % LANES_A_WORD));
        while bits == 0 {
            word += 1;
            bits = *self.0.get(word)?;
        }
        Some(word * LANES_A_WORD + bits.trailing_zeros() as usize)
    }
}

/// Which lanes the consumer of a group polls.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Attention {
    /// Lanes that are polled.
    active: LaneSet,
    /// Active lanes whose bit was cleared, perhaps after their producer saw it set and published.
    draining: LaneSet,
    /// Active lanes whose producer has fenced since the bit was cleared.
    fenced: LaneSet,
    count: usize,
}

impl Attention {
    /// Attaches as the consumer of `count` lanes, at most 512.
    pub(crate) fn new(count: usize) -> Self {
        let all = LaneSet::first(count);
        Self { active: all.clone(), draining: all, fenced: LaneSet::default(), count }
    }

    #[inline]
    pub(crate) fn active(&self) -> &LaneSet {
        &self.active
    }

    /// Makes the lanes active whose bit is set. `ring` is any lane of the group.
    #[inline]
    pub(crate) fn merge<M: Memory>(&mut self, ring: &Ring<M>) {
        for word in 0..self.count.div_ceil(LANES_A_WORD) {
            let found = ring.memory.load(Word::Summary(word as u8), Relaxed); // the header decides
            let lanes = self.count - word * LANES_A_WORD;
            let known = if lanes < LANES_A_WORD { (1 << lanes) - 1 } else { u64::MAX };
            self.active.0[word] |= found & known;
        }
    }

    /// Notes that `lane` has a record.
    #[inline]
    pub(crate) fn note_found(&mut self, lane: usize) {
        self.active.insert(lane);
        self.draining.remove(lane);
        self.fenced.remove(lane);
    }

    /// Notes that `lane` is empty, which makes a fenced lane idle. Returns whether it did.
    #[inline]
    pub(crate) fn note_empty(&mut self, lane: usize) -> bool {
        let is_fenced = self.fenced.contains(lane);
        if is_fenced {
            self.fenced.remove(lane);
            self.active.remove(lane);
        }
        is_fenced
    }

    /// Clears the bit of `lane`, which was empty for long. `ring` is any lane of the group.
    #[cold]
    pub(crate) fn clear<M: Memory>(&mut self, ring: &Ring<M>, lane: usize) {
        if self.draining.contains(lane) || self.fenced.contains(lane) {
            return;
        }
        let bit = SummaryBit::of(lane as u16);
        ring.memory.fetch_and(Word::Summary(bit.word), !bit.mask);
        ring.memory.fence(SeqCst); // edge `summary`: `summary`, record header
        self.draining.insert(lane);
    }

    /// Whether there are lanes that a barrier would bring further.
    #[inline]
    pub(crate) fn has_draining(&self) -> bool {
        !self.draining.is_empty()
    }

    /// To be called behind a barrier, or while all producers fence for each message.
    pub(crate) fn note_fenced(&mut self) {
        for (fenced, draining) in self.fenced.0.iter_mut().zip(&mut self.draining.0) {
            *fenced |= std::mem::take(draining);
        }
    }

    /// Polls all `lanes`, whatever the summary says; each comes with the consumer's position in it. To be
    /// called after arming, and after the exit of a peer.
    pub(crate) fn scan<'a, M: Memory + 'a>(
        &mut self,
        lanes: impl Iterator<Item = (&'a Ring<M>, u64)>,
    ) -> Polled {
        let mut found = Polled::Nothing;
        for (lane, (ring, head)) in lanes.enumerate() {
            if poll(ring, head) == Polled::Something {
                self.note_found(lane);
                found = Polled::Something;
            }
        }
        found
    }
}
