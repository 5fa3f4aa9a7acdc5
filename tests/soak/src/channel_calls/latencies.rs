//! How long calls took to end after the kill.

use std::time::Duration;

use crate::Report;

/// Times, of all calls.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    all: Vec<Duration>,
}

impl Latencies {
    pub(super) fn add(&mut self, more: &[Duration]) {
        self.all.extend_from_slice(more);
        self.all.sort_unstable();
    }

    /// What `percent` of them did not exceed.
    pub(super) fn quantile(&self, percent: usize) -> Duration {
        let rank = (self.all.len() * percent).div_ceil(100);
        self.all.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// Adds them to `report`, as those of `name`.
    pub(super) fn describe(&self, report: &mut Report, name: &str) {
        report.count(&format!("{name}: calls ended by the kill"), self.all.len() as u64);
        let [half, most, all] = [50, 99, 100].map(|percent| self.quantile(percent));
        let found = format!("p50 {half:.2?}, p99 {most:.2?}, max {all:.2?}");
        report.note(&format!("{name}: from the kill to the end"), found);
    }
}
