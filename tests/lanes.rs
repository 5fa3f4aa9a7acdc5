//! Where each producer has a lane of its own: who gets which, and in which order messages come.

use std::collections::BTreeMap;
use std::fs::File;
use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tombolo::inspect::{Health, Image};
use tombolo::options::{Disconnect, MpscOrder};
use tombolo::{
    Error, EventsRegion, MpscProducer, OpenOptions, RecvTimeoutError, TryRecvError, TrySendError,
    wait_any,
};
use tombolo_abi::{RingControl, RingKind, RingState, wake};

mod support;
use support::Dir;
use support::process::{Peer, report, role, wait_for_parent};

/// Long enough for anything that must happen, short enough to fail a test.
const SOON: Duration = Duration::from_secs(2);
const SHORT: Duration = Duration::from_millis(60);

/// A small region with so many lanes.
fn lanes(count: u16) -> OpenOptions {
    let options = OpenOptions::new().mpsc_order(MpscOrder::PerProducer);
    options.spsc_capacity(4096).mpsc_capacity(4096).producers(count)
}

fn open(path: &Path, count: u16) -> EventsRegion {
    EventsRegion::open_path_with(path, lanes(count)).unwrap()
}

fn producer(path: &Path, count: u16) -> MpscProducer {
    open(path, count).split_mpsc().unwrap().0
}

/// What a process of its own does; nothing in the test program itself.
#[test]
fn peer_process() {
    let Some((role, path)) = role() else { return };
    let (mut tx, mut rx) = open(&path, 1).split_mpsc().unwrap();
    match role.as_str() {
        "producer" => (1..=3u8).for_each(|number| tx.send(&[number]).unwrap()),
        "twice" => tx.send(b"first").unwrap(),
        "consumer" => rx.attach().unwrap(),
        other => panic!("no such role: {other}"),
    }
    report("ready");
    wait_for_parent();
    if role == "twice" {
        tx.send(b"second").unwrap();
        report("sent");
        loop {
            thread::park(); // the parent's to end
        }
    }
}

fn peer(role: &str, path: &Path) -> Peer {
    Peer::start("peer_process", role, path)
}

/// A file whose summary is read and written behind everybody's back.
fn summary(path: &Path) -> (File, u64) {
    let control = Image::open(path).unwrap().rings()[1].entry.control_offset;
    let file = File::options().read(true).write(true).open(path).unwrap();
    (file, control + offset_of!(RingControl, summary) as u64)
}

/// Looks at empty lanes until no bit is set, and then until the consumer has forgotten them.
fn forget_lanes(path: &Path, mut is_empty: impl FnMut() -> bool) {
    let (file, at) = summary(path);
    let (start, mut bits) = (Instant::now(), [1]);
    while bits != [0] {
        assert!(is_empty() && start.elapsed() < SOON);
        file.read_exact_at(&mut bits, at).unwrap();
    }
    let start = Instant::now();
    while start.elapsed() < SHORT {
        assert!(is_empty());
    }
}

/// Lets a peer that has sent once send its second message, and takes its bit away: so it is where a
/// producer was stopped between publishing and setting the bit.
fn send_without_a_bit(peer: &mut Peer, path: &Path) {
    peer.let_go();
    assert_eq!(peer.next_report(), "sent");
    let (file, at) = summary(path);
    file.write_all_at(&[0], at).unwrap();
}

#[test]
fn each_producer_and_each_clone_has_a_lane_of_its_own() {
    let dir = Dir::new();
    let path = dir.file("r");
    let mut held: Vec<_> = (0..2).map(|_| producer(&path, 3)).collect();
    held.push(held[0].clone());
    for producer in &mut held {
        producer.attach().unwrap();
    }
    let mut fourth = held[0].clone();
    let error = fourth.attach().unwrap_err();
    assert!(matches!(error, Error::Busy { ring: 1, role: "sender", places: 3, .. }), "{error}");
    assert_eq!(fourth.ring(), 1, "not claimed: the first of all");
    for (producer, number) in held.iter_mut().zip(1u8..) {
        assert_eq!(producer.ring(), number.into());
        producer.send(&[number]).unwrap();
    }
    let (_, mut rx) = open(&path, 3).split_mpsc().unwrap();
    let mut found = BTreeMap::new();
    for _ in 0..3 {
        let record = rx.recv_ref().unwrap();
        assert!(found.insert(record.to_vec().unwrap(), record.ring()).is_none());
    }
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [(vec![1], 1), (vec![2], 2), (vec![3], 3)]);
    held.remove(1);
    fourth.attach().unwrap();
}

