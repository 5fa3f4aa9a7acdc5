//! Making a region: complete and then named, or in place in a file that is there.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use tombolo_abi::{HEADER_PAGE_LEN, RegionState};

use super::contents::{NewContents, set_mode};
use super::joined::{Origin, Region, set_state};
use super::place::{Candidate, Place};
use super::refusal;
use super::request::Request;
use crate::crash::crash_point;
use crate::error::Error;
use crate::os::file::{FileId, OPEN_FLAGS};

/// Makes a complete region in a file without a name, which leaves nothing behind if it is dropped; `None` if the
/// file system has no such files.
pub(crate) fn create_unnamed(request: &Request) -> Result<Option<Region>, Error> {
    let place = &request.place;
    let mut contents = request.new_contents()?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::empty(); // no process is to open it before it has the one that was asked for
    let file = match retry_on_intr(|| rustix::fs::openat(place.dir(), c".", flags, mode)) {
        Ok(file) => file,
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => return Ok(None),
        Err(error) => return Err(cannot_create(place, error)),
    };
    crash_point!("create.after-tmpfile");
    contents.reserve(file.as_fd(), place.path(), 0)?;
    crash_point!("create.after-reserve");
    contents.write(file.as_fd(), place.path(), RegionState::Ready)?;
    set_mode(file.as_fd(), place.path(), &request.options)?;
    let origin = Origin { creator: true, ..request.origin() };
    Region::map(file, origin, &request.options).map(Some)
}

/// Gives the region its name; `None` if something else has it by now.
pub(crate) fn give_name(region: Region, place: &Place) -> Result<Option<Region>, Error> {
    crash_point!("create.before-linkat");
    match link(&region, place) {
        Ok(()) => {
            crash_point!("create.after-linkat");
            Ok(Some(region))
        }
        Err(Errno::EXIST) => Ok(None),
        Err(error @ (Errno::NOSPC | Errno::DQUOT)) => {
            Err(refusal::no_room(place.path(), region.header().total_len, error))
        }
        Err(error) => Err(refusal::io("link", place.path(), error)),
    }
}

fn link(region: &Region, place: &Place) -> Result<(), Errno> {
    let (file, dir, name) = (region.plain(), place.dir(), place.file_name());
    let path = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
    match rustix::fs::linkat(CWD, &path, dir, name, AtFlags::SYMLINK_FOLLOW) {
        // Without /proc there is another way, which older kernels keep for the privileged.
        Err(Errno::NOENT) => rustix::fs::linkat(file, c"", dir, name, AtFlags::EMPTY_PATH),
        result => result,
    }
}

/// Whether the file system has space for so many regions like the one that is asked for. What `file` has
/// been given counts. `true` if the file system does not report its free space.
pub(crate) fn has_space(
    request: &Request,
    count: u64,
    file: Option<BorrowedFd<'_>>,
) -> Result<bool, Error> {
    let place = &request.place;
    let io = |error| refusal::io("stat the file system of", place.path(), error);
    let found = retry_on_intr(|| rustix::fs::fstatvfs(place.dir())).map_err(io)?;
    // Read afterwards: what another opener gives the file meanwhile is then counted twice, not missed.
    let own = match file {
        Some(file) => rustix::fs::fstat(file).map_err(io)?.st_blocks as u64 * 512,
        None => 0,
    };
    let free = found.f_bfree.saturating_mul(found.f_frsize).saturating_add(own);
    Ok(found.f_blocks == 0 || free / count >= request.new_len())
}

/// Makes an empty file with the place's name, to be filled in place by the first opener that locks it; `None`
/// if something has the name by now.
pub(crate) fn create_empty(place: &Place) -> Result<Option<FileId>, Error> {
    let flags = OPEN_FLAGS | OFlags::CREATE | OFlags::EXCL;
    let mode = Mode::RUSR | Mode::WUSR;
    match retry_on_intr(|| rustix::fs::openat(place.dir(), place.file_name(), flags, mode)) {
        Ok(file) => {
            crash_point!("create.after-empty-file");
            let stat = rustix::fs::fstat(&file);
            let stat = stat.map_err(|error| refusal::io("stat", place.path(), error))?;
            Ok(Some(FileId::of(&stat)))
        }
        Err(Errno::EXIST) => Ok(None),
        Err(error) => Err(cannot_create(place, error)),
    }
}

fn cannot_create(place: &Place, error: Errno) -> Error {
    if matches!(error, Errno::ACCESS | Errno::PERM)
        && let Ok(stat) = rustix::fs::fstat(place.dir())
    {
        let hint = "the directory refuses new files (owner and mode are the directory's)";
        return refusal::permission(place.path(), &stat, hint);
    }
    match error {
        Errno::NOSPC | Errno::DQUOT => refusal::no_room(place.path(), HEADER_PAGE_LEN, error),
        _ => refusal::io("create", place.path(), error),
    }
}

