//! The names at which receivers of handles listen: whoever goes takes its own along, and what a killed
//! one leaves is found and removed.

use std::path::Path;

use tombolo::{CreatePolicy, EventsRegion, MessagePacket, OpenOptions, SpscReceiver, SpscSender};

mod support;
use support::process::{Peer, report, role, wait_for_parent};
use support::{Dir, small};

const SOON: std::time::Duration = std::time::Duration::from_secs(2);

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
    let is_socket = |name: &&std::ffi::OsString| name.as_encoded_bytes().ends_with(b".sock");
    dir.snapshot().keys().filter(is_socket).count()
}

/// A receiver in a process of its own; nothing in the test program itself.
#[test]
fn peer_process() {
    let Some((_, path)) = role() else { return };
    let (_, mut rx) = open(&path);
    rx.claim().unwrap();
    report("ready");
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
    rx.claim().unwrap();
    tx.send_packet_deadline(packet(), SOON).unwrap();
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
    rx.claim().unwrap();
    tx.send_packet_deadline(packet(), SOON).unwrap();
    assert_eq!(rx.recv().unwrap().handles.len(), 1);
}

#[test]
fn replacing_a_copy_of_a_region_leaves_the_listener_of_the_other_alone() {
    let dir = Dir::new();
    let (path, copy) = (dir.file("r"), dir.file("copy"));
    drop(EventsRegion::open_path_with(&path, options()).unwrap());
    std::fs::copy(&path, &copy).unwrap();
    let (mut tx, mut rx) = open(&path);
    rx.claim().unwrap();
    let options = options().policy(CreatePolicy::CreateNew);
    drop(EventsRegion::open_path_with(&copy, options).unwrap());
    tx.send_packet_deadline(packet(), SOON).unwrap();
    assert_eq!(rx.recv().unwrap().handles.len(), 1);
}
