//! How long it took.

use std::time::Duration;

use crate::Report;

/// Times between a kill and the end of the wait.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    /// In order.
    all: Vec<Duration>,
}

impl Latencies {
    pub(super) fn add(&mut self, latency: Duration) {
        let place = self.all.partition_point(|earlier| *earlier <= latency);
        self.all.insert(place, latency);
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    pub(super) fn sum(&self) -> Duration {
        self.all.iter().sum()
    }

    /// What `percent` of them did not exceed.
    pub(super) fn quantile(&self, percent: usize) -> Duration {
        let rank = (self.all.len() * percent).div_ceil(100);
        self.all.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// Adds them to `report`, as those of `name`.
    pub(super) fn describe(&self, report: &mut Report, name: &str) {
        report.count(&format!("waits ended, {name}"), self.count() as u64);
        let [half, most, all] = [50, 99, 100].map(|percent| self.quantile(percent));
        let found = format!("half within {half:.1?}, 99 of 100 {most:.1?}, all {all:.1?}");
        report.note("after the kill", found);
    }
}
