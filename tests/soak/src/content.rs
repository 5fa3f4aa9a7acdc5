//! What messages contain: everything follows from a seed and the message's number, so whoever
//! receives one knows what it must be.
//!
//! | message | bytes |
//! |---|---|
//! | of 16 bytes or more | number and mark (8), checksum of all else (8), body |
//! | shorter | drawn from the number |
//!
//! The number takes the lower 40 bits of its word, the mark the upper 24. The body is a piece of a
//! pool of random bytes, so that making it costs a copy. Numbers start at 1: the first word of a
//! message is never 0.

use crate::{Failure, Rng};

/// Longest message, in bytes.
pub(crate) const MESSAGE_LEN_MAX: usize = 1 << 16;
/// Number and checksum.
pub(crate) const HEAD_LEN: usize = 16;

const NUMBER_BITS: u32 = 40;
/// Places in the pool at which a body may start.
const STARTS: usize = 4096;

/// The messages of one sender.
#[derive(Debug)]
pub(crate) struct Content {
    seed: u64,
    pool: Vec<u8>,
}

impl Content {
    /// The messages of `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let words = (MESSAGE_LEN_MAX + STARTS) / 8;
        let pool = (0..words).flat_map(|_| rng.number().to_le_bytes()).collect();
        Self { seed, pool }
    }

    /// Numbers that belong to message `number` alone.
    pub(crate) fn rng(&self, number: u64) -> Rng {
        Rng::of_part(self.seed, number)
    }

    /// Bytes of message `number`, from 0 to 64 KiB, drawn log-uniformly.
    pub(crate) fn len(&self, number: u64) -> usize {
        self.rng(number).length(MESSAGE_LEN_MAX as u64) as usize
    }

    /// Writes message `number` into `message`, which is as long as the message shall be.
    pub(crate) fn write(&self, number: u64, mark: u64, message: &mut [u8]) {
        if message.len() < HEAD_LEN {
            let short = self.short(number);
            message.copy_from_slice(&short[..message.len()]);
            return;
        }
        let (head, body) = message.split_at_mut(HEAD_LEN);
        body.copy_from_slice(self.body(number, body.len()));
        let word = number_word(number, mark);
        head[..8].copy_from_slice(&word.to_le_bytes());
        head[8..].copy_from_slice(&checksum(word, body).to_le_bytes());
    }

    /// Judges `message`, received as message `number` with any mark.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&self, number: u64, message: &[u8]) -> Result<(), Failure> {
        if message.len() < HEAD_LEN {
            let short = self.short(number);
            let sound = message == &short[..message.len()];
            return if sound { Ok(()) } else { Err(wrong(number, message, "its bytes")) };
        }
        let (head, body) = message.split_at(HEAD_LEN);
        let (word, sum) = (word_at(head, 0), word_at(head, 8));
        if number_of(word) != number {
            return Err(wrong(number, message, "its number"));
        }
        if checksum(word, body) != sum {
            return Err(wrong(number, message, "its checksum"));
        }
        if body != self.body(number, body.len()) {
            return Err(wrong(number, message, "its body"));
        }
        Ok(())
    }

    fn body(&self, number: u64, len: usize) -> &[u8] {
        let start = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as usize % STARTS;
        &self.pool[start..start + len]
    }

    fn short(&self, number: u64) -> [u8; HEAD_LEN] {
        let mut rng = Rng::of_part(!self.seed, number);
        let mut bytes = [0; HEAD_LEN];
        bytes[..8].copy_from_slice(&rng.number().to_le_bytes());
        bytes[8..].copy_from_slice(&rng.number().to_le_bytes());
        bytes
    }
}

/// The first word of message `number`.
pub(crate) fn number_word(number: u64, mark: u64) -> u64 {
    number | mark << NUMBER_BITS
}

/// The number in a message's first word.
pub(crate) fn number_of(word: u64) -> u64 {
    word & ((1 << NUMBER_BITS) - 1)
}

/// The word at `offset` of `bytes`, which reach so far.
pub(crate) fn word_at(bytes: &[u8], offset: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(word)
}

/// A checksum that changes with every bit and every order of words; four lanes, for speed.
fn checksum(word: u64, bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0xff51_afd7_ed55_8ccd;
    let step = |lane: u64, word: u64| (lane ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let mut lanes = [word, !word, word.rotate_left(16), bytes.len() as u64];
    let (chunks, rest) = bytes.as_chunks::<32>();
    for chunk in chunks {
        for (lane, word) in lanes.iter_mut().zip(chunk.as_chunks::<8>().0) {
            *lane = step(*lane, u64::from_le_bytes(*word));
        }
    }
    let rest = rest.iter().fold(0, |sum, byte| step(sum, u64::from(*byte)));
    lanes.into_iter().fold(rest, step)
}

fn wrong(number: u64, message: &[u8], what: &str) -> Failure {
    let first = &message[..message.len().min(HEAD_LEN)];
    let len = message.len();
    format!("message {number} of {len} bytes, first {first:02x?}: {what} is wrong").into()
}
