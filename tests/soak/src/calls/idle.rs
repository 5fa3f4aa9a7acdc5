//! Ends that wait while nothing happens: how seldom they look up, and what that costs.

use std::path::Path;
use std::thread;
use std::time::Duration;

use tombolo_abi::SlotState;

use super::proc::Used;
use super::strace;
use crate::clock::until;
use crate::counters::Counters;
use crate::ends::{AnyReceiver, AnySender, End, Side, create};
use crate::stream::join;
use crate::{Failure, Process, Report, Setting, Size, required, scratch};

/// System calls of an idle process in a second, at the most.
const CALLS_A_SECOND: u64 = 15;
/// Ticks of 10 ms that an idle process may seem to use: none, but a tick may come at any time.
const TICKS_MAX: u64 = 1;
/// How long strace counts.
const TRACED_SECONDS: u64 = 3;
/// What the children are called.
pub(super) const BLOCK: &str = "calls.block";
pub(super) const ATTEND: &str = "calls.attend";

/// Each end in turn waits for nothing, with another process at the other end.
pub(super) fn run(setting: &Setting, report: &mut Report) -> Result<(), Failure> {
    let seconds = match setting.size {
        Size::Full => 10,
        Size::Tenth | Size::Hundredth => 2,
    };
    End::ALL.into_iter().try_for_each(|end| {
        let judged = idle(setting, end, seconds, report);
        judged.map_err(|error| format!("an idle {}: {error}", end.name()).into())
    })
}

fn idle(setting: &Setting, end: End, seconds: u64, report: &mut Report) -> Result<(), Failure> {
    let directory = scratch()?;
    let path = directory.path().join("region");
    create(&path, end.kind)?;
    let counters = Counters::new(&path, end.kind)?;
    let path = path.to_string_lossy();
    let _attending = Process::start(setting, ATTEND, &[&path, end.other().name()])?;
    let is_there = |state| state == SlotState::Attached as u32;
    until("the other end is taken", || Ok(is_there(counters.slot(end.other().side)?.state)))?;
    let blocked = Process::start(setting, BLOCK, &[&path, end.name()])?;
    until("the end sleeps", || Ok(counters.slot(end.side)?.sleeps > 0))?;
    thread::sleep(Duration::from_millis(300)); // what a new process does beside it is done then
    watch(&blocked, &counters, end, seconds, report)?;
    if setting.size == Size::Full && strace::is_there() {
        let found = directory.path().join("calls");
        trace(&blocked, end, &found, report)?;
    }
    Ok(())
}

/// Judges what `blocked` uses in `seconds`.
fn watch(
    blocked: &Process,
    counters: &Counters,
    end: End,
    seconds: u64,
    report: &mut Report,
) -> Result<(), Failure> {
    let (before, slept) = (Used::by(blocked.id())?, counters.slot(end.side)?.sleeps);
    thread::sleep(Duration::from_secs(seconds));
    let (after, sleeps) = (Used::by(blocked.id())?, counters.slot(end.side)?.sleeps);
    let (ticks, switches) = (after.ticks - before.ticks, after.switches - before.switches);
    let sleeps = sleeps - slept;
    let found = format!("{switches} switches, {sleeps} sleeps and {ticks} ticks in {seconds} s");
    report.count(&format!("idle {}, seconds", end.name()), seconds);
    report.note("it took", &found);
    let limit = CALLS_A_SECOND * seconds;
    if ticks > TICKS_MAX || switches >= limit || sleeps >= limit {
        return Err(found.into());
    }
    Ok(())
}

/// Judges the system calls of `blocked`.
fn trace(blocked: &Process, end: End, found: &Path, report: &mut Report) -> Result<(), Failure> {
    let Some(calls) = strace::watch(blocked.id(), Duration::from_secs(TRACED_SECONDS), found)?
    else {
        report.note(&format!("calls of an idle {}", end.name()), "not counted, tracing is refused");
        return Ok(());
    };
    let described = format!("{} in {TRACED_SECONDS} s", strace::describe(&calls));
    report.note(&format!("calls of an idle {}", end.name()), &described);
    if calls.values().sum::<u64>() >= CALLS_A_SECOND * TRACED_SECONDS {
        return Err(described.into());
    }
    Ok(())
}

/// Waits at an end for ever: path, end.
pub(super) fn block(arguments: &[String]) -> Result<(), Failure> {
    let (path, end): (String, End) = (required(arguments, 0)?, required(arguments, 1)?);
    let mut region = join(&path)?;
    match end.side {
        Side::Receiving => {
            AnyReceiver::claim(&mut region, end.kind)?.recv_into(&mut [0; 64])?;
        }
        Side::Sending => {
            let mut sender = AnySender::claim(&mut region, end.kind)?;
            loop {
                sender.send(&[0; 64])?;
            }
        }
    }
    Err("an idle wait has ended".into())
}

/// Has an end and does nothing: path, end.
pub(super) fn attend(arguments: &[String]) -> Result<(), Failure> {
    let (path, end): (String, End) = (required(arguments, 0)?, required(arguments, 1)?);
    let mut region = join(&path)?;
    let _end = match end.side {
        Side::Receiving => (Some(AnyReceiver::claim(&mut region, end.kind)?), None),
        Side::Sending => (None, Some(AnySender::claim(&mut region, end.kind)?)),
    };
    loop {
        thread::park();
    }
}
