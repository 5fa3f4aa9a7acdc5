//! Layout arithmetic: from what a region is to hold to the offset of each part.

use tombolo_abi::{
    CONTROL_LEN, ENDIAN_TAG, ENTRY_LEN, HEADER_PAGE_LEN, Header, ISOLATION_LEN, LOCK_BASE, MAGIC,
    MAJOR, MINOR, RingEntry, SLOT_LEN, header_crc,
};

use super::rings::RingOptions;

/// The layout of a new region. Its header lacks what distinguishes one region from another.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) header: Header,
    pub(crate) entries: Vec<RingEntry>,
}

impl Plan {
    /// A region of `rings`, one after the other, with these capabilities. The rings, and that one region can
    /// hold them all, have been checked.
    pub(crate) fn of(rings: &[RingOptions], caps: u64, page_len: u32) -> Self {
        let mut entries = Vec::new();
        let mut group = 0;
        for ring in rings {
            entries.extend(ring.entries(group));
            group += u16::from(ring.is_of_lanes());
        }
        let has_rx_slot = |ring: &RingEntry| !ring.is_later_lane(); // lanes share the first one's
        let slots = |ring| u32::from(has_rx_slot(ring)) + u32::from(ring.tx_slot_count);
        let slot_count = entries.iter().map(slots).sum::<u32>();
        let directory_offset = HEADER_PAGE_LEN + u64::from(slot_count) * u64::from(SLOT_LEN);
        let directory_end = directory_offset + entries.len() as u64 * u64::from(ENTRY_LEN);
        let mut control_offset = directory_end.next_multiple_of(ISOLATION_LEN.into());
        let control_end = control_offset + entries.len() as u64 * u64::from(CONTROL_LEN);
        let mut data_offset = control_end.next_multiple_of(page_len.into());
        let (mut slot, mut rx_slot) = (0, 0);
        for ring in &mut entries {
            if has_rx_slot(ring) {
                (rx_slot, slot) = (slot, slot + 1);
            }
            (ring.rx_slot, ring.tx_slot_first) = (rx_slot, slot);
            (ring.control_offset, ring.data_offset) = (control_offset, data_offset);
            slot = ring.tx_slots().end;
            control_offset += u64::from(CONTROL_LEN);
            data_offset = (data_offset + ring.capacity).next_multiple_of(page_len.into());
        }
        let mut header = constant_header();
        header.total_len = data_offset; // behind the last ring
        header.caps_required = caps;
        header.page_len = page_len;
        header.ring_count = entries.len() as u32;
        header.slot_count = slot_count;
        header.directory_offset = directory_offset;
        header.slot_offset = HEADER_PAGE_LEN;
        Self { header, entries }
    }

    /// Makes the two rings the directions of a channel.
    pub(crate) fn pair(&mut self) {
        for (ring, peer) in self.entries.iter_mut().zip([1, 0]) {
            ring.peer_ring = peer;
        }
    }

    /// Bytes of the region.
    pub(crate) fn total_len(&self) -> u64 {
        self.header.total_len
    }

    /// The directory as it is stored.
    pub(crate) fn directory(&self) -> &[u8] {
        bytemuck::cast_slice(&self.entries)
    }

    /// Stores the checksum of everything else. Last.
    pub(crate) fn seal(&mut self) {
        self.header.crc = header_crc(&self.header, self.directory());
    }
}

/// What all headers of v1 have in common; zero elsewhere.
fn constant_header() -> Header {
    let mut header: Header = bytemuck::Zeroable::zeroed();
    header.magic = MAGIC;
    header.endian = ENDIAN_TAG;
    header.major = MAJOR;
    header.minor = MINOR;
    header.header_len = HEADER_PAGE_LEN as u32;
    header.isolation_len = ISOLATION_LEN;
    header.entry_len = ENTRY_LEN;
    header.control_len = CONTROL_LEN;
    header.slot_len = SLOT_LEN;
    header.lock_base = LOCK_BASE;
    header
}

#[cfg(test)]
mod tests {
    use tombolo_abi::{RingKind, caps, check_directory};

    use super::*;

    #[test]
    fn every_plan_passes_the_joiners_checks() {
        let mut count = 0;
        for capacity_log2 in [12, 13, 20, 40] {
            for producers in [1, 2, 64, 8189] {
                for page_len in [4096, 65536] {
                    let spsc = RingOptions::spsc().capacity(4096).max_message(1000);
                    let mpsc = RingOptions::mpsc().capacity(1 << capacity_log2).max_message(1000);
                    let rings = [spsc, mpsc.producers(producers)];
                    let mut plan = Plan::of(&rings, 0, page_len);
                    plan.seal();
                    let (len, header) = (plan.total_len(), &plan.header);
                    check_directory(header, plan.directory(), len, page_len).unwrap();
                    count += 1;
                }
            }
        }
        println!("plans checked: {count}");
        assert_eq!(count, 32);
    }

    #[test]
    fn lanes_have_one_consumer_and_pass_the_joiners_checks() {
        for producers in [1, 2, 63, 64, 65, 512] {
            let rings = [RingOptions::spsc(), RingOptions::lanes().producers(producers)];
            let mut plan = Plan::of(&rings, caps::LANES, 4096);
            plan.seal();
            let (len, header) = (plan.total_len(), &plan.header);
            check_directory(header, plan.directory(), len, 4096).unwrap();
            assert_eq!(
                (plan.entries.len(), header.slot_count),
                (1 + usize::from(producers), 3 + u32::from(producers))
            );
            for (index, lane) in (0..).zip(&plan.entries[1..]) {
                assert_eq!((lane.group, lane.lane_index, lane.capacity), (0, index, 1 << 18));
                assert_eq!((lane.rx_slot, lane.tx_slots()), (2, 3 + index..4 + index));
            }
        }
    }

    #[test]
    fn two_groups_of_lanes_have_a_consumer_each() {
        let lanes = || RingOptions::lanes().producers(2);
        let mut plan = Plan::of(&[lanes(), RingOptions::mpsc(), lanes()], caps::LANES, 4096);
        plan.seal();
        let (len, header) = (plan.total_len(), &plan.header);
        check_directory(header, plan.directory(), len, 4096).unwrap();
        let of = |entry: &RingEntry| (entry.kind, entry.rx_slot, entry.tx_slots());
        let found: Vec<_> = plan.entries.iter().map(of).collect();
        let (lane, mpsc) = (RingKind::Lane as u32, RingKind::Mpsc as u32);
        let first = [(lane, 0, 1..2), (lane, 0, 2..3)];
        let others = [(mpsc, 3, 4..68), (lane, 68, 69..70), (lane, 68, 70..71)];
        assert_eq!((&found[..2], &found[2..]), (&first[..], &others[..]));
        assert_eq!((plan.entries[0].group, plan.entries[4].group), (0, 1));
    }

    #[test]
    fn the_default_region_has_the_documented_slots() {
        let plan = crate::OpenOptions::new().plan();
        let [spsc, mpsc] = plan.entries[..] else { panic!("two rings") };
        assert_eq!((spsc.rx_slot, spsc.tx_slots()), (0, 1..2));
        assert_eq!((mpsc.rx_slot, mpsc.tx_slots()), (2, 3..67));
        assert_eq!((spsc.align_shift, mpsc.align_shift), (3, 3));
        assert_eq!((spsc.capacity, mpsc.capacity), (1 << 20, 1 << 20));
    }
}
