//! The rings behind one end: one, or all lanes of a group.

use std::ops::Range;
use std::sync::atomic::AtomicU32;

use tombolo_abi::{LayoutError, RingControl, RingEntry, RingKind};

use crate::error::Error;
use crate::os::futex;
use crate::region::Region;

/// The rings that share a consumer. Lanes lie one after the other in the directory, and so do their
/// producers' slots.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// The rings. The first one lends the words that they share.
    pub(crate) rings: Range<u32>,
    /// The producers' slots.
    pub(crate) tx_slots: Range<u16>,
    /// Whether each of them has a ring of its own.
    pub(crate) of_lanes: bool,
}

impl Group {
    /// The group whose first ring is `first`.
    ///
    /// # Errors
    /// [`Error::Layout`] where the lanes of the group don't follow each other: such a region may be
    /// sound, but this version cannot use it.
    pub(crate) fn of(region: &Region, first: u32) -> Result<Self, Error> {
        let entries = region.entries();
        let Some(entry) = entries.get(first as usize) else {
            return Err(Error::NoSuchRing { kind: "such" });
        };
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
            for (field, found, limit) in [
                ("group", ring, end),
                ("lane_index", lane.lane_index.into(), end - first),
                ("tx_slot_first", lane.tx_slot_first.into(), slot.into()),
            ] {
                if found != limit {
                    let (found, limit) = (found.into(), limit.into());
                    let (path, wanted) = (region.path().into(), "behind the lanes before it, so");
                    let reason =
                        LayoutError::Field { field, ring: Some(ring), found, wanted, limit };
                    return Err(Error::Layout { path, reason });
                }
            }
            (end, tx_slots.end) = (end + 1, lane.tx_slots().end);
        }
        Ok(Self { rings: first..end, tx_slots, of_lanes: true })
    }

    /// The ring of the producer that has `slot`.
    pub(crate) fn ring_of(&self, slot: u16) -> u32 {
        if !self.of_lanes {
            return self.rings.start;
        }
        self.rings.start + u32::from(slot.saturating_sub(self.tx_slots.start))
    }

    /// Wakes whoever waits for room in any of the rings.
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
