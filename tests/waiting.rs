//! Waiting: for messages, for room, for any of several receivers, and for nobody who is gone.

use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tombolo::ends::Waitable;
use tombolo::inspect::Image;
use tombolo::options::MpscOrder;
use tombolo::{
    Damage, Deadline, Error, EventsRegion, OpenOptions, RecvError, RecvTimeoutError, SendError,
    SendTimeoutError, SpscReceiver, SpscSender, TryRecvError, TrySendError, wait_any,
};
use tombolo_abi::{LockWord, RingControl, Slot};

mod support;
use support::ends::Ends;
use support::process::{Peer, report, role, wait_for_parent};
use support::{Dir, small};

const SOON: Duration = Duration::from_secs(2);
const SHORT: Duration = Duration::from_millis(60);

fn open(path: &Path) -> EventsRegion {
    EventsRegion::open_path_with(path, small().producers(4)).unwrap()
}

/// The same, where it has to be created, with that order of its producers.
fn open_in_order(path: &Path, order: MpscOrder) -> EventsRegion {
    EventsRegion::open_path_with(path, small().producers(4).mpsc_order(order)).unwrap()
}

/// What a process of its own does; nothing in the test program itself.
#[test]
fn peer_process() {
    let Some((role, path)) = role() else { return };
    let mut region = open(&path);
    let mut ends = Ends::of(&mut region);
    match role.as_str() {
        "late sender" => {
            report("ready");
            wait_for_parent();
            return ends.tx.send(b"late").unwrap();
        }
        "another program" => {
            ends.tx.attach().unwrap();
            report("ready");
            wait_for_parent();
            panic!("{}", Command::new("sleep").arg("60").exec());
        }
        "parent" => {
            ends.tx.attach().unwrap();
            report("ready");
            let mut child = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
            report(&child.id().to_string());
            wait_for_parent();
            child.wait().unwrap();
            return;
        }
        end => ends.attach(end),
    }
    report("ready");
    wait_for_parent();
}

fn peer(role: &str, path: &Path) -> Peer {
    Peer::start("peer_process", role, path)
}

fn slot(path: &Path, slot: u32) -> Option<Slot> {
    let image = Image::open(path).unwrap();
    let endpoint = image.endpoints().iter().find(|endpoint| endpoint.slot == slot);
    endpoint.map(|endpoint| endpoint.fields)
}

fn slept(path: &Path, number: u32) -> bool {
    slot(path, number).is_some_and(|fields| fields.sleeps > 0)
}

/// Waits until the owner of `number` sleeps for good.
fn until_asleep(path: &Path, number: u32) {
    let start = Instant::now();
    while !slept(path, number) && start.elapsed() < SOON {
        thread::sleep(Duration::from_millis(1));
    }
    assert!(slept(path, number), "slot {number} does not sleep");
    thread::sleep(Duration::from_millis(5));
}

/// Fills the ring; gives how many messages went in.
fn fill(tx: &mut SpscSender) -> usize {
    (0..).take_while(|_| tx.try_send(&[7; 200]).is_ok()).count()
}

#[test]
fn a_sleeping_receiver_is_notified_by_a_message() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = open(&path).split_spsc().unwrap();
    tx.attach().unwrap();
    let receiver = thread::spawn(move || rx.recv().unwrap().data);
    until_asleep(&path, 0);
    tx.send(b"wake up").unwrap();
    assert_eq!(receiver.join().unwrap(), b"wake up");
    drop(tx);
    assert_eq!(slot(&path, 1).unwrap().wakes_sent, 1);
}

#[test]
fn a_sleeping_sender_is_notified_of_room() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = open(&path).split_spsc().unwrap();
    rx.attach().unwrap();
    let full = fill(&mut tx);
    let sender = thread::spawn(move || tx.send(&[7; 200]).unwrap());
    until_asleep(&path, 1);
    (0..full).for_each(|_| drop(rx.recv().unwrap()));
    sender.join().unwrap();
    assert!(rx.recv_timeout(SOON).is_ok());
    drop(rx);
    assert!(slot(&path, 0).unwrap().wakes_sent > 0);
    assert_eq!(slot(&path, 1).unwrap().full_waits, 1);
}

