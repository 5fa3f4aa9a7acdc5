//! Layout arithmetic: from what a region is to hold, to where everything lies.

use tombolo_abi::{
    CONTROL_LEN, ENDIAN_TAG, ENTRY_LEN, HEADER_PAGE_LEN, Header, ISOLATION_LEN, LOCK_BASE, MAGIC,
    MAJOR, MINOR, NO_GROUP, NO_RING, RingEntry, RingKind, SLOT_LEN, header_crc,
};

use super::options::{MpscOrder, OpenOptions};

/// A ring that is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingPlan {
    pub(crate) kind: RingKind,
    pub(crate) capacity: u64,
    pub(crate) max_message: u32,
    pub(crate) max_handles: u16,
    /// Records start at multiples of `1 << align_shift` bytes.
    pub(crate) align_shift: u8,
    /// Slots for producers.
    pub(crate) producers: u16,
    /// Which lane it is. All but lane 0 have the consumer's slot of the ring before.
    pub(crate) lane: u16,
}

impl RingPlan {
    fn slot_count(&self) -> u32 {
        u32::from(self.consumers()) + u32::from(self.producers)
    }

    /// Slots that a consumer of its own takes.
    fn consumers(&self) -> u16 {
        u16::from(self.lane == 0)
    }
}

/// Where everything of a new region lies. The header lacks what tells one region from another.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) header: Header,
    pub(crate) entries: Vec<RingEntry>,
}

impl Plan {
    /// The region that `open` makes: ring 0 SPSC, ring 1 MPSC, or lanes from ring 1 on. The options
    /// have been checked.
    pub(crate) fn of_options(options: &OpenOptions, page_len: u32) -> Self {
        let (max_message, max_handles) = (options.new_max_message(), options.new_max_handles());
        let spsc = RingPlan {
            kind: RingKind::Spsc,
            capacity: options.new_spsc_capacity(),
            max_message,
            max_handles,
            align_shift: 3,
            producers: 1,
            lane: 0,
        };
        let capacity = options.new_mpsc_capacity();
        let lane = |lane| RingPlan { kind: RingKind::Lane, capacity, lane, ..spsc };
        let mpsc =
            RingPlan { kind: RingKind::Mpsc, capacity, producers: options.new_producers(), ..spsc };
        let mut rings = vec![spsc];
        match options.new_order() {
            MpscOrder::Total => rings.push(mpsc),
            MpscOrder::PerProducer => rings.extend((0..options.new_producers()).map(lane)),
        }
        Self::of_rings(&rings, options.new_caps(), page_len)
    }

    /// A region with these rings: each takes the next free slots, the consumer's first.
    pub(crate) fn of_rings(rings: &[RingPlan], caps_required: u64, page_len: u32) -> Self {
        let slot_count = rings.iter().map(RingPlan::slot_count).sum::<u32>();
        let directory_offset = HEADER_PAGE_LEN + u64::from(slot_count) * u64::from(SLOT_LEN);
        let directory_end = directory_offset + rings.len() as u64 * u64::from(ENTRY_LEN);
        let control_offset = directory_end.next_multiple_of(ISOLATION_LEN.into());
        let control_end = control_offset + rings.len() as u64 * u64::from(CONTROL_LEN);
        let data_offset = control_end.next_multiple_of(page_len.into());
        let entries = lay_out(rings, control_offset, data_offset, page_len);
        let last = entries.last().map(|entry| entry.data_offset + entry.capacity);
        let total_len = last.unwrap_or(data_offset).next_multiple_of(page_len.into());
        let ring_count = rings.len() as u32;
        let mut header = constant_header();
        header.total_len = total_len;
        header.caps_required = caps_required;
        header.page_len = page_len;
        header.ring_count = ring_count;
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

fn lay_out(
    rings: &[RingPlan],
    control_offset: u64,
    data_offset: u64,
    page_len: u32,
) -> Vec<RingEntry> {
    let (mut control_offset, mut data_offset) = (control_offset, data_offset);
    let (mut slot, mut rx_slot) = (0, 0);
    let mut entries = Vec::with_capacity(rings.len());
    for ring in rings {
        if ring.lane == 0 {
            rx_slot = slot;
        }
        let slots = (rx_slot, slot + ring.consumers());
        let entry = entry(ring, control_offset, data_offset, slots);
        control_offset += u64::from(CONTROL_LEN);
        data_offset = (data_offset + ring.capacity).next_multiple_of(page_len.into());
        slot = entry.tx_slots().end;
        entries.push(entry);
    }
    entries
}

fn entry(
    ring: &RingPlan,
    control_offset: u64,
    data_offset: u64,
    (rx_slot, tx_slot_first): (u16, u16),
) -> RingEntry {
    let mut entry: RingEntry = bytemuck::Zeroable::zeroed();
    entry.kind = ring.kind as u32;
    entry.control_offset = control_offset;
    entry.data_offset = data_offset;
    entry.capacity = ring.capacity;
    entry.max_message = ring.max_message;
    entry.align_shift = ring.align_shift;
    entry.max_handles = ring.max_handles;
    entry.peer_ring = NO_RING;
    entry.rx_slot = rx_slot;
    entry.tx_slot_first = tx_slot_first;
    entry.tx_slot_count = ring.producers;
    entry.group = if ring.kind == RingKind::Lane { 0 } else { NO_GROUP };
    entry.lane_index = ring.lane;
    entry
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
