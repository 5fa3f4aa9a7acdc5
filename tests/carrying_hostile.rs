//! Whoever may connect to a ring's socket can neither stop honest senders nor leave anything behind.

use std::io::PipeReader;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use bytemuck::bytes_of;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tombolo::{
    EventsRegion, MpscConsumer, MpscProducer, SpscReceiver, SpscSender, TryRecvError, wait_any,
};
use tombolo_abi::{Hello, RingControl};

mod support;
use support::carrying::{Forger, SOON, closes_soon, numbers_of, packet, send};
use support::{Dir, small};

fn region(path: &Path) -> EventsRegion {
    let options = small().spsc_capacity(1 << 16).mpsc_capacity(1 << 16).max_handles(64);
    EventsRegion::open_path_with(path, options.producers(3)).unwrap()
}

fn spsc(path: &Path) -> (SpscSender, SpscReceiver) {
    region(path).split_spsc().unwrap()
}

fn mpsc(path: &Path) -> (MpscProducer, MpscConsumer) {
    region(path).split_mpsc().unwrap()
}

/// Receives nothing, again and again, until nobody has the other end of `witness` any more.
#[track_caller]
fn closes_while(witness: PipeReader, mut receive: impl FnMut()) {
    let start = Instant::now();
    loop {
        receive();
        let mut events = [PollFd::new(&witness, PollFlags::IN)];
        let wait = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        if poll(&mut events, Some(&wait)).unwrap() > 0 {
            return closes_soon(witness);
        }
        assert!(start.elapsed() < SOON, "somebody still has it open");
    }
}

#[test]
fn hundreds_of_senders_that_came_and_went_before_anybody_looked_lose_nothing() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (_, mut rx) = spsc(&path);
    rx.claim().unwrap();
    for number in 0..250 {
        spsc(&path).0.try_send_packet(packet(number, 1)).unwrap();
    }
    for number in 0..250 {
        assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [number]);
    }
}

#[test]
fn a_hello_of_a_sender_that_the_ring_has_not_is_turned_away() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = mpsc(&path);
    rx.claim().unwrap();
    tx.claim().unwrap();
    let forger = Forger::at_ring(&path, 1);
    let good = forger.hello(0);
    let wrong = [
        Hello { slot: u16::MAX, ..good },
        Hello { slot: 0, ..good },
        Hello { slot: good.slot - 1, ..good },
        Hello { slot: good.slot + 3, ..good },
    ];
    let mut witnesses = Vec::new();
    let sockets: Vec<_> = wrong
        .map(|hello| {
            let (witness, handle) = std::io::pipe().unwrap();
            let socket = forger.connect();
            send(&socket, bytes_of(&hello), &[]);
            send(&socket, &[7; 32], &[handle.as_fd()]);
            witnesses.push(witness);
            socket
        })
        .into_iter()
        .collect();
    tx.send_packet(packet(1, 1)).unwrap();
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [1]);
    drop(sockets);
    drop(tx); // a departure: who else is gone is looked into
    assert!(matches!(rx.recv_timeout(SOON), Err(tombolo::RecvTimeoutError::Disconnected)));
    witnesses.into_iter().for_each(closes_soon);
}

#[test]
fn hellos_that_nothing_follows_take_no_honest_senders_place() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = mpsc(&path);
    rx.claim().unwrap();
    tx.claim().unwrap();
    let forger = Forger::at_ring(&path, 1);
    let good = forger.hello(0);
    for slot in 0..200 {
        let socket = forger.connect();
        send(&socket, bytes_of(&Hello { slot, ..good }), &[]);
    }
    let silent: Vec<_> = (0..600).map(|_| forger.connect()).collect();
    tx.send_packet(packet(1, 1)).unwrap();
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [1]);
    tx.send_packet(packet(2, 1)).unwrap();
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [2]);
    drop(silent);
}

#[test]
fn the_bound_of_handles_under_way_holds_again_after_kills_that_left_the_counters_apart() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = spsc(&path);
    rx.claim().unwrap();
    tx.claim().unwrap();
    let forger = Forger::at(&path);
    for apart in [-1_000_000, -1000, 1000, 1_000_000] {
        let sent = forger.control(std::mem::offset_of!(RingControl, handles_sent));
        let taken = std::mem::offset_of!(RingControl, handles_taken);
        forger.set_control(taken, sent.wrapping_sub_signed(apart));
        let mut under_way = 0;
        while tx.try_send_packet(packet(under_way, 8)).is_ok() {
            under_way += 8;
        }
        assert_eq!(under_way, 256, "{apart} apart");
        while rx.try_recv().is_ok() {}
    }
}

/// What a producer of ring 1 that is gone left behind: its connection, with handles of no record.
/// Others live.
fn an_orphan(path: &Path) -> (PipeReader, OwnedFd) {
    let (mut tx, _) = mpsc(path);
    tx.claim().unwrap();
    let forger = Forger::at_ring(path, 1).posing_as(1);
    let (witness, orphan) = std::io::pipe().unwrap();
    let socket = forger.connect_as_sender(forger.tail());
    forger.send_packet(&socket, forger.tail(), 1, &[orphan.as_fd()]);
    (witness, socket)
}

#[test]
fn orphans_are_closed_while_other_producers_live_whichever_way_is_waited() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = mpsc(&path);
    rx.claim().unwrap();
    tx.claim().unwrap();
    let (witness, _socket) = an_orphan(&path);
    closes_while(witness, || assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty))));
    let (witness, _socket) = an_orphan(&path);
    let short = Duration::from_millis(10);
    closes_while(witness, || assert!(rx.recv_timeout(short).is_err()));
    let (witness, _socket) = an_orphan(&path);
    closes_while(witness, || {
        assert!(wait_any(&mut [&mut rx], short).is_err());
    });
    tx.send_packet(packet(1, 1)).unwrap();
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [1]);
}

#[test]
fn orphans_are_closed_while_other_producers_send_all_the_time() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = mpsc(&path);
    rx.claim().unwrap();
    tx.claim().unwrap();
    let mut orphans = Vec::new();
    for number in 0..1000 {
        tx.send_packet(packet(number, 1)).unwrap(); // the ring is never empty
        orphans.push(an_orphan(&path));
        if number > 0 {
            assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [number - 1]);
        }
    }
    let (mut fresh, _) = mpsc(&path);
    fresh.send_packet(packet(1000, 1)).unwrap();
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [999]);
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [1000]);
    orphans.into_iter().for_each(|(witness, _socket)| {
        closes_while(witness, || assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty))))
    });
}
