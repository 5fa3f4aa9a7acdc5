//! Whether the other side of a named ring is disconnected.
//!
//! *Disconnected* is a condition, not a state: no peer is alive, and one counts as having been there.
//! Which peers count is up to the end, see [`Disconnect`]. The condition holds until a peer attaches,
//! so either side may start first, also on a region that an earlier run left behind.
//!
//! The kernel is asked only if something was counted since it last was: by the watcher, a departure; in
//! the region's header, a slot that changed hands. A peer that is dropped counts there after its byte is
//! free, so the next call after an orderly close knows of it.

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use super::attached::Attached;
use super::interrupt::Until;
use super::slot::OwnedSlot;
use crate::error::Error;
use crate::region::slot_table::{attaches, count_held, incarnations};

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

    /// Notes that a record of the other side was taken.
    #[inline]
    pub(crate) fn note(&self) {
        if !self.met.load(Relaxed) {
            self.met.store(true, Relaxed);
        }
    }

    /// Whether a peer counts by `rule`. Ask after [`Self::look`].
    fn counts(&self, own: &OwnedSlot, rule: Disconnect) -> bool {
        match rule {
            Disconnect::Met => self.met.load(Relaxed),
            Disconnect::Ever => self.met.load(Relaxed) || self.ever(own) > 0,
            Disconnect::Never => false,
        }
    }

    /// Looks for a peer; one that is alive, or came and went, is met.
    fn look(&self, own: &OwnedSlot) -> Result<Look, Error> {
        // In this order: a peer that comes in between is seen as alive, not as gone.
        let incarnations = incarnations(own.region(), self.slots.clone());
        let is_any_alive = own.is_any_held(self.slots.clone())?;
        if is_any_alive || incarnations != self.before {
            self.note();
        }
        Ok(Look { incarnations, is_any_alive })
    }

    fn ever(&self, own: &OwnedSlot) -> u64 {
        attaches(own.region(), self.slots.clone())
    }

    pub(crate) fn peers(&self, own: &OwnedSlot) -> Result<Peers, Error> {
        let alive = if self.look(own)?.is_any_alive {
            count_held(own.region(), self.slots.clone())?
        } else {
            0
        };
        Ok(Peers { alive, ever: self.ever(own), met: self.met.load(Relaxed) })
    }
}

/// What one look at the other side found.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// Their sum: another than before if a peer has come.
    incarnations: u64,
    is_any_alive: bool,
}

/// Why [`Attached::wait_for_peer`] gave up.
#[derive(Debug)]
pub(super) enum NoPeer {
    Timeout,
    Interrupted,
    Failed(Error),
}

impl From<Error> for NoPeer {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Attached {
    /// Waits until a process owns an endpoint of the other side, or one has owned it since `peer` was found
    /// disconnected, or else since now: it may have left messages, and a lane has no next owner before
    /// they are taken.
    pub(super) fn wait_for_peer(&self, peer: &Peer, until: Until<'_>) -> Result<(), NoPeer> {
        let mut before = match peer.found {
            Found::Disconnected { incarnations } => Some(incarnations),
            Found::Nothing => None,
        };
        loop {
            self.check_usable()?;
            // Before the bytes are asked after: a peer that attaches after that changes it.
            let seen = self.slot.region().membership().load(Acquire);
            let look = self.meeting.look(&self.slot)?;
            if look.is_any_alive || *before.get_or_insert(look.incarnations) != look.incarnations {
                return Ok(());
            }
            if until.interrupts.take() {
                return Err(NoPeer::Interrupted);
            }
            if until.deadline.has_passed() {
                return Err(NoPeer::Timeout);
            }
            self.sleep_for_peer(seen, until);
        }
    }
}

/// What one handle knows of the other side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// What was counted when the kernel was last asked.
    asked: Option<u64>,
    /// What it said then.
    found: Found,
    /// How often the other side was found disconnected after it had not been.
    disconnects: u64,
    /// The last of them that [`wait_any`](super::wait_any()) named.
    named: u64,
    rule: Disconnect,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Found {
    #[default]
    Nothing,
    /// No peer was alive, the sum of their incarnations was this, and one counts.
    Disconnected { incarnations: u64 },
}

impl Peer {
    /// What was counted when the kernel was last asked, unless the other side was found disconnected:
    /// then each look at an empty ring has that to say.
    #[inline]
    pub(crate) fn known(&self) -> Option<u64> {
        if self.found == Found::Nothing { self.asked } else { None }
    }

    /// What was counted when the kernel was last asked.
    #[inline]
    pub(crate) fn asked(&self) -> Option<u64> {
        self.asked
    }

    /// Whether the other side is disconnected. Asks the kernel only if something was counted since it
    /// last did. Look at the ring once more before saying so: what was sent or freed before comes first.
    ///
    /// # Errors
    /// [`Error::LockLost`] if this endpoint itself can no longer be seen.
    #[inline]
    pub(crate) fn is_disconnected(&mut self, end: &Attached) -> Result<bool, Error> {
        let counted = end.counted();
        if self.asked != Some(counted) {
            self.ask(end, counted)?;
        }
        Ok(self.found != Found::Nothing)
    }

    #[cold]
    fn ask(&mut self, end: &Attached, counted: u64) -> Result<(), Error> {
        let Look { incarnations, is_any_alive } = end.meeting.look(&end.slot)?;
        let is_over = !is_any_alive && end.meeting.counts(&end.slot, self.rule);
        let before = self.found;
        self.found = if is_over { Found::Disconnected { incarnations } } else { Found::Nothing };
        self.disconnects += u64::from(is_over && self.found != before);
        self.asked = Some(counted);
        Ok(())
    }

    pub(crate) fn set_rule(&mut self, rule: Disconnect) {
        self.rule = rule;
        self.ask_again();
    }

    /// Makes sure that the next look at an empty ring asks again: what counts has changed, or not all
    /// that is gone was looked after.
    pub(crate) fn ask_again(&mut self) {
        self.asked = None;
    }

    /// Whether the other side became disconnected since that was last [named](Self::note_named).
    pub(crate) fn is_to_be_named(&self) -> bool {
        self.found != Found::Nothing && self.named != self.disconnects
    }

    /// Notes that `wait_any` has named this end.
    pub(crate) fn note_named(&mut self) {
        self.named = self.disconnects;
    }
}
