//! A handle owns its descriptor, has rights that follow from how it was opened and that only grow
//! fewer, and never leaks into another program. Rows X9, X12 and X13 of the fault table.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Mode, OFlags};
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::process::{Resource, Rlimit, setrlimit};
use tombolo::handle::{HandleDisposition, HandleError, HandleSource};
use tombolo::{Handle, Rights};

mod support;
use support::*;

/// Opens `path` with `flags`, not close-on-exec.
fn open(path: &Path, flags: OFlags) -> OwnedFd {
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).unwrap()
}

fn is_close_on_exec(fd: impl AsFd) -> bool {
    fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC)
}

#[test]
fn the_rights_of_a_file_follow_from_the_mode_that_it_was_opened_with() {
    let dir = Dir::new();
    fs::write(dir.file("plain"), b"bytes").unwrap();
    let rights = |flags| Handle::new(open(&dir.file("plain"), flags)).rights();
    let readable = Rights::READ | Rights::MAP;
    assert_eq!(rights(OFlags::RDONLY), Rights::BASIC | readable);
    assert_eq!(rights(OFlags::WRONLY), Rights::BASIC | Rights::WRITE);
    assert_eq!(rights(OFlags::WRONLY | OFlags::APPEND), Rights::BASIC | Rights::WRITE);
    assert_eq!(rights(OFlags::RDWR), Rights::BASIC | readable | Rights::WRITE);
    assert_eq!(rights(OFlags::PATH), Rights::BASIC - Rights::WAIT);
    assert_eq!(rights(OFlags::PATH | OFlags::RDWR), Rights::BASIC - Rights::WAIT);
    assert_eq!(rights(OFlags::ACCMODE), Rights::BASIC, "mode 3 neither reads nor writes");
}

#[test]
fn the_rights_of_other_things_follow_from_mode_and_type() {
    let dir = Dir::new();
    let listing = Rights::BASIC | Rights::READ | Rights::ENUMERATE;
    assert_eq!(Handle::new(open(dir.path(), OFlags::RDONLY)).rights(), listing);
    let (reader, writer) = std::io::pipe().unwrap();
    assert_eq!(Handle::new(reader).rights(), Rights::BASIC | Rights::READ);
    assert_eq!(Handle::new(writer).rights(), Rights::BASIC | Rights::WRITE);
    let (socket, _) = UnixStream::pair().unwrap();
    assert_eq!(Handle::new(socket).rights(), Rights::BASIC | Rights::IO);
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    assert_eq!(Handle::new(event).rights(), Rights::BASIC | Rights::IO | Rights::SIGNAL);
}

#[test]
fn rights_have_zircons_bits_and_unknown_bits_are_none() {
    let bits = [
        (Rights::DUPLICATE, 0x1),
        (Rights::TRANSFER, 0x2),
        (Rights::READ, 0x4),
        (Rights::WRITE, 0x8),
        (Rights::EXECUTE, 0x10),
        (Rights::MAP, 0x20),
        (Rights::GET_PROPERTY, 0x40),
        (Rights::SET_PROPERTY, 0x80),
        (Rights::ENUMERATE, 0x100),
        (Rights::DESTROY, 0x200),
        (Rights::SET_POLICY, 0x400),
        (Rights::GET_POLICY, 0x800),
        (Rights::SIGNAL, 0x1000),
        (Rights::SIGNAL_PEER, 0x2000),
        (Rights::WAIT, 0x4000),
        (Rights::INSPECT, 0x8000),
        (Rights::MANAGE_JOB, 0x1_0000),
        (Rights::MANAGE_PROCESS, 0x2_0000),
        (Rights::MANAGE_THREAD, 0x4_0000),
        (Rights::SAME_RIGHTS, 0x8000_0000),
        (Rights::BASIC, 0xc003),
        (Rights::CHANNEL_DEFAULT, 0xf00e),
    ];
    for (rights, bits) in bits {
        assert_eq!(rights.bits(), bits, "{rights}");
    }
    assert_eq!(Rights::from_bits(1 << 19), None);
    assert_eq!(Rights::empty().to_string(), "none");
}

#[test]
fn rights_that_were_given_up_do_not_come_back() {
    let handle = Handle::new(tempfile::tempfile().unwrap());
    let few = Rights::DUPLICATE | Rights::READ;
    let weak = handle.duplicate(few).unwrap();
    assert_eq!(weak.rights(), few);
    for wanted in [few | Rights::WRITE, Rights::TRANSFER, Rights::SAME_RIGHTS | Rights::READ] {
        let refused = weak.duplicate(wanted).unwrap_err();
        assert_eq!(refused, HandleError::InvalidRights { held: few, wanted });
    }
    let same = weak.duplicate(Rights::SAME_RIGHTS).unwrap().replace(Rights::SAME_RIGHTS).unwrap();
    assert_eq!(same.rights(), few);
    let none = same.replace(Rights::empty()).unwrap();
    let (held, missing) = (Rights::empty(), Rights::DUPLICATE);
    let refused = none.duplicate(Rights::SAME_RIGHTS).unwrap_err();
    assert_eq!(refused, HandleError::AccessDenied { held, missing });
}

#[test]
fn the_kernel_enforces_the_open_mode_and_not_the_rights() {
    let handle = Handle::new(tempfile::tempfile().unwrap());
    let weak = handle.replace(Rights::TRANSFER).unwrap();
    assert_eq!(rustix::io::write(&weak, b"goes in"), Ok(7), "as the documentation says");
}

