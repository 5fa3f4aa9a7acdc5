//! Whatever calls are made, in whatever order, each does what a model says.

use tombolo_soak::{Setting, find};

#[test]
fn ten_thousand_messages_by_random_calls_come_out_as_a_model_says() {
    for seed in 1..=5 {
        let setting = Setting { seed, ..Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak")) };
        let report = find("random-use").unwrap().start(&setting);
        let report = report.unwrap_or_else(|error| panic!("{error}"));
        println!("{report}");
    }
}
