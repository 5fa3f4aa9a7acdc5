//! What a process has: descriptors, threads, mappings.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::sending::PATIENCE;

/// How many it has of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Possessions {
    descriptors: usize,
    threads: usize,
    /// Of files: regions and locks.
    mappings: usize,
}

impl Possessions {
    /// Those of this process, now.
    ///
    /// # Errors
    /// The system's refusal.
    pub(crate) fn now() -> Result<Self, Failure> {
        let maps = fs::read_to_string("/proc/self/maps")?;
        let is_shared = |line: &&str| line.split(' ').nth(1).is_some_and(|it| it.ends_with('s'));
        Ok(Self {
            descriptors: fs::read_dir("/proc/self/fd")?.count(),
            threads: fs::read_dir("/proc/self/task")?.count(),
            mappings: maps.lines().filter(is_shared).count(),
        })
    }

    /// Waits until this process has no more than these: a thread that has ended is there for a moment.
    ///
    /// # Errors
    /// What it has, if that stays more; the system's refusal.
    pub(crate) fn expect(self) -> Result<(), Failure> {
        let start = Instant::now();
        loop {
            let now = Self::now()?;
            if now == self {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("this process has {now:?}, and had {self:?}").into());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}
