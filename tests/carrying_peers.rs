//! Handles where a peer dies, breaks the rules, or has no descriptors left.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use bytemuck::bytes_of;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tombolo::{
    Error, EventsRegion, MessagePacket, SpscReceiver, SpscSender, TryRecvError, TrySendError,
};
use tombolo_abi::{CarriedHandle, RecordExt, packet_kind};

mod support;
use support::carrying::{
    Forger, SOON, closes_soon, numbered, numbers_of, open_count, packet, send,
};
use support::parts::ReceiveParts;
use support::process::{Peer, report, role, wait_for_parent};
use support::{Dir, small};

fn open(path: &Path) -> (SpscSender, SpscReceiver) {
    let options = small().spsc_capacity(1 << 16).max_handles(64);
    EventsRegion::open_path_with(path, options).unwrap().split_spsc().unwrap()
}

/// What a process of its own does; nothing in the test program itself.
#[test]
fn peer_process() {
    let Some((role, path)) = role() else { return };
    let (mut tx, mut rx) = open(&path);
    match role.as_str() {
        "sender" => (0..5).for_each(|number| tx.send_packet(packet(number, number)).unwrap()),
        "receiver" => rx.attach().unwrap(),
        "few-descriptors" => with_few_descriptors(&mut tx, &mut rx),
        "few-for-many" => with_fewer_descriptors_than_senders(&path, &mut rx),
        "junk" => more_than_there_is_room_for_at_the_rendezvous(),
        "departing" => what_could_not_be_let_in_is_closed_later(tx, rx),
        "counting" => no_descriptor_is_left(&mut tx, &mut rx),
        "closed" => with_the_regions_file_closed_behind_its_back(&path, &mut tx),
        "quota" => with_a_small_quota(&mut tx, &mut rx),
        "starting-programs" => nothing_is_inherited(&mut tx, &mut rx),
        other => panic!("no such role: {other}"),
    }
    report("ready");
    wait_for_parent();
}

fn peer(role: &str, path: &Path) -> Peer {
    Peer::start("peer_process", role, path)
}

/// Another file in the place of the region's tells nothing of who lives.
fn with_the_regions_file_closed_behind_its_back(path: &Path, tx: &mut SpscSender) {
    tx.send_packet(packet(1, 1)).unwrap();
    let other = numbered(0);
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let entry = entry.unwrap();
        if std::fs::read_link(entry.path()).is_ok_and(|target| target == path) {
            let number = entry.file_name().to_str().unwrap().parse().unwrap();
            // SAFETY: both are open; what the library does then is what is looked at.
            assert_eq!(unsafe { libc::dup2(other.as_raw_fd(), number) }, number);
        }
    }
    let refused = tx.try_send_packet(packet(2, 1)).unwrap_err();
    let is_lost = matches!(
        &refused,
        TrySendError::Failed { source: Error::LockLost { .. }, message }
            if numbers_of(&message.handles) == [2]
    );
    assert!(is_lost, "{refused}");
}

/// Lets the process have no descriptors but `more` than now, as long as `body` runs.
fn limited<T>(more: usize, body: impl FnOnce() -> T) -> T {
    let before = getrlimit(Resource::Nofile);
    let listed: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse::<u64>().unwrap())
        .collect();
    let is_open = |number: &u64| {
        // The listing's own is closed by now.
        listed.contains(number) && Path::new(&format!("/proc/self/fd/{number}")).exists()
    };
    // As high as leaves so many free below it.
    let current = Some((0u64..).filter(|number| !is_open(number)).nth(more).unwrap());
    setrlimit(Resource::Nofile, Rlimit { current, maximum: before.maximum }).unwrap();
    let result = body();
    setrlimit(Resource::Nofile, before).unwrap();
    result
}

