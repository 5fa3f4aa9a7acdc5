//! Those who take part in a measurement: one in each child process.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::system::{Failure, Meeting};
use crate::test::Test;

/// Which side of a measurement a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    /// Sends first, and is started last.
    Lead,
    /// Answers, or receives.
    Follow,
    /// Is alone.
    Solo,
}

/// What a child is to be. The fields are its hidden arguments.
#[derive(Debug, Clone, Args)]
pub(crate) struct Role {
    #[arg(long)]
    pub(crate) system: String,
    #[arg(long)]
    pub(crate) test: Test,
    #[arg(long)]
    pub(crate) size: usize,
    #[arg(long)]
    pub(crate) producers: usize,
    #[arg(long)]
    pub(crate) side: Side,
    /// Which of the producers, from 0 on.
    #[arg(long)]
    pub(crate) index: usize,
    #[arg(long)]
    pub(crate) directory: PathBuf,
    /// Tells cells and runs apart.
    #[arg(long)]
    pub(crate) unique: String,
    /// The processor for this side, and the one for a thread that is the other side.
    #[arg(long)]
    pub(crate) cpu: usize,
    #[arg(long)]
    pub(crate) other_cpu: usize,
    #[arg(long)]
    pub(crate) crowded: bool,
}

impl Role {
    /// Calls `meet` with the meetings of both directions.
    pub(crate) fn with_meetings<T>(&self, meet: impl FnOnce(&Meeting, &Meeting) -> T) -> T {
        let (there, back) = (format!("{}-there", self.unique), format!("{}-back", self.unique));
        let meeting = Meeting {
            directory: &self.directory,
            name: "there",
            unique: &there,
            size: self.size,
            capacity: if self.size >= 4096 { 4 << 20 } else { 1 << 20 },
            producers: self.producers,
            waiting: self.test.waiting(),
        };
        meet(&meeting, &Meeting { name: "back", unique: &back, ..meeting })
    }
}

/// What an actor is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Exchange so many messages and compare every byte.
    Check { count: u64 },
    /// Exchange `count` messages at full speed, and then, where it is a round trip, `samples` more
    /// that are timed one by one.
    Run { count: u64, samples: u64 },
}

/// Half of the time, and the 99th and 99.9th of 100 and of 1000, in nanoseconds.
pub(crate) type Percentiles = [f64; 3];

/// Somebody who takes part.
pub(crate) trait Actor {
    /// Does as told; calls `ready` once it can be sent to. Gives nanoseconds a message, or a round,
    /// if it is the one who takes the time.
    fn obey(&mut self, order: Order, ready: &mut dyn FnMut()) -> Result<Option<f64>, Failure>;

    /// Of the rounds that were timed one by one.
    fn percentiles(&self) -> Option<Percentiles> {
        None
    }
}
