//! What is done with a message that has come.

use std::hint::black_box;

use crate::system::{Failure, Look};

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// Bits of a message's number that count; the others name the producer.
const COUNT_BITS: u32 = 56;
const PRODUCERS: usize = 8;

/// The number in the first eight bytes of a producer's `count`-th message, from 1 on.
pub(crate) fn number(producer: usize, count: u64) -> u64 {
    (producer as u64) << COUNT_BITS | count
}

/// Follows the numbers of each producer.
#[derive(Debug, Default)]
pub(crate) struct Order {
    last: [u64; PRODUCERS],
    disorder: u64,
}

impl Order {
    #[inline]
    fn note(&mut self, found: u64) {
        let producer = (found >> COUNT_BITS) as usize % PRODUCERS;
        let expected = self.last[producer] + 1;
        self.last[producer] = expected;
        self.disorder |= found ^ number(producer, expected);
    }

    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.disorder == 0 { Ok(()) } else { Err("messages out of order".into()) }
    }
}

/// Reads one word of each cache line, and the last byte.
#[derive(Debug)]
pub(crate) struct Touch<'a> {
    order: &'a mut Order,
    sum: u64,
}

impl<'a> Touch<'a> {
    pub(crate) fn new(order: &'a mut Order) -> Self {
        Self { order, sum: 0 }
    }
}

/// What was read is used, as far as the compiler knows.
impl Drop for Touch<'_> {
    fn drop(&mut self) {
        black_box(self.sum);
    }
}

impl Look for Touch<'_> {
    #[inline]
    fn at_slice(&mut self, message: &[u8]) {
        self.order.note(first_word(message));
        let mut at = LINE;
        while let Some(word) = message.get(at..).and_then(|rest| rest.first_chunk()) {
            self.sum ^= u64::from_le_bytes(*word);
            at += LINE;
        }
        self.sum ^= message.last().copied().map_or(0, u64::from);
    }

    #[inline]
    fn in_place(&mut self, len: usize, mut read_at: impl FnMut(usize, &mut [u8])) {
        let mut word = [0; 8];
        read_at(0, &mut word);
        self.order.note(u64::from_le_bytes(word));
        let mut at = LINE;
        while at + 8 <= len {
            read_at(at, &mut word);
            self.sum ^= u64::from_le_bytes(word);
            at += LINE;
        }
        let mut last = [0];
        read_at(len - 1, &mut last);
        self.sum ^= u64::from(last[0]);
    }
}

/// Reads the number only.
#[derive(Debug)]
pub(crate) struct Peek<'a>(pub(crate) &'a mut Order);

impl Look for Peek<'_> {
    #[inline]
    fn at_slice(&mut self, message: &[u8]) {
        self.0.note(first_word(message));
    }

    #[inline]
    fn in_place(&mut self, _len: usize, mut read_at: impl FnMut(usize, &mut [u8])) {
        let mut word = [0; 8];
        read_at(0, &mut word);
        self.0.note(u64::from_le_bytes(word));
    }
}

/// Compares every byte with what was sent.
#[derive(Debug)]
pub(crate) struct Compare<'a> {
    order: &'a mut Order,
    expected: Vec<u8>,
    room: Vec<u8>,
    pub(crate) differing: u64,
}

impl<'a> Compare<'a> {
    pub(crate) fn new(order: &'a mut Order, size: usize) -> Self {
        Self { order, expected: vec![0; size], room: vec![0; size], differing: 0 }
    }

    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.differing {
            0 => Ok(()),
            count => Err(format!("{count} messages differ from what was sent").into()),
        }
    }
}

impl Look for Compare<'_> {
    fn at_slice(&mut self, message: &[u8]) {
        let found = first_word(message);
        self.order.note(found);
        fill(&mut self.expected, found);
        self.differing += u64::from(self.expected != message);
    }

    fn in_place(&mut self, len: usize, mut read_at: impl FnMut(usize, &mut [u8])) {
        let mut room = std::mem::take(&mut self.room);
        room.resize(len, 0);
        read_at(0, &mut room);
        self.at_slice(&room);
        self.room = room;
    }
}

/// Fills a message: its number first, and then bytes that depend on the number and the place.
pub(crate) fn fill(message: &mut [u8], number: u64) {
    let mut word = number;
    for chunk in message.chunks_mut(8) {
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        word = (word ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23).wrapping_add(1);
    }
}

/// Writes the number only.
#[inline]
pub(crate) fn set_number(message: &mut [u8], number: u64) {
    if let Some(first) = message.first_chunk_mut() {
        *first = number.to_le_bytes();
    }
}

#[inline]
fn first_word(message: &[u8]) -> u64 {
    message.first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_and_a_missing_message_are_noticed() {
        let mut message = vec![0; 200];
        let mut order = Order::default();
        let mut compare = Compare::new(&mut order, 200);
        fill(&mut message, number(1, 1));
        compare.at_slice(&message);
        compare.check().expect("as sent");
        fill(&mut message, number(1, 3));
        message[150] ^= 1;
        compare.at_slice(&message);
        compare.check().expect_err("a byte was changed");
        order.check().expect_err("number 2 is missing");
    }
}
