//! What the tests of opening share: a directory of their own, forged regions, and looking at what
//! changed.
#![allow(dead_code)] // each test program uses its part

pub(crate) mod carrying;
pub(crate) mod ends;
pub(crate) mod mount;
pub(crate) mod overlay;
pub(crate) mod parts;
pub(crate) mod process;
pub(crate) mod witness;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tombolo::options::FileSystemPolicy;
use tombolo::{Error, EventsRegion, OpenOptions};
use tombolo_abi::{Header, header_crc};

/// Bytes before the directory's end that no bit may change in, apart from the state word.
pub(crate) const STATE: std::ops::Range<usize> = 0x14..0x18;

/// A directory on a file system that regions may lie on, without a link on the way to it.
pub(crate) struct Dir {
    dir: TempDir,
}

impl Dir {
    pub(crate) fn new() -> Self {
        let root =
            [Path::new("/dev/shm"), Path::new("/tmp")].into_iter().find(|path| path.is_dir());
        Self { dir: tempfile::tempdir_in(root.unwrap()).unwrap() }
    }

    /// As [`Self::new`], on a file system whose files outlive the machine's start; `None`, with the reason printed, if there is
    /// no such place.
    pub(crate) fn on_disk() -> Option<Self> {
        const TMPFS: u64 = 0x0102_1994;
        let is_disk = |path: &&Path| {
            rustix::fs::statfs(*path).is_ok_and(|found| found.f_type as u64 != TMPFS)
        };
        let roots =
            [Path::new("/tmp"), Path::new("/var/tmp"), Path::new(env!("CARGO_TARGET_TMPDIR"))];
        let Some(root) = roots.into_iter().find(is_disk) else {
            eprintln!("skipped: all is in memory here");
            return None;
        };
        Some(Self { dir: tempfile::tempdir_in(root).unwrap() })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Everything in the directory: name, type and mode, link count, bytes.
    pub(crate) fn snapshot(&self) -> BTreeMap<OsString, (u32, u64, Vec<u8>)> {
        let entries = fs::read_dir(self.path()).unwrap().map(Result::unwrap);
        entries
            .map(|entry| {
                let meta = fs::symlink_metadata(entry.path()).unwrap();
                let bytes = if meta.is_file() { fs::read(entry.path()).unwrap() } else { vec![] };
                (entry.file_name(), (meta.mode(), meta.nlink(), bytes))
            })
            .collect()
    }

    /// Descriptors of this process that lead into the directory.
    pub(crate) fn open_fds(&self) -> usize {
        let entries = fs::read_dir("/proc/self/fd").unwrap();
        let targets = entries.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        targets.filter(|target| target.starts_with(self.path())).count()
    }

    /// Asserts that opening `path` fails as `expected` says, and that nothing was created, changed
    /// or left open by it.
    pub(crate) fn refuses_with(
        &self,
        path: &Path,
        options: OpenOptions,
        expected: impl Fn(&Error) -> bool,
    ) {
        let before = self.snapshot();
        let error = match EventsRegion::open_path_with(path, options) {
            Err(error) => error,
            Ok(region) => panic!("{} was opened: {region:?}", path.display()),
        };
        assert!(expected(&error), "{}: {error:?}", path.display());
        assert!(!error.to_string().is_empty());
        assert!(before == self.snapshot(), "{}: something changed: {error}", path.display());
        assert_eq!(self.open_fds(), 0, "{}: a descriptor leaked: {error}", path.display());
    }

    pub(crate) fn refuses(&self, path: &Path, expected: impl Fn(&Error) -> bool) {
        self.refuses_with(path, OpenOptions::new(), expected);
    }
}

/// The smallest region, so that tests of thousands of files are fast.
pub(crate) fn small() -> OpenOptions {
    OpenOptions::new().spsc_capacity(4096).mpsc_capacity(4096).producers(1)
}

/// As [`small`], on the disk of any machine.
pub(crate) fn on_disk() -> OpenOptions {
    small().file_system(FileSystemPolicy::Any)
}

/// The bytes of a sound small region, as they may lie in any file.
pub(crate) fn sound_bytes(dir: &Dir) -> Vec<u8> {
    sound_bytes_with(dir, on_disk())
}

/// The bytes of a sound region with these options, as they may lie in any file.
pub(crate) fn sound_bytes_with(dir: &Dir, options: OpenOptions) -> Vec<u8> {
    let path = dir.file("template");
    drop(EventsRegion::open_path_with(&path, options).unwrap());
    let mut bytes = fs::read(&path).unwrap();
    fs::remove_file(path).unwrap();
    forge(&mut bytes, |header| header.file_inode = 0);
    bytes
}

/// Writes a file that only its owner may use.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

pub(crate) fn header_of(bytes: &[u8]) -> Header {
    bytemuck::pod_read_unaligned(&bytes[..size_of::<Header>()])
}

/// Where the directory lies.
pub(crate) fn directory_of(header: &Header) -> std::ops::Range<usize> {
    let start = header.directory_offset as usize;
    start..start + (header.ring_count * header.entry_len) as usize
}

/// Changes the header and gives it the checksum that a forger would.
pub(crate) fn forge(bytes: &mut [u8], change: impl FnOnce(&mut Header)) {
    let mut header = header_of(bytes);
    let directory = bytes[directory_of(&header)].to_vec();
    change(&mut header);
    header.crc = header_crc(&header, &directory);
    bytes[..size_of::<Header>()].copy_from_slice(bytemuck::bytes_of(&header));
}

/// Changes a directory entry and gives the header the checksum that a forger would.
pub(crate) fn forge_entry(
    bytes: &mut [u8],
    ring: usize,
    change: impl FnOnce(&mut tombolo_abi::RingEntry),
) {
    let start = directory_of(&header_of(bytes)).start + ring * 64;
    let mut entry = bytemuck::pod_read_unaligned(&bytes[start..start + 64]);
    change(&mut entry);
    bytes[start..start + 64].copy_from_slice(bytemuck::bytes_of(&entry));
    forge(bytes, |_| {});
}

/// Marks the region in `path` with a state.
pub(crate) fn set_state(path: &Path, state: u32) {
    let mut bytes = fs::read(path).unwrap();
    bytes[STATE].copy_from_slice(&state.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

/// Lets the region in these bytes be one of an earlier boot, if it lies on a disk.
pub(crate) fn of_earlier_boot(header: &mut Header) {
    header.boot_id = [7; 16];
    header.created_unix_ns = 1;
}

/// Holds one of the file's lock bytes, by a description of its own, until dropped.
pub(crate) fn lock_byte(path: &Path, byte: u64) -> File {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte as libc::off_t,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the command reads one `flock`, which lives across the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) };
    assert_eq!(result, 0);
    file
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
