//! Any bytes at all give a value or a typed error: no panic, no overflow, no endless loop.

mod common;

use std::collections::BTreeMap;

use bytemuck::{bytes_of_mut, cast_slice_mut, pod_read_unaligned};
use common::{Image, Numbers, class, default_region, lanes, with_memory};
use proptest::prelude::*;
use tombolo_abi::*;

const SEED: u64 = 0x746f_6d62_6f6c_6f31;
const RUNS: usize = 200_000;

type Counts = BTreeMap<String, usize>;

/// Prints how often each class was met, and fails where one never was.
fn report(title: &str, counts: &Counts, classes: &[&str]) {
    println!("{title}: {counts:?}");
    for class in classes {
        assert!(counts.contains_key(*class), "{class} was never exercised");
    }
}

#[test]
fn any_header_and_directory_is_judged() {
    let mut numbers = Numbers(SEED);
    let mut counts = Counts::new();
    for _ in 0..RUNS {
        let image = any_image(&mut numbers);
        let file_len = match numbers.below(4) {
            0 => numbers.edge(),
            _ => image.header.total_len,
        };
        let page_len = [4096, 4096, 4096, 16384, 0, 3][numbers.below(6) as usize];
        let kept = numbers.below(20) == 0;
        let outcome = match judge_bytes(&image, file_len, page_len, kept) {
            Ok(()) => "accepted".to_owned(),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                class(&error)
            }
        };
        *counts.entry(outcome).or_default() += 1;
    }
    let classes = [
        "accepted",
        "BadMagic",
        "Truncated",
        "ForeignEndian",
        "UnsupportedMajor",
        "UnknownCapability",
        "Checksum",
        "TooSmall",
        "Field",
        "OutOfBounds",
        "Overlap",
        "SharedSlot",
    ];
    report("headers and directories", &counts, &classes);
}

/// As a joiner does it, from bytes; `cut` leaves out the directory's last byte.
fn judge_bytes(image: &Image, file_len: u64, page_len: u32, cut: bool) -> Result<(), LayoutError> {
    let bytes = bytemuck::bytes_of(&image.header);
    let header = parse_header(bytes)?;
    let mut directory = image.directory();
    if cut {
        directory.pop();
    }
    check_directory(&header, &directory, file_len, page_len)?;
    assert_sound(&header, &directory, file_len);
    Ok(())
}

/// What a mapping relies on once a region was accepted, worked out in another way: in 128 bits.
fn assert_sound(header: &Header, directory: &[u8], file_len: u64) {
    assert!(header.total_len <= file_len);
    let total_len = u128::from(header.total_len);
    let inside = |offset: u64, len: u128| assert!(u128::from(offset) + len <= total_len);
    inside(header.slot_offset, u128::from(header.slot_count) * u128::from(header.slot_len));
    for entry in parse_entries(header, directory) {
        inside(entry.data_offset, entry.capacity.into());
        let kind = entry.ring_kind().expect("only known kinds are accepted");
        if kind == RingKind::Memory {
            continue;
        }
        inside(entry.control_offset, header.control_len.into());
        assert!(entry.capacity.is_power_of_two() && entry.control_offset % 128 == 0);
        assert!(u32::from(entry.rx_slot) < header.slot_count);
        assert!(u32::from(entry.tx_slots().end) <= header.slot_count);
        assert!(!entry.tx_slots().is_empty());
    }
}

/// Garbage, garbage behind a sound start, or a sound image with a few fields changed; half of them
/// with a valid checksum.
fn any_image(numbers: &mut Numbers) -> Image {
    let sound = [default_region, lanes, with_memory][numbers.below(3) as usize];
    let mut image = sound();
    match numbers.below(16) {
        0 => {
            image.header = pod_read_unaligned(&numbers.bytes(HEADER_LEN));
        }
        1 => {
            image.header = pod_read_unaligned(&numbers.bytes(HEADER_LEN));
            (image.header.magic, image.header.endian) = (MAGIC, ENDIAN_TAG);
            (image.header.major, image.header.ring_count) = (MAJOR, 1 + numbers.below(8) as u32);
        }
        2 => {
            let garbage = numbers.bytes(size_of::<RingEntry>());
            image.entries[0] = pod_read_unaligned(&garbage);
        }
        3 => mutate(numbers, &Header::TABLE, bytes_of_mut(&mut image.header)),
        4 => {} // sound as it is
        _ => {
            for _ in 0..=numbers.below(3) {
                let entry = numbers.below(image.entries.len() as u64) as usize;
                match numbers.below(4) {
                    0 => mutate(numbers, &Header::TABLE, bytes_of_mut(&mut image.header)),
                    _ => mutate(numbers, &RingEntry::TABLE, entry_bytes(&mut image, entry)),
                }
            }
        }
    }
    let seal = numbers.below(8) > 0 && parse_header(bytemuck::bytes_of(&image.header)).is_ok();
    if seal { image.sealed() } else { image }
}

fn entry_bytes(image: &mut Image, entry: usize) -> &mut [u8] {
    cast_slice_mut(&mut image.entries[entry..=entry])
}

/// Gives one field of `table` in `bytes` another value.
fn mutate(numbers: &mut Numbers, table: &Table, bytes: &mut [u8]) {
    let field = table.fields[numbers.below(table.fields.len() as u64) as usize];
    let value = numbers.edge().to_le_bytes();
    let len = field.len.min(8);
    bytes[field.offset..field.offset + len].copy_from_slice(&value[..len]);
}

