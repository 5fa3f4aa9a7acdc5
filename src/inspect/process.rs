//! The process behind a process id that another process stored.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;

/// What is known of the process that a slot names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Process {
    /// It exists, with the start time that was stored.
    Running {
        /// Its command, up to 15 bytes of its choice.
        command: String,
        /// The letter of its state in `/proc`: `R`, `S`, `T` (stopped), `Z` (dead, not reaped), ...
        state: char,
    },
    /// No process has that id.
    Gone,
    /// Another process has that id by now.
    Reused,
    /// The id belongs to another pid namespace and means nothing here.
    OtherNamespace,
    /// The slot names none, or `/proc` cannot be read.
    Unknown,
}

/// Bytes of `/proc/PID/stat` that hold all that is read of it.
const STAT_LEN_MAX: u64 = 4096;
/// Fields between the command and the start time, field 22: the state, field 3, is the first.
const START_TICKS_INDEX: usize = 22 - 3;

impl Process {
    /// Whether it is stopped: by a signal (`T`) or a debugger (`t`).
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        matches!(self, Self::Running { state: 'T' | 't', .. })
    }

    /// Finds the process that stored these three.
    pub(super) fn find(pid: u32, start_ticks: u64, pid_namespace: u64) -> Self {
        let Ok(ours) = fs::metadata("/proc/self/ns/pid") else { return Self::Unknown };
        if pid == 0 {
            return Self::Unknown;
        }
        if ours.ino() != pid_namespace {
            return Self::OtherNamespace;
        }
        let mut stat = Vec::new();
        let read = File::open(format!("/proc/{pid}/stat"))
            .and_then(|file| file.take(STAT_LEN_MAX).read_to_end(&mut stat));
        if read.is_err() {
            return Self::Gone;
        }
        match parse_stat(&String::from_utf8_lossy(&stat)) {
            Some((_, _, started)) if started != start_ticks => Self::Reused,
            Some((command, state, _)) => Self::Running { command, state },
            None => Self::Unknown,
        }
    }
}

/// Command, state and start time. The command may hold anything, parentheses too.
fn parse_stat(stat: &str) -> Option<(String, char, u64)> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, command) = before.split_once('(')?;
    let mut fields = after.split_ascii_whitespace();
    let state = fields.clone().next()?.chars().next()?;
    let start_ticks = fields.nth(START_TICKS_INDEX)?.parse().ok()?;
    Some((command.to_owned(), state, start_ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_hold_parentheses_and_spaces() {
        let fields = (4..=22).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let stat = format!("42 (a) b (c) S {fields} 0");
        assert_eq!(parse_stat(&stat), Some(("a) b (c".to_owned(), 'S', 22)));
        assert_eq!(parse_stat("42 (cut"), None);
    }
}
