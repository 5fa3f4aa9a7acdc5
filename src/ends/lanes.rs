//! The consumer of a group of lanes: which lane is next.
//!
//! A receiver has one *current* lane, which it polls like any ring. When that is empty, or its quantum is
//! over, the next active lane becomes the current one, in the order of their numbers: no busy lane waits for
//! longer than one quantum of each other lane. [`Attention`] decides which lanes are active.
//!
//! The consumer leaves a lane only if it found the lane empty, which notifies its blocked producer, or with a
//! record at its head, which brings the consumer back. So no producer is left asleep before an empty lane.

use std::mem::swap;
use std::time::{Duration, Instant};

use crate::endpoint::{Attached, map_ring, position_of};
use crate::error::Error;
use crate::mem::RingSpan;
use crate::ring::doorbell::{Polled, poll};
use crate::ring::{Attention, Consumer, Memory, Ring, Wakes};
use crate::wait::Incoming;

/// Polls in a row that find a lane empty before its bit in the summary is cleared: so many that a
/// lane in use is not cleared and set for each message.
const EMPTY_POLLS: u32 = 512;
/// The shortest time between two barriers for draining lanes, and polls between two checks of the clock.
const BARRIER_EVERY: Duration = Duration::from_millis(1);
const POLLS_A_CLOCK: u32 = 32;
/// Bytes of a lane that are faulted in at its first quantum. That happens within a receive, so it must be
/// short; the other pages come when they are used.
const POPULATED_MAX: u64 = 1 << 20;

/// All lanes of a receiver's group.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// All lanes. The place of the current one holds the ring and consumer that were swapped out for it.
    lanes: Vec<Lane>,
    current: usize,
    attention: Attention,
    /// Whether to poll all lanes next, whatever the summary says.
    is_scan_due: bool,
    /// The watcher's count of peer exits when it was last checked.
    departures: u32,
    /// Whether anything was freed in a lane that was current before.
    has_taken: bool,
    /// Whether all producers fenced for each message at the last check.
    all_fence: bool,
    polls: u32,
    last_barrier: Instant,
}

/// A lane, with the consumer's place in it.
#[derive(Debug)]
struct Lane {
    ring: Ring<RingSpan>,
    consumer: Consumer,
    /// Its index in the directory.
    index: u32,
    /// Polls in a row that found it empty, all with the consumer at `empty_at`.
    empty_polls: u32,
    empty_at: u64,
    is_populated: bool,
}