#[test]
fn duplicates_are_the_same_object_and_new_handles_are_not() {
    let dir = Dir::new();
    let file = File::create_new(dir.file("plain")).unwrap();
    let handle = Handle::new(file.try_clone().unwrap());
    let duplicate = handle.duplicate(Rights::SAME_RIGHTS).unwrap();
    assert_eq!(duplicate.id(), handle.id());
    assert_ne!(duplicate.as_raw_fd(), handle.as_raw_fd());
    let id = handle.id();
    assert_eq!(handle.replace(Rights::READ).unwrap().id(), id);
    let replaced = duplicate.replace(Rights::WRITE).unwrap();
    assert_eq!(replaced.id(), id);
    let other = Handle::new(file);
    assert!(other.id() > id && id >= 1024);
}

#[test]
fn a_handle_owns_its_descriptor_until_it_is_dropped_or_gives_it_away() {
    let dir = Dir::new();
    let handle = Handle::from(File::create_new(dir.file("plain")).unwrap());
    let number = handle.as_raw_fd();
    let duplicate = handle.duplicate(Rights::SAME_RIGHTS).unwrap();
    assert_eq!(dir.open_fds(), 2);
    drop(duplicate);
    assert_eq!(dir.open_fds(), 1);
    let fd = handle.into_fd();
    assert_eq!((fd.as_raw_fd(), dir.open_fds()), (number, 1));
    drop(fd);
    assert_eq!(dir.open_fds(), 0);
}

#[test]
fn every_descriptor_in_a_handle_is_close_on_exec_also_one_that_came_without() {
    let bare = open(Path::new("/"), OFlags::RDONLY);
    assert!(!is_close_on_exec(&bare));
    let handle = Handle::new(bare);
    assert!(is_close_on_exec(&handle));
    let duplicate = handle.duplicate(Rights::SAME_RIGHTS).unwrap();
    assert!(is_close_on_exec(&duplicate));
    assert!(is_close_on_exec(duplicate.replace(Rights::READ).unwrap()));
    assert!(is_close_on_exec(handle.into_fd()), "and it stays so");
}

/// This test program once more, running one test with a mark in its environment.
fn again(mark: &str, test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(mark, "1");
    command
}

#[test]
fn no_handle_comes_along_into_another_program() {
    const INSIDE: &str = "TOMBOLO_TEST_EXEC_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        let links = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
        links.for_each(|link| println!("fd {:?}", fs::read_link(link).unwrap_or_default()));
        return;
    }
    let dir = Dir::new();
    fs::write(dir.file("in a handle"), b"").unwrap();
    fs::write(dir.file("as it came"), b"").unwrap();
    let handle = Handle::new(open(&dir.file("in a handle"), OFlags::RDWR));
    let duplicate = handle.duplicate(Rights::SAME_RIGHTS).unwrap();
    let bare = open(&dir.file("as it came"), OFlags::RDWR);
    let output = again(INSIDE, "no_handle_comes_along_into_another_program").output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{listed}");
    assert!(listed.contains("as it came"), "the program sees what it inherits: {listed}");
    assert!(!listed.contains("in a handle"), "{listed}");
    drop((handle, duplicate, bare));
}

#[test]
fn a_process_without_room_for_descriptors_is_told_so_and_keeps_its_handles() {
    const INSIDE: &str = "TOMBOLO_TEST_NO_ROOM_INSIDE";
    if std::env::var_os(INSIDE).is_none() {
        let test = "a_process_without_room_for_descriptors_is_told_so_and_keeps_its_handles";
        let output = again(INSIDE, test).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("refused"), "it ran");
        return;
    }
    let (handle, other) = (Handle::new(File::open("/").unwrap()), File::open("/").unwrap());
    let _ = (handle.rights(), fill_descriptors());
    let refused = handle.duplicate(Rights::SAME_RIGHTS).unwrap_err();
    assert!(matches!(refused, HandleError::Descriptor { errno: libc::EMFILE, .. }), "{refused:?}");
    println!("refused: {refused}");
    let mut list = [HandleDisposition::moved(other), HandleDisposition::duplicate(&handle)];
    HandleDisposition::try_resolve_all(&mut list, &[]).unwrap_err();
    assert!(matches!(list[0].source, HandleSource::Move(_)), "kept");
    assert_eq!(list[0].result, Ok(()));
    assert_eq!(list[1].result, Err(refused.clone()));
    HandleDisposition::resolve_all(&mut list, &[]).unwrap_err();
    assert!(matches!(list[0].source, HandleSource::Moved), "consumed");
    assert!(handle.duplicate(Rights::SAME_RIGHTS).is_ok(), "which made room for one");
}

/// Leaves this process no room for another descriptor. What is open stays open till its end.
fn fill_descriptors() {
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
    while let Ok(file) = OpenOptions::new().read(true).open("/dev/null") {
        std::mem::forget(file);
    }
}

#[test]
fn handles_and_their_errors_may_go_to_other_threads() {
    fn is_send_and_sync<T: Send + Sync + 'static>() {}
    is_send_and_sync::<Handle>();
    is_send_and_sync::<HandleError>();
    let handle = Handle::new(tempfile::tempfile().unwrap());
    let types: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| handle.handle_type())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(types.iter().all(|kind| *kind == types[0]), "{types:?}");
}

#[test]
fn showing_a_handle_asks_the_kernel_for_nothing_that_is_not_known() {
    let handle = Handle::new(File::open("/").unwrap());
    let before = format!("{handle:?}");
    assert!(before.contains("type: None") && before.contains("rights: None"), "{before}");
    let _ = handle.rights();
    let after = format!("{handle:?}");
    assert!(after.contains("Directory") && after.contains("ENUMERATE"), "{after}");
}
