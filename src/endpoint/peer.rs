//! Whether the other side of a named ring is gone.
//!
//! *Gone* is a condition, not a state, and only somebody who was met can be gone: since this
//! endpoint attached, a byte of the other side was held, or one of its slots got a new owner, or a
//! record was taken. So either side may start first, also on a region that an earlier run left
//! behind. A departure is told once; a successor ends it.

use std::ops::Range;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::slot::{OwnedSlot, incarnations};
use crate::Error;

/// How often a waiting endpoint asks the kernel about the other side, at the most.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// What one endpoint knows about the other side.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    slots: Range<u16>,
    /// Sum of the incarnations when this endpoint attached.
    before: u64,
    met: bool,
    /// Sum of the incarnations when the last departure was told.
    told: Option<u64>,
    /// When the kernel was last asked, by the coarse clock.
    asked: Duration,
}

impl Peer {
    /// Nobody met yet, but for whoever is there now.
    pub(crate) fn new(own: &OwnedSlot, slots: Range<u16>) -> Result<Self, Error> {
        let before = incarnations(own.region(), slots.clone());
        let met = own.is_any_held(slots.clone())?;
        Ok(Self { slots, before, met, told: None, asked: Duration::ZERO })
    }

    /// Notes that a record of the other side was taken.
    #[inline]
    pub(crate) fn met(&mut self) {
        self.met = true;
    }

    /// Whether it is time to ask [`Self::is_gone`] again: cheap, and true at most every 10 ms.
    pub(crate) fn is_time(&mut self) -> bool {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        let now = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
        let due = now.saturating_sub(self.asked) >= ASK_EVERY;
        if due {
            self.asked = now;
        }
        due
    }

    /// Whether everybody who was met is gone, and that has not been told yet.
    ///
    /// # Errors
    /// [`Error::LockLost`] where this endpoint itself can no longer be seen.
    pub(crate) fn is_gone(&mut self, own: &OwnedSlot) -> Result<bool, Error> {
        // In this order: somebody who comes in between is seen as held, not as gone.
        let sum = incarnations(own.region(), self.slots.clone());
        let held = own.is_any_held(self.slots.clone())?;
        self.met |= held || sum != self.before;
        Ok(!held && self.met && self.told != Some(sum))
    }

    /// Notes that the departure was told.
    pub(crate) fn tell(&mut self, own: &OwnedSlot) {
        self.told = Some(incarnations(own.region(), self.slots.clone()));
    }
}
