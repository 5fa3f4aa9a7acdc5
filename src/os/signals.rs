//! Keeping signal handlers out of a few instructions.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

/// What a thread's own instructions cause. SIGSYS, too: by it a filter of system calls hands one to a
/// handler, which makes it in another way.
const CAUSED: [i32; 6] =
    [libc::SIGBUS, libc::SIGSEGV, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS];

/// Blocks all signals for this thread while it lives, but for those that its own instructions cause:
/// the kernel ends a process that blocks one of them and then causes it.
///
/// It encloses the two steps of an attach that belong together: a handler that ran between them could
/// keep them apart for as long as it likes.
pub(crate) struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    pub(crate) fn new() -> Self {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `all` is a valid place for a signal set.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        for caused in CAUSED {
            // SAFETY: `all` was filled above, and these are signals.
            unsafe { libc::sigdelset(all.as_mut_ptr(), caused) };
        }
        // SAFETY: `all` was filled above; `before` is a valid place for a signal set. The call
        // fails only for an unknown first argument.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
        // SAFETY: `pthread_sigmask` wrote it.
        Self { before: unsafe { before.assume_init() } }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: `before` is the set that `pthread_sigmask` gave; no old set is asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

/// Signals that the thread behind this directory in `/proc` blocks, from bit 0 on.
#[cfg(test)]
fn blocked_by(thread: &std::path::Path) -> Option<u64> {
    let status = std::fs::read_to_string(thread.join("status")).ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// Those that this thread blocks.
#[cfg(test)]
pub(crate) fn blocked() -> Option<u64> {
    blocked_by("/proc/thread-self".as_ref())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::{blocked, blocked_by};
    use crate::crash::visits;
    use crate::{EventsRegion, OpenOptions};

    fn is_blocked(mask: u64, signal: i32) -> bool {
        mask >> (signal - 1) & 1 == 1
    }

    /// Signals that a program handles, and those that an instruction may cause.
    const SENT: [i32; 6] =
        [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGALRM, libc::SIGCHLD, libc::SIGPROF];
    const CAUSED: [i32; 6] =
        [libc::SIGBUS, libc::SIGSEGV, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS];

    #[test]
    fn no_handler_runs_between_locking_an_endpoint_and_renewing_its_incarnation() {
        let Some(before) = blocked() else { return eprintln!("skipped: no /proc") };
        let mut region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let (mut tx, _) = region.split_spsc().unwrap();
        let meanwhile = Rc::new(Cell::new(0));
        let found = meanwhile.clone();
        let visit = visits::at("attach.locked", move || found.set(blocked().unwrap()));
        tx.attach().unwrap();
        drop(visit);
        let meanwhile = meanwhile.get();
        assert!(SENT.iter().all(|signal| is_blocked(meanwhile, *signal)), "{meanwhile:#x}");
        assert!(!CAUSED.iter().any(|signal| is_blocked(meanwhile, *signal)), "{meanwhile:#x}");
        assert_eq!(blocked(), Some(before));
    }

    #[test]
    fn the_programs_handlers_do_not_run_on_the_watchers_thread() {
        let mut region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let (mut tx, _) = region.split_spsc().unwrap();
        tx.attach().unwrap();
        let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
            return eprintln!("skipped: no /proc");
        };
        let threads = threads.map(|thread| thread.unwrap().path());
        let is_watcher = |thread: &std::path::PathBuf| {
            std::fs::read_to_string(thread.join("comm")).is_ok_and(|name| name == "tombolo-watch\n")
        };
        let masks: Vec<_> = threads.filter(is_watcher).map(|thread| blocked_by(&thread)).collect();
        assert!(!masks.is_empty());
        for mask in masks {
            assert!(SENT.iter().all(|signal| is_blocked(mask.unwrap(), *signal)), "{mask:x?}");
        }
    }
}
