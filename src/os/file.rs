//! Files: which one it is, opening it afresh, and moving bytes with every interruption retried.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FallocateFlags, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::{Errno, retry_on_intr};

/// How a region's file is opened: never following a link, waiting for a peer, becoming a terminal's
/// owner, or leaking into a program started later.
pub(crate) const OPEN_FLAGS: OFlags = OFlags::RDWR
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Fewest bytes asked for in one step, short enough to end between two signals.
const STEP_LEN: u64 = 64 << 10;

/// Which file it is, whatever names it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
}

impl FileId {
    /// The file that `stat` speaks of.
    pub(crate) fn of(stat: &Stat) -> Self {
        Self { dev: stat.st_dev, ino: stat.st_ino }
    }

    /// Whether `file` is open on this file. `false` also if the descriptor was closed behind our
    /// back or its number is used by something else.
    pub(crate) fn is_file(self, file: BorrowedFd<'_>) -> bool {
        rustix::fs::fstat(file).is_ok_and(|stat| Self::of(&stat) == self)
    }
}

/// Opens the file behind `file` once more: a new description, which shares no lock with `file`.
/// Needs `/proc`; anything but the file `id` found there is an error.
pub(crate) fn reopen(file: BorrowedFd<'_>, id: FileId) -> io::Result<OwnedFd> {
    let path = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
    // The entry is a link, and following it is the point.
    let flags = OPEN_FLAGS.difference(OFlags::NOFOLLOW);
    let fresh = retry_on_intr(|| rustix::fs::openat(CWD, &path, flags, Mode::empty()))?;
    if id.is_file(fresh.as_fd()) { Ok(fresh) } else { Err(Errno::STALE.into()) }
}

/// Fills `bytes` from `offset`; gives how many there were before the file's end.
pub(crate) fn read_at(file: BorrowedFd<'_>, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &mut bytes[done..];
        match retry_on_intr(|| rustix::io::pread(file, &mut *rest, offset + done as u64))? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

/// Writes all of `bytes` at `offset`.
pub(crate) fn write_at(file: BorrowedFd<'_>, bytes: &[u8], offset: u64) -> Result<(), Errno> {
    let mut done = 0;
    while done < bytes.len() {
        match retry_on_intr(|| rustix::io::pwrite(file, &bytes[done..], offset + done as u64))? {
            0 => return Err(Errno::NOSPC),
            count => done += count,
        }
    }
    Ok(())
}

/// Gives the file space, filled with zeros, from its end `from` up to `to` bytes.
pub(crate) fn reserve(file: BorrowedFd<'_>, from: u64, to: u64) -> Result<(), Errno> {
    let allocate = |at, len| rustix::fs::fallocate(file, FallocateFlags::empty(), at, len);
    match in_steps(from, to, allocate) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let zeros = vec![0; STEP_LEN as usize];
            let write = |at, len: u64| write_at(file, &zeros[..len.min(STEP_LEN) as usize], at);
            (from..to).step_by(STEP_LEN as usize).try_for_each(|at| write(at, to - at))
        }
        result => result,
    }
}

/// Whether the file system has given `file`, of `len` bytes, a place for each of them.
pub(crate) fn is_without_holes(file: BorrowedFd<'_>, len: u64) -> bool {
    const BLOCK_LEN: u64 = 512; // of what `st_blocks` counts, on all file systems
    rustix::fs::fstat(file).is_ok_and(|stat| {
        let (found_len, blocks) = (stat.st_size as u64, stat.st_blocks as u64);
        found_len <= len && blocks.saturating_mul(BLOCK_LEN) >= found_len
    })
}

/// The parts of `bytes` that are no holes of `file`, 1024 of them at the most. Moves the position in the
/// file.
pub(crate) fn written_parts(
    file: BorrowedFd<'_>,
    bytes: Range<u64>,
) -> impl Iterator<Item = Range<u64>> {
    const PARTS_MAX: usize = 1024; // a hostile file may have any number
    let mut at = bytes.start;
    let next = move || {
        let start = rustix::fs::seek(file, SeekFrom::Data(at)).ok()?;
        let end = rustix::fs::seek(file, SeekFrom::Hole(start)).ok()?;
        at = end;
        (start < bytes.end).then(|| start.max(bytes.start)..end.min(bytes.end))
    };
    std::iter::from_fn(next).take(PARTS_MAX)
}

