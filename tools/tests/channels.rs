//! `tombolo inspect` on regions that are channels: who has their ends, what waits there, and why they are over.

mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{RegionImage, look, look_json};
use serde_json::Value;
use tombolo::inspect::{EndState, Image};
use tombolo::object::{ChannelError, KernelObject};
use tombolo::{Channel, OpenOptions, Signal};
use tombolo_abi::{CloseWord, RingKind, Role, Slot};

/// Which part this test binary plays if it is a child, and at which channel.
const PART: &str = "TOMBOLO_TEST_CHANNEL_PART";
const PATH: &str = "TOMBOLO_TEST_CHANNEL";
const LONG: Duration = Duration::from_secs(30);
const TXID: &[u8] = b"\0\0\0\0";

fn small() -> OpenOptions {
    OpenOptions::new().spsc_capacity(4096).max_message(1000)
}

/// What the children do at the other end.
#[test]
fn child() {
    let Some((part, path)) = std::env::var(PART).ok().zip(std::env::var_os(PATH)) else { return };
    let end = Channel::open_path_with(path, small()).unwrap();
    match &part[..] {
        "writes two" => (0..2).for_each(|_| end.write(b"from the child").unwrap()),
        "fills" => while end.try_write(&[7; 900]).is_ok() {},
        "calls" => {
            thread::scope(|scope| {
                let calls = [(); 3].map(|()| scope.spawn(|| drop(end.call(TXID, LONG))));
                let are_made = || {
                    let image = Image::open(end_path().as_ref()).unwrap();
                    let [theirs, ours] = &image.channel().unwrap().ends;
                    ours.calls == 3 && theirs.unread == Some(3)
                };
                while !are_made() {
                    thread::sleep(Duration::from_millis(1));
                }
                ready();
                calls.into_iter().for_each(|call| call.join().unwrap());
            });
            stay();
        }
        part => panic!("{part}"),
    }
    ready();
    stay();
}

