//! Which lanes of a group have something in them: the summary, one bit for each lane.
//!
//! A lane is an SPSC ring. The consumer of a group may have hundreds of them, of which a few are
//! busy, so it looks at those only that it takes for *active*, and at the summary for others.
//!
//! The producer publishes, then looks at its lane's bit, and sets it if it is clear. The bit of a
//! busy lane is set, so that is one load of a line that nobody writes. The consumer stops looking at
//! a lane in three steps, between which it goes on looking:
//!
//! 1. it clears the bit: the lane is *draining*;
//! 2. every producer executes a fence: the lane is *fenced*. Those that fence for each message, see
//!    [`super::doorbell`], do so anyway; else it is a barrier of the consumer's, one for all draining lanes;
//! 3. it looks at the lane once more: if there is nothing, the lane is *idle*.
//!
//! A producer that found its bit set before the clearing has a fence behind its message by then, so
//! that the look of step 3 finds the message. One that looks later finds the bit clear and sets it.
//! Unless it is known that all producers have fenced, no lane is idle. A fenced lane stays
//! fenced when producers are let go on without fences: by edge `relax`, they see the bit cleared.
//!
//! A consumer that attaches knows nothing of what its predecessor cleared: to it all lanes are draining.
//!
//! **No sleep depends on the summary.** Behind each arming comes a look at all lanes. So does one
//! after each departure: who was killed before it set its bit has left a message that nobody else
//! tells of.
//!
//! | edge | one side | other side | carries |
//! |---|---|---|---|
//! | `summary` | producer: record header, fence, load `summary` | consumer: clear in `summary`, fence, load header | one of the two sees the other |
//! | `relax` | producer: load-acquire `rx_wake` without a request for fences, load `summary` | consumer: clear in `summary`, store-release `rx_wake` | who goes on without fences sees every bit that was cleared while all fenced |
//!
//! The words are changed by whoever sends or receives, a bit at a time, so always by one access that
//! reads and writes.

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
    /// That of lane `index`, below 512.
    pub(crate) fn of(index: u16) -> Self {
        let index = usize::from(index % LANE_COUNT_MAX);
        Self { word: (index / LANES_A_WORD) as u8, mask: 1 << (index % LANES_A_WORD) }
    }

    /// Tells the consumer of what was just published. Behind the look after the consumer's sleep,
    /// which fences if that is asked for.
    #[inline(always)]
    pub(crate) fn set<M: Memory>(self, ring: &Ring<M>) {
        compiler_fence(SeqCst); // the load stays behind the publishing store
        // Edge `summary`: the fence is that of the look before, or else the consumer's barrier.
        if ring.memory.load(Word::Summary(self.word), Relaxed) & self.mask == 0 {
            ring.memory.fetch_or(Word::Summary(self.word), self.mask);
        }
    }
}

/// Some of a group's lanes, by their index.
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

    /// The first of them from lane `from` on.
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

/// What the consumer of a group looks at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Attention {
    /// Lanes that are looked at.
    active: LaneSet,
    /// Those of them whose bit was cleared, perhaps behind the back of a producer that has published.
    draining: LaneSet,
    /// Those of them whose producer has fenced since the bit was cleared.
    fenced: LaneSet,
    /// Lanes that there are.
    count: usize,
}

impl Attention {
    /// Attaches as the consumer of `count` lanes, at most 512.
    pub(crate) fn new(count: usize) -> Self {
        let all = LaneSet::first(count);
        Self { active: all.clone(), draining: all, fenced: LaneSet::default(), count }
    }

    /// The lanes to look at.
    #[inline]
    pub(crate) fn active(&self) -> &LaneSet {
        &self.active
    }

    /// Takes in the lanes whose bit is set. `ring` is any lane of the group.
    #[inline]
    pub(crate) fn merge<M: Memory>(&mut self, ring: &Ring<M>) {
        for word in 0..self.count.div_ceil(LANES_A_WORD) {
            let found = ring.memory.load(Word::Summary(word as u8), Relaxed); // the header decides
            let lanes = self.count - word * LANES_A_WORD;
            let known = if lanes < LANES_A_WORD { (1 << lanes) - 1 } else { u64::MAX };
            self.active.0[word] |= found & known;
        }
    }

    /// Notes that there is something in `lane`.
    #[inline]
    pub(crate) fn note_found(&mut self, lane: usize) {
        self.active.insert(lane);
        self.draining.remove(lane);
        self.fenced.remove(lane);
    }

    /// Notes that a look at `lane` found nothing: a fenced lane is idle. Gives whether it was.
    #[inline]
    pub(crate) fn note_empty(&mut self, lane: usize) -> bool {
        let is_fenced = self.fenced.contains(lane);
        if is_fenced {
            self.fenced.remove(lane);
            self.active.remove(lane);
        }
        is_fenced
    }

    /// Clears the bit of `lane`, in which nothing was found for long. `ring` is any lane of the group.
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

    /// Whether a barrier would help to forget lanes.
    #[inline]
    pub(crate) fn has_draining(&self) -> bool {
        !self.draining.is_empty()
    }

    /// To be told behind a barrier, or while all producers fence for each message.
    pub(crate) fn note_fenced(&mut self) {
        for (fenced, draining) in self.fenced.0.iter_mut().zip(&mut self.draining.0) {
            *fenced |= std::mem::take(draining);
        }
    }

    /// Looks at all `lanes`, given with the consumer's position in each, whatever the summary says. To
    /// be done after arming, and after a departure.
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
