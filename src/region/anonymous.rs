//! Regions without a name, and regions that come as a descriptor.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, MemfdFlags, SealFlags, Stat};
use tombolo_abi::RegionState;

use super::contents::{NewContents, set_mode};
use super::description::{Description, state_in};
use super::init_lock::owned_slot;
use super::joined::{Origin, Region};
use super::options::OpenOptions;
use super::place::{check_access, check_file_system, check_owner};
use super::refusal;
use super::rendezvous::Rendezvous;
use crate::crash::test_point;
use crate::error::Error;
use crate::os::file::{FileId, reopen, type_name};

/// What a region in memory must be sealed against: a file that shrinks kills each process that touches it.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// The pause between two polls of a region that is being made.
const PAUSE: Duration = Duration::from_millis(1);

/// Makes a region that lives in memory for as long as a process has it open.
pub(crate) fn create(options: &OpenOptions) -> Result<Region, Error> {
    options.check()?;
    let path = Path::new("anonymous region");
    let mut contents = NewContents::new(options, 1, OsStr::new("anonymous"), path)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create(c"tombolo", flags)
        .map_err(|error| refusal::io("create", path, error))?;
    contents.reserve(file.as_fd(), path, 0)?;
    contents.write(file.as_fd(), path, RegionState::Ready)?;
    set_mode(file.as_fd(), path, options)?;
    rustix::fs::fcntl_add_seals(&file, SEALS).map_err(|error| refusal::io("seal", path, error))?;
    let origin = Origin { place: None, path: path.to_owned(), creator: true };
    let mut region = Region::map(file, origin, options)?;
    region.rendezvous = Rendezvous::of_all(region.entries())
        .map_err(|error| refusal::io("make sockets for the handles of", path, error))?;
    Ok(region)
}

/// Joins the region that `file` is open on. The descriptor itself is not kept: locks belong to
/// descriptions, and another process may share this one.
pub(crate) fn join(file: OwnedFd, options: &OpenOptions) -> Result<Region, Error> {
    // For messages: what the kernel calls the descriptor.
    let entry = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
    let path = std::fs::read_link(&entry).unwrap_or_else(|_| PathBuf::from(entry));
    let stat = rustix::fs::fstat(&file).map_err(|error| refusal::io("stat", &path, error))?;
    check_passed(&path, &file, &stat, options)?;
    let id = FileId::of(&stat);
    let plain =
        reopen(file.as_fd(), id).map_err(|error| refusal::io("open again", &path, error))?;
    wait_until_ready(&path, &plain, options)?;
    check_boot(&path, plain.as_fd(), id)?;
    test_point!("passed.judged");
    let region = Region::map(plain, Origin { place: None, path, creator: false }, options)?;
    if region.state() == RegionState::Retired as u32 {
        return Err(Error::Replaced { path: region.path().to_owned() });
    }
    Ok(region)
}

/// A file with one name, or a sealed one in memory.
fn check_passed(
    path: &Path,
    file: &OwnedFd,
    stat: &Stat,
    options: &OpenOptions,
) -> Result<(), Error> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        let found = type_name(stat.st_mode);
        return Err(Error::WrongFileType { path: path.to_owned(), found });
    }
    if stat.st_nlink > 0 {
        check_access(path, stat, options)?;
        return check_file_system(path, file.as_fd(), options);
    }
    check_owner(path, stat, options.owner)?;
    let seals = rustix::fs::fcntl_get_seals(file).unwrap_or(SealFlags::empty());
    if seals.contains(SEALS) && !seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
        return Ok(());
    }
    let reason = "it has no name and is not sealed against shrinking and growing (and only that); \
                  pass the descriptor of an anonymous region";
    Err(refusal::unsafe_path(path, reason))
}

fn wait_until_ready(path: &Path, plain: &OwnedFd, options: &OpenOptions) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        match state_in(plain.as_fd(), path)? {
            RegionState::Ready => return Ok(()),
            RegionState::Empty | RegionState::Initializing
                if started.elapsed() < options.patience() =>
            {
                thread::sleep(PAUSE);
            }
            state => return Err(refusal::unusable(path, state)),
        }
    }
}

/// A region of an earlier boot is as good as none.
fn check_boot(path: &Path, plain: BorrowedFd<'_>, id: FileId) -> Result<(), Error> {
    let is_owned = || Ok(owned_slot(plain, id, path)?.is_some());
    if Description::read(plain, path)?.is_of_earlier_boot(plain, path, is_owned)? {
        return Err(Error::NotFound { path: path.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EventsRegion;
    use crate::crash::visits;
    use crate::options::OwnerPolicy;
    use crate::os::staged;
    use crate::region::joined::set_state;

    #[test]
    fn a_region_that_is_retired_while_it_is_joined_is_not_joined() {
        let region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let fd = region.to_fd().unwrap();
        let mapping = region.shared().mapping().clone();
        let retire = move || set_state(&mapping, RegionState::Retired);
        let _visit = visits::at("passed.judged", retire);
        let joined = EventsRegion::from_fd(fd, OpenOptions::new());
        assert!(matches!(joined, Err(Error::Replaced { .. })), "{joined:?}");
    }

    #[test]
    fn a_region_of_another_user_is_joined_only_if_that_is_allowed() {
        let region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let file = region.to_fd().unwrap();
        let mut stat = rustix::fs::fstat(&file).unwrap();
        stat.st_uid = stat.st_uid.wrapping_add(1);
        let check = |options| check_passed(Path::new("passed"), &file, &stat, &options);
        assert!(matches!(check(OpenOptions::new()), Err(Error::Permission { .. })));
        check(OpenOptions::new().owner(OwnerPolicy::Any)).unwrap();
    }

    #[test]
    fn who_waits_for_a_region_to_be_made_sleeps() {
        let region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let file = region.to_fd().unwrap();
        set_state(region.shared().mapping(), RegionState::Initializing);
        let options = OpenOptions::new().join_timeout(Duration::from_millis(200));
        let before = staged::sleeps();
        let joined = EventsRegion::from_fd(file, options);
        assert!(matches!(joined, Err(Error::Layout { .. })), "{joined:?}");
        assert!(before.is_none_or(|before| staged::sleeps().unwrap() > before + 2));
    }
}
