//! An end whose arming stands while it waits at a descriptor, or as a task; and the thread of its process
//! that sleeps in its place. One process has them, and is not killed.
//!
//! The descriptor, the lock and what stands are the process's own: calls, as the slot table's are.

use std::sync::atomic::Ordering::{Acquire, SeqCst};

use super::super::super::doorbell::{Arming, arm_for_space};
use super::super::super::{Memory, Ring, SpaceWanted, Word};
use super::super::replay::Replay;
use super::actor::{Actor, Event};
use super::call::{Call, Ends, WOKEN};
use super::setup::{Mutant, Setup};
use super::words::Words;

/// How an end waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) enum How {
    /// As long as the descriptor is not readable.
    Level,
    /// For the descriptor to become readable once more.
    Edge,
    /// For its waker.
    Task,
}

/// What is asked of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) enum Crossing {
    /// Takes the lock as soon as it is free.
    Lock,
    Unlock,
    /// What stands, as [`code`] says it; 0 if nothing does. Under the lock.
    Standing,
    /// The same, without having the lock.
    Ask,
    /// Lets an arming stand, with the deaths that are known; clears the descriptor if nothing stood. Under
    /// the lock.
    Stand(u64, u64),
    /// Clears the descriptor.
    Clear,
    /// Ends what stands. Under the lock.
    End,
    /// The same, without having the lock.
    EndNow,
    /// The deaths that are known to what stands.
    Known,
    /// Registers a waker if anything stands: 1, else 0.
    PollReady,
    /// Waits.
    Await(How),
}

/// A bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Bridge {
    pub(super) is_locked: bool,
    /// What stands, and the deaths that are known to it.
    pub(super) standing: Option<(u64, u64)>,
    pub(super) is_cleared: bool,
    /// An edge that was seen.
    pub(super) is_seen: bool,
    /// A waker is registered, or was woken.
    pub(super) waits: bool,
    pub(super) is_woken: bool,
}

impl Bridge {
    /// Whether the call can go on.
    pub(super) fn can(&self, crossing: Crossing) -> bool {
        match crossing {
            Crossing::Lock | Crossing::Ask | Crossing::EndNow | Crossing::PollReady => {
                !self.is_locked
            }
            Crossing::Await(How::Level) => !self.is_cleared,
            Crossing::Await(How::Edge) => !self.is_cleared && !self.is_seen,
            Crossing::Await(How::Task) => self.is_woken,
            _ => true,
        }
    }

    /// Does it.
    pub(super) fn cross(&mut self, crossing: Crossing) -> u64 {
        match crossing {
            Crossing::Lock | Crossing::Unlock => self.is_locked = crossing == Crossing::Lock,
            Crossing::Standing | Crossing::Ask => return self.standing.map_or(0, |it| it.0),
            Crossing::Known => return self.standing.map_or(0, |it| it.1),
            Crossing::Stand(arming, deaths) => {
                if self.standing.replace((arming, deaths)).is_none() {
                    self.is_cleared = true;
                }
            }
            Crossing::Clear => self.is_cleared = true,
            Crossing::End | Crossing::EndNow => {
                if self.standing.take().is_some() {
                    (self.is_cleared, self.is_seen) = (false, false);
                    self.is_woken |= std::mem::take(&mut self.waits);
                }
            }
            Crossing::PollReady => {
                self.waits |= self.standing.is_some();
                return self.standing.is_some().into();
            }
            Crossing::Await(How::Task) => self.is_woken = false,
            Crossing::Await(How::Edge) => self.is_seen = true,
            Crossing::Await(How::Level) => {}
        }
        0
    }
}

const RECORD: u64 = 1 << 63;
const SPACE: u64 = 1 << 62;

/// An arming, as what is answered to a process.
fn code(arming: Arming) -> u64 {
    match arming {
        Arming::Record(word) => RECORD | u64::from(word),
        Arming::Space(SpaceWanted { tail, needed, comfortable }) => {
            SPACE | tail << 40 | needed << 20 | comfortable
        }
        Arming::Time => unreachable!("no process waits for time here"),
    }
}

