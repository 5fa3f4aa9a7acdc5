//! The receiving side's doorbell: arming it, how long to sleep then, and when producers are let go on
//! without fences.

use std::hint;
use std::mem::offset_of;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tombolo_abi::{LockWord, RingKind, Slot, slot_flags};

use crate::crash::test_point;
use crate::endpoint::{Attached, Until, slot_u32};
use crate::error::{Damage, Error};
use crate::os::random;
use crate::ring::Wakes;
use crate::ring::doorbell::{
    Armed, Arming, Fences, Polled, RxDoorbell, Trust, poll, poll_locked, poll_past_holder,
};
use crate::wait::{Bridge, Ended, SLEEP_MAX, Sleep, Spin, Standing, sleep_for_record};

/// Bytes of a cache line.
const LINE_LEN: u64 = 64;
/// Records taken without a sleep before producers may go on without fences.
const RECORDS: u32 = 256;
/// Records of one lane before it is another's turn.
const TURN: u32 = 64;
/// How long since the last sleep.
const AWAKE: Duration = Duration::from_millis(1);
/// How long since the last barrier, which interrupts every producer that runs.
const BARRIER_EVERY: Duration = Duration::from_millis(10);
/// The longest sleep that might miss a record.
const SHORT: Duration = Duration::from_millis(1);
/// Polls of a held lock before its holder is checked.
const LOOKS_AT_LOCK: u32 = 128;
/// Short sleeps behind one live holder, before the receiver ignores it.
const SHORT_SLEEPS: u32 = 10;
/// How often the short sleep is doubled behind a holder that no barrier reaches.
const DOUBLINGS: u32 = 4;

/// What a receiver waits for.
pub(crate) trait Incoming {
    /// Whether there is a record, for a spinning receiver. `all_fence`: all producers fence for each
    /// message.
    fn has_come(&mut self, end: &Attached, all_fence: bool) -> bool;

    /// What there is behind an arming.
    fn poll_armed(&mut self, end: &Attached) -> Polled;

    /// Whether there is a record, after a sleep.
    fn is_there(&mut self, end: &Attached) -> bool;

    /// The receiver's position.
    fn head(&self) -> u64;
}

/// A record of the receiver's one ring, at its position.
pub(crate) struct OneRing {
    pub(crate) head: u64,
}

impl Incoming for OneRing {
    #[inline]
    fn has_come(&mut self, end: &Attached, _: bool) -> bool {
        self.is_there(end)
    }

    fn poll_armed(&mut self, end: &Attached) -> Polled {
        if !is_locked(end) {
            return poll(&end.ring, self.head);
        }
        // Until there is a record, or the lock is free, or has been held for long.
        let mut found = poll_locked(&end.ring, self.head);
        for _ in 0..LOOKS_AT_LOCK {
            if !matches!(found, Polled::LockedBy(_)) {
                break;
            }
            hint::spin_loop();
            found = poll_locked(&end.ring, self.head);
        }
        found
    }

    #[inline]
    fn is_there(&mut self, end: &Attached) -> bool {
        poll(&end.ring, self.head) == Polled::Something
    }

    fn head(&self) -> u64 {
        self.head
    }
}

/// A receiver's doorbell, with what decides about its use.
#[derive(Debug)]
pub(crate) struct Bell {
    doorbell: RxDoorbell,
    pub(crate) spin: Spin,
    behind: Option<Behind>,
    /// Records of this turn, counted from `records_from`, so that it is over sooner if other lanes
    /// have theirs.
    records: u32,
    records_from: u32,
    /// Records of earlier turns since the last sleep, or since enough had come.
    records_before: u32,
    last_sleep: Instant,
    last_barrier: Option<Instant>,
    /// Since when it has been armed, if the sleep must be short.
    armed_for_short: Option<Instant>,
}

/// The lock holder that the receiver sleeps behind, and how often it has.
#[derive(Clone, Copy, Debug)]
struct Behind {
    holder: LockWord,
    sleeps: u32,
}

