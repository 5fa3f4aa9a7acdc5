//! A hundredth of the runs in which creators are killed, many open at once, or containers share a region.

use tombolo_soak::{Setting, find};

fn run(name: &str) {
    let run = find(name).unwrap();
    let setting = Setting::hundredth(env!("CARGO_BIN_EXE_tombolo-soak"));
    match run.start(&setting) {
        Ok(report) => print!("{report}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_creator_may_be_killed_at_any_of_its_system_calls() {
    run("create-syscalls");
}

#[test]
fn a_replacer_may_be_killed_at_any_of_its_system_calls() {
    run("create-replace");
}

#[test]
fn a_creator_may_be_killed_at_any_moment() {
    run("create-spread");
}

#[test]
fn of_sixty_four_openers_at_once_one_creates_and_the_others_join() {
    run("openers");
}

#[test]
fn openers_at_once_get_the_one_region_that_fits() {
    run("space");
}

#[test]
fn containers_with_boot_ids_of_their_own_pass_messages_in_turns() {
    run("boots");
}
