//! Executing a fence in other processes, and being reached by theirs.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::thread::{MembarrierCommand, membarrier};

use super::fork;

/// The number of the process that is registered, as `fork` counts them.
static REGISTERED: AtomicU64 = AtomicU64::new(0);

/// Registers this process, so that [`everywhere`] reaches it. Takes 10 to 20 ms in a process with
/// more than one thread, so it is for a thread that nobody waits for.
///
/// # Errors
/// Where the kernel or a filter in front of it refuses.
pub(crate) fn register() -> io::Result<()> {
    membarrier(MembarrierCommand::RegisterGlobalExpedited)?;
    REGISTERED.store(fork::present(), Ordering::Release);
    Ok(())
}

/// Whether this process is registered.
pub(crate) fn is_registered() -> bool {
    // Behind the registration: what is done from here on is reached.
    let registered = REGISTERED.load(Ordering::Acquire);
    registered != 0 && registered == fork::present()
}

/// Makes all registered processes execute a fence; `false` where the kernel did not.
///
/// # Cost
/// A system call, and an interrupt of each processor that runs such a process: 0.1 to 20 µs.
pub(crate) fn everywhere() -> bool {
    membarrier(MembarrierCommand::GlobalExpedited).is_ok()
}
