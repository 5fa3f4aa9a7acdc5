//! A producer of an MPSC ring: locks, checks a holder, takes over, sends, waits for space.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::Acquire;

use tombolo_abi::{LockWord, next_incarnation};

use super::super::super::doorbell::{Arming, arm_for_space, has_come};
use super::super::super::{self as ring, Held, Memory, Refusal, Ring, SpaceWanted, Wakes, Word};
use super::super::{super::transfer, super::try_lock, replay::Replay, send_step};
use super::actor::{Actor, Event, Job, Ran, WhenFull, fill};
use super::bridge::{self, How};
use super::call::{Call, Ends, TIMED_OUT};
use super::setup::{Mutant, Setup};
use super::words::{Fault, Words};

/// A producer of an MPSC ring.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Locked {
    pub(super) me: LockWord,
    pub(super) jobs: &'static [Job],
    /// Which messages are its own, and how many of them are sent.
    pub(super) numbers_from: u8,
    pub(super) sent: u8,
    /// Messages of the present batch that are sent.
    pub(super) part: usize,
    pub(super) when_full: WhenFull,
    pub(super) after_transfer: AfterTransfer,
    pub(super) stage: Stage,
}

/// What follows taking a lock over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum AfterTransfer {
    Sends,
    LetsGo,
    Either,
}

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// To take its slot's byte from a dead owner.
    Attach,
    Send,
    Judge(LockWord),
    /// A live holder has the lock.
    Until(u64),
    Full(SpaceWanted),
    Sleep(SpaceWanted, u32),
    Stand(SpaceWanted, How),
    Await(How),
}

type Sent = Result<usize, Refusal>;

impl Locked {
    pub(super) fn new(me: LockWord, jobs: &'static [Job]) -> Self {
        Self {
            me,
            jobs,
            numbers_from: (me.slot as u8 + 1) * 16 + me.incarnation as u8 * 4,
            sent: 0,
            part: 0,
            when_full: WhenFull::Polls,
            after_transfer: AfterTransfer::Sends,
            stage: Stage::Send,
        }
    }

    pub(super) fn held_from_start(&self) -> Option<u16> {
        (self.stage != Stage::Attach).then_some(self.me.slot)
    }

    pub(super) fn run(&self, replay: &Replay<'_>, setup: &Setup) -> Ran {
        let (ring, wakes) = (&setup.ring(replay), &Wakes::default());
        match self.stage {
            Stage::Attach => self.attach(ring, wakes, setup),
            Stage::Send => match try_lock(ring, self.me, wakes) {
                Ok(locked) => self.work(ring, locked),
                Err(Held::By(holder)) => Ok(self.to(Stage::Judge(holder), Event::Nothing)),
                Err(Held::Damaged(damage)) => Err(damage.to_string()),
            },
            Stage::Judge(holder) => self.judge(ring, wakes, holder, setup),
            Stage::Until(word) => {
                replay.call(Call::UntilLock(word));
                Ok(self.to(Stage::Send, Event::Nothing))
            }
            Stage::Full(wanted) => Ok(self.wait_for_space(ring, wanted)),
            Stage::Sleep(wanted, word) => Ok(self.sleep(ring, wanted, word)),
            Stage::Stand(wanted, how) => {
                let stands = bridge::stand(ring, Word::TxWake, Arming::Space(wanted), 0, setup);
                let stage = if stands { Stage::Await(how) } else { Stage::Send };
                Ok(self.to(stage, Event::Nothing))
            }
            Stage::Await(how) => {
                bridge::wait(replay, how);
                Ok(self.to(Stage::Send, Event::Nothing))
            }
        }
    }

    fn to(&self, stage: Stage, event: Event) -> (Actor, Event) {
        (Actor::Locked(Self { stage, ..self.clone() }), event)
    }

    /// Takes the slot of a dead owner: its byte, then the next incarnation, then all else.
    fn attach(&self, ring: &Ring<Words<'_>>, wakes: &Wakes, setup: &Setup) -> Ran {
        let (replay, slot) = (ring.memory.replay, self.me.slot);
        if setup.mutant != Mutant::ProbeTakesByte {
            replay.call(Call::TakeByte(slot));
        } else if replay.call(Call::TryByte(slot)) == 0 {
            return Ok(self.to(Stage::Attach, Event::Nothing)); // busy: somebody seems to live
        }
        let old = LockWord { slot, incarnation: replay.call(Call::Incarnation(slot)) as u32 };
        let me = LockWord { slot, incarnation: next_incarnation(old.incarnation) };
        let early = match setup.mutant {
            Mutant::RecoversInPlace => Some(old),
            Mutant::NameBeforeIncarnation => Some(me),
            _ => None,
        };
        if let Some(name) = early {
            drop(transfer(ring, old, name, wakes).map_err(|damage| damage.to_string())?);
        }
        replay.call(Call::SetIncarnation(slot, me.incarnation));
        let attached = Self { me, stage: Stage::Send, ..self.clone() };
        Ok((Actor::Locked(attached), Event::Nothing))
    }

    /// As the endpoint's: the lock, the incarnation, the byte; then the transfer.
    fn judge(&self, ring: &Ring<Words<'_>>, wakes: &Wakes, holder: LockWord, setup: &Setup) -> Ran {
        let replay = ring.memory.replay;
        let still_holds = || ring.memory.load(Word::Lock, Acquire) == holder.to_word();
        if !still_holds() {
            return Ok(self.to(Stage::Send, Event::Nothing));
        }
        if is_alive(replay, holder, setup) {
            let stage = if still_holds() { Stage::Until(holder.to_word()) } else { Stage::Send };
            return Ok(self.to(stage, Event::Nothing));
        }
        let locked = transfer(ring, holder, self.me, wakes).map_err(|damage| damage.to_string())?;
        let Some(locked) = locked else { return Ok(self.to(Stage::Send, Event::Nothing)) };
        let lets_go = match self.after_transfer {
            AfterTransfer::Sends => false,
            AfterTransfer::LetsGo => true,
            AfterTransfer::Either => replay.call(Call::Choose(2)) == 1,
        };
        if lets_go {
            drop(locked);
            return Ok(self.to(Stage::Send, Event::Nothing));
        }
        self.work(ring, locked)
    }

