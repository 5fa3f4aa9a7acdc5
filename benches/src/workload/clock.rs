//! Taking the time.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::actor::Percentiles;
use crate::system::Failure;

/// Times of single rounds.
#[derive(Debug)]
pub(crate) struct Samples(Histogram<u64>);

impl Samples {
    pub(crate) fn new() -> Self {
        let minute = 60_000_000_000;
        Self(Histogram::new_with_bounds(1, minute, 3).expect("bounds in order"))
    }

    pub(crate) fn note(&mut self, took: Duration) {
        self.0.saturating_record(took.as_nanos() as u64);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let at = |share| self.0.value_at_quantile(share) as f64;
        (!self.0.is_empty()).then(|| [at(0.5), at(0.99), at(0.999)])
    }
}

/// Nanoseconds for each of `count` that `work` does.
pub(crate) fn timed(
    count: u64,
    work: impl FnOnce() -> Result<(), Failure>,
) -> Result<f64, Failure> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_nanos() as f64 / count.max(1) as f64)
}
