//! Producers with a lane each, of which one is stopped and one killed inside a send: the others send
//! and are received as fast as without the two.
//!
//! A *pair* of rounds is one without and one with the two. In each, one producer sends a message,
//! waits until it was received, notes how long that took, and goes on with the next. The machine may
//! be busy with other things, so the best rounds are compared.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};
use std::{hint, thread};

use rustix::process::{Pid, Signal, kill_process};
use tombolo::options::{Disconnect, MpscOrder};
use tombolo::{EventsRegion, OpenOptions, RecvTimeoutError};

use crate::clock::{now_ns, until};
use crate::content::word_at;
use crate::sending::PATIENCE;
use crate::shared_words::SharedWords;
use crate::stream::join;
use crate::{Failure, Process, Report, Role, Run, Setting, Size, required, scratch};

/// Pairs of rounds.
const PAIRS: u64 = 10;
/// Messages of a round.
const MESSAGES: u64 = 200_000;
/// How much more a send with its receive may take beside the two, in full size.
const PERCENT_MAX: u64 = 150;
/// No send with its receive may take more.
const MAX: Duration = Duration::from_secs(2);
/// Bytes of what the two send: they take a while to copy.
const LONG: usize = 60_000;
/// Attempts to meet a producer inside a send.
const ATTEMPTS: u32 = 10_000;

/// Lines of shared words: of the receiver, and of each of the two.
const RECEIVER: usize = 0;
const STOPPED: usize = 1;
const KILLED: usize = 2;
/// Words of the receiver's line: the last number of the one that is timed, and whether all is over.
const NUMBER: usize = 0;
const OVER: usize = 8;
/// Words of the two: whether it is sending, and what of it was received.
const SENDING: usize = 0;
const RECEIVED: usize = 8;

/// The run.
pub(crate) const RUN: Run = Run {
    name: "lanes-isolation",
    about: "a producer stopped and one killed inside a send on their lanes: nobody else is slower",
    body,
    roles: &[
        Role { name: "lanes-isolation.time", body: time },
        Role { name: "lanes-isolation.disturb", body: disturb },
        Role { name: "lanes-isolation.receive", body: receive },
    ],
};

fn body(setting: &Setting) -> Result<Report, Failure> {
    let pairs = setting.count(PAIRS, 2);
    let (mut without, mut with) = (vec![], vec![]);
    let mut hits = Hits::default();
    for _ in 0..pairs {
        without.push(Round::start(setting)?.time_one(setting)?);
        let mut round = Round::start(setting)?;
        let disturbed = round.disturb(setting, &mut hits)?;
        with.push(round.time_one(setting)?);
        round.finish(disturbed)?;
    }
    let best = |times: &[Times], share: fn(&Times) -> u64| times.iter().map(share).min();
    let [before, beside] = [&without, &with].map(|it| best(it, |times| times.p99).unwrap_or(0));
    let longest = without.iter().chain(&with).map(|times| times.longest).max().unwrap_or(0);
    let mut report = Report::new();
    report.count("pairs of rounds", pairs);
    report.count("messages timed", without.iter().chain(&with).map(|times| times.count).sum());
    report.count("producers stopped inside a send", hits.stopped);
    report.count("producers killed inside a send", hits.killed);
    report.count("99 of 100 without the two took at most, ns", before);
    report.count("99 of 100 beside the two, ns", beside);
    report.note("ratio", format!("{:.2}", beside as f64 / before.max(1) as f64));
    report.note("longest, µs", longest / 1000);
    if longest > MAX.as_nanos() as u64 {
        return Err(format!("one took {longest} ns\n{report}").into());
    }
    if setting.size == Size::Full && beside * 100 > before * PERCENT_MAX {
        return Err(format!("slower beside the two\n{report}").into());
    }
    Ok(report)
}

/// Who was met inside a send.
#[derive(Debug, Default)]
struct Hits {
    stopped: u64,
    killed: u64,
}

/// How long sends with their receives took in a round, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Times {
    count: u64,
    p99: u64,
    longest: u64,
}

/// A region with its receiver.
struct Round {
    directory: tempfile::TempDir,
    words: SharedWords,
    receiver: Process,
}

impl Round {
    fn start(setting: &Setting) -> Result<Self, Failure> {
        let directory = scratch()?;
        let path = directory.path().join("region");
        let options = OpenOptions::new().mpsc_order(MpscOrder::PerProducer).producers(4);
        drop(EventsRegion::open_path_with(&path, options)?);
        let words = SharedWords::create(&directory.path().join("words"), KILLED + 1)?;
        let receiver = start(setting, "receive", directory.path(), &[])?;
        Ok(Self { directory, words, receiver })
    }

    /// Starts two producers, stops one of them and kills the other, each inside a send. Gives the one
    /// that is stopped.
    fn disturb(&mut self, setting: &Setting, hits: &mut Hits) -> Result<Process, Failure> {
        let other = |line: usize| start(setting, "disturb", self.directory.path(), &[line]);
        let (stopped, killed) = (other(STOPPED)?, other(KILLED)?);
        for line in [STOPPED, KILLED] {
            let received = || Ok(self.words.word(line, RECEIVED).load(Acquire) > 0);
            until("both of the two are received", received)?;
        }
        self.stop_inside(&stopped, STOPPED)?;
        hits.stopped += 1;
        self.stop_inside(&killed, KILLED)?;
        killed.kill()?; // where it was stopped
        hits.killed += 1;
        Ok(stopped)
    }

