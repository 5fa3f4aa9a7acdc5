//! An error names a process by its number only if that means the process here.

mod support;

use std::process::Command;
use std::time::Duration;

use support::process::{Peer, behind, command, report, role, wait_for_parent};
use support::*;
use tombolo::object::ChannelError;
use tombolo::options::CreatePolicy;
use tombolo::{Channel, Error, EventsRegion, MessagePacket};

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

const CHANNEL: &str = "ends_of_a_channel_in_two_pid_namespaces_tell_the_living_from_the_dead";

/// An end of a channel, with handles sent and awaited.
fn be_an_end(path: &std::path::Path) {
    const LONG: Duration = Duration::from_secs(20);
    let end = Channel::open_path(path).unwrap();
    report(&format!("pid {}", std::process::id()));
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    end.write_timeout(MessagePacket::from(b"over").handle(file), LONG).unwrap();
    let carried = end.read_timeout(LONG).unwrap();
    report(&format!("{} with {}", String::from_utf8(carried.data).unwrap(), carried.handles.len()));
    loop {
        match end.read_timeout(Duration::from_millis(1500)) {
            Err(ChannelError::TimedOut) => report("open"),
            Err(ChannelError::PeerClosed) => break report("closed"),
            other => panic!("{other:?}"),
        }
    }
    wait_for_parent();
}

/// Both are process 1 of their namespaces, with the same thread ids.
#[test]
fn ends_of_a_channel_in_two_pid_namespaces_tell_the_living_from_the_dead() {
    if let Some((_, path)) = role() {
        return be_an_end(&path);
    }
    if !unshare().arg("true").status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped: no PID namespace to be had");
    }
    let dir = Dir::new();
    let path = dir.file("channel");
    let mut ends = [0, 1].map(|_| {
        let mut end = Peer::spawn(behind(unshare(), &command(CHANNEL, "end", &path)));
        assert_eq!(end.next_report(), "pid 1");
        end
    });
    for end in &mut ends {
        assert_eq!(end.next_report(), "over with 1");
        assert_eq!(end.next_report(), "open"); // a look at the other that found it alive
    }
    let busy = Channel::open_path(&path).unwrap_err();
    assert!(matches!(busy, Error::Busy { pid: 0, .. }), "{busy:?}");
    assert!(busy.to_string().contains("in another PID namespace"), "{busy}");
    let [one, mut other] = ends;
    assert_eq!(other.next_report(), "open"); // who was refused has taken nothing
    one.kill();
    let mut reports = std::iter::from_fn(|| Some(other.next_report()));
    assert!(reports.find(|report| report != "open").is_some_and(|report| report == "closed"));
    // The channel is over: who comes next makes another, and takes nothing of the end that is left.
    let ours = Channel::open_path(&path).unwrap();
    assert!(matches!(ours.read(), Err(ChannelError::ShouldWait)));
    let theirs = Channel::open_path(&path).unwrap();
    theirs.write(b"new").unwrap();
    assert_eq!(ours.read().unwrap().data, b"new");
    other.finish();
    println!("ends in namespaces of their own: 2");
}