impl Lanes {
    /// Attaches to all lanes of the group of `end`; `consumer` is that of the first. Notifies blocked
    /// producers of what a predecessor freed.
    ///
    /// # Errors
    /// If one of them is damaged.
    pub(crate) fn attach(
        end: &Attached,
        consumer: &mut Consumer,
        wakes: &Wakes,
    ) -> Result<Self, Error> {
        let first = end.group.rings.start;
        let departures = end.watch.departures(); // all lanes are polled after this
        let mut lanes = Vec::with_capacity(end.group.rings.len());
        for index in end.group.rings.clone() {
            let ring = map_ring(end.slot.region(), index, first)?;
            // One consumer a lane: if this one passes over padding, no other knows of it.
            let mut other = (index != first).then(|| Consumer::attach(&ring)).transpose();
            let damaged = |damage, position| end.damaged_in(index, damage, position);
            let other = other.as_mut().map_err(|damage| damaged(*damage, position_of(*damage)))?;
            let consumer = other.as_mut().unwrap_or(consumer);
            let found = consumer.front(&ring, wakes);
            found.map_err(|damage| damaged(damage, consumer.head()))?;
            lanes.push(Lane::new(ring, consumer.clone(), index));
        }
        Ok(Self {
            attention: Attention::new(lanes.len()),
            lanes,
            current: 0,
            is_scan_due: false,
            departures,
            has_taken: false,
            all_fence: false,
            polls: 0,
            last_barrier: Instant::now(),
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.lanes.len()
    }

    /// Whether anything was freed in a lane that is not the current one.
    pub(crate) fn has_taken(&self) -> bool {
        self.has_taken
    }

    /// To be called after every exit of a peer.
    pub(crate) fn scan_soon(&mut self) {
        self.is_scan_due = true; // the peer may have died before it set its bit in the summary
    }

    /// Checks for exits of peers since the last check. To be called at the end of each quantum, so that what
    /// they left is found even if no lane is ever empty.
    pub(crate) fn note_departures(&mut self, end: &Attached) {
        let departures = end.watch.departures();
        if std::mem::replace(&mut self.departures, departures) != departures {
            self.scan_soon();
        }
    }

    /// Notes that the consumer leaves the current lane with a record at its head.
    pub(crate) fn note_left(&mut self) {
        // Keeps it active: it may have become idle, and its producer not have come to setting its bit.
        self.attention.note_found(self.current);
    }

    pub(crate) fn is_scan_due(&self) -> bool {
        self.is_scan_due
    }

    /// The next lane after the current one that has a record, or the current one again. Returns `None` if no
    /// lane is known to have one.
    pub(crate) fn next(&mut self, end: &Attached, head: u64, all_fence: bool) -> Option<usize> {
        self.all_fence = all_fence;
        self.attention.merge(&end.ring);
        if std::mem::take(&mut self.is_scan_due) {
            self.scan(end, head);
        }
        let behind = self.current + 1;
        let found = self.find(end, head, behind, self.lanes.len());
        let found = found.or_else(|| self.find(end, head, 0, behind));
        if self.attention.has_draining() {
            self.fence_draining(end);
        }
        found
    }

    /// Makes `lane` the current one.
    pub(crate) fn switch_to(&mut self, lane: usize, end: &mut Attached, consumer: &mut Consumer) {
        if lane != self.current {
            self.has_taken |= consumer.has_taken();
            self.exchange(self.current, end, consumer);
            self.exchange(lane, end, consumer);
            self.current = lane;
        }
        if !self.lanes[lane].is_populated {
            self.lanes[lane].is_populated = true;
            let region = end.slot.region();
            // If the pages cannot be had now, using them fails and says why.
            let _ = region.populate_lane(&region.entries()[end.index as usize], POPULATED_MAX);
        }
    }

    fn exchange(&mut self, lane: usize, end: &mut Attached, consumer: &mut Consumer) {
        let lane = &mut self.lanes[lane];
        swap(&mut lane.ring, &mut end.ring);
        swap(&mut lane.index, &mut end.index);
        swap(&mut lane.consumer, consumer);
    }

    /// The first active lane of `from..to` that has a record.
    fn find(&mut self, end: &Attached, head: u64, from: usize, to: usize) -> Option<usize> {
        let mut from = from;
        while let Some(lane) = self.attention.active().next(from).filter(|lane| *lane < to) {
            let (ring, head) = self.place(end, head, lane);
            if poll(ring, head) == Polled::Something {
                self.attention.note_found(lane);
                self.lanes[lane].empty_polls = 0;
                return Some(lane);
            }
            self.note_empty(end, lane, head);
            from = lane + 1;
        }
        None
    }

    #[inline]
    fn note_empty(&mut self, end: &Attached, lane: usize, head: u64) {
        let Lane { empty_polls, empty_at, .. } = &mut self.lanes[lane];
        if std::mem::replace(empty_at, head) != head {
            *empty_polls = 0;
            self.attention.note_found(lane); // a record came and was taken while it was current
        }
        *empty_polls = empty_polls.saturating_add(1);
        if self.attention.note_empty(lane) {
            *empty_polls = 0; // counted anew if the summary brings it back
        } else if *empty_polls == EMPTY_POLLS {
            self.attention.clear(&end.ring, lane);
        }
    }

    /// Makes draining lanes fenced if all producers fence, or if it is time for a barrier.
    fn fence_draining(&mut self, end: &Attached) {
        self.polls = self.polls.wrapping_add(1);
        let is_time = || self.last_barrier.elapsed() >= BARRIER_EVERY;
        if self.all_fence {
            self.attention.note_fenced();
        } else if self.polls.is_multiple_of(POLLS_A_CLOCK) && is_time() {
            self.last_barrier = Instant::now();
            if end.ring.memory.barrier() {
                self.attention.note_fenced();
            }
        }
    }

    /// Whether a lane that is active, or whose bit is set, has a record.
    fn is_any_active(&mut self, end: &Attached, head: u64) -> bool {
        self.attention.merge(&end.ring);
        let active = self.attention.active();
        let mut lanes = std::iter::successors(active.next(0), |lane| active.next(lane + 1));
        lanes.any(|lane| {
            let (ring, head) = self.place(end, head, lane);
            poll(ring, head) == Polled::Something
        })
    }

    /// A lane with the consumer's position in it; `head` is that of the current one.
    fn place<'a>(&'a self, end: &'a Attached, head: u64, lane: usize) -> (&'a Ring<RingSpan>, u64) {
        match &self.lanes[lane] {
            _ if lane == self.current => (&end.ring, head),
            Lane { ring, consumer, .. } => (ring, consumer.head()),
        }
    }

    fn scan(&mut self, end: &Attached, head: u64) -> Polled {
        let (current, attention) = (self.current, &mut self.attention);
        attention.scan(self.lanes.iter().enumerate().map(|(lane, Lane { ring, consumer, .. })| {
            if lane == current { (&end.ring, head) } else { (ring, consumer.head()) }
        }))
    }
}

impl Lane {
    fn new(ring: Ring<RingSpan>, consumer: Consumer, index: u32) -> Self {
        let (empty_polls, empty_at, is_populated) = (0, consumer.head(), false);
        Self { ring, consumer, index, empty_polls, empty_at, is_populated }
    }
}

/// Lanes that are waited for, with the position in the current one.
pub(crate) struct AllLanes<'a> {
    pub(crate) lanes: &'a mut Lanes,
    pub(crate) head: u64,
}

