//! The consumer of either ring.
//!
//! It polls one word: the header at its own position. It loads each header once, checks it, and uses the
//! checked copy only; the producers' other words are no concern of its.

use std::num::NonZeroU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use tombolo_abi::{RECORD_HEADER_LEN, Record, RecordExt, RecordKind, RecordRules};

use super::doorbell::{Wakes, notify_producers};
use super::window::position_damage;
use super::{Memory, Ring, Word};
use crate::crash::crash_point;
use crate::error::Damage;

/// The one consumer of a ring.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Consumer {
    /// Position of the first record not yet freed. Only this consumer writes the shared copy.
    head: u64,
    /// Messages freed over the ring's life.
    received_msgs: u64,
    /// Payload bytes of them.
    received_bytes: u64,
    /// Records of unknown kinds passed over.
    skipped: u64,
    /// Whether blocked producers are to be notified.
    pending: Pending,
    /// Position of the first record that this consumer could take.
    first: u64,
}

/// Whether blocked producers may still have to be notified of freed space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Pending {
    None,
    /// Freed here, or by a predecessor that did not come to notifying.
    Some,
}

/// The ring is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nothing;

/// The record at the consumer's head, by its header word, which has been checked. It is a single word
/// because the processor stalls if it loads as a whole what was stored piece by piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Front {
    word: NonZeroU64,
}

