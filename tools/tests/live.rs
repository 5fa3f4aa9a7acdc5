//! `tombolo inspect` and `tombolo dump` on regions that are in use, and on one whose writer was
//! killed.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use common::{look, look_json};
use tombolo::inspect::{Health, Image, Liveness, RingView};
use tombolo::options::{MpscOrder, RingOptions};
use tombolo::{EventsRegion, MessagePacket, OpenOptions, TryRecvError, TrySendError};

const SNAPSHOTS: u32 = 200;
const KILLS: u64 = 20;
/// Where set, this test binary is the writer that gets killed, and this is its region.
const WRITER: &str = "TOMBOLO_TEST_WRITER";

/// Messages of all lengths, so that padding and wraps come everywhere. All bytes are set, so that
/// a payload taken for a header is noticed.
fn message(number: u64) -> Vec<u8> {
    vec![0xee; (number.wrapping_mul(2_654_435_761) % 3000) as usize]
}

/// Keeps both rings of the region busy until told to stop; returns the messages received.
fn keep_busy(path: &Path, stop: &AtomicBool) -> u64 {
    let mut region = EventsRegion::open_path(path).unwrap();
    let (mut tx, mut rx) = region.split_spsc().unwrap();
    let (mut producer, mut consumer) = region.split_mpsc().unwrap();
    let received = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| send_until(stop, |bytes| tx.try_send(bytes)));
        scope.spawn(|| send_until(stop, |bytes| producer.try_send(bytes)));
        scope.spawn(|| receive_until(stop, &received, || rx.try_recv().map(drop)));
        scope.spawn(|| receive_until(stop, &received, || consumer.try_recv().map(drop)));
    });
    received.into_inner()
}

fn send_until(stop: &AtomicBool, mut send: impl FnMut(&[u8]) -> Result<(), TrySendError>) {
    for number in 0.. {
        if stop.load(Relaxed) {
            return;
        }
        match send(&message(number)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => thread::yield_now(),
            Err(_) if stop.load(Relaxed) => return, // its receiver was faster
            Err(error) => panic!("{error}"),
        }
    }
}

fn receive_until(
    stop: &AtomicBool,
    received: &AtomicU64,
    mut receive: impl FnMut() -> Result<(), TryRecvError>,
) {
    while !stop.load(Relaxed) {
        match receive() {
            Ok(()) => drop(received.fetch_add(1, Relaxed)),
            Err(_) => thread::yield_now(),
        }
    }
}

#[test]
fn a_busy_region_never_looks_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("busy.tombolo");
    drop(EventsRegion::open_path(&path).unwrap());
    let stop = AtomicBool::new(false);
    let (received, seen) = thread::scope(|scope| {
        let busy = scope.spawn(|| keep_busy(&path, &stop));
        let looks = scope.spawn(|| look_again_and_again(&path));
        let seen = looks.join();
        stop.store(true, Relaxed);
        (busy.join().unwrap(), seen.unwrap())
    });
    println!("{SNAPSHOTS} snapshots, {seen:?}; {received} messages went through meanwhile");
    assert!(received > 0 && seen.records > 0);
}

#[derive(Debug, Default)]
struct Seen {
    records: u64,
    missed: u64,
    moving: u32,
    runs: u32,
}

fn look_again_and_again(path: &Path) -> Seen {
    let mut seen = Seen::default();
    for snapshot in 0..SNAPSHOTS {
        let image = Image::open(path).unwrap();
        assert_eq!(image.health(), Health::Healthy, "{snapshot}: {:?}", image.problems());
        seen.moving += u32::from(!image.is_consistent());
        if image.is_consistent() {
            image.rings().iter().for_each(|ring| belongs_together(&image, ring));
        }
        for ring in [0, 1] {
            let mut records = image.records(ring, 500, 4000).unwrap();
            for record in records.by_ref() {
                let view = record.unwrap_or_else(|problem| panic!("{snapshot}: {problem}"));
                assert!(view.payload.iter().all(|byte| *byte == 0xee), "{snapshot}: {view:?}");
                seen.records += 1;
            }
            seen.missed += records.missed();
        }
        if snapshot.is_multiple_of(10) {
            for (command, args) in [("inspect", &[][..]), ("inspect", &["--json"]), ("dump", &[])] {
                let (code, out, err) = look(command, path, args);
                assert_eq!(code, 0, "{snapshot}: {command}: {err}{out}");
                seen.runs += 1;
            }
        }
    }
    seen
}

