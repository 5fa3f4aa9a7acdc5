//! Long runs of what the tests run in small: streams, kills, fuzzing.
//!
//! Each run is a module with a [`Run`]: a name, what it promises, and the processes that it starts.
//! The command `tombolo-soak` does the full size of one; the tests do a hundredth of each by the
//! same code. A run says what it exercised, and fails where that is nothing.
//!
//! Whatever can be drawn from the seed is; what the scheduler decides differs from run to run.

mod boots;
mod calls;
mod channel_calls;
mod channel_kills;
mod clock;
mod collector;
mod content;
mod counters;
#[cfg(feature = "__crash_points")]
mod crash_points;
mod creation;
mod ends;
mod figures;
mod fuzz;
mod handles;
mod kills;
mod lanes_isolation;
mod lanes_many;
mod lock_look;
mod mutex;
mod no_membarrier;
mod openers;
mod order;
#[path = "../../support/parts.rs"]
mod parts;
mod peer_death;
mod possessions;
mod process;
mod producer_kills;
mod random_use;
mod readiness;
mod registry;
mod report;
mod rng;
mod run;
mod sending;
mod shared_words;
mod space;
#[cfg(feature = "__crash_points")]
mod stopped_producer;
mod stream;
mod stream_mpsc;
mod trace;
mod wakes;

pub use process::{Process, scratch};
pub use registry::{RUNS, find, serve};
pub use report::Report;
pub use rng::Rng;
pub use run::{Failure, Role, Run, Setting, Size, required};
