//! Every interleaving of several processes on one ring, with a kill before every step.
//!
//! They run the real code (see `replay`) over stores that arrive late (see `memory`), and ask for
//! what no ring has: lock bytes, incarnations, sleep (see `call`). A killed process stops where it
//! is; its stores still arrive, and its lock byte is free only then.
//!
//! Loads happen in program order, a fence makes a process's own stores arrive, a replacing access
//! that succeeds does too. What a missing Acquire would do is found by `steps` and `wake_steps`. A
//! sleep is woken or ends by itself; how often the latter, and how often blocked producers arm, is
//! bounded (see `setup`).
//!
//! | tests | promise |
//! |---|---|
//! | `recovery` | what a killed producer of an MPSC ring published is delivered, once and in order |
//! | `reuse` | a dead owner's slot changes hands, and never do two hold the lock |
//! | `sleep`, `sleep_locked` | no message is left in a ring whose consumer sleeps |
//! | `summary` | no message is left in a lane that its consumer does not look at |
//! | `space` | no producer is left asleep before an empty ring |
//! | `standing` | both, of an end that waits at a descriptor or as a task |
//!
//! Each search prints what it went through. Larger ones take a minute each:
//!
//! ```text
//! cargo test -p tombolo --lib -- --ignored --nocapture --test-threads 1 processes::
//! ```

mod actor;
mod barrier;
mod bridge;
mod call;
mod lane;
mod lanes;
mod locked;
mod memory;
mod mutant;
mod receiver;
mod recovery;
mod reuse;
mod search;
mod setup;
mod single;
mod sleep;
mod sleep_locked;
mod space;
mod standing;
mod state;
mod step;
mod summary;
mod words;

pub(super) use call::Call;

use setup::{Order, Setup};
use state::Seen;

/// Asserts that the search finds what `problem` describes, and nothing before it.
fn assert_caught(setup: &Setup, problem: &str) {
    let found = search::search(setup).expect_err("the mutant must be caught");
    let line = found.lines().next().unwrap_or_default();
    println!("{line}, after {} steps", found.lines().count() - 1);
    assert!(line.contains(problem), "caught for another reason: {found}");
}

/// Asserts that trying unseen steps first loses no end.
fn assert_order_is_sound(setup: &Setup) {
    let first = assert_sound(setup);
    let any = assert_sound(&Setup { order: Order::Any, ..setup.clone() });
    assert_eq!(first.ends, any.ends);
    assert!(first.states < any.states);
}

/// Searches, and gives what was gone through; all of it is printed.
fn assert_sound(setup: &Setup) -> Seen {
    let seen = search::search(setup).unwrap_or_else(|problem| panic!("{problem}"));
    println!("{seen:?}");
    assert!(seen.states > 0 && seen.ends > 0);
    seen
}
