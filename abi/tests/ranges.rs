//! Each rule that a joiner applies, broken alone under a valid checksum, gives its own error; and
//! what the rules leave open is accepted.

mod common;

use common::{Image, default_region, lanes, ring, with_memory};
use tombolo_abi::*;

#[track_caller]
fn refused(image: &Image, change: impl FnOnce(&mut Image), wanted: LayoutError) {
    assert_eq!(image.clone().sealed().judge(), Ok(()), "the image must be sound before");
    let mut broken = image.clone();
    change(&mut broken);
    assert_eq!(broken.sealed().judge(), Err(wanted));
}

#[track_caller]
fn accepted(image: &Image, change: impl FnOnce(&mut Image)) {
    let mut changed = image.clone();
    change(&mut changed);
    assert_eq!(changed.sealed().judge(), Ok(()));
}

fn field(field: &'static str, found: u64, wanted: &'static str, limit: u64) -> LayoutError {
    LayoutError::Field { field, ring: None, found, wanted, limit }
}

fn of_ring(ring: u32, error: LayoutError) -> LayoutError {
    match error {
        LayoutError::Field { field, found, wanted, limit, .. } => {
            LayoutError::Field { field, ring: Some(ring), found, wanted, limit }
        }
        other => other,
    }
}

/// Refusals of a header field.
macro_rules! header_rule {
    ($name:ident, $field:ident = $value:expr, $wanted:literal, $limit:expr) => {
        #[test]
        fn $name() {
            let wanted = field(stringify!($field), u64::from($value), $wanted, $limit);
            refused(&default_region(), |image| image.header.$field = $value, wanted);
        }
    };
}

/// Refusals of a field in the entry of ring 0.
macro_rules! entry_rule {
    ($name:ident, $field:ident = $value:expr, $wanted:literal, $limit:expr) => {
        #[test]
        fn $name() {
            let wanted = of_ring(0, field(stringify!($field), $value.into(), $wanted, $limit));
            refused(&default_region(), |image| image.entries[0].$field = $value, wanted);
        }
    };
}

header_rule!(a_region_without_rings, ring_count = 0u32, "at least", 1);
header_rule!(more_than_1024_rings, ring_count = 1025u32, "at most", 1024);
header_rule!(an_entry_stride_below_64, entry_len = 56u32, "at least", 64);
header_rule!(an_entry_stride_above_4096, entry_len = 4104u32, "at most", 4096);
header_rule!(an_entry_stride_off_8, entry_len = 68u32, "a multiple of", 8);
header_rule!(a_directory_off_8, directory_offset = 0x5304u64, "a multiple of", 8);
header_rule!(a_region_shorter_than_a_page, total_len = 4095u64, "at least", 4096);
header_rule!(a_region_above_2_to_46, total_len = (1u64 << 46) + 1, "at most", 1 << 46);
header_rule!(a_header_below_0x300, header_len = 0x2f8u32, "at least", 0x300);
header_rule!(a_header_off_8, header_len = 0x304u32, "a multiple of", 8);
header_rule!(a_header_above_1_mib, header_len = (1u32 << 20) + 8, "at most", 1 << 20);
header_rule!(another_isolation, isolation_len = 64u32, "exactly", 128);
header_rule!(a_page_below_4096, page_len = 2048u32, "at least", 4096);
header_rule!(a_page_above_1_gib, page_len = 1u32 << 31, "at most", 1 << 30);
header_rule!(a_page_that_is_no_power_of_two, page_len = 12288u32, "a power of two from", 4096);
header_rule!(a_region_without_slots, slot_count = 0u32, "at least", 1);
header_rule!(more_than_8192_slots, slot_count = 8193u32, "at most", 8192);
header_rule!(a_control_block_below_1024, control_len = 1016u32, "at least", 1024);
header_rule!(a_control_block_above_1_mib, control_len = (1u32 << 20) + 8, "at most", 1 << 20);
header_rule!(a_slot_stride_below_256, slot_len = 128u32, "at least", 256);
header_rule!(a_slot_stride_above_1_mib, slot_len = (1u32 << 20) + 128, "at most", 1 << 20);
header_rule!(a_slot_stride_off_128, slot_len = 320u32, "a multiple of", 128);
header_rule!(slots_off_128, slot_offset = 0x1040u64, "a multiple of", 128);
header_rule!(other_lock_bytes, lock_base = LOCK_BASE + 1, "exactly", LOCK_BASE);

