//! Sending and receiving make next to no system calls, and waiting few.

use tombolo_soak::{Setting, find};

#[test]
fn a_busy_stream_makes_next_to_no_system_calls_and_an_idle_end_looks_up_seldom() {
    let setting = Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak"));
    let report = find("calls").unwrap().start(&setting).unwrap();
    println!("{report}");
}
