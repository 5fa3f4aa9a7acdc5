//! SIGKILL of producers of one ring at random moments, while others go on: nobody waits long, each
//! message comes once and whole, and all come whose sends returned.
//!
//! A *life* is one producer process. Each notes in shared words which messages it is about to send
//! and which sends have returned, so what it left unsaid is one send at the most. The receiver
//! notes how many of each life it received. Who dies inside a send leaves the ring's lock held; the
//! next sender takes it over, and the run fails where the others had to wait for that. Where each has a
//! lane, it leaves a lane that somebody else gets once it is drained.

mod consumer;
mod crew;
mod notes;
mod plan;
mod producer;
mod waits;

use std::thread;
use std::time::Duration;

use tombolo::options::MpscOrder;

use crate::{Failure, Report, Rng, Role, Run, Setting, Size};
use crew::{Aim, Crew};
use waits::Waits;

/// Of a thousand sends, 999 must take less, in full size.
const WAIT_USUAL: Duration = Duration::from_millis(50);
/// Of a hundred kills, how many are aimed at whoever holds the lock.
const HOLDER_PERCENT: u64 = 40;
/// All sends must take less.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// The run.
pub(crate) const RUN: Run = Run {
    name: "producer-kills",
    about: "SIGKILL of producers at 5,000 moments while others send: nobody waits, nothing is lost",
    body,
    roles: &[
        Role { name: "producer-kills.send", body: producer::send },
        Role { name: "producer-kills.receive", body: consumer::receive },
    ],
};

/// The same where each producer has a lane.
pub(crate) const LANES: Run = Run {
    name: "producer-kills-lanes",
    about: "the same where each producer has a lane of its own",
    body: body_of_lanes,
    roles: &[],
};

fn body(setting: &Setting) -> Result<Report, Failure> {
    run(setting, MpscOrder::Total)
}

fn body_of_lanes(setting: &Setting) -> Result<Report, Failure> {
    run(setting, MpscOrder::PerProducer)
}

fn run(setting: &Setting, order: MpscOrder) -> Result<Report, Failure> {
    let mut rng = Rng::new(setting.seed);
    let kills = setting.count(5000, 50);
    let mut crew = Crew::start(setting, order, 2 * kills)?;
    for kill in 0..2 * kills {
        if kill >= kills && crew.has_met_death_in_send()? {
            break; // else a few kills more: what all this is about has not happened yet
        }
        thread::sleep(pause(&mut rng));
        let aim = if rng.percent(HOLDER_PERCENT) { Aim::Holder } else { Aim::Anybody };
        crew.replace_one(aim, &mut rng)?;
    }
    let (mut report, waits) = crew.finish()?;
    judge(&waits, setting.size)?;
    waits.describe(&mut report);
    Ok(report)
}

/// A while, often shorter than a producer needs to start.
fn pause(rng: &mut Rng) -> Duration {
    let longest = rng.choose(&[200, 1000, 4000]);
    Duration::from_micros(rng.below(longest))
}

/// Nobody waited too long.
fn judge(waits: &Waits, size: Size) -> Result<(), Failure> {
    let (usual, max) = (waits.quantile(999), waits.max());
    if max > WAIT_MAX || size == Size::Full && usual > WAIT_USUAL {
        return Err(format!("999 of 1000 sends took up to {usual:?}, one {max:?}").into());
    }
    Ok(())
}
