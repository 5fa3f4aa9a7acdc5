//! Producers of one ring may be killed at any moment: the others go on.

use tombolo_soak::{Setting, find};

#[test]
fn killed_producers_lose_no_message_whose_send_returned_and_keep_nobody_waiting() {
    let setting = Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak"));
    let report = find("producer-kills").unwrap().start(&setting).unwrap();
    println!("{report}");
}

#[test]
fn killed_producers_of_lanes_lose_no_message_whose_send_returned() {
    let setting = Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak"));
    let report = find("producer-kills-lanes").unwrap().start(&setting).unwrap();
    println!("{report}");
}
