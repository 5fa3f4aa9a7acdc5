//! A waiter, and its victims one after the other.

use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tombolo_abi::{slot_flags, wake};

use super::notes::Notes;
use super::{victim, waiter};
use crate::clock::{now_ns, until};
use crate::counters::Counters;
use crate::ends::{End, Side, create_small};
use crate::{Failure, Process, Rng, Setting, Size, scratch};

/// Bytes of memory that the kernel has to take down with either process, at the most.
const MEMORY_MAX: u64 = 64 << 20;

/// What happens to a victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It is killed, and reaped at once.
    Reaped,
    /// It is killed, and reaped when the wait has ended.
    Zombie,
    /// It is stopped for a while, and then killed.
    Stopped,
    /// It is killed while it may still be registering for barriers.
    Young,
}

impl Way {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Reaped => "killed",
            Self::Zombie => "killed and left a zombie",
            Self::Stopped => "stopped and then killed",
            Self::Young => "killed when young",
        }
    }
}

/// A waiter at work, and what it tells.
#[derive(Debug)]
pub(super) struct Bench {
    setting: Setting,
    end: End,
    directory: TempDir,
    notes: Notes,
    counters: Counters,
    waiter: Process,
    victims: u64,
}

impl Bench {
    /// Starts a waiter at `end`.
    ///
    /// # Errors
    /// The system's refusals.
    pub(super) fn start(setting: &Setting, end: End) -> Result<Self, Failure> {
        let directory = scratch()?;
        let at = |name| directory.path().join(name);
        create_small(&at("region"), end.kind)?;
        let notes = Notes::at(&at("notes"))?;
        let counters = Counters::new(&at("region"), end.kind)?;
        let [region, words] = [at("region"), at("notes")];
        let arguments = [&*region.to_string_lossy(), end.name(), &*words.to_string_lossy()];
        let waiter = Process::start(setting, waiter::NAME, &arguments)?;
        let setting = setting.clone();
        Ok(Self { setting, end, directory, notes, counters, waiter, victims: 0 })
    }

    /// Starts a victim, kills it while the waiter sleeps, and gives how long the wait went on.
    ///
    /// # Errors
    /// Where the wait did not end, or too early, or not by the news of the death.
    pub(super) fn kill_one(&mut self, way: Way, rng: &mut Rng) -> Result<Duration, Failure> {
        until("the waiter sleeps", || self.has_armed())?;
        let victim = self.start_victim()?;
        if way != Way::Young {
            until("the victim is registered, or refused", || self.has_registered())?;
        }
        thread::sleep(Duration::from_micros(1000 + rng.below(5000))); // until it really sleeps
        for process in [&self.waiter, &victim] {
            check_memory(process.id())?;
        }
        let (ended, by_death) = (self.notes.ended(), self.woken_by_death()?);
        if way == Way::Stopped {
            self.stop(&victim, ended)?;
        }
        let killed_ns = now_ns();
        let latency = || self.latency(ended, killed_ns);
        signal(&victim, Signal::KILL)?;
        let latency = if way == Way::Zombie {
            let latency = latency()?;
            expect_zombie(&victim)?;
            victim.kill()?;
            latency
        } else {
            victim.kill()?;
            latency()?
        };
        match self.woken_by_death()? - by_death {
            1 => Ok(latency),
            count => Err(format!("{count} sleeps ended by a death, {latency:?} after it").into()),
        }
    }

    /// Starts a victim, and waits until it has passed its message and the waiter has armed again.
    fn start_victim(&mut self) -> Result<Process, Failure> {
        self.victims += 1;
        let passed = self.notes.passed();
        let [region, notes] = ["region", "notes"].map(|name| self.directory.path().join(name));
        let (region, notes) = (region.to_string_lossy(), notes.to_string_lossy());
        let arguments = [&*region, self.end.other().name(), &*notes, &*self.victims.to_string()];
        let victim = Process::start(&self.setting, victim::NAME, &arguments)?;
        until("the victim has passed a message", || Ok(self.notes.settled() == self.victims))?;
        until("the waiter has passed it", || Ok(self.notes.passed() > passed))?;
        until("the waiter sleeps again", || self.has_armed())?;
        Ok(victim)
    }

    /// Stops `victim` for a while, in which the wait must not end.
    fn stop(&self, victim: &Process, ended: u64) -> Result<(), Failure> {
        signal(victim, Signal::STOP)?;
        thread::sleep(match self.setting.size {
            Size::Full => Duration::from_millis(1500),
            Size::Tenth | Size::Hundredth => Duration::from_millis(300),
        });
        if self.notes.ended() != ended {
            return Err("the wait ended though the victim was stopped only".into());
        }
        Ok(())
    }

    /// Waits until the waiter has noted one end more than `ended`, and gives how long that is after
    /// the kill.
    fn latency(&self, ended: u64, killed_ns: u64) -> Result<Duration, Failure> {
        until("the wait ends", || Ok(self.notes.ended() > ended))?;
        let later = self.notes.ended_ns().checked_sub(killed_ns);
        later.map(Duration::from_nanos).ok_or_else(|| "the wait ended before the kill".into())
    }

    /// Whether the waiter has armed since it was notified last.
    fn has_armed(&self) -> Result<bool, Failure> {
        let control = self.counters.control()?;
        let word = match self.end.side {
            Side::Receiving => control.rx_wake,
            Side::Sending => control.tx_wake,
        };
        Ok(word & wake::ARMED_FUTEX != 0)
    }

    /// Whether the victim is through with registering for barriers.
    fn has_registered(&self) -> Result<bool, Failure> {
        let flags = self.counters.slot(self.end.other().side)?.flags;
        Ok(flags & (slot_flags::MEMBARRIER_OK | slot_flags::FENCES_ALWAYS) != 0)
    }

    fn woken_by_death(&self) -> Result<u64, Failure> {
        Ok(self.counters.slot(self.end.side)?.woken_by_death)
    }
}

fn signal(process: &Process, signal: Signal) -> Result<(), Failure> {
    let pid = Pid::from_raw(process.id() as i32).ok_or("no process")?;
    Ok(kill_process(pid, signal)?)
}

/// Large processes take long to die, which is not what is measured.
fn check_memory(pid: u32) -> Result<(), Failure> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    match kib.ok_or("a status without VmHWM")? * 1024 {
        len if len < MEMORY_MAX => Ok(()),
        len => Err(format!("a process takes {len} bytes").into()),
    }
}

fn expect_zombie(process: &Process) -> Result<(), Failure> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id()))?;
    match stat.rsplit_once(") ") {
        Some((_, rest)) if rest.starts_with('Z') => Ok(()),
        _ => Err(format!("no zombie: {stat}").into()),
    }
}
