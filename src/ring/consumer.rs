//! The consumer of either ring.
//!
//! It looks at one word: the header at its own position. Everything else that producers keep is
//! theirs; nothing that they write is believed before it was checked, and each header is loaded
//! once.

use std::num::NonZeroU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use tombolo_abi::{RECORD_HEADER_LEN, Record, RecordExt, RecordKind, RecordRules};

use super::doorbell::{Wakes, notify_producers};
use super::{Memory, Ring, Word};
use crate::crash::crash_point;
use crate::error::Damage;

/// The one consumer of a ring.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Consumer {
    /// Position of the first record not yet freed. The shared copy is written by nobody else.
    head: u64,
    /// Messages freed over the ring's life.
    received_msgs: u64,
    /// Payload bytes of them.
    received_bytes: u64,
    /// Records of unknown kinds passed over.
    skipped: u64,
    /// Whether something was freed since the producers were last looked after.
    pending: Pending,
    /// Where the first record was that this consumer could take.
    first: u64,
}

/// Whether blocked producers may not have been told yet of what was freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Pending {
    None,
    /// Freed here, or perhaps by a predecessor who did not come to telling.
    Some,
}

/// There is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nothing;

/// The record at the consumer's head, by its header word, which has been checked. A single word: the
/// processor waits if what was stored piece by piece is loaded as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Front {
    word: NonZeroU64,
}

/// Records that a consumer goes over before it frees them, all at once. Until then they are as they were:
/// whoever dies leaves them to be delivered again. A few numbers that the caller keeps, so that going on
/// stores nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Run {
    /// Position of the next record.
    head: u64,
    /// Bytes of the ring behind, messages in them and their payload bytes.
    len: u64,
    msgs: u64,
    payload_len: u64,
}

impl Run {
    /// Position of the next record.
    #[inline(always)]
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// Bytes of the ring behind.
    #[inline(always)]
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Messages behind.
    #[inline(always)]
    pub(crate) fn count(&self) -> u64 {
        self.msgs
    }

    /// The next message and its length if it is a plain one that is there; [`Consumer::front`] tells
    /// what else there is once the run is freed. The ring's rules come by themselves, so that they may stay
    /// in registers.
    #[inline(always)]
    pub(crate) fn front<M: Memory>(&self, memory: &M, rules: &RecordRules) -> Option<(Front, u32)> {
        let word = memory.load(Word::Data(self.head), Acquire); // edge `commit`
        let front = Front { word: NonZeroU64::new(word)? };
        Some((front, rules.plain_len(word, self.head)?))
    }

    /// Goes on behind a record whose payload begins and is as long as given.
    #[inline(always)]
    pub(crate) fn pass(&mut self, rules: &RecordRules, payload_offset: u64, payload_len: u32) {
        let payload_len = u64::from(payload_len);
        let len = rules.aligned(payload_offset + payload_len);
        self.head = self.head.wrapping_add(len);
        self.len += len;
        self.msgs += 1;
        self.payload_len += payload_len;
    }
}

impl Front {
    /// Bytes of its payload.
    #[inline]
    pub(crate) fn payload_len(self) -> usize {
        Record::payload_len_of(self.word.get()) as usize
    }

    /// Handles that travel with it.
    #[inline]
    pub(crate) fn handle_count(self) -> u8 {
        Record::handle_count_of(self.word.get())
    }

    /// Bytes from its start to its payload.
    #[inline]
    pub(crate) fn payload_offset(self) -> u64 {
        let ext = Record::has_ext(self.word.get());
        Record { ext, ..Record::data(0) }.payload_offset()
    }
}

impl Consumer {
    /// Goes on where the consumer before stopped: what it had not freed is delivered again.
    ///
    /// # Errors
    /// If the stored position is impossible.
    pub(crate) fn attach<M: Memory>(ring: &Ring<M>) -> Result<Self, Damage> {
        let ours = |word| ring.memory.load(word, Relaxed); // ours: nobody else writes them
        let head = ours(Word::Head);
        let tail = ring.memory.load(Word::Tail, Relaxed); // a hint: it may lag behind head
        let apart = (tail.wrapping_sub(head) as i64).unsigned_abs();
        if apart > ring.rules.capacity || !ring.is_aligned(head) {
            return Err(Damage::Position {
                word: "head",
                found: head,
                against: "tail",
                other: tail,
            });
        }
        Ok(Self {
            head,
            received_msgs: ours(Word::ReceivedMsgs),
            received_bytes: ours(Word::ReceivedBytes),
            skipped: ours(Word::Skipped),
            pending: Pending::Some,
            first: head,
        })
    }

    /// Position of the next record.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// Whether it has freed anything.
    pub(crate) fn has_taken(&self) -> bool {
        self.head != self.first
    }

    /// The next message if it is a plain one that is there: as [`Self::front`], which tells what
    /// else there is. `Err` if there is nothing at all, and nobody to be told of what was freed.
    #[inline(always)]
    pub(crate) fn front_fast<M: Memory>(&self, ring: &Ring<M>) -> Result<Option<Front>, Nothing> {
        let (rules, position) = (ring.rules, self.head);
        let word = ring.memory.load(Word::Data(position), Acquire); // edge `commit`
        match NonZeroU64::new(word) {
            None if self.pending == Pending::None => Err(Nothing),
            Some(word) if rules.plain_len(word.get(), position).is_some() => {
                Ok(Some(Front { word }))
            }
            _ => Ok(None),
        }
    }