fn with_few_descriptors(tx: &mut SpscSender, rx: &mut SpscReceiver) {
    rx.attach().unwrap();
    tx.send_packet(packet(1, 64)).unwrap();
    tx.send(b"behind").unwrap();
    for more in [0, 1, 2, 17, 40] {
        let before = open_count();
        // The first time not even the connection can be accepted.
        let error = limited(more, || rx.try_recv().unwrap_err());
        let is_told =
            matches!(error, TryRecvError::Failed { source: Error::TooManyFiles { ring: 0, .. } });
        assert!(is_told, "{more} more: {error}");
        assert!(open_count() <= before + 1, "descriptors were kept with {more} more");
    }
    let message = rx.try_recv().unwrap();
    assert_eq!(numbers_of(&message.handles), [1; 64]);
    assert_eq!(rx.try_recv().unwrap().data, b"behind");
    // Whoever has no room for ever may drop the message.
    tx.send_packet(packet(2, 64)).unwrap();
    tx.send_packet(packet(3, 1)).unwrap();
    limited(5, || {
        assert!(rx.try_recv().is_err());
        drop(rx.try_recv_ref().unwrap());
        assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [3]);
    });
}

/// Only the connection that is looked for is accepted.
fn with_fewer_descriptors_than_senders(path: &Path, rx: &mut SpscReceiver) {
    rx.attach().unwrap();
    for number in 0..200 {
        open(path).0.send_packet(packet(number, 1)).unwrap();
    }
    limited(6, || {
        for number in 0..200 {
            match number % 3 {
                0 => drop(rx.try_recv_ref().unwrap()),
                _ => assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [number]),
            }
        }
    });
}

/// Who else has the region put there what is no connection, and more of it than can be looked at.
fn more_than_there_is_room_for_at_the_rendezvous() {
    let mut region = EventsRegion::anonymous(small().max_handles(1)).unwrap();
    let entrance = region.to_fds().unwrap().swap_remove(1);
    let (mut tx, mut rx) = region.split_spsc().unwrap();
    rx.attach().unwrap();
    send(&entrance, &[0], &[entrance.as_fd(); 4]);
    tx.send_packet(packet(1, 1)).unwrap();
    limited(2, || assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [1]));
}

/// The only message is dropped, and its sender gone, while not even the connection can be accepted.
fn what_could_not_be_let_in_is_closed_later(mut tx: SpscSender, mut rx: SpscReceiver) {
    rx.attach().unwrap();
    let (witness, handle) = std::io::pipe().unwrap();
    tx.send_packet(MessagePacket::from(b"").handle(handle)).unwrap();
    limited(0, || {
        drop(rx.try_recv_ref().unwrap());
        drop(tx);
        while !matches!(rx.try_recv(), Err(TryRecvError::Disconnected)) {}
    });
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Disconnected)));
    closes_soon(witness);
}

/// Every way that a message can go, many times.
fn no_descriptor_is_left(tx: &mut SpscSender, rx: &mut SpscReceiver) {
    rx.attach().unwrap();
    tx.send_packet(packet(0, 1)).unwrap();
    drop(rx.try_recv().unwrap());
    let before = open_count();
    for number in 0..500 {
        let count = number % 9;
        tx.send_packet(packet(number, count)).unwrap();
        match number % 5 {
            0 => drop(rx.try_recv().unwrap()),
            1 => drop(rx.try_recv_ref().unwrap()),
            2 => drop(rx.try_recv_ref().unwrap().handles().unwrap()),
            3 => {
                let mut handles = [const { None }; 4];
                let taken = rx.try_recv_parts_or_discard(&mut [0; 8], &mut handles);
                assert_eq!(taken.is_ok(), count <= 4);
            }
            _ => {
                rx.try_recv_ref().unwrap().keep();
                assert_eq!(rx.drain(1, |_| {}).unwrap(), 1);
            }
        }
        let mut refused = packet(number, 65);
        refused = match tx.try_send_packet(refused) {
            Err(tombolo::TrySendError::Failed { message, source: Error::Handles { .. } }) => {
                message
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(refused.handles.len(), 65);
    }
    assert_eq!(open_count(), before);
}

/// The kernel counts the descriptors that a user has under way against the limit of open files, but
/// not those of root.
fn with_a_small_quota(tx: &mut SpscSender, rx: &mut SpscReceiver) {
    rx.attach().unwrap();
    let before = getrlimit(Resource::Nofile);
    let few = Rlimit { current: Some(64), maximum: before.maximum };
    setrlimit(Resource::Nofile, few).unwrap();
    let (start, mut sent) = (Instant::now(), 0);
    let refused = loop {
        match tx.try_send_packet(packet(sent, 8)) {
            Ok(()) => sent += 1,
            Err(_) if sent == 0 && start.elapsed() < SOON => {} // other tests are the same user
            Err(refused) => break refused,
        }
    };
    let tombolo::TrySendError::Full(refused) = refused else { panic!("{refused}") };
    assert_eq!(numbers_of(&refused.handles), [sent; 8]);
    assert!(sent > 0 && if support::is_root() { sent * 8 == 256 } else { sent * 8 <= 72 });
    for number in 0..sent {
        assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [number; 8]);
    }
    tx.send_packet_timeout(refused, SOON).unwrap();
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [sent; 8]);
    setrlimit(Resource::Nofile, before).unwrap();
}

