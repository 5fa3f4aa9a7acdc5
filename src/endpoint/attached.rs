//! An endpoint that was claimed, with its ring.

use std::mem::offset_of;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tombolo_abi::{RingControl, RingEntry, Role};

use super::Deadline;
use super::errors::NotSent;
use super::peer::Meeting;
use super::slot::{OwnedSlot, Wanted};
use crate::carrier::Outgoing;
use crate::error::{Damage, Error};
use crate::mem::RingSpan;
use crate::region::Region;
use crate::ring::{Refusal, Ring};
use crate::watcher::Watch;

/// An owned slot and the ring that it belongs to.
#[derive(Debug)]
pub struct Attached {
    /// The slot.
    pub(crate) slot: OwnedSlot,
    /// As what.
    pub(crate) role: Role,
    /// The ring, mapped.
    pub(crate) ring: Ring<RingSpan>,
    /// Its index in the directory.
    pub(crate) index: u32,
    /// Its directory entry, from the private copy.
    pub(crate) entry: RingEntry,
    /// Whom it has met on the other side.
    pub(crate) meeting: Meeting,
    /// Tells when somebody there is gone.
    pub(crate) watch: Watch,
    /// A sender's connection for handles. To be locked before the ring's lock is taken.
    outgoing: Mutex<Outgoing>,
}

impl Attached {
    /// Claims an endpoint of ring `index`.
    pub(crate) fn claim(
        region: &Arc<Region>,
        index: u32,
        role: Role,
        deadline: Deadline,
    ) -> Result<Self, Error> {
        let entry = entry(region, index)?;
        let (rx_slots, tx_slots) = (entry.rx_slot..entry.rx_slot + 1, entry.tx_slots());
        let (slots, others) = match role {
            Role::Receiver => (rx_slots, tx_slots),
            Role::Sender => (tx_slots, rx_slots),
        };
        let wanted = Wanted { ring: index, role, slots };
        let slot = OwnedSlot::claim(region, &wanted, deadline)?;
        let meeting = Meeting::new(&slot, others.clone())?;
        let doorbell = match role {
            Role::Receiver => offset_of!(RingControl, rx_wake),
            Role::Sender => offset_of!(RingControl, tx_wake),
        };
        let doorbell = entry.control_offset + doorbell as u64;
        let watch = Watch::start(region, slot.identity(), others, doorbell)?;
        let ring = map_ring(region, &entry).ok_or(Error::NoSuchRing { kind: "mapped" })?;
        let outgoing = Mutex::default();
        let end = Self { slot, role, ring, index, entry, meeting, watch, outgoing };
        end.check_usable()?;
        Ok(end)
    }

    /// The connection for handles, which clones of a sender use one after the other.
    pub(super) fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error in a forked child, which doesn't have the mapping, where the endpoint was lost, or
    /// where the ring is poisoned.
    #[inline]
    pub(crate) fn check_usable(&self) -> Result<(), Error> {
        if self.is_sound() { Ok(()) } else { self.what_is_wrong() }
    }

    /// Whether there is nothing wrong: four loads of words that don't change.
    #[inline]
    pub(super) fn is_sound(&self) -> bool {
        let memory = &self.ring.memory;
        memory.is_ours() && !memory.is_cut() && self.slot.is_surely_kept() && self.ring.is_open()
    }

    #[cold]
    fn what_is_wrong(&self) -> Result<(), Error> {
        if !self.ring.memory.is_ours() {
            return Err(Error::ForkedChild);
        }
        self.check_whole()?;
        self.slot.check_kept()?;
        self.ring.check_open().map_err(|damage| self.error_of(damage, 0))
    }

    /// An error where the file was cut short under the mapping: what was read or written since may
    /// not have been the region. Asked after each operation, before it says that it succeeded.
    #[inline]
    pub(crate) fn check_whole(&self) -> Result<(), Error> {
        if self.is_whole() { Ok(()) } else { Err(self.slot.region().cut_error()) }
    }

    /// As [`Self::check_whole`].
    #[inline]
    pub(super) fn is_whole(&self) -> bool {
        !self.ring.memory.is_cut()
    }

    /// Marks the ring as poisoned and gives the error that says so.
    #[cold]
    pub(crate) fn damaged_at(&self, damage: Damage, position: u64) -> Error {
        if let Err(cut) = self.check_whole() {
            return cut; // the damage is ours alone
        }
        self.ring.poison(damage);
        self.error_of(damage, position)
    }

    /// As [`Self::damaged_at`], where no position is at hand.
    #[cold]
    pub(crate) fn damaged(&self, damage: Damage) -> Error {
        let position = match damage {
            Damage::Position { found, .. } => found,
            _ => 0,
        };
        self.damaged_at(damage, position)
    }

    /// What to say of a refusal; damage is marked.
    #[cold]
    pub(crate) fn refused(&self, refusal: Refusal) -> NotSent {
        match refusal {
            Refusal::Full(wanted) => NotSent::Full(wanted),
            Refusal::Damaged(damage) => self.damaged(damage).into(),
        }
    }

    fn error_of(&self, reason: Damage, position: u64) -> Error {
        Error::Poisoned { ring: self.index, position, reason }
    }
}

/// The directory entry of ring `index`.
pub(crate) fn entry(region: &Region, index: u32) -> Result<RingEntry, Error> {
    let entry = region.entries().get(index as usize).copied();
    entry.ok_or(Error::NoSuchRing { kind: "such" })
}

fn map_ring(region: &Region, entry: &RingEntry) -> Option<Ring<RingSpan>> {
    let RingEntry { control_offset, data_offset, capacity, .. } = *entry;
    let span = RingSpan::new(region.mapping().clone(), control_offset, data_offset, capacity)?;
    Some(Ring::new(span, entry, region.header().key))
}
