//! Counting system calls by strace.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{Failure, Process, Setting};

/// System calls by name.
pub(super) type Calls = BTreeMap<String, u64>;

/// Whether there is one to use.
pub(super) fn is_there() -> bool {
    let run = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

/// Starts `role`, counted from its first call to its last in the file `found`.
pub(super) fn start(
    setting: &Setting,
    found: &Path,
    role: &str,
    arguments: &[&str],
) -> Result<Process, Failure> {
    let found = found.to_string_lossy();
    let strace = ["strace", "-f", "-c", "-o", &found];
    Process::start_under(setting, &strace, role, arguments)
}

/// Counts what all threads of the process `pid` call in `time`; `None` where the system lets nobody
/// trace.
pub(super) fn watch(pid: u32, time: Duration, found: &Path) -> Result<Option<Calls>, Failure> {
    let mut strace = Attached(
        Command::new("strace")
            .args(["-f", "-c", "-p", &pid.to_string(), "-o"])
            .arg(found)
            .stderr(Stdio::null())
            .spawn()?,
    );
    thread::sleep(time);
    if strace.0.try_wait()?.is_some() {
        return Ok(None);
    }
    strace.interrupt()?;
    strace.0.wait()?;
    read(found).map(Some)
}

/// What strace left in the file `found`.
pub(super) fn read(found: &Path) -> Result<Calls, Failure> {
    let text = fs::read_to_string(found)?;
    let calls = text.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (count, name) = (words.get(3)?.parse().ok()?, *words.last()?);
        (name != "total").then(|| (name.to_owned(), count))
    });
    Ok(calls.collect())
}

/// A tracer at work, stopped when dropped.
#[derive(Debug)]
struct Attached(Child);

impl Attached {
    /// Lets it detach and write what it counted.
    fn interrupt(&self) -> Result<(), Failure> {
        let pid = Pid::from_raw(self.0.id() as i32).ok_or("no process")?;
        Ok(kill_process(pid, Signal::INT)?)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = self.interrupt(); // it may have ended
        let _ = self.0.wait();
    }
}

/// The most frequent of `calls`.
pub(super) fn describe(calls: &Calls) -> String {
    let mut calls: Vec<_> = calls.iter().collect();
    calls.sort_by(|one, other| other.1.cmp(one.1));
    let (first, rest) = calls.split_at(calls.len().min(4));
    let mut parts: Vec<_> = first.iter().map(|(name, count)| format!("{count} {name}")).collect();
    parts.push(format!("{} others", rest.iter().map(|(_, count)| **count).sum::<u64>()));
    parts.join(", ")
}