/// It once named the dead.
#[test]
fn a_claimer_that_is_refused_learns_who_has_a_lane_or_which_one_is_to_be_drained() {
    let dir = Dir::new();
    let path = dir.file("r");
    let mut region = open(&path, 2);
    let (mut tx, mut rx) = region.split_mpsc().unwrap();
    let (dead, live) = (peer("producer", &path), peer("producer", &path));
    dead.kill();
    let error = tx.attach().unwrap_err();
    assert!(matches!(error, Error::LaneNotEmpty { ring: 1, lanes: 2 }), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("none of 2 lanes is free: lane 1 has unread messages"), "{text}");
    (0..6).for_each(|_| drop(rx.recv_timeout(SOON).unwrap()));
    let mut own = tx.clone();
    own.attach().unwrap();
    own.send(b"left").unwrap();
    let error = tx.attach().unwrap_err();
    assert!(matches!(error, Error::Busy { pid, .. } if pid == std::process::id()), "{error}");
    drop(live);
    tx.attach().unwrap();
}

#[test]
fn as_many_lanes_as_the_layout_has_and_no_more() {
    let dir = Dir::new();
    let error = EventsRegion::open_path_with(dir.file("r"), lanes(513)).unwrap_err();
    assert!(matches!(error, Error::InvalidOption { option: "producers", found: 513, .. }));
    let mut region = open(&dir.file("r"), 512);
    let (tx, mut rx) = region.split_mpsc().unwrap();
    let mut many: Vec<_> = (0..512).map(|_| tx.clone()).collect();
    for (number, tx) in many.iter_mut().enumerate() {
        tx.send(&number.to_le_bytes()).unwrap();
    }
    let mut got: Vec<_> = (0..512).map(|_| rx.recv_timeout(SOON).unwrap().data).collect();
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 512);
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    many[511].send(b"the last").unwrap();
    assert_eq!(rx.try_recv().unwrap().data, b"the last");
}

#[test]
fn a_lane_of_a_dead_producer_is_drained_before_the_next_one_gets_it() {
    let dir = Dir::new();
    let path = dir.file("r");
    let mut region = open(&path, 1);
    let (mut tx, mut rx) = region.split_mpsc().unwrap();
    peer("producer", &path).kill();
    let error = tx.attach().unwrap_err();
    assert!(matches!(error, Error::LaneNotEmpty { ring: 1, lanes: 1 }), "{error}");
    assert!(error.to_string().starts_with("lane 1 has unread messages"), "{error}");
    let got: Vec<_> = rx.iter().map(|message| message.unwrap().data).collect();
    assert_eq!(got, [[1], [2], [3]], "the departure is told behind them");
    tx.send(b"next").unwrap();
    assert_eq!(rx.recv().unwrap().data, b"next");
}

#[test]
fn a_claimer_waits_for_a_lane_to_be_drained_as_long_as_its_caller_would() {
    let dir = Dir::new();
    let path = dir.file("r");
    let mut region = open(&path, 1);
    let (mut tx, mut rx) = region.split_mpsc().unwrap();
    peer("producer", &path).finish();
    thread::scope(|scope| {
        let reader = scope.spawn(move || {
            thread::sleep(SHORT * 5);
            rx.set_disconnect(Disconnect::Never); // the claimer is still to come
            (0..4).map(|_| rx.recv_timeout(SOON).unwrap().data[0]).collect::<Vec<_>>()
        });
        tx.send_timeout(&[4], SOON).unwrap();
        assert_eq!(reader.join().unwrap(), [1, 2, 3, 4]);
    });
}

#[test]
fn disconnected_is_said_when_all_producers_are_gone_and_from_then_on() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (_, mut rx) = open(&path, 3).split_mpsc().unwrap();
    assert!(matches!(rx.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout)), "nobody came yet");
    let (first, second) = (peer("producer", &path), peer("producer", &path));
    first.kill();
    for _ in 0..6 {
        rx.recv_timeout(SOON).unwrap();
    }
    assert!(matches!(rx.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout)), "one lives");
    second.kill();
    assert!(matches!(rx.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected)));
    assert!(matches!(rx.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected)), "still so");
}

