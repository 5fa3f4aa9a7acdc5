//! A region without a name goes to another process as handles, and carries handles between the two.

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tombolo::options::MpscOrder;
use tombolo::{
    Error, EventsRegion, Handle, MessagePacket, OpenOptions, SendTimeoutError, SpscReceiver,
    SpscSender, TryRecvError, TrySendError,
};

mod support;
use support::carrying::{SOON, closes_soon, numbers_of, packet};
use support::process::{Peer, report, role, wait_for_parent};
use support::{Dir, small};

/// The ends of the ring with a name by which the other region goes over.
fn named(path: &Path) -> (SpscSender, SpscReceiver) {
    let options = small().max_handles(8);
    EventsRegion::open_path_with(path, options).unwrap().split_spsc().unwrap()
}

fn nameless(order: MpscOrder) -> EventsRegion {
    let options = small().producers(2).mpsc_order(order).max_handles(64);
    EventsRegion::anonymous(options.spsc_capacity(1 << 16).mpsc_capacity(1 << 16)).unwrap()
}

/// Starts a process with `role` and gives it `region`.
fn peer_with(region: &EventsRegion, role: &str) -> Peer {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, _) = named(&path);
    let mut peer = Peer::start("peer_process", role, &path);
    let mut message = MessagePacket::from(b"a region");
    message.handles = region.to_fds().unwrap().into_iter().map(Handle::new).collect();
    tx.send_packet(message).unwrap();
    assert_eq!(peer.next_report(), "joined");
    peer
}

/// What a process of its own does; nothing in the test program itself.
#[test]
fn peer_process() {
    let Some((role, path)) = role() else { return };
    let (_, mut rx) = named(&path);
    rx.attach().unwrap();
    report("ready");
    let fds = rx.recv().unwrap().handles.into_iter().map(Handle::into_fd);
    let mut region = EventsRegion::from_fds(fds, OpenOptions::new()).unwrap();
    let (mut tx, mut rx) = region.split_spsc().unwrap();
    let (mut back, _) = region.split_mpsc().unwrap();
    match role.as_str() {
        "echo" => {
            rx.attach().unwrap();
            report("joined");
            rx.iter().for_each(|message| back.send_packet(message.unwrap()).unwrap());
        }
        "receiver" => {
            rx.attach().unwrap();
            report("joined");
        }
        "receiver-of-one" => {
            rx.attach().unwrap();
            report("joined");
            assert_eq!(numbers_of(&rx.recv().unwrap().handles), [1]);
            report("received");
        }
        "forking-receiver" => {
            rx.attach().unwrap();
            report("joined");
            assert_eq!(numbers_of(&rx.recv().unwrap().handles), [1]);
            leave_a_child();
            report("received");
        }
        "forking-before-receiving" => {
            rx.attach().unwrap();
            leave_a_child();
            report("joined");
        }
        "sender" => {
            (0..5).for_each(|number| tx.send_packet(packet(number, number)).unwrap());
            report("joined");
        }
        "sender-of-too-much" => {
            let few = Rlimit { current: Some(64), maximum: getrlimit(Resource::Nofile).maximum };
            setrlimit(Resource::Nofile, few).unwrap();
            while tx.try_send_packet(packet(1, 8)).is_ok() {}
            report("joined");
            wait_for_parent();
            let refused = tx.send_packet_timeout(packet(2, 8), 2 * SOON).unwrap_err();
            assert!(matches!(refused, SendTimeoutError::Disconnected(_)), "{refused}");
        }
        other => panic!("no such role: {other}"),
    }
    wait_for_parent();
}

/// Forks a child that has all descriptors of this process until the test lets go.
fn leave_a_child() {
    // SAFETY: the child reads from a descriptor, of which no other thread does, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        wait_for_parent();
        // SAFETY: ends the child without running what the parent registered.
        unsafe { libc::_exit(0) };
    }
}

fn handles_go_there_and_back(order: MpscOrder) {
    let mut region = nameless(order);
    let (_, mut back) = region.split_mpsc().unwrap();
    back.attach().unwrap();
    let mut peer = peer_with(&region, "echo");
    let (mut tx, _) = region.split_spsc().unwrap();
    for number in 0..200 {
        tx.send_packet(packet(number, number % 65)).unwrap();
        let message = back.recv_timeout(SOON).unwrap();
        assert_eq!(message.data, number.to_le_bytes());
        assert_eq!(numbers_of(&message.handles), vec![number; (number % 65) as usize]);
    }
    drop(tx); // ends the other's receiving
    peer.let_go();
    peer.finish();
}

