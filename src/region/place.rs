//! The place of a region's file: a directory that stays the same whatever happens to the path, and a
//! name in it.
//!
//! # Calls by name
//! A process that may write to the directory, or to one on the way to it, can put something else behind a
//! name at any moment: a link to a file of ours, or another file. So a name is used to find or to make
//! something and to take the name away, and never to change what it stands for: owner, mode and contents are
//! set through descriptors alone. These are all calls of the library by a name that others can move:
//!
//! | call | why it can't be turned against us |
//! |---|---|
//! | [`open_dir`]: `openat2` of the caller's path | follows no link in any component; a directory in the place of another gives what any path of the caller's would, and every file in it is checked by itself |
//! | default directory: `mkdirat` | makes it or does nothing; it is then opened as above, and its owner and mode are asked of the descriptor |
//! | [`Place::stat`]: `statat` | only reads, of a link itself; what matters is asked again of the descriptor once the file is open |
//! | [`Place::open`], [`Place::open_again`]: `openat` | `O_NOFOLLOW`; type, owner, mode, links and file system, or which file it is, are asked of the descriptor |
//! | `create`: `openat` of `.` with `O_TMPFILE` | makes a file without a name |
//! | `create`: `linkat` | gives a name to the file behind a descriptor; a name that is taken stays as it is |
//! | `create`: `openat` with `O_CREAT` | `O_EXCL` makes an empty file or fails; it follows no link |
//! | `replace`: `renameat2` to the retired name, and back, of an old region or of an empty file that could not be filled | replaces nothing (`RENAME_NOREPLACE`), stays in the directory, moves a link itself; another file than the one checked gets its name back |
//! | `replace`: `unlinkat` of a retired file, of a stale socket | takes a name away, of a link its own; a process that can exchange the name could do the same |
//! | `os::socket`: `bind` | makes a name or fails, and follows no link at its end; the mode was set on the socket before |
//! | `os::socket`: `statat` of the receiver's socket | only reads, and at the most makes the receiver listen at another name too |
//! | `os::socket`: `openat` with `O_PATH`, then `connect` to that | `O_NOFOLLOW`; the kernel names the listening user before anything is sent, see `carrier` |
//! | `os::socket`: `unlinkat` of a receiver's socket | as with stale ones |
//! | `inspect`: `statat`, `openat` for reading | `O_NOFOLLOW`; the type is asked of the descriptor; nothing is ever written |
//!
//! Names in `/proc` (descriptors, `stat`, `fdinfo`, the boot's id) belong to the kernel; a file that is opened
//! again through one is compared with the first by device and inode.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{Errno, retry_on_intr};

use super::options::{FileSystemPolicy, OpenOptions, OwnerPolicy};
use super::refusal;
use crate::crash::test_point;
use crate::error::Error;
use crate::os::descriptor::Descriptor;
use crate::os::file::{FileId, OPEN_FLAGS, type_name};
use crate::os::file_system;

const COMPONENT_LEN_MAX: usize = 255;
const PATH_LEN_MAX: usize = 4095;

/// A name in a directory.
#[derive(Debug)]
pub(crate) struct Place {
    dir: Descriptor,
    file_name: OsString,
    /// As the caller wrote it, for messages only.
    path: PathBuf,
}

/// A regular file that the options allow, opened by its name.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// Holds no lock, ever.
    pub(crate) file: OwnedFd,
    pub(crate) id: FileId,
    pub(crate) stat: Stat,
}

impl Place {
    /// The place that `path` names; its directory must be there, and be reached without a link.
    pub(crate) fn of_path(path: &Path) -> Result<Self, Error> {
        check_path(path)?;
        let invalid = |reason| Error::InvalidPath { path: path.to_owned(), reason };
        let file_name = path.file_name().ok_or_else(|| invalid("it names no file"))?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Self::in_dir(open_dir(parent)?, file_name, path)
    }

