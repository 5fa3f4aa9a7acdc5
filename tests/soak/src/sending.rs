//! Sending messages of given lengths in all the ways that there are.

use std::time::Duration;

use tombolo::ends::Topology;
use tombolo::{Sender, SpscSender};

use crate::Failure;

/// How long one message may take to go out or to come in.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Most messages in a batch.
const BATCH_MAX: u64 = 16;

/// A way to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// One by one.
    Single,
    /// That many at once.
    Batch(u64),
    /// Built in place; more is claimed than is committed.
    Claim,
}

impl Way {
    /// A way drawn from `drawn`.
    pub(crate) fn draw(drawn: u64) -> Self {
        match drawn % 8 {
            0 | 1 => Self::Batch(1 + (drawn >> 8) % BATCH_MAX),
            2 | 3 => Self::Claim,
            _ => Self::Single,
        }
    }
}

/// Room for the messages of a batch, one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    /// Forgets all messages.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Adds a message of `len` bytes, written by `write`.
    pub(crate) fn add(&mut self, len: usize, write: impl FnOnce(&mut [u8])) {
        let start = self.bytes.len();
        self.bytes.resize(start + len, 0);
        write(&mut self.bytes[start..]);
        self.ends.push(start + len);
    }

    /// Sends all messages.
    ///
    /// # Errors
    /// Where the ring stays full, or is damaged.
    pub(crate) fn send<K: Topology>(&self, sender: &mut Sender<K>) -> Result<(), Failure> {
        let starts = std::iter::once(&0).chain(&self.ends);
        let spans = starts.zip(&self.ends);
        let messages: Vec<_> = spans.map(|(start, end)| &self.bytes[*start..*end]).collect();
        match messages[..] {
            [message] => sender.send_timeout(message, PATIENCE)?,
            _ => sender.send_batch_timeout(&messages, PATIENCE)?,
        }
        Ok(())
    }
}

/// Builds a message of `len` bytes in place, in pieces of `message`, which has them all.
///
/// # Errors
/// As [`Batch::send`].
pub(crate) fn send_in_place(sender: &mut SpscSender, message: &[u8]) -> Result<(), Failure> {
    let spare = sender.max_message().min(message.len() + message.len() / 2) - message.len();
    let mut claim = sender.reserve_timeout(message.len() + spare, PATIENCE)?;
    let (first, second) = message.split_at(message.len() / 2);
    claim.write_at(first.len(), second)?;
    claim.write_at(0, first)?;
    Ok(claim.commit_len(message.len())?)
}
