//! A producer's working positions, and the verbs of sending: find space, write, publish.
//!
//! A send is a step on the window, and each producer runs it in its own way: an SPSC producer keeps its
//! window in private; the window of an MPSC ring lies in the control block, and is loaded and stored under
//! the ring's lock. The verbs are the same for both and stand here once.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::compiler_fence;

use tombolo_abi::{RECORD_HEADER_LEN, Record, RecordExt};

use super::{Memory, Ring, SpaceWanted, Wakes, Word};
use crate::crash::crash_point;
use crate::error::Damage;

/// A producer's positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Window {
    /// Position of the next record.
    pub(crate) tail: u64,
    /// The consumer's position as last seen: at most its true one.
    pub(crate) head: u64,
}

/// Space for one record, or for several in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// The window's tail; padding starts here if there is any.
    pub(crate) start: u64,
    /// Start of the (first) record.
    pub(crate) record: u64,
    /// End of the (last) record.
    pub(crate) end: u64,
}

/// What a step published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) count: usize,
    /// Bytes of all payloads.
    pub(crate) payload_len: usize,
}

/// Space reserved for building a record in place. A single word, for the reason given at
/// [`super::Front`]: its place follows from the window, which doesn't move before the record is
/// published. Dropping it gives the space up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reserved {
    payload_len: u64,
}

impl Reserved {
    /// Bytes of payload that were reserved.
    #[inline]
    pub(crate) fn payload_len(self) -> usize {
        self.payload_len as usize
    }
}

/// How each producer makes the fast path of sending.
pub(crate) trait SendFast<M: Memory> {
    /// Sends `payload` if the ring is healthy, has space and needs no padding. Returns `false`, having sent
    /// nothing, if the slow path must decide. A producer that shares its ring calls `count` under the lock.
    fn send_fast(
        &mut self,
        ring: &Ring<M>,
        wakes: &Wakes,
        payload: &[u8],
        count: impl FnOnce(Sent),
    ) -> bool;
}

/// Why nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Full(SpaceWanted),
    /// The consumer stored an impossible position.
    Damaged(Damage),
}

impl Refusal {
    /// Counts the refusal, too.
    #[cold]
    pub(super) fn full<M: Memory>(ring: &Ring<M>, wanted: SpaceWanted) -> Self {
        ring.add(Word::FullEvents, 1);
        Self::Full(wanted)
    }
}

impl From<Damage> for Refusal {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

impl Window {
    /// The place of `record` behind `start`. Doesn't check whether there is space.
    #[inline(always)]
    pub(crate) fn place_at<M>(ring: &Ring<M>, start: u64, record: &Record) -> Place {
        let (len, to_end) = (ring.rules.record_len(record), ring.rules.len_to_end(start));
        let first = if len > to_end { start.wrapping_add(to_end) } else { start };
        Place { start, record: first, end: first.wrapping_add(len) }
    }

    /// Whether the space up to `end` and the zero word behind it are free. Loads the consumer's position only
    /// if the one last seen doesn't suffice.
    ///
    /// # Errors
    /// If the consumer's position is impossible.
    #[inline(always)]
    pub(crate) fn has_space<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        end: u64,
    ) -> Result<bool, Damage> {
        let limit = end.wrapping_add(RECORD_HEADER_LEN);
        if limit.wrapping_sub(self.head) <= ring.rules.capacity {
            return Ok(true);
        }
        self.refresh_head(ring)?;
        Ok(limit.wrapping_sub(self.head) <= ring.rules.capacity)
    }

    /// The refusal of a send that needs the space up to `end`.
    #[cold]
    pub(crate) fn no_space<M: Memory>(&self, ring: &Ring<M>, end: u64) -> Refusal {
        let needed = end.wrapping_sub(self.tail).wrapping_add(RECORD_HEADER_LEN);
        let comfortable = needed.max(ring.freed_step());
        Refusal::full(ring, SpaceWanted { tail: self.tail, needed, comfortable })
    }

    #[cold]
    pub(super) fn refresh_head<M: Memory>(&mut self, ring: &Ring<M>) -> Result<(), Damage> {
        let head = ring.memory.load(Word::Head, Acquire); // edge `free`
        let forward = head.wrapping_sub(self.head) <= self.tail.wrapping_sub(self.head);
        if !forward || !ring.is_aligned(head) {
            return Err(position_damage("head", head, "tail", self.tail));
        }
        self.head = head;
        Ok(())
    }

