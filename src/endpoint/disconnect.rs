//! Which peers an end has met on the other side of its ring.

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use crate::endpoint::{OwnedSlot, attaches, count_held, incarnations};
use crate::error::Error;

/// Which peers count as having been there, when no peer is alive: set at each end, by
/// [`Receiver::set_disconnect`](crate::Receiver::set_disconnect) and
/// [`Sender::set_disconnect`](crate::Sender::set_disconnect).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disconnect {
    /// A peer that held the other side at some time since this end attached, also one that came and
    /// went between two calls; and, for a receiver, the sender of any message that it took. So a
    /// restarted receiver of an empty ring waits for a new sender.
    #[default]
    Met,
    /// Any peer that ever attached in the region's life: for a restarted end of a finite job.
    Ever,
    /// No peer: calls wait for the next one, for ever. For a daemon.
    Never,
}

/// Which processes hold the other side of a ring, see
/// [`Receiver::peers`](crate::Receiver::peers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peers {
    /// Endpoints of the other side that are alive now. Clones of a producer that share an endpoint
    /// count as one.
    pub alive: usize,
    /// How often an endpoint of the other side was attached in the region's life; an endpoint that was
    /// attached twice counts twice.
    pub ever: u64,
    /// Whether this end met a peer, as in [`Disconnect::Met`].
    pub met: bool,
}

/// The other side, as an endpoint has met it since it attached. Clones of a producer share it.
#[derive(Debug)]
pub(crate) struct Meeting {
    slots: Range<u16>,
    /// Sum of the incarnations when the endpoint attached.
    before: u64,
    met: AtomicBool,
}

impl Meeting {
    /// No peer met yet, but for those that are there now.
    pub(crate) fn new(own: &OwnedSlot, slots: Range<u16>) -> Result<Self, Error> {
        let before = incarnations(own.region(), slots.clone());
        let met = own.is_any_held(slots.clone())?.into();
        Ok(Self { slots, before, met })
    }

    /// No peer met yet, in a region in which any that ever was counts: the first [poll](Self::poll) meets those
    /// that are there now.
    pub(crate) fn before_any(own: &OwnedSlot, slots: Range<u16>) -> Self {
        let before = incarnations(own.region(), slots.clone());
        Self { slots, before, met: false.into() }
    }

    /// Notes that a record of the other side was taken.
    #[inline]
    pub(crate) fn note(&self) {
        if !self.met.load(Relaxed) {
            self.met.store(true, Relaxed);
        }
    }

    /// Whether a peer counts by `rule`. Call after [`Self::poll`].
    pub(crate) fn counts(&self, own: &OwnedSlot, rule: Disconnect) -> bool {
        match rule {
            Disconnect::Met => self.met.load(Relaxed),
            Disconnect::Ever => self.met.load(Relaxed) || self.ever(own) > 0,
            Disconnect::Never => false,
        }
    }

    /// Polls for a peer; one that is alive, or has attached and detached since, is met.
    pub(crate) fn poll(&self, own: &OwnedSlot) -> Result<Seen, Error> {
        // In this order: a peer that attaches in between counts as alive, not as exited.
        let incarnations = incarnations(own.region(), self.slots.clone());
        let is_any_alive = own.is_any_held(self.slots.clone())?;
        if is_any_alive || incarnations != self.before {
            self.note();
        }
        Ok(Seen { incarnations, is_any_alive })
    }

    fn ever(&self, own: &OwnedSlot) -> u64 {
        attaches(own.region(), self.slots.clone())
    }

    pub(crate) fn peers(&self, own: &OwnedSlot) -> Result<Peers, Error> {
        let alive = if self.poll(own)?.is_any_alive {
            count_held(own.region(), self.slots.clone())?
        } else {
            0
        };
        Ok(Peers { alive, ever: self.ever(own), met: self.met.load(Relaxed) })
    }
}

/// What one poll of the other side found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Their sum: another than before if a peer has come.
    pub(crate) incarnations: u64,
    pub(crate) is_any_alive: bool,
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::endpoint::byte;
    use crate::os::ofd;
    use crate::{EventsRegion, OpenOptions, SpscReceiver};

    /// A receiver that no sender has ever been there for.
    fn alone() -> SpscReceiver {
        let options = OpenOptions::new().spsc_capacity(4096);
        let (_, mut rx) = EventsRegion::anonymous(options).unwrap().split_spsc().unwrap();
        rx.attach().unwrap();
        rx
    }

    /// As one that was killed before its slot counted it.
    #[test]
    fn a_peer_that_was_met_counts_by_both_rules_though_its_slot_tells_of_none() {
        let rx = alone();
        let end = &rx.receiving.as_ref().unwrap().end;
        let counts = |rule| end.meeting.counts(&end.slot, rule);
        assert!(!counts(Disconnect::Met) && !counts(Disconnect::Ever));
        end.meeting.note();
        assert!(counts(Disconnect::Met) && counts(Disconnect::Ever) && !counts(Disconnect::Never));
    }

    /// As one that is about to move the incarnation on.
    #[test]
    fn a_peer_that_has_its_byte_is_met_though_its_slot_tells_of_none() {
        let rx = alone();
        let end = &rx.receiving.as_ref().unwrap().end;
        let other = end.slot.region().reopen().unwrap();
        let taken = byte(end.meeting.slots.clone());
        assert!(ofd::try_lock(other.as_fd(), taken, ofd::Mode::Exclusive).unwrap());
        assert!(end.meeting.poll(&end.slot).unwrap().is_any_alive);
        drop(other);
        assert!(!end.meeting.poll(&end.slot).unwrap().is_any_alive);
        assert!(end.meeting.counts(&end.slot, Disconnect::Met));
    }
}
