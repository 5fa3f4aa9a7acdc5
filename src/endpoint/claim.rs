//! Building a message where it will lie.

use std::io::{self, Read};
use std::mem::offset_of;

use tombolo_abi::Slot;

use super::Deadline;
use super::discipline::Spsc;
use super::errors::{NotSent, SendError, SendTimeoutError, TrySendError};
use super::sender::{self, Sender, unless_gone};
use crate::Error;
use crate::mem::Payload;
use crate::ring;

/// Room in the ring, lent for building one message in place.
///
/// The message is sent by [`Claim::commit`]; a claim that is dropped or forgotten sends nothing and
/// leaves nothing behind. What is not written keeps the bytes of earlier messages.
///
/// # Source
/// Claim, commit and abort are Aeron's words for this.
#[derive(Debug)]
pub struct Claim<'a> {
    claimed: &'a mut sender::Claimed<Spsc>,
    room: Option<ring::Claimed>,
}

impl Sender<Spsc> {
    /// Claims room for a message of `len` bytes, waiting while the ring is full.
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
    /// let mut claim = tx.claim_record(100)?;
    /// claim.write_at(0, b"built ")?;
    /// claim.write_at(6, b"in place")?;
    /// claim.commit_len(14)?;
    /// assert_eq!(rx.recv()?.data, b"built in place");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn claim_record(&mut self, len: usize) -> Result<Claim<'_>, SendError> {
        Ok(self.claim_record_deadline(len, Deadline::NEVER)?)
    }

    /// Claims room for a message of `len` bytes, waiting for it until `deadline`.
    ///
    /// # Errors
    /// As [`Self::send_deadline`].
    pub fn claim_record_deadline(
        &mut self,
        len: usize,
        deadline: impl Into<Deadline>,
    ) -> Result<Claim<'_>, SendTimeoutError> {
        let index = self.ring();
        self.until(deadline.into(), |sender| sender.attempt_claim(len))
            .and_then(|room| self.lend(room))
            .map_err(|error| error.into_timeout_error((), index))
    }

    /// Claims room for a message of `len` bytes if there is any now.
    ///
    /// # Errors
    /// As [`Self::try_send`].
    #[inline]
    pub fn try_claim_record(&mut self, len: usize) -> Result<Claim<'_>, TrySendError> {
        let room = match self.claim_at_once(len) {
            Some(room) => room,
            None => self.attempt_claim(len).map_err(|error| error.into_try_error(()))?,
        };
        self.lend(room).map_err(|error| error.into_try_error(()))
    }

    /// Claims room where nothing stands in the way.
    #[inline(always)]
    fn claim_at_once(&mut self, len: usize) -> Option<ring::Claimed> {
        let sender::Claimed { end, producer, .. } = self.claimed()?;
        let may_be = end.is_sound() && len <= end.entry.max_message as usize;
        may_be.then(|| producer.claim_at_once(&end.ring, len as u32)).flatten()
    }

    #[cold]
    fn attempt_claim(&mut self, len: usize) -> Result<ring::Claimed, NotSent> {
        let claimed = self.usable()?;
        claimed.check_len(len)?;
        let sender::Claimed { end, producer, peer, .. } = claimed;
        let claim = |room: Result<_, _>| room.map_err(|refusal| end.refused(refusal));
        unless_gone(end, peer, || claim(producer.claim(&end.ring, len as u32)))
    }

    #[inline(always)]
    fn lend(&mut self, room: ring::Claimed) -> Result<Claim<'_>, NotSent> {
        match self.claimed() {
            Some(claimed) => Ok(Claim { claimed, room: Some(room) }),
            None => Err(Error::ForkedChild.into()), // never: the room came from there
        }
    }
}

impl Claim<'_> {
    /// Bytes claimed.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.room.map_or(0, ring::Claimed::payload_len)
    }

    /// Whether no bytes were claimed, which is legal.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes `bytes` from `offset` on.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`] where they reach beyond the claim; nothing was written.
    #[inline]
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Error> {
        self.payload().write_at(offset, bytes)
    }

    /// Fills the claim from `source`, from its first byte on, until it is full or `source` ends,
    /// and gives how many bytes that were.
    ///
    /// # Errors
    /// What `source` says; interruptions are retried.
    pub fn fill_from(&mut self, mut source: impl Read) -> io::Result<usize> {
        let mut chunk = [0; 4096];
        let mut filled = 0;
        while filled < self.len() {
            let room = chunk.len().min(self.len() - filled);
            match source.read(&mut chunk[..room]) {
                Ok(0) => break,
                Ok(len) => {
                    let bytes = &chunk[..len.min(room)];
                    self.payload().write_at(filled, bytes).map_err(io::Error::other)?;
                    filled += len.min(room);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Where the claimed bytes lie, for filling them by other means. Valid for [`Self::len`] bytes
    /// while the claim lives, in the process that made it.
    #[must_use]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.payload().as_ptr()
    }

    /// Sends the message as long as it was claimed.
    ///
    /// # Errors
    /// [`Error::ForkedChild`] in a forked child, [`Error::Poisoned`], [`Error::LockLost`] or
    /// [`Error::RegionTooSmall`] where the ring or this end of it came to harm; nothing was sent.
    #[inline]
    pub fn commit(self) -> Result<(), Error> {
        let len = self.len();
        self.commit_len(len)
    }

    /// Sends the first `len` bytes of what was claimed.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`] where fewer were claimed; as [`Self::commit`]; nothing was sent.
    #[inline]
    pub fn commit_len(mut self, len: usize) -> Result<(), Error> {
        if len > self.len() {
            return Err(Error::BufferTooSmall { needed: len, room: self.len() });
        }
        let sender::Claimed { end, producer, wakes, .. } = &mut *self.claimed;
        end.check_usable()?;
        if let Some(room) = self.room.take() {
            producer.commit(&end.ring, room, len, wakes);
            end.settle_now_and_then(wakes);
        }
        end.check_whole()
    }

    #[inline]
    fn payload(&self) -> Payload<'_> {
        let sender::Claimed { end, producer, .. } = &*self.claimed;
        let position = self.room.map_or(0, |room| producer.payload_position(&end.ring, room));
        Payload::new(&end.ring.memory, position, self.len())
    }
}

/// Gives the room back: nothing is sent.
impl Drop for Claim<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.room.is_some() && self.claimed.end.ring.memory.is_ours() {
            self.claimed.end.slot.count(offset_of!(Slot, aborts));
        }
    }
}