fn nothing_is_inherited(tx: &mut SpscSender, rx: &mut SpscReceiver) {
    rx.attach().unwrap();
    tx.send_packet(packet(1, 20)).unwrap();
    let message = rx.try_recv().unwrap();
    assert!(open_count() > 25);
    let listing = Command::new("ls").arg("/proc/self/fd").output().unwrap();
    assert!(listing.status.success());
    let count = String::from_utf8(listing.stdout).unwrap().lines().count();
    assert!(count < 8, "a program started by us has {count} descriptors");
    drop(message);
}

#[test]
fn a_process_without_descriptors_keeps_the_message_whole_until_it_has_some() {
    let dir = Dir::new();
    peer("few-descriptors", &dir.file("r")).finish();
}

#[test]
fn a_process_with_fewer_descriptors_than_senders_receives_from_all() {
    let dir = Dir::new();
    peer("few-for-many", &dir.file("r")).finish();
}

#[test]
fn a_process_with_few_descriptors_passes_over_what_is_no_connection() {
    let dir = Dir::new();
    peer("junk", &dir.file("r")).finish();
}

#[test]
fn the_connection_of_a_sender_that_is_gone_is_closed_once_there_are_descriptors_again() {
    let dir = Dir::new();
    peer("departing", &dir.file("r")).finish();
}

#[test]
fn no_descriptor_is_left_open_on_any_way_that_a_message_goes() {
    let dir = Dir::new();
    peer("counting", &dir.file("r")).finish();
}

#[test]
fn a_sender_whose_descriptor_of_the_region_was_closed_takes_no_receiver_for_gone() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (_, mut rx) = open(&path);
    rx.attach().unwrap();
    peer("closed", &path).finish();
}

#[test]
fn a_user_with_too_many_handles_under_way_has_to_wait_and_loses_none() {
    let dir = Dir::new();
    peer("quota", &dir.file("r")).finish();
}

#[test]
fn a_sender_that_comes_back_again_and_again_leaves_no_connections_behind() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = open(&path);
    rx.attach().unwrap();
    tx.send_packet(packet(0, 1)).unwrap();
    let (forger, orphan) = (Forger::at(&path), numbered(0));
    for number in 1..150 {
        // Half of them die before they publish what they have handed over last.
        if number % 2 == 0 {
            let tail = forger.tail();
            forger.send_packet(&forger.connect_as_sender(tail), tail, 1, &[orphan.as_fd()]);
        }
        drop(tx);
        (tx, _) = open(&path);
        tx.send_packet(packet(number, 1)).unwrap(); // the ring is never empty
        assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [number - 1]);
    }
}

#[test]
fn many_senders_that_have_come_and_gone_before_anything_is_received_lose_nothing() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (_, mut rx) = open(&path);
    rx.attach().unwrap();
    for number in 0..200 {
        open(&path).0.send_packet(packet(number, 1)).unwrap();
    }
    for number in 0..200 {
        assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [number]);
    }
}

#[test]
fn programs_started_later_inherit_neither_handles_nor_connections() {
    let dir = Dir::new();
    peer("starting-programs", &dir.file("r")).finish();
}

#[test]
fn a_sender_killed_after_sending_loses_neither_bytes_nor_handles() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (_, mut rx) = open(&path);
    rx.attach().unwrap();
    peer("sender", &path).kill();
    for number in 0..5u64 {
        let message = rx.recv_timeout(SOON).unwrap();
        assert_eq!(message.data, number.to_le_bytes());
        assert_eq!(numbers_of(&message.handles), vec![number; number as usize]);
    }
}

