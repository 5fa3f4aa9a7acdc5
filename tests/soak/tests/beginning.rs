//! Regions that many open at once, that containers share, and programs that are killed and come back.

use tombolo_soak::{Setting, find};

fn run(name: &str) {
    let setting = Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak"));
    let report = find(name).unwrap().start(&setting).unwrap();
    println!("{report}");
}

#[test]
fn openers_at_once_get_the_one_region_that_fits() {
    run("space");
}

#[test]
fn containers_with_boot_ids_of_their_own_pass_messages_in_turns() {
    run("boots");
}

#[test]
fn a_collector_gets_each_line_once_whatever_is_killed() {
    run("collector");
}