#[test]
fn a_full_lane_is_full_for_its_producer_only() {
    let dir = Dir::new();
    let mut region = open(&dir.file("r"), 2);
    let (mut full, mut rx) = region.split_mpsc().unwrap();
    let mut other = full.clone();
    while full.try_send(&[7; 500]).is_ok() {}
    assert!(matches!(full.try_send(&[7; 500]), Err(TrySendError::Full(()))));
    for number in 0..100u8 {
        other.try_send(&[number]).unwrap();
    }
    let mut numbers = 0;
    while let Ok(message) = rx.try_recv() {
        if message.data.len() == 1 {
            assert_eq!(message.data[0], numbers);
            numbers += 1;
        }
    }
    assert_eq!(numbers, 100);
    full.try_send(&[7; 500]).unwrap();
}

/// One lane is never empty, and the other's message comes all the same.
#[test]
fn a_busy_lane_does_not_starve_another() {
    let dir = Dir::new();
    let mut region = open(&dir.file("r"), 2);
    let (mut busy, mut rx) = region.split_mpsc().unwrap();
    let mut other = busy.clone();
    for _ in 0..100 {
        busy.send(&[0; 8]).unwrap();
    }
    let mut turns = 0;
    for _ in 0..100 {
        other.send(b"seldom").unwrap();
        let mut between = 0;
        while rx.try_recv().unwrap().data != b"seldom" {
            busy.send(&[0; 8]).unwrap();
            between += 1;
        }
        assert!(between <= 128, "{between} messages of the busy lane came first");
        turns += u64::from(between > 0);
    }
    println!("{turns} times the busy lane had its turn first");
    assert!(turns > 0);
}

#[test]
fn messages_of_one_producer_keep_their_order_among_those_of_others() {
    const EACH: u32 = 20_000;
    let dir = Dir::new();
    let mut region = open(&dir.file("r"), 4);
    let (tx, mut rx) = region.split_mpsc().unwrap();
    let (mut next, mut changes, mut last) = ([0u32; 4], 0, 0);
    thread::scope(|scope| {
        for producer in 0..4u32 {
            let mut tx = tx.clone();
            tx.attach().unwrap(); // or the first might be gone before the second has come
            scope.spawn(move || {
                for number in 0..EACH {
                    let message = u64::from(producer) << 32 | u64::from(number);
                    tx.send(&message.to_le_bytes()).unwrap();
                }
            });
        }
        let mut room = [0; 8];
        for _ in 0..4 * EACH {
            rx.recv_into_timeout(&mut room, SOON * 5).unwrap();
            let message = u64::from_le_bytes(room);
            let (producer, number) = ((message >> 32) as usize, message as u32);
            assert_eq!(number, next[producer], "of producer {producer}");
            next[producer] += 1;
            changes += u64::from(producer != last);
            last = producer;
        }
    });
    println!(
        "{} messages, {changes} changes from one producer to another",
        next.iter().sum::<u32>()
    );
    assert!(next == [EACH; 4] && changes > 0);
}

/// It once came only after the busy lane had run empty, and until then nobody could claim its lane.
#[test]
fn what_a_dead_producer_left_untold_comes_beside_a_lane_that_is_never_empty() {
    let dir = Dir::new();
    let path = dir.file("r");
    let mut region = open(&path, 2);
    let (mut busy, mut rx) = region.split_mpsc().unwrap();
    busy.attach().unwrap();
    let mut other = peer("twice", &path);
    assert_eq!(rx.recv().unwrap().data, b"first");
    busy.send(b"busy").unwrap();
    assert_eq!(rx.recv().unwrap().data, b"busy");
    forget_lanes(&path, || matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    (0..100).for_each(|_| busy.send(b"busy").unwrap());
    send_without_a_bit(&mut other, &path);
    (0..1000).for_each(|_| {
        assert_eq!(rx.try_recv().unwrap().data, b"busy", "nobody has told of the other yet");
        busy.send(b"busy").unwrap();
    });
    other.kill();
    let (start, mut between) = (Instant::now(), 0);
    while rx.try_recv().unwrap().data != b"second" {
        assert!(start.elapsed() < SOON);
        busy.send(b"busy").unwrap();
        between += 1;
    }
    println!("{between} messages of the busy lane came first");
    busy.clone().attach().unwrap();
}

/// It once never came.
#[test]
fn what_a_dead_producer_left_untold_comes_to_a_consumer_that_only_drains() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut last, mut rx) = open(&path, 2).split_mpsc().unwrap();
    last.attach().unwrap();
    let mut other = peer("twice", &path);
    assert_eq!(rx.drain(1, |record| assert_eq!(record.to_vec().unwrap(), b"first")).unwrap(), 1);
    last.send(b"last").unwrap();
    assert_eq!(rx.drain(1, |record| assert_eq!(record.to_vec().unwrap(), b"last")).unwrap(), 1);
    forget_lanes(&path, || rx.drain(1, |_| ()).unwrap() == 0);
    send_without_a_bit(&mut other, &path);
    other.kill();
    let start = Instant::now();
    while rx.drain(1, |record| assert_eq!(record.to_vec().unwrap(), b"second")).unwrap() == 0 {
        assert!(start.elapsed() < SOON);
    }
}

