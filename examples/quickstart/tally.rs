//! What both processes keep of the lines that they have seen.

use std::hash::{DefaultHasher, Hasher};

/// How many lines were seen so far, and a digest of them in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    lines: u64,
    digest: DefaultHasher,
}

/// An acknowledgement: a [`Tally`] as it goes through a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ack {
    /// Lines received so far.
    pub(crate) lines: u64,
    /// Digest of all of them.
    pub(crate) digest: u64,
}

impl Tally {
    /// Adds one line. Where it ends counts too.
    pub(crate) fn add(&mut self, line: &[u8]) {
        self.digest.write(line);
        self.digest.write_u8(b'\n');
        self.lines += 1;
    }

    /// The acknowledgement of everything that was added.
    pub(crate) fn ack(&self) -> Ack {
        Ack { lines: self.lines, digest: self.digest.finish() }
    }
}

impl Ack {
    /// Bytes of the message that an acknowledgement is.
    pub(crate) const LEN: usize = 16;

    /// The message.
    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        (u128::from(self.lines) << 64 | u128::from(self.digest)).to_le_bytes()
    }

    /// The acknowledgement in a message.
    pub(crate) fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let both = u128::from_le_bytes(bytes);
        Self { lines: (both >> 64) as u64, digest: both as u64 }
    }
}