    /// Does its job under the lock.
    fn work(&self, ring: &Ring<Words<'_>>, mut locked: ring::Locked<'_, Words<'_>>) -> Ran {
        let job = self.jobs[0];
        let number = self.numbers_from + self.sent;
        let sent = match job {
            Job::Send(len) => locked.produce(send_step(&fill(number, len))),
            Job::Batch(len) => {
                let both = [&fill(number, len)[..], &fill(number + 1, len)];
                locked.produce(|window, ring| window.send_batch(ring, &both[..2 - self.part]))
            }
            Job::Abort(len) => {
                ring.memory.is_faulty.set(true);
                return self.unwound(catch_unwind(AssertUnwindSafe(move || {
                    locked.produce(send_step(&fill(number, len))).map(|sent| sent.count)
                })));
            }
        };
        drop(locked);
        self.worked(job, sent.map(|sent| sent.count))
    }

    fn unwound(&self, ended: std::thread::Result<Sent>) -> Ran {
        match ended {
            Err(thrown) if thrown.is::<Fault>() => Ok((self.next_job(self.sent), Event::Unwound)),
            Err(other) => resume_unwind(other),
            Ok(sent) => self.worked(self.jobs[0], sent),
        }
    }

    fn worked(&self, job: Job, sent: Sent) -> Ran {
        match sent {
            Ok(count) => {
                let total = self.sent + count as u8;
                let part = self.part + count;
                if matches!(job, Job::Batch(_)) && part < 2 {
                    let rest = Self { sent: total, part, stage: Stage::Send, ..self.clone() };
                    return Ok((Actor::Locked(rest), Event::Sent(total)));
                }
                Ok((self.next_job(total), Event::Sent(total)))
            }
            Err(Refusal::Full(wanted)) => Ok(self.to(Stage::Full(wanted), Event::Refused)),
            Err(Refusal::Damaged(damage)) => Err(damage.to_string()),
        }
    }

    fn next_job(&self, sent: u8) -> Actor {
        match &self.jobs[1..] {
            [] => Actor::Done,
            jobs => Actor::Locked(Self { jobs, sent, part: 0, stage: Stage::Send, ..self.clone() }),
        }
    }

    fn wait_for_space(&self, ring: &Ring<Words<'_>>, wanted: SpaceWanted) -> (Actor, Event) {
        let stage = match self.when_full {
            WhenFull::Polls => {
                ring.memory.replay.call(Call::UntilRoom(wanted.tail, wanted.needed));
                Stage::Send
            }
            WhenFull::Sleeps | WhenFull::MayGiveUp => match arm_for_space(ring, &wanted) {
                Some(word) => Stage::Sleep(wanted, word),
                None if self.gives_up(ring) => return (Actor::Done, Event::Nothing),
                None => Stage::Send,
            },
            WhenFull::Stands(how) if arm_for_space(ring, &wanted).is_some() => {
                Stage::Stand(wanted, how)
            }
            WhenFull::Stands(_) => {
                bridge::end(ring);
                Stage::Send
            }
        };
        self.to(stage, Event::Nothing)
    }

    /// Whether its time is over just when space has come.
    fn gives_up(&self, ring: &Ring<Words<'_>>) -> bool {
        self.when_full == WhenFull::MayGiveUp && ring.memory.replay.call(Call::Choose(2)) == 1
    }

    fn sleep(&self, ring: &Ring<Words<'_>>, wanted: SpaceWanted, word: u32) -> (Actor, Event) {
        match sleep_for_space(ring, self.when_full, &wanted, word) {
            Slept::GaveUp => (Actor::Done, Event::Nothing),
            Slept::Space => self.to(Stage::Send, Event::Nothing),
            Slept::NoSpace => self.to(Stage::Full(wanted), Event::Nothing),
        }
    }
}

/// How a sleep for space ended.
pub(super) enum Slept {
    GaveUp,
    Space,
    NoSpace,
}

/// Sleeps on the arming, and looks for what is needed.
pub(super) fn sleep_for_space(
    ring: &Ring<Words<'_>>,
    when_full: WhenFull,
    wanted: &SpaceWanted,
    word: u32,
) -> Slept {
    let ends = if when_full == WhenFull::MayGiveUp { Ends::Whenever } else { Ends::Never };
    if ring.memory.replay.call(Call::Wait(Word::TxWake, word, ends)) == TIMED_OUT {
        return Slept::GaveUp;
    }
    if has_come(ring, wanted) { Slept::Space } else { Slept::NoSpace }
}

/// As the endpoint's: whoever the slot no longer knows is dead, and whose byte is free.
fn is_alive(replay: &Replay<'_>, holder: LockWord, setup: &Setup) -> bool {
    if replay.call(Call::Incarnation(holder.slot)) != u64::from(holder.incarnation) {
        return false;
    }
    if setup.mutant != Mutant::ProbeTakesByte {
        return replay.call(Call::Probe(holder.slot)) == 1;
    }
    let is_alive = replay.call(Call::TryByte(holder.slot)) == 0;
    if !is_alive {
        replay.call(Call::DropByte(holder.slot));
    }
    is_alive
}
