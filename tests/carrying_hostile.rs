//! Whoever may connect to a ring's socket can neither stop honest senders nor leave anything behind.

use std::io::{PipeReader, PipeWriter};
use std::mem::size_of;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use bytemuck::bytes_of;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tombolo::options::MpscOrder;
use tombolo::{
    Error, EventsRegion, MpscConsumer, MpscProducer, SpscReceiver, SpscSender, TryRecvError,
    wait_any,
};
use tombolo_abi::{HandlePacket, Hello, RingControl, packet_kind};

mod support;
use support::carrying::{
    Forger, SOON, closes_soon, numbered, numbers_of, open_count, packet, send, send_lists, try_send,
};
use support::process::{Peer, report, role, wait_for_parent};
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
    rx.attach().unwrap();
    for number in 0..250 {
        spsc(&path).0.try_send_packet(packet(number, 1)).unwrap();
    }
    for number in 0..250 {
        assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [number]);
    }
}

fn of_slot(mut hello: Hello, slot: u16) -> Hello {
    hello.slot = slot;
    hello
}

#[test]
fn a_hello_of_a_sender_that_the_ring_has_not_is_turned_away() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = mpsc(&path);
    rx.attach().unwrap();
    tx.attach().unwrap();
    let forger = Forger::at_ring(&path, 1);
    let good = forger.hello(0);
    let wrong = [u16::MAX, 0, good.slot - 1, good.slot + 3];
    let mut witnesses = Vec::new();
    let sockets: Vec<_> = wrong
        .map(|slot| {
            let (witness, handle) = std::io::pipe().unwrap();
            let socket = forger.connect();
            send(&socket, bytes_of(&of_slot(good, slot)), &[]);
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
fn a_packet_in_the_name_of_another_sender_than_its_connections_is_refused() {
    let changes: [fn(&mut HandlePacket); 4] = [
        |_| {},
        |packet| packet.slot += 1,        // another producer's
        |packet| packet.incarnation += 1, // its successor's
        |packet| packet.incarnation += 1 << 16,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let dir = Dir::new();
        let path = dir.file("r");
        let (mut tx, mut rx) = mpsc(&path);
        rx.attach().unwrap();
        tx.attach().unwrap();
        let forger = Forger::at_ring(&path, 1);
        let mut bytes = forger.packet(forger.tail(), 1);
        let head = &mut bytes[..size_of::<HandlePacket>()];
        let mut packet = bytemuck::pod_read_unaligned(head);
        change(&mut packet);
        head.copy_from_slice(bytes_of(&packet));
        send(&forger.connect_as_sender(forger.tail()), &bytes, &[numbered(7).as_fd()]);
        forger.publish(1, forger.sender());
        let received = rx.try_recv();
        if number == 0 {
            assert_eq!(numbers_of(&received.unwrap().handles), [7]);
            continue;
        }
        let refused = received.unwrap_err();
        let TryRecvError::Failed { source } = &refused else { panic!("{refused}") };
        assert!(matches!(source, Error::ProtocolViolation { ring: 1, .. }), "{source}");
    }
}

/// Publishes an empty record with one handle as `forger`'s sender, and gives what comes of it.
fn receive_forged(forger: &Forger, rx: &mut MpscConsumer) -> Result<Vec<u64>, Error> {
    forger.publish(1, forger.sender());
    match rx.try_recv() {
        Ok(message) => Ok(numbers_of(&message.handles)),
        Err(TryRecvError::Failed { source }) => Err(source),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_hello_of_another_region_or_another_make_is_not_taken_for_the_senders() {
    let changes: [fn(&mut Hello); 8] = [
        |_| {},
        |hello| hello.kind = packet_kind::HANDLES,
        |hello| hello.ring = 0,
        |hello| hello.ring = u32::MAX,
        |hello| hello.region_uuid[15] ^= 1,
        |hello| hello.key ^= 1,
        |hello| hello.device ^= 1,
        |hello| hello.inode ^= 1,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        for longer in [0, 1] {
            let dir = Dir::new();
            let path = dir.file("r");
            let (mut tx, mut rx) = mpsc(&path);
            rx.attach().unwrap();
            tx.attach().unwrap();
            let forger = Forger::at_ring(&path, 1);
            let mut hello = forger.hello(forger.tail());
            change(&mut hello);
            let mut bytes = bytes_of(&hello).to_vec();
            bytes.resize(bytes.len() + longer, 0);
            let socket = forger.connect();
            send(&socket, &bytes, &[]);
            let _ = try_send(&socket, &forger.packet(forger.tail(), 1), &[numbered(7).as_fd()]);
            let received = receive_forged(&forger, &mut rx);
            match (number, longer, received) {
                (0, 0, Ok(numbers)) => assert_eq!(numbers, [7]),
                (_, _, Err(Error::HandlesLost { ring: 1, .. })) if number + longer > 0 => {}
                (.., received) => panic!("change {number}, {longer} longer: {received:?}"),
            }
        }
    }
}

#[test]
fn a_packet_of_another_ring_or_another_length_is_refused() {
    let changes: [fn(&mut Vec<u8>); 4] = [
        |_| {},
        |bytes| bytes[std::mem::offset_of!(HandlePacket, ring)] = 0,
        |bytes| bytes.extend([0; 8]),
        |bytes| bytes.truncate(bytes.len() - 8),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let dir = Dir::new();
        let path = dir.file("r");
        let (mut tx, mut rx) = mpsc(&path);
        rx.attach().unwrap();
        tx.attach().unwrap();
        let forger = Forger::at_ring(&path, 1);
        let mut bytes = forger.packet(forger.tail(), 1);
        change(&mut bytes);
        send(&forger.connect_as_sender(forger.tail()), &bytes, &[numbered(7).as_fd()]);
        match (number, receive_forged(&forger, &mut rx)) {
            (0, Ok(numbers)) => assert_eq!(numbers, [7]),
            (1.., Err(Error::ProtocolViolation { ring: 1, .. })) => {}
            (_, received) => panic!("change {number}: {received:?}"),
        }
    }
}

#[test]
fn a_packet_of_a_kind_that_is_not_known_is_passed_by() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = mpsc(&path);
    rx.attach().unwrap();
    tx.attach().unwrap();
    let forger = Forger::at_ring(&path, 1);
    let socket = forger.connect_as_sender(forger.tail());
    for position in [forger.tail().wrapping_sub(8), forger.tail(), forger.tail() + 64] {
        let mut unknown = forger.packet(position, 1);
        unknown[std::mem::offset_of!(HandlePacket, kind)] = 99;
        send(&socket, &unknown, &[numbered(9).as_fd()]);
    }
    forger.send_packet(&socket, forger.tail(), 1, &[numbered(7).as_fd()]);
    assert_eq!(receive_forged(&forger, &mut rx).unwrap(), [7]);
}

#[test]
fn a_sender_that_was_stopped_between_connecting_and_its_hello_is_heard_later() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = mpsc(&path);
    rx.attach().unwrap();
    tx.attach().unwrap();
    let forger = Forger::at_ring(&path, 1).posing_as(1);
    let stopped = forger.connect();
    tx.send_packet(packet(1, 1)).unwrap(); // over a later connection: both are let in
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [1]);
    let mut other = mpsc(&path).0;
    other.attach().unwrap(); // as whom the forger poses
    send(&stopped, bytes_of(&forger.hello(forger.tail())), &[]);
    forger.send_packet(&stopped, forger.tail(), 1, &[numbered(7).as_fd()]);
    assert_eq!(receive_forged(&forger, &mut rx).unwrap(), [7]);
}

#[test]
fn who_says_nothing_goes_before_an_older_connection_in_which_something_is_left() {
    run("crowd");
}

fn strangers_beside_an_older_connection(path: &Path) {
    let (mut tx, mut rx) = mpsc(path);
    rx.attach().unwrap();
    tx.attach().unwrap();
    let forger = Forger::at_ring(path, 1);
    let older = forger.connect_as_sender(forger.tail());
    forger.send_packet(&older, forger.tail(), 1, &[numbered(7).as_fd()]);
    let crowd = let_a_crowd_in(&forger, path, &mut rx);
    assert_eq!(receive_forged(&forger, &mut rx).unwrap(), [7]);
    drop(crowd);
}

/// Has connections let in until some are closed for it: one in the name of `forger`'s sender, and those of
/// strangers.
fn let_a_crowd_in(forger: &Forger, path: &Path, rx: &mut MpscConsumer) -> Vec<OwnedFd> {
    let before = open_count();
    let newer = forger.connect_as_sender(forger.tail());
    let mut crowd: Vec<_> = (0..400).map(|_| forger.connect()).collect();
    crowd.push(newer);
    let mut short_lived = mpsc(path).0;
    short_lived.attach().unwrap();
    drop(short_lived); // a departure: all are let in, to see whose it was
    let start = Instant::now();
    while open_count() < before + crowd.len() + 300 {
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
        assert!(start.elapsed() < SOON, "they were not let in");
    }
    crowd
}

#[test]
fn a_sender_whose_connection_a_crowd_has_ended_makes_another() {
    run("pushed-out");
}

fn a_sender_is_pushed_out(path: &Path) {
    let (mut tx, mut rx) = mpsc(path);
    rx.attach().unwrap();
    tx.send_packet(packet(1, 1)).unwrap();
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [1]);
    let crowd = let_a_crowd_in(&Forger::at_ring(path, 1), path, &mut rx);
    for number in 2..5 {
        tx.try_send_packet(packet(number, 1)).unwrap();
        assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [number]);
    }
    drop(crowd);
}