#[test]
fn handles_go_there_and_back_on_a_shared_ring() {
    handles_go_there_and_back(MpscOrder::Total);
}

#[test]
fn handles_go_there_and_back_on_a_lane() {
    handles_go_there_and_back(MpscOrder::PerProducer);
}

#[test]
fn what_a_killed_sender_had_sent_arrives_with_its_handles() {
    let mut region = nameless(MpscOrder::Total);
    let (_, mut rx) = region.split_spsc().unwrap();
    rx.attach().unwrap();
    peer_with(&region, "sender").kill();
    for number in 0..5u64 {
        let message = rx.recv_timeout(SOON).unwrap();
        assert_eq!(message.data, number.to_le_bytes());
        assert_eq!(numbers_of(&message.handles), vec![number; number as usize]);
    }
}

#[test]
fn what_a_killed_receiver_had_not_let_in_waits_for_the_next() {
    let mut region = nameless(MpscOrder::Total);
    let peer = peer_with(&region, "receiver");
    let (mut tx, _) = region.split_spsc().unwrap();
    tx.send_packet(packet(1, 3)).unwrap();
    peer.kill();
    let (_, mut rx) = region.split_spsc().unwrap();
    assert_eq!(numbers_of(&rx.recv_timeout(SOON).unwrap().handles), [1; 3]);
    tx.send_packet(packet(2, 64)).unwrap();
    assert_eq!(numbers_of(&rx.recv_timeout(SOON).unwrap().handles), [2; 64]);
}

#[test]
fn what_a_killed_receiver_had_let_in_goes_down_with_it_and_that_is_told() {
    let mut region = nameless(MpscOrder::Total);
    let mut peer = peer_with(&region, "receiver-of-one");
    let (mut tx, _) = region.split_spsc().unwrap();
    tx.send_packet(packet(1, 1)).unwrap();
    assert_eq!(peer.next_report(), "received");
    tx.send_packet(packet(2, 2)).unwrap();
    peer.kill();
    let (_, mut rx) = region.split_spsc().unwrap();
    rx.attach().unwrap();
    tx.send_packet(packet(3, 3)).unwrap();
    let error = rx.try_recv().unwrap_err();
    let TryRecvError::Failed { source: Error::HandlesLost { count: 2, data, .. } } = error else {
        panic!("{error}")
    };
    assert_eq!(data, 2u64.to_le_bytes());
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [3; 3]);
}

#[test]
fn the_child_of_a_receiver_that_was_killed_is_sent_no_handles() {
    let mut region = nameless(MpscOrder::Total);
    let mut peer = peer_with(&region, "forking-receiver");
    let (mut tx, mut rx) = region.split_spsc().unwrap();
    tx.send_packet(packet(1, 1)).unwrap();
    assert_eq!(peer.next_report(), "received");
    peer.kill_alone();
    rx.attach().unwrap();
    tx.send_packet(packet(2, 2)).unwrap();
    assert_eq!(numbers_of(&rx.recv_timeout(SOON).unwrap().handles), [2; 2]);
}

