//! How few system calls there are: of a busy stream, and of ends that wait while nothing happens.

mod idle;
mod proc;
mod strace;
mod stream;

use crate::{Failure, Report, Role, Run, Setting};

/// The run.
pub(crate) const RUN: Run = Run {
    name: "calls",
    about: "a busy stream makes a system call in 10,000 messages, an idle end fewer than 15 a second",
    body,
    roles: &[
        Role { name: stream::RECEIVE, body: stream::receive },
        Role { name: stream::SEND, body: stream::send },
        Role { name: idle::BLOCK, body: idle::block },
        Role { name: idle::ATTEND, body: idle::attend },
    ],
};

fn body(setting: &Setting) -> Result<Report, Failure> {
    let mut report = Report::new();
    stream::run(setting, &mut report)?;
    idle::run(setting, &mut report)?;
    Ok(report)
}
