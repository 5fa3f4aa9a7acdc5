//! Handles go to those who may use the region, and to nobody who merely listens in its place.

use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, RenameFlags, renameat_with};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
use tombolo::options::OwnerPolicy;
use tombolo::{Error, EventsRegion, SpscReceiver, SpscSender, TrySendError};

mod support;
use support::carrying::{Forger, numbered, numbers_of, packet};
use support::process::{Peer, report, role, wait_for_parent};
use support::{Dir, is_root, small};

const NOBODY: u32 = 65_534;

/// A region that its group may use, in a directory that all may write to.
fn shared(dir: &Dir) -> (SpscSender, SpscReceiver) {
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o1777)).unwrap();
    let options = small().max_handles(8).mode(0o660).owner(OwnerPolicy::Any);
    EventsRegion::open_path_with(dir.file("r"), options).unwrap().split_spsc().unwrap()
}

/// Where the consumer of ring 0 listens.
fn socket_path(dir: &Path) -> PathBuf {
    find_socket(dir).unwrap()
}

fn find_socket(dir: &Path) -> Option<PathBuf> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    names.into_iter().find(|path| path.extension().is_some_and(|end| end == "sock"))
}

fn mode_of(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// As another user, if this one is root. Of this thread alone.
fn become_nobody() {
    if is_root() {
        set_thread_groups(&[]).unwrap();
        set_thread_gid(Gid::from_raw(NOBODY)).unwrap();
        set_thread_uid(Uid::from_raw(NOBODY)).unwrap();
    }
}

/// Listens at `path` as somebody else, a member of `group` and of `groups`.
fn squat(path: &Path, group: u32, groups: &[u32]) -> std::os::fd::OwnedFd {
    as_user(NOBODY, group, groups, || {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
        rustix::net::listen(&socket, 8).unwrap();
        socket
    })
}

/// Does something as `user`, a member of `group` and of `groups`, on a thread of its own.
fn as_user<T: Send>(user: u32, group: u32, groups: &[u32], act: impl FnOnce() -> T + Send) -> T {
    let groups: Vec<_> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
    let act = || {
        // Of this thread alone.
        set_thread_groups(&groups).unwrap();
        set_thread_gid(Gid::from_raw(group)).unwrap();
        set_thread_uid(Uid::from_raw(user)).unwrap();
        act()
    };
    thread::scope(|scope| scope.spawn(act).join().unwrap())
}

#[test]
fn a_stranger_who_listens_in_the_receivers_place_gets_no_handles() {
    if !is_root() {
        return println!("skipped: only root can be another user");
    }
    let dir = Dir::new();
    let (mut tx, mut rx) = shared(&dir);
    rx.attach().unwrap();
    let forger = Forger::at(&dir.file("r"));
    forger.set_socket_number(1 << 20); // a member of the group may do that
    let path = dir.file(&forger.socket_name());
    // The region's group is that of root, 0.
    for (group, groups, is_member) in [
        (NOBODY, &[][..], false),
        (NOBODY, &[1, 2], false),
        (0, &[], true),
        (NOBODY, &[1, 0, 2], true),
        (NOBODY, &Vec::from_iter(100..200), false),
    ] {
        let _squatter = squat(&path, group, groups);
        let sent = tx.try_send_packet(packet(1, 1));
        std::fs::remove_file(&path).unwrap();
        if is_member {
            sent.unwrap();
            tx = shared(&dir).0; // over a connection of its own
            continue;
        }
        let refused = sent.unwrap_err();
        let TrySendError::Failed { message, source } = refused else { panic!("{refused}") };
        assert!(matches!(source, Error::Permission { .. } | Error::Io { .. }), "{source}");
        assert_eq!(numbers_of(&message.handles), [1]);
    }
}

#[test]
fn a_link_in_the_place_of_a_receivers_socket_leads_no_handles_to_another() {
    let dir = Dir::new();
    let (mut tx, mut rx) = shared(&dir);
    rx.attach().unwrap();
    let forger = Forger::at(&dir.file("r"));
    forger.set_socket_number(1 << 20);
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let other = rustix::net::socket_with(family, kind, SocketFlags::NONBLOCK, None).unwrap();
    let path = dir.file("other"); // of this user, as any program's of root may be
    rustix::net::bind(&other, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&other, 8).unwrap();
    std::os::unix::fs::symlink(&path, dir.file(&forger.socket_name())).unwrap();
    let sent = tx.try_send_packet(packet(1, 1));
    assert!(matches!(sent, Err(TrySendError::NoReceiver(_))), "{sent:?}");
    assert!(rustix::net::accept(&other).is_err(), "it was connected to");
}

/// Puts `link` in the place of each socket in `dir` as soon as that has its name, until `is_over`.
fn exchange_sockets(dir: &Path, link: &Path, is_over: &AtomicBool, exchanged: &AtomicU32) {
    become_nobody();
    while !is_over.load(Ordering::Relaxed) {
        let Some(socket) = find_socket(dir) else { continue };
        let exchange = || renameat_with(CWD, link, CWD, &socket, RenameFlags::EXCHANGE);
        let is_socket = |path: &Path| {
            std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
        };
        if is_socket(&socket) && exchange().is_ok() {
            exchanged.fetch_add(1, Ordering::Relaxed);
            while !is_over.load(Ordering::Relaxed) && socket.symlink_metadata().is_ok() {}
            let _ = std::fs::remove_file(link); // the socket
            std::os::unix::fs::symlink(dir.join("victim"), link).unwrap();
        }
    }
}

#[test]
fn a_link_put_in_the_place_of_a_receivers_socket_changes_no_files_mode() {
    let dir = Dir::new();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let (victim, link) = (dir.file("victim"), dir.file("link"));
    std::fs::write(&victim, b"private").unwrap();
    std::fs::set_permissions(&victim, PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&victim, &link).unwrap();
    let options = small().max_handles(8).mode(0o666).owner(OwnerPolicy::Any);
    let mut region = EventsRegion::open_path_with(dir.file("r"), options).unwrap();
    let (is_over, exchanged) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        scope.spawn(|| exchange_sockets(dir.path(), &link, &is_over, &exchanged));
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) && mode_of(&victim) == 0o600 {
            let (_, mut rx) = region.split_spsc().unwrap();
            rx.attach().unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(mode_of(&victim), 0o600, "a file of the receiver's user was opened to others");
    assert!(exchanged.load(Ordering::Relaxed) > 0, "nothing was exchanged");
}

#[test]
fn a_socket_has_its_regions_mode_whatever_the_umask_and_leaves_the_umask_alone() {
    let dir = Dir::new();
    Peer::start("peer_process", "umask", &dir.file("r")).finish();
}

/// In a process of its own: the umask is the whole process's.
#[test]
fn peer_process() {
    let Some((_, path)) = role() else { return };
    for (umask, mode) in [(0o077, 0o666), (0o027, 0o660), (0o777, 0o600), (0, 0o600)] {
        let umask = Mode::from_raw_mode(umask);
        rustix::process::umask(umask);
        let path = path.with_file_name(format!("r{mode}-{}", umask.as_raw_mode()));
        let options = small().max_handles(8).mode(mode);
        let mut region = EventsRegion::open_path_with(&path, options).unwrap();
        let (_, mut rx) = region.split_spsc().unwrap();
        rx.attach().unwrap();
        assert_eq!(mode_of(&socket_path(path.parent().unwrap())), mode);
        assert_eq!(rustix::process::umask(umask), umask);
        let options = libc::WNOHANG | libc::__WALL;
        // SAFETY: no status is asked for.
        let child = unsafe { libc::waitpid(-1, std::ptr::null_mut(), options) };
        assert_eq!(child, -1, "a child is left");
    }
    report("ready");
    wait_for_parent();
}

/// A socket's mode is that of the file when the receiver came. Who may connect since then is asked
/// again for each connection.
#[test]
fn a_stranger_who_could_connect_to_a_receiver_puts_no_handles_in_a_senders_place() {
    if !is_root() {
        return println!("skipped: only root can be somebody else");
    }
    for (user, is_let_in) in [(0, true), (NOBODY, false)] {
        let dir = Dir::new();
        let (mut tx, mut rx) = shared(&dir);
        rx.attach().unwrap();
        tx.attach().unwrap();
        let open_to_all = PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(socket_path(dir.path()), open_to_all).unwrap();
        let forger = Forger::at(&dir.file("r"));
        // With all that a sender knows, which a stranger had to be told.
        let connect = || forger.connect_as_sender(forger.tail());
        let socket = as_user(user, user, &[], connect);
        forger.send_packet(&socket, forger.tail(), 1, &[numbered(7).as_fd()]);
        forger.publish(1, forger.sender());
        let received = rx.try_recv();
        assert_eq!(received.is_ok(), is_let_in, "user {user}: {received:?}");
    }
}
