//! No bytes make anything panic.

use tombolo_soak::{Setting, find};

#[test]
fn a_hundred_thousand_fuzzed_headers_records_and_regions_are_judged() {
    let setting = Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak"));
    let report = find("fuzz").unwrap().start(&setting).unwrap();
    println!("{report}");
}
