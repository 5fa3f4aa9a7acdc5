//! An attached endpoint, with its ring.

use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, fence};

use tombolo_abi::{LayoutError, RingControl, RingEntry, RingKind, Role, Slot};

use crate::endpoint::{
    Byte, Group, Meeting, OwnedSlot, Seat, Until, Wanted, Watch, attaches, byte_is_held,
    incarnations, slot_u32,
};
use crate::error::{Damage, Error};
use crate::mem::RingSpan;
use crate::os::futex;
use crate::region::Region;
use crate::ring::doorbell::{Polled, poll};
use crate::ring::{Memory, Ring, Wakes, Word};

/// An owned slot and the ring that it belongs to.
#[derive(Debug)]
pub(crate) struct Attached {
    /// The slot.
    pub(crate) slot: OwnedSlot,
    /// As what.
    pub(crate) role: Role,
    /// The ring, mapped.
    pub(crate) ring: Ring<RingSpan>,
    /// Its index in the directory.
    pub(crate) index: u32,
    /// Its directory entry, from the private copy; a receiver's of lanes is that of the first.
    pub(crate) entry: RingEntry,
    /// The rings that share the consumer.
    pub(crate) group: Group,
    /// The peers that it has met on the other side.
    pub(crate) meeting: Meeting,
    /// Counts the exits of peers.
    pub(crate) watch: Watch,
}

impl Attached {
    /// Attaches to an endpoint of ring `index`, which is the first of its group. A producer of lanes takes
    /// a lane that is free and empty.
    pub(crate) fn attach(
        region: &Arc<Region>,
        index: u32,
        role: Role,
        until: Until<'_>,
    ) -> Result<Self, Error> {
        let group = Group::of(region, index)?;
        let rx_slot = region.entry(index)?.rx_slot;
        let (rx_slots, tx_slots) = (rx_slot..rx_slot + 1, group.tx_slots.clone());
        let slots = match role {
            Role::Receiver => rx_slots,
            Role::Sender => tx_slots,
        };
        let ring_of = |slot| group.ring_of(slot);
        let is_lane = group.of_lanes && role == Role::Sender;
        let is_channel = region.description().is_channel();
        let is_fit = |slot, byte| match () {
            () if is_lane => is_empty(region, ring_of(slot), index),
            () if is_channel => never_had_owner(region, slot, byte),
            () => Ok(true),
        };
        let seats_of = |slot| vec![Seat { slot, role, ring: ring_of(slot) }];
        let wanted =
            Wanted { slots, seats_of: &seats_of, is_fit: &is_fit, may_be_passed_on: false };
        let slot = OwnedSlot::attach(region, &wanted, until)?.swap_remove(0);
        let index = ring_of(slot.identity().slot);
        if is_lane {
            let entry = region.entry(index)?;
            region.populate_lane(&entry, entry.capacity)?;
        }
        let others = group.others(&region.entry(index)?, role);
        let meeting = Meeting::new(&slot, others)?;
        Self::at(region, slot, role, (index, group, meeting))
    }

    /// Attaches to one side of a channel, whichever has never had an owner: as the sender of one of its rings and
    /// as the receiver of the other, in this order.
    pub(crate) fn attach_to_either(
        region: &Arc<Region>,
        until: Until<'_>,
    ) -> Result<(Self, Self), Error> {
        Self::of_channel(region, |wanted| OwnedSlot::attach(region, wanted, until))
    }

    /// As [`Self::attach_to_either`], of a region that no other process can have yet.
    pub(crate) fn attach_in_new(region: &Arc<Region>) -> Result<(Self, Self), Error> {
        Self::of_channel(region, |wanted| OwnedSlot::attach_in_new(region, wanted))
    }

