//! A region's first bytes, built by hand: what a creator writes, field by field.
#![allow(dead_code, reason = "each test file uses its part")]

use bytemuck::{Zeroable, bytes_of};
use tombolo_abi::*;

/// The layout of a region, before it is bytes.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) header: Header,
    pub(crate) entries: Vec<RingEntry>,
}

/// What a region made with default options looks like: ring 0 SPSC, ring 1 MPSC with 64 producers,
/// 1 MiB each.
pub(crate) fn default_region() -> Image {
    let mut header = Header::zeroed();
    header.magic = MAGIC;
    header.endian = ENDIAN_TAG;
    header.major = MAJOR;
    header.minor = MINOR;
    header.header_len = HEADER_PAGE_LEN as u32;
    header.state = RegionState::Ready as u32;
    header.total_len = 0x20_6000;
    header.region_uuid = *b"0123456789abcdef";
    header.boot_id = *b"fedcba9876543210";
    header.generation = 1;
    header.creator_pid = 4242;
    header.creator_start_ticks = 0x1122_3344;
    header.pid_namespace = 0xeffc_fffc;
    header.created_unix_ns = 0x18a0_0000_0000_0000;
    header.isolation_len = ISOLATION_LEN;
    header.page_len = PAGE_LEN_MIN;
    header.ring_count = 2;
    header.slot_count = 67;
    header.directory_offset = 0x5300;
    header.entry_len = ENTRY_LEN;
    header.control_len = CONTROL_LEN;
    header.slot_offset = 0x1000;
    header.slot_len = SLOT_LEN;
    header.lock_base = LOCK_BASE;
    header.key = 0x0123_4567_89ab_cdef;
    header.name[..4].copy_from_slice(b"demo");
    header.file_inode = 0x0000_0042_0000_0017;
    let spsc = ring(RingKind::Spsc, 0x5380, 0x6000, (0, 1, 1));
    let mpsc = ring(RingKind::Mpsc, 0x5780, 0x10_6000, (2, 3, 64));
    Image { header, entries: vec![spsc, mpsc] }
}

/// An entry of 1 MiB for messages of 64 KiB; `slots` are consumer, first producer, producers.
pub(crate) fn ring(kind: RingKind, control: u64, data: u64, slots: (u16, u16, u16)) -> RingEntry {
    let mut entry = RingEntry::zeroed();
    entry.kind = kind as u32;
    entry.control_offset = control;
    entry.data_offset = data;
    entry.capacity = 1 << 20;
    entry.max_message = 1 << 16;
    entry.align_shift = if kind == RingKind::Mpsc { 6 } else { 3 };
    entry.peer_ring = NO_RING;
    entry.rx_slot = slots.0;
    entry.tx_slot_first = slots.1;
    entry.tx_slot_count = slots.2;
    entry.group = NO_GROUP;
    entry
}

/// A region of two lanes of group 7, whose consumer has slot 0.
pub(crate) fn lanes() -> Image {
    let mut image = default_region();
    image.header.caps_required = caps::LANES;
    for (index, entry) in image.entries.iter_mut().enumerate() {
        let (control, data) = (entry.control_offset, entry.data_offset);
        *entry = ring(RingKind::Lane, control, data, (0, 1 + index as u16, 1));
        entry.group = 7;
        entry.lane_index = index as u16;
    }
    image
}

/// A region whose second ring is plain memory of three pages.
pub(crate) fn with_memory() -> Image {
    let mut image = default_region();
    let mut memory = RingEntry::zeroed();
    memory.kind = RingKind::Memory as u32;
    memory.data_offset = image.entries[1].data_offset;
    memory.capacity = 3 * 4096;
    image.entries[1] = memory;
    image
}

impl Image {
    /// The directory's bytes, as many as the header claims (up to a limit), entries first.
    pub(crate) fn directory(&self) -> Vec<u8> {
        let stride = (self.header.entry_len as usize).clamp(64, 4096);
        let count = self.header.ring_count.min(RING_COUNT_MAX) as usize;
        let mut bytes = vec![0; stride * count];
        for (chunk, entry) in bytes.chunks_mut(stride).zip(&self.entries) {
            chunk[..64].copy_from_slice(bytes_of(entry));
        }
        bytes
    }

    /// The same image with the checksum that its bytes give.
    pub(crate) fn sealed(mut self) -> Self {
        self.header.crc = header_crc(&self.header, &self.directory());
        self
    }

    /// What a joiner says, on a machine with pages of 4096 bytes and a file as long as claimed.
    pub(crate) fn judge(&self) -> Result<(), LayoutError> {
        self.judge_in(self.header.total_len, 4096)
    }

    /// What a joiner says.
    pub(crate) fn judge_in(&self, file_len: u64, page_len: u32) -> Result<(), LayoutError> {
        let header = parse_header(bytes_of(&self.header))?;
        check_directory(&header, &self.directory(), file_len, page_len)
    }
}

/// The name of an error's variant, for counting.
pub(crate) fn class<E: std::fmt::Debug>(error: &E) -> String {
    let text = format!("{error:?}");
    text.split([' ', '(']).next().unwrap_or_default().to_owned()
}

/// A small generator of numbers that are the same in every run (SplitMix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// A number that is often a limit, or next to one.
    pub(crate) fn edge(&mut self) -> u64 {
        let power = 1u64 << self.below(64);
        match self.below(8) {
            0 => self.next(),
            1 => self.below(100),
            2 => power.wrapping_add(self.below(17)).wrapping_sub(8),
            3 => u64::MAX - self.below(4097),
            4 => 0x1000 * self.below(0x300),
            5 => 128 * self.below(0x200),
            _ => power,
        }
    }
}
