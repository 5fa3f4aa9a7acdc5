//! Whoever is blocked learns at once that the process at the other end is gone.

use tombolo_soak::{Setting, find};

#[test]
fn blocked_ends_learn_of_a_killed_peer_at_once_and_take_a_stopped_one_for_alive() {
    let setting = Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak"));
    let report = find("peer-death").unwrap().start(&setting).unwrap();
    println!("{report}");
}
