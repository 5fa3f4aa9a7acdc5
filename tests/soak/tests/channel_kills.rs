//! Channels whose other end is killed, at any step.

use tombolo_soak::{Setting, find};

#[test]
fn a_process_killed_at_any_step_of_a_channel_loses_and_leaves_nothing() {
    let setting = Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak"));
    let report = find("channel-kills").unwrap().start(&setting).unwrap();
    println!("{report}");
}
