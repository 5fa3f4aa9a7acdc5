//! The ring of many producers has one order, and time goes by it.

use tombolo_soak::{Setting, find};

#[test]
fn a_send_that_returned_before_another_began_comes_first_in_whatever_process() {
    let setting = Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak"));
    let report = find("order").unwrap().start(&setting).unwrap();
    println!("{report}");
}