    /// Stops the producer of `line` inside a send.
    fn stop_inside(&self, producer: &Process, line: usize) -> Result<(), Failure> {
        let is_sending = || self.words.word(line, SENDING).load(Acquire) == 1;
        for _ in 0..ATTEMPTS {
            signal(producer, Signal::STOP)?;
            until("it is stopped", || is_stopped(producer.id()))?;
            if is_sending() {
                return Ok(());
            }
            signal(producer, Signal::CONT)?;
            thread::sleep(Duration::from_micros(50));
        }
        Err("it was never met inside a send".into())
    }

    /// Times a producer.
    fn time_one(&mut self, setting: &Setting) -> Result<Times, Failure> {
        let count = setting.count(MESSAGES, 2000);
        let found = self.directory.path().join("times");
        let producer = start(setting, "time", self.directory.path(), &[count as usize])?;
        producer.finish(PATIENCE * 3)?;
        let mut times: Vec<u64> =
            std::fs::read(found)?.chunks_exact(8).map(|it| word_at(it, 0)).collect();
        times.sort_unstable();
        let (p99, longest) = (times.get(times.len() * 99 / 100), times.last());
        let (p99, longest) = p99.zip(longest).ok_or("no times")?;
        Ok(Times { count: times.len() as u64, p99: *p99, longest: *longest })
    }

    /// Lets the stopped one go on: what it had begun to send is received.
    fn finish(self, stopped: Process) -> Result<(), Failure> {
        let received = || self.words.word(STOPPED, RECEIVED).load(Acquire);
        let before = received();
        signal(&stopped, Signal::CONT)?;
        until("the stopped one is received again", || Ok(received() > before))?;
        stopped.kill()?;
        self.words.word(RECEIVER, OVER).store(1, Release);
        self.receiver.finish(PATIENCE)
    }
}

fn start(
    setting: &Setting,
    role: &str,
    directory: &Path,
    numbers: &[usize],
) -> Result<Process, Failure> {
    let directory = directory.to_string_lossy();
    let numbers: Vec<_> = numbers.iter().map(usize::to_string).collect();
    let mut arguments = vec![&*directory];
    arguments.extend(numbers.iter().map(String::as_str));
    Process::start(setting, &format!("lanes-isolation.{role}"), &arguments)
}

fn signal(process: &Process, signal: Signal) -> Result<(), Failure> {
    let pid = Pid::from_raw(process.id() as i32).ok_or("no process")?;
    Ok(kill_process(pid, signal)?)
}

fn is_stopped(pid: u32) -> Result<bool, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    Ok(stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
}

fn words(directory: &Path) -> Result<SharedWords, Failure> {
    SharedWords::open(&directory.join("words"))
}

/// Sends and is timed: directory, how many.
fn time(arguments: &[String]) -> Result<(), Failure> {
    let (directory, count): (PathBuf, u64) = (required(arguments, 0)?, required(arguments, 1)?);
    let words = words(&directory)?;
    let (mut sender, _) = join(&directory.join("region").to_string_lossy())?.split_mpsc()?;
    sender.attach()?;
    let received = words.word(RECEIVER, NUMBER);
    let mut times = Vec::with_capacity(count as usize * 8);
    for number in 1..=count {
        let message = [0u64, number].map(u64::to_le_bytes);
        let began = now_ns();
        sender.send_timeout(message.as_flattened(), PATIENCE)?;
        let deadline = Instant::now() + PATIENCE;
        while received.load(Acquire) < number {
            hint::spin_loop();
            if Instant::now() > deadline {
                return Err(format!("message {number} was not received").into());
            }
        }
        times.extend((now_ns() - began).to_le_bytes());
    }
    Ok(std::fs::write(directory.join("times"), times)?)
}

/// Sends long messages until it is stopped or killed: directory, which line.
fn disturb(arguments: &[String]) -> Result<(), Failure> {
    let (directory, line): (PathBuf, usize) = (required(arguments, 0)?, required(arguments, 1)?);
    let words = words(&directory)?;
    let (mut sender, _) = join(&directory.join("region").to_string_lossy())?.split_mpsc()?;
    sender.attach()?;
    let mut message = vec![0; LONG];
    message[..8].copy_from_slice(&(line as u64).to_le_bytes());
    for number in 1u64.. {
        message[8..16].copy_from_slice(&number.to_le_bytes());
        words.word(line, SENDING).store(1, Release);
        sender.send_timeout(&message, PATIENCE * 3)?;
        words.word(line, SENDING).store(0, Release);
    }
    Ok(())
}

/// Receives until it is told that all is over: directory. Each producer's numbers follow each other.
fn receive(arguments: &[String]) -> Result<(), Failure> {
    let directory: PathBuf = required(arguments, 0)?;
    let words = words(&directory)?;
    let (_, mut receiver) = join(&directory.join("region").to_string_lossy())?.split_mpsc()?;
    receiver.set_disconnect(Disconnect::Never); // killed producers come back
    let mut room = vec![0; LONG];
    let mut last = [0; KILLED + 1];
    while words.word(RECEIVER, OVER).load(Acquire) == 0 {
        match receiver.recv_into_timeout(&mut room, Duration::from_millis(20)) {
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => continue,
            Err(error) => return Err(error.into()),
        }
        let (line, number) = (word_at(&room, 0) as usize, word_at(&room, 8));
        let last = last.get_mut(line).ok_or_else(|| format!("a message of {line}"))?;
        if std::mem::replace(last, number) + 1 != number {
            return Err(format!("message {number} of {line} came out of order").into());
        }
        let word = if line == 0 { NUMBER } else { RECEIVED };
        words.word(line, word).store(number, Release);
    }
    Ok(())
}
