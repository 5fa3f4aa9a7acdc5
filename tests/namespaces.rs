//! An error names a process by its number only if that means the process here.

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::process::{command, report, role, wait_for_parent};
use support::*;
use tombolo::{CreatePolicy, Error, EventsRegion};

const ENTRY: &str = "a_pid_of_another_namespace_is_not_told";

/// A process that owns both ends of both rings; ended when dropped.
struct Owner(Child);

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Owner {
    /// Starts it behind `wrapper`, the first of which is a program; `None` if that is not allowed.
    fn start(path: &Path, wrapper: &[&str]) -> Option<Self> {
        let own = command(ENTRY, "owner", path);
        let mut started = match wrapper {
            [] => Command::new(own.get_program()),
            [program, arguments @ ..] => {
                let mut started = Command::new(program);
                started.args(arguments).arg(own.get_program());
                started
            }
        };
        started.args(own.get_args()).stdin(Stdio::piped()).stdout(Stdio::piped());
        started.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut child = started.spawn().ok()?;
        let stdout = child.stdout.take().unwrap();
        let owner = Self(child);
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        lines.any(|line| line == "peer: ready").then_some(owner)
    }
}

fn is_allowed(wrapper: &[&str]) -> bool {
    let [program, arguments @ ..] = wrapper else { return true };
    let status = Command::new(program).args(arguments).arg("true").status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn a_pid_of_another_namespace_is_not_told() {
    if let Some((_, path)) = role() {
        let mut region = EventsRegion::open_path(path).unwrap();
        let (mut tx, mut rx) = region.split_spsc().unwrap();
        let (mut producer, mut consumer) = region.split_mpsc().unwrap();
        tx.claim().unwrap();
        rx.claim().unwrap();
        producer.claim().unwrap();
        consumer.claim().unwrap();
        report("ready");
        return wait_for_parent();
    }
    let dir = Dir::new();
    let unshare: &[&str] = if is_root() {
        &["unshare", "--pid", "--fork", "--kill-child"]
    } else {
        &["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    };
    let mut count = 0;
    for (name, wrapper) in [("here", &[][..]), ("elsewhere", unshare)] {
        if !is_allowed(wrapper) {
            eprintln!("skipped: no PID namespace to be had");
            continue;
        }
        let path = dir.file(name);
        let mut region = EventsRegion::open_path(&path).unwrap();
        let owner = Owner::start(&path, wrapper).unwrap();
        let wanted = if wrapper.is_empty() { owner.0.id() } else { 0 };
        let (mut tx, mut rx) = region.split_spsc().unwrap();
        let (_, mut consumer) = region.split_mpsc().unwrap();
        let new = EventsRegion::open_path_with(&path, small().policy(CreatePolicy::CreateNew));
        for error in [
            tx.claim().unwrap_err(),
            rx.claim().unwrap_err(),
            consumer.claim().unwrap_err(),
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
