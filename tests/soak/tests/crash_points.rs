//! Whoever is killed at any named point leaves what the next process goes on with. Runs with the
//! feature `__crash_points` only.
#![cfg(feature = "__crash_points")]

use tombolo_soak::{Setting, find};

#[test]
fn whoever_is_killed_at_any_named_point_leaves_what_the_next_process_goes_on_with() {
    let setting = Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak"));
    let report = find("crash-points").unwrap().start(&setting).unwrap();
    println!("{report}");
}
