//! A process killed at each named point of the library, one after the other: the next process opens
//! the region, finds what was committed and not freed, and passes messages.
//!
//! Who dies inside a send on the ring of many producers leaves its lock held. The next producer takes
//! it over, at once, also from one that died while it did so; what is committed is received.
//!
//! Only with the feature `__crash_points`.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tombolo::crash::POINTS;
use tombolo::ends::Topology;
use tombolo::inspect::Image;
use tombolo::options::CreatePolicy;
use tombolo::{EventsRegion, OpenOptions, Receiver, Sender, TryRecvError};

use crate::{Failure, Process, Report, Role, Run, Setting, figures, required, scratch};

/// What the killed process finds at the path.
const SCENES: [&str; 6] = ["absent", "empty", "half-made", "sound", "replaced", "retired"];
/// Messages sent one by one, and then those sent at once, into each ring.
const SINGLE: Range<u64> = 1..6;
const BATCH: Range<u64> = 6..9;
/// Messages received from each ring.
const RECEIVED: u64 = 2;
/// Offset of the region's state.
const STATE_OFFSET: u64 = 0x14;
/// How long the next process may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Points of channels begin with these: the run `channel-kills` comes to them.
const OF_CHANNELS: [&str; 7] =
    ["meet.", "call.", "withdraw.", "reply.", "close.", "release.", "adopt."];
/// Passed only where the file system has no files without a name, or where handles are sent, which is
/// the run `handles`.
const ELSEWHERE: [&str; 5] = [
    "create.after-empty-file",
    "carry.before-hand-over",
    "carry.after-hand-over",
    "recv.before-take",
    "recv.before-count",
];

/// Figure: locks taken over from the dead, over the region's life.
const LOCK_BREAKS: &str = "locks taken over";
/// A death inside the first send on the second ring, which leaves its lock held.
const WITH_LOCK: Crash = Crash { scene: "sound", point: "send.before-commit", nth: 6 };

/// The run.
pub(crate) const RUN: Run = Run {
    name: "crash-points",
    about: "a process killed at each named point, in each scene: the next one goes on",
    body,
    roles: &[
        Role { name: "crash-points.live", body: live },
        Role { name: "crash-points.follow", body: follow },
    ],
};

fn body(setting: &Setting) -> Result<Report, Failure> {
    let (mut kills, mut with_messages, mut with_lock) = (0, 0, 0);
    let mut visited = BTreeSet::new();
    for point in points() {
        for nth in 1..=passages(point) {
            for scene in SCENES {
                let crash = Crash { scene, point, nth };
                let left = crash.happen(setting).map_err(|error| format!("{crash:?}: {error}"))?;
                let Some(left) = left else { continue };
                kills += 1;
                with_messages += u64::from(left > 0);
                with_lock += u64::from(crash.leaves_lock());
                visited.insert(point);
            }
        }
    }
    let is_missed = |point: &&str| !visited.contains(point) && !ELSEWHERE.contains(point);
    let missed: Vec<_> = points().filter(is_missed).collect();
    if !missed.is_empty() {
        return Err(format!("nobody passed {missed:?}").into());
    }
    let mut report = Report::new();
    report.count("kills", kills);
    report.count("points visited", visited.len() as u64);
    report.count("kills that left messages", with_messages);
    report.count("kills that left a lock held", with_lock);
    Ok(report)
}

/// The points that rings alone have.
fn points() -> impl Iterator<Item = &'static str> {
    let is_of_channel = |point: &str| OF_CHANNELS.iter().any(|start| point.starts_with(start));
    POINTS.iter().copied().filter(move |point| !is_of_channel(point))
}

/// How often [`live`] comes to `point`, over both rings.
fn passages(point: &str) -> u64 {
    let singles = SINGLE.end - SINGLE.start;
    match point.split_once('.') {
        Some(("send", _)) => 2 * singles,
        Some(("batch", _)) => 2,
        Some(("recv", _)) => 2 * RECEIVED,
        Some(("attach" | "detach", _)) => 4,
        _ => 1,
    }
}

/// A death.
#[derive(Clone, Copy, Debug)]
struct Crash {
    scene: &'static str,
    point: &'static str,
    nth: u64,
}

