//! A sound region whose messages don't get through is called stuck, with the process that is the cause;
//! one that only waits is not. The processes are real: children that are stopped or killed.

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use common::{look, look_json};
use serde_json::Value;
use tombolo::ends::Topology;
use tombolo::inspect::Image;
use tombolo::options::{Disconnect, MpscOrder};
use tombolo::{EventsRegion, OpenOptions, Receiver, RecvTimeoutError, Sender};
use tombolo_abi::{Record, RecordRules};

/// Which part this test binary plays if it is a child, and in which region.
const PART: &str = "TOMBOLO_TEST_PART";
const REGION: &str = "TOMBOLO_TEST_REGION";
/// The exit code.
const STUCK: i32 = 5;
const LIMIT: Duration = Duration::from_secs(60);

fn options() -> OpenOptions {
    OpenOptions::new().spsc_capacity(4096).mpsc_capacity(1 << 16).max_message(1000)
}

fn open(path: &Path) -> EventsRegion {
    EventsRegion::open_path_with(path, options()).unwrap()
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir_in("/dev/shm").unwrap())
    }

    fn region(&self) -> PathBuf {
        self.0.path().join("region.tombolo")
    }
}

/// What the children do.
#[test]
fn child() {
    let Some((part, path)) = std::env::var(PART).ok().zip(std::env::var_os(REGION)) else { return };
    let mut region = EventsRegion::open_path(path).unwrap();
    match &part[..] {
        "receiver" => {
            let (_, mut rx) = region.split_spsc().unwrap();
            rx.attach().unwrap();
            stay(rx);
        }
        "consumer" => {
            let (_, mut rx) = region.split_mpsc().unwrap();
            rx.attach().unwrap();
            stay(rx);
        }
        "producer" => {
            let (mut tx, _) = region.split_mpsc().unwrap();
            tx.attach().unwrap();
            stay(tx);
        }
        "sender" => {
            let (mut tx, _) = region.split_spsc().unwrap();
            tx.attach().unwrap();
            stay(tx);
        }
        "waiting sender" => {
            let (mut tx, _) = region.split_spsc().unwrap();
            while tx.try_send(&[7; 100]).is_ok() {}
            tx.set_disconnect(Disconnect::Never);
            ready();
            let _ = tx.send(&[7; 100]);
            hold(tx);
        }
        "busy" => {
            let (mut tx, mut rx) = region.split_mpsc().unwrap();
            rx.attach().unwrap();
            tx.attach().unwrap();
            thread::spawn(move || while rx.recv().is_ok() {});
            ready();
            while tx.send(&[7; 1000]).is_ok() {}
        }
        _ => panic!("no part {part:?}"),
    }
}

fn ready() {
    println!("\nready");
    std::io::stdout().flush().unwrap();
}

/// Keeps `end` until the process is killed, or its parent is gone.
fn stay<T>(end: T) {
    ready();
    hold(end);
}

fn hold<T>(end: T) {
    let _ = std::io::stdin().read_line(&mut String::new());
    drop(end);
}

/// A child, which is killed at the latest when this is dropped.
struct Peer {
    child: Child,
    /// That of the part, which is the child's own unless it was started by another command.
    pid: u32,
}

impl Peer {
    fn start(part: &str, path: &Path) -> Self {
        Self::started(&mut Command::new(std::env::current_exe().unwrap()), part, path)
    }

    fn started(command: &mut Command, part: &str, path: &Path) -> Self {
        let command = command.args(["--exact", "child", "--nocapture"]);
        let command = command.env(PART, part).env(REGION, path);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let is_ready = lines.any(|line| line.unwrap() == "ready");
        let peer = Self { child, pid };
        assert!(is_ready, "{part} ended too early");
        peer
    }

    fn signal(&self, signal: &str) {
        let pid = self.pid.to_string();
        let kill = Command::new("sh").args(["-c", "kill \"$0\" \"$1\"", signal, &pid]).status();
        assert!(kill.unwrap().success(), "kill {signal} {}", self.pid);
    }

