//! Handles stay with their messages while both sides are killed.

use tombolo_soak::{Setting, find};

#[test]
fn handles_are_never_misplaced_lost_unsaid_or_left_open_while_ends_are_killed() {
    let setting = Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak"));
    let report = find("handles").unwrap().start(&setting).unwrap();
    println!("{report}");
}
