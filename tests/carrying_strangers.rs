//! Handles go to those who may use the region, and to nobody who merely listens in its place.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
use tombolo::{Error, EventsRegion, OwnerPolicy, SpscReceiver, SpscSender, TrySendError};

mod support;
use support::carrying::{numbers_of, packet};
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
    let groups: Vec<_> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
    let listen = || {
        // Of this thread alone.
        set_thread_groups(&groups).unwrap();
        set_thread_gid(Gid::from_raw(group)).unwrap();
        set_thread_uid(Uid::from_raw(NOBODY)).unwrap();
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
        rustix::net::listen(&socket, 8).unwrap();
        socket
    };
    thread::scope(|scope| scope.spawn(listen).join().unwrap())
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
