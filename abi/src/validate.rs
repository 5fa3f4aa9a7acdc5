//! Whether a private copy of a region's first bytes is a region that this version can use.
//!
//! Everything here works on copies, reads each of them once and is total: loops are bounded by the
//! limits of the layout and all arithmetic on stored numbers is checked.

use core::ops::Range;

use bytemuck::pod_read_unaligned;

use crate::control::RingControl;
use crate::crc::crc32c;
use crate::directory::{NO_GROUP, NO_RING, RingEntry, RingKind};
use crate::error::{LayoutError, Section};
use crate::header::{Header, caps};
use crate::limits::*;

/// Reads the header from `bytes`, the first [`HEADER_LEN`] bytes of the file or fewer, and checks
/// what must be known before the directory can be read: magic, byte order, version, and the directory's
/// offset.
///
/// # Errors
/// [`LayoutError::BadMagic`], [`LayoutError::Truncated`], [`LayoutError::ForeignEndian`],
/// [`LayoutError::UnsupportedMajor`], or [`LayoutError::Field`], checked in this order.
pub fn parse_header(bytes: &[u8]) -> Result<Header, LayoutError> {
    if !bytes.starts_with(&MAGIC) {
        let mut found = [0; 8];
        let len = bytes.len().min(8);
        found[..len].copy_from_slice(&bytes[..len]);
        return Err(LayoutError::BadMagic { found });
    }
    let Some(bytes) = bytes.get(..HEADER_LEN) else {
        let (found_len, wanted_len) = (bytes.len() as u64, u64::from(HEADER_LEN_MIN));
        return Err(LayoutError::Truncated { found_len, wanted_len });
    };
    let header: Header = pod_read_unaligned(bytes);
    if header.endian != ENDIAN_TAG {
        return Err(LayoutError::ForeignEndian { found: header.endian });
    }
    if header.major != MAJOR {
        return Err(LayoutError::UnsupportedMajor { found: header.major, supported: MAJOR });
    }
    check_location(&header)?;
    Ok(header)
}

/// Checks whether this version may write to the region of `header`, which parsed. Readers need not
/// call it.
///
/// # Errors
/// [`LayoutError::UnknownCapability`].
pub fn check_writable(header: &Header) -> Result<(), LayoutError> {
    match header.caps_read_only & !caps::READ_ONLY_KNOWN {
        0 => Ok(()),
        unknown => Err(LayoutError::UnknownCapability { unknown }),
    }
}

/// Checks the directory's offset, and that its length is bounded.
fn check_location(header: &Header) -> Result<(), LayoutError> {
    let check = Check { ring: None };
    check.range("ring_count", header.ring_count, 1..=RING_COUNT_MAX)?;
    check.range("entry_len", header.entry_len, ENTRY_LEN..=PAGE_LEN_MIN)?;
    check.multiple("entry_len", header.entry_len, 8)?;
    check.multiple("directory_offset", header.directory_offset, 8)?;
    check.range("total_len", header.total_len, HEADER_PAGE_LEN..=TOTAL_LEN_MAX)?;
    header.directory_span().inside(header.total_len)
}

/// Checks the rest: checksum, capabilities, sizes, every directory entry, and that all sections
/// lie inside the region, aligned and apart. `directory` holds `ring_count * entry_len` bytes,
/// `file_len` is the file's length and `page_len` the reader's page size, both in bytes.
///
/// # Errors
/// The first thing found wrong; [`LayoutError::Checksum`] before anything that it covers.
pub fn check_directory(
    header: &Header,
    directory: &[u8],
    file_len: u64,
    page_len: u32,
) -> Result<(), LayoutError> {
    check_location(header)?;
    let span = header.directory_span();
    let Some(directory) = directory.get(..span.len as usize) else {
        let (found_len, wanted_len) = (file_len, span.offset + span.len);
        return Err(LayoutError::Truncated { found_len, wanted_len });
    };
    let computed = header_crc(header, directory);
    if computed != header.crc {
        return Err(LayoutError::Checksum { found: header.crc, computed });
    }
    let unknown = header.caps_required & !caps::REQUIRED_KNOWN;
    if unknown != 0 {
        return Err(LayoutError::UnknownCapability { unknown });
    }
    if header.total_len > file_len {
        return Err(LayoutError::TooSmall { found_len: file_len, claimed_len: header.total_len });
    }
    check_header_fields(header, page_len)?;
    for (ring, entry) in parse_entries(header, directory).enumerate() {
        check_entry(header, ring as u32, &entry)?;
    }
    check_sections_apart(header, directory)?;
    check_slots_apart(header, directory)
}

