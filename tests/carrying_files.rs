//! What a descriptor that has crossed shares with those who still have it, and which ones don't cross.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::net::{SocketAddrUnix, SocketType, getpeername, sockopt};
use tombolo::handle::{DispositionError, HandleError};
use tombolo::{
    Error, EventsRegion, Handle, HandleType, MessagePacket, MpscConsumer, MpscProducer, Rights,
    TrySendError,
};

mod support;
use support::carrying::{numbers_of, open_count, packet};
use support::process::{Peer, report, role, wait_for_parent};
use support::{Dir, small};

fn open(path: &Path) -> (MpscProducer, MpscConsumer) {
    let options = small().max_handles(8);
    let (tx, mut rx) = EventsRegion::open_path_with(path, options).unwrap().split_mpsc().unwrap();
    rx.attach().unwrap();
    (tx, rx)
}

/// Sends a descriptor and gives what has come.
fn cross(fd: impl Into<OwnedFd>) -> OwnedFd {
    let dir = Dir::new();
    let (mut tx, mut rx) = open(&dir.file("r"));
    tx.try_send_packet(MessagePacket::from(b"").handle(fd.into())).unwrap();
    rx.try_recv().unwrap().handles.remove(0).into_fd()
}

/// How often this thread has called read and the like.
fn reads() -> u64 {
    let counts = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    let line = counts.lines().find_map(|line| line.strip_prefix("syscr: ")).unwrap();
    line.parse().unwrap()
}

#[test]
fn nothing_is_read_of_what_arrives_until_it_is_asked_for() {
    let dir = Dir::new();
    let (mut tx, mut rx) = open(&dir.file("r"));
    tx.attach().unwrap();
    let path = dir.file("file");
    std::fs::write(&path, [7; 100]).unwrap();
    let file = || Handle::new(File::open(&path).unwrap());
    let mut packet = MessagePacket::from(b"files").handle(file());
    let narrowed = [Rights::TRANSFER | Rights::READ, Rights::TRANSFER];
    packet.handles.extend(narrowed.map(|rights| file().replace(rights).unwrap()));
    let at_first = reads();
    let before = reads();
    tx.try_send_packet(packet).unwrap();
    let handles = rx.try_recv().unwrap().handles;
    let own = before - at_first;
    assert_eq!(reads() - before, own, "something was read");
    assert_eq!([handles[1].rights(), handles[2].rights()], narrowed);
    assert!(reads() - before > 2 * own, "reads are not counted here");
}

#[test]
fn position_and_flags_are_those_of_everybody_who_has_the_description() {
    let mut kept = tempfile::tempfile().unwrap();
    kept.write_all(b"0123456789").unwrap();
    kept.seek(SeekFrom::Start(2)).unwrap();
    let mut crossed = File::from(cross(kept.try_clone().unwrap()));
    crossed.read_exact(&mut [0; 3]).unwrap();
    assert_eq!(kept.stream_position().unwrap(), 5);
    let flags = rustix::fs::fcntl_getfl(&crossed).unwrap();
    rustix::fs::fcntl_setfl(&crossed, flags | OFlags::NONBLOCK).unwrap();
    assert!(rustix::fs::fcntl_getfl(&kept).unwrap().contains(OFlags::NONBLOCK));
    // Opened anew, it is a description of its own.
    let path = format!("/proc/self/fd/{}", crossed.as_raw_fd());
    let mut own = File::open(path).unwrap();
    let mut first = [0; 1];
    own.read_exact(&mut first).unwrap();
    assert_eq!((first, kept.stream_position().unwrap()), (*b"0", 5));
    assert!(!rustix::fs::fcntl_getfl(&own).unwrap().contains(OFlags::NONBLOCK));
}

#[test]
fn seals_of_memory_cross_and_tell_whether_its_sender_can_still_shrink_it() {
    for (sealed, seals) in [(false, SealFlags::empty()), (true, SealFlags::SHRINK)] {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = File::from(memfd_create(c"memory", flags).unwrap());
        memory.write_all_at(&[1; 4096], 0).unwrap();
        fcntl_add_seals(&memory, seals).unwrap();
        let crossed = cross(memory.try_clone().unwrap());
        assert_eq!(fcntl_get_seals(&crossed).unwrap().contains(SealFlags::SHRINK), sealed);
        assert_eq!(memory.set_len(0).is_err(), sealed);
    }
}

/// Descriptors of connections to a ring's socket that this process has.
fn connections() -> Vec<OwnedFd> {
    let numbers = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers = numbers.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse());
    let is_one = |fd: &BorrowedFd<'_>| {
        let peer =
            getpeername(fd).ok().flatten().and_then(|name| SocketAddrUnix::try_from(name).ok());
        let has_name = peer.is_some_and(|peer| peer.path().is_some());
        sockopt::socket_type(fd) == Ok(SocketType::SEQPACKET) && has_name
    };
    let numbers: Vec<_> = numbers.map(Result::unwrap).collect();
    // SAFETY: nothing else happens in this process, and what is closed by now is filtered out.
    let all = numbers.into_iter().map(|number| unsafe { BorrowedFd::borrow_raw(number) });
    let found: Vec<_> = all.filter(is_one).collect(); // before any is opened in place of a closed one
    found.iter().map(|fd| fd.try_clone_to_owned().unwrap()).collect()
}

/// In a process of its own, where nobody else opens anything.
#[test]
fn peer_process() {
    let Some((_, path)) = role() else { return };
    let (mut tx, mut rx) = open(&path);
    tx.try_send_packet(packet(1, 1)).unwrap();
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [1]);
    let before = open_count();
    let mut found = connections();
    let own = found.pop().unwrap();
    assert!(found.is_empty(), "who has connected is the sender alone");
    let refused = tx.try_send_packet(MessagePacket::from(b"").handle(own)).unwrap_err();
    let TrySendError::Failed { message, source: Error::Handles { source } } = refused else {
        panic!("{refused}")
    };
    let through_itself = DispositionError::Handle { index: 0, source: HandleError::ThroughItself };
    assert_eq!(source, through_itself);
    assert_eq!(message.handles[0].handle_type(), HandleType::Socket);
    drop(message);
    tx.try_send_packet(packet(2, 1)).unwrap();
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [2]);
    assert_eq!(open_count(), before);
    report("ready");
    wait_for_parent();
}

#[test]
fn a_senders_own_connection_does_not_go_through_itself() {
    let dir = Dir::new();
    Peer::start("peer_process", "itself", &dir.file("r")).finish();
}
