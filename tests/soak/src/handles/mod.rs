//! Handles under kills: senders and receivers are killed at any moment, and no handle is ever with
//! another message than its own, left open, or missing without a word.
//!
//! Each message says who sent it and its number, and so does each of its handles: memory that holds
//! the same. Some messages also carry the writing end of a FIFO. When everybody is gone, that FIFO
//! has no writer: none was left in a queue of the kernel.
//!
//! A receiver notes each message before it frees it. So a successor may note the last one again, and
//! nothing else twice.

mod content;
mod ledger;
mod receiver;
mod sender;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use tombolo::{EventsRegion, MpscOrder, OpenOptions};
use tombolo_abi::RingKind;

use self::ledger::Ledger;
use crate::{Failure, Process, Report, Rng, Role, Run, Setting, scratch};

/// The kinds of ring whose messages carry handles.
const CARRYING: [RingKind; 3] = [RingKind::Spsc, RingKind::Mpsc, RingKind::Lane];
/// The most handles of a message.
const HANDLES_MAX: u64 = 8;
/// Senders of a ring with many, or with lanes.
const SENDERS: usize = 3;
/// Lanes: more than senders live at a time, so that those of the killed are drained meanwhile.
const LANES: u16 = 8;
/// The share of receivers among those killed, in percent.
const RECEIVERS_KILLED: u64 = 40;
/// How long what must happen may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The run.
pub(crate) const RUN: Run = Run {
    name: "handles",
    about: "SIGKILL of 7,500 ends while handles cross: none lost unsaid, misplaced or left open",
    body,
    roles: &[
        Role { name: sender::NAME, body: sender::send },
        Role { name: receiver::NAME, body: receiver::receive },
    ],
};

fn body(setting: &Setting) -> Result<Report, Failure> {
    let mut report = Report::new();
    let mut rng = Rng::new(setting.seed);
    for kind in CARRYING {
        let name = kind.name();
        let named = |error| format!("{name}: {error}");
        let scene = Scene::prepare(setting, kind)?;
        let counts = scene.play(setting.count(2000, 60), RECEIVERS_KILLED, &mut rng);
        let (ledger, crew) = counts.map_err(named)?;
        let scene = Scene::prepare(setting, kind)?;
        let (kept, _) = scene.play(setting.count(500, 30), 0, &mut rng).map_err(named)?;
        if kept.lost > 0 {
            return Err(format!("{name}: {} lost under a receiver that lives", kept.lost).into());
        }
        report.count(&format!("{name}: handles of killed senders to one receiver"), kept.handles);
        for (what, count) in [
            ("messages", ledger.messages),
            ("handles", ledger.handles),
            ("messages whose handles were told to be lost", ledger.lost),
            ("times without descriptors", ledger.without_descriptors),
            ("senders killed", crew.senders_killed),
            ("receivers killed", crew.receivers_killed),
        ] {
            report.count(&format!("{name}: {what}"), count);
        }
        report.note(&format!("{name}: messages noted again"), ledger.repeated);
        #[cfg(feature = "crash-points")]
        report.count(&format!("{name}: senders dead between two steps"), crew.dead_between);
    }
    Ok(report)
}

/// A region, the FIFO, and where the children note things.
struct Scene<'a> {
    setting: &'a Setting,
    kind: RingKind,
    directory: tempfile::TempDir,
    /// Kept open so that it tells when nobody has the other end.
    witness: OwnedFd,
}

/// What was done to the children.
#[derive(Clone, Copy, Debug, Default)]
struct Crew {
    senders_killed: u64,
    receivers_killed: u64,
    /// Those who were gone before they were killed: dead at a crash point.
    dead_between: u64,
}