#[test]
fn what_comes_on_one_lane_leaves_the_handles_of_another_alone() {
    let dir = Dir::new();
    let path = dir.file("r");
    let options = || small().mpsc_capacity(1 << 16).max_handles(64).producers(2);
    let open = || EventsRegion::open_path_with(&path, options().mpsc_order(MpscOrder::PerProducer));
    let (mut slow, mut rx) = open().unwrap().split_mpsc().unwrap();
    let (mut fast, _) = open().unwrap().split_mpsc().unwrap();
    rx.attach().unwrap();
    slow.send_packet(packet(1, 1)).unwrap();
    assert_eq!(numbers_of(&rx.recv().unwrap().handles), [1]);
    for _ in 0..100 {
        fast.send(&[0; 64]).unwrap(); // so that its positions are beyond the other lane's
        rx.recv().unwrap();
    }
    fast.send_packet(packet(2, 1)).unwrap(); // over a connection that is still to be let in
    slow.send_packet(packet(3, 1)).unwrap();
    let mut found = [(); 2].map(|()| numbers_of(&rx.recv().unwrap().handles));
    found.sort_unstable();
    assert_eq!(found, [[2], [3]]);
}

#[test]
fn hellos_that_nothing_follows_take_no_honest_senders_place() {
    run("silent");
}

