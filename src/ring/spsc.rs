//! The producer of an SPSC ring: a window of its own, no lock.

use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::sync::atomic::compiler_fence;

use tombolo_abi::{RECORD_HEADER_LEN, Record};

use super::carry::Recount;
use super::doorbell::{Wakes, notify_consumer};
use super::{Memory, Place, Refusal, Ring, Window, Word};
use crate::error::Damage;

/// The one producer of a ring.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpscProducer {
    /// Where it is. Private: the control block has a copy of `tail` for tools and successors.
    pub(crate) window: Window,
    /// Sends that found no room.
    full_events: u64,
    /// Whether the consumer can make this process fence, so that it need not for each message.
    relies_on_barriers: bool,
    /// When to add up the handles under way.
    pub(super) recount: Recount,
}

/// Room lent for building a record in place: a single word, as of [`super::Front`]. Where it lies follows
/// from where the producer is, which does not move before the record is published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimed {
    payload_len: u64,
}

impl Claimed {
    /// Bytes of payload that were claimed.
    #[inline]
    pub(crate) fn payload_len(self) -> usize {
        self.payload_len as usize
    }

    fn record(self) -> Record {
        Record::data(self.payload_len as u32)
    }
}

impl SpscProducer {
    /// Takes the producer's end over from whoever had it before, dead in the middle of anything.
    ///
    /// # Errors
    /// Where a header or a position is impossible.
    pub(crate) fn attach<M: Memory>(ring: &Ring<M>) -> Result<Self, Damage> {
        let window = Window::take_over(ring)?;
        let counter = |word| ring.memory.load(word, Relaxed); // ours: nobody else writes them
        Ok(Self {
            window,
            full_events: counter(Word::FullEvents),
            relies_on_barriers: ring.memory.is_reached_by_barriers(),
            recount: Recount::default(),
        })
    }

    /// Sends one record where nothing stands in the way, as [`Window::send_at_once`].
    #[inline(always)]
    pub(crate) fn send_at_once<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        payload: &[u8],
        wakes: &Wakes,
    ) -> bool {
        let sent = self.window.send_at_once(ring, payload);
        if sent {
            self.finish(ring, 1, payload.len(), wakes);
        }
        sent
    }

    /// Sends one record.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn try_send<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        payload: &[u8],
        wakes: &Wakes,
    ) -> Result<(), Refusal> {
        if self.send_at_once(ring, payload, wakes) {
            return Ok(());
        }
        let sent = self.window.send(ring, &Record::data(payload.len() as u32), payload);
        sent.inspect_err(|refusal| self.note(ring, refusal))?;
        self.finish(ring, 1, payload.len(), wakes);
        Ok(())
    }

    /// Sends as many of `payloads` as there is room for, visible all at once. Gives how many.
    ///
    /// # Errors
    /// [`Refusal`], where there is no room for the first.
    pub(crate) fn try_send_batch<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        payloads: &[&[u8]],
        wakes: &Wakes,
    ) -> Result<usize, Refusal> {
        let sent = self.window.send_batch(ring, payloads);
        let (count, payload_len) = sent.inspect_err(|refusal| self.note(ring, refusal))?;
        self.finish(ring, count, payload_len, wakes);
        Ok(count)
    }

    /// Lends room where nothing stands in the way; [`Self::claim`] tells why not.
    #[inline(always)]
    pub(crate) fn claim_at_once<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        payload_len: u32,
    ) -> Option<Claimed> {
        let claimed = Claimed { payload_len: payload_len.into() };
        let has_room = self.window.has_room(ring, self.place_of(ring, claimed).end).ok()?;
        has_room.then_some(claimed)
    }

    /// Where the room lies.
    #[inline(always)]
    fn place_of<M>(&self, ring: &Ring<M>, claimed: Claimed) -> Place {
        Window::place_at(ring, self.window.tail, &claimed.record())
    }

    /// Where the payload of the room starts.
    #[inline]
    pub(crate) fn payload_position<M>(&self, ring: &Ring<M>, claimed: Claimed) -> u64 {
        self.place_of(ring, claimed).record.wrapping_add(RECORD_HEADER_LEN)
    }

    /// Lends room for a payload of `payload_len` bytes. Giving the claim up takes nothing more than
    /// forgetting it.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn claim<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        payload_len: u32,
    ) -> Result<Claimed, Refusal> {
        let claimed = Claimed { payload_len: payload_len.into() };
        let end = self.place_of(ring, claimed).end;
        if !self.window.has_room(ring, end)? {
            let refusal = self.window.no_room(ring, end);
            self.note(ring, &refusal);
            return Err(refusal);
        }
        Ok(claimed)
    }

    /// Publishes the first `payload_len` bytes of what was built at `claimed`, at most what was
    /// claimed.
    #[inline(always)]
    pub(crate) fn commit<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        claimed: Claimed,
        payload_len: usize,
        wakes: &Wakes,
    ) {
        let place = self.place_of(ring, claimed);
        let record = Record::data(payload_len.min(claimed.payload_len()) as u32);
        let end = place.record.wrapping_add(ring.rules.record_len(&record));
        let header = ring.rules.encode(&record, place.record);
        self.window.publish(ring, Place { end, ..place }, header);
        self.finish(ring, 1, record.payload_len as usize, wakes);
    }

    /// What follows publishing, off the path of the message just sent.
    #[inline(always)]
    pub(super) fn finish<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        count: usize,
        payload_len: usize,
        wakes: &Wakes,
    ) {
        notify_consumer(ring, &mut self.relies_on_barriers, wakes);
        ring.memory.store(Word::Tail, self.window.tail, Release); // for tools and successors
        compiler_fence(SeqCst); // before anything else is written, see `Window::take_over`
        for (word, amount) in [(Word::SentMsgs, count), (Word::SentBytes, payload_len)] {
            let before = ring.memory.load(word, Relaxed); // ours: nobody else writes it
            ring.memory.store(word, before.wrapping_add(amount as u64), Relaxed);
        }
    }

    #[cold]
    pub(super) fn note<M: Memory>(&mut self, ring: &Ring<M>, refusal: &Refusal) {
        if matches!(refusal, Refusal::Full(_)) {
            self.full_events = self.full_events.wrapping_add(1);
            ring.memory.store(Word::FullEvents, self.full_events, Relaxed); // ours
        }
    }
}
