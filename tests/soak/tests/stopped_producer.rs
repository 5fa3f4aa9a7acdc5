//! A producer that is stopped while it holds the lock is waited for and not overtaken. Runs with the
//! feature `__crash_points` only.
#![cfg(feature = "__crash_points")]

use tombolo_soak::{Setting, find};

#[test]
fn the_lock_of_a_stopped_producer_is_never_taken_and_nothing_is_lost_when_it_goes_on() {
    let setting = Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak"));
    let report = find("stopped-producer").unwrap().start(&setting).unwrap();
    println!("{report}");
}
