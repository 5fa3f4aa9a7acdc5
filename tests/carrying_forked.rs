//! Handles where a process that has an end forks: the child has copies of its sockets, and neither takes
//! nor keeps anything by them.

use std::io::{PipeReader, PipeWriter, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use tombolo::{
    Error, EventsRegion, MessagePacket, MpscConsumer, MpscProducer, RecvTimeoutError, TryRecvError,
    TrySendError,
};

mod support;
use support::carrying::{SOON, closes_soon, numbers_of, open_count, packet};
use support::process::{Peer, report, role, wait_for_parent};
use support::{Dir, small};

const SHORT: Duration = Duration::from_millis(20);

fn open(path: &Path) -> (MpscProducer, MpscConsumer) {
    let options = small().mpsc_capacity(1 << 16).max_handles(64).producers(2);
    EventsRegion::open_path_with(path, options).unwrap().split_mpsc().unwrap()
}

/// In processes of their own: a child has copies of all that other tests have open.
#[test]
fn peer_process() {
    let Some((role, path)) = role() else { return };
    let (tx, rx) = open(&path);
    match role.as_str() {
        "using" => a_child_uses_the_ends(tx, rx),
        "receiver" => the_receiver_leaves(&path, tx, rx),
        "waiting-senders" => the_receiver_leaves_with_senders_at_the_door(&path, tx, rx),
        "sender" => the_sender_leaves(tx, rx),
        "killed" => receive_one_and_fork(rx, fork),
        "killed-bare" => receive_one_and_fork(rx, fork_bare),
        "killed-before-receiving" => fork_before_receiving(rx, fork),
        "killed-before-receiving-bare" => fork_before_receiving(rx, fork_bare),
        other => panic!("no such role: {other}"),
    }
    report("ready");
    wait_for_parent();
}

fn run(role: &str) {
    let dir = Dir::new();
    Peer::start("peer_process", role, &dir.file("r")).finish();
}

/// Forks. The child says whether `body` was true and ends, and the parent hears it.
fn child_finds(body: impl FnOnce() -> bool) -> bool {
    // SAFETY: no other thread of this process holds a lock that the child takes but the allocator's,
    // which glibc makes usable after a fork; the child leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        // SAFETY: ends the child without running what the parent registered.
        unsafe { libc::_exit(i32::from(!found.unwrap_or(false))) };
    }
    let mut status = -1;
    // SAFETY: `status` is a valid place for the child's status.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    status == 0
}

/// A child that does nothing but have copies of all descriptors, until this is dropped.
struct Bystander {
    child: libc::pid_t,
    leash: Option<PipeWriter>,
}

impl Bystander {
    fn fork() -> Self {
        let (mut end, leash) = std::io::pipe().unwrap();
        // SAFETY: as in `child_finds`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop(leash);
            let _ = end.read(&mut [0]);
            // SAFETY: as in `child_finds`.
            unsafe { libc::_exit(0) };
        }
        Self { child, leash: Some(leash) }
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        drop(self.leash.take());
        // SAFETY: the status is not wanted.
        unsafe { libc::waitpid(self.child, std::ptr::null_mut(), 0) };
    }
}

/// A message with a handle, and what tells when that is closed.
fn watched(tx: &mut MpscProducer) -> PipeReader {
    let (witness, handle) = std::io::pipe().unwrap();
    tx.try_send_packet(MessagePacket::from(b"watched").handle(handle)).unwrap();
    witness
}

fn a_child_uses_the_ends(mut tx: MpscProducer, mut rx: MpscConsumer) {
    rx.attach().unwrap();
    tx.send_packet(packet(1, 3)).unwrap();
    let record = rx.try_recv_ref().unwrap(); // its connection waits to be accepted
    let is_refused = child_finds(|| {
        let before = open_count();
        let refused = [
            matches!(record.handles(), Err(Error::ForkedChild)),
            matches!(
                tx.try_send_packet(packet(2, 2)),
                Err(TrySendError::Failed { source: Error::ForkedChild, message })
                    if numbers_of(&message.handles) == [2, 2]
            ),
        ];
        refused.iter().all(|refused| *refused) && open_count() == before
    });
    assert!(is_refused, "a child used its parent's ends");
    record.keep();
    let is_refused = child_finds(|| {
        let is_refused =
            matches!(rx.try_recv(), Err(TryRecvError::Failed { source: Error::ForkedChild }));
        drop((tx.clone(), &mut rx));
        is_refused
    });
    assert!(is_refused, "a child received from its parent's ring");
    let are_dropped = child_finds(|| {
        // SAFETY: the child leaves by `_exit`, so it is dropped once.
        drop(unsafe { std::ptr::read(&raw const tx) });
        // SAFETY: as before.
        drop(unsafe { std::ptr::read(&raw const rx) });
        true
    });
    assert!(are_dropped);
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [1; 3]);
    tx.send_packet(packet(4, 2)).unwrap();
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [4; 2]);
}

fn the_receiver_leaves(path: &Path, mut tx: MpscProducer, mut rx: MpscConsumer) {
    rx.attach().unwrap();
    tx.send_packet(packet(1, 1)).unwrap();
    drop(rx.try_recv().unwrap()); // the connection is accepted
    let witness = watched(&mut tx);
    let _bystander = Bystander::fork();
    drop(rx);
    closes_soon(witness);
    let refused = tx.try_send_packet(packet(2, 1)).unwrap_err();
    let is_told = matches!(refused, TrySendError::NoReceiver(_) | TrySendError::Disconnected(_));
    assert!(is_told, "{refused}");
    let (_, mut rx) = open(path);
    rx.attach().unwrap();
    let lost = rx.try_recv().unwrap_err();
    let is_lost = matches!(&lost, TryRecvError::Failed { source: Error::HandlesLost { .. } });
    assert!(is_lost, "{lost}");
    tx.send_packet(packet(3, 1)).unwrap();
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [3]);
}

