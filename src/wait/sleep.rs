//! Sleeping of both sides: on which word, and what is counted.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Acquire;
use std::time::Duration;

use crate::endpoint::{Attached, Peer, Until};
use crate::error::Error;
use crate::os::futex::{Moment, Woken};
use crate::ring::SpaceWanted;
use crate::ring::doorbell::arm_for_space;

/// The longest sleep: besides all that wakes a sleeper, it polls by itself now and then.
pub(crate) const SLEEP_MAX: Duration = Duration::from_secs(1);

/// The longest sleep of an end without a peer: a death changes no count.
const PEER_SLEEP_MAX: Duration = Duration::from_millis(100);

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// A peer has exited.
    ByPeerExit,
    /// Something else may have happened.
    Perhaps,
    /// It was time.
    TimedOut,
}

/// What to sleep on, and for how long at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sleep {
    pub(crate) word: u32,
    pub(crate) limit: Duration,
}

/// Why a wait ended with nothing to do.
#[derive(Debug)]
pub(crate) enum GaveUp {
    Timeout,
    Interrupted,
    Failed(Error),
}

impl From<Error> for GaveUp {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Sleeps as a consumer that has armed, unless peers have exited since `known` was counted.
pub(crate) fn sleep_for_record(
    end: &Attached,
    Sleep { word, limit }: Sleep,
    known: Option<u64>,
    until: Until<'_>,
) -> Ended {
    sleep_on(end, (end.rx_wake(), word), known, until, limit)
}

/// Sleeps as a producer until there is space for `wanted`, if there is none yet and no peer has exited
/// since `known` was counted.
pub(crate) fn sleep_for_space(
    end: &Attached,
    wanted: &SpaceWanted,
    known: Option<u64>,
    until: Until<'_>,
) {
    // An arming that is not slept on stays: it costs the consumer one system call.
    if let Some(word) = arm_for_space(&end.ring, wanted) {
        sleep_on(end, (end.tx_wake(), word), known, until, SLEEP_MAX);
    }
}

fn sleep_on(
    end: &Attached,
    (doorbell, word): (&AtomicU32, u32),
    known: Option<u64>,
    until: Until<'_>,
    limit: Duration,
) -> Ended {
    if end.has_peer_exits(known) {
        return Ended::ByPeerExit;
    }
    if !end.ring.is_open() {
        return Ended::Perhaps; // edge `poison`: marked before the arming, reported by the next poll
    }
    end.count_sleep();
    match until.interrupts.sleep(doorbell, word, Moment::within(until.deadline, limit)) {
        _ if end.count_peer_exit(known) => Ended::ByPeerExit,
        Woken::Perhaps => Ended::Perhaps,
        Woken::TimedOut => Ended::TimedOut,
    }
}

/// Sleeps until an endpoint of the region changes hands, if none has since the count was `seen`.
pub(crate) fn sleep_for_peer(end: &Attached, seen: u32, until: Until<'_>) {
    let moment = Moment::within(until.deadline, PEER_SLEEP_MAX);
    until.interrupts.sleep(end.slot.region().membership(), seen, moment);
}

/// Waits until a process owns an endpoint of the other side, or one has owned it since `peer` was found
/// disconnected, or else since now: it may have left messages, and a lane has no next owner before
/// they are taken.
pub(crate) fn wait_for_peer(end: &Attached, peer: &Peer, until: Until<'_>) -> Result<(), GaveUp> {
    let mut before = peer.disconnected;
    loop {
        end.check_usable()?;
        // Before the bytes are asked after: a peer that attaches after that changes it.
        let seen = end.slot.region().membership().load(Acquire);
        let polled = end.meeting.poll(&end.slot)?;
        if polled.is_any_alive || *before.get_or_insert(polled.incarnations) != polled.incarnations
        {
            return Ok(());
        }
        if until.interrupts.take() {
            return Err(GaveUp::Interrupted);
        }
        if until.deadline.has_passed() {
            return Err(GaveUp::Timeout);
        }
        sleep_for_peer(end, seen, until);
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;
    use std::sync::atomic::Ordering::Relaxed;

    use tombolo_abi::{RingControl, Slot};

    use super::*;
    use crate::endpoint::{Interrupts, slot_offset};
    use crate::ends::{NotSent, Receiving, Sending, Spsc, Topology};
    use crate::error::Damage;
    use crate::options::MpscOrder;
    use crate::os::{futex, staged};
    use crate::wait::{OneRing, Waited};
    use crate::{Deadline, EventsRegion, OpenOptions, Receiver, Sender, TryRecvError};

    /// A sleep that nothing ends, so short that a test which begins one by mistake is over soon.
    const LIMIT: Duration = Duration::from_millis(10);
    const DAMAGE: Damage = Damage::Marked { code: 1 };

    fn region(order: MpscOrder) -> EventsRegion {
        let options = OpenOptions::new().spsc_capacity(4096).mpsc_capacity(4096);
        EventsRegion::anonymous(options.producers(2).mpsc_order(order)).unwrap()
    }

    /// Attaches both ends; neither has a peer exit to report.
    fn attach<K: Topology>(tx: &mut Sender<K>, rx: &mut Receiver<K>) {
        tx.attach().unwrap();
        rx.attach().unwrap();
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    }

    /// Sleeps that an endpoint has begun: they distinguish a tick from a sleep that never was.
    fn sleeps(end: &Attached) -> u64 {
        counter(end, offset_of!(Slot, sleeps))
    }

    /// A counter in the slot of an endpoint.
    fn counter(end: &Attached, offset: usize) -> u64 {
        let region = end.slot.region();
        let offset = slot_offset(region, end.slot.identity().slot, offset);
        region.mapping().word_u64(offset).load(Relaxed)
    }

    fn uninterrupted(deadline: Deadline) -> Until<'static> {
        Until { deadline, interrupts: Interrupts::never() }
    }

    /// How a receiver that has armed an empty ring sleeps.
    fn sleep_of<K: Topology>(rx: &mut Receiver<K>, known: impl Fn(u64) -> u64) -> (Ended, u64) {
        let receiving = rx.receiving_until(Deadline::PAST).unwrap();
        let (end, head) = (&receiving.end, receiving.consumer.head());
        let armed = receiving.bell.arm(end, &mut OneRing { head }).unwrap().unwrap();
        let (before, known) = (sleeps(end), known(end.counted()));
        let sleep = Sleep { limit: LIMIT, ..armed };
        let ended = sleep_for_record(end, sleep, Some(known), uninterrupted(Deadline::NEVER));
        (ended, sleeps(end) - before)
    }

    #[test]
    fn what_was_there_before_the_arming_lets_no_receiver_sleep() {
        let (mut tx, mut rx) = region(MpscOrder::Total).split_spsc().unwrap();
        attach(&mut tx, &mut rx);
        assert_eq!(sleep_of(&mut rx, |count| count), (Ended::TimedOut, 1));
        let unknown = |count: u64| count.wrapping_sub(1);
        assert_eq!(sleep_of(&mut rx, unknown), (Ended::ByPeerExit, 0), "a peer exit");
        rx.receiving_until(Deadline::PAST).unwrap().end.ring.poison(DAMAGE);
        assert_eq!(sleep_of(&mut rx, |count| count), (Ended::Perhaps, 0), "poison");
    }

    /// How often a sender that found no space sleeps, when `meanwhile` has happened.
    fn sleeps_of_blocked(
        known: impl Fn(u64) -> u64,
        meanwhile: impl FnOnce(&Attached, &mut Receiver<crate::ends::Spsc>),
    ) -> u64 {
        let (mut tx, mut rx) = region(MpscOrder::Total).split_spsc().unwrap();
        attach(&mut tx, &mut rx);
        let wanted = loop {
            match tx.attempt(&[1; 100]) {
                Ok(()) => {}
                Err(NotSent::Full(wanted)) => break wanted,
                Err(other) => panic!("{other:?}"),
            }
        };
        let end = tx.attached_end().unwrap();
        meanwhile(end, &mut rx);
        let (before, known) = (sleeps(end), known(end.counted()));
        sleep_for_space(end, &wanted, Some(known), uninterrupted(LIMIT.into()));
        sleeps(end) - before
    }

    #[test]
    fn what_was_there_before_the_arming_lets_no_blocked_sender_sleep() {
        let known = |count| count;
        assert_eq!(sleeps_of_blocked(known, |_, _| ()), 1);
        let unknown = |count: u64| count.wrapping_sub(1);
        assert_eq!(sleeps_of_blocked(unknown, |_, _| ()), 0, "a peer exit");
        assert_eq!(sleeps_of_blocked(known, |end, _| end.ring.poison(DAMAGE)), 0, "poison");
        let freed = |_: &Attached, rx: &mut Receiver<_>| while rx.try_recv().is_ok() {};
        assert_eq!(sleeps_of_blocked(known, freed), 0, "space");
    }

    /// Whether a receiver arms for a sleep, alone or with others.
    fn would_sleep<K: Topology>(rx: &mut Receiver<K>) -> bool {
        let receiving = rx.receiving_until(Deadline::PAST).unwrap();
        let armed = receiving.arm();
        receiving.disarm();
        armed.is_some()
    }

    fn looks_after_arming<K: Topology>((mut tx, mut rx): (Sender<K>, Receiver<K>)) {
        tx.attach().unwrap();
        rx.attach().unwrap();
        assert!(!would_sleep(&mut rx), "it has not asked after peer_exits yet");
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
        for _ in 0..3 {
            assert!(would_sleep(&mut rx));
            tx.send(b"after the last poll").unwrap();
            assert!(!would_sleep(&mut rx), "a message");
            rx.try_recv().unwrap();
        }
        rx.receiving_until(Deadline::PAST).unwrap().end.ring.poison(DAMAGE);
        assert!(!would_sleep(&mut rx), "poison");
    }

    #[test]
    fn a_receiver_of_any_kind_that_has_armed_looks_once_more_before_it_sleeps() {
        looks_after_arming(region(MpscOrder::Total).split_spsc().unwrap());
        looks_after_arming(region(MpscOrder::Total).split_mpsc().unwrap());
        looks_after_arming(region(MpscOrder::PerProducer).split_mpsc().unwrap());
    }

    fn receiving(rx: &mut Receiver<Spsc>) -> &mut Receiving {
        rx.receiving_until(Deadline::PAST).unwrap()
    }

    /// Waits at the front of an empty ring.
    fn wait(rx: &mut Receiver<Spsc>, deadline: Deadline) {
        let Receiving { end, consumer, wakes, peer, bell, .. } = receiving(rx);
        let mut front = OneRing { head: consumer.head() };
        bell.wait(end, &mut front, wakes, peer.asked(), uninterrupted(deadline)).unwrap();
    }

    #[test]
    fn before_a_sleep_it_is_stored_how_often_no_producer_had_to_be_notified() {
        let (mut tx, mut rx) = region(MpscOrder::Total).split_spsc().unwrap();
        for _ in 0..20 {
            tx.send(&[0; 900]).unwrap();
            rx.recv().unwrap();
        }
        assert!(rx.try_recv().is_err());
        let stored =
            |rx: &mut Receiver<Spsc>| counter(&receiving(rx).end, offset_of!(Slot, wakes_elided));
        assert_eq!(stored(&mut rx), 0);
        wait(&mut rx, Deadline::PAST);
        assert!(stored(&mut rx) > 0);
    }

    #[test]
    fn a_wake_up_that_finds_nothing_is_counted_and_one_by_time_is_not() {
        let mut rx = region(MpscOrder::Total).split_spsc().unwrap().1;
        assert!(rx.try_recv().is_err());
        let spurious = |rx: &mut Receiver<Spsc>| {
            let memory = &receiving(rx).end.ring.memory;
            memory.group_u64(offset_of!(RingControl, spurious)).load(Relaxed)
        };
        wait(&mut rx, Deadline::PAST);
        assert_eq!(spurious(&mut rx), 0);
        let region = receiving(&mut rx).end.slot.region().clone();
        let control = region.entries()[0].control_offset;
        let word = region.mapping().word_u32(control + offset_of!(RingControl, rx_wake) as u64);
        let mut rx = std::thread::scope(|scope| {
            let waiting = scope.spawn(move || {
                wait(&mut rx, Deadline::NEVER);
                rx
            });
            while !waiting.is_finished() {
                futex::wake_all(word);
                std::thread::yield_now();
            }
            waiting.join().unwrap()
        });
        assert_eq!(spurious(&mut rx), 1);
    }

    /// How a wait for the other side ends, and how often this thread has slept meanwhile, if that is known.
    fn waited(tx: &mut Sender<Spsc>, until: Until<'_>) -> (Result<(), GaveUp>, Option<u64>) {
        let Sending { end, peer, .. } = tx.usable().unwrap();
        let before = staged::sleeps();
        let waited = wait_for_peer(end, peer, until);
        (waited, staged::sleeps().zip(before).map(|(after, before)| after - before))
    }

    #[test]
    fn who_waits_for_a_peer_sleeps_until_time_or_an_interrupt_ends_that() {
        let (mut tx, _rx) = region(MpscOrder::Total).split_spsc().unwrap();
        let (ended, sleeps) = waited(&mut tx, uninterrupted(Duration::from_millis(50).into()));
        assert!(matches!(ended, Err(GaveUp::Timeout)), "{ended:?}");
        assert!(sleeps.is_none_or(|count| (1..20).contains(&count)), "{sleeps:?}");
        let mut interrupts = Interrupts::default();
        let interrupter = interrupts.interrupter();
        interrupter.interrupt();
        let until = || Until { deadline: Deadline::PAST, interrupts: &interrupts };
        assert!(matches!(waited(&mut tx, until()).0, Err(GaveUp::Interrupted)));
        assert!(matches!(waited(&mut tx, until()).0, Err(GaveUp::Timeout)));
    }

    #[test]
    fn a_peer_that_has_come_and_gone_since_a_disconnect_was_waited_for() {
        let mut region = region(MpscOrder::Total);
        let (mut tx, mut rx) = region.split_spsc().unwrap();
        attach(&mut tx, &mut rx);
        let now = || uninterrupted(Deadline::PAST);
        assert!(waited(&mut tx, now()).0.is_ok());
        drop(rx);
        let sending = tx.usable().unwrap();
        assert!(sending.peer.is_disconnected(&sending.end).unwrap());
        assert!(matches!(waited(&mut tx, now()).0, Err(GaveUp::Timeout)));
        region.split_spsc().unwrap().1.attach().unwrap();
        assert!(waited(&mut tx, now()).0.is_ok());
    }

    #[test]
    fn no_peer_is_waited_for_in_a_ring_that_is_damaged() {
        let (mut tx, mut rx) = region(MpscOrder::Total).split_spsc().unwrap();
        attach(&mut tx, &mut rx);
        let Sending { end, peer, .. } = tx.usable().unwrap();
        end.ring.poison(DAMAGE);
        let waited = wait_for_peer(end, peer, uninterrupted(Deadline::PAST));
        assert!(matches!(waited, Err(GaveUp::Failed(Error::Poisoned { .. }))), "{waited:?}");
    }
}
