//! SIGKILL of the process at the other end of a ring: whoever is blocked there learns of it at once.
//!
//! A *waiter* is blocked at one end of a ring, all the time. One *victim* after the other takes the
//! other end, passes one message, and is killed while the waiter sleeps. The waiter notes when its
//! wait ended with `Disconnected`; its slot says whether a sleep was ended by a death. Some victims
//! are stopped for a while first, which is no death, and some stay zombies.
//!
//! A process that has just taken its first end registers for barriers, for 10 to 20 ms in which
//! the kernel lets it die no more than it lets it run. Most victims have come through that; some
//! are killed in it, and judged mildly.

mod bench;
mod latencies;
mod notes;
mod victim;
mod waiter;

use std::time::Duration;

use crate::ends::End;
use crate::{Failure, Report, Rng, Role, Run, Setting, Size};
use bench::{Bench, Way};
use latencies::Latencies;

/// Of a hundred waits, 99 must end within that after the kill, in full size.
const USUAL: Duration = Duration::from_millis(10);
/// Every one must.
const MAX: Duration = Duration::from_secs(2);
/// In a hundredth of the run all waits of an end together: ticks of a second would not do it.
const TOGETHER_MAX: Duration = Duration::from_secs(2);

/// The run.
pub(crate) const RUN: Run = Run {
    name: "peer-death",
    about: "SIGKILL of 1,000 peers of blocked ends: each wait ends, 99 of 100 within 10 ms",
    body,
    roles: &[
        Role { name: waiter::NAME, body: waiter::wait },
        Role { name: victim::NAME, body: victim::attend },
    ],
};

fn body(setting: &Setting) -> Result<Report, Failure> {
    let mut report = Report::new();
    let mut rng = Rng::new(setting.seed);
    let ends = End::ALL.len() as u64;
    let few = setting.count(10, 1);
    let ways = [
        (Way::Reaped, setting.count(1000, 8 * ends) / ends),
        (Way::Zombie, few),
        (Way::Stopped, few),
        (Way::Young, setting.count(100, 1)),
    ];
    let mut all = ways.map(|_| Latencies::default());
    for end in End::ALL {
        let mut own = Latencies::default();
        let mut bench = Bench::start(setting, end)?;
        for ((way, count), all) in ways.iter().zip(&mut all) {
            for _ in 0..*count {
                let latency = bench.kill_one(*way, &mut rng);
                let latency =
                    latency.map_err(|error| format!("{}, {way:?}: {error}", end.name()))?;
                own.add(latency);
                all.add(latency);
            }
        }
        own.describe(&mut report, end.name());
        if setting.size == Size::Hundredth && own.sum() > TOGETHER_MAX {
            return Err(format!("{}: as slow as by a tick: {report}", end.name()).into());
        }
    }
    for ((way, _), all) in ways.iter().zip(&all) {
        all.describe(&mut report, way.name());
        judge(*way, all, setting.size).map_err(|error| format!("{}: {error}", way.name()))?;
    }
    Ok(report)
}

/// Nobody learned of it too late.
fn judge(way: Way, latencies: &Latencies, size: Size) -> Result<(), Failure> {
    // Of a few, one that met a busy machine must not decide.
    let usual = if latencies.count() >= 100 { 99 } else { 50 };
    let (usual, max) = (latencies.quantile(usual), latencies.quantile(100));
    let is_strict = size == Size::Full && way != Way::Young;
    if max > MAX || is_strict && usual > USUAL {
        return Err(format!("waits ended {usual:?} after the kill, one {max:?}").into());
    }
    Ok(())
}