fn the_receiver_leaves_with_senders_at_the_door(
    path: &Path,
    mut tx: MpscProducer,
    mut rx: MpscConsumer,
) {
    rx.attach().unwrap();
    let witness = watched(&mut tx); // nobody has accepted its connection
    let _bystander = Bystander::fork();
    drop(rx);
    closes_soon(witness);
    let (_, mut rx) = open(path);
    rx.attach().unwrap();
    tx.send_packet(packet(3, 1)).unwrap();
    assert!(rx.try_recv().is_err());
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [3]);
}

fn the_sender_leaves(mut tx: MpscProducer, mut rx: MpscConsumer) {
    rx.attach().unwrap();
    tx.send_packet(packet(1, 2)).unwrap();
    let _bystander = Bystander::fork();
    drop(tx);
    let before = open_count();
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [1; 2]);
    assert!(matches!(rx.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected)));
    let start = Instant::now();
    while open_count() > before {
        assert!(rx.recv_timeout(SHORT).is_err());
        assert!(start.elapsed() < SOON, "the connection is still open");
    }
}

fn fork() -> libc::pid_t {
    // SAFETY: as in `child_finds`.
    unsafe { libc::fork() }
}

/// Forks by the bare system call: no handler of the library runs.
fn fork_bare() -> libc::pid_t {
    // SAFETY: as in `child_finds`; no flag, no stack and no place is passed.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    child as libc::pid_t
}

/// Leaves a child with copies of all descriptors, which stays until the test is over.
fn leave_a_child(fork: fn() -> libc::pid_t) {
    if fork() == 0 {
        // SAFETY: `place` is a valid place for one byte. Nothing but this is called in the child.
        unsafe { libc::read(0, (&raw mut *Box::new(0u8)).cast(), 1) };
        // SAFETY: as in `child_finds`.
        unsafe { libc::_exit(0) };
    }
    report("forked");
}

/// Has its connection accepted before it forks.
fn receive_one_and_fork(mut rx: MpscConsumer, fork: fn() -> libc::pid_t) {
    rx.attach().unwrap();
    report("ready");
    assert_eq!(numbers_of(&rx.recv().unwrap().handles), [1]);
    leave_a_child(fork);
    wait_for_parent();
}

/// Has not looked at what senders sent when it forks.
fn fork_before_receiving(mut rx: MpscConsumer, fork: fn() -> libc::pid_t) {
    rx.attach().unwrap();
    report("ready");
    leave_a_child(fork);
    wait_for_parent();
}

#[test]
fn a_child_is_refused_and_takes_nothing_from_its_parent() {
    run("using");
}

#[test]
fn a_child_of_the_receiver_keeps_no_handles_open_and_no_sender_sending() {
    run("receiver");
    run("waiting-senders");
}

#[test]
fn a_child_of_a_receiver_that_is_killed_gets_nothing_of_what_is_sent_to_its_successor() {
    for role in ["killed", "killed-bare"] {
        let dir = Dir::new();
        let path = dir.file("r");
        let mut receiver = Peer::start("peer_process", role, &path);
        let (mut tx, mut rx) = open(&path);
        tx.send_packet(packet(1, 1)).unwrap();
        assert_eq!(receiver.next_report(), "forked");
        receiver.kill_alone();
        rx.attach().unwrap();
        for number in 2..5 {
            tx.send_packet(packet(number, 2)).unwrap();
            assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [number; 2]);
        }
    }
}

#[test]
fn a_child_of_the_sender_does_not_keep_the_sender_alive() {
    run("sender");
}

/// With and without a connection that was made while the receiver lived.
fn sends_nothing_to_the_dead(role: &str) {
    let dir = Dir::new();
    let path = dir.file("r");
    let mut receiver = Peer::start("peer_process", role, &path);
    let ((mut tx, _), (mut late, _)) = (open(&path), open(&path));
    tx.send_packet(packet(1, 1)).unwrap();
    assert_eq!(receiver.next_report(), "forked");
    receiver.kill_alone();
    for number in 0..600 {
        let tx = if number % 2 == 0 { &mut tx } else { &mut late };
        let refused = tx.try_send_packet(packet(number, 1));
        let message = match refused {
            Err(TrySendError::NoReceiver(message) | TrySendError::Disconnected(message)) => message,
            other => panic!("{role}: send {number}: {other:?}"),
        };
        assert_eq!(numbers_of(&message.handles), [number]);
    }
}

#[test]
fn no_handle_goes_to_a_receiver_that_was_killed_while_a_child_of_it_lives() {
    for role in ["killed", "killed-before-receiving"] {
        sends_nothing_to_the_dead(role);
    }
}

#[test]
fn no_handle_goes_to_the_killed_receiver_of_a_child_that_no_handler_has_seen() {
    for role in ["killed-bare", "killed-before-receiving-bare"] {
        sends_nothing_to_the_dead(role);
    }
}

#[test]
fn a_child_of_a_killed_receiver_keeps_no_handle_open_that_the_receiver_had_not_taken() {
    for role in ["killed", "killed-before-receiving"] {
        let dir = Dir::new();
        let path = dir.file("r");
        let mut receiver = Peer::start("peer_process", role, &path);
        let (mut tx, _) = open(&path);
        tx.send_packet(packet(1, 1)).unwrap();
        assert_eq!(receiver.next_report(), "forked");
        let witness = watched(&mut tx);
        receiver.kill_alone();
        closes_soon(witness);
    }
}
