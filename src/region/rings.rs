//! What each ring of a region is like: as it is asked for, and as it was found.

use std::ops::Range;

use tombolo_abi::{
    CAPACITY_MAX, CAPACITY_MIN, HANDLE_COUNT_MAX, LANE_COUNT_MAX, MESSAGE_LEN_MAX, NO_GROUP,
    NO_RING, RECORD_EXT_LEN, RECORD_HEADER_LEN, RingEntry, RingKind, SLOT_COUNT_MAX,
};

use crate::error::Error;

/// What a ring is to be like, for [`OpenOptions::ring`](crate::OpenOptions::ring).
///
/// The creator of a region decides. For a joiner, what it *sets* are minima, and the kind must be the ring's.
///
/// # Examples
/// ```
/// use tombolo::options::RingOptions;
/// use tombolo::{EventsRegion, OpenOptions};
/// let requests = RingOptions::mpsc().producers(8).max_message(200);
/// let files = RingOptions::spsc().capacity(4096).max_handles(4);
/// let region = EventsRegion::anonymous(OpenOptions::new().ring(requests).ring(files))?;
/// let [requests, files] = &region.rings()[..] else { panic!("two rings") };
/// assert_eq!((requests.producers, requests.max_message, requests.max_handles), (8, 200, 0));
/// assert_eq!((files.capacity, files.max_handles), (4096, 4));
/// # Ok::<(), tombolo::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct RingOptions {
    pub(super) kind: RingKind,
    pub(super) capacity: Option<u64>,
    pub(super) max_message: Option<u32>,
    pub(super) max_handles: Option<u16>,
    pub(super) producers: Option<u16>,
}

impl RingOptions {
    /// A ring with one sender and one receiver: [`SpscSender`](crate::SpscSender) and
    /// [`SpscReceiver`](crate::SpscReceiver).
    pub fn spsc() -> Self {
        Self::of(RingKind::Spsc)
    }

    /// A ring with many producers in one order for all, and one consumer:
    /// [`MpscOrder::Total`](crate::options::MpscOrder::Total).
    pub fn mpsc() -> Self {
        Self::of(RingKind::Mpsc)
    }

    /// A lane for each producer under one consumer:
    /// [`MpscOrder::PerProducer`](crate::options::MpscOrder::PerProducer). All its lanes are one ring of the
    /// list.
    pub fn lanes() -> Self {
        Self::of(RingKind::Lane)
    }

    pub(super) fn of(kind: RingKind) -> Self {
        Self { kind, capacity: None, max_message: None, max_handles: None, producers: None }
    }

    /// Bytes of the data area, or of each lane's: a power of two from 4096 to 2^40. Default 1 MiB, of lanes
    /// 256 KiB.
    pub fn capacity(self, bytes: u64) -> Self {
        Self { capacity: Some(bytes), ..self }
    }

    /// The longest message in bytes, at most 2^28 - 8. With its header it takes at most a quarter of
    /// this ring. Default 65536, or what fits.
    pub fn max_message(self, bytes: u32) -> Self {
        Self { max_message: Some(bytes), ..self }
    }

    /// The most handles of one message, at most 64, as
    /// [`OpenOptions::max_handles`](crate::OpenOptions::max_handles). Default 0: this ring's messages carry
    /// bytes only.
    pub fn max_handles(self, count: u16) -> Self {
        Self { max_handles: Some(count), ..self }
    }

    /// Processes that may send at the same time: of an MPSC ring 1 to 8189, of lanes 1 to 512, of an SPSC
    /// ring 1. Default 64, of an SPSC ring 1.
    pub fn producers(self, count: u16) -> Self {
        Self { producers: Some(count), ..self }
    }

    pub(super) fn is_of_lanes(&self) -> bool {
        self.kind == RingKind::Lane
    }

    pub(super) fn new_capacity(&self) -> u64 {
        self.capacity.unwrap_or(if self.is_of_lanes() { 1 << 18 } else { 1 << 20 })
    }

    pub(super) fn new_max_message(&self) -> u32 {
        self.max_message.unwrap_or(self.message_len_max().min(1 << 16) as u32)
    }

    pub(super) fn new_max_handles(&self) -> u16 {
        self.max_handles.unwrap_or(0)
    }

    pub(super) fn new_producers(&self) -> u16 {
        self.producers.unwrap_or(if self.kind == RingKind::Spsc { 1 } else { 64 })
    }

    /// The longest message that leaves space for three more.
    pub(super) fn message_len_max(&self) -> u64 {
        let room = self.new_capacity() / 4 / 64 * 64; // so that records could start at multiples of 64 bytes
        room.saturating_sub(RECORD_HEADER_LEN + RECORD_EXT_LEN)
    }

