//! Files by which two sides find each other.

use std::fs::{self, File};
use std::path::PathBuf;

use tombolo_benches::system::{Failure, Meeting};

use crate::wait;

/// The file of this direction.
pub(crate) fn path(meeting: &Meeting) -> PathBuf {
    meeting.directory.join(meeting.name)
}

/// Makes the file appear with all that is in it.
pub(crate) fn publish<T>(
    meeting: &Meeting,
    fill: impl FnOnce(&File) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let unfinished = path(meeting).with_extension("new");
    let file = File::options().read(true).write(true).create_new(true).open(&unfinished)?;
    let filled = fill(&file)?;
    fs::rename(unfinished, path(meeting))?;
    Ok(filled)
}

/// Opens the file once it has appeared.
pub(crate) fn open(meeting: &Meeting) -> Result<File, Failure> {
    let path = path(meeting);
    wait::for_peer("the other side's file", || {
        File::options().read(true).write(true).open(&path).ok()
    })
}