impl Bell {
    pub(crate) fn attach(end: &Attached, spin: Spin) -> Result<Self, Error> {
        let random = random::bytes()
            .map_err(|error| end.slot.region().io_error("draw a number for", error))?;
        let count = u32::from_le_bytes(random);
        let fences = if is_locked(end) { Fences::Always } else { Fences::Requested };
        let records_from = if end.is_lane() { RECORDS - TURN } else { 0 };
        Ok(Self {
            doorbell: RxDoorbell::attach(&end.ring, end.slot.identity(), count, fences),
            spin,
            behind: None,
            records: records_from,
            records_from,
            records_before: 0,
            last_sleep: Instant::now(),
            last_barrier: None,
            armed_for_short: None,
        })
    }

    /// Counts a record; whether the turn is over.
    #[inline(always)]
    pub(crate) fn is_quantum_over(&mut self) -> bool {
        self.records += 1;
        self.records >= RECORDS
    }

    /// How many records may be taken before the turn is over.
    #[inline]
    pub(crate) fn records_left(&self) -> u32 {
        (RECORDS - 1).saturating_sub(self.records)
    }

    /// Counts so many records, no more than were left.
    #[inline]
    pub(crate) fn note_records(&mut self, count: u32) {
        self.records += count;
    }

    /// Counts a record too, and begins a new turn if it is time. Gives whether it was.
    pub(crate) fn count_record(&mut self, end: &Attached) -> bool {
        let is_time = self.is_quantum_over();
        if is_time {
            self.begin_quantum(end);
        }
        is_time
    }

    /// Counts a complete turn that was taken elsewhere.
    pub(crate) fn note_turn(&mut self, end: &Attached) {
        self.records = RECORDS;
        self.begin_quantum(end);
    }

    /// Counts the records of a turn from the start. Lets producers go on without fences if many came
    /// without a sleep, in however many turns.
    pub(crate) fn begin_quantum(&mut self, end: &Attached) {
        self.records_before += self.records - self.records_from;
        self.records = self.records_from;
        if self.records_before < RECORDS {
            return;
        }
        self.records_before = 0;
        if self.doorbell.can_relax()
            && self.last_sleep.elapsed() >= AWAKE
            && self.last_barrier.is_none_or(|barrier| barrier.elapsed() >= BARRIER_EVERY)
        {
            self.doorbell.relax(&end.ring);
        }
    }

    /// Polls a few times without a clock, if spinning pays. Gives whether there may be what is `incoming`, or
    /// something else to do.
    pub(crate) fn look_first(
        &mut self,
        end: &Attached,
        incoming: &mut impl Incoming,
        known: Option<u64>,
    ) -> bool {
        for _ in 0..self.spin.first_looks() {
            if incoming.is_there(end) || end.has_changed(known) {
                // Of most messages the rest lies on the next line; it comes while locks are taken.
                end.ring.memory.prefetch(incoming.head().wrapping_add(LINE_LEN));
                self.spin.note_first_look();
                return true;
            }
            hint::spin_loop();
        }
        false
    }

    /// Waits until there may be what is `incoming`, or something was counted since `known`.
    pub(crate) fn wait(
        &mut self,
        end: &Attached,
        incoming: &mut impl Incoming,
        wakes: &Wakes,
        known: Option<u64>,
        until: Until<'_>,
    ) -> Result<(), Error> {
        let all_fence = self.all_fence();
        let has_work = || {
            incoming.has_come(end, all_fence)
                || end.has_changed(known)
                || until.interrupts.is_pending()
        };
        if self.spin.until(until.deadline, has_work) {
            return Ok(());
        }
        end.settle(wakes);
        let armed = self.arm(end, incoming);
        if let Ok(Some(sleep)) = armed {
            let ended = sleep_for_record(end, sleep, known, until);
            if ended == Ended::TimedOut {
                self.note_time_out();
            }
            match (ended, incoming.is_there(end)) {
                (_, true) => self.spin.note_end_of_sleep(),
                (Ended::Perhaps, false) => end.count_spurious(),
                _ => {}
            }
        }
        self.disarm(end);
        armed.map(drop)
    }

