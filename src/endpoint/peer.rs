//! Whether the other side of a named ring is gone.
//!
//! *Gone* is a condition, not a state, and only somebody who was met can be gone: since this
//! endpoint attached, a byte of the other side was held, or one of its slots got a new owner, or a
//! record was taken. So either side may start first, also on a region that an earlier run left
//! behind. A departure is told once; a successor ends it.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::attached::Attached;
use super::slot::OwnedSlot;
use super::slot_table::incarnations;
use crate::Error;

/// How often a waiting endpoint asks the kernel about the other side, at the most.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// Whom an endpoint has met since it attached. Clones of a producer share it.
#[derive(Debug)]
pub(crate) struct Meeting {
    slots: Range<u16>,
    /// Sum of the incarnations when the endpoint attached.
    before: u64,
    met: AtomicBool,
}

impl Meeting {
    /// Nobody met yet, but for whoever is there now.
    pub(crate) fn new(own: &OwnedSlot, slots: Range<u16>) -> Result<Self, Error> {
        let before = incarnations(own.region(), slots.clone());
        let met = own.is_any_held(slots.clone())?.into();
        Ok(Self { slots, before, met })
    }

    /// Notes that a record of the other side was taken.
    #[inline]
    pub(crate) fn note(&self) {
        if !self.met.load(Relaxed) {
            self.met.store(true, Relaxed);
        }
    }

    /// The departure, where somebody was met and nobody is there: the sum of the incarnations, which
    /// tells it from others.
    fn departure(&self, own: &OwnedSlot) -> Result<Option<u64>, Error> {
        // In this order: somebody who comes in between is seen as held, not as gone.
        let sum = incarnations(own.region(), self.slots.clone());
        let held = own.is_any_held(self.slots.clone())?;
        if held || sum != self.before {
            self.note();
        }
        Ok((!held && self.met.load(Relaxed)).then_some(sum))
    }
}

/// What one handle has said about departures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// The departure told last.
    told: Option<u64>,
    /// When the kernel was last asked, by the coarse clock.
    asked: Duration,
}

impl Peer {
    /// Whether it is time to ask [`Self::departure`] again: cheap, and true at most every 10 ms.
    pub(crate) fn is_time(&mut self) -> bool {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        let now = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
        let due = now.saturating_sub(self.asked) >= ASK_EVERY;
        if due {
            self.asked = now;
        }
        due
    }

    /// A departure that was not told yet. Look at the ring once more before telling it: what was
    /// sent or freed before comes first.
    ///
    /// # Errors
    /// [`Error::LockLost`] where this endpoint itself can no longer be seen.
    pub(crate) fn departure(&self, end: &Attached) -> Result<Option<u64>, Error> {
        let departure = end.meeting.departure(&end.slot)?;
        Ok(departure.filter(|departure| self.told != Some(*departure)))
    }

    /// Notes that `departure` was told.
    pub(crate) fn tell(&mut self, departure: u64) {
        self.told = Some(departure);
    }
}
