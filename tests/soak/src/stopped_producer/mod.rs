//! A producer that is stopped inside the locked section is alive: whoever wants to send meanwhile is
//! told so, nobody takes its lock, and when it goes on, nothing is lost, repeated or damaged.
//!
//! Three processes: the *holder* stops itself at a crash point, in the middle of its messages; the
//! *rival* then tries to send in every way that there is; the *receiver* takes what was published.
//! The run itself watches the lock word until it lets the holder go on.
//!
//! Only with the feature `__crash_points`.

mod children;
mod plan;
mod stop;

use std::time::Duration;

use crate::{Failure, Report, Rng, Role, Run, Setting, Size};
use plan::{POINTS, Place};
use stop::Stop;

/// How long the holder is stopped.
const PAUSE: Duration = Duration::from_secs(5);
const PAUSE_SHORT: Duration = Duration::from_millis(300);

/// The run.
pub(crate) const RUN: Run = Run {
    name: "stopped-producer",
    about: "SIGSTOP of a producer inside the lock: the others are told, its lock is never taken",
    body,
    roles: &[
        Role { name: "stopped-producer.hold", body: children::hold },
        Role { name: "stopped-producer.rival", body: children::rival },
        Role { name: "stopped-producer.receive", body: children::receive },
    ],
};

fn body(setting: &Setting) -> Result<Report, Failure> {
    let pause = if setting.size == Size::Full { PAUSE } else { PAUSE_SHORT };
    let mut rng = Rng::new(setting.seed);
    let mut found = Vec::new();
    for point in POINTS {
        let place = Place::draw(point, &mut rng);
        let outcome = Stop::at(setting, place).and_then(|stop| stop.watch(pause));
        found.push(outcome.map_err(|error| format!("{place:?}: {error}"))?);
    }
    let sum = |name: &str| found.iter().filter_map(|figures| figures.get(name)).sum::<u64>();
    let mut report = Report::new();
    report.count("stops", found.len() as u64);
    for name in children::SUMS.iter().chain(&stop::SUMS) {
        report.count(name, sum(name));
    }
    for name in children::LONGEST {
        let longest = found.iter().filter_map(|figures| figures.get(name)).max();
        let longest = Duration::from_nanos(longest.copied().unwrap_or(0));
        report.note(name, format!("{longest:?}"));
    }
    Ok(report)
}
