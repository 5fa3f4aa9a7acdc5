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
