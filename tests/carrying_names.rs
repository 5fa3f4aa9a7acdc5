//! The names at which receivers of handles listen: a receiver that goes takes its own along, what a killed
//! one leaves is found and removed, and no name that is missing or in the way keeps bytes from coming.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tombolo::options::CreatePolicy;
use tombolo::{
    Error, EventsRegion, MessagePacket, OpenOptions, SpscReceiver, SpscSender, TryRecvError,
    TrySendError,
};

mod support;
use support::carrying::{numbers_of, packet as numbered};
use support::process::{Peer, hear, report, role, wait_for_parent};
use support::{Dir, is_root, small};

/// Long enough for what is done each second.
const SOON: Duration = Duration::from_secs(10);
const USER: u32 = 1234;

fn options() -> OpenOptions {
    small().max_handles(4)
}

fn open(path: &Path) -> (SpscSender, SpscReceiver) {
    EventsRegion::open_path_with(path, options()).unwrap().split_spsc().unwrap()
}

fn packet() -> MessagePacket {
    MessagePacket::from(b"one").handle(std::fs::File::open("/dev/null").unwrap())
}

fn sockets(dir: &Dir) -> usize {
    socket_paths(dir.path()).len()
}

fn socket_paths(dir: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "sock")).collect()
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Root is refused nothing: then this process becomes another user.
fn become_user(user: u32) {
    if is_root() {
        // SAFETY: no list is passed.
        assert_eq!(unsafe { libc::setgroups(0, std::ptr::null()) }, 0);
        // SAFETY: plain numbers; of all threads of this process, which does nothing else.
        assert_eq!(unsafe { libc::setgid(user) }, 0);
        // SAFETY: as before.
        assert_eq!(unsafe { libc::setuid(user) }, 0);
    }
}

/// Open to all users.
fn shared(path: &Path) -> (SpscSender, SpscReceiver) {
    let options = options().mode(0o666).owner(tombolo::options::OwnerPolicy::Any);
    EventsRegion::open_path_with(path, options).unwrap().split_spsc().unwrap()
}

/// In processes of their own; nothing in the test program itself.
#[test]
fn peer_process() {
    let Some((role, path)) = role() else { return };
    let (role, user) = role.split_once(' ').unwrap_or((&role, "0"));
    if user != "0" {
        become_user(user.parse().unwrap());
    }
    match role {
        "receiver" => {
            let (_, mut rx) = if user == "0" { open(&path) } else { shared(&path) };
            rx.attach().unwrap();
            report("ready");
            wait_for_parent(); // with the end
        }
        "creator" => {
            drop(shared(&path));
            report("ready");
        }
        "going-on" => goes_on_behind_a_killed_one(&path),
        "alone" => may_have_no_other_process(&path),
        "refused" => is_refused_a_name_for_a_while(&path),
        other => panic!("no such role: {other}"),
    }
    wait_for_parent();
}

fn leave_a_name(dir: &Dir, path: &Path) {
    Peer::start("peer_process", "receiver", path).kill();
    assert_eq!(sockets(dir), 1);
}

#[test]
fn the_next_receiver_takes_the_name_over_and_removes_it_when_it_goes() {
    let dir = Dir::new();
    let path = dir.file("r");
    leave_a_name(&dir, &path);
    let (mut tx, mut rx) = open(&path);
    rx.attach().unwrap();
    tx.send_packet_timeout(packet(), SOON).unwrap();
    assert_eq!(rx.recv().unwrap().handles.len(), 1);
    assert_eq!(sockets(&dir), 1);
    drop(rx);
    assert_eq!(sockets(&dir), 0);
}

#[test]
fn replacing_the_region_removes_what_a_killed_receiver_left() {
    let dir = Dir::new();
    let path = dir.file("r");
    leave_a_name(&dir, &path);
    let options = options().policy(CreatePolicy::CreateNew);
    let mut region = EventsRegion::open_path_with(&path, options).unwrap();
    assert_eq!(sockets(&dir), 0);
    let (mut tx, mut rx) = region.split_spsc().unwrap();
    rx.attach().unwrap();
    tx.send_packet_timeout(packet(), SOON).unwrap();
    assert_eq!(rx.recv().unwrap().handles.len(), 1);
}

#[test]
fn replacing_a_copy_of_a_region_leaves_the_listener_of_the_other_alone() {
    let dir = Dir::new();
    let (path, copy) = (dir.file("r"), dir.file("copy"));
    drop(EventsRegion::open_path_with(&path, options()).unwrap());
    std::fs::copy(&path, &copy).unwrap();
    let (mut tx, mut rx) = open(&path);
    rx.attach().unwrap();
    let options = options().policy(CreatePolicy::CreateNew);
    drop(EventsRegion::open_path_with(&copy, options).unwrap());
    tx.send_packet_timeout(packet(), SOON).unwrap();
    assert_eq!(rx.recv().unwrap().handles.len(), 1);
}

#[test]
fn a_receiver_whose_name_was_removed_is_found_again_though_it_makes_no_call() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut early, mut rx) = open(&path);
    rx.attach().unwrap();
    early.send_packet(numbered(1, 1)).unwrap();
    drop(early); // it waits to be let in
    for number in 2..5 {
        socket_paths(dir.path()).iter().for_each(|path| std::fs::remove_file(path).unwrap());
        let (mut tx, _) = open(&path);
        tx.send_packet_timeout(numbered(number, 2), SOON).unwrap();
    }
    for (number, count) in [(1, 1), (2, 2), (3, 2), (4, 2)] {
        assert_eq!(numbers_of(&rx.recv().unwrap().handles), vec![number; count]);
    }
    assert_eq!(sockets(&dir), 1);
    drop(rx);
    assert_eq!(sockets(&dir), 0);
}