    /// The next message, which stays until it is freed. Padding and records of unknown kinds are
    /// passed over, at most one capacity of them a call. If there is none, producers that are
    /// blocked learn of what was freed.
    ///
    /// # Errors
    /// If the header is none that an honest producer writes.
    pub(crate) fn front<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        wakes: &Wakes,
    ) -> Result<Option<Front>, Damage> {
        let first = self.head;
        loop {
            let word = ring.memory.load(Word::Data(self.head), Acquire); // edge `commit`
            let record = ring.rules.decode(word, self.head)?;
            let (Some(word), Some(record)) = (NonZeroU64::new(word), record) else {
                if self.pending == Pending::Some {
                    self.notify(ring, wakes);
                }
                return Ok(None);
            };
            if !record.kind.is_skipped() {
                return Ok(Some(Front { word }));
            }
            self.skip(ring, &record, wakes);
            if self.head.wrapping_sub(first) > ring.rules.capacity {
                return Ok(None); // a flood: give the caller's deadline its turn
            }
        }
    }

    /// Copies the payload of `front` to `buffer`, which has exactly its length.
    #[inline]
    pub(crate) fn copy_out<M: Memory>(&self, ring: &Ring<M>, front: Front, buffer: &mut [u8]) {
        ring.memory.copy_out(self.head.wrapping_add(front.payload_offset()), buffer);
    }

    /// Frees `front`: its space is the producer's again, and it is never delivered again.
    #[inline(always)]
    pub(crate) fn free<M: Memory>(&mut self, ring: &Ring<M>, front: Front, wakes: &Wakes) {
        let mut run = self.run();
        run.pass(&ring.rules, front.payload_offset(), front.payload_len() as u32);
        self.free_run(ring, &run, wakes);
    }

    /// A run from here on.
    #[inline(always)]
    pub(crate) fn run(&self) -> Run {
        Run { head: self.head, len: 0, msgs: 0, payload_len: 0 }
    }

    /// Frees what `run` went over.
    #[inline(always)]
    pub(crate) fn free_run<M: Memory>(&mut self, ring: &Ring<M>, run: &Run, wakes: &Wakes) {
        self.received_msgs = self.received_msgs.wrapping_add(run.msgs);
        self.received_bytes = self.received_bytes.wrapping_add(run.payload_len);
        crash_point!("recv.before-free");
        self.advance(ring, run.len, wakes);
        ring.memory.store(Word::ReceivedMsgs, self.received_msgs, Relaxed); // ours
        ring.memory.store(Word::ReceivedBytes, self.received_bytes, Relaxed); // ours
    }

    /// The extension word of `front`, which has handles and so has one. Whatever it says, it is the
    /// sender's word.
    #[cold]
    pub(crate) fn ext<M: Memory>(&self, ring: &Ring<M>) -> RecordExt {
        let position = self.head.wrapping_add(RECORD_HEADER_LEN);
        RecordExt::from_word(ring.memory.load(Word::Data(position), Relaxed))
    }

    /// Frees `front`, which has handles, then has `take` see to those, and counts them. A death between
    /// two of these leaves fewer counted than were taken, which producers set right.
    #[cold]
    pub(crate) fn free_carried<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        front: Front,
        wakes: &Wakes,
        take: impl FnOnce(),
    ) {
        self.free(ring, front, wakes);
        crash_point!("recv.before-take");
        take();
        crash_point!("recv.before-count");
        self.count_handles(ring, front.handle_count());
    }

    /// Counts the handles of a record that was freed.
    fn count_handles<M: Memory>(&self, ring: &Ring<M>, count: u8) {
        let taken = ring.memory.load(Word::HandlesTaken, Relaxed); // ours: nobody else writes it
        ring.memory.store(Word::HandlesTaken, taken.wrapping_add(count.into()), Relaxed);
    }

    fn skip<M: Memory>(&mut self, ring: &Ring<M>, record: &Record, wakes: &Wakes) {
        if matches!(record.kind, RecordKind::Unknown(_)) {
            self.skipped = self.skipped.wrapping_add(1);
            ring.memory.store(Word::Skipped, self.skipped, Relaxed); // ours
        }
        self.advance(ring, ring.rules.record_len(record), wakes);
        if record.handle_count > 0 {
            self.count_handles(ring, record.handle_count);
        }
    }

    #[inline(always)]
    fn advance<M: Memory>(&mut self, ring: &Ring<M>, len: u64, wakes: &Wakes) {
        let (from, to) = (self.head, self.head.wrapping_add(len));
        self.head = to;
        ring.memory.store(Word::Head, to, Release); // edge `free`
        self.pending = Pending::Some;
        if (from ^ to) >= ring.freed_step() {
            self.notify(ring, wakes);
        }
    }

    /// Tells blocked producers of what was freed.
    #[cold]
    fn notify<M: Memory>(&mut self, ring: &Ring<M>, wakes: &Wakes) {
        self.pending = Pending::None;
        notify_producers(ring, wakes);
    }
}