    fn of_channel(
        region: &Arc<Region>,
        attach: impl FnOnce(&Wanted<'_>) -> Result<Vec<OwnedSlot>, Error>,
    ) -> Result<(Self, Self), Error> {
        let entries = region.entries();
        let seats_of = |slot| {
            let of_sender = (0..).zip(entries).find(|(_, entry)| entry.tx_slots().contains(&slot));
            let Some((ring, RingEntry { peer_ring, .. })) = of_sender else { return Vec::new() };
            let Some(peer) = entries.get(*peer_ring as usize) else { return Vec::new() };
            let receiver = Seat { slot: peer.rx_slot, role: Role::Receiver, ring: *peer_ring };
            vec![Seat { slot, role: Role::Sender, ring }, receiver]
        };
        let is_fit = |slot, byte| never_had_owner(region, slot, byte);
        let all = entries.iter().flat_map(RingEntry::tx_slots);
        let slots = all.clone().min().unwrap_or(0)..all.max().map_or(0, |slot| slot + 1);
        let wanted = Wanted { slots, seats_of: &seats_of, is_fit: &is_fit, may_be_passed_on: true };
        let attached = attach(&wanted)?;
        let mut ends = attached.into_iter().map(|slot| Self::of_channel_at(region, slot));
        let none = || {
            region.layout_error(LayoutError::OtherRing {
                ring: None,
                found: None,
                wanted: RingKind::Spsc,
            })
        };
        let (sender, receiver) = (ends.next(), ends.next());
        Ok((sender.ok_or_else(none)??, receiver.ok_or_else(none)??))
    }

    /// The end of ring `index`, of `group`, that `slot` is.
    fn at(
        region: &Arc<Region>,
        slot: OwnedSlot,
        role: Role,
        (index, group, meeting): (u32, Group, Meeting),
    ) -> Result<Self, Error> {
        let entry = region.entry(index)?;
        let others = group.others(&entry, role);
        let watch = Watch::start(region, slot.identity(), others, doorbell(&entry, role))?;
        let ring = map_ring(region, index, group.rings.start)?;
        let end = Self { slot, role, ring, index, entry, group, meeting, watch };
        end.check_usable()?;
        Ok(end)
    }

    /// The end of a channel's ring that `slot` is.
    pub(crate) fn of_channel_at(region: &Arc<Region>, slot: OwnedSlot) -> Result<Self, Error> {
        let seat = slot.seat();
        let group = Group::of(region, seat.ring)?;
        let others = group.others(&region.entry(seat.ring)?, seat.role);
        // Any owner that the other side ever had counts, met or not.
        let meeting = Meeting::before_any(&slot, others);
        Self::at(region, slot, seat.role, (seat.ring, group, meeting))
    }

    /// Whether this is an end of a lane.
    pub(crate) fn is_lane(&self) -> bool {
        self.entry.ring_kind() == Some(RingKind::Lane)
    }

    /// An error in a forked child, which doesn't have the mapping, if the endpoint was lost, or
    /// if the ring is poisoned.
    #[inline]
    pub(crate) fn check_usable(&self) -> Result<(), Error> {
        if self.is_sound() { Ok(()) } else { self.what_is_wrong() }
    }

    /// Whether there is nothing wrong: four loads of words that don't change.
    #[inline]
    pub(crate) fn is_sound(&self) -> bool {
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
        let (ring, position) = (self.index, 0);
        self.ring.check_open().map_err(|reason| Error::Poisoned { ring, position, reason })
    }

    /// An error if the file was cut short under the mapping: what was read or written since may
    /// not have been the region. Asked after each operation, before it says that it succeeded.
    #[inline]
    pub(crate) fn check_whole(&self) -> Result<(), Error> {
        if self.is_whole() { Ok(()) } else { Err(self.slot.region().cut_error()) }
    }

    /// As [`Self::check_whole`].
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        !self.ring.memory.is_cut()
    }

    /// Marks the ring as poisoned and gives the error that says so.
    #[cold]
    pub(crate) fn damaged_at(&self, damage: Damage, position: u64) -> Error {
        self.damaged_in(self.index, damage, position)
    }

    /// As [`Self::damaged_at`], of any ring of the group.
    #[cold]
    pub(crate) fn damaged_in(&self, ring: u32, damage: Damage, position: u64) -> Error {
        if let Err(cut) = self.check_whole() {
            return cut; // the damage is ours alone
        }
        self.ring.poison(damage);
        self.group.wake_producers(self.slot.region()); // those of other lanes, too
        Error::Poisoned { ring, position, reason: damage }
    }

    /// As [`Self::damaged_at`], if no position is at hand.
    #[cold]
    pub(crate) fn damaged(&self, damage: Damage) -> Error {
        self.damaged_at(damage, position_of(damage))
    }

    /// Peer exits that the watcher has counted, in the lower half, and slots of the region that changed
    /// hands, in the upper: whatever happens to a peer, one of them counts it.
    #[inline]
    pub(crate) fn counted(&self) -> u64 {
        let changes = self.slot.region().membership().load(Acquire); // edge `handover`
        u64::from(changes) << 32 | u64::from(self.watch.peer_exits())
    }

    /// Whether anything was counted since `known`.
    #[inline]
    pub(crate) fn has_changed(&self, known: Option<u64>) -> bool {
        Some(self.counted()) != known
    }

    /// Whether peers have exited since `known` was counted. Check behind the fence of arming: edge
    /// `peer_exit`. A slot that changed hands wakes the watcher, which counts what follows from it.
    pub(crate) fn has_peer_exits(&self, known: Option<u64>) -> bool {
        Some(self.watch.peer_exits()) != known.map(|known| known as u32)
    }

    /// Whether nothing but what was armed for is to be told to an end that has armed. As [`Self::has_peer_exits`].
    pub(crate) fn may_sleep(&self, known: Option<u64>) -> bool {
        !self.has_peer_exits(known) && self.ring.is_open()
    }

