//! What differs between sending to a ring with one producer and to one with many.

use std::mem::offset_of;
use std::sync::atomic::Ordering::Acquire;

use crossbeam_utils::Backoff;
use tombolo_abi::{LockWord, RingKind, Slot};

use crate::endpoint::{Attached, pid_of_owner};
use crate::ends::NotSent;
use crate::error::{Damage, Error};
use crate::mem::RingSpan;
use crate::ring::{
    Held, LaneProducer, Locked, Memory, Ring, SendFast, Sent, SharedProducer, SpscProducer, Wakes,
    Window, Word, touch, transfer, try_lock,
};

/// Marks the ends of a ring with one producer.
#[derive(Clone, Copy, Debug)]
pub enum Spsc {}

/// Marks the ends of a ring with many producers: in total order, or each in its own, see
/// [`MpscOrder`](crate::options::MpscOrder).
#[derive(Clone, Copy, Debug)]
pub enum Mpsc {}

/// How senders share a ring: [`Spsc`] or [`Mpsc`].
#[expect(private_bounds, reason = "sealed: it names types that no user needs")]
pub trait Topology: sealed::Sealed {}

impl Topology for Spsc {}
impl Topology for Mpsc {}

/// Closes [`Topology`] and hides what it takes.
pub(crate) mod sealed {
    use super::{
        Attached, Error, NotSent, Ring, RingKind, RingSpan, SendFast, Sent, Wakes, Window,
    };

    /// What the two topologies do each in its own way.
    pub(crate) trait Sealed: Sized + 'static {
        /// The kind of ring in the directory.
        const KIND: RingKind;
        /// Whether it may also be a group of lanes.
        const MAY_HAVE_LANES: bool = false;
        /// What an attached sender keeps beside its endpoint.
        type Producer: SendFast<RingSpan> + Send + std::fmt::Debug;

        /// Whether rings of `kind` are used by it.
        fn takes(kind: RingKind) -> bool {
            kind == Self::KIND || Self::MAY_HAVE_LANES && kind == RingKind::Lane
        }

        /// Takes the sending end over.
        ///
        /// # Errors
        /// If the ring is damaged.
        fn attach(end: &Attached) -> Result<Self::Producer, Error>;

        /// Runs `step`, a verb of the window that sends from `payloads`, and returns how many messages it
        /// published.
        ///
        /// # Errors
        /// Those of `step`, and [`NotSent::Contended`].
        fn produce(
            end: &Attached,
            producer: &mut Self::Producer,
            wakes: &Wakes,
            payloads: &[&[u8]],
            step: impl FnOnce(&mut Window, &Ring<RingSpan>) -> Result<Sent, NotSent>,
        ) -> Result<usize, NotSent>;
    }
}

impl sealed::Sealed for Spsc {
    const KIND: RingKind = RingKind::Spsc;
    type Producer = SpscProducer;

    fn attach(end: &Attached) -> Result<SpscProducer, Error> {
        SpscProducer::attach(&end.ring).map_err(|damage| end.damaged(damage))
    }

    fn produce(
        end: &Attached,
        producer: &mut SpscProducer,
        wakes: &Wakes,
        _payloads: &[&[u8]],
        step: impl FnOnce(&mut Window, &Ring<RingSpan>) -> Result<Sent, NotSent>,
    ) -> Result<usize, NotSent> {
        producer.produce(&end.ring, wakes, step)
    }
}

/// How an [`Mpsc`] producer sends.
#[derive(Debug)]
pub(crate) enum Producing {
    /// On the ring of all, under its lock.
    Shared(SharedProducer),
    /// On a lane of its own.
    Lane(LaneProducer),
}

impl SendFast<RingSpan> for Producing {
    #[inline(always)]
    fn send_fast(
        &mut self,
        ring: &Ring<RingSpan>,
        wakes: &Wakes,
        payload: &[u8],
        count: impl FnOnce(Sent),
    ) -> bool {
        match self {
            Self::Shared(producer) => producer.send_fast(ring, wakes, payload, count),
            Self::Lane(producer) => producer.send_fast(ring, wakes, payload, count),
        }
    }
}

