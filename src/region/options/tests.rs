//! Unit tests of the options of a region.
#![cfg(test)]

use tombolo_abi::{CAPACITY_MAX, CAPACITY_MIN, HANDLE_COUNT_MAX, MESSAGE_LEN_MAX};

use super::*;

/// The option that is refused, if any is.
fn refused(options: OpenOptions) -> Option<&'static str> {
    match options.check() {
        Ok(()) => None,
        Err(Error::InvalidOption { option, .. }) => Some(option),
        Err(error) => panic!("{error}"),
    }
}

fn new() -> OpenOptions {
    OpenOptions::new()
}

#[test]
fn a_channel_has_what_was_asked_of_it_or_all_handles_and_nothing_of_other_rings() {
    for (options, expected) in [
        (new().ring(RingOptions::spsc()), "ring"),
        (new().mpsc_capacity(4096), "mpsc_capacity"),
        (new().producers(2), "producers"),
        (new().mpsc_order(MpscOrder::Total), "mpsc_order"),
    ] {
        let refused = options.of_channel().map(drop);
        let Err(Error::InvalidOption { option, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(option, expected);
    }
    let max_handles = |options: OpenOptions| {
        let rings = options.new_rings();
        rings.iter().map(RingOptions::new_max_handles).collect::<Vec<_>>()
    };
    assert_eq!(max_handles(new().max_handles(7).of_channel().unwrap()), [7, 7]);
    assert_eq!(max_handles(new().of_channel().unwrap()), [HANDLE_COUNT_MAX; 2]);
    let two = new().ring(RingOptions::spsc()).ring(RingOptions::spsc());
    let is_paired = |options: &OpenOptions| {
        let entries = options.plan().entries;
        entries[0].is_half_of_channel(1) && entries[1].is_half_of_channel(0)
    };
    assert!(is_paired(&new().of_channel().unwrap()) && !is_paired(&two));
}

#[test]
fn as_many_rings_as_a_region_may_have_are_taken_and_no_more() {
    let rings = |count: u32| (0..count).fold(new(), |all, _| all.ring(RingOptions::spsc()));
    let of = |count| rings(count).rings;
    check_sum(&of(RING_COUNT_MAX)).unwrap();
    assert!(check_sum(&of(RING_COUNT_MAX + 1)).is_err());
}

#[test]
fn capabilities_are_required_of_a_new_region_only_if_it_has_them() {
    let lanes = || new().mpsc_order(MpscOrder::PerProducer);
    let unknown = !(caps::EXT | caps::HANDLES | caps::LANES);
    let lowest_unknown = unknown & unknown.wrapping_neg();
    for (options, expected) in [
        (new().require(caps::EXT), None),
        (new().require(lowest_unknown), Some("require")),
        (new().require(caps::LANES), Some("require")),
        (lanes().require(caps::LANES), None),
        (new().require(caps::HANDLES), Some("require")),
        (new().max_handles(0).require(caps::HANDLES), Some("require")),
        (new().max_handles(1).require(caps::HANDLES), None),
    ] {
        assert_eq!(refused(options.clone()), expected, "{options:?}");
    }
    assert_eq!(new().new_caps(), 0);
    assert_eq!(new().max_handles(1).new_caps(), caps::EXT | caps::HANDLES);
    assert_eq!(lanes().require(caps::EXT).new_caps(), caps::LANES | caps::EXT);
}

#[test]
fn rings_are_legal_up_to_the_length_of_a_region() {
    let huge = || RingOptions::spsc().capacity(CAPACITY_MAX);
    let listed = |count| (0..count).fold(new(), |options, _| options.ring(huge()));
    let rest = (TOTAL_LEN_MAX - 63 * CAPACITY_MAX) / 2; // for what is kept beside the rings, too
    let full = listed(63).ring(RingOptions::spsc().capacity(rest));
    assert!(full.plan().total_len() <= TOTAL_LEN_MAX);
    assert_eq!([full, listed(64)].map(refused), [None, Some("ring")]);
}

#[test]
fn numbers_are_legal_up_to_their_bounds() {
    let long = || new().spsc_capacity(1 << 31).mpsc_capacity(1 << 31);
    let small = || new().spsc_capacity(4096).mpsc_capacity(1 << 20);
    for (options, expected) in [
        (long().max_message(MESSAGE_LEN_MAX), None),
        (long().max_message(MESSAGE_LEN_MAX + 1), Some("max_message")),
        (small().max_message(1008), None),
        (small().max_message(1009), Some("max_message")),
        (small().max_handles(HANDLE_COUNT_MAX), None),
        (small().max_handles(HANDLE_COUNT_MAX + 1), Some("max_handles")),
        (small().mode(0o600), None),
        (small().mode(0o777), None),
        (small().mode(0o1600), Some("mode")),
        (small().mode(0o400), Some("mode")),
        (small().spsc_capacity(CAPACITY_MIN / 2), Some("spsc_capacity")),
        (small().mpsc_capacity(CAPACITY_MAX * 2), Some("mpsc_capacity")),
        (small().mpsc_capacity(4096 + 64), Some("mpsc_capacity")),
    ] {
        assert_eq!(refused(options.clone()), expected, "{options:?}");
    }
    for (options, expected) in [(long(), 1 << 16), (small(), 1008)] {
        let rings = options.new_rings();
        assert!(rings.iter().all(|ring| ring.new_max_message() == expected), "{rings:?}");
    }
}
