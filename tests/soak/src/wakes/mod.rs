//! No wake-up is lost: one process waits at one end of a ring, another one acts at the other, round
//! by round, with delays on both sides that are drawn anew each time.
//!
//! In a *round* the waiter announces that it is about to wait, and waits: for a message, or for room
//! in a full ring. The actor sees that, and after a delay, or at once, sends that message or frees
//! that room. Sometimes it sends a burst first, which the waiter takes without sleeping, so that the
//! sender comes to go on without fences just before the waiter sleeps again.
//!
//! A sleeper whom nobody wakes looks up by itself after a second. So a round that took as long,
//! though the actor had acted long before its end, is one whose wake-up was lost.

mod actor;
mod combination;
mod notes;
mod pair;
mod plan;
mod waiter;
mod waiting;

use crate::ends::End;
use crate::{Failure, Report, Rng, Role, Run, Setting};
use combination::{Barriers, Combination, Place};
use pair::Tally;
pub(crate) use waiting::{How, Waiting};

/// The run.
pub(crate) const RUN: Run = Run {
    name: "wakes",
    about: "1,000,000 waits for messages and for room, with barriers and without: no wake-up is lost",
    body,
    roles: &[
        Role { name: waiter::NAME, body: waiter::wait },
        Role { name: actor::NAME, body: actor::act },
    ],
};

/// Of a hundred rounds, how many have both processes on one processor, where nobody spins.
const TOGETHER_PERCENT: u64 = 20;
/// In some rounds what is waited for comes before the sleep. So there are more rounds than sleeps, by
/// this factor at the most.
const PARTS_MAX: u64 = 20;

fn body(setting: &Setting) -> Result<Report, Failure> {
    let mut report = Report::new();
    let each = setting.count(1_000_000, 10_000).div_ceil(2 * End::ALL.len() as u64);
    for end in End::ALL {
        for barriers in [Barriers::Usable, Barriers::Refused] {
            let mut tally = Tally::default();
            until_slept(setting, (end, barriers, How::Blocks), each, &mut tally)?;
            tally.describe(&mut report, end, barriers);
        }
    }
    Ok(report)
}

/// The same of ends that are waited for elsewhere, for the run `readiness`.
pub(crate) fn wait_elsewhere(setting: &Setting, report: &mut Report) -> Result<(), Failure> {
    let ways = 2 * How::ELSEWHERE.len() * End::ALL.len();
    let each = setting.count(1_000_000, 9600).div_ceil(ways as u64);
    for end in End::ALL {
        for barriers in [Barriers::Usable, Barriers::Refused] {
            let mut tally = Tally::default();
            for how in How::ELSEWHERE {
                until_slept(setting, (end, barriers, how), each, &mut tally)?;
            }
            tally.describe(report, end, barriers);
        }
    }
    Ok(())
}

/// Does rounds at `end` until it has slept `sleeps` times more.
fn until_slept(
    setting: &Setting,
    (end, barriers, how): (End, Barriers, How),
    sleeps: u64,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let enough = tally.sleeps() + sleeps;
    let together = sleeps * TOGETHER_PERCENT / 100;
    for part in 0..PARTS_MAX {
        let seed = Rng::of_part(setting.seed, part).number();
        for (place, rounds) in [(Place::Apart, sleeps - together), (Place::Together, together)] {
            let combination = Combination { end, barriers, place, how };
            let done = pair::run(setting, combination, rounds, seed, tally);
            done.map_err(|error| format!("{combination}: {error}"))?;
        }
        if tally.sleeps() >= enough {
            return Ok(());
        }
    }
    Err(format!("{}, {}: it hardly ever slept: {tally:?}", end.name(), barriers.name()).into())
}
