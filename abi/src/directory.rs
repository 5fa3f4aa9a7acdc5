//! An entry of the ring directory.

use crate::table::stored;

/// `peer_ring` of a ring without one.
pub const NO_RING: u32 = 0xffff_ffff;
/// `group` of a ring that is no lane.
pub const NO_GROUP: u16 = 0xffff;

stored! {
    "A directory entry: what a ring is and where it lies. Immutable, under the header's checksum."
    pub struct RingEntry [64] {
        0 pub kind: u32, "1 SPSC, 2 MPSC, 3 BROADCAST (reserved), 4 LANE, 5 MEMORY";
        4 pub flags: u32, "zero in v1";
        8 pub control_offset: u64, "where the control block lies, a multiple of 128; 0 for MEMORY";
        16 pub data_offset: u64, "where the data area lies, a multiple of the page size, with the HUGE capability of 2 MiB too";
        24 pub capacity: u64, "bytes of the data area: a power of two from 4096 to 2^40; MEMORY: any multiple of the page size";
        32 pub max_message: u32, "longest payload in bytes; at most 2^28 - 8, and round_up(16 + max_message) at most a quarter of the capacity; 0 for MEMORY";
        36 pub align_shift: u8, "records start at multiples of 1 << align_shift, 3 to 12; 0 for MEMORY";
        37 reserved_37: u8, "zero";
        38 pub max_handles: u16, "most handles of a message, at most 64; above 0 needs the HANDLES capability";
        40 pub peer_ring: u32, "ring that carries the replies, or 0xffffffff";
        44 pub rx_slot: u16, "the consumer's slot; lanes of a group share it";
        46 pub tx_slot_first: u16, "first producer slot";
        48 pub tx_slot_count: u16, "producer slots: 1 for SPSC and LANE";
        50 pub group: u16, "LANE: group number; else 0xffff";
        52 pub lane_index: u16, "LANE: bit of this lane in the group's summary, below 512, its own in the group; else 0";
        54 reserved_54: [u8; 10], "zero";
    }
}

/// Values of `RingEntry::kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RingKind {
    /// One producer, one consumer.
    Spsc = 1,
    /// Many producers in total order, one consumer.
    Mpsc = 2,
    /// Reserved: one producer, many readers.
    Broadcast = 3,
    /// One producer's own ring under a consumer shared with other lanes.
    Lane = 4,
    /// Plain memory, no ring at all.
    Memory = 5,
}

impl RingKind {
    /// The kind stored as `word`.
    #[must_use]
    pub fn from_word(word: u32) -> Option<Self> {
        [Self::Spsc, Self::Mpsc, Self::Broadcast, Self::Lane, Self::Memory]
            .into_iter()
            .find(|kind| *kind as u32 == word)
    }

    /// The kind's name in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Spsc => "spsc",
            Self::Mpsc => "mpsc",
            Self::Broadcast => "broadcast",
            Self::Lane => "lane",
            Self::Memory => "memory",
        }
    }
}

impl RingEntry {
    /// The entry's kind, if v1 knows it.
    #[must_use]
    pub fn ring_kind(&self) -> Option<RingKind> {
        RingKind::from_word(self.kind)
    }

    /// Whether this is a lane that follows the first of its group.
    #[must_use]
    pub fn is_later_lane(&self) -> bool {
        self.ring_kind() == Some(RingKind::Lane) && self.lane_index > 0
    }

    /// Whether this is one ring of the two of a channel, of which the other one is ring `other`.
    #[must_use]
    pub fn is_half_of_channel(&self, other: u32) -> bool {
        self.ring_kind() == Some(RingKind::Spsc) && self.peer_ring == other
    }

    /// The producer slots.
    #[must_use]
    pub fn tx_slots(&self) -> core::ops::Range<u16> {
        self.tx_slot_first..self.tx_slot_first.saturating_add(self.tx_slot_count)
    }
}