impl sealed::Sealed for Mpsc {
    const KIND: RingKind = RingKind::Mpsc;
    const MAY_HAVE_LANES: bool = true;
    type Producer = Producing;

    fn attach(end: &Attached) -> Result<Producing, Error> {
        if !end.is_lane() {
            return Ok(Producing::Shared(SharedProducer { me: end.slot.identity() }));
        }
        let producer = LaneProducer::attach(&end.ring, end.entry.lane_index);
        producer.map(Producing::Lane).map_err(|damage| end.damaged(damage))
    }

    fn produce(
        end: &Attached,
        producer: &mut Producing,
        wakes: &Wakes,
        payloads: &[&[u8]],
        step: impl FnOnce(&mut Window, &Ring<RingSpan>) -> Result<Sent, NotSent>,
    ) -> Result<usize, NotSent> {
        if let Producing::Lane(producer) = producer {
            return producer.produce(&end.ring, wakes, step);
        }
        payloads.iter().for_each(|payload| touch(payload));
        let mut locked = lock(end, wakes)?;
        let sent = locked.produce(step)?;
        end.slot.count_sent(sent);
        Ok(sent.count)
    }
}

/// Takes the lock, also over from a dead holder.
///
/// # Errors
/// [`NotSent::Contended`] if a live holder keeps it.
fn lock<'a>(end: &'a Attached, wakes: &'a Wakes) -> Result<Locked<'a, RingSpan>, NotSent> {
    match try_lock(&end.ring, end.slot.identity(), wakes) {
        Ok(locked) => Ok(locked),
        Err(held) => lock_contended(end, wakes, held),
    }
}

/// Rounds of waiting before an attempt gives up on a lock that keeps changing hands.
const ROUNDS: u32 = 8;

#[cold]
fn lock_contended<'a>(
    end: &'a Attached,
    wakes: &'a Wakes,
    mut held: Held,
) -> Result<Locked<'a, RingSpan>, NotSent> {
    let mut last_holder = None;
    for _ in 0..ROUNDS {
        let backoff = Backoff::new(); // spins longer and longer, then yields a few times
        while !backoff.is_completed() {
            if let Held::Damaged(damage) = held {
                return Err(end.damaged(damage).into());
            }
            backoff.snooze();
            match try_lock(&end.ring, end.slot.identity(), wakes) {
                Ok(locked) => return Ok(locked),
                Err(found) => held = found,
            }
        }
        if let Held::By(holder) = held {
            if let Some(locked) = take_from_dead(end, wakes, holder)? {
                return Ok(locked);
            }
            last_holder = Some(holder);
        }
    }
    // Other producers keep coming first: they live, or the lock would not have moved on.
    let slot = last_holder.map_or(0, |holder| holder.slot);
    let pid = last_holder.map_or(0, |holder| pid_of_owner(end.slot.region(), holder));
    Err(NotSent::Contended { slot, pid })
}

/// Takes the lock over from `holder` if that is dead. Returns `None` if it has freed the lock meanwhile.
///
/// # Errors
/// [`NotSent::Contended`] if it lives.
fn take_from_dead<'a>(
    end: &'a Attached,
    wakes: &'a Wakes,
    holder: LockWord,
) -> Result<Option<Locked<'a, RingSpan>>, NotSent> {
    let slot = holder.slot;
    let still_holds = || end.ring.memory.load(Word::Lock, Acquire) == holder.to_word();
    if !still_holds() {
        return Ok(None); // also: the slot is read after the lock word that names it
    }
    if !end.entry.tx_slots().contains(&slot) {
        return Err(end.damaged(Damage::LockOwner { slot }).into());
    }
    if end.slot.is_alive(holder)? {
        let pid = pid_of_owner(end.slot.region(), holder);
        return if still_holds() { Err(NotSent::Contended { slot, pid }) } else { Ok(None) };
    }
    let locked = transfer(&end.ring, holder, end.slot.identity(), wakes);
    let locked = locked.map_err(|damage| end.damaged(damage))?;
    if locked.is_some() {
        end.slot.count(offset_of!(Slot, lock_breaks));
    }
    Ok(locked)
}
