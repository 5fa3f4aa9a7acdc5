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

    use super::*;

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

    #[test]
    fn a_run_is_closed_also_one_by_one() {
        let (mut witness, fd) = pipe().unwrap();
        one_by_one(&[OwnedFd::from(fd).into_raw_fd()]);
        assert_eq!(witness.read(&mut [0]).unwrap(), 0);
    }
}
