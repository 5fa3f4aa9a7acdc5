//! The consumer of either ring: receives until it is empty, then polls or sleeps.

use std::sync::atomic::Ordering::Acquire;

use tombolo_abi::LockWord;

use super::super::super::doorbell::{
    Armed, Arming, Fences, Polled, RxDoorbell, Trust, poll, poll_locked, poll_past_holder,
};
use super::super::super::{Consumer, Memory, Ring, Wakes, Word};
use super::super::replay::Replay;
use super::actor::{Actor, Event, Ran, id};
use super::bridge::{self, How};
use super::call::{Call, Ends, TIMED_OUT};
use super::setup::{Mutant, Setup};
use super::words::Words;

/// The consumer of either ring.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Receiver {
    /// Takes the consumer's lock byte first, so it comes after whoever holds it.
    pub(super) slot: u16,
    pub(super) idles: Idles,
    pub(super) kept: Option<(Consumer, RxDoorbell)>,
    /// Whether it has freed anything.
    pub(super) has_freed: bool,
    /// Short sleeps while the same holder has the lock.
    pub(super) tries: u8,
    /// Deaths that it knows of.
    pub(super) epoch: u64,
    pub(super) stage: Stage,
}

/// What it does while the ring is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Idles {
    Polls,
    /// Polls, as the consumer of an MPSC ring.
    PollsLocked,
    /// Sleeps, as the consumer of an SPSC ring.
    Sleeps,
    /// Sleeps, as the consumer of an MPSC ring.
    SleepsLocked,
    /// Waits so while a thread of its process sleeps, as the consumer of an SPSC ring.
    Stands(How),
    /// The same, as the consumer of an MPSC ring.
    StandsLocked(How),
}

impl Idles {
    fn is_locked(self) -> bool {
        matches!(self, Self::PollsLocked | Self::SleepsLocked | Self::StandsLocked(_))
    }

    /// How it waits while another thread sleeps.
    fn stands(self) -> Option<How> {
        match self {
            Self::Stands(how) | Self::StandsLocked(how) => Some(how),
            _ => None,
        }
    }
}

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    Attach,
    Take,
    Free,
    Idle,
    Look(Armed),
    Judge(Armed, LockWord),
    Past(Armed),
    Sleep(Armed, Ends),
    Stand(Armed),
    Await,
}

/// The slot of the ring's consumers.
pub(super) const SLOT: u16 = 4;
/// Short sleeps behind a live holder.
const TRIES: u8 = 1;

impl Receiver {
    pub(super) fn new(idles: Idles) -> Self {
        let stage = Stage::Attach;
        Self { slot: SLOT, idles, kept: None, has_freed: false, tries: 0, epoch: 0, stage }
    }

    pub(super) fn run(&self, replay: &Replay<'_>, setup: &Setup) -> Ran {
        let ring = &setup.ring(replay);
        let Some((consumer, doorbell)) = self.kept.clone() else { return self.attach(ring, setup) };
        match self.stage {
            Stage::Attach => unreachable!("attached"),
            Stage::Take => self.take(ring, consumer, doorbell),
            Stage::Free => self.free(ring, consumer, doorbell),
            Stage::Idle => Ok(self.idle(ring, &consumer, doorbell, setup)),
            Stage::Look(armed) => Ok(self.look(ring, consumer.head(), armed, setup)),
            Stage::Judge(armed, holder) => Ok(self.judge(ring, consumer.head(), armed, holder)),
            Stage::Past(armed) => Ok(match poll_past_holder(ring, consumer.head()) {
                None => self.to(Stage::Sleep(armed, Ends::Whenever)),
                Some(found) => self.found(ring, found, armed),
            }),
            Stage::Sleep(armed, ends) => Ok(self.sleep(ring, armed, ends)),
            Stage::Stand(armed) => {
                let arming = Arming::Record(armed.word);
                let stands = bridge::stand(ring, Word::RxWake, arming, self.epoch, setup);
                Ok(self.to(if stands { Stage::Await } else { Stage::Take }))
            }
            Stage::Await => {
                self.idles.stands().into_iter().for_each(|how| bridge::wait(replay, how));
                Ok(self.to(Stage::Take))
            }
        }
    }