    fn stop(&self) {
        self.signal("-STOP");
        let started = Instant::now();
        while !matches!(self.state(), 'T' | 't') {
            assert!(started.elapsed() < LIMIT, "it doesn't stop");
            thread::yield_now();
        }
    }

    fn state(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Peer {
    /// A stopped process is ended by SIGKILL as well.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both commands say that the region is stuck, in these words; gives the JSON of the one that is.
#[track_caller]
fn is_stuck(path: &Path, words: &[&str]) -> Value {
    let (code, out, err) = look("inspect", path, &[]);
    println!("{out}");
    let first = out.lines().next().unwrap_or_default();
    assert_eq!(code, STUCK, "{first}\n{err}");
    assert!(first.starts_with("STUCK: "), "{first}");
    for wanted in words {
        assert!(first.contains(wanted), "{wanted:?} is missing: {first}");
    }
    assert!(!out.lines().any(|line| line.ends_with(' ')), "blanks at the end of a line");
    let (code, dump, _) = look("dump", path, &[]);
    assert_eq!((code, dump.lines().next()), (STUCK, Some(first)));
    let (code, json) = look_json("dump", path);
    assert_eq!((code, &json["health"], &json["summary"]), (STUCK, &"stuck".into(), &first.into()));
    let (code, json) = look_json("inspect", path);
    assert_eq!((code, &json["health"], &json["summary"]), (STUCK, &"stuck".into(), &first.into()));
    assert_eq!(json["stuck"].as_array().map(Vec::len), Some(1), "{:#}", json["stuck"]);
    json["stuck"][0].clone()
}

#[track_caller]
fn is_not_stuck(path: &Path) {
    let (code, out, _) = look("inspect", path, &[]);
    assert!(code == 0 && out.starts_with("healthy: "), "{code}: {out}");
    let (code, json) = look_json("inspect", path);
    assert_eq!(
        (code, &json["health"], &json["stuck"]),
        (0, &"healthy".into(), &Value::Array(vec![]))
    );
    assert_eq!(look("dump", path, &[]).0, 0);
}

/// A stopped receiver is in no one's way until something is unread, and as long as it runs.
fn a_stopped_receiver<K: Topology>(part: &str, ring: u32, path: &Path, mut tx: Sender<K>) {
    let receiver = Peer::start(part, path);
    tx.attach().unwrap();
    receiver.stop();
    is_not_stuck(path);
    (0..3).for_each(|_| tx.send(b"unread").unwrap());
    let pid = format!("pid {} (", receiver.pid);
    let stuck =
        is_stuck(path, &["its receiver, ", &pid, "is stopped (SIGSTOP)", "3 messages are unread"]);
    assert_eq!(
        (&stuck["reason"], &stuck["role"]),
        (&"receiver_stopped".into(), &"receiver".into())
    );
    assert_eq!((&stuck["rings"], &stuck["unread"]), (&vec![ring].into(), &"3".into()));
    assert_eq!((&stuck["pid"], &stuck["process"]), (&receiver.pid.into(), &"stopped".into()));
    assert_eq!((&stuck["full"], &stuck["sender_waits"]), (&false.into(), &false.into()));
    assert!(stuck["command"].as_str().is_some_and(|command| command.starts_with("stuck-")));
    receiver.signal("-CONT");
    is_not_stuck(path);
}

#[test]
fn a_stopped_receiver_with_something_unread() {
    let dir = Dir::new();
    let mut region = open(&dir.region());
    let (tx, _) = region.split_spsc().unwrap();
    a_stopped_receiver("receiver", 0, &dir.region(), tx);
    let (tx, _) = region.split_mpsc().unwrap();
    a_stopped_receiver("consumer", 1, &dir.region(), tx);
}

#[test]
fn a_stopped_receiver_of_lanes_is_one_cause_whatever_the_number_of_lanes() {
    let dir = Dir::new();
    let path = dir.region();
    let lanes = options().mpsc_order(MpscOrder::PerProducer).producers(8).mpsc_capacity(4096);
    let mut region = EventsRegion::open_path_with(&path, lanes).unwrap();
    let (mut first, _) = region.split_mpsc().unwrap();
    let (mut second, mut third) = (first.clone(), first.clone());
    let receiver = Peer::start("consumer", &path);
    [&mut first, &mut second, &mut third].into_iter().for_each(|tx| tx.attach().unwrap());
    receiver.stop();
    is_not_stuck(&path);
    first.send(b"one").unwrap();
    third.send(b"two").unwrap();
    let stuck = is_stuck(&path, &["lanes 1 and 3: their receiver, ", "2 messages are unread"]);
    assert_eq!(stuck["rings"], Value::from(vec![1, 3]));
    while second.try_send(&[7; 1000]).is_ok() {}
    let stuck = is_stuck(&path, &["lanes 1, 2 and 3: their receiver, "]);
    assert_eq!((&stuck["full"], &stuck["reason"]), (&true.into(), &"receiver_stopped".into()));
    receiver.kill();
    let stuck = is_stuck(&path, &["lane 2: its receiver, ", "is dead and the ring is full"]);
    assert_eq!((&stuck["rings"], &stuck["reason"]), (&vec![2].into(), &"receiver_dead".into()));
}

#[test]
fn a_sender_that_waits_for_a_stopped_receiver_is_told_of_too() {
    let dir = Dir::new();
    let path = dir.region();
    drop(open(&path));
    let receiver = Peer::start("receiver", &path);
    let _sender = Peer::start("waiting sender", &path);
    until_a_sender_waits(&path);
    is_not_stuck(&path); // it may take its time
    receiver.stop();
    let stuck = is_stuck(&path, &["ring 0: its receiver, ", "and a sender waits for space"]);
    assert_eq!((&stuck["full"], &stuck["sender_waits"]), (&true.into(), &true.into()));
    assert_eq!(stuck["reason"], "receiver_stopped");
}

/// Whose tries keep the ring's counters moving, so that no look finds all as the one before.
#[test]
fn a_stopped_receiver_is_found_though_a_sender_tries_again_and_again() {
    let dir = Dir::new();
    let path = dir.region();
    let (mut tx, _) = open(&path).split_spsc().unwrap();
    let receiver = Peer::start("receiver", &path);
    receiver.stop();
    let (stop, tries) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                let _ = tx.try_send(&[7; 100]);
                tries.fetch_add(1, Relaxed);
            }
        });
        while tries.load(Relaxed) < 100 {
            thread::yield_now();
        }
        let looks: Vec<_> = (0..100).map(|_| Image::open(&path).unwrap()).collect();
        stop.store(true, Relaxed);
        assert!(looks.iter().all(|image| image.stuck().len() == 1));
        let moved = looks.iter().filter(|image| image.has_moved()).count();
        println!("moved in {moved} of 100 looks");
        assert!(moved > 0);
    });
    is_stuck(&path, &["its receiver, ", "the ring is full"]);
}

