//! Which peers an end has met on the other side of its ring.

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use crate::crash::test_point;
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

    /// Polls for a peer; one that is alive, or has attached and detached since, is met.
    pub(crate) fn poll(&self, own: &OwnedSlot) -> Result<Seen, Error> {
        // In this order: a peer that attaches in between counts as alive, not as exited.
        let was_met = self.met.load(Relaxed);
        let (ever, incarnations) = (self.ever(own), incarnations(own.region(), self.slots.clone()));
        test_point!("meeting.counted");
        let is_any_alive = own.is_any_held(self.slots.clone())?;
        test_point!("meeting.looked");
        let is_met = is_any_alive || incarnations != self.before;
        if is_met {
            self.note();
        }
        Ok(Seen { incarnations, ever, met: was_met || is_met, is_any_alive })
    }

    fn ever(&self, own: &OwnedSlot) -> u64 {
        attaches(own.region(), self.slots.clone())
    }

    pub(crate) fn peers(&self, own: &OwnedSlot) -> Result<Peers, Error> {
        let Seen { ever, met, is_any_alive, .. } = self.poll(own)?;
        let alive = if is_any_alive { count_held(own.region(), self.slots.clone())? } else { 0 };
        Ok(Peers { alive, ever, met })
    }
}

/// What one poll of the other side found. What counts was looked at before it was asked who is alive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Their sum: another than before if a peer has come.
    pub(crate) incarnations: u64,
    /// How often a peer had attached in the region's life.
    ever: u64,
    met: bool,
    pub(crate) is_any_alive: bool,
}

impl Seen {
    /// Whether no peer is alive, and one counts by `rule`.
    pub(crate) fn is_over(&self, rule: Disconnect) -> bool {
        let counts = match rule {
            Disconnect::Met => self.met,
            Disconnect::Ever => self.met || self.ever > 0,
            Disconnect::Never => false,
        };
        counts && !self.is_any_alive
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::fd::AsFd;
    use std::rc::Rc;

    use super::*;
    use crate::crash::visits;
    use crate::endpoint::{Attached, byte};
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
        let is_over = |rule| end.meeting.poll(&end.slot).unwrap().is_over(rule);
        assert!(!is_over(Disconnect::Met) && !is_over(Disconnect::Ever));
        end.meeting.note();
        assert!(is_over(Disconnect::Met) && is_over(Disconnect::Ever));
        assert!(!is_over(Disconnect::Never));
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
        let seen = end.meeting.poll(&end.slot).unwrap();
        assert!(seen.is_over(Disconnect::Met));
    }

    #[test]
    fn a_peer_that_comes_while_it_is_looked_for_is_not_taken_for_one_that_has_gone() {
        for point in ["meeting.counted", "meeting.looked"] {
            let options = OpenOptions::new().of_channel().unwrap();
            let region = EventsRegion::anonymous(options).unwrap().shared().clone();
            let (_tx, end) = Attached::attach_in_new(&region).unwrap();
            let end = Rc::new(end);
            let (comes, came) = (end.clone(), Rc::new(Cell::new(None)));
            let other = came.clone();
            let visit = visits::at(point, move || {
                other.set(Some(Attached::attach_in_new(&region).unwrap()));
                assert!(comes.meeting.poll(&comes.slot).unwrap().is_any_alive, "another handle's");
            });
            let seen = end.meeting.poll(&end.slot).unwrap();
            drop(visit);
            assert!(came.take().is_some(), "nothing came at {point}");
            for rule in [Disconnect::Met, Disconnect::Ever] {
                assert!(!seen.is_over(rule), "{rule:?}, came at {point}");
            }
        }
    }
}
