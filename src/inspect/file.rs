//! The file of a region, opened for reading only.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytemuck::Pod;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, open, statat};
use rustix::io::Errno;

use crate::error::Error;
use crate::os::boot::{self, MadeIn};
use crate::os::{file_system, ofd};

/// Which boot of the machine made a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Boot {
    /// This one.
    This,
    /// An earlier one: no endpoint is alive, and the last writes may not have reached the disk.
    Earlier,
    /// It has another boot id but was made after this boot began: in a container that shows a boot id of its
    /// own, or before a clock was set.
    Unclear,
}

/// A regular file, read with `pread` only.
///
/// Reads beyond its end, and reads that the device refuses, return fewer bytes; the first refusal is
/// kept for the list of problems.
#[derive(Debug)]
pub(super) struct RegionFile {
    pub(super) path: PathBuf,
    /// Bytes of the file when it was opened.
    pub(super) len: u64,
    pub(super) inode: u64,
    /// The inode number if the file system keeps it, else 0.
    pub(super) lasting_inode: u64,
    /// Whether it is a copy of a region's file: then its locks say nothing about the region's ends.
    pub(super) is_copy: bool,
    file: File,
    failure: OnceLock<io::Error>,
}

impl RegionFile {
    /// Opens `path`, which must be a regular file and no symbolic link, but for the kernel's own links to
    /// descriptors: a region without a name has no other path. Never blocks.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let (look, follow) = if is_descriptor(path) {
            (AtFlags::empty(), OFlags::empty())
        } else {
            (AtFlags::SYMLINK_NOFOLLOW, OFlags::NOFOLLOW)
        };
        let found = statat(CWD, path, look).map_err(|error| refused("look at", path, error))?;
        check_type(path, &found)?;
        let fd = open_quietly(path, follow).map_err(|error| refused("open", path, error))?;
        let found = fstat(&fd).map_err(|error| refused("look at", path, error))?;
        check_type(path, &found)?;
        Ok(Self {
            path: path.to_owned(),
            len: u64::try_from(found.st_size).unwrap_or(0),
            inode: found.st_ino,
            lasting_inode: file_system::lasting_inode(fd.as_fd()).unwrap_or(0),
            is_copy: false,
            file: File::from(fd),
            failure: OnceLock::new(),
        })
    }

    /// Reads into `bytes` from `offset`; returns how many bytes there were.
    pub(super) fn read_at(&self, offset: u64, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let Some(from) = offset.checked_add(done as u64).filter(|from| *from < 1 << 63) else {
                break;
            };
            match self.file.read_at(rest, from) {
                Ok(0) => break,
                Ok(len) => done += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let _ = self.failure.set(error); // the first one is enough
                    break;
                }
            }
        }
        done
    }

    /// The bytes from `offset`, at most `len` of them.
    pub(super) fn bytes_at(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let done = self.read_at(offset, &mut bytes);
        bytes.truncate(done);
        bytes
    }

    /// The stored value at `offset`, if the file holds all of it.
    pub(super) fn value_at<T: Pod>(&self, offset: u64) -> Option<T> {
        let mut value = T::zeroed();
        let bytes = bytemuck::bytes_of_mut(&mut value);
        let wanted_len = bytes.len();
        (self.read_at(offset, bytes) == wanted_len).then_some(value)
    }

    /// Whether a process holds the lock byte at `offset`; `None` if the file system doesn't say.
    pub(super) fn is_locked(&self, offset: u64) -> Option<bool> {
        ofd::is_locked(self.file.as_fd(), offset..offset.checked_add(1)?).ok()
    }

    /// Which boot made it, by its boot id and time of creation.
    pub(super) fn boot(&self, then: [u8; 16], created_unix_ns: u64) -> Boot {
        match boot::judge(self.file.as_fd(), then, created_unix_ns) {
            Ok(MadeIn::ThisBoot) => Boot::This,
            Ok(MadeIn::EarlierBoot) => Boot::Earlier,
            Ok(MadeIn::Unclear { .. }) | Err(_) => Boot::Unclear,
        }
    }

    /// The first read that was refused.
    pub(super) fn failure(&self) -> Option<&io::Error> {
        self.failure.get()
    }
}

/// Whether `path` is `/proc/PID/fd/N`.
fn is_descriptor(path: &Path) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts = path.to_str().and_then(|text| text.strip_prefix("/proc/")?.split_once("/fd/"));
    parts.is_some_and(|(pid, fd)| (pid == "self" || is_number(pid)) && is_number(fd))
}

/// Opens for reading, without changing the access time if this user may.
fn open_quietly(path: &Path, follow: OFlags) -> Result<rustix::fd::OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | follow;
    match open(path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => open(path, flags, Mode::empty()),
        other => other,
    }
}

fn check_type(path: &Path, stat: &Stat) -> Result<(), Error> {
    let found = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Symlink => {
            let reason = "is a symbolic link, which is not followed; name the file it points at";
            return Err(Error::UnsafePath { path: path.to_owned(), reason });
        }
        FileType::Directory => "directory",
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        _ => "file of unknown type",
    };
    Err(Error::WrongFileType { path: path.to_owned(), found })
}

fn refused(action: &'static str, path: &Path, error: Errno) -> Error {
    let path = path.to_owned();
    match error {
        Errno::NOENT => Error::NotFound { path },
        _ => Error::Io { action, path, source: error.into() },
    }
}
