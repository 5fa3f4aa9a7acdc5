//! File systems on which locks and shared mappings are known to behave, and files keep their numbers.

use std::os::fd::BorrowedFd;

use rustix::io::{Errno, retry_on_intr};

const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;

/// Whether the files of this file system are lost when the machine starts again.
pub(crate) fn is_memory(magic: u64) -> bool {
    [TMPFS, RAMFS].contains(&magic)
}

/// Which file system `file` lies on, by its magic number.
pub(crate) fn magic(file: BorrowedFd<'_>) -> Result<u64, Errno> {
    retry_on_intr(|| rustix::fs::fstatfs(file)).map(|found| found.f_type as u64)
}

/// Whether the file system that `file` lies on has all the space there is in the machine.
pub(crate) fn is_without_limit(file: BorrowedFd<'_>) -> bool {
    retry_on_intr(|| rustix::fs::fstatfs(file)).is_ok_and(|found| found.f_blocks == 0)
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn file_systems_have_the_names_that_people_know() {
        let names = [
            (libc::NFS_SUPER_MAGIC, "nfs"),
            (libc::SMB_SUPER_MAGIC, "smb"),
            (0xff53_4d42, "cifs"),
            (0xfe53_4d42, "smb2"),
            (libc::FUSE_SUPER_MAGIC, "fuse"),
            (0x0102_1997, "9p"),
            (libc::OVERLAYFS_SUPER_MAGIC, "overlayfs"),
            (libc::PROC_SUPER_MAGIC, "proc"),
            (libc::SYSFS_MAGIC, "sysfs"),
            (libc::HUGETLBFS_MAGIC, "hugetlbfs"),
            (libc::EXT4_SUPER_MAGIC + 1, "an unknown file system"),
        ];
        for (magic, wanted) in names {
            assert_eq!(name(magic as u64), wanted);
            assert!(!is_known(magic as u64));
        }
    }

    #[test]
    fn memory_without_a_name_has_no_limit_and_what_has_one_is_told_from_it() {
        let memory = rustix::fs::memfd_create(c"m", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        assert!(is_without_limit(memory.as_fd()));
        assert!(!is_without_limit(tempfile::tempfile_in("/dev/shm").unwrap().as_fd()));
    }

    #[test]
    fn a_number_that_a_file_may_not_keep_is_none() {
        let memory = rustix::fs::memfd_create(c"m", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(lasting_inode(memory.as_fd()), Ok(rustix::fs::fstat(&memory).unwrap().st_ino));
        let of_proc = File::open("/proc/self/stat").unwrap();
        assert_ne!(rustix::fs::fstat(&of_proc).unwrap().st_ino, 0);
        assert_eq!(lasting_inode(of_proc.as_fd()), Ok(0));
    }
}
