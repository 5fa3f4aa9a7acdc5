//! Layout arithmetic: from what a region is to hold to the offset of each part.

use tombolo_abi::{
    CONTROL_LEN, ENDIAN_TAG, ENTRY_LEN, HEADER_PAGE_LEN, Header, ISOLATION_LEN, LOCK_BASE, MAGIC,
    MAJOR, MINOR, NO_GROUP, NO_RING, RingEntry, RingKind, SLOT_LEN, header_crc,
};

use super::options::{MpscOrder, OpenOptions};

/// The layout of a new region. Its header lacks what distinguishes one region from another.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) header: Header,
    pub(crate) entries: Vec<RingEntry>,
}

impl Plan {
    /// The region that `open` makes: ring 0 SPSC, ring 1 MPSC, or lanes from ring 1 on. The options
    /// have been checked.
    pub(crate) fn of_options(options: &OpenOptions, page_len: u32) -> Self {
        let mut entries = rings(options);
        let has_rx_slot = |ring: &RingEntry| ring.lane_index == 0; // lanes share the first one's
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
        header.caps_required = options.new_caps();
        header.page_len = page_len;
        header.ring_count = entries.len() as u32;
        header.slot_count = slot_count;
        header.directory_offset = directory_offset;
        header.slot_offset = HEADER_PAGE_LEN;
        Self { header, entries }
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

/// The rings of the region, without their offsets and slots.
fn rings(options: &OpenOptions) -> Vec<RingEntry> {
    let mut ring: RingEntry = bytemuck::Zeroable::zeroed();
    ring.kind = RingKind::Spsc as u32;
    ring.capacity = options.new_spsc_capacity();
    ring.max_message = options.new_max_message();
    ring.max_handles = options.new_max_handles();
    ring.align_shift = 3;
    ring.tx_slot_count = 1;
    (ring.peer_ring, ring.group) = (NO_RING, NO_GROUP);
    let mut rings = vec![ring];
    ring.capacity = options.new_mpsc_capacity();
    match options.new_order() {
        MpscOrder::Total => {
            (ring.kind, ring.tx_slot_count) = (RingKind::Mpsc as u32, options.new_producers());
            rings.push(ring);
        }
        MpscOrder::PerProducer => {
            (ring.kind, ring.group) = (RingKind::Lane as u32, 0);
            let lanes = (0..options.new_producers()).map(|lane_index| {
                ring.lane_index = lane_index;
                ring
            });
            rings.extend(lanes);
        }
    }
    rings
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
    use tombolo_abi::check_directory;

    use super::*;

    #[test]
    fn every_plan_passes_the_joiners_checks() {
        let mut count = 0;
        for capacity_log2 in [12, 13, 20, 40] {
            for producers in [1, 2, 64, 8189] {
                for page_len in [4096, 65536] {
                    let options = OpenOptions::new()
                        .spsc_capacity(4096)
                        .mpsc_capacity(1 << capacity_log2)
                        .max_message(1000)
                        .producers(producers);
                    let mut plan = Plan::of_options(&options, page_len);
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
            let options = OpenOptions::new().mpsc_order(MpscOrder::PerProducer);
            let mut plan = Plan::of_options(&options.producers(producers), 4096);
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
    fn the_default_region_has_the_documented_slots() {
        let plan = Plan::of_options(&OpenOptions::new(), 4096);
        let [spsc, mpsc] = plan.entries[..] else { panic!("two rings") };
        assert_eq!((spsc.rx_slot, spsc.tx_slots()), (0, 1..2));
        assert_eq!((mpsc.rx_slot, mpsc.tx_slots()), (2, 3..67));
        assert_eq!((spsc.align_shift, mpsc.align_shift), (3, 3));
        assert_eq!((spsc.capacity, mpsc.capacity), (1 << 20, 1 << 20));
    }
}
