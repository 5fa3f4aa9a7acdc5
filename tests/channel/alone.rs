//! Tests that count what their process has need one of their own.

use std::path::Path;

use super::support::process::{command, role};

const ROLE: &str = "alone";

/// Runs the test `entry` again, in a process in which nothing else runs, and shows what it says.
#[track_caller]
pub(crate) fn alone(entry: &str) {
    let ran = command(entry, ROLE, Path::new("/")).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    println!("{said}");
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.contains("1 passed"), "there is no test {entry}");
}

/// Whether this process runs one test, and that alone.
pub(crate) fn in_a_process_of_its_own() -> bool {
    role().is_some_and(|(role, _)| role == ROLE)
}
