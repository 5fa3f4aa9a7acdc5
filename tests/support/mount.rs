//! Mounts of a test's own, for those who may mount.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use super::is_root;

/// Something mounted on a directory; dropping it ends that.
pub(crate) struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    /// The directory `from` on `to` as well; `None`, with the reason printed, if that is not allowed.
    pub(crate) fn bind(from: &Path, to: &'a Path) -> Option<Self> {
        Self::new(["--bind".as_ref(), from.as_os_str()], to)
    }

    /// A file system in memory with room for `len` bytes; `None` as for [`Self::bind`].
    pub(crate) fn memory(len: u64, to: &'a Path) -> Option<Self> {
        let size = format!("-osize={len}");
        Self::new(["-ttmpfs", &size, "none"].map(OsStr::new), to)
    }

    /// As [`Self::memory`], with room for so many files, its own directory among them.
    pub(crate) fn memory_of_files(len: u64, files: u64, to: &'a Path) -> Option<Self> {
        let size = format!("-osize={len},nr_inodes={files}");
        Self::new(["-ttmpfs", &size, "none"].map(OsStr::new), to)
    }

    fn new<const N: usize>(arguments: [&OsStr; N], to: &'a Path) -> Option<Self> {
        let mount = || Command::new("mount").args(arguments).arg(to).output();
        let is_mounted = is_root() && mount().is_ok_and(|output| output.status.success());
        if !is_mounted {
            eprintln!("skipped: this user may not mount");
        }
        is_mounted.then_some(Self(to))
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg("--lazy").arg(self.0).status();
        assert!(ended.is_ok_and(|status| status.success()), "{} stays mounted", self.0.display());
    }
}