    fn to(&self, stage: Stage) -> (Actor, Event) {
        (Actor::Receiver(Self { stage, ..self.clone() }), Event::Nothing)
    }

    fn attach(&self, ring: &Ring<Words<'_>>, setup: &Setup) -> Ran {
        ring.memory.replay.call(Call::TakeByte(self.slot));
        let fences = match self.idles {
            idles if idles.is_locked() => Fences::Always,
            _ if setup.mutant == Mutant::BelievesRequest
                && ring.memory.load(Word::RxWake, Acquire) & 2 != 0 =>
            {
                Fences::On
            }
            _ => Fences::Requested,
        };
        let consumer = Consumer::attach(ring).map_err(|damage| damage.to_string())?;
        let doorbell = RxDoorbell::attach(ring, id(self.slot, 1), 0, fences);
        let attached =
            Self { kept: Some((consumer, doorbell)), stage: Stage::Take, ..self.clone() };
        Ok((Actor::Receiver(attached), Event::Nothing))
    }

    fn take(
        &self,
        ring: &Ring<Words<'_>>,
        mut consumer: Consumer,
        mut doorbell: RxDoorbell,
    ) -> Ran {
        if doorbell.can_relax() && ring.memory.replay.call(Call::Choose(2)) == 1 {
            doorbell.relax(ring);
            let (next, _) = self.keep(consumer, doorbell, Stage::Take);
            return Ok((next, Event::Relaxed));
        }
        let front = consumer.front(ring, &Wakes::default()).map_err(|damage| damage.to_string())?;
        let Some(front) = front else { return Ok(self.keep(consumer, doorbell, Stage::Idle)) };
        let mut bytes = vec![0; front.payload_len()];
        consumer.copy_out(ring, front, &mut bytes);
        let position = consumer.head();
        match bytes.split_first() {
            Some((number, rest)) if *number == 0 || rest.iter().any(|byte| byte != number) => {
                Err(format!("torn: {bytes:x?} at {position}"))
            }
            first => {
                let number = first.map_or(0, |(number, _)| *number);
                let (next, _) = self.keep(consumer, doorbell, Stage::Free);
                Ok((next, Event::Took(position, number)))
            }
        }
    }

    fn keep(&self, consumer: Consumer, doorbell: RxDoorbell, stage: Stage) -> (Actor, Event) {
        let next = Self { kept: Some((consumer, doorbell)), stage, ..self.clone() };
        (Actor::Receiver(next), Event::Nothing)
    }

    fn free(&self, ring: &Ring<Words<'_>>, mut consumer: Consumer, doorbell: RxDoorbell) -> Ran {
        let wakes = &Wakes::default();
        let front = consumer.front(ring, wakes).map_err(|damage| damage.to_string())?;
        consumer.free(ring, front.ok_or("a record that was taken is gone")?, wakes);
        let kept = Some((consumer, doorbell));
        let freed = Self { kept, has_freed: true, tries: 0, stage: Stage::Take, ..self.clone() };
        Ok((Actor::Receiver(freed), Event::Nothing))
    }

    fn idle(
        &self,
        ring: &Ring<Words<'_>>,
        consumer: &Consumer,
        mut doorbell: RxDoorbell,
        setup: &Setup,
    ) -> (Actor, Event) {
        if matches!(self.idles, Idles::Polls | Idles::PollsLocked) {
            ring.memory.replay.call(Call::UntilRecord(consumer.head()));
            return self.to(Stage::Take);
        }
        if self.idles.stands().is_some() {
            if bridge::stands_in_word(ring) {
                return self.to(Stage::Await);
            }
            let epoch = ring.memory.replay.call(Call::Epoch);
            let is_empty = setup.mutant == Mutant::LooksBeforeArmingOnly
                && poll(ring, consumer.head()) == Polled::Nothing;
            let armed = doorbell.arm(ring);
            let stage = if is_empty { Stage::Stand(armed) } else { Stage::Look(armed) };
            let kept = Some((consumer.clone(), doorbell));
            let next = Self { kept, epoch, stage, ..self.clone() };
            return (Actor::Receiver(next), Event::Nothing);
        }
        let armed = doorbell.arm(ring);
        if setup.mutant == Mutant::TrustsAtOnce {
            doorbell.slept_out();
        }
        self.keep(consumer.clone(), doorbell, Stage::Look(armed))
    }

