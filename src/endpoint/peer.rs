//! Whether the other side of a named ring is gone.
//!
//! *Gone* is a condition, not a state, and only somebody who was met can be gone: since this
//! endpoint attached, a byte of the other side was held, or one of its slots got a new owner, or a
//! record was taken. So either side may start first, also on a region that an earlier run left
//! behind. A departure is told once; a successor ends it.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::attached::Attached;
use super::slot::OwnedSlot;
use crate::Error;
use crate::region::slot_table::incarnations;

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

/// What one handle has found out and said about departures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// The departure told last.
    told: Option<u64>,
    /// The watcher's count when the kernel was last asked and there was nothing to tell.
    known: Option<u32>,
}

impl Peer {
    /// The watcher's count of departures, where all of them have been looked into and told.
    #[inline]
    pub(crate) fn known(&self) -> Option<u32> {
        self.known
    }

    /// A departure that was not told yet. Asks the kernel only where the watcher has counted
    /// something since there was none. Look at the ring once more before telling it: what was sent or freed
    /// before comes first.
    ///
    /// # Errors
    /// [`Error::LockLost`] where this endpoint itself can no longer be seen.
    #[inline]
    pub(crate) fn departure(&mut self, end: &Attached) -> Result<Option<u64>, Error> {
        let count = end.watch.departures();
        if self.known == Some(count) {
            return Ok(None);
        }
        self.ask(end, count)
    }

    #[cold]
    fn ask(&mut self, end: &Attached, count: u32) -> Result<Option<u64>, Error> {
        let departure = end.meeting.departure(&end.slot)?;
        let untold = departure.filter(|departure| self.told != Some(*departure));
        self.known = untold.is_none().then_some(count);
        Ok(untold)
    }

    /// Makes sure that the next look at an empty ring asks again: not all that is gone was looked after.
    pub(crate) fn ask_again(&mut self) {
        self.known = None;
    }

    /// Notes that `departure` was told. Until then it is found again each time.
    pub(crate) fn tell(&mut self, departure: u64) {
        self.told = Some(departure);
    }
}