/// Records that a consumer passes and then frees, all at once. If it dies before that, they are delivered
/// again. The caller keeps these numbers, so that passing a record stores nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Run {
    /// Position of the next record.
    head: u64,
    /// Bytes of the ring that were passed, messages in them and their payload bytes.
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

    /// Bytes of the ring that were passed.
    #[inline(always)]
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Messages that were passed.
    #[inline(always)]
    pub(crate) fn count(&self) -> u64 {
        self.msgs
    }

    /// The next message and its length if it is a plain one; [`Consumer::front`] decodes anything else, once
    /// the run is freed. `rules` is a parameter of its own so that it may stay in registers.
    #[inline(always)]
    pub(crate) fn front<M: Memory>(&self, memory: &M, rules: &RecordRules) -> Option<(Front, u32)> {
        let word = memory.load(Word::Data(self.head), Acquire); // edge `commit`
        let front = Front { word: NonZeroU64::new(word)? };
        Some((front, rules.plain_len(word, self.head)?))
    }

    /// Passes a record with this payload.
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
    /// Goes on where the last consumer stopped: what it had not freed is delivered again.
    ///
    /// # Errors
    /// If the stored position is impossible.
    pub(crate) fn attach<M: Memory>(ring: &Ring<M>) -> Result<Self, Damage> {
        let ours = |word| ring.memory.load(word, Relaxed); // ours: no other process writes them
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

    /// Fast path of [`Self::front`]: the next message if it is a plain one. Fails if the ring is empty and no
    /// producer is to be notified; returns `None` if the slow path must decide.
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

    /// The next message, which stays until it is freed. Skips padding and records of unknown kinds, at most
    /// one capacity of them a call. If there is no message, notifies blocked producers of freed space.
    ///
    /// # Errors
    /// If no honest producer writes such a header.
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
                self.notify_pending(ring, wakes);
                return Ok(None);
            };
            if !record.kind.is_skipped() {
                return Ok(Some(Front { word }));
            }
            self.skip(ring, &record, wakes);
            if self.head.wrapping_sub(first) > ring.rules.capacity {
                return Ok(None); // a flood: let the caller check its deadline
            }
        }
    }

    /// Copies the payload of `front` to `buffer`, which has its length.
    #[inline]
    pub(crate) fn copy_out<M: Memory>(&self, ring: &Ring<M>, front: Front, buffer: &mut [u8]) {
        Self::copy_out_at(ring, self.head, front, buffer);
    }

    /// As [`Self::copy_out`], of the record at `position`, which begins with `front`.
    #[inline]
    pub(crate) fn copy_out_at<M: Memory>(
        ring: &Ring<M>,
        position: u64,
        front: Front,
        buffer: &mut [u8],
    ) {
        ring.memory.copy_out(position.wrapping_add(front.payload_offset()), buffer);
    }

    /// The first eight bytes of the payload of the record at `position`, or what lies behind a shorter one.
    #[inline]
    pub(crate) fn first_word_at<M: Memory>(ring: &Ring<M>, position: u64, front: Front) -> [u8; 8] {
        let start = position.wrapping_add(front.payload_offset());
        ring.memory.load(Word::Data(start), Relaxed).to_ne_bytes()
    }

    /// Frees `front`: producers get its space back, and it is never delivered again.
    #[inline(always)]
    pub(crate) fn free<M: Memory>(&mut self, ring: &Ring<M>, front: Front, wakes: &Wakes) {
        let mut run = self.run();
        run.pass(&ring.rules, front.payload_offset(), front.payload_len() as u32);
        self.free_run(ring, &run, wakes);
    }

    /// An empty run at this position.
    #[inline(always)]
    pub(crate) fn run(&self) -> Run {
        Run { head: self.head, len: 0, msgs: 0, payload_len: 0 }
    }

    /// Frees the records of `run`.
    #[inline(always)]
    pub(crate) fn free_run<M: Memory>(&mut self, ring: &Ring<M>, run: &Run, wakes: &Wakes) {
        self.received_msgs = self.received_msgs.wrapping_add(run.msgs);
        self.received_bytes = self.received_bytes.wrapping_add(run.payload_len);
        crash_point!("recv.before-free");
        self.advance(ring, run.len, wakes);
        ring.memory.store(Word::ReceivedMsgs, self.received_msgs, Relaxed); // ours
        ring.memory.store(Word::ReceivedBytes, self.received_bytes, Relaxed); // ours
    }

    /// The extension word of the record at the head, which has handles. Not checked: it is what the sender
    /// wrote.
    #[cold]
    pub(crate) fn ext<M: Memory>(&self, ring: &Ring<M>) -> RecordExt {
        let position = self.head.wrapping_add(RECORD_HEADER_LEN);
        RecordExt::from_word(ring.memory.load(Word::Data(position), Relaxed))
    }

    /// The record at `position`, which is the head or lies behind it, of whatever kind; `None` if there is
    /// none yet.
    ///
    /// # Errors
    /// If no honest producer writes such a header, or the position is a whole ring behind the head.
    pub(crate) fn look_at<M: Memory>(
        &self,
        ring: &Ring<M>,
        position: u64,
    ) -> Result<Option<(Front, Record)>, Damage> {
        if position.wrapping_sub(self.head) >= ring.rules.capacity {
            return Err(position_damage("records up to", position, "head", self.head));
        }
        let word = ring.memory.load(Word::Data(position), Acquire); // edge `commit`
        let record = ring.rules.decode(word, position)?;
        Ok(NonZeroU64::new(word).zip(record).map(|(word, record)| (Front { word }, record)))
    }

    /// This consumer as it would be at `position`, to read what lies there.
    pub(crate) fn at(&self, position: u64) -> Self {
        Self { head: position, ..self.clone() }
    }

    /// Takes the record at `position`, behind the head, out of turn: it is passed over from now on, and its
    /// space is freed in its turn. No producer reads or writes it any more.
    pub(crate) fn withdraw<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        position: u64,
        (front, record): (Front, Record),
    ) {
        let header = ring.rules.encode(&record.withdrawn(), position);
        crash_point!("withdraw.before-mark");
        ring.memory.store(Word::Data(position), header, Relaxed); // ours until it is freed
        crash_point!("withdraw.before-count");
        self.received_msgs = self.received_msgs.wrapping_add(1);
        self.received_bytes = self.received_bytes.wrapping_add(front.payload_len() as u64);
        ring.memory.store(Word::ReceivedMsgs, self.received_msgs, Relaxed); // ours
        ring.memory.store(Word::ReceivedBytes, self.received_bytes, Relaxed); // ours
        if front.handle_count() > 0 {
            self.count_handles(ring, front.handle_count());
        }
    }

    /// Notifies blocked producers of space that was freed since they last were: before a consumer sleeps with
    /// records in the ring that it leaves for later.
    pub(crate) fn notify_pending<M: Memory>(&mut self, ring: &Ring<M>, wakes: &Wakes) {
        if self.pending == Pending::Some {
            self.notify(ring, wakes);
        }
    }

    /// Frees `front`, which has handles, then calls `take` to close those, then counts them. A death in
    /// between leaves fewer counted than taken, which a producer's recount corrects.
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

    /// Counts handles of a record that was freed.
    fn count_handles<M: Memory>(&self, ring: &Ring<M>, count: u8) {
        let taken = ring.memory.load(Word::HandlesTaken, Relaxed); // ours: no other process writes it
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

    #[cold]
    fn notify<M: Memory>(&mut self, ring: &Ring<M>, wakes: &Wakes) {
        self.pending = Pending::None;
        notify_producers(ring, wakes);
    }
}