entry_rule!(kind_0, kind = 0u32, "SPSC, MPSC, LANE or MEMORY, at most", 5);
entry_rule!(the_reserved_kind_3, kind = 3u32, "SPSC, MPSC, LANE or MEMORY, at most", 5);
entry_rule!(kind_6, kind = 6u32, "SPSC, MPSC, LANE or MEMORY, at most", 5);
entry_rule!(a_lane_without_its_capability, kind = 4u32, "the LANES capability, bit", 4);
entry_rule!(data_off_its_page, data_offset = 0x6080u64, "a multiple of", 4096);
entry_rule!(a_capacity_below_4096, capacity = 2048u64, "at least", 4096);
entry_rule!(a_capacity_above_2_to_40, capacity = 1u64 << 41, "at most", 1 << 40);
entry_rule!(a_capacity_that_is_no_power, capacity = 3u64 << 18, "a power of two from", 4096);
entry_rule!(a_control_block_off_128, control_offset = 0x53c0u64, "a multiple of", 128);
entry_rule!(messages_beyond_the_limit, max_message = (1u32 << 28) - 7, "at most", (1 << 28) - 8);
entry_rule!(records_finer_than_8, align_shift = 2u8, "at least", 3);
entry_rule!(records_coarser_than_4096, align_shift = 13u8, "at most", 12);
entry_rule!(more_than_64_handles, max_handles = 65u16, "at most", 64);
entry_rule!(handles_without_cap, max_handles = 1u16, "without the HANDLES capability", 0);
entry_rule!(a_consumer_slot_beyond_the_table, rx_slot = 67u16, "at most", 66);
entry_rule!(a_producer_slot_beyond_the_table, tx_slot_first = 67u16, "at most", 66);
entry_rule!(no_producer_slot, tx_slot_count = 0u16, "at least", 1);
entry_rule!(producer_slots_past_the_table, tx_slot_count = 67u16, "at most", 66);
entry_rule!(two_producers_on_spsc, tx_slot_count = 2u16, "exactly", 1);
entry_rule!(a_consumer_among_producers, rx_slot = 1u16, "none of the producer slots from", 1);
entry_rule!(a_peer_ring_beyond_the_directory, peer_ring = 2u32, "at most", 1);
entry_rule!(a_group_of_no_lane, group = 7u16, "exactly", 0xffff);

#[test]
fn other_files_are_bad_magic() {
    let found = *b"\x7fELF\x02\x01\x01\0";
    let wanted = LayoutError::BadMagic { found };
    refused(&default_region(), |image| image.header.magic = found, wanted);
    let found = *b"\x89TM\0\0\0\0\0";
    assert_eq!(parse_header(b"\x89TM"), Err(LayoutError::BadMagic { found }));
    assert_eq!(parse_header(&[]), Err(LayoutError::BadMagic { found: [0; 8] }));
}

#[test]
fn a_file_that_ends_in_its_header_or_its_directory_is_truncated() {
    let image = default_region().sealed();
    let bytes = bytemuck::bytes_of(&image.header);
    let wanted = LayoutError::Truncated { found_len: 511, wanted_len: 0x300 };
    assert_eq!(parse_header(&bytes[..511]), Err(wanted));
    let wanted = LayoutError::Truncated { found_len: 0x537f, wanted_len: 0x5380 };
    let directory = image.directory();
    let found = check_directory(&image.header, &directory[..127], 0x537f, 4096);
    assert_eq!(found, Err(wanted));
}

#[test]
fn another_byte_order_is_told_from_garbage() {
    let found = ENDIAN_TAG.swap_bytes();
    let wanted = LayoutError::ForeignEndian { found };
    refused(&default_region(), |image| image.header.endian = found, wanted);
}

#[test]
fn another_major_version_is_refused_and_a_newer_minor_version_is_not() {
    let wanted = LayoutError::UnsupportedMajor { found: 2, supported: 1 };
    refused(&default_region(), |image| image.header.major = 2, wanted);
    accepted(&default_region(), |image| image.header.minor = 7);
}

#[test]
fn only_unknown_required_capabilities_stop_a_reader() {
    let image = default_region();
    for bit in (0..64).filter(|bit| ![0, 1, 3, 4].contains(bit)) {
        let unknown = 1 << bit;
        let wanted = LayoutError::UnknownCapability { unknown };
        refused(&image, |image| image.header.caps_required |= unknown, wanted);
    }
    let known = caps::EXT | caps::HANDLES | caps::LANES;
    accepted(&image, |image| image.header.caps_required = known);
    accepted(&image, |image| image.header.caps_compat = u64::MAX);
    accepted(&image, |image| image.header.caps_read_only = u64::MAX);
}

#[test]
fn unknown_read_only_capabilities_stop_a_writer() {
    let mut header = default_region().header;
    assert_eq!(check_writable(&header), Ok(()));
    header.caps_compat = u64::MAX;
    assert_eq!(check_writable(&header), Ok(()));
    header.caps_read_only = 1 << 5;
    let wanted = LayoutError::UnknownCapability { unknown: 1 << 5 };
    assert_eq!(check_writable(&header), Err(wanted));
}

