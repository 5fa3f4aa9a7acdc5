//! What is sent as which number, and how: known to the sender, to the receiver, and to whoever
//! looks at what they left.

use std::ops::Range;

use crate::content::{Content, HEAD_LEN, MESSAGE_LEN_MAX};

/// Most messages in a batch.
const BATCH_MAX: u64 = 6;

/// Most messages that a receiver takes at once: as many may come twice where it is killed.
pub(super) const DRAINED_MAX: usize = 8;

/// A way to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// One, copied in at once.
    Single,
    /// Those numbers, visible at once.
    Batch,
    /// One, built in place and slowly.
    Slow,
}

/// How messages from a number on are sent: the way, and which.
pub(super) fn step(content: &Content, number: u64) -> (Way, Range<u64>) {
    let drawn = content.rng(!number).number();
    match drawn % 64 {
        0 => (Way::Slow, number..number + 1),
        1..16 => (Way::Batch, number..number + 2 + (drawn >> 8) % (BATCH_MAX - 1)),
        _ => (Way::Single, number..number + 1),
    }
}

/// Bytes of message `number`: long enough for a head, and a quarter of them as long as can be.
pub(super) fn len(content: &Content, number: u64) -> usize {
    let (way, _) = step(content, number);
    if way == Way::Slow || content.rng(!number).number() >> 62 == 0 {
        return MESSAGE_LEN_MAX;
    }
    content.len(number).max(HEAD_LEN)
}
