//! What is sent: known to the producers and to the receiver.

use crate::content::{Content, HEAD_LEN};

/// Most messages of one life, as a power of two.
const NUMBER_BITS: u32 = 20;
/// Bytes of a long message: they take a while to copy, and the lock is held meanwhile.
const LONG_MIN: u64 = 40 << 10;
const LONG_MAX: u64 = 60 << 10;
/// Longest of the other messages, in bytes.
const SHORT_MAX: u64 = 4096;
/// Of a hundred messages, how many are long.
const LONG_PERCENT: u64 = 25;

/// Message `number` of `life`, in one number.
pub(super) fn key(life: u64, number: u64) -> u64 {
    life << NUMBER_BITS | number
}

/// The life and the number in `key`.
pub(super) fn split(key: u64) -> (u64, u64) {
    (key >> NUMBER_BITS, key & ((1 << NUMBER_BITS) - 1))
}

/// Bytes of the message `key`.
pub(super) fn len(content: &Content, key: u64) -> usize {
    let mut rng = content.rng(!key);
    if rng.percent(LONG_PERCENT) {
        return (LONG_MIN + rng.below(LONG_MAX - LONG_MIN + 1)) as usize;
    }
    (rng.length(SHORT_MAX) as usize).max(HEAD_LEN)
}
