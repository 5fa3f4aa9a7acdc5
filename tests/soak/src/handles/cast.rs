//! Senders and the receiver, as they are killed and replaced.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::{Duration, Instant};

use tombolo_abi::RingKind;

use super::{PATIENCE, SENDERS, Scene, receiver, sender};
use crate::{Failure, Process, Rng, Size};

/// How often it is looked who has died by itself.
const LOOK: Duration = Duration::from_millis(4);
/// How long the last ones live in peace.
const PEACE: Duration = Duration::from_millis(100);
/// The longest that a run on one kind of ring may take.
const LIMIT: Duration = Duration::from_secs(600);

/// How much is to happen at least.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) messages: u64,
    /// Kills at random, of each side. Where no receiver is to be killed, the first one lives to the end.
    pub(super) senders_killed: u64,
    pub(super) receivers_killed: u64,
}

/// What was done to the children.
#[derive(Clone, Debug, Default)]
pub(super) struct Toll {
    pub(super) senders_killed: u64,
    pub(super) receivers_killed: u64,
    /// Dead between two steps of the library: side and point.
    pub(super) dead_at: BTreeMap<(&'static str, &'static str), u64>,
    /// Those who ended well, with as many descriptors open as in the beginning.
    pub(super) survivors: u64,
}

/// Whether a child may be told to die by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    MayDieBetween,
    Lives,
}

/// A child, and where it is to die by itself.
struct Actor {
    process: Process,
    role: &'static str,
    point: Option<&'static str>,
}

/// All children of a scene.
pub(super) struct Cast<'a> {
    scene: &'a Scene<'a>,
    rng: &'a mut Rng,
    receiver: Actor,
    senders: Vec<Actor>,
    lives: u64,
    toll: Toll,
}

/// The crash points that are passed in such a role.
pub(super) fn points(role: &str, kind: RingKind) -> Vec<&'static str> {
    let mut points = vec!["attach.locked", "attach.filled"];
    match role {
        receiver::NAME => {
            points.extend(["recv.before-free", "recv.before-take", "recv.before-count"]);
        }
        _ => {
            points.extend(["carry.before-hand-over", "carry.after-hand-over"]);
            points.extend(["send.before-payload", "send.before-commit", "send.after-commit"]);
            if kind == RingKind::Mpsc {
                points.extend(["transfer.before-roll", "transfer.after-roll"]);
            }
        }
    }
    points
}

impl<'a> Cast<'a> {
    pub(super) fn start(scene: &'a Scene<'a>, rng: &'a mut Rng) -> Result<Self, Failure> {
        let receiver = Actor::start(scene, receiver::NAME, 0, None, rng)?;
        let count = if scene.kind == RingKind::Spsc { 1 } else { SENDERS };
        let lives = 1..=count as u64;
        let senders = lives.map(|life| Actor::start(scene, sender::NAME, life, None, rng));
        let (senders, lives) = (senders.collect::<Result<_, _>>()?, 1 + count as u64);
        Ok(Self { scene, rng, receiver, senders, lives, toll: Toll::default() })
    }

    /// Kills and replaces until all that is wanted has happened.
    pub(super) fn play(mut self, wanted: Wanted) -> Result<Toll, Failure> {
        let start = Instant::now();
        while !self.is_done(wanted)? {
            self.wait()?;
            if wanted.receivers_killed > 0 && self.rng.percent(50) {
                self.replace_receiver(Fate::MayDieBetween)?;
                self.toll.receivers_killed += 1;
            } else {
                let index = self.rng.below(self.senders.len() as u64) as usize;
                self.replace_sender(index, Fate::MayDieBetween)?;
                self.toll.senders_killed += 1;
            }
            if start.elapsed() > LIMIT {
                return Err(format!("not done within {LIMIT:?}: {:?}", self.toll).into());
            }
        }
        if wanted.receivers_killed > 0 {
            self.replace_receiver(Fate::Lives)?;
        }
        self.end()
    }