/// Asserts that no word of a ring contradicts another, or those of its senders.
fn belongs_together(image: &Image, ring: &RingView) {
    let control = ring.control.unwrap();
    let between = |from: u64, to: u64| u64::try_from(to.wrapping_sub(from) as i64);
    let len = between(control.head, control.tail);
    assert!(len.is_ok(), "head is beyond tail: {control:?}");
    assert_eq!(ring.depth.map(|depth| depth.len), len.ok(), "{control:?}");
    for (from, to) in [
        (control.received_msgs, control.sent_msgs),
        (control.received_bytes, control.sent_bytes),
        (control.handles_taken, control.handles_sent),
    ] {
        assert!(between(from, to).is_ok(), "more arrived than was sent: {control:?}");
    }
    let senders = image.endpoints().iter().filter(|endpoint| endpoint.fields.ring == ring.ring);
    let sent: u64 = senders.map(|endpoint| endpoint.fields.msgs).sum();
    assert!(sent <= control.sent_msgs, "its senders count {sent}: {control:?}");
}

#[test]
fn the_endpoints_of_a_live_region_are_alive() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("live.tombolo");
    let mut region = EventsRegion::open_path(&path).unwrap();
    let (mut tx, mut rx) = region.split_spsc().unwrap();
    rx.attach().unwrap();
    tx.send(b"to be seen").unwrap();
    let (code, out, _) = look("inspect", &path, &[]);
    println!("{out}");
    assert!(out.starts_with("healthy: 2 rings, 2 endpoints alive\n"));
    let (_, dump, _) = look("dump", &path, &[]);
    assert_eq!((code, dump.contains("|to be seen|")), (0, true), "{dump}");
    assert_eq!(rx.recv().unwrap().data, b"to be seen", "looking must take nothing");
    drop((tx, rx));
    let (code, json) = look_json("inspect", &path);
    assert_eq!((code, &json["endpoints"][0]["liveness"]), (0, &"left".into()), "{json:#}");
}

/// The process that is killed in the middle of its work.
#[test]
fn busy_writer() {
    let Some(path) = std::env::var_os(WRITER) else { return };
    drop(EventsRegion::open_path(&path).unwrap());
    say_sent();
    keep_busy(path.as_ref(), &AtomicBool::new(false));
}

/// The process that is killed when it has sent 100 messages on each ring.
#[test]
fn writer() {
    let Some(path) = std::env::var_os(WRITER) else { return };
    let mut region = EventsRegion::open_path(path).unwrap();
    let (mut tx, _) = region.split_spsc().unwrap();
    let (mut producer, _) = region.split_mpsc().unwrap();
    for number in 0..100 {
        tx.send(format!("message {number}").as_bytes()).unwrap();
        producer.send(b"shared").unwrap();
    }
    say_sent();
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

fn say_sent() {
    println!("\nsent");
    std::io::stdout().flush().unwrap();
}

fn start(writer: &str, path: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", writer, "--nocapture"])
        .env(WRITER, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "sent"), "the writer ended too early");
    child
}

