//! Executing a fence in other processes, and being reached by theirs.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::thread::{MembarrierCommand, membarrier};

use super::fork;

/// The number of the process that is registered, as `fork` counts them.
static REGISTERED: AtomicU64 = AtomicU64::new(0);

/// Registers this process, so that [`everywhere`] reaches it. Takes 10 to 20 ms in a process with
/// more than one thread, so it is for a thread that no other waits for.
///
/// # Errors
/// If the kernel or a filter in front of it refuses.
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

/// Makes all registered processes execute a fence; `false` if the kernel did not.
///
/// # Cost
/// A system call, and an interrupt of each processor that runs such a process: 0.1 to 20 µs.
pub(crate) fn everywhere() -> bool {
    membarrier(MembarrierCommand::GlobalExpedited).is_ok()
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;
    use crate::os::staged::{self, Call};

    #[test]
    fn a_process_is_registered_by_itself_and_not_by_its_parent() {
        fork::Owner::current().unwrap();
        if register().is_err() {
            return eprintln!("skipped: no barriers");
        }
        assert!(is_registered());
        assert_ne!(staged::is_reached_by_barriers(), Some(false));
        assert!(staged::in_child(|| !is_registered()));
        assert!(staged::in_child(|| fork::Owner::current().is_ok() && !is_registered()));
        let is_first_of_all = || {
            REGISTERED.store(0, Ordering::Relaxed);
            !is_registered()
        };
        assert!(staged::in_child(is_first_of_all));
        assert!(is_registered());
    }

    #[test]
    fn a_barrier_that_is_refused_is_none() {
        let refused = staged::refusing(Call::any(libc::SYS_membarrier), Errno::PERM, everywhere);
        assert_ne!(refused, Some(true));
    }
}
