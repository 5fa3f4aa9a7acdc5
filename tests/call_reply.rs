//! The example of calls and replies, as a program: what comes out, in which order.

use std::process::{Command, Stdio};

mod support;
use support::Dir;
use support::process::example;

#[test]
fn replies_come_in_another_order_than_requests_and_each_thread_gets_its_own() {
    let dir = Dir::new();
    let mut command = Command::new(example("call_reply"));
    command.env("TMPDIR", dir.path()).stdin(Stdio::null());
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let expected: String = ["third", "second", "first"]
        .map(|key| format!("{key}: stored\n{key}: the {key} value\n"))
        .concat();
    assert_eq!(String::from_utf8_lossy(&done.stdout), expected);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
