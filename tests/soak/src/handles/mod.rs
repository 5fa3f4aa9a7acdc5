//! Handles under kills: senders and receivers are killed at any moment, and no handle is ever with
//! another message than its own, left open, or missing without a word.
//!
//! Each message says who sent it and its number, and so does each of its handles: memory that holds
//! the same. Some messages also carry the writing end of a FIFO. When everybody is gone, that FIFO
//! has no writer: none was left in a queue of the kernel.
//!
//! A receiver notes each message before it frees it. So a successor may note the last one again, and
//! nothing else twice. Now and then it asks for the handles without having descriptors for them.
//!
//! Half of the successors die by themselves at a crash point, in a build that has them; in full size
//! the run fails where at one of them nobody did. The last ones end well, and count their descriptors.

mod cast;
mod content;
mod ledger;
mod receiver;
mod sender;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use tombolo::options::MpscOrder;
use tombolo::{EventsRegion, OpenOptions};
use tombolo_abi::RingKind;

use self::cast::{Cast, Toll, Wanted, points};
use self::ledger::Ledger;
use crate::{Failure, Report, Rng, Role, Run, Setting, Size, scratch};

/// The kinds of ring whose messages carry handles.
const CARRYING: [RingKind; 3] = [RingKind::Spsc, RingKind::Mpsc, RingKind::Lane];
/// The most handles of a message.
const HANDLES_MAX: u64 = 8;
/// Senders of a ring with many, or with lanes.
const SENDERS: usize = 3;
/// Lanes: more than senders live at a time, so that those of the killed are drained meanwhile.
const LANES: u16 = 8;
/// How long what must happen may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The run.
pub(crate) const RUN: Run = Run {
    name: "handles",
    about: "SIGKILL of 6,600 ends as 3 million messages take handles along: none lost unsaid, misplaced, left open",
    body,
    roles: &[
        Role { name: sender::NAME, body: sender::send },
        Role { name: receiver::NAME, body: receiver::receive },
    ],
};

fn body(setting: &Setting) -> Result<Report, Failure> {
    let mut report = Report::new();
    let mut rng = Rng::new(setting.seed);
    let kills = setting.count(1000, 20);
    let messages = setting.count(1_000_000, 5000);
    let all_die = Wanted { messages, senders_killed: kills, receivers_killed: kills };
    let senders_killed = setting.count(200, 10);
    let senders_die =
        Wanted { messages: setting.count(100_000, 2000), senders_killed, receivers_killed: 0 };
    for kind in CARRYING {
        let (toll, ledger) = play(setting, kind, all_die, &mut rng)?;
        tell(&mut report, setting, kind, &toll, &ledger);
        let (_, kept) = play(setting, kind, senders_die, &mut rng)?;
        let name = kind.name();
        if kept.lost > 0 {
            return Err(format!("{name}: {} lost under a receiver that lives", kept.lost).into());
        }
        report.count(&format!("{name}: handles to one receiver that lived"), kept.handles);
    }
    Ok(report)
}

fn play(
    setting: &Setting,
    kind: RingKind,
    wanted: Wanted,
    rng: &mut Rng,
) -> Result<(Toll, Ledger), Failure> {
    let scene = Scene::prepare(setting, kind)?;
    let played = Cast::start(&scene, rng).and_then(|cast| cast.play(wanted));
    let judged = played.and_then(|toll| Ok((toll, scene.judge()?)));
    let (toll, ledger) = judged.map_err(|error| format!("{}: {error}", kind.name()))?;
    if ledger.messages < wanted.messages {
        return Err(format!("{}: only {} messages", kind.name(), ledger.messages).into());
    }
    Ok((toll, ledger))
}

fn tell(report: &mut Report, setting: &Setting, kind: RingKind, toll: &Toll, ledger: &Ledger) {
    let name = kind.name();
    for (what, count) in [
        ("messages", ledger.messages),
        ("handles", ledger.handles),
        ("messages whose handles were told to be lost", ledger.lost),
        ("times without descriptors", ledger.without_descriptors),
        ("senders killed at random", toll.senders_killed),
        ("receivers killed at random", toll.receivers_killed),
        ("survivors with as many descriptors as in the beginning", toll.survivors),
    ] {
        report.count(&format!("{name}: {what}"), count);
    }
    report.note(&format!("{name}: messages noted again"), ledger.repeated);
    if !cfg!(feature = "__crash_points") {
        return;
    }
    for role in [sender::NAME, receiver::NAME] {
        for point in points(role, kind) {
            let count = toll.dead_at.get(&(role, point)).copied().unwrap_or(0);
            let what = format!("{name}: {role} dead at {point}");
            match setting.size {
                Size::Full => report.count(&what, count),
                Size::Tenth | Size::Hundredth => report.note(&what, count), // too few to come to each
            }
        }
    }
    report.count(&format!("{name}: dead between two steps"), toll.dead_at.values().sum());
}

/// A region, the FIFO, and where the children note things.
struct Scene<'a> {
    setting: &'a Setting,
    kind: RingKind,
    /// Microseconds between two kills, on average.
    pause: u64,
    directory: tempfile::TempDir,
    /// Kept open so that it tells when nobody has the other end.
    witness: OwnedFd,
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
        let pause = if setting.size == Size::Full { 45_000 } else { 15_000 };
        Ok(Self { setting, kind, pause, directory, witness })
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// How many notes receivers have made so far.
    fn noted(&self) -> Result<u64, Failure> {
        let notes = std::fs::metadata(self.path().join("received"));
        Ok(notes.map_or(0, |notes| notes.len() / ledger::NOTE_LEN))
    }

    /// What came of it, when everybody is gone.
    fn judge(&self) -> Result<Ledger, Failure> {
        self.nobody_has_a_handle()?;
        Ledger::read(self.path())
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
