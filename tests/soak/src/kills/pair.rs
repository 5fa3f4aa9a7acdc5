//! The sender and the receiver at work, and who follows them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tombolo::ends::Topology;
use tombolo::options::MpscOrder;
use tombolo::{EventsRegion, OpenOptions, Receiver, Sender};
use tombolo_abi::RingKind;

use super::children::Progress;
use super::ledger::{Ledger, Log};
use super::look::Look;
use super::plan::{self, Way};
use crate::content::Content;
use crate::sending::PATIENCE;
use crate::stream::{join, settled_ring};
use crate::{Failure, Process, Report, Setting, scratch};

/// Bytes of the ring: a few of the longest messages.
const CAPACITY: u64 = 1 << 19;

/// Both processes, and all that they leave.
#[derive(Debug)]
pub(super) struct Pair {
    setting: Setting,
    kind: RingKind,
    directory: TempDir,
    content: Content,
    look: Look,
    ledger: Ledger,
    progress: File,
    sender: Option<Process>,
    receiver: Option<Process>,
    /// The sender at work.
    sender_mark: u64,
    /// The number that it began with.
    first: u64,
    receiver_mark: u64,
    killed: u64,
}

impl Pair {
    /// Makes a region, and starts both at its ring of `kind`: of lanes there is one.
    ///
    /// # Errors
    /// The system's refusals.
    pub(super) fn start(setting: &Setting, kind: RingKind) -> Result<Self, Failure> {
        let directory = scratch()?;
        let path = region_path(&directory);
        let options = OpenOptions::new().spsc_capacity(CAPACITY);
        let options = match kind {
            RingKind::Lane => options.mpsc_order(MpscOrder::PerProducer).mpsc_capacity(CAPACITY),
            _ => options,
        };
        let options = options.producers(1);
        drop(EventsRegion::open_path_with(&path, options)?);
        drop(Log::open(&directory.path().join("log"))?);
        let progress = directory.path().join("progress");
        let progress =
            File::options().read(true).write(true).create(true).truncate(true).open(progress)?;
        Progress::default().save(&progress)?;
        let mut pair = Self {
            setting: setting.clone(),
            content: Content::new(setting.seed),
            look: Look::new(&path, ring_of(kind))?,
            kind,
            ledger: Ledger::open(&directory.path().join("log"))?,
            directory,
            progress,
            sender: None,
            receiver: None,
            sender_mark: 0,
            first: 1,
            receiver_mark: 0,
            killed: 0,
        };
        pair.start_sender()?;
        pair.start_receiver()?;
        Ok(pair)
    }

    /// The region's file.
    pub(super) fn path(&self) -> PathBuf {
        region_path(&self.directory)
    }

