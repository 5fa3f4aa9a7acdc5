//! Where the kernel has no room for handles, the sender keeps them, and nothing is lost.

use std::io::PipeReader;
use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::{Gid, Resource, Rlimit, Uid, getrlimit, setrlimit};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
use tombolo::ends::Topology;
use tombolo::options::MpscOrder;
use tombolo::{
    EventsRegion, MessagePacket, MpscConsumer, MpscProducer, Receiver, SendTimeoutError, Sender,
    TryRecvError, TrySendError,
};
use tombolo_abi::RingControl;

mod support;
use support::carrying::{Forger, SOON, closes_soon, numbers_of, open_count, packet};
use support::process::{Peer, report, role, wait_for_parent};
use support::{Dir, is_root, small};

const SHORT: Duration = Duration::from_millis(30);
const NOBODY: u32 = 65_534;

fn region(path: &Path) -> EventsRegion {
    let options = small().spsc_capacity(1 << 16).mpsc_capacity(1 << 16).max_handles(64);
    EventsRegion::open_path_with(path, options.producers(2)).unwrap()
}

/// What a process of its own does.
#[test]
fn peer_process() {
    let Some((role, path)) = role() else { return };
    match role.as_str() {
        "quota-spsc" => {
            let (tx, rx) = as_nobody(&path).split_spsc().unwrap();
            over_quota(tx, rx);
        }
        "quota-mpsc" => {
            let (tx, rx) = as_nobody(&path).split_mpsc().unwrap();
            over_quota(tx, rx);
        }
        "quota-second" => {
            let region = || as_nobody(&path).split_mpsc().unwrap();
            a_newcomer_over_quota(region().0, region());
        }
        other => panic!("no such role: {other}"),
    }
    report("ready");
    wait_for_parent();
}

/// A region, as a user whose handles the kernel counts: not as root.
fn as_nobody(path: &Path) -> EventsRegion {
    if is_root() {
        // Of this thread, and of those that it starts.
        set_thread_groups(&[]).unwrap();
        set_thread_gid(Gid::from_raw(NOBODY)).unwrap();
        set_thread_uid(Uid::from_raw(NOBODY)).unwrap();
    }
    region(path)
}

/// The kernel takes no more descriptors of a user than the limit of open files, and 8 of them more.
fn over_quota<K: Topology>(mut tx: Sender<K>, mut rx: Receiver<K>) {
    rx.attach().unwrap();
    tx.attach().unwrap();
    let before = getrlimit(Resource::Nofile);
    let open = open_count();
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: before.maximum }).unwrap();
    for _ in 0..3 {
        let mut sent = 0;
        let refused = loop {
            match tx.try_send_packet(packet(sent, 8)) {
                Ok(()) => sent += 1,
                Err(refused) => break refused,
            }
        };
        let TrySendError::Full(refused) = refused else { panic!("{refused}") };
        assert!((1..=9).contains(&sent), "{sent} messages went out");
        let refused = tx.send_packet_timeout(refused, SHORT).unwrap_err();
        let SendTimeoutError::Timeout(refused) = refused else { panic!("{refused}") };
        assert_eq!(numbers_of(&refused.handles), [sent; 8]);
        tx.try_send(b"bytes alone").unwrap();
        for number in 0..sent {
            assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [number; 8]);
        }
        assert_eq!(rx.try_recv().unwrap().data, b"bytes alone");
        tx.send_packet_timeout(refused, SOON).unwrap();
        assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [sent; 8]);
    }
    setrlimit(Resource::Nofile, before).unwrap();
    assert!(open_count() <= open + 2, "more than the two ends of the connection stayed open");
}

/// Its hello goes out, its first packet does not.
fn a_newcomer_over_quota(
    mut newcomer: MpscProducer,
    (mut tx, mut rx): (MpscProducer, MpscConsumer),
) {
    rx.attach().unwrap();
    tx.attach().unwrap();
    newcomer.attach().unwrap();
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: before.maximum }).unwrap();
    let mut sent = 0;
    while tx.try_send_packet(packet(sent, 8)).is_ok() {
        sent += 1;
    }
    let refused = newcomer.try_send_packet(packet(100, 3)).unwrap_err();
    let TrySendError::Full(refused) = refused else { panic!("{refused}") };
    for number in 0..sent {
        assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [number; 8]);
    }
    let open = open_count();
    newcomer.try_send_packet(refused).unwrap();
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [100; 3]);
    assert!(open_count() <= open + 1, "a second connection was made");
    setrlimit(Resource::Nofile, before).unwrap();
}

