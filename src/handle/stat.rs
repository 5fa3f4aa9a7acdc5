//! Reading about a descriptor without touching the file that it leads to.

use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, StatxFlags};
use rustix::io::{Errno, retry_on_intr};
use tombolo_abi::{LOCK_SLOTS, MAGIC, SLOT_COUNT_MAX};

/// Bytes of `fdinfo` that are read.
const ABOUT_LEN_MAX: u64 = 64 << 10;

/// What the kernel itself knows of a file: a file system in user space is not asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    /// `Unknown` for eventfds and their like.
    pub(super) file_type: FileType,
    pub(super) link_count: u32,
    /// Device, by its two numbers, and inode.
    id: (u32, u32, u64),
}

impl Stat {
    pub(super) fn of(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let mask = StatxFlags::TYPE | StatxFlags::NLINK | StatxFlags::INO;
        let found = retry_on_intr(|| rustix::fs::statx(fd, c"", flags, mask))?;
        Ok(Self {
            file_type: FileType::from_raw_mode(found.stx_mode.into()),
            link_count: found.stx_nlink,
            id: (found.stx_dev_major, found.stx_dev_minor, found.stx_ino),
        })
    }

    /// Whether both are the same file. Eventfds and their like share one inode, so they never are.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        self.id == other.id && self.file_type != FileType::Unknown
    }
}

/// The kernel's name for what the descriptor leads to; `None` without `/proc`.
pub(super) fn link(fd: BorrowedFd<'_>) -> Option<PathBuf> {
    fs::read_link(format!("/proc/thread-self/fd/{}", fd.as_raw_fd())).ok()
}

/// Whether the file begins as a region does. `false` if it cannot be read.
pub(super) fn begins_as_region(fd: BorrowedFd<'_>) -> bool {
    let mut first = [0; MAGIC.len()];
    crate::os::file::read_at(fd, &mut first, 0) == Ok(MAGIC.len()) && first == MAGIC
}

/// Whether the description behind `fd` owns an endpoint of its region: it holds the lock byte of a slot. If
/// `fdinfo` is longer than is read, the answer is yes, as an owner's handle may do less.
pub(super) fn owns_endpoint(fd: BorrowedFd<'_>) -> bool {
    let mut about = String::new();
    let path = format!("/proc/thread-self/fdinfo/{}", fd.as_raw_fd());
    let read =
        fs::File::open(path).and_then(|file| file.take(ABOUT_LEN_MAX).read_to_string(&mut about));
    read.is_ok_and(|len| len as u64 == ABOUT_LEN_MAX) || about.lines().any(is_slot_lock)
}

/// Whether a line of `fdinfo` shows the lock of a slot, as in
/// `lock:  1: OFDLCK ADVISORY  WRITE -1 00:1b:2 4611686018427387973 4611686018427387973`.
fn is_slot_lock(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    if words.next() != Some("lock:") || words.nth(1) != Some("OFDLCK") {
        return false;
    }
    let slots = LOCK_SLOTS..LOCK_SLOTS + u64::from(SLOT_COUNT_MAX);
    words.nth(4).and_then(|start| start.parse().ok()).is_some_and(|start| slots.contains(&start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lock_of_the_description_on_a_slot_makes_an_endpoint() {
        let line = |kind, start: u64| {
            format!("lock:\t1: {kind}  ADVISORY  WRITE -1 00:1b:323324 {start} {start}")
        };
        assert!(is_slot_lock(&line("OFDLCK", LOCK_SLOTS)));
        assert!(is_slot_lock("lock:\t2: OFDLCK ADVISORY WRITE -1 00:1b:2 4611686018427387973 EOF"));
        assert!(!is_slot_lock(&line("POSIX", LOCK_SLOTS)));
        assert!(!is_slot_lock(&line("OFDLCK", LOCK_SLOTS - 1)));
        assert!(!is_slot_lock("pos:\t0"));
        assert!(!is_slot_lock("lock:\t1: OFDLCK"));
    }
}
