//! What a pair of processes is told to do.

use std::fmt;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::waiting::How;
use crate::ends::End;
use crate::no_membarrier::refuse_membarrier;
use crate::{Failure, Rng, required};

/// Whether `membarrier` works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Barriers {
    Usable,
    Refused,
}

/// Where both processes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Wherever the scheduler puts them.
    Apart,
    /// On one processor.
    Together,
}

impl Barriers {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Usable => "with barriers",
            Self::Refused => "without",
        }
    }
}

/// Who waits, and in what surroundings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Combination {
    /// The end that waits.
    pub(super) end: End,
    pub(super) barriers: Barriers,
    pub(super) place: Place,
    pub(super) how: How,
}

impl Combination {
    /// All that there are.
    const BARRIERS: [Barriers; 2] = [Barriers::Usable, Barriers::Refused];
    const PLACES: [Place; 2] = [Place::Apart, Place::Together];

    /// As arguments of a child, which [`Self::parse`] reads.
    pub(super) fn arguments(self) -> [String; 4] {
        let (end, how) = (self.end.name().to_owned(), self.how.name().to_owned());
        [end, format!("{:?}", self.barriers), format!("{:?}", self.place), how]
    }

    /// From the arguments of a child, `first` and the three behind it.
    pub(super) fn parse(arguments: &[String], first: usize) -> Result<Self, Failure> {
        let (barriers, place): (String, String) =
            (required(arguments, first + 1)?, required(arguments, first + 2)?);
        let barriers = Self::BARRIERS.into_iter().find(|found| format!("{found:?}") == barriers);
        let place = Self::PLACES.into_iter().find(|found| format!("{found:?}") == place);
        let end = required(arguments, first)?;
        let how = How::parse(&required::<String>(arguments, first + 3)?);
        let ((barriers, place), how) = barriers.zip(place).zip(how).ok_or("no such combination")?;
        Ok(Self { end, barriers, place, how })
    }

    /// Makes the surroundings of this process so. Call it before anything else.
    ///
    /// # Errors
    /// The system's refusals.
    pub(super) fn enter(self, seed: u64) -> Result<(), Failure> {
        if self.barriers == Barriers::Refused {
            refuse_membarrier()?;
        }
        if self.place == Place::Together {
            stay_on_one_processor(seed)?;
        }
        Ok(())
    }
}

impl fmt::Display for Combination {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { end, barriers, place, how } = self;
        write!(out, "{}, {}, {place:?}, {}", end.name(), barriers.name(), how.name())
    }
}

/// On the same one for all who call it with the same seed.
fn stay_on_one_processor(seed: u64) -> Result<(), Failure> {
    let usable = sched_getaffinity(None)?;
    let all: Vec<_> = (0..CpuSet::MAX_CPU).filter(|cpu| usable.is_set(*cpu)).collect();
    let mut one = CpuSet::new();
    one.set(Rng::new(seed).choose(&all));
    Ok(sched_setaffinity(None, &one)?)
}
