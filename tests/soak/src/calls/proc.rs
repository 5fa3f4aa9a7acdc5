//! What `/proc` says of a process's use of the processor.

use std::fs;
use std::time::Duration;

use crate::Failure;

/// What a process has used so far, all threads together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    /// Ticks of 10 ms of processor time.
    pub(super) ticks: u64,
    /// Times that a thread gave the processor away.
    pub(super) switches: u64,
}

impl Used {
    /// What the process `pid` has used.
    ///
    /// # Errors
    /// Where it is gone.
    pub(super) fn by(pid: u32) -> Result<Self, Failure> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, fields) = stat.rsplit_once(')').ok_or("a stat without a name")?;
        let fields: Vec<_> = fields.split_whitespace().collect();
        let ticks = |number: usize| fields.get(number - 3).and_then(|field| field.parse().ok());
        let ticks = ticks(14).zip(ticks(15)).map(|(user, system): (u64, u64)| user + system);
        let mut switches = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let status = fs::read_to_string(task?.path().join("status"))?;
            let found =
                status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            switches += found.ok_or("a status without switches")?.trim().parse::<u64>()?;
        }
        Ok(Self { ticks: ticks.ok_or("a stat without times")?, switches })
    }
}

/// How long processors of this machine were ready to run and a hypervisor ran something else, in ticks of 10 ms; zero
/// if the kernel does not say.
pub(super) fn stolen() -> Duration {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let of_all = text.lines().next().and_then(|line| line.split_whitespace().nth(8));
    let ticks = of_all.and_then(|field| field.parse().ok());
    Duration::from_millis(10) * ticks.unwrap_or(0)
}

/// How long this thread has been ready to run without a processor to run on; zero where the kernel
/// does not say.
pub(super) fn waited_for_processor() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = text.split_whitespace().nth(1).and_then(|field| field.parse().ok());
    Duration::from_nanos(ns.unwrap_or(0))
}
