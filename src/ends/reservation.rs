//! Building a message in place.

use std::convert::Infallible;
use std::io::{self, Read};
use std::mem::offset_of;

use tombolo_abi::Slot;

use crate::deadline::Deadline;
use crate::ends::{NotSent, SendError, SendTimeoutError, Sender, Sending, Spsc, TrySendError};
use crate::error::Error;
use crate::mem::Payload;
use crate::ring::Reserved;

/// Space reserved in the ring for building one message in place.
///
/// [`Reservation::commit`] sends the message; a reservation that is dropped or forgotten sends nothing and
/// leaves nothing behind. Bytes that are not written hold those of earlier messages.
///
/// # Source
/// Aeron's claim, commit and abort; the name `reserve` is tokio's.
#[derive(Debug)]
pub struct Reservation<'a> {
    sending: &'a mut Sending<Spsc>,
    reserved: Option<Reserved>,
}

impl Sender<Spsc> {
    /// Reserves space for a message of `len` bytes, waiting while the ring is full.
    ///
    /// # Errors
    /// As [`Self::send`].
    ///
    /// # Examples
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("demo.tombolo");
    /// let mut region = tombolo::EventsRegion::open_path(path)?;
    /// let (mut tx, mut rx) = region.split_spsc()?;
    /// let mut reservation = tx.reserve(100)?;
    /// reservation.write_at(0, b"built ")?;
    /// reservation.write_at(6, b"in place")?;
    /// reservation.commit_len(14)?;
    /// assert_eq!(rx.recv()?.data, b"built in place");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias("claim", "loan"))]
    pub fn reserve(&mut self, len: usize) -> Result<Reservation<'_>, SendError> {
        Ok(self.reserve_timeout(len, Deadline::NEVER)?)
    }

    /// Reserves space for a message of `len` bytes, waiting for it until `deadline`.
    ///
    /// # Errors
    /// As [`Self::send_timeout`].
    pub fn reserve_timeout(
        &mut self,
        len: usize,
        deadline: impl Into<Deadline>,
    ) -> Result<Reservation<'_>, SendTimeoutError> {
        let index = self.ring();
        self.until(deadline.into(), |sender| sender.attempt_reserve(len))
            .and_then(|reserved| self.reservation(reserved))
            .map_err(|error| error.into_timeout_error((), index))
    }

    /// Reserves space for a message of `len` bytes if there is any now.
    ///
    /// # Errors
    /// As [`Self::try_send`].
    #[doc(alias = "try_claim")]
    #[inline]
    pub fn try_reserve(&mut self, len: usize) -> Result<Reservation<'_>, TrySendError> {
        let reserved = match self.reserve_fast(len) {
            Some(reserved) => reserved,
            None => self.attempt_reserve(len).map_err(|error| error.into_try_error(()))?,
        };
        self.reservation(reserved).map_err(|error| error.into_try_error(()))
    }

    /// Fast path; returns `None` if [`Self::attempt_reserve`] must decide.
    #[inline(always)]
    fn reserve_fast(&mut self, len: usize) -> Option<Reserved> {
        let Sending { end, producer, .. } = self.sending()?;
        let may_be = end.is_sound() && len <= end.entry.max_message as usize;
        may_be.then(|| producer.window.reserve_fast(&end.ring, len as u32)).flatten()
    }

    #[cold]
    fn attempt_reserve(&mut self, len: usize) -> Result<Reserved, NotSent> {
        let sending = self.usable()?;
        sending.check_len(len)?;
        sending.attempt(|Sending { end, producer, .. }| {
            let reserved = producer.window.reserve(&end.ring, len as u32);
            reserved.map_err(|refusal| NotSent::of(end, refusal))
        })
    }

    #[inline(always)]
    fn reservation(&mut self, reserved: Reserved) -> Result<Reservation<'_>, NotSent> {
        match self.sending() {
            Some(sending) => Ok(Reservation { sending, reserved: Some(reserved) }),
            None => Err(Error::ForkedChild.into()), // never: the space came from there
        }
    }
}

