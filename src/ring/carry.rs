//! Records with handles: the handles are transferred before the record is published.
//!
//! ```text
//! find space, transfer, write, publish
//! ```
//!
//! The usual failure, a refused transfer, has then touched nothing. A process that dies between
//! transferring and publishing leaves an orphan: handles without a record.
//!
//! **Handles under way** are the difference of two counters, one on each side. A producer counts before it
//! publishes, a consumer after it has freed: a death in between leaves the difference too large by the
//! handles of one message, and never too small. So deaths let no sender exceed the bound. A sender that is
//! held back by it adds up the handles of the records in the ring and stores its own counter anew. It does
//! so again once half of those records are freed, so that it reads no more than two records for each that is
//! received.

use std::sync::atomic::Ordering::Relaxed;

use tombolo_abi::{HANDLE_COUNT_MAX, Record, RecordExt};

use super::window::position_damage;
use super::{Memory, Refusal, Ring, Sent, SpaceWanted, Window, Word};
use crate::crash::crash_point;
use crate::error::Damage;

/// Handles that may be under way in a ring: below what the kernel takes for one sender, and for one
/// user. A recount that comes between the consumer's freeing and counting allows one message more.
pub(crate) const IN_FLIGHT_MAX: u64 = 256;

/// What the ring needs of a message with handles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carried<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) handle_count: u8,
    pub(crate) ext: RecordExt,
    /// Whether it is a request.
    pub(crate) is_call: bool,
}

/// The place of a record that is not published yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    /// The ring's tail.
    pub(crate) tail: u64,
    /// The record's position.
    pub(crate) position: u64,
}

/// Why a message with handles was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotCarried<E> {
    /// The ring refused it; nothing was transferred.
    Refused(Refusal),
    /// The transfer failed.
    NotTransferred(E),
}

impl<E> From<Refusal> for NotCarried<E> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl<E> From<Damage> for NotCarried<E> {
    fn from(damage: Damage) -> Self {
        Self::Refused(damage.into())
    }
}

/// When a producer may add up the handles under way again: once the consumer is at position `from`, or at
/// once if it never has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Recount {
    pub(super) from: Option<u64>,
}

impl Recount {
    /// Bytes that the consumer at `head` is short of `from`; 0 if the producer may recount.
    fn distance(&self, head: u64) -> u64 {
        let distance = self.from.map_or(0, |from| from.wrapping_sub(head) as i64);
        u64::try_from(distance).unwrap_or(0)
    }
}

impl Window {
    /// Sends one record; `transfer` gives its handles to the kernel.
    ///
    /// # Errors
    /// [`NotCarried`]; nothing was published.
    #[cold]
    pub(crate) fn send_carried<M: Memory, E>(
        &mut self,
        ring: &Ring<M>,
        carried: &Carried<'_>,
        recount: &mut Recount,
        transfer: impl FnOnce(Spot) -> Result<(), E>,
    ) -> Result<Sent, NotCarried<E>> {
        let Carried { payload, handle_count, ext, is_call } = *carried;
        let of_kind = if is_call { Record::call } else { Record::with_handles };
        let record = of_kind(payload.len() as u32, handle_count);
        let sent = self.check_under_way(ring, handle_count, recount)?;
        let place = Self::place_at(ring, self.tail, &record);
        if !self.has_space(ring, place.end)? {
            return Err(self.no_space(ring, place.end).into());
        }
        crash_point!("carry.before-hand-over");
        let spot = Spot { tail: self.tail, position: place.record };
        transfer(spot).map_err(NotCarried::NotTransferred)?;
        crash_point!("carry.after-hand-over");
        // Before publishing: a death in between leaves the count too large. Ours, or edge `lock`.
        ring.memory.store(Word::HandlesSent, sent.wrapping_add(handle_count.into()), Relaxed);
        Ok(self.write_ext(ring, place, &record, (ext, payload)))
    }

    /// Refuses if too many handles are under way. Returns the count of those sent so far.
    fn check_under_way<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        handle_count: u8,
        recount: &mut Recount,
    ) -> Result<u64, Refusal> {
        let bound = IN_FLIGHT_MAX as i64 - i64::from(handle_count);
        let sent = ring.memory.load(Word::HandlesSent, Relaxed); // ours, or edge `lock`
        let taken = ring.memory.load(Word::HandlesTaken, Relaxed); // a hint
        // A recount may have come before the consumer counted one message. Fewer than that is a lie.
        let fewest = -i64::from(HANDLE_COUNT_MAX);
        if (fewest..=bound).contains(&(sent.wrapping_sub(taken) as i64)) {
            return Ok(sent);
        }
        self.refresh_head(ring)?;
        if recount.distance(self.head) == 0 {
            let under_way = self.handles_in(ring)?;
            // Loaded after `head`: what was freed in between is counted twice, and not left out.
            let taken = ring.memory.load(Word::HandlesTaken, Relaxed);
            let sent = taken.wrapping_add(under_way);
            ring.memory.store(Word::HandlesSent, sent, Relaxed); // ours, or edge `lock`
            recount.from = Some(self.tail.wrapping_sub(self.tail.wrapping_sub(self.head) / 2));
            if under_way as i64 <= bound {
                return Ok(sent);
            }
        }
        let free = ring.rules.capacity - self.tail.wrapping_sub(self.head);
        let needed = free.saturating_add(recount.distance(self.head)).min(ring.rules.capacity);
        Err(Refusal::full(ring, SpaceWanted { tail: self.tail, needed, comfortable: needed }))
    }

    /// Handles of all records from `head` to `tail`. Only producers write there, and this one may.
    #[cold]
    fn handles_in<M: Memory>(&self, ring: &Ring<M>) -> Result<u64, Damage> {
        let Self { tail, head, .. } = *self;
        let (mut position, mut count) = (head, 0);
        while position != tail {
            let word = ring.memory.load(Word::Data(position), Relaxed); // ours, or edge `lock`
            let record = ring.rules.decode(word, position)?;
            let len = record.map_or(0, |record| ring.rules.record_len(&record));
            if len == 0 || len > tail.wrapping_sub(position) {
                return Err(position_damage("tail", tail, "records up to", position));
            }
            count += record.map_or(0, |record| u64::from(record.handle_count));
            position = position.wrapping_add(len);
        }
        Ok(count)
    }
}
