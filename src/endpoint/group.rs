//! The rings behind one end: one, or all lanes of a group.

use std::ops::Range;
use std::sync::atomic::AtomicU32;

use tombolo_abi::{LayoutError, RingControl, RingEntry, RingKind, Role};

use crate::error::Error;
use crate::os::futex;
use crate::region::Region;

/// The rings that share a consumer. Lanes lie one after the other in the directory, and so do their
/// producers' slots.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// The rings. The first one holds the words that they share.
    pub(crate) rings: Range<u32>,
    /// The producers' slots.
    pub(crate) tx_slots: Range<u16>,
    /// Whether each of them has a ring of its own.
    pub(crate) of_lanes: bool,
}

impl Group {
    /// The group that begins with ring `first`.
    ///
    /// # Errors
    /// [`Error::Layout`] if the lanes of the group don't follow each other: such a region may be
    /// intact, but this version cannot use it.
    pub(crate) fn of(region: &Region, first: u32) -> Result<Self, Error> {
        region.entry(first)?;
        Self::among(region.entries(), first).map_err(|reason| region.layout_error(reason))
    }

    /// The group of `entries` that begins with ring `first`.
    fn among(entries: &[RingEntry], first: u32) -> Result<Self, LayoutError> {
        let entry = &entries[first as usize];
        let mut tx_slots = entry.tx_slots();
        if entry.ring_kind() != Some(RingKind::Lane) {
            return Ok(Self { rings: first..first + 1, tx_slots, of_lanes: false });
        }
        let is_lane = |(_, other): &(u32, &RingEntry)| {
            other.ring_kind() == Some(RingKind::Lane) && other.group == entry.group
        };
        let mut end = first;
        for (ring, lane) in (0..).zip(entries).filter(is_lane) {
            let slot = entry.tx_slot_first.wrapping_add(lane.lane_index);
            check_order("group", ring, ring, end)?;
            check_order("lane_index", ring, lane.lane_index.into(), end - first)?;
            check_order("tx_slot_first", ring, lane.tx_slot_first.into(), slot.into())?;
            (end, tx_slots.end) = (end + 1, lane.tx_slots().end);
        }
        Ok(Self { rings: first..end, tx_slots, of_lanes: true })
    }

    /// The ring of the producer that has `slot`; the first one of all others.
    pub(crate) fn ring_of(&self, slot: u16) -> u32 {
        if self.of_lanes && self.tx_slots.contains(&slot) {
            self.rings.start + u32::from(slot - self.tx_slots.start)
        } else {
            self.rings.start
        }
    }

    /// The slots on the other side of the end of `ring`, one of these, with this role.
    pub(crate) fn others(&self, ring: &RingEntry, role: Role) -> Range<u16> {
        match role {
            Role::Receiver => self.tx_slots.clone(),
            Role::Sender => ring.rx_slot..ring.rx_slot + 1,
        }
    }

    /// Wakes the producers that wait for space in any of the rings.
    #[cold]
    pub(crate) fn wake_producers(&self, region: &Region) {
        for entry in &region.entries()[self.rings.start as usize..self.rings.end as usize] {
            futex::disarm_and_wake(tx_wake(region, entry), i32::MAX as u32);
        }
    }
}

fn tx_wake<'a>(region: &'a Region, entry: &RingEntry) -> &'a AtomicU32 {
    let offset = std::mem::offset_of!(RingControl, tx_wake) as u64;
    region.mapping().word_u32(entry.control_offset + offset)
}

/// An error unless what was found of `ring` puts it behind the lanes before it.
fn check_order(field: &'static str, ring: u32, found: u32, behind: u32) -> Result<(), LayoutError> {
    if found == behind {
        return Ok(());
    }
    let (ring, wanted) = (Some(ring), "behind the lanes before it, so");
    Err(LayoutError::Field { field, ring, found: found.into(), wanted, limit: behind.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EventsRegion, OpenOptions};

    /// A ring of one producer, three lanes of a group, and one of another.
    fn entries() -> [RingEntry; 5] {
        let lane = |group, lane_index| {
            let mut lane: RingEntry = bytemuck::Zeroable::zeroed();
            lane.kind = RingKind::Lane as u32;
            (lane.group, lane.lane_index) = (group, lane_index);
            lane.tx_slot_first = 10 * (group + 1) + lane_index;
            lane.tx_slot_count = 1;
            lane
        };
        let mut single = lane(0, 0);
        single.kind = RingKind::Spsc as u32;
        [single, lane(0, 0), lane(0, 1), lane(0, 2), lane(1, 0)]
    }

    fn misplaced(entries: &[RingEntry]) -> &'static str {
        match Group::among(entries, 1) {
            Err(LayoutError::Field { field, .. }) => field,
            found => panic!("{found:?}"),
        }
    }

    #[test]
    fn a_groups_lanes_are_those_of_its_number_and_a_ring_of_another_kind_is_alone() {
        let (entries, group) = (entries(), |first| Group::among(&entries(), first).unwrap());
        let lanes = group(1);
        assert_eq!((lanes.rings.clone(), lanes.tx_slots.clone()), (1..4, 10..13));
        assert!(lanes.of_lanes);
        assert_eq!([10, 11, 12].map(|slot| lanes.ring_of(slot)), [1, 2, 3]);
        assert_eq!([9, 13].map(|slot| lanes.ring_of(slot)), [1, 1], "their consumer's");
        let other = group(4);
        assert_eq!((other.rings, other.tx_slots), (4..5, 20..21));
        let single = group(0);
        assert_eq!((single.rings.clone(), single.of_lanes), (0..1, false));
        assert_eq!(single.ring_of(entries[0].tx_slot_first + 1), 0);
    }

    #[test]
    fn a_ring_that_is_not_there_has_no_group() {
        let region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let count = region.shared().entries().len() as u32;
        assert!(Group::of(region.shared(), count - 1).is_ok());
        let group = Group::of(region.shared(), count);
        assert!(matches!(group, Err(Error::Layout { .. })), "{group:?}");
    }

    #[test]
    fn lanes_that_do_not_follow_each_other_are_refused() {
        let mut apart = entries();
        apart.swap(3, 4);
        assert_eq!(misplaced(&apart), "group");
        let mut shuffled = entries();
        shuffled.swap(2, 3);
        assert_eq!(misplaced(&shuffled), "lane_index");
        let mut crossed = entries();
        (crossed[2].tx_slot_first, crossed[3].tx_slot_first) = (12, 11);
        assert_eq!(misplaced(&crossed), "tx_slot_first");
    }
}