    /// The name `file_name` in `dir`; `path` is for messages.
    pub(crate) fn in_dir(dir: OwnedFd, file_name: &OsStr, path: &Path) -> Result<Self, Error> {
        let dir = Descriptor::shared(dir).map_err(|error| refusal::io("keep open", path, error))?;
        Ok(Self { dir, file_name: file_name.to_owned(), path: path.to_owned() })
    }

    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// As [`Self::dir`], for when it may have been closed behind our back: names in the directory of
    /// another are not ours.
    pub(crate) fn dir_of_ours(&self) -> Result<BorrowedFd<'_>, Errno> {
        if self.dir.is_ours() { Ok(self.dir()) } else { Err(Errno::BADF) }
    }

    pub(crate) fn file_name(&self) -> &OsStr {
        &self.file_name
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the name stands for now, or `None` if there is nothing. Links are not followed.
    pub(crate) fn stat(&self) -> Result<Option<Stat>, Error> {
        let found = self.dir_of_ours().and_then(|dir| {
            retry_on_intr(|| rustix::fs::statat(dir, &*self.file_name, AtFlags::SYMLINK_NOFOLLOW))
        });
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(refusal::io("stat", &self.path, error)),
        }
    }

    /// Whether the name stands for the file `id` now.
    pub(crate) fn names(&self, id: FileId) -> Result<bool, Error> {
        Ok(self.stat()?.is_some_and(|stat| FileId::of(&stat) == id))
    }

    /// Opens what the name stands for, or gives `None` if there is nothing. What is no regular
    /// file is not opened at all, so that no device or FIFO notices.
    pub(crate) fn open(&self, options: &OpenOptions) -> Result<Option<Candidate>, Error> {
        let Some(before) = self.stat()? else { return Ok(None) };
        check_file(&self.path, &before, options)?;
        test_point!("place.after-look");
        let opened = retry_on_intr(|| {
            rustix::fs::openat(&self.dir, &*self.file_name, OPEN_FLAGS, Mode::empty())
        });
        let file = match opened {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(refusal::unsafe_path(&self.path, IS_LINK)),
            Err(Errno::ACCESS | Errno::PERM) => {
                let hint = "the kernel refused to open it for reading and writing; ask its owner";
                return Err(refusal::permission(&self.path, &before, hint));
            }
            Err(error) => return Err(refusal::io("open", &self.path, error)),
        };
        test_point!("place.opened");
        let stat =
            rustix::fs::fstat(&file).map_err(|error| refusal::io("stat", &self.path, error))?;
        if stat.st_nlink == 0 {
            return Ok(None); // its name went while it was being opened
        }
        check_file(&self.path, &stat, options)?;
        check_file_system(&self.path, file.as_fd(), options)?;
        Ok(Some(Candidate { id: FileId::of(&stat), file, stat }))
    }

    /// Opens the file `id` once more, by its name; `None` if the name stands for another.
    pub(crate) fn open_again(&self, id: FileId) -> Result<Option<OwnedFd>, Error> {
        let opened = self.dir_of_ours().and_then(|dir| {
            retry_on_intr(|| rustix::fs::openat(dir, &*self.file_name, OPEN_FLAGS, Mode::empty()))
        });
        match opened {
            Ok(file) => Ok(id.is_file(file.as_fd()).then_some(file)),
            Err(Errno::NOENT | Errno::LOOP) => Ok(None),
            Err(error) => Err(refusal::io("open", &self.path, error)),
        }
    }
}

const IS_LINK: &str = "it is a symbolic link; pass the path that it leads to";

/// Opens the directory `path`, reached without following any symbolic link.
pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd, Error> {
    check_path(path)?;
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS;
    match retry_on_intr(|| rustix::fs::openat2(CWD, path, flags, Mode::empty(), resolve)) {
        Ok(dir) => Ok(dir),
        Err(Errno::LOOP) => {
            let reason = "the way to it has a symbolic link; pass the resolved path";
            Err(refusal::unsafe_path(path, reason))
        }
        Err(source @ Errno::NOSYS) => {
            Err(Error::Unsupported { what: "openat2 (Linux 5.6)", source: source.into() })
        }
        Err(error) => Err(refusal::io("open directory", path, error)),
    }
}

fn check_path(path: &Path) -> Result<(), Error> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let too_long = |component: &[u8]| component.len() > COMPONENT_LEN_MAX;
    let reason = if bytes.is_empty() {
        "it is empty"
    } else if bytes.contains(&0) {
        "it has a NUL byte"
    } else if bytes.len() > PATH_LEN_MAX {
        "it is longer than 4095 bytes"
    } else if bytes.split(|byte| *byte == b'/').any(too_long) {
        "one of its components is longer than 255 bytes"
    } else {
        return Ok(());
    };
    Err(Error::InvalidPath { path: path.to_owned(), reason })
}

