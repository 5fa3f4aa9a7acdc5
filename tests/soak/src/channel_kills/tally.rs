//! What all rounds have come to.

use std::collections::BTreeMap;

use super::plan::POINTS;
use crate::Report;

/// Sums over the rounds.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Processes that have killed themselves there.
    pub(super) killed_at: BTreeMap<&'static str, u64>,
    pub(super) killed_at_random: u64,
    /// Of all: before there was a channel to talk over.
    pub(super) killed_early: u64,
    pub(super) carried: u64,
    /// Messages of the dead.
    pub(super) messages: u64,
    /// Their handles.
    pub(super) handles: u64,
    /// Messages that came though the write had not returned.
    pub(super) unnoted: u64,
    /// Calls of the survivor with replies.
    pub(super) answered: u64,
    /// Those that a death has ended.
    pub(super) ended: u64,
    pub(super) ended_unwritten: u64,
    /// Calls of the dead that were answered.
    pub(super) served: u64,
    /// Ends that came back.
    pub(super) ends_returned: u64,
    /// Ends that the dead had closed.
    pub(super) ends_closed: u64,
    pub(super) reasons: u64,
    /// Ends that their deaths have closed, in their hands or on the way there.
    pub(super) ends_of_the_dead: u64,
}

impl Tally {
    /// Processes killed.
    pub(super) fn kills(&self) -> u64 {
        self.killed_at.values().sum::<u64>() + self.killed_at_random
    }

    /// Adds it to `report`.
    pub(super) fn tell(&self, report: &mut Report) {
        for (what, count) in [
            ("processes killed", self.kills()),
            ("killed at a random moment", self.killed_at_random),
            ("killed before they could talk", self.killed_early),
            ("killed at an end that was carried to them", self.carried),
            ("messages of the killed, all that they were told to be written", self.messages),
            ("handles of those", self.handles),
            ("calls to the killed with replies", self.answered),
            ("calls to the killed that ended with them", self.ended),
            ("calls of the killed that were answered", self.served),
            ("ends that came back, open", self.ends_returned),
            ("ends that the killed had closed", self.ends_closed),
            ("ends closed with a reason", self.reasons),
            ("ends closed by the death", self.ends_of_the_dead),
        ] {
            report.count(what, count);
        }
        report.note("messages that came though the write had not returned", self.unnoted);
        report.note("requests that were not written before the end", self.ended_unwritten);
        if cfg!(feature = "__crash_points") {
            for (point, _) in POINTS {
                let count = self.killed_at.get(point).copied().unwrap_or(0);
                report.count(&format!("killed at {point}"), count);
            }
        }
    }
}
