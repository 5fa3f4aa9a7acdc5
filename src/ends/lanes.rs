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
    peer_exits: u32,
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
        let peer_exits = end.watch.peer_exits(); // all lanes are polled after this
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
            peer_exits,
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
    pub(crate) fn note_peer_exits(&mut self, end: &Attached) {
        let peer_exits = end.watch.peer_exits();
        if std::mem::replace(&mut self.peer_exits, peer_exits) != peer_exits {
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
    use std::sync::atomic::Ordering::Relaxed;

    use rustix::io::Errno;

    use super::*;
    use crate::deadline::Deadline;
    use crate::ends::receiving::tests::leave_an_orphan;
    use crate::ends::{MpscConsumer, MpscProducer};
    use crate::options::MpscOrder;
    use crate::os::staged::{self, Call};
    use crate::ring::Word;
    use crate::{EventsRegion, Handle, OpenOptions, TryRecvError};

    /// The producers of so many lanes, each in its own, and their consumer.
    fn group(count: u16) -> (Vec<MpscProducer>, MpscConsumer) {
        let options = OpenOptions::new().mpsc_capacity(4096).producers(count);
        let options = options.mpsc_order(MpscOrder::PerProducer);
        let mut region = EventsRegion::anonymous(options).unwrap();
        let (first, mut consumer) = region.split_mpsc().unwrap();
        consumer.attach().unwrap();
        let mut producers = vec![first; count.into()];
        producers.iter_mut().for_each(|producer| producer.attach().unwrap());
        (producers, consumer)
    }

    /// The consumer's end, the position in its current lane, and its lanes.
    fn parts(rx: &mut MpscConsumer) -> (&mut Attached, u64, &mut Lanes) {
        let receiving = rx.receiving_until(Deadline::PAST).unwrap();
        let head = receiving.consumer.head();
        (&mut receiving.end, head, receiving.lanes.as_mut().unwrap())
    }

    fn is_anything_active(rx: &mut MpscConsumer) -> bool {
        parts(rx).2.attention.active().next(0).is_some()
    }

    fn summary(rx: &mut MpscConsumer) -> u64 {
        parts(rx).0.ring.memory.load(Word::Summary(0), Relaxed)
    }

    /// Looks at empty lanes so often, as if the last barrier had been at `last_barrier`.
    fn look(rx: &mut MpscConsumer, count: u32, all_fence: bool, last_barrier: Instant) {
        let (end, head, lanes) = parts(rx);
        lanes.last_barrier = last_barrier;
        (0..count).for_each(|_| assert_eq!(lanes.next(end, head, all_fence), None));
    }

    fn to_come() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    fn long_ago() -> Instant {
        Instant::now().checked_sub(Duration::from_secs(1)).unwrap()
    }

    #[test]
    fn an_empty_lane_is_forgotten_only_where_its_producer_is_known_to_have_fenced() {
        let (_producers, mut rx) = group(2);
        look(&mut rx, 2 * EMPTY_POLLS, false, to_come());
        assert!(is_anything_active(&mut rx), "forgotten, and nobody fences");
        look(&mut rx, 2 * EMPTY_POLLS, true, to_come());
        assert!(!is_anything_active(&mut rx), "looked at for ever");
    }

    #[test]
    fn a_barrier_tells_that_all_have_fenced_if_it_was_made() {
        let (_producers, mut rx) = group(2);
        let refused = staged::refusing(Call::any(libc::SYS_membarrier), Errno::PERM, || {
            look(&mut rx, 2 * EMPTY_POLLS, false, long_ago());
            is_anything_active(&mut rx)
        });
        assert_ne!(refused, Some(false), "forgotten without a barrier");
        if !parts(&mut rx).0.ring.memory.barrier() {
            return eprintln!("skipped: no barriers");
        }
        let before = long_ago();
        look(&mut rx, 2 * EMPTY_POLLS, false, before);
        assert!(!is_anything_active(&mut rx), "looked at for ever");
        assert_ne!(parts(&mut rx).2.last_barrier, before);
    }

    #[test]
    fn a_bit_is_cleared_after_many_looks_in_a_row_and_again_after_it_was_set() {
        let (mut producers, mut rx) = group(1);
        for _ in 0..2 {
            producers[0].send(b"sets the bit").unwrap();
            rx.recv().unwrap();
            look(&mut rx, EMPTY_POLLS - 1, true, to_come());
            assert_eq!(summary(&mut rx), 1, "a message came in between");
        }
        look(&mut rx, 2, true, to_come());
        assert_eq!((summary(&mut rx), is_anything_active(&mut rx)), (0, false));
        parts(&mut rx).0.ring.memory.fetch_or(Word::Summary(0), 1);
        look(&mut rx, EMPTY_POLLS + 1, true, to_come());
        assert_eq!((summary(&mut rx), is_anything_active(&mut rx)), (0, false), "set for nothing");
    }

    #[test]
    fn a_lane_in_which_there_is_something_is_no_longer_quiet() {
        let (mut producers, mut rx) = group(3);
        producers.iter_mut().for_each(|producer| producer.send(b"a message").unwrap());
        let receiving = rx.receiving_until(Deadline::PAST).unwrap();
        let (end, consumer) = (&mut receiving.end, &mut receiving.consumer);
        let lanes = receiving.lanes.as_mut().unwrap();
        assert!(lanes.attention.has_draining());
        for expected in [1, 2, 0] {
            assert_eq!(lanes.next(end, consumer.head(), false), Some(expected));
            lanes.switch_to(expected, end, consumer);
        }
        assert!(!lanes.attention.has_draining());

        let (mut producers, mut rx) = group(1);
        producers[0].send(b"taken from the current lane").unwrap();
        rx.recv().unwrap();
        look(&mut rx, 1, false, to_come());
        assert!(!parts(&mut rx).2.attention.has_draining());
    }

    #[test]
    fn what_is_taken_in_a_lane_counts_when_another_is_the_current_one() {
        let (mut producers, mut rx) = group(2);
        assert!(!parts(&mut rx).2.has_taken());
        for producer in &mut producers {
            producer.send(b"a message").unwrap();
            rx.recv().unwrap();
        }
        assert!(parts(&mut rx).2.has_taken());
    }

    #[test]
    fn a_wait_for_lanes_ends_if_any_has_something_also_one_that_the_summary_does_not_tell_of() {
        let (mut producers, mut rx) = group(2);
        let found = |rx: &mut MpscConsumer| {
            let (end, head, lanes) = parts(rx);
            let mut all = AllLanes { lanes, head };
            [all.has_come(end, true), all.is_there(end)]
        };
        assert_eq!(found(&mut rx), [false, false]);
        look(&mut rx, 2 * EMPTY_POLLS, true, to_come());
        producers[1].send(b"a message").unwrap();
        parts(&mut rx).0.ring.memory.fetch_and(Word::Summary(0), 0);
        assert_eq!(found(&mut rx), [false, true]);
        assert_eq!(found(&mut rx), [true, true]);
    }

    /// As one that was killed before it set its bit leaves it.
    #[test]
    fn a_message_that_the_summary_does_not_tell_of_is_found_if_all_lanes_are_to_be_looked_at() {
        let (mut producers, mut rx) = group(2);
        assert!(rx.try_recv().is_err()); // asks after the producers
        look(&mut rx, 2 * EMPTY_POLLS, true, to_come());
        producers[1].send(b"a message").unwrap();
        parts(&mut rx).0.ring.memory.fetch_and(Word::Summary(0), 0);
        assert!(rx.try_recv().is_err());
        parts(&mut rx).2.scan_soon();
        assert_eq!(rx.try_recv().unwrap().data, b"a message");
    }

    #[test]
    fn so_is_one_that_was_left_before_anything_was_counted_that_the_consumer_has_not_looked_into() {
        let (mut producers, mut rx) = group(2);
        look(&mut rx, 2 * EMPTY_POLLS, true, to_come());
        producers[1].send(b"a message").unwrap();
        parts(&mut rx).0.ring.memory.fetch_and(Word::Summary(0), 0);
        assert_eq!(rx.try_recv().unwrap().data, b"a message");
    }

    #[test]
    fn what_the_departed_have_left_is_found_at_the_end_of_a_turn() {
        let (mut producers, mut rx) = group(2);
        assert!(rx.try_recv().is_err()); // asks after the producers
        look(&mut rx, 2 * EMPTY_POLLS, true, to_come());
        producers[1].send(b"left").unwrap();
        parts(&mut rx).0.ring.memory.fetch_and(Word::Summary(0), 0);
        (0..100).for_each(|_| producers[0].send(b"of another").unwrap());
        let peer_exits = &mut parts(&mut rx).2.peer_exits;
        *peer_exits = peer_exits.wrapping_sub(1);
        let received: Vec<_> = (0..101).map(|_| rx.recv().unwrap().data).collect();
        let at = received.iter().position(|data| data == b"left");
        assert!(at.is_some_and(|at| at < 100), "{at:?}");
    }

    /// As while its producer is stopped between publishing and setting its bit.
    #[test]
    fn a_lane_that_is_left_with_a_message_is_looked_at_again_though_the_summary_does_not_tell_of_it()
     {
        let (mut producers, mut rx) = group(2);
        assert!(rx.try_recv().is_err()); // asks after the producers
        look(&mut rx, 2 * EMPTY_POLLS, true, to_come());
        (0..100).for_each(|_| producers[0].send(b"one of many").unwrap());
        parts(&mut rx).0.ring.memory.fetch_and(Word::Summary(0), 0);
        producers[1].send(b"in the other lane").unwrap();
        let received: Vec<_> = (0..101).map(|_| rx.try_recv().unwrap().data).collect();
        let at = received.iter().position(|data| data == b"in the other lane");
        assert!(at.is_some_and(|at| at < 100), "{at:?}");
    }

    #[test]
    fn all_lanes_are_looked_at_if_connections_tell_of_one_that_has_exited() {
        let options = OpenOptions::new().mpsc_capacity(4096).producers(2).max_handles(1);
        let options = options.mpsc_order(MpscOrder::PerProducer);
        let mut region = EventsRegion::anonymous(options).unwrap();
        let (mut gone, mut rx) = region.split_mpsc().unwrap();
        rx.attach().unwrap();
        leave_an_orphan(&mut gone, Handle::new(std::io::pipe().unwrap().0));
        let mut tx = region.split_mpsc().unwrap().0;
        tx.attach().unwrap();
        assert_ne!(tx.ring(), parts(&mut rx).0.index, "it has the current lane");
        let exits = parts(&mut rx).0.watch.peer_exits();
        drop(gone);
        let start = Instant::now();
        while parts(&mut rx).0.watch.peer_exits() == exits {
            assert!(start.elapsed() < Duration::from_secs(10), "the exit was not noticed");
            std::thread::yield_now();
        }
        let receiving = rx.receiving_until(Deadline::PAST).unwrap();
        // As if it had not been counted yet.
        receiving.peer.is_disconnected(&receiving.end).unwrap();
        let (end, _, lanes) = parts(&mut rx);
        lanes.peer_exits = end.watch.peer_exits();
        let counted = end.counted();
        look(&mut rx, 2 * EMPTY_POLLS, true, to_come());
        tx.send(b"a message").unwrap();
        parts(&mut rx).0.ring.memory.fetch_and(Word::Summary(0), 0);
        let receiving = rx.receiving_until(Deadline::PAST).unwrap();
        let (front, _) = receiving.last_poll().unwrap();
        assert!(front.is_some());
        assert_eq!(receiving.end.counted(), counted, "something else was found");
    }

    #[test]
    fn the_current_lane_becomes_idle_too_once_it_has_been_empty_for_long() {
        let (_producers, mut rx) = group(2);
        let start = Instant::now();
        while is_anything_active(&mut rx) {
            assert!(start.elapsed() < Duration::from_secs(10), "looked at for ever");
            assert!(rx.try_recv().is_err());
        }
    }

    #[test]
    fn each_lane_has_a_turn_of_its_own() {
        let (mut producers, mut rx) = group(2);
        let whole = rx.receiving_until(Deadline::PAST).unwrap().bell.records_left();
        (0..40).for_each(|_| producers[0].send(b"one of many").unwrap());
        producers[1].send(b"in the other lane").unwrap();
        (0..41).for_each(|_| drop(rx.recv().unwrap()));
        let left = rx.receiving_until(Deadline::PAST).unwrap().bell.records_left();
        assert!(left > whole - 10, "{left} of {whole}");
    }

    #[test]
    fn who_sent_what_was_taken_in_any_lane_counts_as_met() {
        let options = OpenOptions::new().mpsc_capacity(4096).producers(2);
        let options = options.mpsc_order(MpscOrder::PerProducer);
        let mut region = EventsRegion::anonymous(options).unwrap();
        let (mut tx, mut rx) = region.split_mpsc().unwrap();
        tx.send(b"from one that is gone").unwrap();
        drop(tx);
        rx.recv().unwrap();
        let receiving = rx.receiving_until(Deadline::PAST).unwrap();
        let (end, consumer) = (&mut receiving.end, &mut receiving.consumer);
        receiving.lanes.as_mut().unwrap().switch_to(1, end, consumer);
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Disconnected)));
    }
}
