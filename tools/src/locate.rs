//! From what was typed to a path.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The path of the region that was typed: see the help text of the command.
pub(crate) fn locate(typed: &OsStr) -> PathBuf {
    let path = Path::new(typed);
    if typed.as_bytes().contains(&b'/') || path.symlink_metadata().is_ok() {
        return path.to_owned();
    }
    let mut file_name = OsString::from(typed);
    file_name.push(".tombolo");
    directory().join(file_name)
}

fn directory() -> PathBuf {
    match std::env::var_os("TOMBOLO_DIR").filter(|directory| !directory.is_empty()) {
        Some(directory) => PathBuf::from(directory),
        None => {
            // `/proc/self` belongs to the effective user.
            let user = Path::new("/proc/self").metadata().map_or(0, |metadata| metadata.uid());
            PathBuf::from(format!("/dev/shm/tombolo-{user}"))
        }
    }
}