#[test]
fn sleeping_producers_of_one_process_are_all_notified_of_room() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = open(&path).split_mpsc().unwrap();
    rx.attach().unwrap();
    while tx.try_send(&[7; 200]).is_ok() {}
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let mut tx = tx.clone();
            thread::spawn(move || tx.send_timeout(&[8; 200], SOON * 5))
        })
        .collect();
    until_asleep(&path, 3);
    let mut late = 0;
    while late < 4 {
        late += usize::from(rx.recv_timeout(SOON).unwrap().data[0] == 8);
    }
    for sender in senders {
        sender.join().unwrap().unwrap();
    }
}

#[test]
fn a_deadline_ends_a_sleep_on_either_side() {
    let dir = Dir::new();
    let (mut tx, mut rx) = open(&dir.file("r")).split_spsc().unwrap();
    tx.attach().unwrap();
    let start = Instant::now();
    assert!(matches!(rx.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout)));
    fill(&mut tx);
    assert!(matches!(tx.send_timeout(&[7; 200], SHORT), Err(SendTimeoutError::Timeout(()))));
    assert!((SHORT * 2..SOON).contains(&start.elapsed()));
    assert!(matches!(
        tx.send_timeout(&[7; 200], Deadline::PAST),
        Err(SendTimeoutError::Timeout(()))
    ));
}

#[test]
fn signals_end_no_sleep_before_its_deadline() {
    extern "C" fn nothing(_: libc::c_int) {}
    let dir = Dir::new();
    let (mut tx, mut rx) = open(&dir.file("r")).split_spsc().unwrap();
    tx.attach().unwrap();
    // SAFETY: zeros are a valid action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
    // SAFETY: the action is valid; no old one is asked for.
    assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) }, 0);
    // SAFETY: asks for the calling thread.
    let sleeper = unsafe { libc::pthread_self() };
    let storm = thread::spawn(move || {
        for _ in 0..50 {
            thread::sleep(Duration::from_millis(2));
            // SAFETY: the sleeping thread outlives this one, which it joins.
            unsafe { libc::pthread_kill(sleeper, libc::SIGUSR1) };
        }
    });
    let start = Instant::now();
    let timeout = Duration::from_millis(150);
    assert!(matches!(rx.recv_timeout(timeout), Err(RecvTimeoutError::Timeout)));
    assert!((timeout..SOON).contains(&start.elapsed()));
    storm.join().unwrap();
}

#[test]
fn a_sleeping_receiver_learns_of_its_senders_death() {
    let dir = Dir::new();
    let (total, lanes) = (MpscOrder::Total, MpscOrder::PerProducer);
    for (role, own, order) in [("sender", 0, total), ("producer", 2, total), ("producer", 2, lanes)]
    {
        let path = dir.file(&format!("{role} {order:?}"));
        let mut region = open_in_order(&path, order);
        let sender = peer(role, &path);
        let waiting = thread::spawn(move || {
            let (_, mut rx) = region.split_spsc().unwrap();
            let (_, mut consumer) = region.split_mpsc().unwrap();
            if own == 0 { rx.recv().unwrap_err() } else { consumer.recv().unwrap_err() }
        });
        until_asleep(&path, own);
        let start = Instant::now();
        sender.kill();
        assert!(matches!(waiting.join().unwrap(), RecvError::Disconnected));
        println!("{role}: {:?}", start.elapsed());
        assert!(start.elapsed() < SOON);
        assert_eq!(slot(&path, own).unwrap().woken_by_death, 1);
    }
}

#[test]
fn a_sleeping_sender_learns_of_its_receivers_death() {
    let dir = Dir::new();
    let (total, lanes) = (MpscOrder::Total, MpscOrder::PerProducer);
    for (role, own, order) in
        [("receiver", 1, total), ("consumer", 3, total), ("consumer", 3, lanes)]
    {
        let path = dir.file(&format!("{role} {order:?}"));
        let mut region = open_in_order(&path, order);
        let receiver = peer(role, &path);
        let waiting = thread::spawn(move || {
            let (mut tx, _) = region.split_spsc().unwrap();
            let (mut producer, _) = region.split_mpsc().unwrap();
            let mut send = || if own == 1 { tx.send(&[1; 200]) } else { producer.send(&[1; 200]) };
            loop {
                if let Err(error) = send() {
                    return error;
                }
            }
        });
        until_asleep(&path, own);
        let start = Instant::now();
        receiver.kill();
        assert!(matches!(waiting.join().unwrap(), SendError::Disconnected(())));
        println!("{role}: {:?}", start.elapsed());
        assert!(start.elapsed() < SOON);
        assert_eq!(slot(&path, own).unwrap().woken_by_death, 1);
    }
}

