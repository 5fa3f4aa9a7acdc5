//! Which type a descriptor is of.

use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, OFlags};

use super::stat::{self, Stat};
use crate::handle_type::HandleType;

impl HandleType {
    /// The type of what `fd`, opened with `flags`, leads to; `found` is `None` if it could not be read.
    pub(super) fn of(fd: BorrowedFd<'_>, flags: OFlags, found: Option<Stat>) -> Self {
        let Some(found) = found else {
            return Self::Other;
        };
        let path_only = flags.contains(OFlags::PATH);
        match found.file_type {
            FileType::Directory => Self::Directory,
            FileType::RegularFile if path_only => Self::File,
            _ if path_only => Self::Other,
            FileType::RegularFile => of_regular(fd, &found),
            FileType::Fifo => Self::Pipe,
            FileType::Socket => Self::Socket,
            FileType::Unknown => of_link(fd).unwrap_or(Self::Other),
            _ => Self::Other,
        }
    }
}

/// The type by the kernel's own name, for what has no file. A path begins with a slash, so no file can have
/// such a name.
fn of_link(fd: BorrowedFd<'_>) -> Option<HandleType> {
    match stat::link(fd)?.as_os_str().as_bytes() {
        b"anon_inode:[eventfd]" => Some(HandleType::EventFd),
        b"anon_inode:[eventpoll]" => Some(HandleType::Epoll),
        b"anon_inode:[pidfd]" => Some(HandleType::PidFd),
        _ => None,
    }
}

/// Some kernels show a pidfd as a regular file.
fn of_regular(fd: BorrowedFd<'_>, found: &Stat) -> HandleType {
    if let Some(kind) = of_link(fd) {
        return kind;
    }
    if stat::begins_as_region(fd) {
        let owns = stat::owns_endpoint(fd);
        return if owns { HandleType::Channel } else { HandleType::Region };
    }
    if is_memfd(fd, found) { HandleType::MemFd } else { HandleType::File }
}

/// Files on tmpfs have seals too; only the kernel's name distinguishes memory from them.
fn is_memfd(fd: BorrowedFd<'_>, found: &Stat) -> bool {
    found.link_count == 0
        && rustix::fs::fcntl_get_seals(fd).is_ok()
        && stat::link(fd).is_some_and(|link| link.as_os_str().as_bytes().starts_with(b"/memfd:"))
}