impl Reservation<'_> {
    /// Bytes reserved.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.reserved.map_or(0, Reserved::payload_len)
    }

    /// Whether no bytes were reserved, which is legal.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes `bytes` from `offset` on.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`] if they reach beyond the reservation; nothing was written.
    #[inline]
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Error> {
        self.payload().write_at(offset, bytes)
    }

    /// Fills the reservation from `source`, from its first byte on, until it is full or `source` ends, and
    /// returns how many bytes that were.
    ///
    /// # Errors
    /// Those of `source`; interruptions are retried.
    pub fn fill_from(&mut self, mut source: impl Read) -> io::Result<usize> {
        let mut chunk = [0; 4096];
        let mut filled = 0;
        while filled < self.len() {
            let len_max = chunk.len().min(self.len() - filled);
            match source.read(&mut chunk[..len_max]) {
                Ok(0) => break,
                Ok(len) => {
                    let bytes = &chunk[..len.min(len_max)];
                    self.payload().write_at(filled, bytes).map_err(io::Error::other)?;
                    filled += len.min(len_max);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// The address of the reserved bytes, for filling them by other means. Valid for [`Self::len`] bytes
    /// while the reservation lives, in the process that made it.
    #[must_use]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.payload().as_ptr()
    }

    /// Sends the message with all bytes reserved.
    ///
    /// # Errors
    /// [`Error::ForkedChild`] in a forked child; [`Error::Poisoned`], [`Error::LockLost`] or
    /// [`Error::RegionTooSmall`] if the ring or this end of it is no longer usable. Nothing was sent.
    #[inline]
    pub fn commit(self) -> Result<(), Error> {
        let len = self.len();
        self.commit_len(len)
    }

    /// Sends the first `len` bytes of what was reserved.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`] if fewer were reserved; as [`Self::commit`]; nothing was sent.
    #[inline]
    pub fn commit_len(mut self, len: usize) -> Result<(), Error> {
        if len > self.len() {
            return Err(Error::BufferTooSmall { needed: len, available: self.len() });
        }
        let Sending { end, producer, wakes, .. } = &mut *self.sending;
        end.check_usable()?;
        if let Some(reserved) = self.reserved.take() {
            let Ok(_) = producer.produce(&end.ring, wakes, |window, ring| {
                Ok::<_, Infallible>(window.commit(ring, reserved, len))
            });
            end.settle_now_and_then(wakes);
        }
        end.check_whole()
    }

    #[inline]
    fn payload(&self) -> Payload<'_> {
        let Sending { end, producer, .. } = &*self.sending;
        let position = self
            .reserved
            .map_or(0, |reserved| producer.window.payload_position(&end.ring, reserved));
        Payload::new(&end.ring.memory, position, self.len())
    }
}

/// Gives the space up: nothing is sent.
impl Drop for Reservation<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.reserved.is_some() && self.sending.end.ring.memory.is_ours() {
            self.sending.end.slot.count(offset_of!(Slot, aborts));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::endpoint::slot_offset;
    use crate::error::Damage;
    use crate::ring::doorbell::{Polled, poll};
    use crate::{EventsRegion, OpenOptions, SpscReceiver, SpscSender, TryRecvError};

    fn ends() -> (SpscSender, SpscReceiver) {
        let options = OpenOptions::new().spsc_capacity(1 << 16);
        EventsRegion::anonymous(options).unwrap().split_spsc().unwrap()
    }

    /// Runs its steps one after the other, then ends.
    struct Source<F>(Vec<F>);

    impl<F: FnMut(&mut [u8]) -> io::Result<usize>> Read for Source<F> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            assert!(!buffer.is_empty(), "asked for nothing");
            if self.0.is_empty() { Ok(0) } else { self.0.remove(0)(buffer) }
        }
    }

    type Step = fn(&mut [u8]) -> io::Result<usize>;

    const THREE: Step = |buffer| {
        buffer[..3].fill(3);
        Ok(3)
    };
    const INTERRUPTED: Step = |_| Err(io::ErrorKind::Interrupted.into());
    const FAILING: Step = |_| Err(io::ErrorKind::BrokenPipe.into());
    /// Fills all, and says that it was more.
    const LYING: Step = |buffer| {
        buffer.fill(9);
        Ok(buffer.len() + 1)
    };

    fn fill(len: usize, steps: &[Step]) -> io::Result<usize> {
        let (mut tx, _rx) = ends();
        tx.reserve(len).unwrap().fill_from(Source(steps.to_vec()))
    }

    #[test]
    fn a_claim_is_filled_until_it_is_full_or_its_source_ends_or_fails() {
        assert_eq!(fill(10, &[THREE, INTERRUPTED, THREE]).unwrap(), 6);
        assert_eq!(fill(6, &[THREE, THREE, FAILING]).unwrap(), 6);
        assert_eq!(fill(0, &[FAILING]).unwrap(), 0);
        let error = fill(10, &[THREE, FAILING, THREE]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        let (mut tx, mut rx) = ends();
        let mut reservation = tx.reserve(5000).unwrap();
        assert_eq!(reservation.fill_from(&[7; 9000][..]).unwrap(), 5000, "more than it takes");
        reservation.commit().unwrap();
        assert_eq!(rx.recv().unwrap().data, [7; 5000]);
    }

    #[test]
    fn a_source_that_says_it_has_read_more_than_was_asked_for_is_not_believed() {
        assert_eq!(fill(10, &[LYING]).unwrap(), 10);
        assert_eq!(fill(5000, &[LYING, LYING]).unwrap(), 5000);
    }

    #[test]
    fn nothing_is_committed_to_a_ring_that_was_damaged_meanwhile() {
        let (mut tx, mut rx) = ends();
        rx.attach().unwrap();
        let reservation = tx.reserve(4).unwrap();
        let tail = rx.receiving.as_ref().unwrap().consumer.head();
        let ring = &rx.receiving.as_ref().unwrap().end.ring;
        ring.poison(Damage::Marked { code: 1 });
        assert!(matches!(reservation.commit(), Err(Error::Poisoned { .. })));
        let found = poll(ring, tail);
        assert_eq!(found, Polled::Nothing);
    }

    /// A counter in the sender's slot.
    fn counter(tx: &SpscSender, offset: usize) -> u64 {
        let slot = &tx.attached_end().unwrap().slot;
        let offset = slot_offset(slot.region(), slot.identity().slot, offset);
        slot.region().mapping().word_u64(offset).load(Relaxed)
    }

    #[test]
    fn claims_that_are_given_back_are_counted_and_those_that_are_committed_are_not() {
        let (mut tx, _rx) = ends();
        tx.reserve(4).unwrap().commit().unwrap();
        assert_eq!(counter(&tx, offset_of!(Slot, aborts)), 0);
        drop(tx.reserve(4).unwrap());
        assert_eq!(counter(&tx, offset_of!(Slot, aborts)), 1);
    }

    #[test]
    fn commits_store_now_and_then_how_often_the_receiver_did_not_sleep() {
        let (mut tx, mut rx) = ends();
        for _ in 0..2000 {
            tx.reserve(4).unwrap().commit().unwrap();
            rx.recv().unwrap();
        }
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
        assert!(counter(&tx, offset_of!(Slot, wakes_elided)) > 0);
    }
}