    /// Has the thread that sleeps at this receiver's doorbell, or is about to, look once more: as if a peer had
    /// exited.
    pub(crate) fn wake_own(&self) {
        if self.ring.memory.is_ours() {
            self.watch.note();
            fence(SeqCst); // edge `peer_exit`: the count, the wake word
            futex::disarm_and_wake(self.rx_wake(), i32::MAX as u32);
        }
    }

    /// The user signals of the end that receives here, and the count of their changes.
    #[inline]
    pub(crate) fn signals(&self) -> u32 {
        let slot = self.slot.seat().slot;
        slot_u32(self.slot.region(), slot, offset_of!(Slot, signals)).load(Acquire)
    }

    /// Counts a sleep that is about to begin.
    pub(crate) fn count_sleep(&self) {
        if self.role == Role::Receiver {
            self.count_control(offset_of!(RingControl, sleeps));
        }
        self.slot.count(offset_of!(Slot, sleeps));
    }

    /// Counts a sleep that a peer's exit since `known` has ended; `false` if none has.
    pub(crate) fn count_peer_exit(&self, known: Option<u64>) -> bool {
        let by_peer_exit = self.has_peer_exits(known);
        if by_peer_exit {
            self.slot.count(offset_of!(Slot, woken_by_death));
        }
        by_peer_exit
    }

    /// Counts a wake-up of the consumer that found nothing.
    pub(crate) fn count_spurious(&self) {
        self.count_control(offset_of!(RingControl, spurious));
    }

    /// Stores what `wakes` has counted, now and then.
    #[inline]
    pub(crate) fn settle_now_and_then(&self, wakes: &Wakes) {
        if wakes.is_due() {
            self.settle(wakes);
        }
    }

    /// Stores what `wakes` has counted.
    #[cold]
    pub(crate) fn settle(&self, wakes: &Wakes) {
        if self.ring.memory.is_ours() && self.slot.check_kept().is_ok() {
            let (sent, elided) = wakes.take();
            self.slot.add(offset_of!(Slot, wakes_sent), sent.into());
            self.slot.add(offset_of!(Slot, wakes_elided), elided.into());
        }
    }

    fn count_control(&self, offset: usize) {
        self.ring.memory.group_u64(offset).fetch_add(1, Relaxed);
    }

    /// Offset of the word that it sleeps on.
    pub(crate) fn doorbell(&self) -> u64 {
        doorbell(&self.entry, self.role)
    }

    pub(crate) fn rx_wake(&self) -> &AtomicU32 {
        self.ring.memory.group_u32(offset_of!(RingControl, rx_wake))
    }

    pub(crate) fn tx_wake(&self) -> &AtomicU32 {
        self.ring.memory.control_u32(offset_of!(RingControl, tx_wake))
    }
}

fn doorbell(entry: &RingEntry, role: Role) -> u64 {
    let word = match role {
        Role::Receiver => offset_of!(RingControl, rx_wake),
        Role::Sender => offset_of!(RingControl, tx_wake),
    };
    entry.control_offset + word as u64
}

/// The position that `damage` itself has, else 0.
pub(crate) fn position_of(damage: Damage) -> u64 {
    match damage {
        Damage::Position { found, .. } => found,
        _ => 0,
    }
}

/// Ring `index`, mapped, in the group that begins with ring `first`.
pub(crate) fn map_ring(region: &Region, index: u32, first: u32) -> Result<Ring<RingSpan>, Error> {
    let (entry, first) = (region.entry(index)?, region.entry(first)?);
    let RingEntry { control_offset, data_offset, capacity, .. } = entry;
    let controls = (control_offset, first.control_offset);
    let span = RingSpan::new(region.mapping().clone(), controls, data_offset, capacity);
    let span = span.ok_or_else(|| {
        let (field, ring, found) = ("data_offset", Some(index), data_offset);
        let (wanted, limit) = ("a data area inside a mapping of", region.mapping().len());
        region.layout_error(LayoutError::Field { field, ring, found, wanted, limit })
    })?;
    Ok(Ring::new(span, &entry, region.header().key))
}

/// Whether `slot` has had no owner that told of itself, but for one that has it now.
fn never_had_owner(region: &Region, slot: u16, byte: Byte) -> Result<bool, Error> {
    let slots = slot..slot + 1;
    let is_fresh = byte == Byte::Ours
        || incarnations(region, slots.clone()) == 0
        || byte_is_held(region, slots.clone())?;
    Ok(is_fresh && attaches(region, slots) == 0)
}

/// Whether a lane without an owner holds no record that is still to be received.
fn is_empty(region: &Region, index: u32, first: u32) -> Result<bool, Error> {
    let ring = map_ring(region, index, first)?;
    let head = ring.memory.load(Word::Head, Acquire); // edge `free`
    Ok(poll(&ring, head) == Polled::Nothing)
}

#[cfg(test)]
mod tests;
