//! A busy stream by the calls that users make: how many system calls its messages take.
//!
//! The promise is that of two ends that run at the same time. Where other processes need the
//! processors too, an end spins in vain while the other waits for its turn, and then sleeps. So each
//! end says how long it waited for a processor, and a stream that was disturbed is judged mildly. So is one during
//! which a hypervisor took a processor away.

use std::time::Instant;

use tempfile::TempDir;
use tombolo_abi::RingKind;

use super::proc::{stolen, waited_for_processor};
use super::strace;
use crate::counters::Counters;
use crate::ends::{AnyReceiver, AnySender, KINDS, Side, create};
use crate::figures;
use crate::sending::PATIENCE;
use crate::stream::{join, overall_limit};
use crate::{Failure, Process, Report, Setting, Size, required, scratch};

/// Messages to one system call, at the least, of an undisturbed stream.
const MESSAGES_A_CALL: u64 = 10_000;
/// And of any. A sleeping sender is notified after an eighth of the ring, which is 1820 messages, but a
/// receiver as often as the scheduler lets it run dry.
const MESSAGES_A_CALL_DISTURBED: u64 = 50;
/// Of a thousand nanoseconds, how many an end may wait for a processor in an undisturbed stream.
const DISTURBED_PERMILLE: u64 = 20;
/// Streams until one was undisturbed.
const STREAMS_MAX: u64 = 10;
/// Streams that may take more calls and seem undisturbed: the kernel counts what a hypervisor takes in ticks of 10 ms,
/// and a shorter while may be missed.
const STRAYS_MAX: u64 = 1;
/// Bytes of a message.
const LEN: usize = 64;

/// Streams over each kind of ring.
pub(super) fn run(setting: &Setting, report: &mut Report) -> Result<(), Failure> {
    for kind in KINDS {
        let stream = Stream { setting, kind, count: setting.count(20_000_000, 2_000_000) };
        stream.until_undisturbed("by their own count", Stream::run, report)?;
        match setting.size {
            Size::Full if strace::is_there() => {
                stream.until_undisturbed("by strace", Stream::run_traced, report)?;
            }
            Size::Full => report.note("calls by strace", "not counted, there is none"),
            Size::Tenth | Size::Hundredth => {}
        }
    }
    Ok(())
}

/// What is streamed.
struct Stream<'a> {
    setting: &'a Setting,
    kind: RingKind,
    count: u64,
}

/// What it took.
struct Taken {
    calls: u64,
    what: String,
    /// Of a thousand nanoseconds, how many the end that waited more waited for a processor, or a hypervisor had one.
    disturbed_permille: u64,
}