impl Crash {
    /// Lets it happen, and lets the next process come. Gives how many messages were left, or `None`
    /// where the point was not passed in this scene.
    fn happen(&self, setting: &Setting) -> Result<Option<u64>, Failure> {
        let directory = scratch()?;
        let path = directory.path().join("region.tombolo");
        let found = directory.path().join("figures");
        self.set_scene(&path)?;
        let (path_text, found_text) = (path.to_string_lossy(), found.to_string_lossy());
        let has_died = if self.is_in_transfer() {
            // Only a successor comes here, and it has received what was left before.
            WITH_LOCK.kill(setting, "crash-points.live", &[&*path_text, self.scene])?
                && self.kill(setting, "crash-points.follow", &[&*path_text, &*found_text])?
        } else {
            self.kill(setting, "crash-points.live", &[&*path_text, self.scene])?
        };
        has_died.then(|| self.follow_up(setting, &path, &found)).transpose()
    }

    /// Runs a process that dies here, or passes by.
    fn kill(&self, setting: &Setting, role: &str, arguments: &[&str]) -> Result<bool, Failure> {
        let where_to = format!("{}:{}", self.point, self.nth);
        let variables = [("TOMBOLO_CRASH", &*where_to)];
        let mut victim = Process::start_with(setting, role, arguments, &variables)?;
        let status = victim.wait(PATIENCE)?;
        match (status.success(), status.signal()) {
            (true, _) => Ok(false),
            (false, Some(9)) => Ok(true),
            _ => Err(format!("{role} ended with {status}").into()),
        }
    }

    fn is_in_transfer(&self) -> bool {
        self.point.starts_with("transfer.")
    }

    fn set_scene(&self, path: &Path) -> Result<(), Failure> {
        match self.scene {
            "absent" => return Ok(()),
            "empty" => {
                let mut file = fs::File::options();
                file.write(true).create_new(true).mode(0o600).open(path)?;
                return Ok(());
            }
            _ => drop(EventsRegion::open_path_with(path, small())?),
        }
        let state: u32 = match self.scene {
            "half-made" => 1,
            "retired" => 3,
            _ => return Ok(()),
        };
        let file = fs::File::options().write(true).open(path)?;
        Ok(file.write_all_at(&state.to_le_bytes(), STATE_OFFSET)?)
    }

    fn follow_up(&self, setting: &Setting, path: &Path, found: &Path) -> Result<u64, Failure> {
        let arguments = [&*path.to_string_lossy(), &*found.to_string_lossy()];
        Process::start(setting, "crash-points.follow", &arguments)?.finish(PATIENCE)?;
        let figures = figures::load(found)?;
        let mut count = 0;
        for (ring, expected) in ["spsc", "mpsc"].into_iter().zip(self.left()) {
            let of = |what| figures.get(&format!("{ring} {what}")).copied().unwrap_or(0);
            let found = of("first")..of("end");
            if found != expected && !(found.is_empty() && expected.is_empty()) {
                return Err(format!("{ring}: {found:?} were left and not {expected:?}").into());
            }
            count += found.end - found.start;
        }
        // One that died before it could count its own is counted by the next.
        if figures.get(LOCK_BREAKS) != Some(&u64::from(self.leaves_lock())) {
            return Err(format!("{LOCK_BREAKS}: {:?}", figures.get(LOCK_BREAKS)).into());
        }
        Ok(count)
    }

    /// Whether this is a death with the lock of the second ring held.
    fn leaves_lock(&self) -> bool {
        if self.is_in_transfer() {
            return true;
        }
        let in_send = matches!(self.point.split_once('.'), Some(("send" | "batch", _)));
        in_send && self.nth > passages(self.point) / 2
    }

