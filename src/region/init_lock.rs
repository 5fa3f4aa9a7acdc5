//! The lock of the process that initializes or replaces a region.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::io::Errno;
use tombolo_abi::{LOCK_INIT, LOCK_RECOVERY, LOCK_SLOTS, SLOT_COUNT_MAX};

use super::joined::Region;
use super::place::Place;
use super::refusal;
use crate::crash::test_point;
use crate::error::Error;
use crate::os::descriptor::Descriptor;
use crate::os::file::FileId;
use crate::os::{fork, ofd};

/// Lock bytes of initialization.
pub(crate) const INITIALIZING: Range<u64> = LOCK_INIT..LOCK_INIT + 1;
/// Lock bytes of replacement: those of initialization, and that of recovery.
pub(crate) const REPLACING: Range<u64> = LOCK_INIT..LOCK_RECOVERY + 1;

/// Some of a file's first lock bytes, held by a description of their own.
///
/// No forked child has a share in them.
#[derive(Debug)]
pub(crate) struct InitLock {
    file: Descriptor,
    bytes: Range<u64>,
}

impl InitLock {
    /// Locks `bytes` of the file `id`; `None` if another process holds one of them, or if the name no
    /// longer stands for that file. Never waits.
    pub(crate) fn try_new(
        place: &Place,
        id: FileId,
        bytes: Range<u64>,
    ) -> Result<Option<Self>, Error> {
        let io = |error: Errno| refusal::io("lock", place.path(), error);
        let no_forks = fork::hold_off().map_err(io)?;
        let Some(file) = place.open_again(id)? else { return Ok(None) };
        let file = Descriptor::private(file, &no_forks).map_err(io)?;
        test_point!("init-lock.before-lock");
        let locked = ofd::try_lock(file.as_fd(), bytes.clone(), ofd::Mode::Exclusive)
            .map_err(|error| refusal::io("lock", place.path(), error))?;
        let lock = Self { file, bytes };
        // Dropping the lock unlocks what it may not have locked, which does nothing.
        Ok((locked && place.names(id)?).then_some(lock))
    }

    /// Whether the locked file is empty.
    pub(crate) fn is_of_empty_file(&self) -> bool {
        self.file.stat().is_ok_and(|stat| stat.st_size == 0)
    }

    /// Locks the byte of initialization, shared with others that attach, against a process that replaces
    /// the region; `None` if one is replacing it. Never waits.
    pub(crate) fn try_shared(region: &Region) -> Result<Option<Self>, Error> {
        let io = |error: Errno| region.io_error("lock", error.into());
        let no_forks = fork::hold_off().map_err(io)?;
        let file = Descriptor::private(region.reopen()?, &no_forks).map_err(io)?;
        let locked = ofd::try_lock(file.as_fd(), INITIALIZING, ofd::Mode::Shared)
            .map_err(|error| region.io_error("lock", error))?;
        let lock = Self { file, bytes: INITIALIZING };
        Ok(locked.then_some(lock))
    }
}

impl Drop for InitLock {
    fn drop(&mut self) {
        // Closing the description, which follows, would do but for children just being forked.
        if self.file.is_ours() {
            let _ = ofd::unlock(self.file.as_fd(), self.bytes.clone());
        }
    }
}

/// The first slot whose lock byte is held, or `None` if no endpoint of the region in `file` has an owner.
///
/// Says `None` only if the descriptor stood for the file `id` before and after asking.
pub(crate) fn owned_slot(
    file: BorrowedFd<'_>,
    id: FileId,
    path: &Path,
) -> Result<Option<u64>, Error> {
    first_owned(file, id, 0..u64::from(SLOT_COUNT_MAX), path)
}

/// Whether the lock byte of `slot` is held, as [`owned_slot`].
pub(super) fn is_owned(
    file: BorrowedFd<'_>,
    id: FileId,
    slot: u64,
    path: &Path,
) -> Result<bool, Error> {
    first_owned(file, id, slot..slot + 1, path).map(|found| found.is_some())
}

