//! Calls end with the server.

use tombolo_soak::{Setting, find};

#[test]
fn a_thousand_calls_end_at_once_when_their_server_is_killed() {
    let setting = Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak"));
    let report = find("channel-calls").unwrap().start(&setting).unwrap();
    println!("{report}");
}