#[test]
fn what_a_killed_writer_sent_is_there_and_its_endpoints_are_dead() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("killed.tombolo");
    let mut writer = start("writer", &path);
    let (code, json) = look_json("inspect", &path);
    assert_eq!((code, &json["endpoints"][0]["liveness"]), (0, &"alive".into()));
    writer.kill().unwrap();
    writer.wait().unwrap();

    let (code, out, _) = look("inspect", &path, &[]);
    println!("{out}");
    assert_eq!(code, 0);
    assert!(out.starts_with("healthy: 2 rings, 0 endpoints alive, 2 DEAD\n"));
    let (code, json) = look_json("dump", &path);
    let shown = [0, 1].map(|ring| json["rings"][ring]["records"].as_array().unwrap().len());
    println!("{shown:?} records left by the killed writer");
    assert_eq!((code, shown), (0, [100, 100]));
    assert_eq!(json["rings"][0]["records"][99]["payload_text"], "message 99");
}

#[test]
fn in_a_copy_of_a_region_in_use_nobody_is_called_dead() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let [path, copy] = ["live.tombolo", "copy.tombolo"].map(|name| directory.path().join(name));
    let options = OpenOptions::new().max_handles(1);
    let mut region = EventsRegion::open_path_with(&path, options).unwrap();
    let (mut tx, mut rx) = region.split_spsc().unwrap();
    let (mut producer, _) = region.split_mpsc().unwrap();
    rx.attach().unwrap();
    producer.attach().unwrap();
    tx.send(b"to be seen").unwrap();
    std::fs::copy(&path, &copy).unwrap();
    let image = Image::open(&path).unwrap();
    let entry = image.rings()[1].entry; // of which the producer is just sending
    let lock = tombolo_abi::LockWord { slot: entry.tx_slot_first, incarnation: 1 }.to_word();
    let file = std::fs::File::options().write(true).open(&copy).unwrap();
    file.write_all_at(&lock.to_le_bytes(), entry.control_offset).unwrap();

    let (code, out, _) = look("inspect", &copy, &[]);
    println!("{out}");
    assert!(out.starts_with("healthy: 2 rings, a copy: who is alive is unknown\n"), "{out}");
    let out = out.to_lowercase();
    for wrong in ["dead", "not listen"] {
        assert!(!out.contains(wrong), "{wrong:?} is said of a copy:\n{out}");
    }
    assert!(out.contains("1 msg"), "what lies in it is shown");
    let (_, json) = look_json("inspect", &copy);
    assert_eq!(
        (code, &json["copy"], &json["endpoints"][0]["liveness"]),
        (0, &true.into(), &"unknown".into())
    );
    assert_eq!(json["rings"][1]["lock"]["liveness"], "unknown");
    assert_eq!(look_json("inspect", &path).1["copy"], false);
}

#[test]
fn a_writer_killed_at_any_moment_leaves_no_damage() {
    let directory = tempfile::tempdir().unwrap();
    let (mut left, mut locks) = (0, 0);
    for round in 0..KILLS {
        let path = directory.path().join(format!("killed{round}.tombolo"));
        let mut writer = start("busy_writer", &path);
        thread::sleep(Duration::from_micros(5000 + 370 * round));
        writer.kill().unwrap();
        writer.wait().unwrap();
        let image = Image::open(&path).unwrap();
        assert_eq!(image.problems(), [], "round {round}");
        let lock = image.rings()[1].lock;
        assert!(lock.is_none_or(|lock| lock.liveness == Liveness::Dead), "{lock:?}");
        locks += u64::from(lock.is_some());
        for ring in [0, 1] {
            let mut records = image.records(ring, u64::MAX, 4000).unwrap();
            left += records.by_ref().map(Result::unwrap).count();
        }
        let (code, _, err) = look("dump", &path, &["--json"]);
        // Its receiver is dead, too: the ring may have been full just then.
        let sound = if image.stuck().is_empty() { 0 } else { 5 };
        let expected = if image.health() == Health::Damaged { 1 } else { sound };
        assert_eq!(code, expected, "round {round}: {err}");
    }
    println!("{KILLS} writers killed, {left} records left, {locks} died with the lock held");
    assert!(left > 0);
}

