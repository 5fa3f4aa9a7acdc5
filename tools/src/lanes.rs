//! Lanes that no process has used yet: people need not read through them.

use tombolo::inspect::{Image, RingView};
use tombolo_abi::RingKind;

use crate::units::count;

/// The lanes of a region that were never used.
pub(crate) struct Unused {
    rings: Vec<u32>,
    lane_count: usize,
}

/// Finds the lanes that were never attached to, and in which nothing was sent.
pub(crate) fn unused(image: &Image) -> Unused {
    let is_lane = |ring: &&RingView| ring.entry.ring_kind() == Some(RingKind::Lane);
    let lanes: Vec<_> = image.rings().iter().filter(is_lane).collect();
    let unused = lanes.iter().filter(|ring| is_unused(image, ring));
    Unused { rings: unused.map(|ring| ring.ring).collect(), lane_count: lanes.len() }
}

fn is_unused(image: &Image, ring: &RingView) -> bool {
    let slots = ring.entry.tx_slots();
    let first = image.endpoints().partition_point(|one| one.slot < slots.start.into());
    let was_owned = image.endpoints().get(first).is_some_and(|one| one.slot < slots.end.into());
    let is_empty = ring.depth.is_some_and(|depth| depth.len == 0);
    !was_owned && is_empty && ring.control.is_some_and(|control| control.sent_msgs == 0)
}

impl Unused {
    /// Whether `ring` is one of them.
    pub(crate) fn has(&self, ring: &RingView) -> bool {
        self.rings.binary_search(&ring.ring).is_ok()
    }

    /// How many there are; `None` if there is none.
    pub(crate) fn words(&self) -> Option<String> {
        let (unused, lanes) = (count(self.rings.len() as u64), count(self.lane_count as u64));
        (!self.rings.is_empty())
            .then(|| format!("{unused} of {lanes} lanes were never used and are not listed"))
    }
}
