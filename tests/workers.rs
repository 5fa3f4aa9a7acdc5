//! The example of a host with workers, as a program: what comes out, also if a worker is killed.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

mod support;
use support::Dir;
use support::process::example;

/// The host; killed if it has not ended when it is dropped, and then its workers end.
struct Host(Child);

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Counts the primes below `limit`, and kills worker `victim` once all have started. Gives what was printed
/// after that.
fn count(limit: &str, victim: Option<usize>) -> String {
    let dir = Dir::new();
    let mut command = Command::new(example("workers"));
    command.arg(limit).env("TOMBOLO_DIR", dir.path()).stdout(Stdio::piped());
    let mut host = Host(command.spawn().unwrap());
    let mut out = BufReader::new(host.0.stdout.take().unwrap());
    let pids = [0, 1, 2].map(|number| {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let pid = line.trim().strip_prefix(&format!("worker {number} is process "));
        Pid::from_raw(pid.unwrap_or_else(|| panic!("{line:?}")).parse().unwrap()).unwrap()
    });
    if let Some(victim) = victim {
        kill_process(pids[victim], Signal::KILL).unwrap();
    }
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert!(host.0.wait().unwrap().success());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "the region is removed");
    rest
}

#[test]
fn three_workers_count_the_primes() {
    assert_eq!(count("200000", None), "17984 primes below 200000\n");
}

#[test]
fn what_a_killed_worker_has_not_done_is_done_by_the_others() {
    let printed = count("600000", Some(1));
    let (gone, counted) = printed.split_once('\n').unwrap();
    assert!(gone.starts_with("worker 1 is gone, "), "{printed}");
    assert_eq!(counted, "49098 primes below 600000\n");
}