#[test]
fn who_is_connected_for_handles_is_shown_and_how_many_are_on_their_way() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = directory.path().join("region.tombolo");
    let mut region =
        EventsRegion::open_path_with(&path, OpenOptions::new().max_handles(4)).unwrap();
    let (mut tx, mut rx) = region.split_spsc().unwrap();
    rx.attach().unwrap();
    let null = || std::fs::File::open("/dev/null").unwrap();
    let packet = MessagePacket::from(b"two").handle(null()).handle(null());
    tx.send_packet(packet).unwrap();
    let (_, out, _) = look("inspect", &path, &[]);
    for wanted in [
        "ring 0: its receiver listens for handles, 1 sender connected, 2 handles on the way",
        "ring 1: its receiver does not listen for handles, 0 senders connected",
    ] {
        assert!(out.contains(wanted), "{wanted:?} is missing:\n{out}");
    }
    assert!(out.contains("HANDLES: taken/sent;") && out.contains("  0/2  "), "{out}");
    assert!(look("dump", &path, &[]).1.contains("2 handles"));
    rx.recv().unwrap();
    assert!(look("inspect", &path, &[]).1.contains("1 sender connected, 0 handles on the way"));
}

#[test]
fn the_one_receiver_of_lanes_listens_for_the_handles_of_each() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = directory.path().join("region.tombolo");
    let options = OpenOptions::new().mpsc_order(MpscOrder::PerProducer).producers(3).max_handles(1);
    let mut region = EventsRegion::open_path_with(&path, options).unwrap();
    let (mut first, mut rx) = region.split_mpsc().unwrap();
    rx.attach().unwrap();
    let mut second = first.clone();
    for tx in [&mut first, &mut second] {
        let null = std::fs::File::open("/dev/null").unwrap();
        tx.send_packet(MessagePacket::from(b"one").handle(null)).unwrap();
    }
    let (_, out, _) = look("inspect", &path, &[]);
    for ring in [1, 2] {
        let wanted = format!(
            "ring {ring}: its receiver listens for handles, 1 sender connected, 1 handle on the way"
        );
        assert!(out.contains(&wanted), "{wanted:?} is missing:\n{out}");
    }
    drop(rx);
    let (_, out, _) = look("inspect", &path, &[]);
    assert!(!out.contains("receiver listens"), "none is there:\n{out}");
}

#[test]
fn lanes_are_shown_each_with_what_is_in_it() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = directory.path().join("lanes.tombolo");
    let options = tombolo::OpenOptions::new().mpsc_order(tombolo::options::MpscOrder::PerProducer);
    let options = options.mpsc_capacity(4096).producers(2);
    let mut region = EventsRegion::open_path_with(&path, options).unwrap();
    let (mut first, _) = region.split_mpsc().unwrap();
    let mut second = first.clone();
    first.send(b"of the first").unwrap();
    second.send(b"of the second").unwrap();
    second.send(b"and one more").unwrap();
    let (code, out, _) = look("inspect", &path, &[]);
    println!("{out}");
    assert!(code == 0 && out.contains("lane  open"), "{out}");
    let (code, json) = look_json("inspect", &path);
    assert_eq!(code, 0);
    for (ring, msgs) in [(1, "1"), (2, "2")] {
        let ring = &json["rings"][ring];
        assert_eq!((&ring["kind"], &ring["depth"]["msgs"]), (&"lane".into(), &msgs.into()));
        assert_eq!(ring["entry"]["group"], 0);
    }
    let summary = &json["rings"][1]["control"]["summary"];
    assert!(summary.to_string().contains('3'), "both bits are set: {summary}");
    let (code, out, _) = look("dump", &path, &[]);
    assert_eq!(code, 0);
    assert!(out.contains("|of the first") && out.contains("|and one more"), "{out}");
}

