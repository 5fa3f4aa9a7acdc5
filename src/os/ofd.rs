//! Locks on byte ranges that belong to an open file description (`F_OFD_*`, `man 2 fcntl`).
//!
//! `rustix::fs::fcntl_lock` offers the older locks of the process, which any `close` of the file
//! drops. Calls here never block.
#![allow(unsafe_code)]

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::{Errno, retry_on_intr};

/// How a range is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Mode {
    /// Others may lock it shared.
    Shared = libc::F_RDLCK,
    /// Excludes all other locks.
    Exclusive = libc::F_WRLCK,
}

/// Locks `range` on the description behind `file`; `false` if another description is in the way.
pub(crate) fn try_lock(file: BorrowedFd<'_>, range: Range<u64>, mode: Mode) -> io::Result<bool> {
    match fcntl(file, libc::F_OFD_SETLK, mode as libc::c_int, &range) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Drops the locks of the description behind `file` on `range`.
pub(crate) fn unlock(file: BorrowedFd<'_>, range: Range<u64>) -> io::Result<()> {
    fcntl(file, libc::F_OFD_SETLK, libc::F_UNLCK, &range)?;
    Ok(())
}

/// Whether a description other than the one behind `file` holds any lock in `range`.
pub(crate) fn is_locked(file: BorrowedFd<'_>, range: Range<u64>) -> io::Result<bool> {
    first_locked(file, range).map(|found| found.is_some())
}

/// The first locked byte in `range`, by a description other than the one behind `file`.
pub(crate) fn first_locked(file: BorrowedFd<'_>, range: Range<u64>) -> io::Result<Option<u64>> {
    let lock = fcntl(file, libc::F_OFD_GETLK, libc::F_WRLCK, &range)?;
    let locked = libc::c_int::from(lock.l_type) != libc::F_UNLCK;
    Ok(locked.then(|| (lock.l_start as u64).max(range.start)))
}

fn fcntl(
    file: BorrowedFd<'_>,
    command: libc::c_int,
    lock_type: libc::c_int,
    range: &Range<u64>,
) -> Result<libc::flock, Errno> {
    let mut lock = libc::flock {
        l_type: lock_type as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: range.start as libc::off_t,
        l_len: (range.end - range.start) as libc::off_t,
        l_pid: 0, // the OFD commands refuse anything else
    };
    retry_on_intr(|| {
        // SAFETY: the OFD commands read and write one `flock`, which `lock` is and which lives
        // across the call; the descriptor is borrowed for the call.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &mut lock) };
        let error = || Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO);
        if result == 0 { Ok(()) } else { Err(error()) }
    })?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_lock_belongs_to_its_description_and_is_seen_by_all_others() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (a, b) = (file.reopen().unwrap(), file.reopen().unwrap());
        let range = tombolo_abi::LOCK_SLOTS..tombolo_abi::LOCK_SLOTS + 1;
        assert!(try_lock(a.as_fd(), range.clone(), Mode::Exclusive).unwrap());
        assert!(!try_lock(b.as_fd(), range.clone(), Mode::Exclusive).unwrap());
        assert!(!is_locked(a.as_fd(), range.clone()).unwrap());
        let wide = tombolo_abi::LOCK_BASE..tombolo_abi::LOCK_SLOTS + 100;
        assert_eq!(first_locked(b.as_fd(), wide).unwrap(), Some(range.start));
        let far = range.end..range.end + 9;
        assert!(try_lock(a.as_fd(), range.start..far.end, Mode::Shared).unwrap());
        assert_eq!(first_locked(b.as_fd(), far.clone()).unwrap(), Some(far.start));
        unlock(a.as_fd(), far).unwrap();
        unlock(a.as_fd(), range.clone()).unwrap();
        assert!(!is_locked(b.as_fd(), range).unwrap());
    }
}