    fn look(
        &self,
        ring: &Ring<Words<'_>>,
        head: u64,
        armed: Armed,
        setup: &Setup,
    ) -> (Actor, Event) {
        let found = match self.idles {
            Idles::SleepsLocked if setup.mutant == Mutant::HeaderBeforeLock => {
                let found = poll(ring, head);
                let holder = LockWord::from_word(ring.memory.load(Word::Lock, Acquire));
                match (found, holder) {
                    (Polled::Nothing, Some(holder)) => Polled::LockedBy(holder),
                    (found, _) => found,
                }
            }
            idles if idles.is_locked() => poll_locked(ring, head),
            _ => poll(ring, head),
        };
        self.found(ring, found, armed)
    }

    /// What follows a look.
    fn found(&self, ring: &Ring<Words<'_>>, found: Polled, armed: Armed) -> (Actor, Event) {
        match found {
            Polled::Nothing if self.idles.stands().is_some() => self.to(Stage::Stand(armed)),
            Polled::Nothing if armed.trust == Trust::Short => {
                self.to(Stage::Sleep(armed, Ends::Soon))
            }
            Polled::Nothing => self.to(Stage::Sleep(armed, Ends::Never)),
            Polled::LockedBy(holder) => self.to(Stage::Judge(armed, holder)),
            Polled::Something => {
                self.kept.as_ref().expect("attached").1.disarm(ring);
                if self.idles.stands().is_some() {
                    bridge::end(ring);
                }
                self.to(Stage::Take)
            }
        }
    }

    /// Behind a dead holder, one more look is the last: who takes the lock over comes after the
    /// arming. Behind a live one, short sleeps; then a barrier.
    fn judge(
        &self,
        ring: &Ring<Words<'_>>,
        head: u64,
        armed: Armed,
        holder: LockWord,
    ) -> (Actor, Event) {
        let replay = ring.memory.replay;
        let is_alive = replay.call(Call::Incarnation(holder.slot)) == u64::from(holder.incarnation)
            && replay.call(Call::Probe(holder.slot)) == 1;
        if !is_alive {
            return self.found(ring, poll(ring, head), armed);
        }
        // One that waits elsewhere would be told to look again soon.
        if self.tries == TRIES || self.idles.stands().is_some() {
            return self.to(Stage::Past(armed));
        }
        let stage = Stage::Sleep(armed, Ends::Whenever);
        let next = Self { tries: self.tries + 1, stage, ..self.clone() };
        (Actor::Receiver(next), Event::Nothing)
    }

    /// Sleeps on the arming, unless somebody has died since it last looked.
    fn sleep(&self, ring: &Ring<Words<'_>>, armed: Armed, ends: Ends) -> (Actor, Event) {
        let replay = ring.memory.replay;
        let epoch = replay.call(Call::Epoch);
        let mut kept = self.kept.clone();
        let (_, doorbell) = kept.as_mut().expect("attached");
        if epoch == self.epoch {
            let ended = replay.call(Call::Wait(Word::RxWake, armed.word, ends));
            if ended == TIMED_OUT && ends == Ends::Soon {
                doorbell.slept_out();
            }
        }
        doorbell.disarm(ring);
        let next = Self { kept, epoch, stage: Stage::Take, ..self.clone() };
        (Actor::Receiver(next), Event::Nothing)
    }
}