    /// The messages left in the two rings: committed and not freed. [`live`] finishes sending and
    /// receiving on one before it begins on the other.
    fn left(&self) -> [Range<u64>; 2] {
        let (none, all) = (0..0, RECEIVED + 1..BATCH.end);
        let (per_ring, index) = (passages(self.point) / 2, self.nth - 1);
        let (in_second, index) =
            (index >= per_ring, if per_ring == 0 { 0 } else { index % per_ring });
        let here = match self.point {
            "send.before-payload" | "send.before-commit" => 1..1 + index,
            "send.after-commit" => 1..2 + index,
            "batch.before-commit" => SINGLE,
            "recv.before-free" => 1 + index..BATCH.end,
            point if point.starts_with("detach.") => return [all.clone(), all],
            _ => return [none.clone(), none],
        };
        if in_second { [all, here] } else { [here, none] }
    }
}

/// The smallest region.
fn small() -> OpenOptions {
    OpenOptions::new().spsc_capacity(4096).mpsc_capacity(4096).producers(2)
}

/// Uses everything once, in a fixed order: path, scene.
fn live(arguments: &[String]) -> Result<(), Failure> {
    let (path, scene): (PathBuf, String) = (required(arguments, 0)?, required(arguments, 1)?);
    let options = match &*scene {
        "replaced" => small().policy(CreatePolicy::CreateNew),
        _ => small(),
    };
    let mut region = EventsRegion::open_path_with(path, options)?;
    let (mut tx, mut rx) = region.split_spsc()?;
    let (mut producer, mut consumer) = region.split_mpsc()?;
    tx.attach()?;
    rx.attach()?;
    producer.attach()?;
    consumer.attach()?;
    pass_some(&mut tx, &mut rx)?;
    pass_some(&mut producer, &mut consumer)
}

fn pass_some<K: Topology>(tx: &mut Sender<K>, rx: &mut Receiver<K>) -> Result<(), Failure> {
    for number in SINGLE {
        tx.try_send(&number.to_le_bytes())?;
    }
    let batch: Vec<_> = BATCH.map(u64::to_le_bytes).collect();
    let batch: Vec<&[u8]> = batch.iter().map(|message| &message[..]).collect();
    tx.try_send_batch(&batch)?;
    for _ in 0..RECEIVED {
        rx.try_recv()?;
    }
    Ok(())
}

/// Takes over what the dead left: path, where to note what that was.
fn follow(arguments: &[String]) -> Result<(), Failure> {
    let (path, found): (PathBuf, PathBuf) = (required(arguments, 0)?, required(arguments, 1)?);
    let mut region = EventsRegion::open_path_with(&path, small())?;
    let (mut tx, mut rx) = region.split_spsc()?;
    let (mut producer, mut consumer) = region.split_mpsc()?;
    let spsc = receive_all(&mut rx)?;
    let mpsc = receive_all(&mut consumer)?;
    pass_one(&mut tx, &mut rx)?;
    pass_one(&mut producer, &mut consumer)?;
    let image = Image::open(&path)?;
    let lock_breaks = image.rings()[1].control.map_or(0, |control| control.lock_breaks);
    let figures = [
        ("spsc first", spsc.start),
        ("spsc end", spsc.end),
        ("mpsc first", mpsc.start),
        ("mpsc end", mpsc.end),
        (LOCK_BREAKS, lock_breaks),
    ];
    figures::save(&found, &figures)
}

/// Receives what is there: numbers without a gap.
fn receive_all<K: Topology>(receiver: &mut Receiver<K>) -> Result<Range<u64>, Failure> {
    let mut left: Option<Range<u64>> = None;
    loop {
        let message = match receiver.try_recv() {
            Ok(message) => message,
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            Err(error) => return Err(error.into()),
        };
        let number = u64::from_le_bytes(message.data.as_slice().try_into()?);
        let range = left.get_or_insert(number..number);
        if number != range.end {
            return Err(format!("message {number} after {range:?}").into());
        }
        range.end += 1;
    }
    Ok(left.unwrap_or(0..0))
}

/// Passes one message more.
fn pass_one<K: Topology>(
    sender: &mut Sender<K>,
    receiver: &mut Receiver<K>,
) -> Result<(), Failure> {
    sender.send_timeout(b"and on", PATIENCE)?;
    let message = receiver.recv_timeout(PATIENCE)?;
    if message.data != b"and on" {
        return Err(format!("{message:?} arrived").into());
    }
    Ok(())
}
