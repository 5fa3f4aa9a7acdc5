//! Whether the other side of a named ring is disconnected.
//!
//! *Disconnected* is a condition, not a state: no peer is alive, and one counts as having been there.
//! Which peers count is up to the end, see [`Disconnect`]. The condition holds until a peer attaches,
//! so either side may start first, also on a region that an earlier run left behind.
//!
//! The kernel is asked only if a count has changed since: the watcher's, of peer exits, or that of the
//! region's header, of slots that changed hands. A peer that is dropped counts there after its byte is
//! free, so the next call after an orderly close sees it.

use crate::endpoint::{Attached, Disconnect};
use crate::error::Error;

/// What one handle knows of the other side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// What was counted when the kernel was last asked.
    asked: Option<u64>,
    /// What it said then: the sum of the peers' incarnations, if none of them was alive and one counts.
    pub(crate) disconnected: Option<u64>,
    /// How often the other side was found disconnected after it had not been.
    disconnects: u64,
    /// The last of them that `wait_any` named.
    named: u64,
    rule: Disconnect,
    /// Whether each poll of an empty ring has more to do than to say so.
    is_slow: bool,
}

impl Peer {
    /// What was counted when the kernel was last asked, unless the other side was found disconnected:
    /// then each poll of an empty ring reports that. Nor if it is [slow](Self::stay_slow).
    #[inline]
    pub(crate) fn known(&self) -> Option<u64> {
        if self.disconnected.is_none() && !self.is_slow { self.asked } else { None }
    }

    /// Keeps every poll of an empty ring off the fast path from now on.
    pub(crate) fn stay_slow(&mut self) {
        self.is_slow = true;
    }

    /// What was counted when the kernel was last asked.
    #[inline]
    pub(crate) fn asked(&self) -> Option<u64> {
        self.asked
    }

    /// Whether the other side is disconnected. Asks the kernel only if something was counted since it
    /// last did. Poll the ring once more before reporting it: what was sent or freed before comes first.
    ///
    /// # Errors
    /// [`Error::LockLost`] if this endpoint itself can no longer be seen.
    #[inline]
    pub(crate) fn is_disconnected(&mut self, end: &Attached) -> Result<bool, Error> {
        let counted = end.counted();
        if self.asked != Some(counted) {
            self.ask(end, counted)?;
        }
        Ok(self.disconnected.is_some())
    }

    #[cold]
    fn ask(&mut self, end: &Attached, counted: u64) -> Result<(), Error> {
        let seen = end.meeting.poll(&end.slot)?;
        let is_over = seen.is_over(self.rule);
        let before = self.disconnected;
        self.disconnected = is_over.then_some(seen.incarnations);
        self.disconnects += u64::from(is_over && self.disconnected != before);
        self.asked = Some(counted);
        Ok(())
    }

    pub(crate) fn set_rule(&mut self, rule: Disconnect) {
        self.rule = rule;
        self.ask_again();
    }

    /// Makes the next poll of an empty ring ask again: the rule has changed, or not every exited peer was
    /// cleaned up after.
    pub(crate) fn ask_again(&mut self) {
        self.asked = None;
    }

    /// Whether the other side became disconnected since that was last [named](Self::note_named).
    pub(crate) fn is_to_be_named(&self) -> bool {
        self.disconnected.is_some() && self.named != self.disconnects
    }

    /// Notes that `wait_any` has named this end.
    pub(crate) fn note_named(&mut self) {
        self.named = self.disconnects;
    }
}