/// One receive of sixty-four once said that there was nothing.
#[test]
fn a_message_that_nobody_told_of_stays_there_once_it_was_seen() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (_, mut rx) = open(&path, 2).split_mpsc().unwrap();
    let mut other = peer("twice", &path);
    assert_eq!(rx.recv().unwrap().data, b"first");
    forget_lanes(&path, || matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    send_without_a_bit(&mut other, &path);
    for _ in 0..1000 {
        let record = rx.try_recv_ref().unwrap();
        assert_eq!(record.to_vec().unwrap(), b"second");
        record.keep();
    }
    // Nor does a lane beside it that is never empty make it forgotten.
    let mut busy = producer(&path, 2);
    busy.send(b"busy").unwrap();
    let mut seen = 0;
    for _ in 0..1000 {
        let record = rx.try_recv_ref().unwrap();
        if record.to_vec().unwrap() == b"second" {
            record.keep();
            seen += 1;
        } else {
            drop(record);
            busy.send(b"busy").unwrap();
        }
    }
    assert!((300..700).contains(&seen), "seen {seen} times in 1000");
}

/// The count once began anew with each turn, so that fences were asked for as long as two lanes were
/// in use.
#[test]
fn producers_go_on_without_fences_though_their_lanes_take_turns() {
    let dir = Dir::new();
    let path = dir.file("r");
    let mut region = open(&path, 2);
    let (mut tx, mut rx) = region.split_mpsc().unwrap();
    let mut other = tx.clone();
    let control = Image::open(&path).unwrap().rings()[1].entry.control_offset;
    let (file, at) =
        (File::open(&path).unwrap(), control + offset_of!(RingControl, rx_wake) as u64);
    let asks_for_fences = || {
        let mut word = [0; 4];
        file.read_exact_at(&mut word, at).unwrap();
        u32::from_le_bytes(word) & wake::FENCE_REQ != 0
    };
    assert!(matches!(rx.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout)));
    assert!(asks_for_fences());
    let (start, mut rounds) = (Instant::now(), 0);
    while asks_for_fences() {
        assert!(start.elapsed() < SOON);
        for _ in 0..100 {
            tx.send(b"one").unwrap();
            other.send(b"two").unwrap();
            (0..2).for_each(|_| drop(rx.try_recv().unwrap()));
        }
        rounds += 1;
    }
    println!("after {rounds} hundred messages of each");
}

/// The lanes fall out of the consumer's attention between the rounds, and come back by their bits.
#[test]
fn a_lane_that_was_quiet_for_long_is_heard_again() {
    let dir = Dir::new();
    let mut region = open(&dir.file("r"), 100);
    let (tx, mut rx) = region.split_mpsc().unwrap();
    let mut many: Vec<_> = (0..100).map(|_| tx.clone()).collect();
    let mut count = 0;
    for round in 0..20 {
        for tx in many.iter_mut().skip(round % 7).step_by(1 + round) {
            tx.send(&[round as u8]).unwrap();
            count += 1;
            assert_eq!(rx.try_recv().unwrap().data, [round as u8]);
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(5) {
            assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
        }
    }
    println!("{count} messages");
    assert!(count > 100);
}

#[test]
fn lanes_are_waited_for_beside_other_rings() {
    let dir = Dir::new();
    let mut region = open(&dir.file("r"), 3);
    let (mut orders, mut rx) = region.split_spsc().unwrap();
    let (tx, mut lanes) = region.split_mpsc().unwrap();
    let mut many: Vec<_> = (0..3).map(|_| tx.clone()).collect();
    for tx in &mut many {
        tx.attach().unwrap();
    }
    for tx in &mut many {
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(SHORT);
                tx.send(b"a line").unwrap();
            });
            assert_eq!(wait_any(&mut [&mut rx, &mut lanes], SOON).unwrap(), 1);
        });
        assert_eq!(lanes.try_recv().unwrap().data, b"a line");
    }
    orders.send(b"an order").unwrap();
    assert_eq!(wait_any(&mut [&mut rx, &mut lanes], SOON).unwrap(), 0);
}

