//! The producer of an SPSC ring.

use super::super::super::doorbell::{Arming, arm_for_space};
use super::super::super::{Refusal, Ring, SpaceWanted, SpscProducer, Wakes, Word};
use super::super::replay::Replay;
use super::super::send_step;
use super::actor::{Actor, Event, Job, Ran, WhenFull, fill};
use super::bridge::{self, How};
use super::call::Call;
use super::locked::{Slept, sleep_for_space};
use super::setup::Setup;
use super::words::Words;

/// The producer of an SPSC ring.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Single {
    /// `None` before it has attached.
    pub(super) kept: Option<SpscProducer>,
    pub(super) jobs: &'static [Job],
    pub(super) numbers_from: u8,
    pub(super) sent: u8,
    pub(super) when_full: WhenFull,
    pub(super) stage: Stage,
}

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    Send,
    Full(SpaceWanted),
    Sleep(SpaceWanted, u32),
    Stand(SpaceWanted, How),
    Await(How),
}

impl Single {
    pub(super) fn new(jobs: &'static [Job]) -> Self {
        let (numbers_from, when_full) = (1, WhenFull::Polls);
        Self { kept: None, jobs, numbers_from, sent: 0, when_full, stage: Stage::Send }
    }

    pub(super) fn run(&self, replay: &Replay<'_>, setup: &Setup) -> Ran {
        let ring = &setup.ring(replay);
        let Some(kept) = &self.kept else {
            let kept = Some(SpscProducer::attach(ring).map_err(|damage| damage.to_string())?);
            return Ok((Actor::Single(Self { kept, ..self.clone() }), Event::Nothing));
        };
        match self.stage {
            Stage::Send => self.send(ring, kept.clone()),
            Stage::Full(wanted) => {
                let stage = if self.when_full == WhenFull::Polls {
                    replay.call(Call::UntilRoom(wanted.tail, wanted.needed));
                    Stage::Send
                } else {
                    match (arm_for_space(ring, &wanted), self.when_full) {
                        (Some(_), WhenFull::Stands(how)) => Stage::Stand(wanted, how),
                        (None, WhenFull::Stands(_)) => {
                            bridge::end(ring);
                            Stage::Send
                        }
                        (Some(word), _) => Stage::Sleep(wanted, word),
                        (None, _) => Stage::Send,
                    }
                };
                Ok(self.to(stage))
            }
            Stage::Stand(wanted, how) => {
                let stands = bridge::stand(ring, Word::TxWake, Arming::Space(wanted), 0, setup);
                Ok(self.to(if stands { Stage::Await(how) } else { Stage::Send }))
            }
            Stage::Await(how) => {
                bridge::wait(replay, how);
                Ok(self.to(Stage::Send))
            }
            Stage::Sleep(wanted, word) => {
                Ok(match sleep_for_space(ring, self.when_full, &wanted, word) {
                    Slept::GaveUp => (Actor::Done, Event::Nothing),
                    Slept::Space => self.to(Stage::Send),
                    Slept::NoSpace => self.to(Stage::Full(wanted)),
                })
            }
        }
    }

    fn to(&self, stage: Stage) -> (Actor, Event) {
        (Actor::Single(Self { stage, ..self.clone() }), Event::Nothing)
    }

    fn send(&self, ring: &Ring<Words<'_>>, mut producer: SpscProducer) -> Ran {
        let (number, wakes) = (self.numbers_from + self.sent, &Wakes::default());
        let sent = match self.jobs[0] {
            Job::Send(len) => producer.produce(ring, wakes, send_step(&fill(number, len))),
            Job::Batch(len) => {
                let both = [&fill(number, len)[..], &fill(number + 1, len)];
                producer.produce(ring, wakes, |window, ring| window.send_batch(ring, &both))
            }
            Job::Abort(len) => producer.window.reserve(ring, len).map(|_| 0),
        };
        match sent {
            Ok(count) => {
                let sent = self.sent + count as u8;
                let next = match &self.jobs[1..] {
                    [] => Actor::Done,
                    jobs => {
                        Actor::Single(Self { kept: Some(producer), jobs, sent, ..self.clone() })
                    }
                };
                Ok((next, Event::Sent(sent)))
            }
            Err(Refusal::Full(wanted)) => {
                let (kept, stage) = (Some(producer), Stage::Full(wanted));
                Ok((Actor::Single(Self { kept, stage, ..self.clone() }), Event::Refused))
            }
            Err(Refusal::Damaged(damage)) => Err(damage.to_string()),
        }
    }
}