/// Until it is killed.
fn stay() -> ! {
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

fn end_path() -> std::ffi::OsString {
    std::env::var_os(PATH).unwrap()
}

fn ready() {
    println!("\nready");
    std::io::stdout().flush().unwrap();
}

/// A process with the other end, which is killed when this is dropped.
struct Other(Child);

impl Other {
    fn start(part: &str, path: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(PART, part)
            .env(PATH, path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let is_ready = lines.any(|line| line.unwrap() == "ready");
        let other = Self(child);
        assert!(is_ready, "it ended too early");
        other
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.pid().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = directory.path().join("demo.tombolo");
    (directory, path)
}

/// The exit code, the first line, and the whole of what is printed for people.
fn screen(path: &Path) -> (i32, String, String) {
    let (code, out, err) = look("inspect", path, &[]);
    assert!(!out.contains('\x1b') && err.is_empty(), "{out:?} {err}");
    println!("{out}");
    (code, out.lines().next().unwrap().to_owned(), out)
}

/// What is said of both ends, as data.
fn ends(path: &Path) -> (Value, [Value; 2]) {
    let (_, json) = look_json("inspect", path);
    let channel = &json["channel"];
    (channel["over"].clone(), [channel["ends"][0].clone(), channel["ends"][1].clone()])
}

#[test]
fn both_ends_of_a_channel_are_shown_with_their_processes_and_what_is_unread() {
    let (_directory, path) = place();
    let ours = Channel::open_path_with(&path, small()).unwrap();
    ours.write(b"from here").unwrap();
    let us = std::process::id();
    let (code, first, _) = screen(&path);
    let starts = format!("healthy: a channel: end 0, pid {us} (");
    assert!(code == 0 && first.starts_with(&starts), "{first}");
    assert!(first.ends_with("is open; end 1 was not taken yet, 1 message unread"), "{first}");

    let other = Other::start("writes two", &path);
    let (code, first, out) = screen(&path);
    let them = other.pid();
    assert!(code == 0 && first.starts_with(&starts), "{first}");
    let unread = format!("is open, 2 messages unread; end 1, pid {them} (");
    assert!(first.contains(&unread) && first.ends_with("is open, 1 message unread"), "{first}");
    let row = out.lines().find(|line| line.trim_start().starts_with("1    open")).unwrap();
    assert!(row.contains(&them.to_string()) && row.contains("1 msg"), "{row}");
    let (over, [one, two]) = ends(&path);
    assert_eq!((over, &one["pid"], &two["pid"]), (false.into(), &us.into(), &them.into()));
    assert_eq!((&one["unread"], &two["unread"]), (&"2".into(), &"1".into()));
    assert_eq!((&one["state"], &one["reason"]), (&"open".into(), &Value::Null));
    assert_eq!(ours.read().unwrap().data, b"from the child", "looking must take nothing");
}

#[test]
fn names_and_user_signals_of_ends_are_shown_without_what_a_terminal_acts_on() {
    let (_directory, path) = place();
    let ours = Channel::open_path_with(&path, small()).unwrap();
    let theirs = Channel::open_path_with(&path, small()).unwrap();
    ours.set_name("red \x1b[31m").unwrap();
    ours.signal_peer(Signal::empty(), Signal::USER_0 | Signal::USER_7).unwrap();
    let (code, _, out) = screen(&path);
    let row = |end: &str| out.lines().find(|line| line.trim_start().starts_with(end)).unwrap();
    assert!(code == 0 && row("1    open").contains("USER_0 USER_7"), "{out}");
    assert!(row("0    open").contains("\"red \\u{1b}[31m\""), "{out}");
    let (_, [one, two]) = ends(&path);
    assert_eq!((&one["name"], &one["signals"]), (&r"red \u{1b}[31m".into(), &Value::Array(vec![])));
    assert_eq!((&two["name"], &two["signals"][1]), (&"".into(), &"USER_7".into()));
    drop(theirs);
    let end = Image::open(&path).unwrap().channel().unwrap().ends[1].clone();
    assert_eq!(end.user_signals, 0x81, "they outlive their owner");
}

#[test]
fn what_older_layouts_keep_there_is_no_name_and_no_signal() {
    let directory = tempfile::tempdir().unwrap();
    for (minor, expected) in [(5, ("", 0)), (6, ("\u{fffd}x", 0xa5))] {
        let mut image = closed(minor);
        let slot = image.entries[1].rx_slot;
        let mut fields: Slot = bytemuck::Zeroable::zeroed();
        (fields.incarnation, fields.role, fields.ring) = (1, Role::Receiver as u32, 1);
        (fields.signals, fields.name_seq) = (0xa5ff_ffff, u32::MAX);
        fields.name[..4].copy_from_slice(b"\xffx\0y");
        image.put_slot(slot.into(), &fields);
        image.seal();
        let path = image.save(directory.path());
        let end = Image::open(&path).unwrap().channel().unwrap().ends[0].clone();
        assert_eq!((&*end.name, end.user_signals), expected, "minor {minor}");
    }
}

#[test]
fn the_reason_of_an_end_that_was_closed_is_in_the_first_line_without_what_a_terminal_acts_on() {
    let (_directory, path) = place();
    let ours = Channel::open_path_with(&path, small()).unwrap();
    let theirs = Channel::open_path_with(&path, small()).unwrap();
    theirs.write(b"the last one").unwrap();
    theirs.close_with_reason(7, "out of paper \x1b[2J");
    let (code, first, out) = screen(&path);
    assert!(
        code == 0 && first.starts_with("healthy: a channel that is OVER: end 1, pid "),
        "{first}"
    );
    let reason = r#"was closed with code 7, "out of paper \u{1b}[2J"; end 0, pid "#;
    assert!(first.contains(reason) && first.ends_with("is open, 1 message unread"), "{first}");
    assert!(out.lines().any(|line| line.ends_with(r#"code 7, "out of paper \u{1b}[2J""#)), "{out}");
    let (over, [one, two]) = ends(&path);
    assert_eq!((over, &one["over"], &two["over"]), (true.into(), &false.into(), &true.into()));
    assert_eq!((&two["state"], &two["reason"]["code"]), (&"closed".into(), &7.into()));
    assert_eq!(two["reason"]["text"], r"out of paper \u{1b}[2J");
    drop(ours);
    let (_, first, _) = screen(&path);
    assert!(first.contains("OVER: end 0, ") && first.contains("; end 1, "), "{first}");
}

#[test]
fn an_end_whose_process_was_killed_is_dead_and_the_channel_is_over_however_full() {
    let (_directory, path) = place();
    let ours = Channel::open_path_with(&path, small()).unwrap();
    let other = Other::start("writes two", &path);
    let pid = other.pid();
    while ours.try_write(&[7; 900]).is_ok() {}
    drop(other);
    let (code, first, _) = screen(&path);
    let died =
        format!("healthy: a channel that is OVER: end 1, formerly pid {pid}, died; end 0, pid ");
    assert!(code == 0 && first.starts_with(&died), "{first}");
    assert!(first.ends_with("is open, 2 messages unread"), "{first}");
    let (over, [_, two]) = ends(&path);
    assert_eq!((over, &two["state"], &two["reason"]), (true.into(), &"died".into(), &Value::Null));
}

#[test]
fn calls_that_wait_are_counted_at_the_end_that_made_them() {
    let (_directory, path) = place();
    let ours = Channel::open_path_with(&path, small()).unwrap();
    let other = Other::start("calls", &path);
    let (_, first, out) = screen(&path);
    assert!(first.contains("is open, 3 messages unread; end 1, pid "), "{first}");
    assert!(first.ends_with("is open, 3 calls wait"), "{first}");
    assert!(
        out.lines().any(|line| {
            line.starts_with("  1    open") && line.split_whitespace().nth_back(3) == Some("3")
        }),
        "{out}"
    );
    for left in (0..3).rev() {
        ours.write(ours.read().unwrap()).unwrap();
        let start = Instant::now();
        let calls = || Image::open(&path).unwrap().channel().unwrap().ends[1].calls;
        while calls() > left {
            assert!(start.elapsed() < LONG);
            thread::yield_now();
        }
    }
    drop(other);
    assert_eq!(ends(&path).1[1]["calls"], "0", "the dead wait for nothing");
}

#[test]
fn a_stopped_process_that_leaves_messages_unread_is_named_with_what_ending_it_means() {
    let (_directory, path) = place();
    let ours = Channel::open_path_with(&path, small()).unwrap();
    let other = Other::start("fills", &path);
    ours.write(b"unread").unwrap();
    other.signal("-STOP");
    let start = Instant::now();
    let mut found = screen(&path);
    while found.0 != 5 {
        assert!(start.elapsed() < LONG, "{}", found.2);
        found = screen(&path);
    }
    let (_, first, out) = found;
    assert!(first.starts_with("STUCK: ring 0: its receiver, pid "), "{first}");
    assert!(
        out.contains("or end it: the channel is over then, and what it has sent can be read"),
        "{out}"
    );
    assert!(out.contains("\nCHANNEL "), "{out}");
}

/// The path at which another process finds a region without a name that this one has open, as long as the file is.
fn path_of_memory(end: &Channel) -> (PathBuf, File) {
    let wanted = end.id();
    let pid = std::process::id();
    let candidates = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let target = fs::read_link(entry.path()).ok()?;
        let path = Path::new("/proc").join(pid.to_string()).join("fd").join(entry.file_name());
        target.to_str()?.starts_with("/memfd:").then_some(path)
    });
    let is_it = |path: &PathBuf| {
        let header = Image::open(path).ok().and_then(|image| image.page().map(|page| page.header));
        header.is_some_and(|header| {
            let id = |side| tombolo::object::channel_end_koid(header.region_uuid, side);
            [id(0), id(1)].contains(&wanted)
        })
    };
    let mut found = candidates.filter(is_it);
    let file = File::open(found.next().expect("a descriptor of its memory")).unwrap();
    (Path::new("/proc").join(pid.to_string()).join("fd").join(file.as_raw_fd().to_string()), file)
}

#[test]
fn an_end_that_is_a_handle_is_on_its_way_and_one_whose_handle_was_dropped_is_over() {
    let (ours, theirs) = Channel::create().unwrap();
    let (path, _file) = path_of_memory(&ours);
    let (code, first, out) = screen(&path);
    assert_eq!((code, first.matches("is open").count()), (0, 2), "{first}");
    assert!(!out.contains("does not listen"), "it does not need to: {out}");
    ours.write(b"goes with it").unwrap();
    let handle = theirs.release().unwrap();
    let (_, first, _) = screen(&path);
    let words = "end 1 is on its way to another process, 1 message unread";
    assert!(first.ends_with(words), "{first}");
    drop(handle);
    let (_, first, _) = screen(&path);
    assert!(first.contains("OVER: end 1 was dropped on its way; end 0, pid "), "{first}");
    assert!(matches!(ours.read(), Err(ChannelError::PeerClosed)));
    let image = Image::open(&path).unwrap();
    let channel = image.channel().unwrap();
    assert_eq!(
        channel.ends.each_ref().map(|end| end.state),
        [EndState::Open, EndState::DroppedOnItsWay]
    );
}

#[test]
fn calls_that_an_earlier_owner_made_are_not_counted_at_an_end_that_moved() {
    let (ours, theirs) = Channel::create().unwrap();
    let (path, _file) = path_of_memory(&theirs);
    let calls = || Image::open(&path).unwrap().channel().unwrap().ends[0].calls;
    let moved = thread::scope(|scope| {
        let caller = scope.spawn(|| ours.call(TXID, LONG).unwrap_err().error.status());
        theirs.read_timeout(LONG).unwrap();
        assert_eq!(calls(), 1);
        let handle = ours.release().unwrap();
        assert_eq!(caller.join().unwrap(), tombolo::object::Status::CANCELED);
        Channel::from_handle(handle).unwrap()
    });
    assert_eq!(calls(), 0);
    drop(moved);
}

/// Two SPSC rings that are a channel, of which end 0 was closed.
fn closed(minor: u16) -> RegionImage {
    let mut image = RegionImage::new();
    image.header.minor = minor;
    let [one, other] = &mut image.entries;
    (other.kind, other.align_shift, other.tx_slot_count) = (RingKind::Spsc as u32, 3, 1);
    (one.peer_ring, other.peer_ring) = (1, 0);
    let (tx, rx) = (one.tx_slot_first, other.rx_slot);
    for (slot, role, ring) in [(tx, Role::Sender, 0), (rx, Role::Receiver, 1)] {
        let mut fields: Slot = bytemuck::Zeroable::zeroed();
        (fields.incarnation, fields.role, fields.ring) = (1, role as u32, ring);
        image.put_slot(slot.into(), &fields);
    }
    image.seal();
    image
}

#[test]
fn junk_in_the_words_of_a_channel_is_shown_as_what_it_is_and_harms_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let texts: [[u8; 112]; 3] = [[0xff; 112], [0x1b; 112], [b'\n'; 112]];
    let words = [u64::MAX, 1 << 63 | 113 << 32, 1 << 63, (1 << 63) - 1, 0];
    let mut looks = 0;
    for (text, word) in texts.iter().flat_map(|text| words.map(|word| (text, word))) {
        let mut image = closed(5);
        image.change_control(0, |control| {
            (control.close, control.close_text, control.calls) = (word, *text, u64::MAX);
        });
        image.change_control(1, |control| (control.close, control.calls) = (word, u64::MAX));
        let path = image.save(directory.path());
        let (code, first, out) = screen(&path);
        assert!(code == 0 && first.starts_with("healthy: a channel that is OVER: end 0"), "{out}");
        let found = ends(&path).1[0]["reason"].clone();
        match CloseWord::from_word(word) {
            None => assert_eq!(found, Value::Null),
            Some(reason) => {
                assert_eq!(found["code"], reason.code);
                let len = found["text"].as_str().unwrap().chars().count();
                assert!(len <= 112 * r"\u{1b}".len(), "{found}");
            }
        }
        looks += 1;
    }
    println!("{looks} channels with junk");
    assert_eq!(looks, 15);
}

#[test]
fn what_older_layouts_keep_in_those_words_is_no_reason_and_no_call() {
    let directory = tempfile::tempdir().unwrap();
    let reason = CloseWord { code: 9, text_len: 3 }.to_word();
    for (minor, expected) in [(4, Value::Null), (5, 9.into())] {
        let mut image = closed(minor);
        image.change_control(0, |control| control.close = reason);
        let path = image.save(directory.path());
        assert_eq!(ends(&path).1[0]["reason"]["code"], expected, "minor {minor}");
    }
    // Two rings that don't know each other are no channel, whatever stands in their words.
    let mut image = closed(4);
    image.entries.iter_mut().for_each(|entry| entry.peer_ring = tombolo_abi::NO_RING);
    image.seal();
    let path = image.save(directory.path());
    let (code, json) = look_json("inspect", &path);
    assert_eq!((code, &json["channel"]), (0, &Value::Null));
    assert!(look("inspect", &path, &[]).1.starts_with("healthy: 2 rings, 0 endpoints alive"));
}