fn strangers_say_nothing(path: &Path) {
    let (mut tx, mut rx) = mpsc(path);
    rx.attach().unwrap();
    tx.attach().unwrap();
    let forger = Forger::at_ring(path, 1);
    let good = forger.hello(0);
    for slot in 0..200 {
        let socket = forger.connect();
        send(&socket, bytes_of(&of_slot(good, slot)), &[]);
    }
    let silent: Vec<_> = (0..400).map(|_| forger.connect()).collect();
    for number in 1..3 {
        tx.send_packet(packet(number, 1)).unwrap();
        assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [number]);
    }
    drop(silent);
}

#[test]
fn the_bound_of_handles_under_way_holds_again_after_kills_that_left_the_counters_apart() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = spsc(&path);
    rx.attach().unwrap();
    tx.attach().unwrap();
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

/// What a producer of ring 1 that is gone left behind: a packet of no record. Others live.
fn leave_an_orphan(path: &Path, handle: &PipeWriter) {
    let (mut tx, _) = mpsc(path);
    tx.attach().unwrap();
    let forger = Forger::at_ring(path, 1).posing_as(1);
    let socket = forger.connect_as_sender(forger.tail());
    forger.send_packet(&socket, forger.tail(), 1, &[handle.as_fd()]);
}

/// As [`leave_an_orphan`], with what tells when that is closed.
fn an_orphan(path: &Path) -> PipeReader {
    let (witness, handle) = std::io::pipe().unwrap();
    leave_an_orphan(path, &handle);
    witness
}

#[test]
fn orphans_are_closed_while_other_producers_live_whichever_way_is_waited() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = mpsc(&path);
    rx.attach().unwrap();
    tx.attach().unwrap();
    let witness = an_orphan(&path);
    closes_while(witness, || assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty))));
    let witness = an_orphan(&path);
    let short = Duration::from_millis(10);
    closes_while(witness, || assert!(rx.recv_timeout(short).is_err()));
    let witness = an_orphan(&path);
    closes_while(witness, || {
        assert!(wait_any(&mut [&mut rx], short).is_err());
    });
    let witness = an_orphan(&path);
    closes_while(witness, || assert_eq!(rx.drain(9, |_| {}).unwrap(), 0));
    tx.send_packet(packet(1, 1)).unwrap();
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [1]);
}

#[test]
fn orphans_are_closed_while_other_producers_send_all_the_time() {
    run("orphans");
}

fn orphans_beside_a_stream(path: &Path) {
    let (mut tx, mut rx) = mpsc(path);
    rx.attach().unwrap();
    tx.attach().unwrap();
    let (witness, handle) = std::io::pipe().unwrap();
    for number in 0..1000 {
        tx.send_packet(packet(number, 1)).unwrap(); // the ring is never empty
        leave_an_orphan(path, &handle);
        if number > 0 {
            assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [number - 1]);
        }
    }
    drop(handle);
    let (mut fresh, _) = mpsc(path);
    fresh.send_packet(packet(1000, 1)).unwrap();
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [999]);
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [1000]);
    closes_while(witness, || assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty))));
}

/// Numbers without any order, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

