//! What differs between sending to a ring with one producer and to one with many.

use std::mem::offset_of;
use std::sync::atomic::Ordering::Acquire;

use crossbeam_utils::Backoff as SpinThenYield;
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
        let backoff = SpinThenYield::new(); // spins longer and longer, then yields a few times
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering::Relaxed;

    use tombolo_abi::RingControl;

    use super::sealed::Sealed;
    use super::*;
    use crate::crash::visits;
    use crate::endpoint::slot_offset;
    use crate::region::Region;
    use crate::{EventsRegion, MpscProducer, OpenOptions};

    #[test]
    fn only_rings_with_many_producers_are_lanes() {
        let kinds = [RingKind::Spsc, RingKind::Mpsc, RingKind::Lane, RingKind::Memory];
        assert_eq!(kinds.map(Spsc::takes), [true, false, false, false]);
        assert_eq!(kinds.map(Mpsc::takes), [false, true, true, false]);
    }

    /// Producers of one ring, of whom the first wants the lock.
    struct Scene {
        region: Arc<Region>,
        wakes: Wakes,
        producers: Vec<MpscProducer>,
    }

    impl Scene {
        fn new() -> Self {
            let options = OpenOptions::new().producers(3);
            let mut region = EventsRegion::anonymous(options).unwrap();
            let attach = |_| {
                let (mut producer, _) = region.split_mpsc().unwrap();
                producer.attach().unwrap();
                producer
            };
            let producers = (0..3).map(attach).collect();
            Self { region: region.shared().clone(), wakes: Wakes::default(), producers }
        }

        fn end(&self) -> &Attached {
            self.producers[0].attached_end().unwrap()
        }

        fn holder(&self, producer: usize) -> LockWord {
            self.producers[producer].attached_end().unwrap().slot.identity()
        }

        fn take(&self, holder: LockWord) -> Result<bool, NotSent> {
            take_from_dead(self.end(), &self.wakes, holder).map(|locked| locked.is_some())
        }

        fn lock_breaks(&self) -> u64 {
            let slot = self.end().slot.identity().slot;
            let at = slot_offset(&self.region, slot, offset_of!(Slot, lock_breaks));
            self.region.mapping().word_u64(at).load(Relaxed)
        }
    }

    fn set_lock(region: &Region, word: u64) {
        let at = region.entries()[1].control_offset + offset_of!(RingControl, lock) as u64;
        region.mapping().word_u64(at).store(word, Relaxed);
    }

    /// What names no endpoint of the ring's producers.
    const NO_PRODUCER: LockWord = LockWord { slot: u16::MAX, incarnation: 1 };

    #[test]
    fn a_holder_that_lives_is_named_and_one_that_is_no_producer_is_damage() {
        let scene = Scene::new();
        let holder = scene.holder(1);
        set_lock(&scene.region, holder.to_word());
        let taken = scene.take(holder);
        let is_named = |slot, pid| slot == holder.slot && pid == std::process::id();
        assert!(matches!(taken, Err(NotSent::Contended { slot, pid }) if is_named(slot, pid)));
        set_lock(&scene.region, NO_PRODUCER.to_word());
        let taken = scene.take(NO_PRODUCER);
        assert!(matches!(taken, Err(NotSent::Failed(Error::Poisoned { .. }))), "{taken:?}");
    }

    #[test]
    fn who_has_let_go_is_not_judged() {
        let scene = Scene::new();
        assert!(matches!(scene.take(NO_PRODUCER), Ok(false)));
        let (region, holder) = (scene.region.clone(), scene.holder(1));
        set_lock(&region, holder.to_word());
        let visit = visits::at("slot.before-look", move || set_lock(&region, LockWord::FREE));
        assert!(matches!(scene.take(holder), Ok(false)));
        drop(visit);
    }

    #[test]
    fn a_dead_holders_lock_is_taken_by_the_fastest_alone() {
        let mut scene = Scene::new();
        let (holder, other) = (scene.holder(1), scene.holder(2).to_word());
        drop(scene.producers.remove(1));
        let region = scene.region.clone();
        set_lock(&region, holder.to_word());
        let visit = visits::at("slot.before-look", move || set_lock(&region, other));
        assert!(matches!(scene.take(holder), Ok(false)));
        drop(visit);
        assert_eq!(scene.lock_breaks(), 0);
        set_lock(&scene.region, holder.to_word());
        assert!(matches!(scene.take(holder), Ok(true)));
        assert_eq!(scene.lock_breaks(), 1);
    }

    /// Makes the lock change hands whenever its holder is about to be checked.
    fn alternate(region: Arc<Region>, next: [u64; 2], rounds: u32) {
        let [first, second] = next;
        let pass_on = move || {
            set_lock(&region, first);
            if rounds > 1 {
                alternate(region, [second, first], rounds - 1);
            }
        };
        std::mem::forget(visits::at("slot.before-look", pass_on));
    }

    #[test]
    fn of_many_that_come_first_the_last_that_was_judged_is_named() {
        let scene = Scene::new();
        let [one, other] = [scene.holder(1), scene.holder(2)];
        set_lock(&scene.region, one.to_word());
        alternate(scene.region.clone(), [other.to_word(), one.to_word()], ROUNDS);
        let Err(NotSent::Contended { slot, pid }) = lock(scene.end(), &scene.wakes) else {
            panic!("it has the lock")
        };
        assert_eq!((slot, pid), (other.slot, std::process::id()));
    }

    #[test]
    fn a_lock_word_that_names_no_endpoint_at_all_is_damage() {
        let scene = Scene::new();
        set_lock(&scene.region, 7);
        let locked = lock(scene.end(), &scene.wakes).map(drop);
        assert!(matches!(locked, Err(NotSent::Failed(Error::Poisoned { .. }))), "{locked:?}");
    }
}