    /// Arms and polls once more: how to sleep, or `None` if there is something to do. Disarm
    /// afterwards, either way.
    pub(crate) fn arm(
        &mut self,
        end: &Attached,
        incoming: &mut impl Incoming,
    ) -> Result<Option<Sleep>, Error> {
        test_point!("bell.to-arm");
        if self.doorbell.needs_barrier() {
            self.last_barrier = Some(Instant::now());
        }
        let Armed { word, trust } = self.doorbell.arm(&end.ring);
        test_point!("bell.armed");
        let found = incoming.poll_armed(end);
        let before = self.behind.take(); // of no meaning once the lock was seen free
        let limit = match found {
            Polled::Something => None,
            Polled::Nothing => Some(SLEEP_MAX),
            Polled::LockedBy(holder) => self.limit_behind(end, incoming.head(), holder, before)?,
        };
        self.armed_for_short = (trust == Trust::Short).then(Instant::now);
        let trusted = if trust == Trust::Short { SHORT } else { SLEEP_MAX };
        Ok(limit.map(|limit| Sleep { word, limit: limit.min(trusted) }))
    }

    /// Lets the arming stand at `bridge` by which to sleep as `armed`; `false` if there may be something.
    pub(crate) fn stand(
        &mut self,
        end: &Attached,
        bridge: &Bridge,
        armed: Option<Sleep>,
        known: Option<u64>,
    ) -> bool {
        let Some(Sleep { word, limit }) = armed else {
            self.disarm(end);
            bridge.end(); // an earlier arming, which is no longer in the word
            return false;
        };
        let due = (limit < SLEEP_MAX).then(|| Instant::now() + limit);
        let peer_exits = known.map(|known| known as u32);
        let standing = Standing { arming: Arming::Record(word), due, peer_exits };
        let stands = bridge.stand(&end.ring, end.rx_wake(), standing);
        if stands {
            end.count_sleep();
            self.note_sleep();
        }
        stands
    }

    /// Whether all producers fence for each message.
    pub(crate) fn all_fence(&self) -> bool {
        self.doorbell.all_fence()
    }

    /// Call after a sleep that only time ended.
    pub(crate) fn note_time_out(&mut self) {
        // The caller's deadline may have come before a short sleep's end.
        if self.armed_for_short.is_some_and(|armed| armed.elapsed() >= SHORT) {
            self.doorbell.slept_out();
        }
    }

    pub(crate) fn disarm(&mut self, end: &Attached) {
        self.doorbell.disarm(&end.ring);
        self.note_sleep();
    }

    /// Call after a sleep, or if another thread sleeps from now on.
    pub(crate) fn note_sleep(&mut self) {
        (self.records, self.records_before) = (self.records_from, 0);
        self.last_sleep = Instant::now();
    }

    /// How long to sleep while `holder` has the lock; `None` if there is a record. A dead holder
    /// is no reason not to sleep: the next owner of the lock will see the arming.
    fn limit_behind(
        &mut self,
        end: &Attached,
        head: u64,
        holder: LockWord,
        before: Option<Behind>,
    ) -> Result<Option<Duration>, Error> {
        let slot = holder.slot;
        if !end.entry.tx_slots().contains(&slot) {
            return Err(end.damaged(Damage::LockOwner { slot }));
        }
        let if_nothing = |look| (look == Polled::Nothing).then_some(SLEEP_MAX);
        if !end.slot.is_alive(holder)? {
            return Ok(if_nothing(poll(&end.ring, head)));
        }
        let sleeps = before.filter(|behind| behind.holder == holder);
        let sleeps = sleeps.map_or(0, |behind| behind.sleeps);
        self.behind = Some(Behind { holder, sleeps: sleeps.saturating_add(1) });
        let Some(doublings) = sleeps.checked_sub(SHORT_SLEEPS) else { return Ok(Some(SHORT)) };
        if is_reached(end, holder)
            && let Some(look) = poll_past_holder(&end.ring, head)
        {
            return Ok(if_nothing(look));
        }
        Ok(Some(SHORT * (1 << doublings.min(DOUBLINGS))))
    }
}

fn is_locked(end: &Attached) -> bool {
    end.entry.ring_kind() == Some(RingKind::Mpsc)
}