impl Stream<'_> {
    /// Streams again and again until nothing else disturbs, and judges each.
    fn until_undisturbed(
        &self,
        how: &str,
        stream: impl Fn(&Self) -> Result<Taken, Failure>,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let (kind, count) = (self.kind.name(), self.count);
        let (mut undisturbed, mut strays) = (0, 0);
        for _ in 0..STREAMS_MAX {
            let taken = stream(self)?;
            let is_disturbed = taken.disturbed_permille > DISTURBED_PERMILLE;
            let name = if is_disturbed { "disturbed" } else { "undisturbed" };
            let what = format!("{} calls {how}: {}", taken.calls, taken.what);
            report.note(&format!("{kind}, {count} messages, {name}"), &what);
            let least = if is_disturbed { MESSAGES_A_CALL_DISTURBED } else { MESSAGES_A_CALL };
            if taken.calls * least > count && !is_disturbed && strays < STRAYS_MAX {
                strays += 1;
                continue;
            }
            if taken.calls * least > count {
                return Err(format!("{kind}, {name}, {count} messages, {what}").into());
            }
            undisturbed += u64::from(!is_disturbed);
            if undisturbed > 0 {
                break;
            }
        }
        let name = format!("{kind}, undisturbed streams counted {how}");
        match self.setting.size {
            Size::Full => report.count(&name, undisturbed),
            Size::Tenth | Size::Hundredth => report.note(&name, undisturbed), // tests share the machine
        }
        Ok(())
    }

    /// Counts what both ends say about sleeps and wake-ups.
    fn run(&self) -> Result<Taken, Failure> {
        let directory = region(self.kind)?;
        let path = directory.path().join("region");
        let disturbed_permille =
            self.both(&directory, |role, arguments| Process::start(self.setting, role, arguments))?;
        let counters = Counters::new(&path, self.kind)?;
        let (receiver, sender) = (counters.slot(Side::Receiving)?, counters.slot(Side::Sending)?);
        let what = format!(
            "the receiver slept {} and notified {} times, the sender {} and {}, full {} times",
            receiver.sleeps,
            receiver.wakes_sent,
            sender.sleeps,
            sender.wakes_sent,
            counters.control()?.full_events,
        );
        let calls = receiver.sleeps + receiver.wakes_sent + sender.sleeps + sender.wakes_sent;
        Ok(Taken { calls, what, disturbed_permille })
    }

    /// Counts all system calls of both processes, from their start to their end.
    fn run_traced(&self) -> Result<Taken, Failure> {
        let directory = region(self.kind)?;
        let found = |role: &str| directory.path().join(role);
        let disturbed_permille = self.both(&directory, |role, arguments| {
            strace::start(self.setting, &found(role), role, arguments)
        })?;
        let (mut calls, mut what) = (0, Vec::new());
        for role in [RECEIVE, SEND] {
            let counted = strace::read(&found(role))?;
            calls += counted.values().sum::<u64>();
            what.push(format!("{role} {}", strace::describe(&counted)));
        }
        Ok(Taken { calls, what: what.join("; "), disturbed_permille })
    }

    /// Streams by two processes, which `start` starts, and gives how much they were disturbed.
    fn both(
        &self,
        directory: &TempDir,
        start: impl Fn(&str, &[&str]) -> Result<Process, Failure>,
    ) -> Result<u64, Failure> {
        let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
        let (path, count) = (at("region"), self.count.to_string());
        let figures = ["received", "sent"].map(at);
        let arguments = |found| [&*path, self.kind.name(), &*count, found];
        let before = stolen();
        let receiver = start(RECEIVE, &arguments(&*figures[0]))?;
        let sender = start(SEND, &arguments(&*figures[1]))?;
        sender.finish(overall_limit(self.count))?;
        receiver.finish(PATIENCE * 2)?;
        let stolen = stolen().saturating_sub(before).as_nanos() as u64;
        let mut most = 0;
        for found in figures {
            let figures = figures::load(found.as_ref())?;
            most = most.max(figures[WAITED].max(stolen) * 1000 / figures[TOOK].max(1));
        }
        Ok(most)
    }
}

/// A directory with a region.
fn region(kind: RingKind) -> Result<TempDir, Failure> {
    let directory = scratch()?;
    create(&directory.path().join("region"), kind)?;
    Ok(directory)
}

/// What the children are called.
pub(super) const RECEIVE: &str = "calls.receive";
pub(super) const SEND: &str = "calls.send";
/// And what they find out.
const TOOK: &str = "nanoseconds that it took";
const WAITED: &str = "of these, waiting for a processor";

/// Path, kind, how many.
fn task(arguments: &[String]) -> Result<(String, RingKind, u64), Failure> {
    let kind: String = required(arguments, 1)?;
    let kind = KINDS.into_iter().find(|found| found.name() == kind).ok_or("no such kind")?;
    Ok((required(arguments, 0)?, kind, required(arguments, 2)?))
}

/// Times `work`, and leaves what it took in the file that the last argument names.
fn timed(arguments: &[String], work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let found: String = required(arguments, 3)?;
    let (started, waited) = (Instant::now(), waited_for_processor());
    work()?;
    let (took, waited) = (started.elapsed(), waited_for_processor() - waited);
    let figures = [(TOOK, took.as_nanos() as u64), (WAITED, waited.as_nanos() as u64)];
    figures::save(found.as_ref(), &figures)
}

/// Sends: path, kind, how many, what it took.
pub(super) fn send(arguments: &[String]) -> Result<(), Failure> {
    let (path, kind, count) = task(arguments)?;
    let mut sender = AnySender::claim(&mut join(&path)?, kind)?;
    let mut message = [0; LEN];
    timed(arguments, || {
        for number in 0..count {
            message[..8].copy_from_slice(&number.to_le_bytes());
            sender.send(&message)?;
        }
        Ok(())
    })
}

/// Receives: path, kind, how many, what it took.
pub(super) fn receive(arguments: &[String]) -> Result<(), Failure> {
    let (path, kind, count) = task(arguments)?;
    let mut receiver = AnyReceiver::claim(&mut join(&path)?, kind)?;
    let mut room = [0; LEN];
    timed(arguments, || {
        for number in 0..count {
            let len = receiver.recv_into(&mut room)?;
            if len != LEN || room[..8] != number.to_le_bytes() {
                return Err(format!("message {number}: {len} bytes, {:?}", &room[..8]).into());
            }
        }
        Ok(())
    })
}