/// Returns once the sender of ring 0 is armed and has slept on for a moment. One that is woken, as by a
/// receiver that comes and goes, is not armed until it sleeps again.
fn until_a_sender_waits(path: &Path) {
    let started = Instant::now();
    let sleeps_if_armed = || {
        let image = Image::open(path).unwrap();
        let is_armed = image.rings()[0].control.unwrap().tx_wake & 1 != 0;
        let sleeps = image.endpoints().iter().map(|endpoint| endpoint.fields.sleeps);
        is_armed.then(|| sleeps.sum::<u64>())
    };
    loop {
        let before = sleeps_if_armed();
        thread::sleep(Duration::from_millis(50));
        if before.is_some() && before == sleeps_if_armed() {
            return;
        }
        assert!(started.elapsed() < LIMIT, "the sender doesn't wait");
    }
}

#[test]
fn a_dead_receiver_with_a_full_ring() {
    let dir = Dir::new();
    let path = dir.region();
    let (mut tx, mut rx) = open(&path).split_spsc().unwrap();
    let receiver = Peer::start("receiver", &path);
    tx.send(b"unread").unwrap();
    let was = format!("formerly pid {}", receiver.pid);
    receiver.kill();
    is_not_stuck(&path); // the next receiver gets it
    while tx.try_send(&[7; 100]).is_ok() {}
    let stuck = is_stuck(&path, &["ring 0: its receiver, ", &was, "is dead and the ring is full"]);
    assert_eq!((&stuck["reason"], &stuck["pid"]), (&"receiver_dead".into(), &Value::Null));
    assert_eq!((&stuck["full"], &stuck["process"]), (&true.into(), &"gone".into()));
    rx.attach().unwrap();
    is_not_stuck(&path);
}