/// Makes a region in the candidate, an empty or a half-made file of which the caller holds the init
/// lock. On failure the file is empty again.
pub(crate) fn fill_in_place(request: &Request, candidate: Candidate) -> Result<Region, Error> {
    let mut contents = request.new_contents()?;
    let again = candidate.file.try_clone();
    let again = again.map_err(|error| refusal::io("open again", request.path(), error))?;
    fill(request, candidate, &mut contents).inspect_err(|_| {
        // Still under the caller's lock. If even this fails, the file stays half-made, which the
        // next opener takes over.
        let _ = rustix::fs::ftruncate(&again, 0);
    })
}

fn fill(
    request: &Request,
    candidate: Candidate,
    contents: &mut NewContents,
) -> Result<Region, Error> {
    let (path, file) = (request.path(), candidate.file.as_fd());
    crash_point!("in-place.after-lock");
    if candidate.stat.st_size > 0 {
        // What a dead creator left must not show through in the new layout.
        rustix::fs::ftruncate(file, HEADER_PAGE_LEN)
            .map_err(|error| refusal::io("truncate", path, error))?;
        crash_point!("in-place.after-truncate");
    }
    contents.write_claim(file, path)?;
    crash_point!("in-place.after-first-page");
    contents.reserve(file, path, HEADER_PAGE_LEN)?;
    crash_point!("in-place.after-reserve");
    contents.write(file, path, RegionState::Initializing)?;
    if candidate.stat.st_uid == rustix::process::geteuid().as_raw() {
        set_mode(file, path, &request.options)?;
    }
    let origin = Origin { creator: true, ..request.origin() };
    let region = Region::map(candidate.file, origin, &request.options)?;
    crash_point!("in-place.before-ready");
    set_state(region.mapping(), RegionState::Ready); // `ready`: what was written before is there
    crash_point!("in-place.after-ready");
    Ok(region)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::crash::visits;
    use crate::options::OwnerPolicy;
    use crate::os::staged::{self, Call};
    use crate::region::description::state_in;
    use crate::{EventsRegion, OpenOptions};

    const TMPFILE: OFlags = OFlags::TMPFILE;
    const EMPTY: OFlags = OFlags::CREATE.union(OFlags::EXCL);

    /// Opening a file with these flags.
    fn opening_with(flags: OFlags) -> Call {
        Call::with_flags(libc::SYS_openat, 2, flags.bits())
    }

    /// Giving a name to what a link in `/proc` leads to.
    fn linking() -> Call {
        Call::with(libc::SYS_linkat, 4, libc::AT_SYMLINK_FOLLOW)
    }

    /// What opening a new region says if `call` fails with `errno`, and whether it is there then.
    fn open_with(call: Call, errno: Errno) -> Option<(Result<EventsRegion, Error>, bool)> {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("name");
        let opened = staged::refusing(call, errno, || EventsRegion::open_path(&path));
        let Some(opened) = opened else {
            eprintln!("skipped: no filters");
            return None;
        };
        Some((opened, path.exists()))
    }

    #[test]
    fn where_no_file_is_without_a_name_a_region_is_made_in_place() {
        for errno in [Errno::OPNOTSUPP, Errno::ISDIR, Errno::INVAL] {
            let Some((opened, is_there)) = open_with(opening_with(TMPFILE), errno) else { return };
            assert!(opened.unwrap().is_creator() && is_there);
        }
    }

    #[test]
    fn a_file_of_another_user_is_filled_and_keeps_its_mode() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("skipped: only root has files of others");
        }
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("name");
        let file = fs::File::create(&path).unwrap();
        std::os::unix::fs::fchown(&file, Some(65_534), None).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
        let options = OpenOptions::new().owner(OwnerPolicy::Any);
        assert!(EventsRegion::open_path_with(&path, options).unwrap().is_creator());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn a_directory_that_takes_no_files_says_so() {
        for errno in [Errno::ACCESS, Errno::PERM] {
            let Some((opened, is_there)) = open_with(opening_with(TMPFILE), errno) else { return };
            assert!(matches!(opened, Err(Error::Permission { .. })) && !is_there, "{opened:?}");
        }
        let (opened, is_there) = open_with(opening_with(TMPFILE), Errno::ROFS).unwrap();
        assert!(matches!(opened, Err(Error::Io { .. })) && !is_there, "{opened:?}");
    }

    #[test]
    fn without_proc_a_region_gets_its_name_in_another_way() {
        let Some((opened, is_there)) = open_with(linking(), Errno::NOENT) else { return };
        match opened {
            Ok(region) => assert!(region.is_creator() && is_there),
            Err(error) if rustix::process::geteuid().is_root() => panic!("{error}"),
            Err(error) => eprintln!("skipped: this kernel keeps that for the privileged: {error}"),
        }
    }

    #[test]
    fn where_there_is_no_space_for_a_name_beside_the_region_it_is_made_in_place() {
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            let Some((opened, is_there)) = open_with(linking(), errno) else { return };
            assert!(opened.unwrap().is_creator() && is_there);
        }
        let (opened, _) = open_with(linking(), Errno::PERM).unwrap();
        assert!(matches!(opened, Err(Error::Io { .. })), "{opened:?}");
    }

    #[test]
    fn a_region_that_gets_no_name_at_all_for_want_of_proc_is_made_in_place() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("name");
        let opened = staged::refusing(Call::any(libc::SYS_linkat), Errno::NOENT, || {
            let is_without_proc =
                staged::answer(Call::any(libc::SYS_statx), Errno::NOENT.raw_os_error());
            is_without_proc.then(|| EventsRegion::open_path(&path))
        });
        let Some(opened) = opened.flatten() else { return eprintln!("skipped: no filters") };
        assert!(opened.unwrap().is_creator() && path.exists());
    }

    /// A place of its own, and its path.
    fn place() -> (tempfile::TempDir, Place, PathBuf) {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("name");
        (dir, Place::of_path(&path).unwrap(), path)
    }

    #[test]
    fn what_a_creator_left_that_died_does_not_show_through() {
        let (_dir, _, path) = place();
        let left = EventsRegion::open_path(&path).unwrap();
        let data = left.shared().entries()[0].data_offset;
        let file = fs::File::options().read(true).write(true).open(&path).unwrap();
        file.write_all_at(&[0xff; 8], data).unwrap();
        set_state(left.shared().mapping(), RegionState::Initializing);
        drop(left);
        assert!(EventsRegion::open_path(&path).unwrap().is_creator());
        let mut found = [1; 8];
        file.read_exact_at(&mut found, data).unwrap();
        assert_eq!(found, [0; 8]);
    }

    #[test]
    fn who_finds_that_a_region_has_the_name_by_now_joins_that_one() {
        let (_dir, _, path) = place();
        let name = path.clone();
        let visit = visits::at("create.before-linkat", move || {
            assert!(EventsRegion::open_path(name).unwrap().is_creator());
        });
        let region = EventsRegion::open_path(&path).unwrap();
        drop(visit);
        assert!(!region.is_creator());
    }

    #[test]
    fn no_program_inherits_a_region_that_is_made_before_it_has_a_name() {
        let (_dir, _, path) = place();
        let region = EventsRegion::open_path(&path).unwrap();
        let flags = rustix::io::fcntl_getfd(region.shared().plain()).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn a_file_system_that_does_not_say_what_space_it_has_is_tried() {
        let place = Place::of_path(Path::new("/proc/name")).unwrap();
        assert_eq!(rustix::fs::fstatvfs(place.dir()).unwrap().f_blocks, 0);
        assert!(has_space(&Request::new(place, OpenOptions::new()), 1, None).unwrap());
    }

    #[test]
    fn an_empty_file_is_this_users_from_its_first_moment_and_goes_to_no_other_program() {
        let (_dir, place, path) = place();
        let at = path.clone();
        let visit = visits::at("create.after-empty-file", move || {
            let mode = fs::metadata(&at).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert!(staged::is_closed_by_exec(&at));
        });
        assert!(create_empty(&place).unwrap().is_some());
        drop(visit);
        fs::write(&path, b"another's").unwrap();
        assert!(create_empty(&place).unwrap().is_none());
        assert_eq!(fs::read(&path).unwrap(), b"another's");
    }

    #[test]
    fn no_file_is_made_where_a_link_leads() {
        let (dir, place, path) = place();
        let target = dir.path().join("target");
        symlink(&target, &path).unwrap();
        assert!(create_empty(&place).unwrap().is_none());
        assert!(!target.exists());
    }

    #[test]
    fn a_file_system_that_is_full_takes_no_empty_file_either() {
        let (_dir, place, path) = place();
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            let made = staged::refusing(opening_with(EMPTY), errno, || create_empty(&place));
            let Some(made) = made else { return eprintln!("skipped: no filters") };
            assert!(matches!(made, Err(Error::NoSpace { .. })) && !path.exists(), "{made:?}");
        }
    }

    #[test]
    fn an_empty_file_is_a_region_in_the_making_from_its_first_byte_on() {
        let (_dir, _, path) = place();
        fs::File::create(&path).unwrap();
        let at = path.clone();
        let claimed = visits::at("in-place.after-first-page", move || {
            let file = fs::File::open(at).unwrap();
            let state = state_in(file.as_fd(), Path::new("name")).unwrap();
            assert_eq!(state, RegionState::Initializing);
        });
        // Made longer first, it would have bytes, but no magic number.
        let truncating = Call::any(libc::SYS_ftruncate);
        assert!(EventsRegion::open_path(&path).unwrap().is_creator());
        drop(claimed);
        fs::write(&path, b"").unwrap();
        let opened = staged::refusing(truncating, Errno::IO, || {
            EventsRegion::open_path(&path).map(|region| region.is_creator())
        });
        assert!(matches!(opened, None | Some(Ok(true))), "{opened:?}");
    }
}