/// The entries in `directory`, at most `ring_count`.
pub fn parse_entries<'a>(
    header: &Header,
    directory: &'a [u8],
) -> impl Iterator<Item = RingEntry> + Clone + 'a {
    let stride = (header.entry_len as usize).max(size_of::<RingEntry>());
    let count = header.ring_count.min(RING_COUNT_MAX) as usize;
    directory.chunks_exact(stride).take(count).map(|chunk| {
        let entry: &[u8] = &chunk[..size_of::<RingEntry>()];
        pod_read_unaligned(entry)
    })
}

/// The checksum that `header` with `directory` should carry.
#[must_use]
pub fn header_crc(header: &Header, directory: &[u8]) -> u32 {
    let bytes = bytemuck::bytes_of(header);
    crc32c(&[&bytes[..0x14], &bytes[0x18..0x1FC], directory])
}

fn check_header_fields(header: &Header, page_len: u32) -> Result<(), LayoutError> {
    let check = Check { ring: None };
    check.range("header_len", header.header_len, HEADER_LEN_MIN..=1 << 20)?;
    check.multiple("header_len", header.header_len, 8)?;
    check.equal("isolation_len", header.isolation_len, ISOLATION_LEN)?;
    check.range("page_len", header.page_len, PAGE_LEN_MIN..=1 << 30)?;
    if !header.page_len.is_power_of_two() {
        return check.fail("page_len", header.page_len, "a power of two from", PAGE_LEN_MIN);
    }
    check.multiple("page_len", header.page_len, page_len.max(1))?;
    check.range("slot_count", header.slot_count, 1..=SLOT_COUNT_MAX)?;
    check.range("control_len", header.control_len, CONTROL_LEN..=1 << 20)?;
    check.range("slot_len", header.slot_len, SLOT_LEN..=1 << 20)?;
    check.multiple("slot_len", header.slot_len, ISOLATION_LEN)?;
    check.multiple("slot_offset", header.slot_offset, ISOLATION_LEN)?;
    check.equal("lock_base", header.lock_base, LOCK_BASE)
}

fn check_entry(header: &Header, ring: u32, entry: &RingEntry) -> Result<(), LayoutError> {
    let check = Check { ring: Some(ring) };
    let Some(kind) = entry.ring_kind().filter(|kind| *kind != RingKind::Broadcast) else {
        return check.fail("kind", entry.kind, "SPSC, MPSC, LANE or MEMORY, at most", 5u32);
    };
    check.multiple("data_offset", entry.data_offset, header.data_align())?;
    check.range("capacity", entry.capacity, CAPACITY_MIN..=CAPACITY_MAX)?;
    if kind == RingKind::Memory {
        return check.multiple("capacity", entry.capacity, header.page_len);
    }
    if !entry.capacity.is_power_of_two() {
        return check.fail("capacity", entry.capacity, "a power of two from", CAPACITY_MIN);
    }
    check.multiple("control_offset", entry.control_offset, ISOLATION_LEN)?;
    check_record_rules(&check, header, entry)?;
    check_entry_slots(&check, header, entry, kind)?;
    if entry.peer_ring != NO_RING {
        check.range("peer_ring", entry.peer_ring, 0..=header.ring_count - 1)?;
    }
    if kind == RingKind::Lane {
        if header.caps_required & caps::LANES == 0 {
            return check.fail("kind", entry.kind, "the LANES capability, bit", 4u32);
        }
        check.range("lane_index", entry.lane_index, 0..=LANE_COUNT_MAX - 1)?;
        return check.range("group", entry.group, 0..=NO_GROUP - 1);
    }
    check.equal("group", entry.group, NO_GROUP)
}