#[test]
fn handles_on_their_way_to_a_receiver_that_is_killed_are_closed_and_told_to_the_next() {
    let dir = Dir::new();
    let path = dir.file("r");
    let receiver = peer("receiver", &path);
    let (mut tx, mut rx) = open(&path);
    let (witness, handle) = std::io::pipe().unwrap();
    tx.send_packet(MessagePacket::from(b"old").handle(handle)).unwrap();
    receiver.kill();
    closes_soon(witness);
    claim_soon(&mut rx);
    tx.send_packet(packet(7, 3)).unwrap();
    let TryRecvError::Failed { source } = rx.try_recv().unwrap_err() else { panic!() };
    assert!(matches!(source, Error::HandlesLost { count: 1, data, .. } if data == b"old"));
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [7; 3]);
}

fn claim_soon(rx: &mut SpscReceiver) {
    let start = Instant::now();
    while let Err(Error::Busy { .. }) = rx.attach() {
        assert!(start.elapsed() < SOON);
    }
}

/// A region with both ends claimed, and a forger at it.
fn forged() -> (Dir, SpscSender, SpscReceiver, Forger) {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = open(&path);
    tx.attach().unwrap();
    rx.attach().unwrap();
    let forger = Forger::at(&path);
    (dir, tx, rx, forger)
}

#[track_caller]
fn is_violation(rx: &mut SpscReceiver, wanted: &str) {
    let error = rx.try_recv().unwrap_err();
    let TryRecvError::Failed { source } = error else { panic!("{error}") };
    let Error::ProtocolViolation { ring: 0, slot: 1, reason, .. } = source else {
        panic!("{source}")
    };
    assert!(reason.contains(wanted), "{reason}");
}

#[test]
fn a_packet_whose_sender_died_before_it_published_goes_to_no_other_message() {
    let (dir, tx, mut rx, forger) = forged();
    let position = forger.tail();
    let (witness, orphan) = std::io::pipe().unwrap();
    let socket = forger.connect_as_sender(position);
    forger.send_packet(&socket, position, 1, &[orphan.as_fd()]);
    drop((tx, socket, orphan)); // gone without a record
    let (mut tx, _) = open(&dir.file("r"));
    tx.send_packet(packet(5, 1)).unwrap(); // at the very same position
    let record = rx.try_recv_ref().unwrap();
    assert_eq!(record.position(), position);
    assert_eq!(numbers_of(&record.handles().unwrap()), [5]);
    drop(record);
    let start = Instant::now();
    let mut closing = Some(witness);
    while let Some(witness) = closing.take() {
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty | TryRecvError::Disconnected)));
        let mut events = [rustix::event::PollFd::new(&witness, rustix::event::PollFlags::IN)];
        let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        if rustix::event::poll(&mut events, Some(&wait)).unwrap() == 0 {
            assert!(start.elapsed() < SOON, "the orphan is still open");
            closing = Some(witness);
        }
    }
}

#[test]
fn an_orphan_of_the_same_sender_is_passed_over() {
    let (_dir, _tx, mut rx, forger) = forged();
    let (witness, orphan) = std::io::pipe().unwrap();
    let (at, descriptor) = (forger.tail(), numbered(3));
    let socket = forger.connect_as_sender(at.wrapping_sub(64));
    forger.send_packet(&socket, at.wrapping_sub(8), 1, &[orphan.as_fd()]);
    forger.send_packet(&socket, at, 1, &[descriptor.as_fd()]);
    forger.publish(1, forger.sender());
    drop(orphan);
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [3]);
    closes_soon(witness);
}

#[test]
fn a_record_without_its_packet_is_a_violation_and_passed_over() {
    let (_dir, mut tx, mut rx, forger) = forged();
    tx.send_packet(packet(1, 1)).unwrap();
    assert_eq!(rx.try_recv().unwrap().handles.len(), 1);
    forger.publish(2, forger.sender());
    is_violation(&mut rx, "none were sent");
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
}