/// A packet that is wrong in some way, or right and of no record.
fn junk(random: &mut Random, forger: &Forger) -> Vec<u8> {
    let len = random.below(700);
    let mut bytes = match random.below(4) {
        0 => return random.bytes(len),
        1 => bytes_of(&forger.hello(random.below(100))).to_vec(),
        _ => {
            let position = forger.tail().wrapping_add(8 * random.below(40)).wrapping_sub(160);
            forger.packet(position, random.below(66) as u16)
        }
    };
    for _ in 0..random.below(3) {
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] = random.below(256) as u8;
    }
    bytes.truncate(bytes.len() - random.below(2) as usize * random.below(9) as usize);
    bytes
}

/// Connects, perhaps says a proper hello, and sends junk with up to 5 descriptors each.
fn send_junk(random: &mut Random, forger: &Forger, handle: &PipeWriter) -> OwnedFd {
    let socket = forger.connect();
    if random.below(3) > 0 {
        send(&socket, bytes_of(&forger.hello(random.below(2) * forger.tail())), &[]);
    }
    for _ in 0..random.below(4) {
        let descriptors = vec![handle.as_fd(); random.below(6) as usize];
        send(&socket, &junk(random, forger), &descriptors);
    }
    socket
}

#[test]
fn junk_on_hundreds_of_connections_harms_no_other_sender_and_leaves_nothing_open() {
    run("junk");
}

/// In processes of their own, where nobody else opens anything.
#[test]
fn peer_process() {
    let Some((role, path)) = role() else { return };
    match role.as_str() {
        "silent" => strangers_say_nothing(&path),
        "pushed-out" => a_sender_is_pushed_out(&path),
        "crowd" => strangers_beside_an_older_connection(&path),
        "orphans" => orphans_beside_a_stream(&path),
        "junk" => junk_beside_a_stream(&path),
        other => panic!("no such role: {other}"),
    }
    report("ready");
    wait_for_parent();
}

fn run(role: &str) {
    let dir = Dir::new();
    Peer::start("peer_process", role, &dir.file("r")).finish();
}

fn junk_beside_a_stream(path: &Path) {
    let (mut honest, mut rx) = mpsc(path);
    let (mut other, _) = mpsc(path);
    rx.attach().unwrap();
    honest.attach().unwrap();
    other.attach().unwrap(); // as whom the forger poses
    honest.send_packet(packet(0, 1)).unwrap();
    drop(rx.try_recv().unwrap());
    let before = open_count();
    let (witness, handle) = std::io::pipe().unwrap();
    let forger = Forger::at_ring(path, 1).posing_as(1);
    let mut random = Random(0x1234_5678_9abc_def1);
    let (mut sockets, mut outcomes) = (Vec::new(), [0, 0]);
    for number in 1..2000 {
        sockets.push(send_junk(&mut random, &forger, &handle));
        if random.below(4) == 0 {
            sockets.swap_remove(random.below(sockets.len() as u64) as usize);
        }
        if sockets.len() > 100 {
            sockets.clear();
        }
        if random.below(7) == 0 {
            // Whoever it poses as is harmed perhaps, and told.
            other.try_send_packet(packet(number, 2)).unwrap();
            outcomes[usize::from(rx.try_recv().is_ok())] += 1;
        }
        if random.below(20) == 0 {
            drop(honest);
            (honest, _) = mpsc(path); // over a new connection, behind all the others
        }
        honest.send_packet(packet(number, number % 4)).unwrap();
        let message = rx.try_recv().unwrap();
        assert_eq!(message.data, number.to_le_bytes());
        assert_eq!(numbers_of(&message.handles), vec![number; (number % 4) as usize]);
    }
    drop((sockets, handle, forger));
    while rx.try_recv().is_ok() {}
    drop(other);
    closes_while(witness, || assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty))));
    let start = Instant::now();
    while open_count() > before {
        assert!(rx.recv_timeout(Duration::from_millis(10)).is_err());
        assert!(start.elapsed() < SOON, "{} open, not {before}", open_count());
    }
    assert!(outcomes.iter().all(|count| *count > 20), "{outcomes:?}");
}

#[test]
fn two_lists_of_descriptors_in_one_packet_are_one() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = spsc(&path);
    rx.attach().unwrap();
    tx.attach().unwrap();
    let forger = Forger::at(&path);
    let files = [numbered(1), numbered(2), numbered(3)];
    let socket = forger.connect_as_sender(forger.tail());
    let lists = [&[files[0].as_fd()][..], &[files[1].as_fd(), files[2].as_fd()]];
    let position = forger.tail();
    if send_lists(&socket, &forger.packet(position, 3), &lists).is_err() {
        return println!("skipped: the kernel takes one list a packet");
    }
    forger.publish(3, forger.sender());
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [1, 2, 3]);
}