fn check_record_rules(
    check: &Check,
    header: &Header,
    entry: &RingEntry,
) -> Result<(), LayoutError> {
    check.range("max_message", entry.max_message, 0..=MESSAGE_LEN_MAX)?;
    check.range("align_shift", entry.align_shift, ALIGN_SHIFT_MIN..=ALIGN_SHIFT_MAX)?;
    check.range("max_handles", entry.max_handles, 0..=HANDLE_COUNT_MAX)?;
    if entry.max_handles > 0 && header.caps_required & caps::HANDLES == 0 {
        let wanted = "without the HANDLES capability";
        return check.fail("max_handles", entry.max_handles, wanted, 0u32);
    }
    let longest = (16 + u64::from(entry.max_message)).next_multiple_of(1 << entry.align_shift);
    if longest > entry.capacity / 4 {
        let room = entry.capacity / 4;
        return check.fail("max_message", entry.max_message, "16 more to fit in", room);
    }
    Ok(())
}

fn check_entry_slots(
    check: &Check,
    header: &Header,
    entry: &RingEntry,
    kind: RingKind,
) -> Result<(), LayoutError> {
    let last = header.slot_count - 1;
    check.range("rx_slot", u32::from(entry.rx_slot), 0..=last)?;
    check.range("tx_slot_first", u32::from(entry.tx_slot_first), 0..=last)?;
    let room = header.slot_count - u32::from(entry.tx_slot_first);
    check.range("tx_slot_count", u32::from(entry.tx_slot_count), 1..=room)?;
    if kind != RingKind::Mpsc {
        check.equal("tx_slot_count", entry.tx_slot_count, 1)?;
    }
    if entry.tx_slots().contains(&entry.rx_slot) {
        let wanted = "none of the producer slots from";
        return check.fail("rx_slot", entry.rx_slot, wanted, entry.tx_slot_first);
    }
    Ok(())
}

/// A section and its offsets.
#[derive(Clone, Copy)]
struct Span {
    section: Section,
    offset: u64,
    len: u64,
}

impl Span {
    fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.len)
    }

    fn inside(&self, total_len: u64) -> Result<(), LayoutError> {
        if self.end().is_some_and(|end| end <= total_len) {
            return Ok(());
        }
        let Self { section, offset, len } = *self;
        Err(LayoutError::OutOfBounds { section, offset, len, total_len })
    }

    fn apart_from(&self, other: &Self) -> Result<(), LayoutError> {
        let first = self.offset.max(other.offset);
        let end = self.end().unwrap_or(u64::MAX).min(other.end().unwrap_or(u64::MAX));
        if first >= end {
            return Ok(());
        }
        Err(LayoutError::Overlap { first: self.section, second: other.section, offset: first })
    }
}

impl Header {
    fn data_align(&self) -> u32 {
        let huge = self.caps_required & caps::HUGE != 0;
        if huge { self.page_len.max(HUGE_PAGE_LEN) } else { self.page_len }
    }

    fn directory_span(&self) -> Span {
        let len = u64::from(self.ring_count) * u64::from(self.entry_len);
        Span { section: Section::Directory, offset: self.directory_offset, len }
    }

    fn fixed_spans(&self) -> [Span; 3] {
        let header = Span { section: Section::Header, offset: 0, len: self.header_len.into() };
        let slots_len = u64::from(self.slot_count) * u64::from(self.slot_len);
        let slots = Span { section: Section::Slots, offset: self.slot_offset, len: slots_len };
        [header, slots, self.directory_span()]
    }
}

fn entry_spans(header: &Header, ring: u32, entry: &RingEntry) -> [Span; 2] {
    let len = match entry.ring_kind() {
        Some(RingKind::Memory) => 0,
        _ => u64::from(header.control_len).max(size_of::<RingControl>() as u64),
    };
    let offset = if len == 0 { 0 } else { entry.control_offset };
    let control = Span { section: Section::Control(ring), offset, len };
    let data =
        Span { section: Section::Data(ring), offset: entry.data_offset, len: entry.capacity };
    [control, data]
}

