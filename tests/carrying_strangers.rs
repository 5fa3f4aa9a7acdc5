//! Handles go to those who may use the region, and to nobody who merely listens in its place.

use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
use tombolo::{Error, EventsRegion, OwnerPolicy, SpscReceiver, SpscSender, TrySendError};

mod support;
use support::carrying::{Forger, numbered, numbers_of, packet};
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
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    names.into_iter().find(|path| path.extension().is_some_and(|end| end == "sock")).unwrap()
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
        return println!("skipped: only root can be somebody else");
    }
    let dir = Dir::new();
    let (mut tx, mut rx) = shared(&dir);
    rx.claim().unwrap();
    let path = socket_path(dir.path());
    drop(rx);
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
        rx.claim().unwrap();
        tx.claim().unwrap();
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