/// Whether a barrier reaches the holder of the lock.
fn is_reached(end: &Attached, holder: LockWord) -> bool {
    let flags = slot_u32(end.slot.region(), holder.slot, offset_of!(Slot, flags)).load(Relaxed);
    flags & slot_flags::MEMBARRIER_OK != 0
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Release;

    use tombolo_abi::wake;

    use super::*;
    use crate::Receiver;
    use crate::endpoint::Interrupts;
    use crate::ends::{Receiving, Spsc, Topology};
    use crate::options::MpscOrder;
    use crate::ring::{Memory, Word};
    use crate::wait::Waited;
    use crate::{Deadline, EventsRegion, MpscConsumer, MpscProducer, OpenOptions};

    fn region(order: MpscOrder) -> EventsRegion {
        let options = OpenOptions::new().spsc_capacity(4096).mpsc_capacity(4096);
        EventsRegion::anonymous(options.producers(2).mpsc_order(order)).unwrap()
    }

    fn receiver() -> Receiver<Spsc> {
        region(MpscOrder::Total).split_spsc().unwrap().1
    }

    fn receiving<K: Topology>(rx: &mut Receiver<K>) -> &mut Receiving {
        rx.receiving_until(Deadline::PAST).unwrap()
    }

    fn bell(end: &Attached) -> Bell {
        Bell::attach(end, Spin::new(Duration::ZERO)).unwrap()
    }

    /// So that nothing is long ago, however slow the test is.
    fn to_come() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    fn long_ago() -> Instant {
        Instant::now().checked_sub(Duration::from_secs(1)).unwrap()
    }

    #[test]
    fn a_turn_is_over_after_so_many_records_and_that_of_a_lane_sooner() {
        for (order, len) in [(MpscOrder::Total, RECORDS), (MpscOrder::PerProducer, TURN)] {
            let (_, mut rx) = region(order).split_mpsc().unwrap();
            let end = &receiving(&mut rx).end;
            let mut bell = bell(end);
            for _ in 0..3 {
                assert_eq!(bell.records_left(), len - 1);
                assert_eq!((1..=2 * RECORDS).find(|_| bell.count_record(end)), Some(len));
            }
            bell.note_records(10);
            assert_eq!(bell.records_left(), len - 11);
        }
    }

    #[test]
    fn producers_are_let_go_on_without_fences_after_many_records_and_long_without_sleep_or_barrier()
    {
        let mut rx = receiver();
        let end = &receiving(&mut rx).end;
        for (records, last_sleep, last_barrier, expected) in [
            (RECORDS, long_ago(), None, true),
            (RECORDS, long_ago(), Some(long_ago()), true),
            (RECORDS - 1, long_ago(), None, false),
            (RECORDS, to_come(), None, false),
            (RECORDS, long_ago(), Some(to_come()), false),
        ] {
            let mut bell = Bell { records, last_sleep, last_barrier, ..bell(end) };
            bell.begin_quantum(end);
            assert_eq!(bell.records, 0);
            assert_eq!(!bell.doorbell.can_relax(), expected);
        }
    }

    #[test]
    fn records_count_for_that_until_enough_have_come_or_the_receiver_has_slept() {
        let mut rx = receiver();
        let end = &receiving(&mut rx).end;
        let mut bell = Bell { last_sleep: to_come(), ..bell(end) };
        let turn = |bell: &mut Bell, records| {
            bell.records = records;
            bell.begin_quantum(end);
            bell.last_sleep = long_ago();
            !bell.doorbell.can_relax()
        };
        assert!(!turn(&mut bell, RECORDS), "too soon, and then they are forgotten");
        assert!(!turn(&mut bell, RECORDS / 2));
        bell.records = RECORDS / 2;
        bell.disarm(end);
        assert_eq!(bell.records, 0);
        assert!(bell.last_sleep.elapsed() < long_ago().elapsed());
        assert!(!turn(&mut bell, RECORDS / 2), "those before a sleep don't count");
        assert!(turn(&mut bell, RECORDS / 2), "those of two turns do");
    }

    #[test]
    fn producers_under_a_lock_fence_always_and_others_when_they_are_asked_to() {
        let (_, mut rx) = region(MpscOrder::Total).split_mpsc().unwrap();
        let end = &receiving(&mut rx).end;
        let mut locked = bell(end);
        (locked.records, locked.last_sleep) = (RECORDS, long_ago());
        locked.begin_quantum(end);
        assert!(locked.all_fence());
        let mut rx = receiver();
        assert!(!bell(&receiving(&mut rx).end).all_fence());
    }

    fn is_armed(end: &Attached) -> bool {
        end.ring.memory.load(Word::RxWake, Relaxed) as u32 & wake::ARMED_FUTEX != 0
    }

    /// How it would sleep on an empty ring, if at all.
    fn armed(bell: &mut Bell, end: &Attached, head: u64) -> Option<Duration> {
        let sleep = bell.arm(end, &mut OneRing { head }).unwrap();
        assert!(is_armed(end));
        bell.disarm(end);
        assert!(!is_armed(end));
        sleep.map(|sleep| sleep.limit)
    }

    #[test]
    fn the_first_arming_has_a_barrier_and_the_next_one_has_none() {
        let mut rx = receiver();
        let end = &receiving(&mut rx).end;
        let mut bell = bell(end);
        armed(&mut bell, end, 0);
        assert!(bell.last_barrier.take().is_some());
        armed(&mut bell, end, 0);
        assert_eq!(bell.last_barrier, None);
    }

    /// A bell whose producers were asked to fence, but no barrier could reach them.
    fn refused(end: &Attached) -> Bell {
        let doorbell = RxDoorbell::attach(&end.ring, end.slot.identity(), 0, Fences::Refused);
        Bell { doorbell, ..bell(end) }
    }

    #[test]
    fn if_barriers_are_refused_a_sleep_is_short_until_one_has_lasted() {
        let mut rx = receiver();
        let end = &receiving(&mut rx).end;
        let mut bell = refused(end);
        bell.note_time_out();
        assert_eq!(armed(&mut bell, end, 0), Some(SHORT));
        bell.armed_for_short = Some(to_come());
        bell.note_time_out();
        assert_eq!(armed(&mut bell, end, 0), Some(SHORT), "it had not lasted");
        assert!(bell.armed_for_short.is_some());
        bell.armed_for_short = Some(long_ago());
        bell.note_time_out();
        assert_eq!(armed(&mut bell, end, 0), Some(SLEEP_MAX));
        assert_eq!(bell.armed_for_short, None);
    }

    #[test]
    fn so_does_one_among_several_receivers() {
        let mut rx = receiver();
        let receiving = receiving(&mut rx);
        receiving.bell = refused(&receiving.end);
        receiving.bell.armed_for_short = Some(long_ago());
        receiving.note_timeout();
        assert_eq!(armed(&mut receiving.bell, &receiving.end, 0), Some(SLEEP_MAX));
    }

    fn until(deadline: Deadline) -> Until<'static> {
        Until { deadline, interrupts: Interrupts::never() }
    }

    /// Waits at the front of an empty ring.
    fn wait(rx: &mut Receiver<Spsc>, deadline: Deadline) {
        let Receiving { end, consumer, wakes, peer, bell, .. } = receiving(rx);
        let head = consumer.head();
        bell.wait(end, &mut OneRing { head }, wakes, peer.asked(), until(deadline)).unwrap();
        assert!(!is_armed(end));
    }

    #[test]
    fn a_wait_that_time_has_ended_has_lasted() {
        let mut rx = receiver();
        assert!(rx.try_recv().is_err()); // asks after the sender
        let receiving = receiving(&mut rx);
        receiving.bell = refused(&receiving.end);
        wait(&mut rx, Deadline::NEVER);
        assert!(rx.receiving.unwrap().bell.all_fence());
    }

    /// A ring with its lock held by its producer.
    struct Locked {
        tx: MpscProducer,
        rx: MpscConsumer,
        holder: LockWord,
    }

    impl Locked {
        /// Behind a record, if there is to be one.
        fn behind(records: usize) -> Self {
            let (mut tx, mut rx) = region(MpscOrder::Total).split_mpsc().unwrap();
            rx.attach().unwrap();
            tx.attach().unwrap();
            (0..records).for_each(|_| tx.send(b"a record").unwrap());
            let end = tx.attached_end().unwrap();
            let holder = end.slot.identity();
            end.ring.memory.store(Word::Lock, holder.to_word(), Release);
            Self { tx, rx, holder }
        }

        fn producer(&self) -> &Attached {
            self.tx.attached_end().unwrap()
        }

        fn limit(&mut self, holder: LockWord, before: Option<Behind>) -> (Option<Duration>, u32) {
            let Receiving { end, bell, consumer, .. } = receiving(&mut self.rx);
            bell.behind = None;
            let limit = bell.limit_behind(end, consumer.head(), holder, before).unwrap();
            (limit, bell.behind.map_or(0, |behind| behind.sleeps))
        }

        fn before(&self, sleeps: u32) -> Option<Behind> {
            Some(Behind { holder: self.holder, sleeps })
        }
    }

    #[test]
    fn behind_a_living_holder_sleeps_are_short_at_first() {
        let mut scene = Locked::behind(0);
        let Receiving { end, bell, .. } = receiving(&mut scene.rx);
        for count in 1..=SHORT_SLEEPS {
            assert_eq!(armed(bell, end, 0), Some(SHORT));
            assert_eq!(bell.behind.map(|behind| behind.sleeps), Some(count));
        }
        let holder = scene.holder;
        let other = LockWord { incarnation: holder.incarnation.wrapping_add(1), ..holder };
        let before = Some(Behind { holder: other, sleeps: SHORT_SLEEPS });
        assert_eq!(scene.limit(holder, before), (Some(SHORT), 1), "another was there before");
    }

    #[test]
    fn a_holder_that_is_no_producer_ends_the_wait() {
        let mut scene = Locked::behind(0);
        let Receiving { end, bell, wakes, .. } = receiving(&mut scene.rx);
        let holder = LockWord { slot: u16::MAX, incarnation: 1 };
        end.ring.memory.store(Word::Lock, holder.to_word(), Release);
        bell.spin = Spin::new(Duration::ZERO);
        let known = Some(end.counted());
        let waited = bell.wait(end, &mut OneRing { head: 0 }, wakes, known, until(Deadline::NEVER));
        let reason = Damage::LockOwner { slot: u16::MAX };
        assert!(matches!(waited, Err(Error::Poisoned { reason: found, .. }) if found == reason));
    }

    #[test]
    fn a_dead_holder_keeps_no_receiver_from_sleeping_and_hides_no_record() {
        for (records, expected) in [(0, Some(SLEEP_MAX)), (1, None)] {
            let mut scene = Locked::behind(records);
            let incarnation = scene.holder.incarnation.wrapping_sub(1);
            let dead = LockWord { incarnation, ..scene.holder };
            assert_eq!(scene.limit(dead, None), (expected, 0));
        }
    }

    #[test]
    fn a_living_holder_is_looked_past_if_barriers_reach_it_and_else_looked_for_ever_more_seldom() {
        for (records, expected) in [(0, Some(SLEEP_MAX)), (1, None)] {
            let mut scene = Locked::behind(records);
            let region = scene.producer().slot.region().clone();
            let flags = slot_u32(&region, scene.holder.slot, offset_of!(Slot, flags));
            let known = slot_flags::MEMBARRIER_OK | slot_flags::FENCES_ALWAYS;
            while flags.load(Relaxed) & known == 0 {
                std::thread::yield_now(); // the watcher says it, once
            }
            let is_reached = flags.load(Relaxed) & slot_flags::MEMBARRIER_OK != 0;
            let before = scene.before(SHORT_SLEEPS);
            if is_reached {
                assert_eq!(scene.limit(scene.holder, before), (expected, SHORT_SLEEPS + 1));
            }
            flags.fetch_and(!slot_flags::MEMBARRIER_OK, Relaxed);
            for (sleeps, factor) in [(0, 1), (1, 2), (4, 16), (5, 16), (u32::MAX >> 1, 16)] {
                let before = scene.before(SHORT_SLEEPS + sleeps);
                let limit = scene.limit(scene.holder, before).0;
                assert_eq!(limit, Some(SHORT * factor), "{sleeps} more");
            }
        }
    }

    #[test]
    fn a_lock_word_means_nothing_in_a_ring_without_a_lock() {
        let mut rx = receiver();
        let Receiving { end, bell, .. } = receiving(&mut rx);
        let holder = LockWord { slot: u16::MAX, incarnation: 1 };
        end.ring.memory.store(Word::Lock, holder.to_word(), Release);
        assert_eq!(armed(bell, end, 0), Some(SLEEP_MAX));
    }
}
