//! The producers at work, and what is left of those that were.

use std::mem;
use std::path::PathBuf;

use tempfile::TempDir;
use tombolo::options::MpscOrder;
use tombolo::{EventsRegion, OpenOptions};

use super::notes::{Life, Notes, Phase};
use super::waits::Waits;
use crate::clock::now_ns;
use crate::lock_look::LockLook;
use crate::sending::PATIENCE;
use crate::stream::settled_rings_of_many;
use crate::{Failure, Process, Report, Rng, Setting, scratch};

/// Producers at any time.
const SEATS: u64 = 4;
/// Lanes, where each producer has one: more than producers, for those of the dead are to be drained.
const LANES: u16 = 16;
/// Looks at the lock until the search for its holder is given up: about a tenth of a second.
const LOOKS: usize = 100_000;

/// Who is killed next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// Any producer, whatever it does.
    Anybody,
    /// Who holds the lock right now, or is sending on a lane, and perhaps no longer when the signal
    /// arrives.
    Holder,
}

/// All processes of the run.
#[derive(Debug)]
pub(super) struct Crew {
    setting: Setting,
    directory: TempDir,
    notes: Notes,
    waits: Waits,
    /// `None` where each producer has a lane.
    lock: Option<LockLook>,
    /// The producers, each with its life.
    seats: Vec<(u64, Process)>,
    receiver: Process,
    /// The life started last.
    last_life: u64,
    killed: u64,
    /// Lives killed inside a send.
    sending: u64,
}

impl Crew {
    /// Makes a region, and starts the receiver and the first producers. There will be at most
    /// `kills` kills.
    ///
    /// # Errors
    /// The system's refusals.
    pub(super) fn start(setting: &Setting, order: MpscOrder, kills: u64) -> Result<Self, Failure> {
        let directory = scratch()?;
        let at = |name| directory.path().join(name).to_string_lossy().into_owned();
        let lives = kills + SEATS;
        let is_of_lanes = order == MpscOrder::PerProducer;
        let options = OpenOptions::new().mpsc_order(order);
        let options = if is_of_lanes { options.producers(LANES) } else { options };
        drop(EventsRegion::open_path_with(at("region"), options)?);
        let notes = Notes::create(at("notes").as_ref(), lives)?;
        let waits = Waits::create(at("waits").as_ref())?;
        let lock = match is_of_lanes {
            true => None,
            false => Some(LockLook::new(at("region").as_ref())?),
        };
        let (seed, lives) = (setting.seed.to_string(), lives.to_string());
        let arguments = [&*at("region"), &*seed, &*at("notes"), &*lives];
        let receiver = Process::start(setting, "producer-kills.receive", &arguments)?;
        let (setting, seats, last_life) = (setting.clone(), Vec::new(), 0);
        let (killed, sending) = (0, 0);
        let mut crew = Self {
            setting,
            directory,
            notes,
            waits,
            lock,
            seats,
            receiver,
            last_life,
            killed,
            sending,
        };
        (0..SEATS).try_for_each(|_| crew.start_one())?;
        Ok(crew)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start_one(&mut self) -> Result<(), Failure> {
        self.last_life += 1;
        let paths = ["region", "notes", "waits"].map(|name| self.path(name));
        let [region, notes, waits] = paths.each_ref().map(|path| path.to_string_lossy());
        let (seed, life) = (self.setting.seed.to_string(), self.last_life.to_string());
        let arguments = [&*region, &*seed, &*notes, &*waits, &*life];
        let process = Process::start(&self.setting, "producer-kills.send", &arguments)?;
        self.seats.push((self.last_life, process));
        Ok(())
    }

    /// Kills one of the producers and starts another one.
    ///
    /// # Errors
    /// Where it had ended by itself.
    pub(super) fn replace_one(&mut self, aim: Aim, rng: &mut Rng) -> Result<(), Failure> {
        let anybody = rng.below(self.seats.len() as u64) as usize;
        let index = match aim {
            Aim::Anybody => anybody,
            Aim::Holder => self.find_holder()?.unwrap_or(anybody),
        };
        let (life, process) = self.seats.swap_remove(index);
        if !process.kill()? {
            return Err(format!("life {life} ended before it was killed").into());
        }
        self.killed += 1;
        let Life { since_ns, .. } = self.notes.life(life);
        if since_ns != 0 {
            self.sending += 1;
            self.waits.add(now_ns() - since_ns); // so long at least had it waited
        }
        self.start_one()
    }

    /// Whether somebody has taken the lock over from a dead holder, or has died inside a send on a lane.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn has_met_death_in_send(&self) -> Result<bool, Failure> {
        match &self.lock {
            Some(lock) => Ok(lock.breaks()? > 0),
            None => Ok(self.sending > 0),
        }
    }

