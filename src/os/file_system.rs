//! File systems on which locks and shared mappings are known to behave, and files keep their numbers.

use std::os::fd::BorrowedFd;

use rustix::io::{Errno, retry_on_intr};

const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;

/// Whether the files of this file system are gone when the machine starts again.
pub(crate) fn is_memory(magic: u64) -> bool {
    [TMPFS, RAMFS].contains(&magic)
}

/// Which file system `file` lies on, by its magic number.
pub(crate) fn magic(file: BorrowedFd<'_>) -> Result<u64, Errno> {
    retry_on_intr(|| rustix::fs::fstatfs(file)).map(|found| found.f_type as u64)
}

/// The inode number of `file`; 0 on a file system of which it is not known whether a file keeps its number
/// for as long as it is there.
pub(crate) fn lasting_inode(file: BorrowedFd<'_>) -> Result<u64, Errno> {
    if is_known(magic(file)?) { rustix::fs::fstat(file).map(|stat| stat.st_ino) } else { Ok(0) }
}

/// Whether the file system with this magic number is one of them.
pub(crate) fn is_known(magic: u64) -> bool {
    const EXT4: u64 = 0xef53;
    const XFS: u64 = 0x5846_5342;
    const BTRFS: u64 = 0x9123_683e;
    const F2FS: u64 = 0xf2f5_2010;
    [TMPFS, EXT4, XFS, BTRFS, F2FS].contains(&magic)
}

/// The name of a file system that is not, for an error.
pub(crate) fn name(magic: u64) -> &'static str {
    match magic {
        0x6969 => "nfs",
        0x517b => "smb",
        0xff53_4d42 => "cifs",
        0xfe53_4d42 => "smb2",
        0x6573_5546 => "fuse",
        0x0102_1997 => "9p",
        0x794c_7630 => "overlayfs",
        0x9fa0 => "proc",
        0x6265_6572 => "sysfs",
        0x9584_58f6 => "hugetlbfs",
        _ => "an unknown file system",
    }
}
