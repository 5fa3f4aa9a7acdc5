//! Processors, and a directory.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::system::Failure;

/// The processors that the measurement uses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpus {
    /// For whoever sends first.
    pub(crate) lead: usize,
    /// For whoever answers or receives: another one, if there is another.
    pub(crate) follow: usize,
}

impl Cpus {
    /// The first two that this process may use.
    pub(crate) fn choose() -> Result<Self, Failure> {
        let allowed = sched_getaffinity(None)?;
        let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        let lead = cpus.next().ok_or("no processor to run on")?;
        Ok(Self { lead, follow: cpus.next().unwrap_or(lead) })
    }

    pub(crate) fn is_one(self) -> bool {
        self.lead == self.follow
    }

    /// Whether both are one core to the kernel's knowledge.
    pub(crate) fn are_siblings(self) -> bool {
        let of = |cpu| {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            fs::read_to_string(path).ok()
        };
        !self.is_one() && of(self.lead).is_some() && of(self.lead) == of(self.follow)
    }
}

/// Pins the calling thread.
pub(crate) fn pin(cpu: usize) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

const PREFIX: &str = "tombolo-bench-";

/// A directory on tmpfs that goes away with the value.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// Makes it, and removes those of earlier runs that were killed.
    pub(crate) fn create() -> Result<Self, Failure> {
        let base = Path::new("/dev/shm");
        for entry in fs::read_dir(base)?.flatten() {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                fs::remove_dir_all(entry.path()).ok();
            }
        }
        let path = base.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// A directory in it.
    pub(crate) fn within(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.0.join(name);
        fs::create_dir(&path)?;
        Ok(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}
