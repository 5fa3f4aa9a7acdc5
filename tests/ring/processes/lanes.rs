//! The consumer of lanes: looks at those that are active, then polls or sleeps.
//!
//! When to clear a bit, and when to execute a barrier for it, is a matter of taste: the search tries
//! both, each time.

use super::super::super::doorbell::{Armed, Fences, Polled, RxDoorbell, Trust, poll};
use super::super::super::{Attention, Consumer, Memory, Ring, Wakes, Word};
use super::super::replay::Replay;
use super::actor::{Actor, Event, Ran, id};
use super::call::{Call, Ends, TIMED_OUT};
use super::memory::{LANES, lane_position};
use super::receiver::Idles;
use super::setup::{Mutant, Setup};
use super::words::Words;

/// The consumer of all lanes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lanes {
    /// Takes the consumer's lock byte first, so it comes after whoever holds it.
    slot: u16,
    idles: Idles,
    fences: Fences,
    kept: Option<Kept>,
    /// Deaths that it knows of.
    epoch: u64,
    stage: Stage,
}

/// What it has once it has attached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kept {
    consumers: [Consumer; LANES],
    doorbell: RxDoorbell,
    attention: Attention,
}

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Merge,
    /// Looks at the first active lane from this one on.
    Find(u8),
    Free(u8),
    /// Found this lane empty, and may clear its bit.
    Clear(u8),
    Fence,
    Idle,
    Scan(Armed),
    Sleep(Armed, Ends),
}

type Rings<'a> = [Ring<Words<'a>>; LANES];

impl Lanes {
    pub(super) fn new(idles: Idles) -> Self {
        let (slot, fences, stage) = (super::receiver::SLOT, Fences::Requested, Stage::Merge);
        Self { slot, idles, fences, kept: None, epoch: 0, stage }
    }

    /// The same, where that is what it knows of its producers when it attaches.
    pub(super) fn with(self, fences: Fences) -> Self {
        Self { fences, ..self }
    }

    pub(super) fn run(&self, replay: &Replay<'_>, setup: &Setup) -> Ran {
        let rings = &std::array::from_fn(|lane| setup.lane(replay, lane as u8));
        let Some(kept) = self.kept.clone() else { return self.attach(rings, setup) };
        match self.stage {
            Stage::Merge => Ok(self.merge(rings, kept)),
            Stage::Find(from) => self.find(rings, kept, from.into()),
            Stage::Free(lane) => self.free(rings, kept, lane),
            Stage::Clear(lane) => Ok(self.clear(rings, kept, lane)),
            Stage::Fence => Ok(self.fence(rings, kept, setup)),
            Stage::Idle => Ok(self.idle(rings, kept, setup)),
            Stage::Scan(armed) => Ok(self.scan(rings, kept, armed, setup)),
            Stage::Sleep(armed, ends) => Ok(self.sleep(rings, kept, armed, ends, setup)),
        }
    }

    fn to(&self, kept: Kept, stage: Stage) -> (Actor, Event) {
        (Actor::Lanes(Box::new(Self { kept: Some(kept), stage, ..self.clone() })), Event::Nothing)
    }

    fn attach(&self, rings: &Rings<'_>, setup: &Setup) -> Ran {
        rings[0].memory.replay.call(Call::TakeByte(self.slot));
        let attach = |ring| Consumer::attach(ring).map_err(|damage| damage.to_string());
        let consumers = [attach(&rings[0])?, attach(&rings[1])?];
        let doorbell = RxDoorbell::attach(&rings[0], id(self.slot, 1), 0, self.fences);
        let mut attention = Attention::new(LANES);
        if setup.mutant == Mutant::BelievesSummary {
            attention.note_fenced();
            (0..LANES).for_each(|lane| _ = attention.note_empty(lane));
            attention.scan(rings.iter().zip(&consumers).map(|(ring, it)| (ring, it.head())));
        }
        Ok(self.to(Kept { consumers, doorbell, attention }, Stage::Merge))
    }