#[test]
fn a_receiver_whose_name_was_exchanged_is_found_again_and_leaves_the_other_file() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = open(&path);
    rx.attach().unwrap();
    let name = socket_paths(dir.path()).remove(0);
    std::fs::rename(&name, dir.file("away")).unwrap();
    std::fs::write(&name, b"another's").unwrap();
    tx.send_packet_timeout(numbered(1, 1), SOON).unwrap();
    assert_eq!(numbers_of(&rx.recv().unwrap().handles), [1]);
    drop(rx);
    assert_eq!(std::fs::read(&name).unwrap(), b"another's");
    assert_eq!(sockets(&dir), 1);
}

#[test]
fn a_file_with_the_name_of_the_receiver_before_keeps_no_receiver_out() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = open(&path);
    rx.attach().unwrap();
    let name = socket_paths(dir.path()).remove(0);
    drop(rx);
    std::fs::create_dir(&name).unwrap(); // what this user can't remove as a file, as in a sticky directory
    let (_, mut rx) = open(&path);
    rx.attach().unwrap();
    tx.send(b"bytes").unwrap();
    assert_eq!(rx.recv().unwrap().data, b"bytes");
    tx.send_packet_timeout(numbered(1, 1), SOON).unwrap();
    assert_eq!(numbers_of(&rx.recv().unwrap().handles), [1]);
    assert!(name.is_dir());
}

#[test]
fn the_name_of_a_killed_receiver_of_another_user_keeps_no_receiver_out() {
    if !is_root() {
        return eprintln!("skipped: only root can be other users");
    }
    let dir = Dir::new();
    set_mode(dir.path(), 0o1777);
    let path = dir.file("r");
    Peer::start("peer_process", &format!("creator {USER}"), &path).finish();
    for _ in 0..2 {
        Peer::start("peer_process", &format!("receiver {}", USER + 1), &path).kill();
    }
    assert_eq!(sockets(&dir), 1, "its successor of the same user removes it");
    Peer::start("peer_process", &format!("going-on {USER}"), &path).finish();
    assert_eq!(sockets(&dir), 1, "what this user may not remove stays, and nothing else");
    let options = options().mode(0o666).policy(CreatePolicy::CreateNew);
    let options = options.owner(tombolo::options::OwnerPolicy::Any);
    drop(EventsRegion::open_path_with(&path, options).unwrap());
    assert_eq!(sockets(&dir), 0, "root replaces the region and may remove all");
}

fn goes_on_behind_a_killed_one(path: &Path) {
    let (mut tx, mut rx) = shared(path);
    rx.attach().unwrap();
    tx.send(b"bytes").unwrap();
    assert_eq!(rx.recv().unwrap().data, b"bytes");
    tx.send_packet(numbered(1, 2)).unwrap();
    assert_eq!(numbers_of(&rx.recv().unwrap().handles), [1; 2]);
    drop((tx, rx));
    report("ready");
}

#[test]
fn where_no_name_can_be_made_bytes_come_through_and_handles_say_why_until_it_can() {
    let dir = Dir::new();
    set_mode(dir.path(), 0o777);
    let path = dir.file("r");
    let role = if is_root() { format!("refused {USER}") } else { "refused".to_owned() };
    let mut peer = Peer::start_without_waiting("peer_process", &role, &path);
    assert_eq!(peer.next_report(), "created");
    set_mode(dir.path(), 0o555);
    peer.tell("attach");
    let told = peer.next_report();
    set_mode(dir.path(), 0o777); // also for removing it
    assert_eq!(told, "refused");
    peer.tell("go on");
    assert_eq!(peer.next_report(), "ready");
    peer.finish();
}

fn is_refused_a_name_for_a_while(path: &Path) {
    let (mut tx, mut rx) = shared(path);
    report("created");
    assert_eq!(hear().unwrap(), "attach");
    rx.attach().unwrap();
    tx.send(b"bytes").unwrap();
    assert_eq!(rx.recv().unwrap().data, b"bytes");
    let refused = tx.try_send_packet(numbered(1, 1)).unwrap_err();
    let TrySendError::Failed { source: Error::Io { action, source, .. }, message } = refused else {
        panic!("{refused}")
    };
    assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied, "{action}");
    assert_eq!(numbers_of(&message.handles), [1]);
    report("refused");
    assert_eq!(hear().unwrap(), "go on");
    let start = Instant::now();
    while tx.try_send_packet(numbered(2, 1)).is_err() {
        assert!(start.elapsed() < SOON, "it still has no name");
    }
    assert_eq!(numbers_of(&rx.recv().unwrap().handles), [2]);
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    drop(rx);
    assert!(socket_paths(path.parent().unwrap()).is_empty());
    report("ready");
}

#[test]
fn a_user_who_may_have_no_more_processes_can_listen() {
    let dir = Dir::new();
    set_mode(dir.path(), 0o777);
    let role = if is_root() { format!("alone {USER}") } else { "alone".to_owned() };
    Peer::start("peer_process", &role, &dir.file("r")).finish();
}

fn may_have_no_other_process(path: &Path) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let (mut tx, mut rx) = open(path);
    tx.attach().unwrap(); // starts the library's thread
    let none = Rlimit { current: Some(0), maximum: getrlimit(Resource::Nproc).maximum };
    setrlimit(Resource::Nproc, none).unwrap();
    assert!(std::thread::Builder::new().spawn(|| ()).is_err(), "the limit means nothing here");
    rx.attach().unwrap();
    tx.send_packet(numbered(1, 1)).unwrap();
    assert_eq!(numbers_of(&rx.recv().unwrap().handles), [1]);
    report("ready");
}
