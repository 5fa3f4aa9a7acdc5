//! How long calls took to end after the kill.

use std::time::Duration;

use crate::Report;

/// Times, of all calls.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    all: Vec<Duration>,
    /// Of the first call of each round.
    first: Vec<Duration>,
}

impl Latencies {
    pub(super) fn add(&mut self, more: &[Duration]) {
        self.all.extend_from_slice(more);
        self.all.sort_unstable();
        self.first.extend(more.iter().min());
        self.first.sort_unstable();
    }

    /// What `percent` of them did not exceed.
    pub(super) fn quantile(&self, percent: usize) -> Duration {
        quantile(&self.all, percent)
    }

    /// Adds them to `report`, as those of `name`.
    pub(super) fn describe(&self, report: &mut Report, name: &str) {
        report.count(&format!("{name}: calls ended by the kill"), self.all.len() as u64);
        for (what, times) in [("end", &self.all), ("first end of each round", &self.first)] {
            let [half, most, all] = [50, 99, 100].map(|percent| quantile(times, percent));
            let found = format!("p50 {half:.2?}, p99 {most:.2?}, max {all:.2?}");
            report.note(&format!("{name}: from the kill to the {what}"), found);
        }
    }
}

/// What `percent` of `times` did not exceed, which are in order.
fn quantile(times: &[Duration], percent: usize) -> Duration {
    let rank = (times.len() * percent).div_ceil(100);
    times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}