    fn merge(&self, rings: &Rings<'_>, mut kept: Kept) -> (Actor, Event) {
        if self.relaxes(rings, &mut kept) {
            let (next, _) = self.to(kept, Stage::Merge);
            return (next, Event::Relaxed);
        }
        kept.attention.merge(&rings[0]);
        self.to(kept, Stage::Find(0))
    }

    /// Lets producers that fence on request go on without, or doesn't.
    fn relaxes(&self, rings: &Rings<'_>, kept: &mut Kept) -> bool {
        let choose = |count| rings[0].memory.replay.call(Call::Choose(count));
        let relaxes = self.idles == Idles::Sleeps && kept.doorbell.can_relax() && choose(2) == 1;
        if relaxes {
            kept.doorbell.relax(&rings[0]);
        }
        relaxes
    }

    fn find(&self, rings: &Rings<'_>, mut kept: Kept, from: usize) -> Ran {
        let Some(lane) = kept.attention.active().next(from) else {
            return Ok(self.to(kept, Stage::Fence));
        };
        let (ring, consumer) = (&rings[lane], &mut kept.consumers[lane]);
        if poll(ring, consumer.head()) == Polled::Nothing {
            if kept.attention.note_empty(lane) {
                let (next, _) = self.to(kept, Stage::Find(lane as u8 + 1));
                return Ok((next, Event::Forgot));
            }
            return Ok(self.to(kept, Stage::Clear(lane as u8)));
        }
        kept.attention.note_found(lane);
        let front = consumer.front(ring, &Wakes::default()).map_err(|damage| damage.to_string())?;
        let front = front.ok_or("a record that was seen is gone")?;
        let mut bytes = vec![0; front.payload_len()];
        consumer.copy_out(ring, front, &mut bytes);
        let (number, position) = (bytes[0], consumer.head());
        if number == 0 || bytes.iter().any(|byte| *byte != number) {
            return Err(format!("torn: {bytes:x?} at {position} of lane {lane}"));
        }
        let (next, _) = self.to(kept, Stage::Free(lane as u8));
        Ok((next, Event::Took(lane_position(lane as u8, position), number)))
    }

    fn free(&self, rings: &Rings<'_>, mut kept: Kept, lane: u8) -> Ran {
        let (ring, wakes) = (&rings[usize::from(lane)], &Wakes::default());
        let consumer = &mut kept.consumers[usize::from(lane)];
        let front = consumer.front(ring, wakes).map_err(|damage| damage.to_string())?;
        consumer.free(ring, front.ok_or("a record that was taken is gone")?, wakes);
        Ok(self.to(kept, Stage::Merge))
    }

    fn clear(&self, rings: &Rings<'_>, mut kept: Kept, lane: u8) -> (Actor, Event) {
        if rings[0].memory.replay.call(Call::Choose(2)) == 1 {
            kept.attention.clear(&rings[0], lane.into());
        }
        self.to(kept, Stage::Find(lane + 1))
    }

    /// Makes draining lanes fenced, and polls them once more before it sleeps.
    fn fence(&self, rings: &Rings<'_>, mut kept: Kept, setup: &Setup) -> (Actor, Event) {
        if !kept.attention.has_draining() {
            return self.to(kept, Stage::Idle);
        }
        let replay = rings[0].memory.replay;
        let is_fenced = setup.mutant == Mutant::ForgetsAtOnce
            || kept.doorbell.all_fence()
            || replay.call(Call::Choose(2)) == 1 && rings[0].memory.barrier();
        if !is_fenced {
            return self.to(kept, Stage::Idle);
        }
        kept.attention.note_fenced();
        // Also between fencing a lane and the poll that makes it idle.
        let relaxes = self.relaxes(rings, &mut kept);
        let (next, _) = self.to(kept, Stage::Find(0));
        (next, if relaxes { Event::Relaxed } else { Event::Nothing })
    }

