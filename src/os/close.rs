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

/// Closes a run of numbers, all of which were owned and are owned by nobody now.
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
        // SAFETY: an open descriptor that nobody else owns, as the caller of `run` gave it away.
        drop(unsafe { OwnedFd::from_raw_fd(*number) });
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read, pipe};

    use rustix::io::Errno;

    use super::*;
    use crate::os::staged::{self, Call};

    /// What tells that a descriptor is closed, and descriptors with a gap between two runs.
    fn with_gap() -> (Vec<PipeReader>, Vec<OwnedFd>, PipeReader) {
        let (mut witnesses, mut fds) = (vec![], vec![]);
        let mut kept = None;
        for index in 0..7 {
            let (witness, fd) = pipe().unwrap();
            witnesses.push(witness);
            fds.push(fd.into());
            if index == 3 {
                let (reader, writer) = pipe().unwrap();
                fds.push(writer.into());
                witnesses.push(reader.try_clone().unwrap());
                kept = Some(reader);
            }
        }
        fds.reverse();
        (witnesses, fds, kept.unwrap())
    }

    #[test]
    fn all_are_closed_and_nothing_else_is() {
        let (witnesses, fds, kept) = with_gap();
        all(fds.into_iter());
        for mut witness in witnesses {
            assert_eq!(witness.read(&mut [0]).unwrap(), 0);
        }
        kept.try_clone().unwrap(); // is open
        all(std::iter::empty());
    }

    fn is_closed(witness: &mut PipeReader) -> bool {
        rustix::io::ioctl_fionbio(&*witness, true).unwrap();
        witness.read(&mut [0]).is_ok_and(|len| len == 0)
    }

    #[test]
    fn a_run_is_closed_one_by_one_if_the_kernel_has_no_call_for_it() {
        let closed = staged::refusing(Call::any(libc::SYS_close_range), Errno::NOSYS, || {
            let (mut witnesses, fds, _kept) = with_gap();
            all(fds.into_iter());
            witnesses.iter_mut().all(is_closed)
        });
        let Some(closed) = closed else { return eprintln!("skipped: no filters") };
        assert!(closed);
    }

    /// A hundred handles of a message would be a hundred calls.
    #[test]
    fn a_run_is_closed_by_one_call_in_whatever_order_it_comes() {
        let closed = staged::refusing(Call::any(libc::SYS_close), Errno::PERM, || {
            let file = std::fs::File::open("/proc/self/exe").unwrap();
            let from = 700; // nothing else gets numbers as high as these
            let copy = |_| rustix::io::fcntl_dupfd_cloexec(&file, from).unwrap();
            let fds: Vec<_> = (0..20).map(copy).collect();
            let numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
            all(fds.into_iter().rev());
            numbers
                .iter()
                .all(|number| !std::path::Path::new(&format!("/proc/self/fd/{number}")).exists())
        });
        let Some(closed) = closed else { return eprintln!("skipped: no filters") };
        assert!(closed);
    }
}