#[test]
fn a_wrong_checksum_is_reported_before_what_it_covers() {
    let mut image = default_region().sealed();
    let found = image.header.crc;
    image.header.caps_required = 1 << 40;
    image.header.lock_base = 0;
    let computed = header_crc(&image.header, &image.directory());
    assert_eq!(image.judge(), Err(LayoutError::Checksum { found, computed }));
}

#[test]
fn the_state_word_is_not_under_the_checksum() {
    let mut image = default_region().sealed();
    image.header.state = RegionState::Retired as u32;
    assert_eq!(image.judge(), Ok(()));
}

#[test]
fn a_file_may_be_longer_than_its_region_and_not_shorter() {
    let image = default_region().sealed();
    let claimed_len = image.header.total_len;
    assert_eq!(image.judge_in(claimed_len + 1, 4096), Ok(()));
    assert_eq!(image.judge_in(u64::MAX, 4096), Ok(()));
    let found_len = claimed_len - 1;
    let wanted = LayoutError::TooSmall { found_len, claimed_len };
    assert_eq!(image.judge_in(found_len, 4096), Err(wanted));
}

#[test]
fn the_creators_pages_may_be_larger_than_the_joiners_and_not_smaller() {
    let mut image = default_region();
    let wanted = field("page_len", 4096, "a multiple of", 16384);
    assert_eq!(image.clone().sealed().judge_in(image.header.total_len, 16384), Err(wanted));
    image.header.page_len = 16384;
    image.header.total_len = 0x20_8000;
    image.entries[0].data_offset = 0x8000;
    image.entries[1].data_offset = 0x10_8000;
    let image = image.sealed();
    for page_len in [4096, 8192, 16384] {
        assert_eq!(image.judge_in(image.header.total_len, page_len), Ok(()), "{page_len}");
    }
}

#[test]
fn huge_pages_want_data_on_2_mib() {
    let mut image = default_region();
    image.header.caps_required = caps::HUGE;
    image.header.total_len = 0x50_0000;
    image.entries[0].data_offset = 0x20_0000;
    image.entries[1].data_offset = 0x40_0000;
    let wanted = of_ring(0, field("data_offset", 0x30_0000, "a multiple of", 1 << 21));
    refused(&image, |image| image.entries[0].data_offset = 0x30_0000, wanted);
}

#[test]
fn header_pages_as_short_as_0x300_and_longer_ones_are_accepted() {
    accepted(&default_region(), |image| image.header.header_len = 0x300);
    accepted(&default_region(), |image| {
        image.header.header_len = 0x300;
        image.header.slot_offset = 0x300;
    });
    accepted(&default_region(), |image| {
        image.header.header_len = 0x20_7000 - 0x20_6000 + 0x1000;
        image.header.slot_offset = 0x20_6000;
        image.header.total_len = 0x20_b000;
    });
}

#[test]
fn larger_strides_are_accepted() {
    accepted(&default_region(), |image| {
        image.header.slot_len = 384;
        image.header.slot_offset = 0x20_6000;
        image.header.entry_len = 72;
        image.header.directory_offset = 0x1000;
        image.header.control_len = 2048;
        image.entries[0].control_offset = 0x2000;
        image.entries[1].control_offset = 0x2800;
        image.header.total_len = 0x21_0000;
    });
}

#[test]
fn the_longest_message_takes_a_quarter_of_the_capacity_with_header_and_extension() {
    let room = (1 << 20) / 4;
    accepted(&default_region(), |image| image.entries[0].max_message = room - 16);
    let wanted = of_ring(0, field("max_message", 262_129, "16 more to fit in", 262_144));
    refused(&default_region(), |image| image.entries[0].max_message = room - 15, wanted);
    let wanted = of_ring(0, field("max_message", 0, "16 more to fit in", 1024));
    let coarse = |image: &mut Image| {
        image.entries[0].capacity = 4096;
        image.entries[0].align_shift = 12;
        image.entries[0].max_message = 0;
    };
    refused(&default_region(), coarse, wanted);
}

#[test]
fn handles_are_accepted_with_their_capability() {
    accepted(&default_region(), |image| {
        image.header.caps_required = caps::HANDLES | caps::EXT;
        image.entries[0].max_handles = 64;
    });
}

#[test]
fn memory_is_any_number_of_pages_and_its_other_fields_are_not_read() {
    accepted(&with_memory(), |_| {});
    accepted(&with_memory(), |image| {
        let entry = &mut image.entries[1];
        (entry.control_offset, entry.max_message, entry.align_shift) = (u64::MAX, u32::MAX, 255);
        (entry.rx_slot, entry.tx_slot_first, entry.tx_slot_count) = (0, 0, u16::MAX);
        (entry.group, entry.lane_index, entry.peer_ring) = (9, 999, 99);
    });
    let wanted = of_ring(1, field("capacity", 4104, "a multiple of", 4096));
    refused(&with_memory(), |image| image.entries[1].capacity = 4104, wanted);
}