#[test]
fn a_user_over_its_quota_waits_and_loses_nothing() {
    for role in ["quota-spsc", "quota-mpsc", "quota-second"] {
        let dir = Dir::new();
        if is_root() {
            chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Peer::start("peer_process", role, &dir.file("r")).finish();
    }
}

/// Sends until a connection's queue is full, before the ring is: nothing bounds the handles under way.
/// Gives how many messages went out and the one that did not.
fn fill_queue<K: Topology>(tx: &mut Sender<K>, forger: &Forger) -> (u64, MessagePacket) {
    let mut sent = 0;
    let refused = loop {
        let mut packet = packet(sent, 1);
        packet.data.extend([0xff; 40]); // of which nothing may stay where it is refused
        match tx.try_send_packet(packet) {
            Ok(()) => sent += 1,
            Err(refused) => break refused,
        }
        let counted = forger.control(offset_of!(RingControl, handles_sent));
        forger.set_control(offset_of!(RingControl, handles_taken), counted);
    };
    assert!(sent > 0 && sent < 700, "{sent} messages went out: the ring was full, not the queue");
    let TrySendError::Full(refused) = refused else { panic!("{refused}") };
    (sent, refused)
}

fn take_all<K: Topology>(rx: &mut Receiver<K>, sent: u64) {
    for number in 0..sent {
        let message = rx.try_recv().unwrap();
        assert_eq!(message.data[..8], number.to_le_bytes());
        assert_eq!(numbers_of(&message.handles), [number]);
    }
}

fn full_queue<K: Topology>(mut tx: Sender<K>, mut rx: Receiver<K>, forger: &Forger) {
    rx.attach().unwrap();
    let (sent, refused) = fill_queue(&mut tx, forger);
    let refused = tx.send_packet_timeout(refused, SHORT).unwrap_err();
    let SendTimeoutError::Timeout(refused) = refused else { panic!("{refused}") };
    assert_eq!(numbers_of(&refused.handles), [sent]);
    tx.try_send(b"").unwrap(); // behind it lies what would have been the refused one
    take_all(&mut rx, sent);
    assert_eq!(rx.try_recv().unwrap().data, b"");
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    tx.try_send_packet(refused).unwrap();
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [sent]);

    let (sent, refused) = fill_queue(&mut tx, forger);
    let waiting = thread::spawn(move || tx.send_packet_timeout(refused, SOON).unwrap());
    thread::sleep(SHORT);
    take_all(&mut rx, sent);
    assert_eq!(numbers_of(&rx.recv_timeout(SOON).unwrap().handles), [sent]);
    waiting.join().unwrap();
}

#[test]
fn a_full_queue_of_a_connection_keeps_handles_back_on_a_ring_with_one_sender() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (tx, rx) = region(&path).split_spsc().unwrap();
    full_queue(tx, rx, &Forger::at_ring(&path, 0));
}

#[test]
fn a_full_queue_of_a_connection_keeps_handles_back_on_a_ring_with_many() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (tx, rx) = region(&path).split_mpsc().unwrap();
    full_queue(tx, rx, &Forger::at_ring(&path, 1));
}

/// The ring is never empty, and its receivers are killed again and again between freeing a message with
/// handles and counting those.
fn uncounted_handles<K: Topology>((mut tx, mut rx): (Sender<K>, Receiver<K>), forger: &Forger) {
    rx.attach().unwrap();
    let mut take = || {
        if rx.try_recv().unwrap().handles.len() == 8 {
            let taken = offset_of!(RingControl, handles_taken);
            forger.set_control(taken, forger.control(taken).wrapping_sub(8));
        }
    };
    tx.try_send_packet(packet(0, 8)).unwrap();
    for number in 1..200 {
        let (mut packet, mut refused) = (packet(number, 8), 0);
        while let Err(back) = tx.try_send_packet(packet) {
            let TrySendError::Full(back) = back else { panic!("{back}") };
            (packet, refused) = (back, refused + 1);
            assert!(refused < 10, "message {number}: handles are kept back for good");
            tx.try_send(b"bytes alone").unwrap();
            take();
        }
        take();
    }
}

#[test]
fn kills_between_freeing_and_counting_keep_no_handles_back_though_the_ring_is_never_empty() {
    let dir = Dir::new();
    let path = dir.file("r");
    uncounted_handles(region(&path).split_spsc().unwrap(), &Forger::at_ring(&path, 0));
    uncounted_handles(region(&path).split_mpsc().unwrap(), &Forger::at_ring(&path, 1));
    let path = dir.file("lanes");
    let options = small().mpsc_capacity(1 << 14).max_handles(64).producers(1);
    let region = EventsRegion::open_path_with(&path, options.mpsc_order(MpscOrder::PerProducer));
    uncounted_handles(region.unwrap().split_mpsc().unwrap(), &Forger::at_ring(&path, 1));
}

/// A message with a handle, and what tells when that is closed.
fn watched() -> (MessagePacket, PipeReader) {
    let (witness, handle) = std::io::pipe().unwrap();
    (MessagePacket::from(b"watched").handle(OwnedFd::from(handle)), witness)
}

#[test]
fn a_full_backlog_is_no_receiver_until_somebody_was_let_in() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut first, mut rx) = region(&path).split_mpsc().unwrap();
    let mut second = first.clone();
    let (mut other, _) = region(&path).split_mpsc().unwrap();
    rx.attach().unwrap();
    first.try_send_packet(packet(1, 1)).unwrap();
    let forger = Forger::at_ring(&path, 1);
    let waiting = (0..1 << 17).take_while(|_| forger.try_connect().is_ok()).count();
    if waiting == 1 << 17 {
        return println!("skipped: the backlog has no end here");
    }
    second.try_send_packet(packet(2, 1)).unwrap(); // over the connection that there is
    let (message, witness) = watched();
    let refused = other.try_send_packet(message).unwrap_err();
    let TrySendError::NoReceiver(message) = refused else { panic!("{refused}") };
    let refused = other.send_packet_timeout(message, SHORT).unwrap_err();
    let SendTimeoutError::NoReceiver(message) = refused else { panic!("{refused}") };
    assert_eq!(message.handles.len(), 1);
    let sending = thread::spawn(move || other.send_packet_timeout(message, SOON).unwrap());
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [1]);
    sending.join().unwrap(); // behind all the others
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [2]);
    assert_eq!(rx.try_recv().unwrap().handles.len(), 1);
    closes_soon(witness);
}
