//! No wake-up of one that waits at a descriptor, or as a task, is lost: not when both sides live, as in
//! the run `wakes`, and not when the sender is killed, at any moment or just between publishing a message and
//! notifying of it.
//!
//! An end that waits has no tick: if nothing tells of a death or of what the dead had sent, it waits until
//! this run gives up.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tombolo::TryRecvError;
use tombolo_abi::RingKind;

use crate::ends::{AnyReceiver, AnySender, End, KINDS, Side, create};
use crate::process::leave_no_core;
use crate::shared_words::SharedWords;
use crate::stream::join;
use crate::wakes::{self, How, Waiting};
use crate::{Failure, Process, Report, Rng, Role, Run, Setting, required, scratch};

/// The run.
pub(crate) const RUN: Run = Run {
    name: "readiness",
    about: "1,000,000 waits by epoll, poll and task, 4,000 kills: no wake-up is lost",
    body,
    roles: &[Role { name: SENDER, body: send }],
};

const SENDER: &str = "readiness.send";
const KILLS: u64 = 4000;
/// A little longer than a death may take to be known.
const LONG: Duration = Duration::from_secs(10);

fn body(setting: &Setting) -> Result<Report, Failure> {
    let mut report = Report::new();
    wakes::wait_elsewhere(setting, &mut report)?;
    let mut rng = Rng::new(setting.seed);
    let each = setting.count(KILLS, 96).div_ceil((KINDS.len() * How::ELSEWHERE.len()) as u64);
    for kind in KINDS {
        let mut tally = Tally::default();
        for how in How::ELSEWHERE {
            let done = kill_senders(setting, kind, how, each, &mut rng, &mut tally);
            done.map_err(|error| format!("{kind:?}, {}: {error}", how.name()))?;
        }
        let name = |what: &str| format!("{kind:?}, {what}");
        report.count(&name("senders killed"), tally.kills);
        report.count(&name("messages"), tally.messages);
        report.count(&name("waits"), tally.waits);
        if cfg!(feature = "__crash_points") {
            report.count(&name("killed between publishing and notifying"), tally.at_point);
        }
        report.note(&name("longest from a kill to its news"), format!("{:.1?}", tally.longest));
    }
    Ok(report)
}

#[derive(Debug, Default)]
struct Tally {
    kills: u64,
    messages: u64,
    waits: u64,
    /// Only with the feature `__crash_points`.
    at_point: u64,
    longest: Duration,
}

/// One sender after the other, each of which is killed. The receiver is this process.
fn kill_senders(
    setting: &Setting,
    kind: RingKind,
    how: How,
    kills: u64,
    rng: &mut Rng,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let directory = scratch()?;
    let at = |name: &str| directory.path().join(name);
    create(&at("region"), kind)?;
    let mut region = join(&at("region").to_string_lossy())?;
    let words = SharedWords::create(&at("notes"), 1)?;
    let mut receiver = AnyReceiver::claim(&mut region, kind)?;
    let waiting = Waiting::new(receiver.readiness()?, how)?;
    for _ in 0..kills {
        let sent = words.word(0, 0);
        sent.store(0, Release);
        let (mut sender, point) = start(setting, kind, &at("region"), &at("notes"), rng)?;
        let mut killed = None;
        let mut next = 0;
        let mut kill_at = Some(Instant::now() + Duration::from_micros(rng.below(20_000)));
        loop {
            let (count, is_over) = take_all(&mut receiver, next)?;
            next += count;
            if is_over && next > 0 {
                break; // and not because of the one before
            }
            if point.is_none() && next > 0 && kill_at.take_if(|at| *at < Instant::now()).is_some() {
                let pid = Pid::from_raw(sender.id() as i32).ok_or("no process")?;
                kill_process(pid, Signal::KILL)?;
                killed = Some(Instant::now());
            }
            // Until it is killed by this very loop, its messages are what it goes by.
            let limit = if point.is_some() || killed.is_some() { LONG } else { PAUSE };
            tally.waits += 1;
            if !waiting.wait(limit)? && limit == LONG {
                return Err(format!("nothing was told for {LONG:?}, after message {next}").into());
            }
        }
        sender.wait(LONG)?;
        let returned = sent.load(Acquire);
        if next < returned || next > returned + 1 {
            return Err(format!("{returned} sends returned, {next} messages were there").into());
        }
        if let Some(nth) = point {
            if next != nth {
                return Err(format!("killed behind message {nth}, {next} were there").into());
            }
            tally.at_point += 1;
        }
        tally.longest = tally.longest.max(killed.map_or(Duration::ZERO, |at| at.elapsed()));
        tally.kills += 1;
        tally.messages += next;
    }
    Ok(())
}

/// The longest pause of a sender, and then some.
const PAUSE: Duration = Duration::from_millis(5);

/// Starts a sender, that kills itself behind the message that is given, or doesn't.
fn start(
    setting: &Setting,
    kind: RingKind,
    region: &Path,
    notes: &Path,
    rng: &mut Rng,
) -> Result<(Process, Option<u64>), Failure> {
    let (region, notes) = (region.to_string_lossy(), notes.to_string_lossy());
    let (seed, end) = (rng.number().to_string(), End { kind, side: Side::Sending }.name());
    let arguments = [&*region, &*notes, &*seed, end];
    if cfg!(feature = "__crash_points") && rng.percent(50) {
        let nth = 1 + rng.below(300);
        let variables = [("TOMBOLO_CRASH", format!("send.after-commit:{nth}"))];
        let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
        let sender = Process::start_with(setting, SENDER, &arguments, &variables)?;
        return Ok((sender, Some(nth)));
    }
    Ok((Process::start(setting, SENDER, &arguments)?, None))
}

/// Takes all that is there, which must go on from `next`. Gives how many messages that were, and whether
/// there will be no more.
fn take_all(receiver: &mut AnyReceiver, next: u64) -> Result<(u64, bool), Failure> {
    let (mut count, mut message) = (0, [0; 8]);
    loop {
        match receiver.try_recv_into(&mut message) {
            Ok(8) if u64::from_le_bytes(message) == next + count => count += 1,
            Ok(len) => return Err(format!("{len} bytes, {message:?} for {}", next + count).into()),
            Err(TryRecvError::Empty) => return Ok((count, false)),
            Err(TryRecvError::Disconnected) => return Ok((count, true)),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends numbers until it is killed, and notes how many: path, notes, seed, end.
fn send(arguments: &[String]) -> Result<(), Failure> {
    let (path, seed): (String, u64) = (required(arguments, 0)?, required(arguments, 2)?);
    let end: End = required(arguments, 3)?;
    let words = SharedWords::open(&required::<PathBuf>(arguments, 1)?)?;
    leave_no_core()?;
    let mut region = join(&path)?;
    let mut sender = AnySender::claim(&mut region, end.kind)?;
    let mut rng = Rng::new(seed);
    for number in 0u64.. {
        sender.send(&number.to_le_bytes())?;
        words.word(0, 0).store(number + 1, Release);
        match rng.below(20) {
            0 => thread::sleep(Duration::from_micros(rng.below(2000))), // the receiver sleeps by then
            1..6 => thread::yield_now(),
            _ => {}
        }
    }
    Ok(())
}
