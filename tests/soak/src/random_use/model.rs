//! What a ring, or a lane, must do: where each record lies, which messages are in it, and whether one
//! more fits. Written from the format document alone.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

/// Bytes of a record's header word, and of the extension of one with handles.
const WORD: u64 = 8;

/// A message that was sent and not taken yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    pub(super) number: u64,
    pub(super) len: usize,
    /// Which files travel with it.
    pub(super) files: Vec<usize>,
    /// Position of its record.
    pub(super) position: u64,
    /// Whether the receiver that the handles were sent to is gone.
    pub(super) are_lost: bool,
    end: u64,
}

/// Whether a record fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Surely,
    /// If the receiver has passed over the padding at its head.
    Perhaps,
    No,
}

/// A ring, or a lane.
#[derive(Debug)]
pub(super) struct Line {
    /// Its index in the directory.
    pub(super) ring: u32,
    capacity: u64,
    tail: u64,
    /// Where the last message that was taken ends.
    freed: u64,
    pub(super) queue: VecDeque<Queued>,
    /// How often the tail came to 2^64.
    pub(super) wraps: u64,
}

impl Line {
    /// An empty one, at `start`.
    pub(super) fn new(ring: u32, capacity: u64, start: u64) -> Self {
        Self { ring, capacity, tail: start, freed: start, queue: VecDeque::new(), wraps: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Handles on their way through it.
    pub(super) fn handle_count(&self) -> usize {
        self.queue.iter().map(|message| message.files.len()).sum()
    }

    /// Whether a message fits.
    pub(super) fn fit(&self, len: usize, has_handles: bool) -> Fit {
        let (_, end) = self.place_at(self.tail, len, has_handles);
        match (self.is_free(end, self.freed), self.is_free(end, self.passed())) {
            (true, _) => Fit::Surely,
            (false, true) => Fit::Perhaps,
            (false, false) => Fit::No,
        }
    }

    /// How many of these messages fit, from the first on.
    pub(super) fn fit_all(&self, lens: &[usize]) -> RangeInclusive<usize> {
        let count = |head| {
            let mut tail = self.tail;
            let ends = lens.iter().map(|&len| {
                tail = self.place_at(tail, len, false).1;
                tail
            });
            ends.take_while(|&end| self.is_free(end, head)).count()
        };
        count(self.freed)..=count(self.passed())
    }

    /// Notes that a message was sent, and gives where it lies.
    pub(super) fn push(&mut self, number: u64, len: usize, files: Vec<usize>) {
        let claimed = len;
        self.push_claimed(number, claimed, len, files);
    }

    /// Notes that a message was sent for which `claimed` bytes had been claimed.
    pub(super) fn push_claimed(
        &mut self,
        number: u64,
        claimed: usize,
        len: usize,
        files: Vec<usize>,
    ) {
        let has_handles = !files.is_empty();
        let (position, _) = self.place_at(self.tail, claimed, has_handles);
        let end = position.wrapping_add(record_len(len, has_handles));
        self.wraps += u64::from(end < self.tail);
        self.tail = end;
        self.queue.push_back(Queued { number, len, files, position, are_lost: false, end });
    }

    /// Notes that the first message was taken.
    pub(super) fn pop(&mut self) -> Option<Queued> {
        let message = self.queue.pop_front()?;
        self.freed = message.end;
        Some(message)
    }

    /// Notes that the receiver is gone: whatever handles it had not taken are closed.
    pub(super) fn lose_handles(&mut self) {
        let with_handles = self.queue.iter_mut().filter(|message| !message.files.is_empty());
        with_handles.for_each(|message| message.are_lost = true);
    }

    /// Where the head is if the padding before the first message was passed over.
    fn passed(&self) -> u64 {
        self.queue.front().map_or(self.freed, |message| message.position)
    }

    /// Where a record behind `tail` would start and end: no record is split.
    fn place_at(&self, tail: u64, len: usize, has_handles: bool) -> (u64, u64) {
        let (len, to_end) = (record_len(len, has_handles), self.capacity - tail % self.capacity);
        let start = if len > to_end { tail.wrapping_add(to_end) } else { tail };
        (start, start.wrapping_add(len))
    }

    /// Whether a record may end at `end` while the head is at `head`: a zero word is behind each.
    fn is_free(&self, end: u64, head: u64) -> bool {
        end.wrapping_add(WORD).wrapping_sub(head) <= self.capacity
    }
}

fn record_len(len: usize, has_handles: bool) -> u64 {
    let words = if has_handles { 2 } else { 1 };
    (words * WORD + len as u64).next_multiple_of(WORD)
}
