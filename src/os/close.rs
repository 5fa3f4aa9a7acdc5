//! Closing many descriptors at once.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// Closes them, with one system call for each run of numbers in a row: the kernel gives the lowest
/// that is free, so those of one message mostly are one run.
pub(crate) fn all(fds: impl Iterator<Item = OwnedFd>) {
    let mut fds: Vec<_> = fds.collect();
    fds.sort_unstable_by_key(AsRawFd::as_raw_fd);
    let numbers: Vec<_> = fds.into_iter().map(IntoRawFd::into_raw_fd).collect();
    numbers.chunk_by(|one, next| one + 1 == *next).for_each(run);
}

/// Closes a run of numbers, all of which were owned and now have no owner.
fn run(numbers: &[RawFd]) {
    let &[first, .., last] = numbers else { return one_by_one(numbers) };
    // SAFETY: every descriptor from the first to the last is in `numbers`, which are ours to close.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if closed != 0 {
        one_by_one(numbers); // refused, by a filter or a kernel without the call: nothing was closed
    }
}

fn one_by_one(numbers: &[RawFd]) {
    for number in numbers {
        // SAFETY: an open descriptor without another owner, as the caller of `run` gave it away.
        drop(unsafe { OwnedFd::from_raw_fd(*number) });
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;
    use crate::os::staged::{self, Call};

    /// Descriptors in a row, with a gap in it, their numbers, and the one in the gap.
    fn with_gap(from: RawFd) -> (Vec<OwnedFd>, Vec<RawFd>, OwnedFd) {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let copy = |_| rustix::io::fcntl_dupfd_cloexec(&file, from).unwrap();
        let mut fds: Vec<_> = (0..9).map(copy).collect();
        let kept = fds.remove(4);
        let numbers = fds.iter().map(AsRawFd::as_raw_fd).collect();
        fds.rotate_left(3);
        (fds, numbers, kept)
    }

    fn is_open(number: &RawFd) -> bool {
        std::path::Path::new(&format!("/proc/self/fd/{number}")).exists()
    }

    /// Whether those are closed, and nothing else is. Nothing else gets numbers from there on.
    fn closes_all(from: RawFd) -> bool {
        let (fds, numbers, kept) = with_gap(from);
        assert!(numbers.iter().all(is_open));
        all(fds.into_iter());
        assert!(is_open(&kept.as_raw_fd()));
        !numbers.iter().any(is_open)
    }

    #[test]
    fn all_are_closed_and_nothing_else_is() {
        assert!(closes_all(700));
        all(std::iter::empty());
    }

    #[test]
    fn a_run_is_closed_one_by_one_if_the_kernel_has_no_call_for_it() {
        let close_range = Call::any(libc::SYS_close_range);
        let closed = staged::refusing(close_range, Errno::NOSYS, || closes_all(720));
        let Some(closed) = closed else { return eprintln!("skipped: no filters") };
        assert!(closed);
    }

    /// A hundred handles of a message would be a hundred calls.
    #[test]
    fn a_run_is_closed_by_one_call_in_whatever_order_it_comes() {
        let close = Call::any(libc::SYS_close);
        let closed = staged::refusing(close, Errno::PERM, || closes_all(740));
        let Some(closed) = closed else { return eprintln!("skipped: no filters") };
        assert!(closed);
    }
}
