//! Descriptors, from one process to another.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;

use super::clock::Samples;
use crate::actor::{Actor, Order, Percentiles};
use crate::floor::shared::Shared;
use crate::system::{Failure, HandingSystem, Meeting, relax};

/// A word on a line of its own: the number of the last message that was taken and closed. The same
/// for all systems.
#[derive(Debug)]
struct Answer(Shared);

impl Answer {
    fn open(meeting: &Meeting) -> Result<Self, Failure> {
        Ok(Self(Shared::open(meeting, "answer", 4096)?))
    }

    fn give(&self, number: u64) {
        self.0.word(0).store(number, Release);
    }

    fn wait(&self, number: u64) {
        while self.0.word(0).load(Acquire) != number {
            relax();
        }
    }
}

/// The side that has the descriptors, and takes the time: from before the message is sent until it
/// was taken and all of them are closed, there and here.
pub(crate) struct Giving<S: HandingSystem> {
    giver: S::Giver,
    /// What a message carries copies of: files that hold their places.
    files: Vec<S::One>,
    answer: Answer,
    sent: u64,
    samples: Samples,
}

impl<S: HandingSystem> Giving<S> {
    pub(crate) fn new(giver: S::Giver, count: usize, back: &Meeting) -> Result<Self, Failure> {
        let files = (0..count).map(|place| numbered(place).map(S::One::from));
        let (files, answer) = (files.collect::<Result<_, _>>()?, Answer::open(back)?);
        Ok(Self { giver, files, answer, sent: 0, samples: Samples::new() })
    }

    fn pass_one(&mut self) -> Result<Duration, Failure> {
        self.sent += 1;
        let ones = self.files.iter().map(S::copy).collect::<Result<_, _>>()?;
        let start = Instant::now();
        S::give(&mut self.giver, self.sent, ones)?;
        self.answer.wait(self.sent);
        Ok(start.elapsed())
    }
}

impl<S: HandingSystem> Actor for Giving<S> {
    fn obey(&mut self, order: Order, ready: &mut dyn FnMut()) -> Result<Option<f64>, Failure> {
        ready();
        let (Order::Check { count } | Order::Run { count, .. }) = order;
        let mut total = Duration::ZERO;
        for _ in 0..count {
            let took = self.pass_one()?;
            self.samples.note(took);
            total += took;
        }
        Ok(match order {
            Order::Check { .. } => {
                self.samples.clear();
                None
            }
            Order::Run { .. } => Some(total.as_nanos() as f64 / count.max(1) as f64),
        })
    }

    fn percentiles(&self) -> Option<Percentiles> {
        self.samples.percentiles()
    }
}

/// The side that takes and closes them.
pub(crate) struct Taking<S: HandingSystem> {
    taker: S::Taker,
    count: usize,
    answer: Answer,
    taken: u64,
}

impl<S: HandingSystem> Taking<S> {
    pub(crate) fn new(taker: S::Taker, count: usize, back: &Meeting) -> Result<Self, Failure> {
        Ok(Self { taker, count, answer: Answer::open(back)?, taken: 0 })
    }

    fn take_one(&mut self) -> Result<Vec<S::One>, Failure> {
        let (number, ones) = S::take(&mut self.taker)?;
        self.taken += 1;
        if (number, ones.len()) != (self.taken, self.count) {
            return Err(format!("{} descriptors with message {number}", ones.len()).into());
        }
        Ok(ones)
    }
}

impl<S: HandingSystem> Actor for Taking<S> {
    fn obey(&mut self, order: Order, ready: &mut dyn FnMut()) -> Result<Option<f64>, Failure> {
        ready();
        let (Order::Check { count } | Order::Run { count, .. }) = order;
        for _ in 0..count {
            let ones = self.take_one()?;
            if let Order::Check { .. } = order {
                ones.iter().enumerate().try_for_each(|(place, one)| check(place, one))?;
            }
            drop(ones);
            self.answer.give(self.taken);
        }
        Ok(None)
    }
}

/// A file that holds its place.
fn numbered(place: usize) -> Result<OwnedFd, Failure> {
    let file = rustix::fs::memfd_create("numbered", MemfdFlags::CLOEXEC)?;
    rustix::io::write(&file, &place.to_le_bytes())?;
    Ok(file)
}

fn check(place: usize, file: &impl AsFd) -> Result<(), Failure> {
    let mut found = [0; size_of::<usize>()];
    rustix::io::pread(file, &mut found, 0)?;
    if usize::from_le_bytes(found) == place { Ok(()) } else { Err("another file came".into()) }
}
