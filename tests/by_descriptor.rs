//! Joining a region that comes as a descriptor: what it leads to is judged like what has a name.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, memfd_create};
use tombolo::{Error, EventsRegion, LayoutError, OpenOptions};

mod support;
use support::*;

#[test]
fn an_anonymous_region_is_joined_by_descriptor() {
    let ours = EventsRegion::anonymous(small()).unwrap();
    let theirs = EventsRegion::from_fd(ours.to_fd().unwrap(), OpenOptions::new()).unwrap();
    assert!(ours.is_creator() && !theirs.is_creator());
    assert_eq!(ours.uuid(), theirs.uuid());
    assert_eq!((ours.path(), theirs.path()), (None, None));
    assert!(ours.is_current().unwrap());
    let fd = ours.to_fd().unwrap();
    assert!(rustix::fs::ftruncate(&fd, 4096).is_err(), "it can be shortened");
    assert!(rustix::fs::ftruncate(&fd, 1 << 30).is_err(), "it can be lengthened");
}

#[test]
fn a_descriptor_of_anything_else_is_refused() {
    let dir = Dir::new();
    let path = dir.file("a");
    let bytes = sound_bytes(&dir);
    write_private(&path, &bytes);
    let file = || OwnedFd::from(File::options().read(true).write(true).open(&path).unwrap());
    let by_path = EventsRegion::open_path(&path).unwrap();
    assert_eq!(EventsRegion::from_fd(file(), OpenOptions::new()).unwrap().uuid(), by_path.uuid());

    for flags in [MemfdFlags::CLOEXEC, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING] {
        let unsealed = memfd_create(c"x", flags).unwrap();
        rustix::io::pwrite(&unsealed, &bytes, 0).unwrap();
        let refused = EventsRegion::from_fd(unsealed, OpenOptions::new());
        assert!(matches!(refused, Err(Error::UnsafePath { .. })), "{refused:?}");
    }
    let (pipe, _other_end) = rustix::pipe::pipe().unwrap();
    let refused = EventsRegion::from_fd(pipe, OpenOptions::new());
    assert!(matches!(refused, Err(Error::WrongFileType { found: "FIFO", .. })), "{refused:?}");
    set_state(&path, 3);
    let refused = EventsRegion::from_fd(file(), OpenOptions::new());
    assert!(matches!(refused, Err(Error::Replaced { .. })), "{refused:?}");
    let unnamed = file();
    fs::remove_file(&path).unwrap();
    let refused = EventsRegion::from_fd(unnamed, OpenOptions::new());
    assert!(matches!(refused, Err(Error::UnsafePath { .. })), "{refused:?}");
}

/// A region's bytes in memory with these seals.
fn sealed(bytes: &[u8], seals: SealFlags) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create(c"x", flags).unwrap();
    rustix::io::pwrite(&file, bytes, 0).unwrap();
    rustix::fs::fcntl_add_seals(&file, seals).unwrap();
    file
}

#[test]
fn memory_is_joined_only_if_nothing_about_it_can_change_but_its_bytes() {
    let bytes = sound_bytes(&Dir::new());
    let wanted = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    let joined = |seals| EventsRegion::from_fd(sealed(&bytes, seals), OpenOptions::new());
    joined(wanted).unwrap();
    for seal in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::SEAL] {
        let refused = joined(wanted.difference(seal));
        assert!(matches!(refused, Err(Error::UnsafePath { .. })), "without {seal:?}: {refused:?}");
    }
    for seal in [SealFlags::WRITE, SealFlags::FUTURE_WRITE] {
        let refused = joined(wanted.union(seal));
        assert!(matches!(refused, Err(Error::UnsafePath { .. })), "with {seal:?}: {refused:?}");
    }
    let ours = EventsRegion::anonymous(small()).unwrap().to_fd().unwrap();
    assert!(rustix::fs::fcntl_add_seals(ours, SealFlags::FUTURE_WRITE).is_err());
}

#[test]
fn a_file_that_comes_as_a_descriptor_is_judged_like_one_that_has_a_name() {
    let dir = Dir::new();
    let path = dir.file("a");
    drop(EventsRegion::open_path_with(&path, small()).unwrap());
    let joined = |path: &Path| {
        let file = File::options().read(true).write(true).open(path).unwrap();
        EventsRegion::from_fd(file.into(), OpenOptions::new())
    };
    joined(&path).unwrap();
    let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o620);
    assert!(matches!(joined(&path), Err(Error::Permission { .. })));
    mode(0o600);
    fs::hard_link(&path, dir.file("b")).unwrap();
    assert!(matches!(joined(&path), Err(Error::UnsafePath { .. })));
    fs::remove_file(dir.file("b")).unwrap();
    joined(&path).unwrap();
    let of_proc = joined(format!("/proc/{}/comm", std::process::id()).as_ref());
    assert!(matches!(of_proc, Err(Error::UnsupportedFileSystem { name: "proc", .. })));
    let another = rustix::process::geteuid().as_raw() + 1;
    if std::os::unix::fs::chown(&path, Some(another), None).is_err() {
        return eprintln!("skipped: this user gives no files away");
    }
    assert!(matches!(joined(&path), Err(Error::Permission { .. })));
}

#[test]
fn a_region_that_comes_as_a_descriptor_is_waited_for_until_it_is_made_or_time_is_up() {
    let dir = Dir::new();
    let path = dir.file("a");
    let mut bytes = sound_bytes(&dir);
    let join = |state: u32, timeout| {
        bytes[STATE].copy_from_slice(&state.to_le_bytes());
        write_private(&path, &bytes);
        let file = File::options().read(true).write(true).open(&path).unwrap();
        EventsRegion::from_fd(file.into(), OpenOptions::new().join_timeout(timeout))
    };
    let mut join = join;
    let (short, long) = (Duration::from_millis(50), Duration::from_secs(20));
    let late = join(1, short);
    let is_not_ready = |error: &Error| {
        matches!(error, Error::Layout { reason: LayoutError::NotReady { state: 1 }, .. })
    };
    assert!(late.as_ref().is_err_and(is_not_ready), "{late:?}");
    let poisoned = join(4, long);
    assert!(matches!(poisoned, Err(Error::RegionPoisoned { .. })), "{poisoned:?}");
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(200));
            set_state(&path, 2);
        });
        join(1, long).unwrap();
    });
}
