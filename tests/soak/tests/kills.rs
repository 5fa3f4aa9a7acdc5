//! Killed senders and receivers lose no committed message.

use tombolo_soak::{Setting, find};

fn run(name: &str) {
    let setting = Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak"));
    let report = find(name).unwrap().start(&setting).unwrap();
    println!("{report}");
}

#[test]
fn killed_ends_of_a_stream_lose_nothing_and_repeat_only_what_was_not_freed() {
    run("kills");
}

#[test]
fn killed_ends_of_a_lane_lose_nothing_and_repeat_only_what_was_not_freed() {
    run("kills-lane");
}

#[test]
fn a_collector_gets_each_line_once_whatever_is_killed() {
    run("collector");
}