impl<'a> Scene<'a> {
    fn prepare(setting: &'a Setting, kind: RingKind) -> Result<Self, Failure> {
        let directory = scratch()?;
        let fifo = directory.path().join("witness");
        mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let witness = rustix::fs::open(&fifo, flags, Mode::empty())?;
        let options = OpenOptions::new().spsc_capacity(1 << 16).mpsc_capacity(1 << 16);
        let is_lane = kind == RingKind::Lane;
        let order = if is_lane { MpscOrder::PerProducer } else { MpscOrder::Total };
        let options = options.mpsc_order(order).producers(LANES).max_handles(HANDLES_MAX as u16);
        EventsRegion::open_path_with(directory.path().join("region"), options)?;
        Ok(Self { setting, kind, directory, witness })
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Starts a child with a number that no other has.
    fn start(&self, role: &str, life: u64, rng: &mut Rng) -> Result<Process, Failure> {
        let (path, kind) = (self.path().to_string_lossy(), self.kind.name());
        let arguments = [&*path, kind, &life.to_string(), &rng.number().to_string()];
        let crash = format!("{}:{}", rng.choose(&sender::POINTS), 1 + rng.below(60));
        let dies_between = role == sender::NAME && rng.percent(50);
        let variables: &[_] = if dies_between { &[("TOMBOLO_CRASH", &*crash)] } else { &[] };
        Process::start_with(self.setting, role, &arguments, variables)
    }

    fn play(
        self,
        rounds: u64,
        receivers_killed: u64,
        rng: &mut Rng,
    ) -> Result<(Ledger, Crew), Failure> {
        let mut crew = Crew::default();
        let mut lives = 0..;
        let mut next = move || lives.next().unwrap_or(0);
        let count = if self.kind == RingKind::Spsc { 1 } else { SENDERS };
        let mut receiver = self.start(receiver::NAME, next(), rng)?;
        let mut senders = Vec::new();
        for _ in 0..count {
            senders.push(self.start(sender::NAME, next(), rng)?);
        }
        for _ in 0..rounds {
            thread::sleep(Duration::from_micros(rng.below(40_000)));
            if rng.percent(receivers_killed) {
                let successor = self.start(receiver::NAME, next(), rng)?;
                let killed = std::mem::replace(&mut receiver, successor);
                crew.receivers_killed += u64::from(killed.kill()?);
            } else {
                let one = rng.below(count as u64) as usize;
                let successor = self.start(sender::NAME, next(), rng)?;
                let mut killed = std::mem::replace(&mut senders[one], successor);
                crew.dead_between += u64::from(!killed.is_running()?);
                crew.senders_killed += u64::from(killed.kill()?);
            }
        }
        for sender in senders {
            sender.kill()?;
        }
        std::fs::write(self.path().join("stop"), "")?;
        receiver.finish(PATIENCE)?;
        self.nobody_has_a_handle()?;
        Ok((Ledger::read(self.path())?, crew))
    }

    fn nobody_has_a_handle(&self) -> Result<(), Failure> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            // Nobody writes: there is an end, or there is somebody who could.
            if rustix::io::read(&self.witness, &mut [0]) == Ok(0) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Err("everybody is gone, and a handle is still open".into())
    }
}

/// Arguments of a child: directory, kind of ring, life, seed.
#[derive(Debug)]
struct Arguments {
    directory: PathBuf,
    kind: RingKind,
    life: u64,
    rng: Rng,
}

impl Arguments {
    fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let kind: String = crate::required(arguments, 1)?;
        let kind = CARRYING.into_iter().find(|one| one.name() == kind).ok_or("no such kind")?;
        Ok(Self {
            directory: crate::required(arguments, 0)?,
            kind,
            life: crate::required(arguments, 2)?,
            rng: Rng::new(crate::required(arguments, 3)?),
        })
    }

    fn region(&self) -> Result<EventsRegion, Failure> {
        Ok(EventsRegion::open_path(self.directory.join("region"))?)
    }
}

/// Repeats `claim` while somebody who was killed has not been cleared away, or left a lane to be drained.
fn soon<T>(mut claim: impl FnMut() -> Result<T, tombolo::Error>) -> Result<T, Failure> {
    use tombolo::Error::{Busy, LaneNotEmpty};

    let start = Instant::now();
    loop {
        match claim() {
            Err(Busy { .. } | LaneNotEmpty { .. }) if start.elapsed() < PATIENCE => {}
            result => return Ok(result?),
        }
    }
}