    /// Whether there can be such a ring. `listed` is its number if the caller has listed it.
    pub(super) fn check(&self, listed: Option<u32>) -> Result<(), Error> {
        let refuse_unless = |legal, option, found: u64, wanted| {
            let ring = listed;
            if legal { Ok(()) } else { Err(Error::InvalidOption { option, ring, found, wanted }) }
        };
        let capacity = self.new_capacity();
        let option = match (listed, self.kind) {
            (Some(_), _) => "capacity",
            (None, RingKind::Spsc) => "spsc_capacity",
            (None, _) => "mpsc_capacity",
        };
        let legal = capacity.is_power_of_two() && (CAPACITY_MIN..=CAPACITY_MAX).contains(&capacity);
        refuse_unless(legal, option, capacity, "a power of two from 4096 to 2^40")?;
        let message = self.new_max_message().into();
        let legal = message <= MESSAGE_LEN_MAX.into();
        refuse_unless(legal, "max_message", message, "at most 268435448")?;
        let wanted = "at most a quarter of the ring's capacity less 16 bytes";
        refuse_unless(message <= self.message_len_max(), "max_message", message, wanted)?;
        let (producers_max, wanted) = match self.kind {
            RingKind::Lane => (LANE_COUNT_MAX, "1 to 512 with an order per producer"),
            RingKind::Mpsc => (SLOT_COUNT_MAX as u16 - 3, "1 to 8189"),
            _ => (1, "1 on an SPSC ring"),
        };
        let producers = self.new_producers();
        let legal = (1..=producers_max).contains(&producers);
        refuse_unless(legal, "producers", producers.into(), wanted)?;
        let handles = self.new_max_handles();
        refuse_unless(handles <= HANDLE_COUNT_MAX, "max_handles", handles.into(), "at most 64")
    }

    /// The directory entries of this ring, lanes in a group of the number `group`; without offsets and slots.
    pub(super) fn entries(&self, group: u16) -> impl Iterator<Item = RingEntry> {
        let mut ring: RingEntry = bytemuck::Zeroable::zeroed();
        ring.kind = self.kind as u32;
        ring.capacity = self.new_capacity();
        ring.max_message = self.new_max_message();
        ring.max_handles = self.new_max_handles();
        ring.align_shift = 3;
        ring.peer_ring = NO_RING;
        let lane_count = match self.kind {
            RingKind::Lane => {
                (ring.tx_slot_count, ring.group) = (1, group);
                self.new_producers()
            }
            _ => {
                (ring.tx_slot_count, ring.group) = (self.new_producers(), NO_GROUP);
                1
            }
        };
        (0..lane_count).map(move |lane_index| {
            ring.lane_index = lane_index;
            ring
        })
    }
}

/// What a ring of a region is like, by [`EventsRegion::rings`](crate::EventsRegion::rings).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingDescription {
    /// Its kind. All lanes of a group are one ring here, of the kind [`RingKind::Lane`].
    pub kind: RingKind,
    /// Bytes of its data area, or of each lane's.
    pub capacity: u64,
    /// The longest message in bytes.
    pub max_message: u32,
    /// The most handles of one message; 0 if its messages carry bytes only, as those of a region that came as
    /// one descriptor do.
    pub max_handles: u16,
    /// How many processes may send at the same time; of lanes, their number. 0 for memory that is no ring.
    pub producers: u16,
    /// The numbers by which errors and [`inspect`](crate::inspect) speak of it, one for each lane. Without lanes
    /// in front of it that is its place in the list.
    pub numbers: Range<u32>,
}

impl RingDescription {
    /// The ring that begins with number `first`, which is there.
    pub(super) fn of(entries: &[RingEntry], first: u32) -> Self {
        let entry = &entries[first as usize];
        let kind = entry.ring_kind().unwrap_or(RingKind::Memory);
        let is_of_it = |other: &&RingEntry| other.kind == entry.kind && other.group == entry.group;
        let (count, producers) = match kind {
            RingKind::Lane => {
                let lane_count = entries.iter().filter(is_of_it).count();
                (lane_count as u32, lane_count as u16)
            }
            _ => (1, entry.tx_slot_count),
        };
        Self {
            kind,
            capacity: entry.capacity,
            max_message: entry.max_message,
            max_handles: entry.max_handles,
            producers,
            numbers: first..first + count,
        }
    }
}

/// The numbers of a region's rings as they were listed: of the lanes of a group, the first one's.
pub(super) fn listed(entries: &[RingEntry]) -> impl Iterator<Item = u32> {
    (0..).zip(entries).filter(|(_, entry)| !entry.is_later_lane()).map(|(ring, _)| ring)
}