fn first_owned(
    file: BorrowedFd<'_>,
    id: FileId,
    slots: Range<u64>,
    path: &Path,
) -> Result<Option<u64>, Error> {
    let slots = LOCK_SLOTS + slots.start..LOCK_SLOTS + slots.end;
    let sane_before = id.is_file(file);
    test_point!("owned-slot.before-look");
    let found = ofd::first_locked(file, slots)
        .map_err(|error| refusal::io("look at the locks of", path, error))?;
    if sane_before && id.is_file(file) {
        return Ok(found.map(|byte| byte - LOCK_SLOTS));
    }
    Err(refusal::io("look at the locks of", path, Errno::STALE))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd;
    use std::path::PathBuf;

    use super::*;
    use crate::crash::visits;
    use crate::os::staged::{Bystander, usurp};
    use crate::region::options::{FileSystemPolicy, OpenOptions};
    use crate::region::place::Candidate;

    fn exchange(path: &Path) {
        fs::rename(path, path.with_extension("retired")).unwrap();
        fs::write(path, b"the successor").unwrap();
    }

    /// A file in a directory, opened.
    fn opened() -> (tempfile::TempDir, PathBuf, Place, Candidate) {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().canonicalize().unwrap().join("name");
        fs::write(&path, b"the predecessor").unwrap();
        let place = Place::of_path(&path).unwrap();
        let options = OpenOptions::new().file_system(FileSystemPolicy::Any).mode(0o666);
        let candidate = place.open(&options).unwrap().unwrap();
        (dir, path, place, candidate)
    }

    /// Locks a file that `body`, given its path, replaces by another.
    fn lock_while(body: impl FnOnce(PathBuf) + 'static) -> Option<InitLock> {
        let (_dir, path, place, candidate) = opened();
        let _visit = visits::at("init-lock.before-lock", move || body(path));
        InitLock::try_new(&place, candidate.id, REPLACING).unwrap()
    }

    #[test]
    fn a_lock_that_is_dropped_is_free_at_once_whatever_process_has_copies() {
        let (_dir, path, place, candidate) = opened();
        let lock = InitLock::try_new(&place, candidate.id, REPLACING).unwrap().unwrap();
        let other = fs::File::options().write(true).open(path).unwrap();
        let is_locked = || ofd::is_locked(other.as_fd(), REPLACING).unwrap();
        let _bystander = Bystander::new();
        assert!(is_locked());
        drop(lock);
        assert!(!is_locked());
    }

    #[test]
    fn dropping_a_lock_whose_number_is_another_files_unlocks_nothing_there() {
        let (_dir, path, place, candidate) = opened();
        let lock = InitLock::try_new(&place, candidate.id, REPLACING).unwrap().unwrap();
        let successor = path.with_extension("other");
        fs::write(&successor, b"another").unwrap();
        let [theirs, asking] =
            [(); 2].map(|()| fs::File::options().write(true).open(&successor).unwrap());
        assert!(ofd::try_lock(theirs.as_fd(), REPLACING, ofd::Mode::Exclusive).unwrap());
        usurp(lock.file.as_fd().as_raw_fd(), &theirs);
        drop(lock);
        assert!(ofd::is_locked(asking.as_fd(), REPLACING).unwrap());
    }

    /// Its holder would take the name of the successor away.
    #[test]
    fn the_lock_of_a_file_that_has_just_lost_its_name_is_not_had() {
        assert!(lock_while(|_| ()).is_some());
        assert!(lock_while(|path| exchange(&path)).is_none());
        assert!(lock_while(|path| fs::remove_file(path).unwrap()).is_none());
    }

    /// A region that is in use would be replaced.
    #[test]
    fn no_endpoint_is_called_free_if_the_number_stood_for_another_file() {
        let (_dir, path, _place, candidate) = opened();
        let owned_slot = || owned_slot(candidate.file.as_fd(), candidate.id, &path);
        let holder = fs::File::options().write(true).open(&path).unwrap();
        let byte = LOCK_SLOTS + 5..LOCK_SLOTS + 6;
        assert!(ofd::try_lock(holder.as_fd(), byte, ofd::Mode::Exclusive).unwrap());
        assert_eq!(owned_slot().unwrap(), Some(5));
        let (number, other) =
            (candidate.file.as_raw_fd(), fs::File::open("/proc/self/exe").unwrap());
        let again = candidate.file.try_clone().unwrap();
        let visit = visits::at("owned-slot.before-look", move || usurp(number, &other));
        assert!(owned_slot().is_err(), "it was another's from the look on");
        drop(visit);
        let visit = visits::at("owned-slot.before-look", move || usurp(number, &again));
        assert!(owned_slot().is_err(), "it was another's before the look");
        drop(visit);
        assert_eq!(owned_slot().unwrap(), Some(5));
    }
}