#[test]
fn any_record_is_judged() {
    let mut numbers = Numbers(SEED + 1);
    let mut counts = Counts::new();
    for _ in 0..RUNS {
        let sane = numbers.below(4) > 0;
        let rules = if sane { sane_rules(&mut numbers) } else { any_rules(&mut numbers) };
        let mut position = numbers.edge().wrapping_sub(8 * numbers.below(64));
        if sane {
            position &= rules.align.wrapping_neg();
        }
        let word = any_word(&mut numbers, &rules, position);
        let outcome = match rules.decode(word, position) {
            Ok(None) => "not committed".to_owned(),
            Ok(Some(record)) => {
                assert_eq!(rules.encode(&record, position), word);
                let to_end = rules.capacity.wrapping_sub(position & rules.capacity.wrapping_sub(1));
                assert!(!sane || rules.record_len(&record) <= to_end);
                "accepted".to_owned()
            }
            Err(error) => {
                assert!(!error.to_string().is_empty() && error.code() > 0);
                class(&error)
            }
        };
        *counts.entry(outcome).or_default() += 1;
    }
    let classes =
        ["accepted", "not committed", "Kind", "Tag", "Len", "Handles", "MissingExt", "Padding"];
    report("records", &counts, &classes);
}

/// Rules that a validated entry can give.
fn sane_rules(numbers: &mut Numbers) -> RecordRules {
    let capacity = 1 << (12 + numbers.below(29));
    let align = 8 << numbers.below(6);
    let max_message = numbers.below((capacity / 4 - 512).min(u64::from(MESSAGE_LEN_MAX))) as u32;
    let max_handles = numbers.below(65) as u16;
    RecordRules { capacity, align, max_message, max_handles, key: numbers.next() }
}

/// Rules from the entry of a damaged region.
fn any_rules(numbers: &mut Numbers) -> RecordRules {
    RecordRules {
        capacity: numbers.edge() & u64::MAX << numbers.below(64),
        align: numbers.edge(),
        max_message: numbers.edge() as u32,
        max_handles: numbers.edge() as u16,
        key: numbers.edge(),
    }
}

/// Zero, garbage, an honest word, or one with a bit or two flipped.
fn any_word(numbers: &mut Numbers, rules: &RecordRules, position: u64) -> u64 {
    let to_end = rules.capacity.wrapping_sub(position & rules.capacity.wrapping_sub(1));
    let record = match numbers.below(3) {
        0 => Record::pad(to_end & 0x0fff_ffff),
        _ => Record {
            kind: [RecordKind::Data, RecordKind::Call, RecordKind::Unknown(12)]
                [numbers.below(3) as usize],
            payload_len: numbers.below(u64::from(rules.max_message).max(1)) as u32,
            handle_count: numbers.below(80) as u8,
            ext: numbers.below(4) > 0,
            flags: numbers.next() as u8,
        },
    };
    let honest = rules.encode(&record, position);
    match numbers.below(10) {
        0 => 0,
        1 => numbers.next(),
        2..=5 => honest ^ (1 << numbers.below(64)) ^ (numbers.below(2) << numbers.below(64)),
        _ => honest,
    }
}

#[test]
fn any_word_is_a_state_a_holder_or_nothing() {
    let mut numbers = Numbers(SEED + 2);
    for _ in 0..RUNS {
        let word = numbers.edge();
        if let Some(holder) = LockWord::from_word(word) {
            assert_eq!(holder.to_word(), word);
        }
        let word = word as u32;
        assert!(RegionState::from_word(word).is_none_or(|state| state as u32 == word));
        assert!(RingState::from_word(word).is_none_or(|state| state as u32 == word));
        assert!(SlotState::from_word(word).is_none_or(|state| state as u32 == word));
        assert!(Role::from_word(word).is_none_or(|role| role as u32 == word));
        assert!((1..=0x7fff_ffff).contains(&next_incarnation(word)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_that_proptest_thinks_of_are_judged(
        mut head in proptest::collection::vec(any::<u8>(), 0..1024),
        directory in proptest::collection::vec(any::<u8>(), 0..1024),
        start_is_sound in any::<bool>(),
        (file_len, page_len) in any::<(u64, u32)>(),
    ) {
        if start_is_sound && head.len() >= 16 {
            head[..16].copy_from_slice(&bytemuck::bytes_of(&default_region().header)[..16]);
        }
        if let Ok(header) = parse_header(&head) {
            let _ = check_directory(&header, &directory, file_len, page_len);
            let _ = check_writable(&header);
        }
    }

    #[test]
    fn headers_that_were_never_parsed_are_judged(
        bytes in any::<[u8; 32]>().prop_map(|part| part.repeat(16)),
        directory in proptest::collection::vec(any::<u8>(), 0..512),
        (file_len, page_len) in any::<(u64, u32)>(),
    ) {
        let mut header: Header = pod_read_unaligned(&bytes);
        prop_assert!(parse_entries(&header, &directory).count() <= RING_COUNT_MAX as usize);
        header.crc = header_crc(&header, &directory);
        let _ = check_directory(&header, &directory, file_len, page_len);
    }

    #[test]
    fn what_is_encoded_is_decoded(
        payload_len in 0..=1000u32,
        (handle_count, flags, position) in (0..=64u8, any::<u8>(), any::<u64>()),
        key in any::<u64>(),
    ) {
        let rules =
            RecordRules { capacity: 1 << 20, align: 8, max_message: 1000, max_handles: 64, key };
        // far enough from the end of the area
        let position = position & !7 & !(1 << 19);
        let record = Record { kind: RecordKind::Call, payload_len, handle_count, ext: true, flags };
        let word = rules.encode(&record, position);
        prop_assert_ne!(word, 0);
        prop_assert_eq!(rules.decode(word, position), Ok(Some(record)));
    }
}
