//! How long sends took: a histogram in shared words, so that it loses nothing by a kill.
//!
//! Eight buckets for each power of two nanoseconds: what is read from it is at most an eighth too
//! high.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::shared_words::{LINE_WORDS, SharedWords};
use crate::{Failure, Report};

/// Buckets of a power of two, as a power of two.
const FINE_BITS: u32 = 3;
const BUCKETS: usize = (64 - FINE_BITS as usize + 1) << FINE_BITS;
/// The line behind them: the longest wait.
const MAX_LINE: usize = BUCKETS / LINE_WORDS;

/// The histogram, which all processes add to.
#[derive(Debug)]
pub(super) struct Waits {
    words: SharedWords,
}

impl Waits {
    /// Makes one at `path`.
    ///
    /// # Errors
    /// The system's refusal.
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        Ok(Self { words: SharedWords::create(path, MAX_LINE + 1)? })
    }

    /// The one at `path`.
    ///
    /// # Errors
    /// The system's refusal.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        Ok(Self { words: SharedWords::open(path)? })
    }

    /// Adds a wait.
    pub(super) fn add(&self, ns: u64) {
        self.bucket(bucket_of(ns)).fetch_add(1, Relaxed);
        self.words.word(MAX_LINE, 0).fetch_max(ns, Relaxed);
    }

    /// How many waits there were.
    pub(super) fn count(&self) -> u64 {
        (0..BUCKETS).map(|bucket| self.bucket(bucket).load(Relaxed)).sum()
    }

    /// What `share` of a thousand waits did not exceed.
    pub(super) fn quantile(&self, share: u64) -> Duration {
        let mut missing = (self.count() * share).div_ceil(1000);
        for bucket in 0..BUCKETS {
            missing = missing.saturating_sub(self.bucket(bucket).load(Relaxed));
            if missing == 0 {
                return Duration::from_nanos(end_of(bucket)).min(self.max());
            }
        }
        self.max()
    }

    /// The longest wait.
    pub(super) fn max(&self) -> Duration {
        Duration::from_nanos(self.words.word(MAX_LINE, 0).load(Relaxed))
    }

    /// Adds all that to `report`.
    pub(super) fn describe(&self, report: &mut Report) {
        report.count("sends timed", self.count());
        report.note("half of them took at most", format!("{:?}", self.quantile(500)));
        report.note("99 of 100", format!("{:?}", self.quantile(990)));
        report.note("999 of 1000", format!("{:?}", self.quantile(999)));
        report.note("all", format!("{:?}", self.max()));
    }

    fn bucket(&self, bucket: usize) -> &AtomicU64 {
        self.words.word(bucket / LINE_WORDS, bucket % LINE_WORDS)
    }
}

fn bucket_of(ns: u64) -> usize {
    let power = ns.max(1).ilog2();
    match power.checked_sub(FINE_BITS) {
        None => ns as usize,
        Some(shift) => ((shift as usize) << FINE_BITS) + (ns >> shift) as usize,
    }
}

/// The longest wait of `bucket`, in nanoseconds.
fn end_of(bucket: usize) -> u64 {
    let fine = 1 << FINE_BITS;
    let shift = (bucket / fine).saturating_sub(1);
    let first = (bucket - shift * fine) as u64;
    ((u128::from(first + 1) << shift) - 1) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_has_a_bucket_that_ends_at_most_an_eighth_above_it() {
        let waits = (0..64).flat_map(|power| [0, 1, 2].map(|more| (1_u64 << power) - 1 + more));
        for ns in waits.chain([u64::MAX, 1000, 123_456_789]) {
            let bucket = bucket_of(ns);
            assert!(bucket < BUCKETS, "{ns}");
            let end = end_of(bucket);
            assert!(end >= ns && end - ns <= ns / 8, "{ns} in {bucket} up to {end}");
            assert!(bucket == 0 || end_of(bucket - 1) < ns, "{ns}");
        }
    }
}