    /// Waits until both ends are at work.
    ///
    /// # Errors
    /// Where one ended by itself, or nothing moves.
    pub(super) fn wait_for_stream(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.ledger.read(&self.look)?;
            let received = self.ledger.last.is_some_and(|last| last.receiver == self.receiver_mark);
            let progress = Progress::load(&self.progress)?;
            if received && progress.sender == self.sender_mark && progress.next > self.first {
                return Ok(());
            }
            self.expect_running()?;
            if Instant::now() > deadline {
                return Err(format!("no stream: {progress:?}, {:?}", self.ledger.last).into());
            }
            thread::sleep(Duration::from_micros(50));
        }
    }

    fn expect_running(&mut self) -> Result<(), Failure> {
        for process in [&mut self.sender, &mut self.receiver].into_iter().flatten() {
            if !process.is_running()? {
                return Err("an end of the stream ended by itself".into());
            }
        }
        Ok(())
    }

    /// Kills the sender, compares what it left, and starts the next. Gives the way of
    /// sending that it died in, where that was between the first byte of a payload and its commit.
    ///
    /// # Errors
    /// What is wrong with what it left.
    pub(super) fn replace_sender(&mut self) -> Result<Option<Way>, Failure> {
        let under_way = self.kill_sender()?;
        self.start_sender()?;
        Ok(under_way)
    }

    /// Kills the receiver, judges its log, and starts the next.
    ///
    /// # Errors
    /// What is wrong with its log.
    pub(super) fn replace_receiver(&mut self) -> Result<(), Failure> {
        self.kill_receiver()?;
        self.start_receiver()
    }

    /// Kills both, and starts the next two. Gives what [`Self::replace_sender`] does.
    ///
    /// # Errors
    /// What is wrong with what they left.
    pub(super) fn replace_both(&mut self) -> Result<Option<Way>, Failure> {
        let under_way = self.kill_sender()?;
        self.kill_receiver()?;
        self.start_sender()?;
        self.start_receiver()?;
        Ok(under_way)
    }

    fn kill_sender(&mut self) -> Result<Option<Way>, Failure> {
        let sender = self.sender.take().ok_or("no sender")?;
        self.expect_killed(sender)?;
        let committed = self.look.committed()?; // before the log: what is freed now is in it then
        self.ledger.read(&self.look)?;
        let logged = self.ledger.last.map_or(0, |last| last.number);
        let next = committed.last.unwrap_or(0).max(logged) + 1;
        self.compare_with_progress(next)?;
        self.first = next;
        let place = (committed.end, next);
        let under_way = self.look.is_under_way(&self.content, place, self.sender_mark)?;
        Ok(under_way.then(|| plan::step(&self.content, next).0))
    }

    fn expect_killed(&mut self, process: Process) -> Result<(), Failure> {
        if !process.kill()? {
            return Err("an end of the stream ended before it was killed".into());
        }
        self.killed += 1;
        Ok(())
    }

    /// All sends that returned are committed, and at most one step of the plan is beyond them.
    fn compare_with_progress(&self, next: u64) -> Result<(), Failure> {
        let progress = Progress::load(&self.progress)?;
        let returned = if progress.sender == self.sender_mark { progress.next } else { self.first };
        let (_, step) = plan::step(&self.content, returned);
        if (returned..=step.end).contains(&next) {
            return Ok(());
        }
        Err(format!("message {next} is the next, but sends up to {returned} have returned").into())
    }

    fn start_sender(&mut self) -> Result<(), Failure> {
        self.sender_mark += 1;
        let numbers = [self.sender_mark.to_string(), self.first.to_string()];
        self.sender = Some(self.start_end("kills.send", "progress", &numbers)?);
        Ok(())
    }

    fn kill_receiver(&mut self) -> Result<(), Failure> {
        let receiver = self.receiver.take().ok_or("no receiver")?;
        self.expect_killed(receiver)
    }

    fn start_receiver(&mut self) -> Result<(), Failure> {
        self.receiver_mark += 1;
        self.ledger.change_receiver(self.receiver_mark, &self.look)?;
        let number = [self.receiver_mark.to_string()];
        self.receiver = Some(self.start_end("kills.receive", "log", &number)?);
        Ok(())
    }

    fn start_end(&self, role: &str, file: &str, numbers: &[String]) -> Result<Process, Failure> {
        let (path, file) = (self.path(), self.directory.path().join(file));
        let (path, file) = (path.to_string_lossy(), file.to_string_lossy());
        let seed = self.setting.seed.to_string();
        let mut arguments = vec![&*path, &*seed, &*file];
        arguments.extend(numbers.iter().map(String::as_str));
        arguments.push(self.kind.name());
        Process::start(&self.setting, role, &arguments)
    }

    /// Ends the stream: all that is committed is received, and the next ends find a sound region.
    ///
    /// # Errors
    /// What is missing or damaged.
    pub(super) fn finish(mut self, report: &mut Report) -> Result<(), Failure> {
        self.kill_sender()?;
        self.wait_for_last()?;
        self.kill_receiver()?;
        let killed = self.killed - 2; // the last two belong to no moment
        self.ledger.change_receiver(self.receiver_mark + 1, &self.look)?;
        pass_one(&self.path(), self.kind)?;
        let (control, entry) = settled_ring(&self.path(), ring_of(self.kind))?;
        report.count("processes killed", killed);
        report.count("messages", self.first - 1);
        report.count("successors that received", self.ledger.changes);
        report.count("messages received twice, at the same position", self.ledger.repeated);
        report.count("laps of the ring", control.tail / entry.capacity);
        Ok(())
    }

    /// The number of the message behind the one received last.
    fn next_number(&self) -> u64 {
        self.ledger.last.map_or(0, |last| last.number) + 1
    }

    fn wait_for_last(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        // What is received is freed a little later.
        while self.look.committed()?.last.is_some() || self.next_number() < self.first {
            self.ledger.read(&self.look)?;
            if Instant::now() > deadline {
                let (last, next) = (self.ledger.last, self.first);
                return Err(format!("{last:?} came last, {next} would be the next").into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

fn region_path(directory: &TempDir) -> PathBuf {
    directory.path().join("kills.tombolo")
}

/// Where the ring lies in the directory.
fn ring_of(kind: RingKind) -> usize {
    usize::from(kind == RingKind::Lane)
}

/// Passes one message through the ring of `kind` at `path`, which is empty.
fn pass_one(path: &Path, kind: RingKind) -> Result<(), Failure> {
    let mut region = join(&path.to_string_lossy())?;
    match kind {
        RingKind::Lane => pass_through(region.split_mpsc()?),
        _ => pass_through(region.split_spsc()?),
    }
}

fn pass_through<K: Topology>(ends: (Sender<K>, Receiver<K>)) -> Result<(), Failure> {
    let (mut sender, mut receiver) = ends;
    sender.send_timeout(b"the last", PATIENCE)?;
    let mut room = [0; 64];
    let len = receiver.recv_into_timeout(&mut room, PATIENCE)?;
    match &room[..len] {
        b"the last" => Ok(()),
        other => Err(format!("received {other:?} at the end").into()),
    }
}