#[test]
fn any_rings_are_shown_with_the_index_that_they_have_in_the_list() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = directory.path().join("any.tombolo");
    let lanes = || RingOptions::lanes().capacity(4096).producers(2).max_handles(1);
    let options = OpenOptions::new().ring(lanes()).ring(RingOptions::spsc().capacity(1 << 15));
    let options = options.ring(lanes()).ring(RingOptions::mpsc().capacity(1 << 14));
    let region = EventsRegion::open_path_with(&path, options).unwrap();
    let mut producers = [0, 2, 3].map(|ring| region.mpsc_producer(ring).unwrap());
    for (count, producer) in (1..).zip(&mut producers) {
        (0..count).for_each(|_| producer.send(b"many").unwrap());
    }
    (0..5).for_each(|_| region.spsc_sender(1).unwrap().send(b"one").unwrap());
    let (code, json) = look_json("inspect", &path);
    assert_eq!((code, &json["problems"]), (0, &Vec::<u8>::new().into()));
    let rows = [
        (0, "lane", "1", 0),
        (0, "lane", "0", 0),
        (1, "spsc", "5", 65535),
        (2, "lane", "2", 1),
        (2, "lane", "0", 1),
        (3, "mpsc", "3", 65535),
    ];
    let rings = json["rings"].as_array().unwrap();
    assert_eq!(rings.len(), rows.len());
    for (ring, (listed, kind, msgs, group)) in rings.iter().zip(rows) {
        let found =
            (&ring["listed"], &ring["kind"], &ring["depth"]["msgs"], &ring["entry"]["group"]);
        assert_eq!(found, (&listed.into(), &kind.into(), &msgs.into(), &group.into()));
    }
    let (code, out, _) = look("inspect", &path, &[]);
    println!("{out}");
    let row = |start: &str| out.lines().any(|line| line.trim_start().starts_with(start));
    assert!(
        code == 0 && row("2     1       spsc  open") && row("3     2       lane  open"),
        "{out}"
    );
    let (code, dump, _) = look("dump", &path, &["--ring", "5"]);
    assert!(code == 0 && dump.matches("|many").count() == 3, "{dump}");
}

#[test]
fn lanes_that_were_never_used_are_counted_and_not_listed() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = directory.path().join("lanes.tombolo");
    let lanes =
        OpenOptions::new().mpsc_order(tombolo::options::MpscOrder::PerProducer).producers(8);
    let mut region = EventsRegion::open_path_with(&path, lanes.mpsc_capacity(4096)).unwrap();
    let rows = |out: &str| out.lines().filter(|line| line.contains(" lane ")).count();
    let (code, out, _) = look("inspect", &path, &[]);
    assert_eq!((code, rows(&out)), (0, 0), "{out}");
    assert!(out.contains("8 of 8 lanes were never used"), "{out}");

    let (mut first, _) = region.split_mpsc().unwrap();
    let mut second = first.clone();
    first.send(b"of the first").unwrap();
    second.attach().unwrap(); // and sends nothing
    let (code, out, _) = look("inspect", &path, &[]);
    println!("{out}");
    assert_eq!((code, rows(&out)), (0, 2), "{out}");
    assert!(out.contains("6 of 8 lanes were never used"), "{out}");
    assert!(out.contains("ring 2 control") && !out.contains("ring 3 control"), "{out}");
    let (_, dump, _) = look("dump", &path, &[]);
    assert!(dump.contains("\nring 2  lane") && !dump.contains("\nring 3  lane"), "{dump}");
    assert!(dump.contains("6 of 8 lanes were never used"), "{dump}");
    let (_, dump, _) = look("dump", &path, &["--ring", "3"]);
    assert!(dump.contains("\nring 3  lane"), "one that is asked for is shown: {dump}");
    for command in ["inspect", "dump"] {
        let (_, json) = look_json(command, &path);
        assert_eq!(json["rings"].as_array().map(Vec::len), Some(9), "{command}");
    }
}