#[test]
fn a_blocked_producer_of_a_lane_is_woken_for_room_and_told_of_its_consumers_death() {
    let dir = Dir::new();
    let path = dir.file("r");
    let mut region = open(&path, 2);
    let (mut tx, mut rx) = region.split_mpsc().unwrap();
    let mut other = tx.clone();
    other.attach().unwrap();
    while tx.try_send(&[7; 500]).is_ok() {}
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(SHORT);
            while rx.try_recv().is_ok() {}
        });
        tx.send_timeout(&[7; 500], SOON).unwrap();
    });
    drop(rx);
    let consumer = peer("consumer", &path);
    while tx.try_send(&[7; 500]).is_ok() {}
    consumer.kill();
    let start = Instant::now();
    assert!(tx.send(&[7; 500]).is_err());
    assert!(start.elapsed() < SOON);
}

/// It once faulted in all of it, which took as long as a thousand receives.
#[test]
fn the_first_receive_from_a_long_lane_faults_in_its_start_alone() {
    const CAPACITY: u64 = 1 << 24;
    let dir = Dir::new();
    let path = dir.file("r");
    let options = lanes(2).mpsc_capacity(CAPACITY);
    let mut region = EventsRegion::open_path_with(&path, options).unwrap();
    let (mut tx, mut rx) = region.split_mpsc().unwrap();
    rx.attach().unwrap();
    tx.attach().unwrap(); // the first lane
    let _producer = peer("producer", &path); // it is there with all its pages
    let before = mapped_kib();
    assert_eq!(rx.recv().unwrap().data, [1]);
    let came = mapped_kib().saturating_sub(before);
    println!("{came} KiB came");
    assert!(came < CAPACITY / 1024 / 2, "{came} KiB");
}

/// Of pages of files that this process has mapped, those that are there.
fn mapped_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let fields =
        status.lines().filter(|line| line.starts_with("RssFile") || line.starts_with("RssShmem"));
    fields.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn a_joiner_takes_the_order_that_is_there() {
    let dir = Dir::new();
    let mut creator = open(&dir.file("lanes"), 2);
    let mut joiner = EventsRegion::open_path(dir.file("lanes")).unwrap();
    let (mut tx, _) = joiner.split_mpsc().unwrap();
    tx.send(b"one").unwrap();
    assert_eq!(creator.split_mpsc().unwrap().1.recv().unwrap().data, b"one");
    drop(EventsRegion::open_path(dir.file("total")).unwrap());
    let refused = EventsRegion::open_path_with(dir.file("total"), lanes(2)).unwrap_err();
    assert!(refused.to_string().contains("mpsc_order is Total, wanted PerProducer"), "{refused}");
    let mut joiner = EventsRegion::open_path(dir.file("total")).unwrap();
    let (tx, _) = joiner.split_mpsc().unwrap();
    let mut clones = vec![tx; 3];
    clones.iter_mut().for_each(|tx| tx.send(b"x").unwrap());
    let options = lanes(2).mpsc_capacity(8192);
    let error = EventsRegion::open_path_with(dir.file("lanes"), options).unwrap_err();
    assert!(error.to_string().contains("mpsc_capacity"), "{error}");
}

#[test]
fn a_region_of_lanes_is_sound_to_those_who_inspect_it() {
    let dir = Dir::new();
    let path = dir.file("r");
    let mut region = open(&path, 3);
    let (tx, mut rx) = region.split_mpsc().unwrap();
    let mut many: Vec<_> = (0..3).map(|_| tx.clone()).collect();
    for tx in &mut many {
        tx.send(b"five!").unwrap();
    }
    rx.recv().unwrap();
    let image = Image::open(&path).unwrap();
    assert_eq!(image.health(), Health::Healthy, "{:?}", image.problems());
    let kinds: Vec<_> = image.rings().iter().map(|ring| ring.entry.ring_kind().unwrap()).collect();
    assert_eq!(kinds, [RingKind::Spsc, RingKind::Lane, RingKind::Lane, RingKind::Lane]);
    let msgs: Vec<_> = image.rings().iter().map(|ring| ring.depth.unwrap().msgs).collect();
    assert_eq!(msgs, [Some(0), Some(0), Some(1), Some(1)]);
}

