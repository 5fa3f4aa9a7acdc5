//! Records with handles: what they carry is handed over before they are published.
//!
//! ```text
//! find room, prepare, hand over, write, publish
//! ```
//!
//! The usual failure, that nothing can be handed over, has then touched nothing but zeros. Whoever dies
//! between handing over and publishing leaves what it handed over behind, without a record.

use std::sync::atomic::Ordering::Relaxed;

use tombolo_abi::{RECORD_HEADER_LEN, Record, RecordExt};

use super::doorbell::Wakes;
use super::{LaneProducer, Locked, Memory, NoRoom, Refusal, Ring, SpscProducer, Window, Word};
use crate::crash::crash_point;
use crate::error::Damage;

/// Handles that may be on their way through a ring: below what the kernel takes for one sender, and
/// for one user.
pub(crate) const IN_FLIGHT_MAX: u64 = 256;

/// A message with handles, as far as the ring is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Carried<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) handle_count: u8,
    pub(crate) ext: RecordExt,
}

/// Where a record will be.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    /// The ring's tail.
    pub(crate) tail: u64,
    /// The record's position.
    pub(crate) position: u64,
}

/// Why a message with handles was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotCarried<E> {
    /// The ring refused it; nothing was handed over.
    Refused(Refusal),
    /// It could not be handed over.
    NotHandedOver(E),
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

impl Window {
    /// Sends one record whose handles `hand_over` takes care of.
    ///
    /// # Errors
    /// [`NotCarried`]; nothing was published.
    #[cold]
    fn send_carried<M: Memory, E>(
        &mut self,
        ring: &Ring<M>,
        carried: &Carried<'_>,
        hand_over: impl FnOnce(Spot) -> Result<(), E>,
    ) -> Result<(), NotCarried<E>> {
        let Carried { payload, handle_count, ext } = *carried;
        let record = Record::with_handles(payload.len() as u32, handle_count);
        let sent = self.check_in_flight(ring, handle_count)?;
        let place = Self::place_at(ring, self.tail, &record);
        let Some(zeroed_end) = self.prepare(ring, place.end)? else {
            return Err(self.no_room(ring, place.end).into());
        };
        crash_point!("carry.before-hand-over");
        let spot = Spot { tail: self.tail, position: place.record };
        hand_over(spot).map_err(NotCarried::NotHandedOver)?;
        crash_point!("carry.after-hand-over");
        let ext_position = place.record.wrapping_add(RECORD_HEADER_LEN);
        ring.memory.store(Word::Data(ext_position), ext.to_word(), Relaxed);
        self.write(ring, place, &record, payload, zeroed_end);
        let sent = sent.wrapping_add(handle_count.into());
        ring.memory.store(Word::HandlesSent, sent, Relaxed); // ours, or edge `lock`
        Ok(())
    }

    /// Refuses where too many handles are on their way; gives the count of those sent so far.
    ///
    /// Whoever died between two steps may have left the counters apart. An empty ring has nothing on
    /// its way, and sets them right; so does a count of more taken than sent, which else would let ever
    /// more pass.
    fn check_in_flight<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        handle_count: u8,
    ) -> Result<u64, Refusal> {
        let sent = ring.memory.load(Word::HandlesSent, Relaxed); // ours, or edge `lock`
        let taken = ring.memory.load(Word::HandlesTaken, Relaxed); // a hint
        let in_flight = sent.wrapping_sub(taken) as i64;
        if in_flight < 0 {
            return Ok(taken);
        }
        if in_flight <= IN_FLIGHT_MAX as i64 - i64::from(handle_count) {
            return Ok(sent);
        }
        self.refresh_head(ring)?;
        let used = self.tail.wrapping_sub(self.head);
        if used == 0 {
            return Ok(taken);
        }
        // Half of what is there is to be taken; then one looks again.
        let needed = ring.rules.capacity - used / 2;
        Err(Refusal::Full(NoRoom { tail: self.tail, needed, comfortable: needed }))
    }
}

impl SpscProducer {
    /// Sends one record with handles, as [`Window::send_carried`].
    ///
    /// # Errors
    /// [`NotCarried`].
    pub(crate) fn try_send_carried<M: Memory, E>(
        &mut self,
        ring: &Ring<M>,
        carried: &Carried<'_>,
        hand_over: impl FnOnce(Spot) -> Result<(), E>,
        wakes: &Wakes,
    ) -> Result<(), NotCarried<E>> {
        let sent = self.window.send_carried(ring, carried, hand_over);
        sent.inspect_err(|error| {
            if let NotCarried::Refused(refusal) = error {
                self.note(ring, refusal);
            }
        })?;
        self.finish(ring, 1, carried.payload.len(), wakes);
        Ok(())
    }
}

impl LaneProducer {
    /// Sends one record with handles, as [`Window::send_carried`].
    ///
    /// # Errors
    /// [`NotCarried`].
    pub(crate) fn try_send_carried<M: Memory, E>(
        &mut self,
        ring: &Ring<M>,
        carried: &Carried<'_>,
        hand_over: impl FnOnce(Spot) -> Result<(), E>,
        wakes: &Wakes,
    ) -> Result<(), NotCarried<E>> {
        self.producer.try_send_carried(ring, carried, hand_over, wakes)?;
        self.bit.tell(ring);
        Ok(())
    }
}

impl<M: Memory> Locked<'_, M> {
    /// Sends one record with handles, as [`Window::send_carried`].
    ///
    /// # Errors
    /// [`NotCarried`].
    pub(crate) fn try_send_carried<E>(
        &mut self,
        carried: &Carried<'_>,
        hand_over: impl FnOnce(Spot) -> Result<(), E>,
    ) -> Result<(), NotCarried<E>> {
        let sent = self.window.send_carried(self.ring, carried, hand_over);
        sent.inspect_err(|error| {
            if let NotCarried::Refused(refusal) = error {
                self.note(refusal);
            }
        })?;
        self.finish(1, carried.payload.len());
        Ok(())
    }
}