#[test]
fn lanes_of_a_group_share_the_consumer_slot_and_nothing_else() {
    accepted(&lanes(), |_| {});
    let wanted = of_ring(1, field("rx_slot", 9, "exactly", 0));
    refused(&lanes(), |image| image.entries[1].rx_slot = 9, wanted);
    let wanted = of_ring(1, field("lane_index", 0, "another than ring", 0));
    refused(&lanes(), |image| image.entries[1].lane_index = 0, wanted);
    let wanted = LayoutError::SharedSlot { slot: 1, first_ring: 0, second_ring: 1 };
    refused(&lanes(), |image| image.entries[1].tx_slot_first = 1, wanted);
    let wanted = LayoutError::SharedSlot { slot: 0, first_ring: 0, second_ring: 1 };
    refused(&lanes(), |image| image.entries[1].group = 8, wanted);
}

#[test]
fn a_lane_has_a_group_and_one_of_512_bits() {
    accepted(&lanes(), |image| image.entries[1].lane_index = 511);
    let wanted = of_ring(1, field("lane_index", 512, "at most", 511));
    refused(&lanes(), |image| image.entries[1].lane_index = 512, wanted);
    let wanted = of_ring(1, field("group", 0xffff, "at most", 0xfffe));
    refused(&lanes(), |image| image.entries[1].group = NO_GROUP, wanted);
}

#[test]
fn two_rings_share_no_slot() {
    let cases = [
        (0, (0, 3, 64)), // consumer and consumer
        (1, (2, 1, 1)),  // producer and producer
        (1, (1, 3, 64)), // producer and consumer
        (0, (2, 0, 1)),  // consumer and producer
    ];
    for (slot, slots) in cases {
        let wanted = LayoutError::SharedSlot { slot, first_ring: 0, second_ring: 1 };
        let (control, data) = (0x5780, 0x10_6000);
        let changed = ring(RingKind::Mpsc, control, data, slots);
        refused(&default_region(), |image| image.entries[1] = changed, wanted);
    }
}

#[test]
fn sections_that_share_a_byte_are_refused() {
    let overlap = |first, second, offset| LayoutError::Overlap { first, second, offset };
    let image = default_region();
    let wanted = overlap(Section::Header, Section::Slots, 0xf80);
    refused(&image, |image| image.header.slot_offset = 0xf80, wanted);
    let wanted = overlap(Section::Slots, Section::Directory, 0x52f8);
    refused(&image, |image| image.header.directory_offset = 0x52f8, wanted);
    let wanted = overlap(Section::Header, Section::Directory, 0);
    refused(&image, |image| image.header.directory_offset = 0, wanted);
    let wanted = overlap(Section::Directory, Section::Control(0), 0x5300);
    refused(&image, |image| image.entries[0].control_offset = 0x5300, wanted);
    let wanted = overlap(Section::Control(0), Section::Control(1), 0x5700);
    refused(&image, |image| image.entries[1].control_offset = 0x5700, wanted);
    let wanted = overlap(Section::Control(0), Section::Data(0), 0x6000);
    refused(&image, |image| image.entries[0].control_offset = 0x6000, wanted);
    let wanted = overlap(Section::Data(0), Section::Data(1), 0x10_5000);
    refused(&image, |image| image.entries[1].data_offset = 0x10_5000, wanted);
    let wanted = overlap(Section::Header, Section::Data(0), 0);
    refused(&image, |image| image.entries[0].data_offset = 0, wanted);
}

#[test]
fn sections_that_leave_the_region_are_refused() {
    let total_len = default_region().header.total_len;
    let outside =
        |section, offset, len| LayoutError::OutOfBounds { section, offset, len, total_len };
    let image = default_region();
    for offset in [total_len - 64, u64::MAX - 7] {
        let wanted = outside(Section::Directory, offset, 128);
        refused(&image, |image| image.header.directory_offset = offset, wanted);
    }
    for offset in [total_len - 128, u64::MAX - 127] {
        let wanted = outside(Section::Slots, offset, 67 * 256);
        refused(&image, |image| image.header.slot_offset = offset, wanted);
        let wanted = outside(Section::Control(0), offset, 1024);
        refused(&image, |image| image.entries[0].control_offset = offset, wanted);
    }
    for offset in [total_len - 4096, u64::MAX - 4095] {
        let wanted = outside(Section::Data(1), offset, 1 << 20);
        refused(&image, |image| image.entries[1].data_offset = offset, wanted);
    }
}
