//! Tests that count what their process has need one of their own.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tombolo::{Channel, MessagePacket};

use super::ends::SOON;
use super::support::Dir;
use super::support::carrying::{numbered, open_count};
use super::support::process::{command, role};

const ROLE: &str = "alone";
/// What a process may have more in memory behind a body than before it, in KiB.
const GROWTH_MAX: u64 = 64 << 10;

/// Runs the test `entry` again, in a process in which nothing else runs, and shows what it says. There, runs
/// `body`, and sees that it leaves no descriptor open and little memory taken.
#[track_caller]
pub(crate) fn alone(entry: &str, body: impl FnOnce()) {
    if role().is_some_and(|(role, _)| role == ROLE) {
        return counted(body);
    }
    let ran = command(entry, ROLE, Path::new("/")).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    println!("{said}");
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.contains("1 passed"), "there is no test {entry}");
}

fn counted(body: impl FnOnce()) {
    open_what_stays();
    let (fds, memory) = (open_count(), resident());
    body();
    let start = Instant::now();
    while open_count() != fds && start.elapsed() < SOON {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(open_count(), fds, "left open");
    let growth = resident().saturating_sub(memory);
    println!("{fds} descriptors open before and behind, {growth} KiB more in memory");
    assert!(growth < GROWTH_MAX, "{growth} KiB");
}

/// What a process opens once.
fn open_what_stays() {
    let dir = Dir::new();
    let near = Channel::open_path(dir.file("channel")).unwrap();
    let far = Channel::open_path(dir.file("channel")).unwrap();
    near.write(MessagePacket::from("with").handle(numbered(0))).unwrap();
    far.read().unwrap();
}

/// KiB of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
