//! What the kernel says about a path, as the region's error.

use std::io;
use std::path::Path;

use rustix::fs::Stat;
use rustix::io::Errno;
use tombolo_abi::{LayoutError, RegionState};

use crate::error::Error;

/// The kernel refused `action` on `path`.
pub(crate) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Error {
    Error::Io { action, path: path.to_owned(), source: source.into() }
}

/// No process finished the region, which was found in `state`, while there was time.
pub(crate) fn not_ready(path: &Path, state: u32) -> Error {
    Error::Layout { path: path.to_owned(), reason: LayoutError::NotReady { state } }
}

/// The region can't be used, as it is in `state` and no longer, or not yet, ready.
pub(crate) fn unusable(path: &Path, state: RegionState) -> Error {
    match state {
        RegionState::Retired => Error::Replaced { path: path.to_owned() },
        RegionState::Poisoned => Error::RegionPoisoned { path: path.to_owned() },
        state => not_ready(path, state as u32),
    }
}

/// The kernel refused to give a file `wanted_len` bytes.
pub(crate) fn no_room(path: &Path, wanted_len: u64, source: Errno) -> Error {
    match source {
        Errno::NOSPC | Errno::DQUOT | Errno::NOMEM | Errno::FBIG => {
            Error::NoSpace { path: path.to_owned(), wanted_len, source: source.into() }
        }
        _ => io("allocate", path, source),
    }
}

/// The owner or the mode of the file that `stat` describes is in the way.
pub(crate) fn permission(path: &Path, stat: &Stat, hint: &'static str) -> Error {
    Error::Permission {
        path: path.to_owned(),
        owner: stat.st_uid,
        mode: stat.st_mode & 0o7777,
        euid: rustix::process::geteuid().as_raw(),
        hint,
    }
}

/// The path could be turned elsewhere by someone else.
pub(crate) fn unsafe_path(path: &Path, reason: &'static str) -> Error {
    Error::UnsafePath { path: path.to_owned(), reason }
}