/// It once passed over the padding twice: while attaching, and again where it began to receive, which
/// by then was room that the producer had used.
#[test]
fn a_consumer_that_attaches_in_front_of_padding_takes_up_where_that_ends() {
    let dir = Dir::new();
    let mut region = open(&dir.file("r"), 1);
    let (mut tx, _) = region.split_mpsc().unwrap();
    let (mut sent, mut received) = (0u64, 0u64);
    let message = |number: u64| {
        let mut bytes = vec![0; 500 + (number * 97 % 500) as usize];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes
    };
    for _ in 0..200 {
        let (_, mut rx) = region.split_mpsc().unwrap();
        tx.try_send(&message(sent)).unwrap();
        sent += 1;
        rx.attach().unwrap();
        while tx.try_send(&message(sent)).is_ok() {
            sent += 1;
        }
        while let Ok(found) = rx.try_recv() {
            assert_eq!(found.data, message(received));
            received += 1;
        }
        assert_eq!(received, sent);
    }
    println!("{sent} messages to 200 consumers");
}

#[test]
fn damage_in_one_lane_is_told_to_the_ends_of_all() {
    let dir = Dir::new();
    let path = dir.file("r");
    let mut region = open(&path, 3);
    let (tx, mut rx) = region.split_mpsc().unwrap();
    let mut many: Vec<_> = (0..3).map(|_| tx.clone()).collect();
    for tx in &mut many {
        tx.send(b"one").unwrap();
        assert_eq!(rx.recv().unwrap().data, b"one");
    }
    while many[2].try_send(&[7; 500]).is_ok() {}
    let image = Image::open(&path).unwrap();
    let lane = image.rings()[2].entry;
    let blocked = many.remove(2);
    thread::scope(|scope| {
        let mut blocked = blocked;
        let waits = scope.spawn(move || blocked.send(&[7; 500]));
        thread::sleep(SHORT);
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 8], lane.data_offset + 16).unwrap();
        let start = Instant::now();
        let error = loop {
            match rx.recv_timeout(SHORT) {
                Ok(_) | Err(RecvTimeoutError::Timeout) => assert!(start.elapsed() < SOON),
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("poisoned"), "{error}");
        waits.join().unwrap().ok(); // room may have come before the damage
    });
    for tx in &mut many {
        let error = tx.try_send(b"more").unwrap_err();
        assert!(error.to_string().contains("poisoned"), "{error}");
    }
    assert!(rx.try_recv().is_err());
    let image = Image::open(&path).unwrap();
    let states: Vec<_> = image.rings()[1..].iter().map(|ring| ring.state()).collect();
    assert_eq!(states, [Some(RingState::Poisoned); 3]);
}

/// It once named the first.
#[test]
fn a_consumer_that_attaches_names_the_lane_that_is_damaged() {
    for is_position in [true, false] {
        let dir = Dir::new();
        let path = dir.file("r");
        let (_, mut rx) = open(&path, 3).split_mpsc().unwrap();
        let lane = Image::open(&path).unwrap().rings()[3].entry;
        let head = lane.control_offset + offset_of!(RingControl, head) as u64;
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[0xff; 8], if is_position { head } else { lane.data_offset }).unwrap();
        let error = rx.attach().unwrap_err();
        assert!(matches!(error, Error::Poisoned { ring: 3, .. }), "{error}");
    }
}

#[test]
fn a_bit_of_the_summary_that_no_lane_has_is_a_problem_and_disturbs_nobody() {
    let dir = Dir::new();
    let path = dir.file("r");
    let mut region = open(&path, 3);
    let (mut tx, mut rx) = region.split_mpsc().unwrap();
    let control = Image::open(&path).unwrap().rings()[1].entry.control_offset;
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xf8; 64], control + 0x380).unwrap();
    let image = Image::open(&path).unwrap();
    let problem = image.problems().first().unwrap();
    println!("{problem}");
    assert_eq!((image.health(), problem.code), (Health::Damaged, "summary"));
    assert_eq!(problem.offset, Some(control + 0x380));
    tx.send(b"one").unwrap();
    assert_eq!(rx.recv().unwrap().data, b"one");
}
