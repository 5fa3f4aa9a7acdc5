//! What a process had handed over when it was killed before the message was published is gone with it. Runs with the
//! feature `__crash_points` only.
#![cfg(feature = "__crash_points")]

use std::process::Command;
use std::time::Duration;

use tombolo::object::ChannelError;
use tombolo::{Channel, MessagePacket};

const TEST: &str = "an_end_is_closed_that_was_handed_over_for_a_message_which_never_came";
const INSIDE: &str = "TOMBOLO_TEST_CRASH_INSIDE";
const LONG: Duration = Duration::from_secs(20);

#[test]
fn an_end_is_closed_that_was_handed_over_for_a_message_which_never_came() {
    if let Some(path) = std::env::var_os(INSIDE) {
        let carrier = Channel::open_path(path).unwrap();
        let message = carrier.read_timeout(LONG).unwrap();
        return carrier.write(message).unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    let carrier = Channel::open_path(&path).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    let child = child.args([TEST, "--exact"]).env("TOMBOLO_CRASH", "carry.after-hand-over");
    let mut child = child.env(INSIDE, &path).spawn().unwrap();
    let (ours, theirs) = Channel::create().unwrap();
    let message = MessagePacket::from(b"back").handle(theirs.release().unwrap());
    carrier.write_timeout(message, LONG).unwrap();
    assert!(!child.wait().unwrap().success());
    let read = carrier.read_timeout(LONG);
    assert!(matches!(read, Err(ChannelError::PeerClosed)), "{read:?}");
    // The carrier is still held here, and has nothing more to say.
    let read = ours.read_timeout(Duration::from_secs(5));
    assert!(matches!(read, Err(ChannelError::PeerClosed)), "{read:?}");
}