/// Whether the options allow the file that `stat` describes.
fn check_file(path: &Path, stat: &Stat, options: &OpenOptions) -> Result<(), Error> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Symlink => return Err(refusal::unsafe_path(path, IS_LINK)),
        _ => {
            let found = type_name(stat.st_mode);
            return Err(Error::WrongFileType { path: path.to_owned(), found });
        }
    }
    check_access(path, stat, options)
}

/// Whether the options allow the owner and the access of the file that `stat` describes.
pub(crate) fn check_access(path: &Path, stat: &Stat, options: &OpenOptions) -> Result<(), Error> {
    if stat.st_nlink > 1 {
        let reason = "it has more than one name (hard links); remove the others";
        return Err(refusal::unsafe_path(path, reason));
    }
    check_owner(path, stat, options.owner)?;
    if stat.st_mode & 0o022 & !options.write_bits_allowed() != 0 {
        let hint = "others can write to it; chmod go-w it, or allow it with OpenOptions::mode";
        return Err(refusal::permission(path, stat, hint));
    }
    Ok(())
}

/// Whether the policy allows the owner of the file that `stat` describes.
pub(crate) fn check_owner(path: &Path, stat: &Stat, policy: OwnerPolicy) -> Result<(), Error> {
    let ours = stat.st_uid == rustix::process::geteuid().as_raw();
    let allowed = match policy {
        OwnerPolicy::SameUser => ours,
        OwnerPolicy::Group => ours || is_our_group(stat.st_gid),
        OwnerPolicy::Any => true,
    };
    if allowed {
        return Ok(());
    }
    let hint = "it belongs to another user; run as that user, or allow it with OpenOptions::owner";
    Err(refusal::permission(path, stat, hint))
}

fn is_our_group(gid: u32) -> bool {
    let groups = rustix::process::getgroups().unwrap_or_default();
    rustix::process::getegid().as_raw() == gid || groups.iter().any(|group| group.as_raw() == gid)
}

