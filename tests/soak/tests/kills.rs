//! Killed senders and receivers lose no committed message.

use tombolo_soak::{Setting, find};

#[test]
fn killed_ends_of_a_stream_lose_nothing_and_repeat_only_what_was_not_freed() {
    let setting = Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak"));
    let report = find("kills").unwrap().start(&setting).unwrap();
    println!("{report}");
}

#[test]
fn killed_ends_of_a_lane_lose_nothing_and_repeat_only_what_was_not_freed() {
    let setting = Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak"));
    let report = find("kills-lane").unwrap().start(&setting).unwrap();
    println!("{report}");
}