fn decode(code: u64) -> Option<Arming> {
    let part = |shift: u32| code >> shift & 0xf_ffff;
    if code & RECORD != 0 {
        Some(Arming::Record(code as u32))
    } else if code & SPACE != 0 {
        let (tail, needed, comfortable) = (part(40), part(20), part(0));
        Some(Arming::Space(SpaceWanted { tail, needed, comfortable }))
    } else {
        None
    }
}

fn cross(replay: &Replay<'_>, crossing: Crossing) -> u64 {
    replay.call(Call::Bridge(crossing))
}

/// Whether a consumer's arming stands that is in its word.
pub(super) fn stands_in_word(ring: &Ring<Words<'_>>) -> bool {
    let word = ring.memory.load(Word::RxWake, Acquire) as u32;
    decode(cross(ring.memory.replay, Crossing::Ask)) == Some(Arming::Record(word))
}

/// Ends what stands: the end has found something by itself.
pub(super) fn end(ring: &Ring<Words<'_>>) {
    cross(ring.memory.replay, Crossing::EndNow);
}

/// Lets `arming` stand, which is in the word `doorbell`; `false` if it has been notified already.
pub(super) fn stand(
    ring: &Ring<Words<'_>>,
    doorbell: Word,
    arming: Arming,
    deaths: u64,
    setup: &Setup,
) -> bool {
    let replay = ring.memory.replay;
    cross(replay, Crossing::Lock);
    cross(replay, Crossing::Stand(code(arming), deaths));
    let word = ring.memory.load(doorbell, SeqCst) as u32;
    let is_over = setup.mutant != Mutant::TrustsItsArming
        && (arming.is_over(ring, word) || replay.call(Call::Epoch) != deaths);
    if is_over {
        cross(replay, Crossing::End);
    }
    cross(replay, Crossing::Unlock);
    if setup.mutant == Mutant::ClearsLast {
        cross(replay, Crossing::Clear);
    }
    !is_over
}

/// Waits while the arming stands.
pub(super) fn wait(replay: &Replay<'_>, how: How) {
    if how != How::Task || cross(replay, Crossing::PollReady) == 1 {
        cross(replay, Crossing::Await(how));
    }
}

/// Arms for space, as one of several producers.
pub(super) fn arm_and_give_up(ring: &Ring<Words<'_>>) -> (Actor, Event) {
    let all = ring.rules.capacity;
    arm_for_space(ring, &SpaceWanted { tail: 0, needed: all, comfortable: all });
    (Actor::Done, Event::Nothing)
}

/// The thread that sleeps in an end's place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reactor {
    /// On which word.
    doorbell: Word,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Look,
    Sleep(u32),
}

impl Reactor {
    pub(super) fn new(doorbell: Word) -> Self {
        Self { doorbell, stage: Stage::Look }
    }

    pub(super) fn run(&self, replay: &Replay<'_>, setup: &Setup) -> (Actor, Event) {
        let ring = &setup.ring(replay);
        let stage = match self.stage {
            Stage::Look => Stage::Sleep(self.look(ring, setup)),
            Stage::Sleep(word) => {
                let woken = replay.call(Call::Wait(self.doorbell, word, Ends::Never));
                if setup.mutant == Mutant::BridgesWhenWoken && woken == WOKEN {
                    cross(replay, Crossing::EndNow);
                }
                Stage::Look
            }
        };
        (Actor::Reactor(Self { stage, ..self.clone() }), Event::Nothing)
    }

    /// Looks, and gives the word to sleep on.
    fn look(&self, ring: &Ring<Words<'_>>, setup: &Setup) -> u32 {
        let replay = ring.memory.replay;
        let load = || ring.memory.load(self.doorbell, Acquire) as u32;
        if setup.mutant == Mutant::BridgesWhenWoken {
            return load();
        }
        cross(replay, Crossing::Lock);
        let word = load();
        let standing = decode(cross(replay, Crossing::Standing));
        let is_over = |arming: Arming| match (arming, setup.mutant) {
            (Arming::Space(_), Mutant::BridgesByBit) => word & 1 == 0,
            _ => {
                arming.is_over(ring, word)
                    || replay.call(Call::Epoch) != cross(replay, Crossing::Known)
            }
        };
        if standing.is_some_and(is_over) {
            cross(replay, Crossing::End);
        }
        cross(replay, Crossing::Unlock);
        if setup.mutant == Mutant::LoadsWordLast { load() } else { word }
    }
}