    /// Zeroes the header word behind a record, which the consumer polls next: before the record is visible.
    ///
    /// It goes before the payload, as the two lie on different lines: the store's wait for its line passes
    /// while the payload is copied.
    #[inline(always)]
    fn zero_behind<M: Memory>(ring: &Ring<M>, end: u64) {
        ring.memory.store(Word::Data(end), 0, Relaxed);
    }

    /// Publishes what was written at `place`, with a zero word behind it: one store makes the record, its
    /// padding and all records behind it visible at once. `header` is the (first) record's header word.
    #[inline(always)]
    fn publish<M: Memory>(&mut self, ring: &Ring<M>, place: Place, header: u64) {
        if place.record == place.start {
            ring.memory.store(Word::Data(place.start), header, Release); // edge `commit`
        } else {
            let padding = Record::pad(place.record.wrapping_sub(place.start));
            let padding = ring.rules.encode(&padding, place.start);
            // The padding is what the consumer meets first, so the store of its header publishes both.
            ring.memory.store(Word::Data(place.record), header, Relaxed);
            ring.memory.store(Word::Data(place.start), padding, Release); // edge `commit`
        }
        self.tail = place.end;
    }

    /// Sends one record.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was stored.
    pub(crate) fn send<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        payload: &[u8],
    ) -> Result<Sent, Refusal> {
        let record = Record::data(payload.len() as u32);
        let place = Self::place_at(ring, self.tail, &record);
        if !self.has_space(ring, place.end)? {
            return Err(self.no_space(ring, place.end));
        }
        Ok(self.write(ring, place, &record, payload))
    }

    /// Sends one request, with its extension word.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was stored.
    pub(crate) fn send_call<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        payload: &[u8],
        ext: RecordExt,
    ) -> Result<Sent, Refusal> {
        let record = Record::call(payload.len() as u32, 0);
        let place = Self::place_at(ring, self.tail, &record);
        if !self.has_space(ring, place.end)? {
            return Err(self.no_space(ring, place.end));
        }
        Ok(self.write_ext(ring, place, &record, (ext, payload)))
    }

    /// As [`Self::write`], of a record with an extension word.
    pub(super) fn write_ext<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        place: Place,
        record: &Record,
        (ext, payload): (RecordExt, &[u8]),
    ) -> Sent {
        let ext_position = place.record.wrapping_add(RECORD_HEADER_LEN);
        ring.memory.store(Word::Data(ext_position), ext.to_word(), Relaxed);
        self.write(ring, place, record, payload)
    }

    /// Fast path of [`Self::send`]: sends one record if there is space and no padding is needed. Returns
    /// `None`, having stored nothing, if the slow path must decide.
    #[inline(always)]
    pub(crate) fn send_fast<M: Memory>(&mut self, ring: &Ring<M>, payload: &[u8]) -> Option<Sent> {
        self.put_fast(ring, &Record::data(payload.len() as u32), None, payload)
    }

    /// Fast path of [`Self::send_call`], likewise.
    #[inline(always)]
    pub(crate) fn call_fast<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        payload: &[u8],
        ext: RecordExt,
    ) -> Option<Sent> {
        self.put_fast(ring, &Record::call(payload.len() as u32, 0), Some(ext), payload)
    }

    #[inline(always)]
    fn put_fast<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        record: &Record,
        ext: Option<RecordExt>,
        payload: &[u8],
    ) -> Option<Sent> {
        let (rules, start) = (ring.rules, self.tail);
        let len = rules.record_len(record);
        if len > rules.len_to_end(start) {
            return None;
        }
        let place = Place { start, record: start, end: start.wrapping_add(len) };
        if !matches!(self.has_space(ring, place.end), Ok(true)) {
            return None;
        }
        crash_point!("send.before-payload");
        Self::zero_behind(ring, place.end);
        if let Some(ext) = ext {
            let position = start.wrapping_add(RECORD_HEADER_LEN);
            ring.memory.store(Word::Data(position), ext.to_word(), Relaxed);
        }
        ring.memory.copy_in(start.wrapping_add(record.payload_offset()), payload);
        crash_point!("send.before-commit");
        self.publish(ring, place, rules.encode(record, start));
        crash_point!("send.after-commit");
        Some(Sent { count: 1, payload_len: payload.len() })
    }

    /// Writes and publishes a record at `place`, which is free.
    #[inline(always)]
    pub(super) fn write<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        place: Place,
        record: &Record,
        payload: &[u8],
    ) -> Sent {
        crash_point!("send.before-payload");
        Self::zero_behind(ring, place.end);
        ring.memory.copy_in(place.record.wrapping_add(record.payload_offset()), payload);
        crash_point!("send.before-commit");
        self.publish(ring, place, ring.rules.encode(record, place.record));
        crash_point!("send.after-commit");
        Sent { count: 1, payload_len: payload.len() }
    }

    /// Sends as many of `payloads` as there is space for, from the first on. The consumer sees all of
    /// them or none.
    ///
    /// # Errors
    /// [`Refusal`] if there is no space for the first; nothing was published.
    #[inline(never)] // by itself, its loop keeps what it needs in registers
    pub(crate) fn send_batch<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        payloads: &[&[u8]],
    ) -> Result<Sent, Refusal> {
        let Some((first, others)) = payloads.split_first() else {
            return Ok(Sent { count: 0, payload_len: 0 });
        };
        let record = Record::data(first.len() as u32);
        let place = Self::place_at(ring, self.tail, &record);
        if !self.has_space(ring, place.end)? {
            return Err(self.no_space(ring, place.end));
        }
        // The first record is written last: until its header word is stored, the others are out of reach.
        let (mut unsent, mut payload_len, mut end) = (others, first.len(), place.end);
        let (rules, mut left) = (ring.rules, self.left_behind(ring, end));
        while let [payload, behind @ ..] = unsent {
            let record = Record::data(payload.len() as u32);
            let len = rules.record_len(&record);
            if len > left {
                let place = Self::place_at(ring, end, &record);
                if !self.has_space(ring, place.end)? {
                    break;
                }
                pad_unpublished(ring, place);
                (end, left) = (place.record, self.left_behind(ring, place.record));
            }
            ring.memory.copy_in(end.wrapping_add(RECORD_HEADER_LEN), payload);
            ring.memory.store(Word::Data(end), rules.encode(&record, end), Relaxed);
            (end, left) = (end.wrapping_add(len), left - len);
            (unsent, payload_len) = (behind, payload_len + payload.len());
        }
        ring.memory.copy_in(place.record.wrapping_add(RECORD_HEADER_LEN), first);
        let header = ring.rules.encode(&record, place.record);
        Self::zero_behind(ring, end);
        crash_point!("batch.before-commit");
        self.publish(ring, Place { end, ..place }, header);
        Ok(Sent { count: payloads.len() - unsent.len(), payload_len })
    }

    /// Reserves space for a record with a payload of `payload_len` bytes. [`Self::commit`] publishes it.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn reserve<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        payload_len: u32,
    ) -> Result<Reserved, Refusal> {
        let reserved = Reserved { payload_len: payload_len.into() };
        let end = self.place_of(ring, reserved).end;
        if !self.has_space(ring, end)? {
            return Err(self.no_space(ring, end));
        }
        Self::zero_behind(ring, end);
        Ok(reserved)
    }

    /// Fast path of [`Self::reserve`]. Returns `None` if the slow path must decide.
    #[inline(always)]
    pub(crate) fn reserve_fast<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        payload_len: u32,
    ) -> Option<Reserved> {
        let reserved = Reserved { payload_len: payload_len.into() };
        let end = self.place_of(ring, reserved).end;
        if !matches!(self.has_space(ring, end), Ok(true)) {
            return None;
        }
        Self::zero_behind(ring, end);
        Some(reserved)
    }

    #[inline(always)]
    fn place_of<M>(&self, ring: &Ring<M>, reserved: Reserved) -> Place {
        Self::place_at(ring, self.tail, &Record::data(reserved.payload_len as u32))
    }

    /// Start of the reserved payload.
    #[inline]
    pub(crate) fn payload_position<M>(&self, ring: &Ring<M>, reserved: Reserved) -> u64 {
        self.place_of(ring, reserved).record.wrapping_add(RECORD_HEADER_LEN)
    }

    /// Publishes the first `payload_len` bytes that were built in the reserved space, and at most as many as
    /// were reserved.
    #[inline(always)]
    pub(crate) fn commit<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        reserved: Reserved,
        payload_len: usize,
    ) -> Sent {
        let place = self.place_of(ring, reserved);
        let payload_len = payload_len.min(reserved.payload_len());
        let record = Record::data(payload_len as u32);
        let end = place.record.wrapping_add(ring.rules.record_len(&record));
        if end != place.end {
            Self::zero_behind(ring, end);
        }
        self.publish(ring, Place { end, ..place }, ring.rules.encode(&record, place.record));
        Sent { count: 1, payload_len }
    }

    /// Bytes that records may take from `start` on without another load: to the end of the area, or to a
    /// zero word before the end of the space last seen.
    #[inline(always)]
    fn left_behind<M>(&self, ring: &Ring<M>, start: u64) -> u64 {
        let space = ring.rules.capacity - RECORD_HEADER_LEN - start.wrapping_sub(self.head);
        space.min(ring.rules.len_to_end(start))
    }

    /// The window of a producer that takes an endpoint over: it starts behind every published record.
    ///
    /// A record is published if its header word is there, also if its producer died before it stored
    /// `tail`. The walk over them only reads; then their end is stored.
    ///
    /// # Errors
    /// If a header or a position is impossible.
    pub(crate) fn take_over<M: Memory>(ring: &Ring<M>) -> Result<Self, Damage> {
        let stored = ring.memory.load(Word::Tail, Acquire);
        if !ring.is_aligned(stored) {
            return Err(position_damage("tail", stored, "head", 0));
        }
        let mut tail = stored;
        while let Some(record) =
            ring.rules.decode(ring.memory.load(Word::Data(tail), Acquire), tail)?
        {
            tail = tail.wrapping_add(ring.rules.record_len(&record));
            if tail.wrapping_sub(stored) > ring.rules.capacity {
                return Err(position_damage("tail", stored, "records up to", tail));
            }
        }
        let head = ring.memory.load(Word::Head, Acquire); // edge `free`
        if tail.wrapping_sub(head) > ring.rules.capacity || !ring.is_aligned(head) {
            return Err(position_damage("head", head, "tail", tail));
        }
        if tail != stored {
            // This store comes before any record is written: otherwise the next producer to take over
            // would walk from a tail that new records have overwritten. A killed process stops between
            // two instructions and all its earlier stores arrive, so only the compiler could break the
            // order.
            ring.memory.store(Word::Tail, tail, Release);
            compiler_fence(SeqCst);
        }
        Ok(Self { tail, head })
    }

    /// Loads the window from the control block. The caller holds the lock.
    ///
    /// # Errors
    /// If the positions contradict each other: no loop may run on them then.
    #[inline]
    pub(crate) fn load<M: Memory>(ring: &Ring<M>) -> Result<Self, Damage> {
        let tail = ring.memory.load(Word::Tail, Relaxed); // edge `lock`, as the next
        let head = ring.memory.load(Word::HeadCache, Relaxed);
        let is_aligned = ring.is_aligned(tail) && ring.is_aligned(head);
        if tail.wrapping_sub(head) > ring.rules.capacity || !is_aligned {
            return Err(position_damage("tail", tail, "head_cache", head));
        }
        Ok(Self { tail, head })
    }

    /// Stores the window into the control block. The caller holds the lock.
    #[inline]
    pub(crate) fn store<M: Memory>(&self, ring: &Ring<M>) {
        // A successor of a dead holder goes on from this tail, so all records up to it must be visible.
        ring.memory.store(Word::Tail, self.tail, Release);
        ring.memory.store(Word::HeadCache, self.head, Relaxed);
    }
}

/// Writes the padding before a record of a batch whose first record is not published yet.
#[cold]
fn pad_unpublished<M: Memory>(ring: &Ring<M>, Place { start, record, .. }: Place) {
    if record != start {
        let padding = Record::pad(record.wrapping_sub(start));
        ring.memory.store(Word::Data(start), ring.rules.encode(&padding, start), Relaxed);
    }
}

#[cold]
pub(super) fn position_damage(
    word: &'static str,
    found: u64,
    against: &'static str,
    other: u64,
) -> Damage {
    Damage::Position { word, found, against, other }
}
