//! Every interleaving of an SPSC producer and its consumer, with a kill before every step.
//!
//! The two run the real code (see `replay`). Stores go to a buffer of their thread and reach memory
//! in any order that the orderings allow: stores to one word in order, a Release store after
//! everything before it. That is weaker than x86, and as weak as ARM in its stores; loads happen in
//! program order, so what a missing Acquire would do is not found here but by `steps`. A killed
//! process stops where it is; its buffered stores still arrive; then a successor takes over.
//!
//! Only loads of what the other side stores are points of choice: which of the stores on their way
//! have arrived. A store arrives no earlier than somebody looks, which loses no behaviour and keeps
//! the number of states small.

mod jobs;
mod search;
mod state;

use jobs::{Job, Mutant};
use search::{Covered, Search};

/// Laps the area several times with records of every length, aborts and shortened claims among
/// them, each abort longer than the message after it; and what two successors do.
fn jobs() -> Vec<Vec<Job>> {
    vec![
        vec![
            Job::Send(1, 8),
            Job::Abort(24),
            Job::Send(2, 8),
            Job::Shorten(3, 24, 8),
            Job::Batch(4, 5, 8),
            Job::Abort(16),
            Job::Send(6, 8),
            Job::Send(7, 24),
        ],
        vec![Job::Send(8, 24), Job::Abort(24), Job::Batch(9, 10, 16)],
        vec![Job::Send(11, 8), Job::Send(12, 8)],
    ]
}

fn search(mutant: Mutant, kills: u8) -> Result<Covered, String> {
    Search::new(mutant, jobs(), kills).run()
}

#[test]
fn no_interleaving_and_no_kill_loses_tears_or_repeats_a_message() {
    let covered = Search::new(Mutant::None, jobs(), 2).run().unwrap();
    println!("{covered:?}");
    assert!(covered.states > 10_000 && covered.ends > 0);
    assert!(covered.kills > 0 && covered.redelivered > 0);
}

/// A killed consumer's successor gets all that was gone over and not freed once more, in order.
#[test]
fn neither_does_one_where_messages_are_freed_two_at_a_time() {
    let covered = Search::new(Mutant::None, jobs(), 2).freeing(2).run().unwrap();
    println!("{covered:?}");
    assert!(covered.states > 10_000 && covered.ends > 0);
    assert!(covered.kills > 0 && covered.redelivered > 0);
}

/// Asserts that the search finds what `problem` describes, and nothing before it.
fn assert_caught(found: Result<Covered, String>, problem: &str) {
    let found = found.expect_err("the mutant must be caught");
    let line = found.lines().next().unwrap_or_default();
    println!("{line}");
    assert!(line.contains(problem), "caught for another reason: {line}");
}

#[test]
fn without_the_zero_behind_a_record_the_search_finds_stale_bytes_taken_for_a_header() {
    let sends = (1..10).map(|number| Job::Send(number, 8 * u32::from(number % 3) + 8));
    let found = Search::new(Mutant::NoZeroing, vec![sends.collect()], 0).run();
    assert_caught(found, "record of unknown kind 0");
}

#[test]
fn without_the_release_the_search_finds_a_header_before_its_payload() {
    let sends = vec![vec![Job::Send(1, 8), Job::Send(2, 16)]];
    assert_caught(Search::new(Mutant::NoRelease, sends, 0).run(), "torn");
}

#[test]
fn with_a_takeover_that_keeps_the_tail_the_search_finds_a_sound_ring_called_damaged() {
    assert_caught(search(Mutant::TakeoverKeepsTail, 2), "while tail is");
}

#[test]
fn with_room_freed_before_it_is_read_the_search_finds_torn_messages() {
    let sends = (1..8).map(|number| Job::Send(number, 8 * u32::from(number % 3) + 8)).collect();
    let found = Search::new(Mutant::FreesBeforeCopy, vec![sends], 0).freeing(2).run();
    assert_caught(found, "torn");
}