#[test]
fn no_handle_goes_to_a_receiver_that_was_killed_while_a_child_of_it_lives() {
    for role in ["forking-receiver", "forking-before-receiving"] {
        let mut region = nameless(MpscOrder::Total);
        let mut peer = peer_with(&region, role);
        let (mut tx, _) = region.split_spsc().unwrap();
        tx.send_packet(packet(1, 1)).unwrap();
        if role == "forking-receiver" {
            assert_eq!(peer.next_report(), "received");
        }
        peer.kill_alone();
        for number in 0..300 {
            match tx.try_send_packet(packet(number, 1)) {
                Err(TrySendError::NoReceiver(_) | TrySendError::Disconnected(_)) => {}
                other => panic!("{role}: send {number}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_child_of_a_killed_receiver_keeps_no_handle_open_of_a_connection_that_was_let_in() {
    let mut region = nameless(MpscOrder::Total);
    let mut peer = peer_with(&region, "forking-receiver");
    let (mut tx, _) = region.split_spsc().unwrap();
    tx.send_packet(packet(1, 1)).unwrap();
    assert_eq!(peer.next_report(), "received");
    let (witness, handle) = std::io::pipe().unwrap();
    tx.send_packet(MessagePacket::from(b"watched").handle(handle)).unwrap();
    peer.kill_alone();
    closes_soon(witness);
}

#[test]
fn without_a_receiver_nothing_is_left_to_wait_for_one() {
    let mut region = nameless(MpscOrder::Total);
    let (mut tx, rx) = region.split_spsc().unwrap();
    drop(rx);
    for number in 0..1000 {
        let refused = tx.try_send_packet(packet(number, 1)).unwrap_err();
        assert!(matches!(refused, TrySendError::NoReceiver(_)), "{refused}");
    }
    let peer = peer_with(&region, "receiver");
    tx.send_packet(packet(1, 1)).unwrap();
    peer.kill();
    let start = Instant::now();
    loop {
        match tx.try_send_packet(packet(2, 1)) {
            // Until the watcher has noticed.
            Ok(()) | Err(TrySendError::Full(_)) => {
                assert!(start.elapsed() < SOON, "it is sent to nobody");
            }
            Err(TrySendError::Disconnected(_) | TrySendError::NoReceiver(_)) => break,
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_receiver_that_came_without_the_sockets_is_sent_no_handles() {
    let mut region = nameless(MpscOrder::Total);
    let mut half = EventsRegion::from_fd(region.to_fd().unwrap(), OpenOptions::new()).unwrap();
    let (_, mut rx) = half.split_spsc().unwrap();
    rx.attach().unwrap();
    let (mut tx, _) = region.split_spsc().unwrap();
    let refused = tx.try_send_packet(packet(1, 1)).unwrap_err();
    assert!(matches!(refused, TrySendError::NoReceiver(_)), "{refused}");
    tx.send(b"bytes").unwrap();
    assert_eq!(rx.try_recv().unwrap().data, b"bytes");
}

#[test]
fn entrance_and_exit_are_told_apart() {
    let region = nameless(MpscOrder::Total);
    let mut fds = region.to_fds().unwrap();
    fds.swap(3, 4);
    let refused = EventsRegion::from_fds(fds, OpenOptions::new()).unwrap_err();
    assert!(matches!(refused, Error::WrongDescriptor { index: 3, .. }), "{refused}");
}

/// Puts `descriptors` into a rendezvous; where it is full nothing happens.
fn put_in(entrance: &OwnedFd, descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    let flags = SendFlags::DONTWAIT;
    let _ = rustix::net::sendmsg(entrance, &[IoSlice::new(&[0])], &mut control, flags);
}

#[test]
fn what_is_no_connection_is_passed_over_and_closed() {
    let mut region = nameless(MpscOrder::Total);
    let entrance = region.to_fds().unwrap().swap_remove(1);
    let (mut tx, mut rx) = region.split_spsc().unwrap();
    rx.attach().unwrap();
    let (mut witness, writer) = std::io::pipe().unwrap();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    for junk in [&[][..], &[writer.as_fd()], &[ours.as_fd()], &[ours.as_fd(), theirs.as_fd()]] {
        put_in(&entrance, junk);
    }
    drop(writer);
    tx.send_packet(packet(1, 1)).unwrap();
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [1]);
    assert_eq!(witness.read(&mut [0]).unwrap(), 0);
}

/// Root is not counted: then it is the ring that takes no more.
#[test]
fn that_the_receiver_is_gone_is_told_too_where_the_kernel_takes_no_more_handles() {
    let region = nameless(MpscOrder::Total);
    let receiver = peer_with(&region, "receiver");
    let sender = peer_with(&region, "sender-of-too-much");
    receiver.kill();
    sender.finish();
}

#[test]
fn many_senders_that_have_come_and_gone_before_anything_is_received_lose_nothing() {
    let mut region = nameless(MpscOrder::Total);
    let (_, mut rx) = region.split_mpsc().unwrap();
    rx.attach().unwrap();
    for number in 0..200 {
        let (mut tx, _) = region.split_mpsc().unwrap();
        tx.send_packet(packet(number, 1)).unwrap();
    }
    for number in 0..200 {
        assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [number]);
    }
}