#[test]
fn a_sender_that_waits_for_space_while_no_process_receives() {
    let dir = Dir::new();
    let path = dir.region();
    let (_, mut rx) = open(&path).split_spsc().unwrap();
    let sender = Peer::start("waiting sender", &path);
    until_a_sender_waits(&path);
    let words = ["ring 0: no process receives", "a sender waits for space"];
    let stuck = is_stuck(&path, &words);
    assert_eq!((&stuck["reason"], &stuck["pid"]), (&"receiver_missing".into(), &Value::Null));
    rx.attach().unwrap();
    drop(rx); // one that left in good order is no receiver either
    until_a_sender_waits(&path);
    is_stuck(&path, &words);
    sender.kill();
    is_not_stuck(&path); // no process waits
}

#[test]
fn a_stopped_holder_of_the_lock_while_others_live_and_no_dead_one() {
    let dir = Dir::new();
    let path = dir.region();
    let (mut tx, _) = open(&path).split_mpsc().unwrap();
    let busy = Peer::start("busy", &path);
    tx.attach().unwrap();
    let started = Instant::now();
    loop {
        busy.stop();
        if Image::open(&path).unwrap().rings()[1].lock.is_some() {
            break;
        }
        busy.signal("-CONT");
        assert!(started.elapsed() < LIMIT, "it never holds the lock");
    }
    let (code, json) = look_json("inspect", &path);
    assert_eq!((code, &json["health"]), (STUCK, &"stuck".into()));
    let holders = json["stuck"].as_array().unwrap();
    let stuck = holders.iter().find(|stuck| stuck["reason"] == "lock_holder_stopped").unwrap();
    assert_eq!((&stuck["rings"], &stuck["role"]), (&vec![1].into(), &"sender".into()));
    assert_eq!(stuck["pid"], busy.pid);
    let (_, out, _) = look("inspect", &path, &[]);
    println!("{out}");
    let first = out.lines().next().unwrap();
    let pid = format!("a sender, pid {} (", busy.pid);
    for wanted in [&pid, "holds the lock of ring 1 and is stopped (SIGSTOP)"] {
        assert!(first.contains(wanted), "{wanted:?} is missing: {first}");
    }
    busy.kill();
    let (_, mut rx) = open(&path).split_mpsc().unwrap();
    rx.drain(usize::MAX, |_| ()).unwrap(); // its receiver is gone too, and may have left the ring full
    is_not_stuck(&path); // the next sender takes the lock over
    tx.send(b"and does").unwrap();
    assert!(Image::open(&path).unwrap().rings()[1].lock.is_none());
}

#[test]
fn a_stopped_holder_of_the_lock_is_in_no_ones_way_if_no_other_lives() {
    let dir = Dir::new();
    let path = dir.region();
    drop(open(&path));
    let sender = Peer::start("producer", &path);
    sender.stop();
    hold_the_lock(&path);
    is_not_stuck(&path);
    let _receiver = Peer::start("consumer", &path);
    is_stuck(&path, &["holds the lock of ring 1 and is stopped (SIGSTOP)"]);
}

/// Stores the first producer of ring 1 as the holder of its lock.
fn hold_the_lock(path: &Path) {
    let image = Image::open(path).unwrap();
    let entry = image.rings()[1].entry;
    let lock = tombolo_abi::LockWord { slot: entry.tx_slot_first, incarnation: 1 }.to_word();
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&lock.to_le_bytes(), entry.control_offset).unwrap();
}

