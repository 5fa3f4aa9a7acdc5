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
use super::options::{OpenOptions, Prefault};
use super::place::{check_access, check_file_system, check_owner};
use super::refusal;
use super::rendezvous::Rendezvous;
use crate::crash::test_point;
use crate::error::Error;
use crate::os::descriptor::Descriptor;
use crate::os::file::{FileId, reopen, type_name};
use crate::os::{boot, file_system, memory};

/// What a region in memory must be sealed against: a file that shrinks kills each process that touches it.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// The pause between two polls of a region that is being made.
const PAUSE: Duration = Duration::from_millis(1);

/// Makes a region that lives in memory for as long as a process has it open.
pub(crate) fn create(options: &OpenOptions) -> Result<Region, Error> {
    options.check()?;
    let path = Path::new("anonymous region");
    let (name, boot_id) = (OsStr::new("anonymous"), boot::boot_id_at_start());
    let mut contents = NewContents::new(options, 1, name, boot_id, path)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create(c"tombolo", flags)
        .map_err(|error| refusal::io("create", path, error))?;
    if options.prefault == Prefault::AtOpen || !is_taken_safely(file.as_fd()) {
        contents.reserve(file.as_fd(), path, 0)?;
    } else {
        contents.claim(file.as_fd(), path)?;
    }
    contents.write(file.as_fd(), path, RegionState::Ready)?;
    set_mode(file.as_fd(), path, options)?;
    rustix::fs::fcntl_add_seals(&file, SEALS).map_err(|error| refusal::io("seal", path, error))?;
    let file = Descriptor::shared(file).map_err(|error| refusal::io("keep open", path, error))?;
    let origin = Origin { place: None, path: path.to_owned(), creator: true };
    let mut region = Region::map_described(file, contents.into_description(), origin, options)?;
    if region.description().is_channel() {
        region.is_alone = true.into(); // only `to_fd`, in this process, hands its file on
    } else {
        region.rendezvous = Rendezvous::of_all(region.entries())
            .map_err(|error| refusal::io("make sockets for the handles of", path, error))?;
    }
    Ok(region)
}

/// Whether each page of `file`, in memory, can be taken when it is first used: then there is memory for it, or
/// the kernel finds some, by its killer if it must, as for any other memory of a process.
///
/// A file that lies on a file system with a limit must have its pages from the start: a page that is used when
/// the limit has been reached is SIGBUS. The kernel's own place for files in memory has none, and none of its
/// quotas. There a page is refused with SIGBUS only if the kernel promises no more memory than it has
/// (`vm.overcommit_memory` 2). What a cgroup may not have is a matter of the killer, in a fault as in `fallocate`.
///
/// Reserving would not keep a peer from making such pages: the seals allow holes. So a page that is not to be
/// had is always possible, and is met by the handler of SIGBUS: this decides what an honest region needs.
fn is_taken_safely(file: BorrowedFd<'_>) -> bool {
    file_system::is_without_limit(file) && memory::is_promised_freely()
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
    use rustix::io::{Errno, FdFlags};

    use super::*;
    use crate::EventsRegion;
    use crate::crash::visits;
    use crate::options::OwnerPolicy;
    use crate::os::staged::{self, Call};
    use crate::region::joined::set_state;

    #[test]
    fn a_channels_region_is_this_processs_alone_until_its_file_is_handed_out_and_others_never_are()
    {
        let options = OpenOptions::new().of_channel().unwrap();
        let region = EventsRegion::anonymous(options).unwrap();
        assert!(region.shared().is_alone());
        let _fd = region.to_fd().unwrap();
        assert!(!region.shared().is_alone());
        assert!(!EventsRegion::anonymous(OpenOptions::new()).unwrap().shared().is_alone());
    }

    #[test]
    fn a_new_regions_description_is_what_a_reader_finds() {
        let region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let region = region.shared();
        let mut found = Description::read(region.plain(), region.path()).unwrap();
        found.header.state = region.header().state;
        assert_eq!((found.header, &found.entries[..]), (*region.header(), region.entries()));
    }

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
        stat.st_nlink = 1; // as one with a name
        let check = |options| check_passed(Path::new("passed"), &file, &stat, &options);
        assert!(matches!(check(OpenOptions::new()), Err(Error::Permission { .. })));
        check(OpenOptions::new().owner(OwnerPolicy::Any)).unwrap();
    }

    #[test]
    fn no_program_inherits_a_region_and_it_has_the_mode_that_was_asked_for() {
        for mode in [0o600, 0o660] {
            let region = EventsRegion::anonymous(OpenOptions::new().mode(mode)).unwrap();
            let file = region.shared().plain();
            assert!(rustix::io::fcntl_getfd(file).unwrap().contains(FdFlags::CLOEXEC));
            assert_eq!(rustix::fs::fstat(file).unwrap().st_mode & 0o777, mode);
        }
    }

    #[test]
    fn memory_is_reserved_if_all_of_it_is_wanted_or_no_page_is_promised_later() {
        let full = Call::any(libc::SYS_fallocate);
        for (prefault, is_reserved) in
            [(Prefault::AtOpen, true), (Prefault::OnDemand, !memory::is_promised_freely())]
        {
            let made = staged::refusing(full, Errno::NOSPC, || {
                EventsRegion::anonymous(OpenOptions::new().prefault(prefault)).map(drop)
            });
            let Some(made) = made else { return eprintln!("skipped: no filters") };
            assert_eq!(matches!(made, Err(Error::NoSpace { .. })), is_reserved, "{made:?}");
        }
        let memory = EventsRegion::anonymous(OpenOptions::new()).unwrap().to_fd().unwrap();
        assert_eq!(is_taken_safely(memory.as_fd()), memory::is_promised_freely());
        let limited = tempfile::tempfile_in("/dev/shm").unwrap();
        assert!(!is_taken_safely(limited.as_fd()));
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