#[test]
fn a_process_that_becomes_another_program_is_gone() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (_, mut rx) = open(&path).split_spsc().unwrap();
    let mut sender = peer("another program", &path);
    let waiting = thread::spawn(move || rx.recv_timeout(SOON * 5).unwrap_err());
    until_asleep(&path, 0);
    sender.let_go();
    assert!(matches!(waiting.join().unwrap(), RecvTimeoutError::Disconnected));
    sender.kill(); // the other program
}

#[test]
fn a_program_that_was_started_holds_nothing_of_its_parents() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (_, mut rx) = open(&path).split_spsc().unwrap();
    // SAFETY: makes this process the parent of children whose parent died, to reap the one below.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }, 0);
    let mut sender = peer("parent", &path);
    let child: i32 = sender.next_report().parse().unwrap();
    let waiting = thread::spawn(move || rx.recv_timeout(SOON * 5).unwrap_err());
    until_asleep(&path, 0);
    sender.kill();
    let error = waiting.join().unwrap();
    // SAFETY: only sends a signal, to a process that the one above started and nobody has reaped.
    assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0, "it should still run");
    // SAFETY: no place for a status is given.
    assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
    assert!(matches!(error, RecvTimeoutError::Disconnected));
}

/// A child of a fork has no watcher, so it starts its own.
#[test]
fn a_forked_child_may_open_a_region_of_its_own_and_wait() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = open(&path).split_spsc().unwrap();
    rx.attach().unwrap();
    // SAFETY: the child uses what is made for children of processes with threads: memory is sound,
    // as glibc takes its locks around the fork. It leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let told = matches!(rx.recv(), Err(RecvError::Failed { source: Error::ForkedChild }));
        drop((tx, rx));
        let kept = dir.open_fds();
        let (mut tx, _) = open(&path).split_spsc().unwrap();
        let sent = tx.send(b"from a child").is_ok();
        // SAFETY: ends the child without running what the parent registered.
        unsafe { libc::_exit(i32::from(!(told && sent && kept == 0))) };
    }
    assert_eq!(rx.recv_timeout(SOON * 5).unwrap().data, b"from a child");
    assert!(matches!(rx.recv_timeout(SOON * 5), Err(RecvTimeoutError::Disconnected)));
    let mut status = -1;
    // SAFETY: `status` is a valid place for the child's status.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(status, 0);
    tx.send(b"the parent's").unwrap();
    assert_eq!(rx.recv_timeout(SOON).unwrap().data, b"the parent's");
}

/// What the departed sent is delivered before it is said that they are gone.
#[test]
fn disconnected_comes_behind_the_last_message_and_each_time() {
    let dir = Dir::new();
    let (mut tx, mut rx) = open(&dir.file("r")).split_spsc().unwrap();
    (0..3u8).for_each(|number| tx.send(&[number]).unwrap());
    drop(tx);
    for number in 0..3u8 {
        assert_eq!(rx.try_recv().unwrap().data, [number]);
    }
    for _ in 0..3 {
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Disconnected)));
        assert!(matches!(rx.recv_timeout(SOON * 5), Err(RecvTimeoutError::Disconnected)));
    }
}

/// Makes the header of the next record of the second ring one that nobody writes.
fn scribble_on_front(path: &Path) {
    let image = Image::open(path).unwrap();
    let ring = &image.rings()[1];
    let head = ring.control.unwrap().head % ring.entry.capacity;
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0xff; 8], ring.entry.data_offset + head).unwrap();
}

/// Each form of receiving says so, at once and as long as it is true.
#[test]
fn every_receive_says_disconnected_as_long_as_it_is_true() {
    type Form = fn(&mut SpscReceiver) -> bool;
    let forms: [Form; 6] = [
        |rx| matches!(rx.recv(), Err(RecvError::Disconnected)),
        |rx| matches!(rx.recv_ref(), Err(RecvError::Disconnected)),
        |rx| matches!(rx.recv_ref_timeout(SOON), Err(RecvTimeoutError::Disconnected)),
        |rx| matches!(rx.recv_into(&mut [0; 9]), Err(RecvError::Disconnected)),
        |rx| matches!(rx.try_recv_ref(), Err(TryRecvError::Disconnected)),
        |rx| matches!(rx.try_recv_into(&mut [0; 9]), Err(TryRecvError::Disconnected)),
    ];
    let dir = Dir::new();
    for (index, told_by) in forms.iter().enumerate() {
        let (mut tx, mut rx) = open(&dir.file(&index.to_string())).split_spsc().unwrap();
        tx.send(b"x").unwrap();
        assert_eq!(rx.recv_into(&mut [0; 9]).unwrap(), 1);
        drop(tx);
        for round in 0..3 {
            assert!(told_by(&mut rx), "form {index}, round {round}");
        }
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Disconnected)), "form {index}");
    }
}