/// Compares each section with all before it: at most 2,051 sections, two million comparisons.
fn check_sections_apart(header: &Header, directory: &[u8]) -> Result<(), LayoutError> {
    let spans = || {
        let rings = (0u32..).zip(parse_entries(header, directory));
        let of_rings = rings.flat_map(|(ring, entry)| entry_spans(header, ring, &entry));
        header.fixed_spans().into_iter().chain(of_rings)
    };
    for (index, span) in spans().enumerate() {
        span.inside(header.total_len)?;
        spans().take(index).try_for_each(|before| before.apart_from(&span))?;
    }
    Ok(())
}

fn check_slots_apart(header: &Header, directory: &[u8]) -> Result<(), LayoutError> {
    let rings = || {
        (0u32..)
            .zip(parse_entries(header, directory))
            .filter(|(_, entry)| entry.ring_kind() != Some(RingKind::Memory))
    };
    for second in rings() {
        for first in rings().take_while(|(ring, _)| *ring < second.0) {
            check_pair(first, second)?;
        }
    }
    Ok(())
}

/// No two endpoints share a slot, but for lanes of one group: they have one consumer, and each its
/// own bit of the summary.
fn check_pair(
    (first_ring, a): (u32, RingEntry),
    (second_ring, b): (u32, RingEntry),
) -> Result<(), LayoutError> {
    let one_group = a.group != NO_GROUP && a.group == b.group;
    if one_group {
        let check = Check { ring: Some(second_ring) };
        check.equal("rx_slot", b.rx_slot, a.rx_slot)?;
        if a.lane_index == b.lane_index {
            return check.fail("lane_index", b.lane_index, "another than ring", first_ring);
        }
    }
    let shared = first_shared(&a.tx_slots(), &b.tx_slots())
        .or_else(|| a.tx_slots().contains(&b.rx_slot).then_some(b.rx_slot))
        .or_else(|| b.tx_slots().contains(&a.rx_slot).then_some(a.rx_slot))
        .or_else(|| (a.rx_slot == b.rx_slot && !one_group).then_some(a.rx_slot));
    match shared {
        Some(slot) => Err(LayoutError::SharedSlot { slot, first_ring, second_ring }),
        None => Ok(()),
    }
}

fn first_shared(a: &Range<u16>, b: &Range<u16>) -> Option<u16> {
    let first = a.start.max(b.start);
    (first < a.end.min(b.end)).then_some(first)
}

/// Checks of single fields, with the ring that they belong to.
struct Check {
    ring: Option<u32>,
}

impl Check {
    fn fail(
        &self,
        field: &'static str,
        found: impl Into<u64>,
        wanted: &'static str,
        limit: impl Into<u64>,
    ) -> Result<(), LayoutError> {
        let (found, limit) = (found.into(), limit.into());
        Err(LayoutError::Field { field, ring: self.ring, found, wanted, limit })
    }

    fn range<T: Into<u64> + PartialOrd + Copy>(
        &self,
        field: &'static str,
        found: T,
        legal: core::ops::RangeInclusive<T>,
    ) -> Result<(), LayoutError> {
        if found < *legal.start() {
            return self.fail(field, found, "at least", *legal.start());
        }
        if found > *legal.end() {
            return self.fail(field, found, "at most", *legal.end());
        }
        Ok(())
    }

    fn equal<T: Into<u64> + PartialEq + Copy>(
        &self,
        field: &'static str,
        found: T,
        wanted: T,
    ) -> Result<(), LayoutError> {
        if found == wanted { Ok(()) } else { self.fail(field, found, "exactly", wanted) }
    }

    fn multiple(
        &self,
        field: &'static str,
        found: impl Into<u64>,
        of: u32,
    ) -> Result<(), LayoutError> {
        let found = found.into();
        if found % u64::from(of) == 0 {
            return Ok(());
        }
        self.fail(field, found, "a multiple of", of)
    }
}
