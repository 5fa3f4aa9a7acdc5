//! Streams of messages between processes arrive once, in order, whole.

use tombolo_soak::{Setting, find};

#[test]
fn a_hundred_thousand_messages_of_all_lengths_arrive_once_in_order() {
    let setting = Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak"));
    let report = find("stream").unwrap().start(&setting).unwrap();
    println!("{report}");
}

#[test]
fn a_hundred_thousand_messages_of_three_producers_arrive_once_each_in_its_order() {
    let setting = Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak"));
    let report = find("stream-mpsc").unwrap().start(&setting).unwrap();
    println!("{report}");
}