/// Publishes a message as a sender that is stopped before it wakes the receiver.
fn publish_and_say_nothing(path: &Path) {
    let image = Image::open(path).unwrap();
    let (entry, key) = (image.rings()[0].entry, image.page().unwrap().header.key);
    let tail = image.rings()[0].control.unwrap().tail;
    let word = RecordRules::of(&entry, key).encode(&Record::data(0), tail);
    let file = File::options().write(true).open(path).unwrap();
    let at = entry.data_offset + tail % entry.capacity;
    file.write_all_at(&word.to_le_bytes(), at).unwrap();
}

#[test]
fn a_sender_stopped_before_it_woke_the_receiver_for_what_it_published() {
    let dir = Dir::new();
    let path = dir.region();
    let (_, mut rx) = open(&path).split_spsc().unwrap();
    rx.attach().unwrap();
    let sender = Peer::start("sender", &path);
    let interrupter = rx.interrupter();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| rx.recv_timeout(LIMIT).map(drop));
        let started = Instant::now();
        while Image::open(&path).unwrap().rings()[0].control.unwrap().rx_wake & 1 == 0 {
            assert!(started.elapsed() < LIMIT, "the receiver doesn't sleep");
        }
        sender.stop();
        is_not_stuck(&path);
        publish_and_say_nothing(&path);
        let pid = format!("its sender, pid {} (", sender.pid);
        let words = [&pid, "is stopped (SIGSTOP) in the middle of a send", "1 message is unread"];
        let stuck = is_stuck(&path, &words);
        assert_eq!(
            (&stuck["reason"], &stuck["role"]),
            (&"sender_stopped".into(), &"sender".into())
        );
        interrupter.interrupt();
        assert!(matches!(waiting.join().unwrap(), Ok(()) | Err(RecvTimeoutError::Interrupted)));
    });
}

#[test]
fn a_process_of_another_pid_namespace_has_no_pid_here_and_may_be_stopped_unseen() {
    let dir = Dir::new();
    let path = dir.region();
    let (mut tx, _) = open(&path).split_spsc().unwrap();
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child", "--"]);
    if !unshare.arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: a PID namespace cannot be made");
        return;
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child", "--"]).arg(std::env::current_exe().unwrap());
    let mut receiver = Peer::started(&mut unshare, "receiver", &path);
    let children = format!("/proc/{0}/task/{0}/children", receiver.child.id());
    receiver.pid = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
    while tx.try_send(&[7; 100]).is_ok() {}
    receiver.stop();
    is_not_stuck(&path);
    let (_, out, _) = look("inspect", &path, &[]);
    println!("{out}");
    let unseen =
        "ring 0: its receiver is in another PID namespace, from which its state is not seen here";
    assert!(out.contains(unseen), "{out}");
    receiver.kill();
    let words = ["its receiver, a process of another PID namespace, is dead and the ring is full"];
    let started = Instant::now();
    while look("inspect", &path, &[]).0 == 0 {
        assert!(started.elapsed() < LIMIT, "its child lives on");
    }
    let stuck = is_stuck(&path, &words);
    assert_eq!((&stuck["pid"], &stuck["process"]), (&Value::Null, &"other_pid_namespace".into()));
}

#[test]
fn what_moves_is_not_called_stuck() {
    let dir = Dir::new();
    let path = dir.region();
    let (mut tx, mut rx) = open(&path).split_spsc().unwrap();
    rx.attach().unwrap(); // before that, a sender that waits is stuck
    let interrupter = tx.interrupter();
    let receive = |mut rx: Receiver<tombolo::ends::Spsc>| while rx.recv().is_ok() {};
    thread::scope(|scope| {
        scope.spawn(|| receive(rx));
        scope.spawn(move || while tx.send(&[7; 900]).is_ok() {});
        let looks: Vec<_> = (0..100).map(|_| look("inspect", &path, &[])).collect();
        interrupter.interrupt();
        for (code, out, _) in looks {
            assert_eq!(code, 0, "{out}");
        }
    });
}