impl Incoming for AllLanes<'_> {
    fn has_come(&mut self, end: &Attached, all_fence: bool) -> bool {
        self.lanes.next(end, self.head, all_fence).is_some()
    }

    fn poll_armed(&mut self, end: &Attached) -> Polled {
        self.lanes.scan(end, self.head)
    }

    fn is_there(&mut self, end: &Attached) -> bool {
        // The producer that notified may not have set its bit yet: then only a scan finds the record.
        self.lanes.is_any_active(end, self.head)
            || self.lanes.scan(end, self.head) == Polled::Something
    }

    fn head(&self) -> u64 {
        self.head
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deadline::Deadline;
    use crate::ends::MpscConsumer;
    use crate::options::MpscOrder;
    use crate::{EventsRegion, OpenOptions};

    /// Polls empty lanes, more often than it takes to clear their bits; no barrier is due.
    fn poll_often(rx: &mut MpscConsumer, all_fence: bool) -> bool {
        let receiving = rx.receiving_until(Deadline::PAST).unwrap();
        let (end, head) = (&receiving.end, receiving.consumer.head());
        let lanes = receiving.lanes.as_mut().unwrap();
        lanes.last_barrier = Instant::now() + Duration::from_secs(3600);
        for _ in 0..2 * EMPTY_POLLS {
            assert_eq!(lanes.next(end, head, all_fence), None);
        }
        lanes.attention.active().next(0).is_some()
    }

    #[test]
    fn an_empty_lane_is_forgotten_only_where_its_producer_is_known_to_have_fenced() {
        let options = OpenOptions::new().mpsc_capacity(4096).producers(2);
        let options = options.mpsc_order(MpscOrder::PerProducer);
        let (_, mut rx) = EventsRegion::anonymous(options).unwrap().split_mpsc().unwrap();
        assert!(poll_often(&mut rx, false), "idle, and no producer fences");
        assert!(!poll_often(&mut rx, true), "polled for ever");
    }
}