    fn is_done(&self, wanted: Wanted) -> Result<bool, Failure> {
        let is_killed = self.toll.senders_killed >= wanted.senders_killed
            && self.toll.receivers_killed >= wanted.receivers_killed;
        // Some notes are of no message, or of one that was noted before.
        let noted = wanted.messages + wanted.messages / 20;
        Ok(is_killed && self.scene.noted()? >= noted)
    }

    /// Sleeps for a while, and replaces whoever dies by itself meanwhile.
    fn wait(&mut self) -> Result<(), Failure> {
        let until = Instant::now() + Duration::from_micros(self.rng.below(2 * self.scene.pause));
        loop {
            if !self.receiver.process.is_running()? {
                self.replace_receiver(Fate::MayDieBetween)?;
            }
            for index in 0..self.senders.len() {
                if !self.senders[index].process.is_running()? {
                    self.replace_sender(index, Fate::MayDieBetween)?;
                }
            }
            match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Ok(()),
                left => thread::sleep(left.min(LOOK)),
            }
        }
    }

    fn replace_receiver(&mut self, fate: Fate) -> Result<(), Failure> {
        let successor = self.successor(receiver::NAME, fate)?;
        std::mem::replace(&mut self.receiver, successor).kill(&mut self.toll)
    }

    fn replace_sender(&mut self, index: usize, fate: Fate) -> Result<(), Failure> {
        let successor = self.successor(sender::NAME, fate)?;
        std::mem::replace(&mut self.senders[index], successor).kill(&mut self.toll)
    }

    fn successor(&mut self, role: &'static str, fate: Fate) -> Result<Actor, Failure> {
        self.lives += 1;
        let points = points(role, self.scene.kind);
        let is_armed =
            fate == Fate::MayDieBetween && cfg!(feature = "__crash_points") && self.rng.percent(50);
        let point = is_armed.then(|| points[self.rng.below(points.len() as u64) as usize]);
        Actor::start(self.scene, role, self.lives, point, self.rng)
    }

    /// Lets the last ones live, and end by themselves: first who sends, then who receives the rest.
    fn end(mut self) -> Result<Toll, Failure> {
        (0..self.senders.len()).try_for_each(|index| self.replace_sender(index, Fate::Lives))?;
        thread::sleep(PEACE);
        std::fs::write(self.scene.path().join("stop-sending"), "")?;
        for sender in self.senders {
            sender.process.finish(PATIENCE)?;
            self.toll.survivors += 1;
        }
        std::fs::write(self.scene.path().join("stop"), "")?;
        self.receiver.process.finish(PATIENCE)?;
        self.toll.survivors += 1;
        Ok(self.toll)
    }
}

impl Actor {
    fn start(
        scene: &Scene<'_>,
        role: &'static str,
        life: u64,
        point: Option<&'static str>,
        rng: &mut Rng,
    ) -> Result<Self, Failure> {
        let (path, kind) = (scene.path().to_string_lossy(), scene.kind.name());
        let arguments = [&*path, kind, &life.to_string(), &rng.number().to_string()];
        let passages = match (point.and_then(|point| point.split_once('.')), scene.setting.size) {
            (Some(("attach" | "transfer", _)), _) => 1,
            (_, Size::Full) => 1000,
            (_, Size::Tenth) => 100,
            (_, Size::Hundredth) => 60,
        };
        let crash = format!("{}:{}", point.unwrap_or_default(), 1 + rng.below(passages));
        let variables: &[_] = if point.is_some() { &[("TOMBOLO_CRASH", &*crash)] } else { &[] };
        let process = Process::start_with(scene.setting, role, &arguments, variables)?;
        Ok(Self { process, role, point })
    }

    /// Ends it by SIGKILL, and notes where that has happened before.
    fn kill(mut self, toll: &mut Toll) -> Result<(), Failure> {
        if self.process.is_running()? {
            return self.process.kill().map(drop);
        }
        let status = self.process.wait(PATIENCE)?;
        let (Some(point), Some(9)) = (self.point, status.signal()) else {
            return Err(format!("{} ended with {status}", self.role).into());
        };
        *toll.dead_at.entry((self.role, point)).or_default() += 1;
        Ok(())
    }
}
