//! The two programs of the quickstart, in any order: what is printed, and what ends.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

mod support;
use support::process::example;

/// Long enough for anything that must happen.
const SOON: Duration = Duration::from_secs(10);
/// Long enough for what must not happen to show now and then.
const A_WHILE: Duration = Duration::from_millis(300);

/// A program; killed if it has not ended when it is dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(name: &str, dir: &TempDir) -> Program {
    let mut command = Command::new(example(name));
    command.env("TOMBOLO_DIR", dir.path()).stdin(Stdio::piped());
    Program(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

fn receive(dir: &TempDir) -> Program {
    start("quickstart_recv", dir)
}

fn send(dir: &TempDir, lines: &str) -> Program {
    let mut sender = start("quickstart_send", dir);
    sender.0.stdin.as_mut().unwrap().write_all(lines.as_bytes()).unwrap();
    sender
}

impl Program {
    /// Closes its input, waits until it has ended by itself, and gives what it has printed.
    fn end(mut self) -> (String, String) {
        drop(self.0.stdin.take());
        let started = Instant::now();
        while self.0.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < SOON, "it does not end");
            thread::sleep(Duration::from_millis(1));
        }
        assert!(self.0.wait().unwrap().success());
        let (mut out, mut err) = (String::new(), String::new());
        self.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (out, err)
    }

    fn goes_on(&mut self) {
        thread::sleep(A_WHILE);
        assert!(self.0.try_wait().unwrap().is_none(), "it has ended");
    }
}

/// A directory on a file system that regions may lie on.
fn directory() -> TempDir {
    let root = ["/dev/shm", "/tmp"].into_iter().find(|path| fs::metadata(path).is_ok());
    tempfile::tempdir_in(root.unwrap()).unwrap()
}

fn said(out: &str, err: &str) -> (String, String) {
    (out.to_owned(), format!("{err}\n"))
}

#[test]
fn a_receiver_that_comes_first_prints_all_and_ends_after_its_sender() {
    let dir = directory();
    let mut receiver = receive(&dir);
    receiver.goes_on(); // no sender has come yet
    let mut sender = send(&dir, "one\ntwo\n");
    sender.goes_on(); // its input is open
    receiver.goes_on();
    assert_eq!(sender.end(), said("", "sent 2 lines"));
    assert_eq!(receiver.end(), said("one\ntwo\n", "received 2 lines"));
}

#[test]
fn a_receiver_that_comes_while_its_sender_is_there_prints_all_and_ends_after_it() {
    let dir = directory();
    let sender = send(&dir, "one\ntwo\n");
    thread::sleep(A_WHILE);
    let mut receiver = receive(&dir);
    receiver.goes_on();
    assert_eq!(sender.end(), said("", "sent 2 lines"));
    assert_eq!(receiver.end(), said("one\ntwo\n", "received 2 lines"));
}

#[test]
fn a_receiver_that_comes_after_its_sender_prints_all_and_ends() {
    let dir = directory();
    assert_eq!(send(&dir, "one\ntwo\n").end(), said("", "sent 2 lines"));
    assert_eq!(receive(&dir).end(), said("one\ntwo\n", "received 2 lines"));
}

#[test]
fn what_is_sent_after_a_receiver_was_killed_is_the_next_ones() {
    let dir = directory();
    let mut receiver = receive(&dir);
    receiver.goes_on();
    drop(receiver); // killed
    assert_eq!(send(&dir, "one\n").end(), said("", "sent 1 lines"));
    assert_eq!(receive(&dir).end(), said("one\n", "received 1 lines"));
}

#[test]
fn a_region_is_used_again_and_an_empty_one_lets_its_receiver_wait_for_a_new_sender() {
    let dir = directory();
    for lines in ["one\n", "two\nthree\n"] {
        let receiver = receive(&dir);
        let count = lines.lines().count();
        assert_eq!(send(&dir, lines).end(), said("", &format!("sent {count} lines")));
        assert_eq!(receiver.end(), said(lines, &format!("received {count} lines")));
    }
    // Its senders were another's, and are not waited for any more.
    let mut receiver = receive(&dir);
    receiver.goes_on();
    send(&dir, "four\n").end();
    assert_eq!(receiver.end(), said("four\n", "received 1 lines"));
    let names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|one| one.unwrap().file_name()).collect();
    assert_eq!(names, [OsStr::new("quickstart.tombolo")]);
}