#[test]
fn a_sleeper_is_notified_where_somebody_finds_damage() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = open(&path).split_mpsc().unwrap();
    rx.attach().unwrap();
    while tx.try_send(&[7; 200]).is_ok() {}
    let sender = thread::spawn(move || tx.send(&[7; 200]).unwrap_err());
    until_asleep(&path, 3);
    scribble_on_front(&path);
    let start = Instant::now();
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Failed { source: Error::Poisoned { .. } })));
    let error = sender.join().unwrap();
    assert!(matches!(error, SendError::Failed { source: Error::Poisoned { ring: 1, .. }, .. }));
    assert!(start.elapsed() < Duration::from_millis(900), "it slept until it looked by itself");
}

#[test]
fn a_lock_that_names_no_producer_ends_the_consumers_wait() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = open(&path).split_mpsc().unwrap();
    tx.attach().unwrap();
    rx.attach().unwrap();
    let control = Image::open(&path).unwrap().rings()[1].entry.control_offset;
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let foreign = LockWord { slot: 0, incarnation: 1 }.to_word();
    file.write_all_at(&foreign.to_le_bytes(), control + offset_of!(RingControl, lock) as u64)
        .unwrap();
    let error = rx.recv_timeout(SOON).unwrap_err();
    let RecvTimeoutError::Failed { source: Error::Poisoned { reason, .. } } = error else {
        panic!("{error}")
    };
    assert_eq!(reason, Damage::LockOwner { slot: 0 });
}

/// Ends have one user at a time; what they lend may be looked at by several threads.
#[test]
fn ends_may_be_sent_to_another_thread() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    is_send::<SpscSender>();
    is_send::<SpscReceiver>();
    is_send::<tombolo::MpscProducer>();
    is_send::<tombolo::MpscConsumer>();
    is_send::<tombolo::Reservation<'_>>();
    is_send::<tombolo::RecordRef<'_>>();
    is_sync::<tombolo::RecordRef<'_>>();
    is_send::<EventsRegion>();
    is_sync::<EventsRegion>();
}

#[test]
fn of_several_receivers_the_one_with_a_message_is_named() {
    let dir = Dir::new();
    let (mut tx, mut rx) = open(&dir.file("a")).split_spsc().unwrap();
    let (mut producer, mut consumer) = open(&dir.file("b")).split_mpsc().unwrap();
    let any = |rx: &mut SpscReceiver, consumer: &mut dyn Waitable, timeout| {
        wait_any(&mut [rx, consumer], timeout)
    };
    assert!(matches!(any(&mut rx, &mut consumer, SHORT), Err(RecvTimeoutError::Timeout)));
    producer.send(b"b").unwrap();
    assert_eq!(any(&mut rx, &mut consumer, SOON).unwrap(), 1);
    assert_eq!(any(&mut rx, &mut consumer, SOON).unwrap(), 1, "nothing was taken");
    assert_eq!(consumer.try_recv().unwrap().data, b"b");
    tx.send(b"a").unwrap();
    assert_eq!(any(&mut rx, &mut consumer, SOON).unwrap(), 0);
}

#[test]
fn of_several_that_are_ready_none_starves() {
    let dir = Dir::new();
    let mut ends: Vec<_> =
        (0..5).map(|i| open(&dir.file(&i.to_string())).split_spsc().unwrap()).collect();
    ends.iter_mut().for_each(|(tx, _)| (0..8).for_each(|_| tx.send(b"x").unwrap()));
    let (_txs, mut rxs): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
    let mut named = [0; 5];
    for round in 0..40 {
        let mut all: Vec<&mut dyn Waitable> =
            rxs.iter_mut().map(|rx| rx as &mut dyn Waitable).collect();
        let index = wait_any(&mut all, SOON).unwrap();
        named[index] += 1;
        assert_eq!(named[index], round / 5 + 1, "{named:?}");
        rxs[index].try_recv().unwrap();
    }
    assert_eq!(named, [8; 5]);
}

