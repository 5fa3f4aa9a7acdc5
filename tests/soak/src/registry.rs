//! All runs.

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::{
    Failure, Run, boots, calls, channel_calls, channel_kills, collector, creation, fuzz, handles,
    kills, lanes_isolation, lanes_many, openers, order, peer_death, producer_kills, random_use,
    readiness, space, stream, stream_mpsc, wakes,
};

/// All runs, in the order in which they are listed.
pub const RUNS: &[Run] = &[
    stream::RUN,
    stream_mpsc::RUN,
    order::RUN,
    kills::RUN,
    kills::LANE,
    producer_kills::RUN,
    handles::RUN,
    producer_kills::LANES,
    lanes_isolation::RUN,
    lanes_many::RUN,
    wakes::RUN,
    readiness::RUN,
    peer_death::RUN,
    calls::RUN,
    channel_kills::RUN,
    channel_calls::RUN,
    random_use::RUN,
    fuzz::RUN,
    creation::SYSCALLS,
    creation::SPREAD,
    creation::REPLACE,
    openers::RUN,
    space::RUN,
    boots::RUN,
    collector::RUN,
    #[cfg(feature = "__crash_points")]
    crate::crash_points::RUN,
    #[cfg(feature = "__crash_points")]
    crate::stopped_producer::RUN,
];

/// The run called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Run> {
    RUNS.iter().find(|run| run.name == name)
}

/// Does what a child process is for, and dies with the process that started it.
///
/// # Errors
/// What the role says, or that there is none of that name.
pub fn serve(role: &str, arguments: &[String]) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut roles = RUNS.iter().flat_map(|run| run.roles);
    let found = roles.find(|found| found.name == role).ok_or("no such role")?;
    (found.body)(arguments)
}