    /// The seat of whoever holds the lock, or is sending on a lane; `None` where nobody was met who
    /// did.
    fn find_holder(&self) -> Result<Option<usize>, Failure> {
        for _ in 0..LOOKS {
            let Some(lock) = &self.lock else {
                let is_sending = |life: u64| self.notes.life(life).since_ns != 0;
                if let Some(found) = self.seats.iter().position(|(life, _)| is_sending(*life)) {
                    return Ok(Some(found));
                }
                continue;
            };
            if let Some(pid) = lock.pid(lock.word()?)? {
                let found = self.seats.iter().position(|(_, process)| process.id() == pid);
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    /// Ends the producers that are left, and compares what each life noted with what was received.
    ///
    /// # Errors
    /// What is missing, or too much, or damaged.
    pub(super) fn finish(mut self) -> Result<(Report, Waits), Failure> {
        self.notes.reach(Phase::Ending);
        let survivors = mem::take(&mut self.seats);
        let surviving: Vec<_> = survivors.iter().map(|(life, _)| *life).collect();
        for (_, process) in survivors {
            process.finish(PATIENCE)?;
        }
        self.notes.reach(Phase::Ended);
        self.receiver.finish(PATIENCE)?;
        let totals = settled_rings_of_many(&self.directory.path().join("region"))?;
        let mut tally = Tally::default();
        for life in 1..=self.last_life {
            let (notes, survived) = (self.notes.life(life), surviving.contains(&life));
            let judged = if survived { tally.add_survivor(notes) } else { tally.add_killed(notes) };
            judged.map_err(|error| format!("life {life}: {error}: {notes:?}"))?;
        }
        let mut report = Report::new();
        report.count("producers killed", self.killed);
        report.count("of these, inside a send or just around it", self.sending);
        report.count("of these, with messages received whose send never returned", tally.more);
        report.note("killed before the first send", tally.idle);
        if self.lock.is_some() {
            report.count("locks taken over", totals.lock_breaks);
        } else {
            report.count("lanes claimed again", self.last_life.saturating_sub(LANES.into()));
        }
        report.count("messages", tally.messages);
        report.count("times that the ring was full", totals.full_events);
        report.count("laps of the ring, or of all lanes", totals.laps);
        Ok((report, self.waits))
    }
}

/// What became of the lives.
#[derive(Debug, Default)]
struct Tally {
    messages: u64,
    /// Killed lives of which more was received than their sends said.
    more: u64,
    /// Killed lives that never began to send.
    idle: u64,
}

impl Tally {
    /// All came whose send returned, and perhaps those whose send was under way.
    fn add_killed(&mut self, life: Life) -> Result<(), &'static str> {
        if !(life.returned..=life.began).contains(&life.received) {
            return Err("killed, and what came is not what it sent");
        }
        self.messages += life.received;
        self.more += u64::from(life.received > life.returned);
        self.idle += u64::from(life.began == 0);
        Ok(())
    }

    /// All came.
    fn add_survivor(&mut self, life: Life) -> Result<(), &'static str> {
        if (life.began, life.returned) != (life.received, life.received) || life.received == 0 {
            return Err("survived, and what came is not what it sent");
        }
        self.messages += life.received;
        Ok(())
    }
}