#[test]
fn a_wait_for_several_is_ended_by_a_message_from_another_process() {
    let dir = Dir::new();
    let (path, other) = (dir.file("a"), dir.file("b"));
    let (_tx, mut rx) = open(&path).split_spsc().unwrap();
    let (_other_tx, mut other_rx) = open(&other).split_spsc().unwrap();
    let late = peer("late sender", &path);
    let waiting = thread::spawn(move || {
        let index = wait_any(&mut [&mut other_rx, &mut rx], SOON * 5).unwrap();
        (index, rx.try_recv().unwrap().data)
    });
    until_asleep(&path, 0);
    late.finish();
    assert_eq!(waiting.join().unwrap(), (1, b"late".to_vec()));
}

#[test]
fn a_wait_for_several_is_ended_by_a_death_which_the_next_receive_tells() {
    let dir = Dir::new();
    let path = dir.file("a");
    let (_, mut rx) = open(&path).split_spsc().unwrap();
    let (_tx, mut other) = open(&dir.file("b")).split_spsc().unwrap();
    let sender = peer("sender", &path);
    let waiting = thread::spawn(move || {
        let index = wait_any(&mut [&mut other, &mut rx], SOON * 5).unwrap();
        (index, rx.try_recv().unwrap_err())
    });
    until_asleep(&path, 0);
    sender.kill();
    assert!(matches!(waiting.join().unwrap(), (1, TryRecvError::Disconnected)));
}

#[test]
fn one_to_128_receivers_can_be_waited_for() {
    let dir = Dir::new();
    let options = || OpenOptions::new().spsc_capacity(4096).mpsc_capacity(4096).producers(1);
    let mut ends: Vec<_> = (0..129)
        .map(|i| {
            let path = dir.file(&i.to_string());
            EventsRegion::open_path_with(path, options()).unwrap().split_spsc().unwrap()
        })
        .collect();
    let wait = |ends: &mut [(SpscSender, SpscReceiver)], timeout: Duration| {
        let mut all: Vec<_> = ends.iter_mut().map(|(_, rx)| rx as &mut dyn Waitable).collect();
        wait_any(&mut all, timeout)
    };
    for count in [0, 129] {
        let error = wait(&mut ends[..count], SHORT).unwrap_err();
        let RecvTimeoutError::Failed { source: Error::WaitCount { found, limit: 128 } } = error
        else {
            panic!("{error}")
        };
        assert_eq!(found, count);
    }
    assert!(matches!(wait(&mut ends[..128], SHORT), Err(RecvTimeoutError::Timeout)));
    ends.truncate(128);
    ends[127].0.send(b"x").unwrap();
    assert_eq!(wait(&mut ends, SOON).unwrap(), 127);
}

/// 200 endpoints with peers in another process: more words than the kernel takes at once. The rest is
/// covered by the tick.
#[test]
fn deaths_are_noticed_where_there_are_more_peers_than_words() {
    let dir = Dir::new();
    let mut regions: Vec<_> = (0..130).map(|i| open(&dir.file(&i.to_string()))).collect();
    let mut ends: Vec<_> = regions.iter_mut().map(|region| region.split_spsc().unwrap()).collect();
    ends.iter_mut().for_each(|(_, rx)| rx.attach().unwrap());
    for index in [0, 129] {
        let path = dir.file(&index.to_string());
        let sender = peer("sender", &path);
        let rx = &mut ends[index].1;
        assert!(matches!(rx.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout)));
        sender.kill();
        let start = Instant::now();
        assert!(matches!(rx.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected)));
        println!("{index}: {:?}", start.elapsed());
    }
}

#[test]
fn a_try_send_tells_that_the_receiver_of_a_full_ring_is_gone() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, _) = open(&path).split_spsc().unwrap();
    let receiver = peer("receiver", &path);
    fill(&mut tx);
    receiver.kill();
    let start = Instant::now();
    loop {
        match tx.try_send(&[7; 200]) {
            Err(TrySendError::Full(())) if start.elapsed() < SOON => {}
            result => break assert!(matches!(result, Err(TrySendError::Disconnected(())))),
        }
    }
}
