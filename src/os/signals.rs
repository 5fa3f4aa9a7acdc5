//! Keeping signal handlers out of a few instructions.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

/// Blocks all signals for this thread while it lives, but for those that its own instructions cause:
/// the kernel ends a process that blocks one of them and then causes it.
///
/// It stands around the two steps of a claim that belong together: a handler that ran between them
/// could keep them apart for as long as it likes.
pub(crate) struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    pub(crate) fn new() -> Self {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `all` is a valid place for a signal set.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        for caused in [libc::SIGBUS, libc::SIGSEGV, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP] {
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
