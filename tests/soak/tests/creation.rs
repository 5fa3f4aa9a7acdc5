//! A hundredth of the runs in which creators are killed, or many open at once.

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
