//! How often each call was made, and each outcome met.

use std::collections::BTreeMap;

use crate::Report;

/// What must have happened on each kind of ring.
const OF_EACH: &[&str] = &[
    "send",
    "send_timeout",
    "send_until",
    "try_send",
    "send_batch",
    "send_batch_timeout",
    "try_send_batch",
    "send_packet",
    "send_packet_timeout",
    "try_send_packet",
    "recv",
    "recv_timeout",
    "recv_until",
    "try_recv",
    "iter",
    "recv_into",
    "recv_into_timeout",
    "try_recv_into",
    "recv_parts",
    "recv_parts_timeout",
    "try_recv_parts",
    "try_recv_parts_or_discard",
    "recv_ref",
    "recv_ref_timeout",
    "try_recv_ref",
    "record dropped",
    "record copied",
    "record read in pieces",
    "record kept",
    "record forgotten",
    "record left by a panic",
    "taken while a panic unwinds",
    "record's handles",
    "drain",
    "drain with a limit",
    "drain with a panic",
    "drain that leaves one",
    "wait_any",
    "message with handles",
    "message with lost handles",
    "message of no bytes",
    "message of the most bytes",
    "message too long",
    "too many handles",
    "ring full",
    "batch cut short",
    "nothing there",
    "buffer too small",
    "handle buffer too small",
    "discarded",
    "no receiver for handles",
    "departure told to a receiver",
    "departure told to a sender",
    "sender attached",
    "sender dropped",
    "receiver attached",
    "receiver dropped",
    "end taken",
    "position at 2^64",
];

/// And what on one kind.
const OF_ONE: &[&str] = &[
    "SPSC: claim committed",
    "SPSC: claim shortened",
    "SPSC: claim filled",
    "SPSC: claim aborted",
    "SPSC: claim forgotten",
    "SPSC: claim overrun",
    "MPSC: clone",
    "lanes: clone",
    "lanes: lane not empty",
    "region opened again",
    "wait_any: nothing there",
];

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Messages sent.
    pub(super) sent: u64,
    counts: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts `what` on the kind of ring named.
    pub(super) fn of(&mut self, kind: &str, what: &str) {
        self.add(&format!("{kind}: {what}"), 1);
    }

    pub(super) fn add(&mut self, what: &str, count: u64) {
        match self.counts.get_mut(what) {
            Some(sum) => *sum += count,
            None => {
                self.counts.insert(what.to_owned(), count);
            }
        }
    }

    /// The report of `worlds`: fails if anything required never happened.
    pub(super) fn report(mut self, worlds: u64) -> Report {
        let mut report = Report::new();
        report.count("messages sent", self.sent);
        report.count("worlds", worlds);
        let kinds = ["SPSC", "MPSC", "lanes"];
        let of_each = OF_EACH.iter().flat_map(|what| kinds.map(|kind| format!("{kind}: {what}")));
        for what in of_each.chain(OF_ONE.iter().map(|what| (*what).to_owned())) {
            let count = self.counts.remove(&what).unwrap_or(0);
            report.count(&what, count);
        }
        self.counts.iter().for_each(|(what, count)| report.note(what, count));
        report
    }
}
