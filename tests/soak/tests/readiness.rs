//! No wake-up is lost of what waits at a descriptor or as a task.

use tombolo_soak::{Setting, find};

#[test]
fn whoever_waits_elsewhere_is_always_told_also_of_what_the_killed_have_left() {
    let setting = Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak"));
    let report = find("readiness").unwrap().start(&setting).unwrap();
    println!("{report}");
}