#[test]
fn a_record_of_a_sender_that_never_connected_has_lost_its_handles() {
    let (_dir, _tx, mut rx, forger) = forged();
    forger.publish(2, forger.sender());
    let TryRecvError::Failed { source } = rx.try_recv().unwrap_err() else { panic!() };
    assert!(matches!(source, Error::HandlesLost { count: 2, .. }), "{source}");
}

#[test]
fn other_numbers_of_handles_than_the_record_states_are_violations_and_all_are_closed() {
    // Handles that the record states, that the packet states, descriptors.
    for (stated, said, given) in [(1, 2, 2), (2, 1, 1), (2, 2, 1), (1, 1, 2), (3, 3, 0)] {
        let (_dir, _tx, mut rx, forger) = forged();
        let (witness, handle) = std::io::pipe().unwrap();
        let position = forger.tail();
        let socket = forger.connect_as_sender(position);
        forger.send_packet(&socket, position, said, &vec![handle.as_fd(); given]);
        forger.publish(stated, forger.sender());
        drop(handle);
        is_violation(&mut rx, "another number");
        closes_soon(witness);
    }
}

#[test]
fn handles_of_another_kind_than_one_descriptor_are_a_violation_and_closed() {
    for (at, value) in [(4, 1), (6, 0), (6, 3)] {
        let (_dir, _tx, mut rx, forger) = forged();
        let (witness, handle) = std::io::pipe().unwrap();
        let position = forger.tail();
        let socket = forger.connect_as_sender(position);
        let mut bytes = forger.packet(position, 2);
        let second = bytes.len() - size_of::<CarriedHandle>();
        bytes[second + at] = value;
        send(&socket, &bytes, &[handle.as_fd(), handle.as_fd()]);
        forger.publish(2, forger.sender());
        drop(handle);
        is_violation(&mut rx, "a kind of handle");
        closes_soon(witness);
    }
}

#[test]
fn packets_that_are_none_are_violations_or_skipped() {
    let (_dir, _tx, mut rx, forger) = forged();
    let position = forger.tail();
    let (witness, handle) = std::io::pipe().unwrap();
    let socket = forger.connect_as_sender(position);
    send(&socket, &[9; 32], &[handle.as_fd()]); // of a kind of later versions
    let mut malformed = vec![0; 33];
    malformed[..4].copy_from_slice(&packet_kind::HANDLES.to_le_bytes());
    send(&socket, &malformed, &[handle.as_fd(), handle.as_fd()]);
    forger.publish(1, forger.sender());
    drop(handle);
    is_violation(&mut rx, "malformed");
    closes_soon(witness);
}

#[test]
fn whoever_says_no_proper_hello_is_turned_away_and_harms_nobody() {
    let (_dir, mut tx, mut rx, forger) = forged();
    let good = forger.hello(0);
    let mut wrong = [good; 6];
    wrong[0].kind = 2;
    wrong[1].ring = 1;
    wrong[2].region_uuid = [0; 16];
    wrong[3].key = !good.key;
    wrong[4].device = !good.device;
    wrong[5].inode = !good.inode;
    let mut sockets = vec![forger.connect()]; // says nothing at all
    let mut witnesses = Vec::new();
    for hello in wrong {
        let (witness, handle) = std::io::pipe().unwrap();
        let socket = forger.connect();
        send(&socket, bytes_of(&hello), &[handle.as_fd()]);
        sockets.push(socket);
        witnesses.push(witness);
    }
    send(&sockets[0], &[], &[]);
    tx.send_packet(packet(4, 2)).unwrap();
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [4; 2]);
    witnesses.into_iter().for_each(closes_soon);
}

#[test]
fn more_connections_than_there_are_senders_harm_nobody() {
    let (_dir, mut tx, mut rx, forger) = forged();
    tx.send_packet(packet(1, 1)).unwrap();
    assert_eq!(rx.try_recv().unwrap().handles.len(), 1);
    let _sockets: Vec<_> = (0..300).map(|_| forger.connect()).collect();
    forger.publish(1, RecordExt { txid: 0, slot: 1, incarnation_low: 0xffff });
    let TryRecvError::Failed { source } = rx.try_recv().unwrap_err() else { panic!() };
    assert!(matches!(source, Error::HandlesLost { .. }), "{source}");
    tx.send_packet(packet(2, 1)).unwrap_or_else(|error| panic!("{error}"));
}