    fn idle(&self, rings: &Rings<'_>, mut kept: Kept, setup: &Setup) -> (Actor, Event) {
        if self.idles == Idles::Polls {
            return self.poll(rings, kept, setup);
        }
        let armed = kept.doorbell.arm(&rings[0]);
        self.to(kept, Stage::Scan(armed))
    }

    /// Polls, and looks at all lanes after a death.
    fn poll(&self, rings: &Rings<'_>, mut kept: Kept, setup: &Setup) -> (Actor, Event) {
        let replay = rings[0].memory.replay;
        let active = (0..LANES).filter(|lane| kept.attention.active().next(*lane) == Some(*lane));
        let active = active.fold(0, |set, lane| set | 1 << lane);
        let heads = std::array::from_fn(|lane| kept.consumers[lane].head());
        replay.call(Call::UntilLanes { heads, active, epoch: self.epoch });
        let epoch = replay.call(Call::Epoch);
        if epoch != self.epoch && setup.mutant != Mutant::NoScanAfterDeath {
            scan_all(rings, &mut kept);
        }
        let next = Self { kept: Some(kept), epoch, stage: Stage::Merge, ..self.clone() };
        (Actor::Lanes(Box::new(next)), Event::Nothing)
    }

    /// Looks at all lanes behind an arming.
    fn scan(
        &self,
        rings: &Rings<'_>,
        mut kept: Kept,
        armed: Armed,
        setup: &Setup,
    ) -> (Actor, Event) {
        let found = if setup.mutant == Mutant::NoScan {
            look_at_active(rings, &mut kept)
        } else {
            scan_all(rings, &mut kept)
        };
        match (found, armed.trust) {
            (Polled::Nothing, Trust::Short) => self.to(kept, Stage::Sleep(armed, Ends::Soon)),
            (Polled::Nothing, Trust::Full) => self.to(kept, Stage::Sleep(armed, Ends::Never)),
            _ => {
                kept.doorbell.disarm(&rings[0]);
                self.to(kept, Stage::Merge)
            }
        }
    }

    /// Sleeps on the arming, unless somebody has died since it last looked. All lanes are looked at
    /// afterwards where somebody has, or where nothing is found in the active ones.
    fn sleep(
        &self,
        rings: &Rings<'_>,
        mut kept: Kept,
        armed: Armed,
        ends: Ends,
        setup: &Setup,
    ) -> (Actor, Event) {
        let replay = rings[0].memory.replay;
        let epoch = replay.call(Call::Epoch);
        if epoch == self.epoch {
            let ended = replay.call(Call::Wait(Word::RxWake, armed.word, ends));
            if ended == TIMED_OUT && ends == Ends::Soon {
                kept.doorbell.slept_out();
            }
        }
        if setup.mutant != Mutant::NoScan
            && (epoch != self.epoch || look_at_active(rings, &mut kept) == Polled::Nothing)
        {
            scan_all(rings, &mut kept);
        }
        kept.doorbell.disarm(&rings[0]);
        let next = Self { kept: Some(kept), epoch, stage: Stage::Merge, ..self.clone() };
        (Actor::Lanes(Box::new(next)), Event::Nothing)
    }
}

fn look_at_active(rings: &Rings<'_>, kept: &mut Kept) -> Polled {
    kept.attention.merge(&rings[0]);
    let active = kept.attention.active();
    let mut lanes = (0..LANES).filter(|lane| active.next(*lane) == Some(*lane));
    let is_something =
        |lane: usize| poll(&rings[lane], kept.consumers[lane].head()) == Polled::Something;
    if lanes.any(is_something) { Polled::Something } else { Polled::Nothing }
}

fn scan_all(rings: &Rings<'_>, kept: &mut Kept) -> Polled {
    let Kept { consumers, attention, .. } = kept;
    attention.scan(rings.iter().zip(consumers).map(|(ring, it)| (ring, it.head())))
}
