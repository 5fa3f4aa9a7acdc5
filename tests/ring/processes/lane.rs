//! The producer of a lane.

use super::super::super::{LaneProducer, Refusal, Wakes};
use super::super::replay::Replay;
use super::super::send_step;
use super::actor::{Actor, Event, Job, Ran, fill};
use super::setup::Setup;

/// The producer of a lane. There is space for all that it sends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lane {
    /// Which one.
    pub(super) lane: u8,
    /// `None` before it has attached.
    pub(super) kept: Option<LaneProducer>,
    pub(super) jobs: &'static [Job],
    pub(super) sent: u8,
}

impl Lane {
    pub(super) fn new(lane: u8, jobs: &'static [Job]) -> Self {
        Self { lane, kept: None, jobs, sent: 0 }
    }

    pub(super) fn run(&self, replay: &Replay<'_>, setup: &Setup) -> Ran {
        let ring = &setup.lane(replay, self.lane);
        let Some(mut producer) = self.kept.clone() else {
            let attached = LaneProducer::attach(ring, self.lane.into());
            let kept = Some(attached.map_err(|damage| damage.to_string())?);
            return Ok((Actor::Lane(Self { kept, ..self.clone() }), Event::Nothing));
        };
        let (number, wakes) = (self.sent + 1, &Wakes::default());
        let sent = match self.jobs[0] {
            Job::Send(len) => producer.produce(ring, wakes, send_step(&fill(number, len))),
            Job::Batch(len) => {
                let both = [&fill(number, len)[..], &fill(number + 1, len)];
                producer.produce(ring, wakes, |window, ring| window.send_batch(ring, &both))
            }
            Job::Abort(_) => Ok(0),
        };
        let count = sent.map_err(|refusal| match refusal {
            Refusal::Full(_) => "no space in a lane".to_owned(),
            Refusal::Damaged(damage) => damage.to_string(),
        })?;
        let sent = self.sent + count as u8;
        let next = match &self.jobs[1..] {
            [] => Actor::Done,
            jobs => Actor::Lane(Self { kept: Some(producer), jobs, sent, ..self.clone() }),
        };
        Ok((next, Event::Sent(sent)))
    }
}