/// Whether the options allow the file system that `file` lies on.
pub(crate) fn check_file_system(
    path: &Path,
    file: BorrowedFd<'_>,
    options: &OpenOptions,
) -> Result<(), Error> {
    let magic = file_system::magic(file)
        .map_err(|error| refusal::io("stat the file system of", path, error))?;
    if options.file_system == FileSystemPolicy::Any || file_system::is_known(magic) {
        return Ok(());
    }
    let name = file_system::name(magic);
    Err(Error::UnsupportedFileSystem { path: path.to_owned(), name, magic })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::thread;
    use std::time::Duration;

    use rustix::fs::{Gid, mkfifoat};
    use tempfile::TempDir;

    use super::*;
    use crate::crash::visits;
    use crate::os::staged::{self, Call};

    #[test]
    fn names_in_a_directory_that_another_has_under_its_number_are_not_ours() {
        let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let place = Place::of_path(&dir.path().join("name")).unwrap();
        assert!(place.dir_of_ours().is_ok());
        staged::usurp(place.dir().as_raw_fd(), fs::File::open(other.path()).unwrap());
        assert_eq!(place.dir_of_ours().unwrap_err(), Errno::BADF);
    }

    fn write(path: &Path, mode: u32) {
        fs::write(path, b"bytes").unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// A directory, and a place in it.
    fn place(name: &str) -> (TempDir, Place) {
        let dir = TempDir::new().unwrap();
        let place = Place::of_path(&dir.path().canonicalize().unwrap().join(name)).unwrap();
        (dir, place)
    }

    fn any_file_system() -> OpenOptions {
        OpenOptions::new().file_system(FileSystemPolicy::Any)
    }

    /// Opens a private file; `body` gets its path at `point`.
    fn open_while(
        point: &'static str,
        body: impl FnOnce(&Path) + 'static,
    ) -> Result<Option<Candidate>, Error> {
        let (_dir, place) = place("name");
        let path = place.path().to_owned();
        write(&path, 0o600);
        let _visit = visits::at(point, move || body(&path));
        place.open(&any_file_system())
    }

    /// Opens a private file that is replaced after its `stat`.
    fn open_exchanged(exchange: impl FnOnce(&Path) + 'static) -> Result<Option<Candidate>, Error> {
        open_while("place.after-look", move |path| {
            fs::remove_file(path).unwrap();
            exchange(path);
        })
    }

    #[test]
    fn a_file_that_loses_its_name_while_it_is_opened_is_none() {
        assert!(open_exchanged(|_| ()).unwrap().is_none());
        let opened = open_while("place.opened", |path| fs::remove_file(path).unwrap());
        assert!(opened.unwrap().is_none());
        assert!(open_while("place.opened", |_| ()).unwrap().is_some());
    }

    #[test]
    fn what_is_no_file_is_not_even_opened() {
        let (_dir, place) = place("fifo");
        mkfifoat(CWD, place.path(), Mode::RUSR | Mode::WUSR).unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| fs::OpenOptions::new().write(true).open(place.path()));
            thread::sleep(Duration::from_millis(100));
            let opened = place.open(&any_file_system());
            assert!(matches!(opened, Err(Error::WrongFileType { .. })), "{opened:?}");
            thread::sleep(Duration::from_millis(100));
            let is_waiting = !waiting.is_finished();
            fs::File::open(place.path()).unwrap(); // ends the wait
            waiting.join().unwrap().unwrap();
            assert!(is_waiting, "who waits for a reader found one");
        });
    }

    /// The kernel gives it 45 seconds.
    #[test]
    fn a_file_that_another_process_has_a_lease_on_is_not_waited_for() {
        let (_dir, place) = place("name");
        write(place.path(), 0o600);
        let leased = fs::File::options().read(true).write(true).open(place.path()).unwrap();
        if !staged::lease(&leased) {
            return eprintln!("skipped: no leases here");
        }
        match place.open(&any_file_system()) {
            Err(Error::Io { source, .. }) => {
                assert_eq!(source.kind(), std::io::ErrorKind::WouldBlock);
            }
            opened => panic!("{opened:?}"),
        }
    }

    #[test]
    fn a_refusal_of_the_kernel_says_whose_the_file_is() {
        let (_dir, place) = place("name");
        write(place.path(), 0o600);
        for errno in [Errno::ACCESS, Errno::PERM] {
            let opened = staged::refusing(Call::any(libc::SYS_openat), errno, || {
                place.open(&any_file_system())
            });
            let Some(opened) = opened else { return eprintln!("skipped: no filters") };
            assert!(matches!(opened, Err(Error::Permission { mode: 0o600, .. })), "{opened:?}");
        }
    }

    #[test]
    fn a_kernel_that_cannot_keep_off_links_is_not_supported() {
        let opened = staged::refusing(Call::any(libc::SYS_openat2), Errno::NOSYS, || {
            Place::of_path(Path::new("/dev/shm/name"))
        });
        let Some(opened) = opened else { return eprintln!("skipped: no filters") };
        assert!(matches!(opened, Err(Error::Unsupported { .. })), "{opened:?}");
    }

    #[test]
    fn a_directory_is_one_and_goes_to_no_program_started_later() {
        let (_dir, place) = place("name");
        write(place.path(), 0o600);
        assert!(matches!(open_dir(place.path()), Err(Error::Io { .. })));
        let flags = rustix::io::fcntl_getfd(place.dir()).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        let file = place.open(&any_file_system()).unwrap().unwrap().file;
        assert!(rustix::io::fcntl_getfd(file).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn paths_are_refused_that_no_file_can_have() {
        let is_refused = |path: &str| {
            let refused = matches!(check_path(Path::new(path)), Err(Error::InvalidPath { .. }));
            let dir = matches!(open_dir(Path::new(path)), Err(Error::InvalidPath { .. }));
            assert_eq!(refused, dir, "{path}");
            refused
        };
        let long = |len: usize| "x/".repeat(len / 2) + &"x".repeat(len % 2);
        let component = |len| format!("a/{}/b", "x".repeat(len));
        assert!(["", "a\0b", &long(4096), &component(256)].into_iter().all(is_refused));
        assert!(!["a", &long(4095), &component(255)].into_iter().any(is_refused));
        for path in [long(4097), component(256), format!("/dev/shm/{}", "x".repeat(256))] {
            let place = Place::of_path(Path::new(&path));
            assert!(matches!(place, Err(Error::InvalidPath { .. })), "{path}");
        }
    }

    #[test]
    fn an_owner_is_allowed_by_the_policy() {
        let own = rustix::process::getegid().as_raw();
        let mut stat = rustix::fs::stat("/proc/self").unwrap();
        let allowed = |stat: &Stat| {
            [OwnerPolicy::SameUser, OwnerPolicy::Group, OwnerPolicy::Any]
                .map(|policy| check_owner(Path::new("name"), stat, policy).is_ok())
        };
        let (uid, others) = (rustix::process::geteuid().as_raw(), own + 4242);
        for (user, group, wanted) in [
            (uid, own, [true, true, true]),
            (uid, others, [true, true, true]),
            (uid + 1, own, [false, true, true]),
            (uid + 1, others, [false, false, true]),
        ] {
            (stat.st_uid, stat.st_gid) = (user, group);
            assert_eq!(allowed(&stat), wanted, "of user {user} and group {group}");
        }
        (stat.st_uid, stat.st_gid) = (uid + 1, others);
        let groups = [Gid::from_raw(others + 1), Gid::from_raw(others)];
        let allowed_in = |groups: &[Gid]| {
            thread::scope(|scope| {
                let member = scope.spawn(|| {
                    rustix::thread::set_thread_groups(groups).ok().map(|()| allowed(&stat))
                });
                member.join().unwrap()
            })
        };
        let Some(found) = allowed_in(&groups) else {
            return eprintln!("skipped: this user takes no groups");
        };
        assert_eq!(found, [false, true, true]);
        assert_eq!(allowed_in(&groups[..1]), Some([false, false, true]));
    }

    #[test]
    fn a_file_system_that_is_not_known_is_refused_when_its_file_is_opened() {
        let path = format!("/proc/{}/comm", std::process::id());
        let place = Place::of_path(Path::new(&path)).unwrap();
        let opened = place.open(&OpenOptions::new());
        assert!(
            matches!(opened, Err(Error::UnsupportedFileSystem { name: "proc", .. })),
            "{opened:?}"
        );
        assert!(place.open(&any_file_system()).unwrap().is_some());
    }

    #[test]
    fn only_the_same_file_is_opened_again() {
        let (_dir, place) = place("name");
        write(place.path(), 0o600);
        let id = place.open(&any_file_system()).unwrap().unwrap().id;
        assert!(place.open_again(id).unwrap().is_some());
        let moved = place.path().with_file_name("moved");
        fs::rename(place.path(), &moved).unwrap();
        assert!(place.open_again(id).unwrap().is_none());
        symlink(&moved, place.path()).unwrap();
        assert!(place.open_again(id).unwrap().is_none());
        fs::remove_file(place.path()).unwrap();
        write(place.path(), 0o600);
        assert!(place.open_again(id).unwrap().is_none());
    }

    #[test]
    fn a_link_that_takes_the_names_place_after_the_look_is_not_followed() {
        let opened = open_exchanged(|path| {
            let target = path.with_file_name("target");
            write(&target, 0o600);
            symlink(target, path).unwrap();
        });
        assert!(matches!(opened, Err(Error::UnsafePath { .. })), "{opened:?}");
    }

    #[test]
    fn what_takes_the_names_place_after_the_look_is_judged_like_what_was_there() {
        let opened = open_exchanged(|path| write(path, 0o622));
        assert!(matches!(opened, Err(Error::Permission { .. })), "{opened:?}");
        let opened = open_exchanged(|path| {
            write(path, 0o600);
            fs::hard_link(path, path.with_file_name("second name")).unwrap();
        });
        assert!(matches!(opened, Err(Error::UnsafePath { .. })), "{opened:?}");
        let opened = open_exchanged(|path| {
            mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap();
        });
        assert!(matches!(opened, Err(Error::WrongFileType { .. })), "{opened:?}");
        let opened = open_exchanged(|path| write(path, 0o600));
        assert!(matches!(opened, Ok(Some(_))), "{opened:?}");
    }
}
