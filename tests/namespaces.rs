//! An error names a process by its number only if that means the process here.

mod support;

use std::process::Command;

use support::process::{Peer, behind, command, report, role, wait_for_parent};
use support::*;
use tombolo::options::CreatePolicy;
use tombolo::{Error, EventsRegion};

const ENTRY: &str = "a_pid_of_another_namespace_is_not_told";

/// What starts a program in a PID namespace of its own.
fn unshare() -> Command {
    let mut unshare = Command::new("unshare");
    if !is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--pid", "--fork", "--kill-child"]);
    unshare
}

#[test]
fn a_pid_of_another_namespace_is_not_told() {
    if let Some((_, path)) = role() {
        let mut region = EventsRegion::open_path(path).unwrap();
        let (mut tx, mut rx) = region.split_spsc().unwrap();
        let (mut producer, mut consumer) = region.split_mpsc().unwrap();
        tx.attach().unwrap();
        rx.attach().unwrap();
        producer.attach().unwrap();
        consumer.attach().unwrap();
        report("ready");
        return wait_for_parent();
    }
    let dir = Dir::new();
    let mut count = 0;
    for is_here in [true, false] {
        if !is_here && !unshare().arg("true").status().is_ok_and(|status| status.success()) {
            eprintln!("skipped: no PID namespace to be had");
            continue;
        }
        let path = dir.file(if is_here { "here" } else { "elsewhere" });
        let mut region = EventsRegion::open_path(&path).unwrap();
        let own = command(ENTRY, "owner", &path);
        let mut owner = Peer::spawn(if is_here { own } else { behind(unshare(), &own) });
        assert_eq!(owner.next_report(), "ready");
        let wanted = if is_here { owner.pid() } else { 0 };
        let (mut tx, mut rx) = region.split_spsc().unwrap();
        let (_, mut consumer) = region.split_mpsc().unwrap();
        let new = EventsRegion::open_path_with(&path, small().policy(CreatePolicy::CreateNew));
        for error in [
            tx.attach().unwrap_err(),
            rx.attach().unwrap_err(),
            consumer.attach().unwrap_err(),
            new.unwrap_err(),
        ] {
            let (Error::Busy { pid, .. } | Error::InUse { pid, .. }) = &error else {
                panic!("{error:?}")
            };
            assert_eq!(*pid, wanted, "{error}");
            let text = error.to_string();
            let words = if wanted == 0 { "in another PID namespace" } else { " by pid " };
            assert!(text.contains(words), "{text}");
            count += 1;
        }
    }
    println!("errors: {count}");
    assert!(count >= 4);
}
