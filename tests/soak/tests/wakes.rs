//! No wake-up is ever lost.

use tombolo_soak::{Setting, find};

#[test]
fn whoever_waits_for_a_message_or_for_room_is_always_woken() {
    let setting = Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak"));
    let report = find("wakes").unwrap().start(&setting).unwrap();
    println!("{report}");
}
