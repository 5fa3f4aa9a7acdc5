//! Producers with a lane each don't get in each other's way.

use tombolo_soak::{Setting, find};

fn run(name: &str) {
    let setting = Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak"));
    let report = find(name).unwrap().start(&setting).unwrap();
    println!("{report}");
}

#[test]
fn a_producer_stopped_and_one_killed_inside_a_send_hold_up_nobody() {
    run("lanes-isolation");
}

#[test]
fn messages_of_sixty_four_producers_arrive_each_in_its_order() {
    run("lanes-many");
}
