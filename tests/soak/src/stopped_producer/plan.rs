//! What is sent, and where the holder stops: known to all processes of the run.

use crate::Rng;
use crate::content::{Content, HEAD_LEN};

/// Where the holder may be stopped: under the lock.
pub(super) const POINTS: [&str; 4] =
    ["send.before-payload", "send.before-commit", "send.after-commit", "batch.before-commit"];

/// The holder sends that many times so many messages one by one, and then so many at once.
const ROUNDS: u64 = 100;
const SINGLES: u64 = 15;
const BATCH: u64 = 5;
const ROUND: u64 = SINGLES + BATCH;

/// All messages of the holder.
pub(super) const HOLDERS: u64 = ROUNDS * ROUND;
/// All messages of the rival. It tries to send the first while the holder is stopped.
pub(super) const RIVALS: u64 = 200;
/// Longest message, in bytes.
pub(super) const LEN_MAX: usize = 1024;
/// Marks of their messages.
pub(super) const HOLDER: usize = 0;
pub(super) const RIVAL: usize = 1;

/// Where the holder stops.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The crash point.
    pub(super) point: &'static str,
    /// At which passage.
    pub(super) nth: u64,
}

impl Place {
    /// A place at `point`, well inside the holder's messages.
    pub(super) fn draw(point: &'static str, rng: &mut Rng) -> Self {
        let passages = if is_of_batch(point) { ROUNDS } else { ROUNDS * SINGLES };
        Self { point, nth: passages / 4 + rng.below(passages / 2) }
    }

    /// How many messages of the holder are published there.
    pub(super) fn published(self) -> u64 {
        let before = self.nth - 1;
        if is_of_batch(self.point) {
            return before * ROUND + SINGLES;
        }
        let own = u64::from(self.point == "send.after-commit");
        before / SINGLES * ROUND + before % SINGLES + own
    }
}

fn is_of_batch(point: &str) -> bool {
    point.starts_with("batch.")
}

/// How many messages the holder sends at once, from `number` on.
pub(super) fn count_from(number: u64) -> u64 {
    if (number - 1) % ROUND < SINGLES { 1 } else { BATCH }
}

/// The messages of whom `mark` says.
pub(super) fn content_of(seed: u64, mark: usize) -> Content {
    Content::new(Rng::of_part(seed, mark as u64).number())
}

/// Bytes of message `number`.
pub(super) fn len(content: &Content, number: u64) -> usize {
    (content.rng(number).length(LEN_MAX as u64) as usize).max(HEAD_LEN)
}