/// Takes all in one step if it can. On tmpfs a signal undoes the complete step, so repeated signals would
/// never let a long one end: each interruption halves it.
fn in_steps(
    from: u64,
    to: u64,
    mut take: impl FnMut(u64, u64) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let (mut at, mut step) = (from, to - from);
    while at < to {
        let len = step.min(to - at);
        match take(at, len) {
            Ok(()) => at += len,
            Err(Errno::INTR) => step = (len / 2).max(STEP_LEN),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What `mode` says the file is, which is no regular one, for an error.
pub(crate) fn type_name(mode: u32) -> &'static str {
    match FileType::from_raw_mode(mode) {
        FileType::Directory => "directory",
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        _ => "file of unknown type",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::staged::{self, Call};

    #[test]
    fn a_file_opened_afresh_is_the_same_file_and_another_is_refused() {
        let (a, b) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let id = FileId::of(&rustix::fs::fstat(&a).unwrap());
        assert!(id.is_file(reopen(a.as_fd(), id).unwrap().as_fd()));
        assert!(reopen(b.as_fd(), id).is_err());
    }

    #[test]
    fn holes_are_told_from_what_is_written() {
        const LEN: u64 = 1 << 20;
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        rustix::fs::ftruncate(&file, LEN).unwrap();
        assert!(!is_without_holes(file.as_fd(), LEN));
        for at in [0, LEN / 2, LEN - 1] {
            write_at(file.as_fd(), b"x", at).unwrap();
        }
        let parts = |bytes| written_parts(file.as_fd(), bytes).collect::<Vec<_>>();
        let middle = LEN / 2..LEN / 2 + 4096;
        assert_eq!(parts(0..LEN), [0..4096, middle.clone(), LEN - 4096..LEN]);
        assert_eq!(parts(LEN / 2 + 9..LEN - 9), [LEN / 2 + 9..middle.end, LEN - 4096..LEN - 9]);
        assert_eq!(parts(4096..4097), []);
        assert_eq!(parts(4096..LEN / 2), []);
        reserve(file.as_fd(), 0, LEN).unwrap();
        assert!(is_without_holes(file.as_fd(), LEN));
        assert!(!is_without_holes(file.as_fd(), LEN / 2), "which half has them is not known");
    }

    #[test]
    fn a_file_system_that_lies_about_holes_leads_to_no_other_bytes() {
        let seek = Call::any(libc::SYS_lseek); // says 0, before everything that is asked for
        let parts = staged::skipping(seek, || {
            let file = tempfile::tempfile().unwrap();
            written_parts(file.as_fd(), 4096..8192).collect::<Vec<_>>()
        });
        let Some(parts) = parts else { return eprintln!("skipped: no filters") };
        assert!(parts.iter().all(|part| part.start >= 4096 && part.end <= 8192), "{parts:?}");
    }

    #[test]
    fn a_file_gets_its_room_also_from_a_file_system_that_gives_none_ahead() {
        const FROM: u64 = 4096;
        const TO: u64 = 3 * STEP_LEN + 4096;
        for errno in [Errno::OPNOTSUPP, Errno::NOSYS] {
            let full = staged::refusing(Call::any(libc::SYS_fallocate), errno, || {
                let file = tempfile::tempfile_in("/dev/shm").unwrap();
                write_at(file.as_fd(), &[7; FROM as usize], 0).unwrap();
                reserve(file.as_fd(), FROM, TO).unwrap();
                let mut bytes = vec![1; TO as usize + 1];
                let len = read_at(file.as_fd(), &mut bytes, 0).unwrap();
                assert!(bytes[..FROM as usize].iter().all(|byte| *byte == 7));
                assert!(bytes[FROM as usize..len].iter().all(|byte| *byte == 0));
                len as u64 == TO && is_without_holes(file.as_fd(), TO)
            });
            let Some(full) = full else { return eprintln!("skipped: no filters") };
            assert!(full);
        }
    }

    #[test]
    fn a_write_that_writes_nothing_ends_in_an_error() {
        let written = staged::skipping(Call::any(libc::SYS_pwrite64), || {
            write_at(tempfile::tempfile().unwrap().as_fd(), b"bytes", 0)
        });
        let Some(written) = written else { return eprintln!("skipped: no filters") };
        assert_eq!(written, Err(Errno::NOSPC));
    }

    #[test]
    fn what_is_no_regular_file_has_a_name() {
        let named = [
            (libc::S_IFDIR, "directory"),
            (libc::S_IFLNK, "symbolic link"),
            (libc::S_IFIFO, "FIFO"),
            (libc::S_IFSOCK, "socket"),
            (libc::S_IFCHR, "character device"),
            (libc::S_IFBLK, "block device"),
            (0, "file of unknown type"),
        ];
        for (mode, name) in named {
            assert_eq!(type_name(mode | 0o600), name);
        }
    }

    #[test]
    fn steps_cover_the_range_without_gap_or_overlap_however_often_they_are_interrupted() {
        let (mut end, mut calls) = (5, 0);
        in_steps(5, 40 * STEP_LEN + 7, |at, len| {
            calls += 1;
            if len > STEP_LEN || calls % 2 == 0 {
                return Err(Errno::INTR);
            }
            assert_eq!(at, end);
            end = at + len;
            Ok(())
        })
        .unwrap();
        assert_eq!(end, 40 * STEP_LEN + 7);
        assert!(calls > 80, "{calls} calls");
    }
}
