//! The receiving end of a ring.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use tombolo_abi::Role;

use super::attached::Attached;
use super::backoff::Backoff;
use super::discipline::Discipline;
use super::errors::{RecvError, RecvTimeoutError, TryRecvError};
use super::peer::Peer;
use super::{Deadline, MessagePacket};
use crate::Error;
use crate::mem::Payload;
use crate::region::Region;
use crate::ring::{Consumer, Front};

/// The receiving end of a ring: [`SpscReceiver`](crate::SpscReceiver) or
/// [`MpscConsumer`](crate::MpscConsumer).
///
/// It claims its endpoint at first use, or by [`Receiver::claim`]. Messages come in the order of
/// the ring, each once. Where a receiver dies, its successor gets what it had not freed once more,
/// at the same position; nothing else is ever repeated.
///
/// # Source
/// Operations and errors are those of `std::sync::mpsc`.
#[derive(Debug)]
pub struct Receiver<K: Discipline> {
    region: Arc<Region>,
    index: u32,
    claimed: Option<Claimed>,
    discipline: PhantomData<fn() -> K>,
}

/// What a receiver has once it owns its endpoint.
#[derive(Debug)]
struct Claimed {
    end: Attached,
    consumer: Consumer,
    peer: Peer,
}

impl<K: Discipline> Receiver<K> {
    pub(crate) fn new(region: Arc<Region>, index: u32) -> Self {
        Self { region, index, claimed: None, discipline: PhantomData }
    }

    /// Claims the endpoint now and not at first use. Does nothing where it has been claimed.
    ///
    /// Waits up to 100 ms for a process that is just leaving it.
    ///
    /// # Errors
    /// [`Error::Busy`] where somebody else owns it, [`Error::Replaced`] where the region is no
    /// longer the one to use, [`Error::Poisoned`] where the ring is damaged.
    ///
    /// # Cost
    /// About a dozen system calls.
    pub fn claim(&mut self) -> Result<(), Error> {
        self.claimed().map(drop)
    }

    /// Takes the next message, waiting for it.
    ///
    /// # Errors
    /// [`RecvError::Disconnected`] where the ring is empty and its sender has come and gone.
    ///
    /// # Cost
    /// One allocation and one copy of the message; no system call while there are messages.
    pub fn recv(&mut self) -> Result<MessagePacket, RecvError> {
        Ok(self.recv_deadline(Deadline::NEVER)?)
    }

    /// Takes the next message, waiting no longer than `timeout` for it.
    ///
    /// # Errors
    /// As [`Self::recv_deadline`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<MessagePacket, RecvTimeoutError> {
        self.recv_deadline(timeout)
    }

    /// Takes the next message, waiting for it until `deadline`.
    ///
    /// # Errors
    /// [`RecvTimeoutError::Timeout`] where none came until then; else as [`Self::recv`].
    pub fn recv_deadline(
        &mut self,
        deadline: impl Into<Deadline>,
    ) -> Result<MessagePacket, RecvTimeoutError> {
        self.recv_ref_deadline(deadline).map(RecordRef::take)
    }

    /// Takes the next message if there is one now.
    ///
    /// # Errors
    /// [`TryRecvError::Empty`] where there is none; else as [`Self::recv`].
    pub fn try_recv(&mut self) -> Result<MessagePacket, TryRecvError> {
        self.try_recv_ref().map(RecordRef::take)
    }

    /// Takes the next message into `room`, waiting for it, and gives its length.
    ///
    /// # Errors
    /// As [`Self::recv`]; [`Error::BufferTooSmall`] with the size needed, and then the message
    /// stays.
    ///
    /// # Cost
    /// One copy of the message, no allocation; no system call while there are messages.
    ///
    /// # Examples
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("demo.tombolo");
    /// let mut region = tombolo::EventsRegion::open_path(path)?;
    /// let (mut tx, mut rx) = region.split_spsc()?;
    /// tx.send(b"four")?;
    /// let mut room = [0; 64];
    /// assert!(rx.recv_into(&mut room[..3]).is_err());
    /// let len = rx.recv_into(&mut room)?;
    /// assert_eq!(&room[..len], b"four");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_into(&mut self, room: &mut [u8]) -> Result<usize, RecvError> {
        Ok(self.recv_into_deadline(room, Deadline::NEVER)?)
    }

    /// Takes the next message into `room`, waiting for it until `deadline`, and gives its length.
    ///
    /// # Errors
    /// As [`Self::recv_deadline`] and [`Self::recv_into`].
    pub fn recv_into_deadline(
        &mut self,
        room: &mut [u8],
        deadline: impl Into<Deadline>,
    ) -> Result<usize, RecvTimeoutError> {
        let record = self.recv_ref_deadline(deadline)?;
        record.take_into(room).map_err(RecvTimeoutError::from)
    }

    /// Takes the next message into `room` if there is one now, and gives its length.
    ///
    /// # Errors
    /// As [`Self::try_recv`] and [`Self::recv_into`].
    pub fn try_recv_into(&mut self, room: &mut [u8]) -> Result<usize, TryRecvError> {
        let record = self.try_recv_ref()?;
        record.take_into(room).map_err(TryRecvError::from)
    }

    /// Lends the next message in place, waiting for it. Dropping the [`RecordRef`] takes it.
    ///
    /// # Errors
    /// As [`Self::recv`].
    ///
    /// # Cost
    /// No copy and no allocation; no system call while there are messages.
    pub fn recv_ref(&mut self) -> Result<RecordRef<'_>, RecvError> {
        Ok(self.recv_ref_deadline(Deadline::NEVER)?)
    }

    /// Lends the next message in place, waiting for it until `deadline`.
    ///
    /// # Errors
    /// As [`Self::recv_deadline`].
    pub fn recv_ref_deadline(
        &mut self,
        deadline: impl Into<Deadline>,
    ) -> Result<RecordRef<'_>, RecvTimeoutError> {
        let front = self.front_until(deadline.into())?;
        Ok(self.lend(front)?)
    }

    /// Lends the next message in place if there is one now.
    ///
    /// # Errors
    /// As [`Self::try_recv`].
    pub fn try_recv_ref(&mut self) -> Result<RecordRef<'_>, TryRecvError> {
        let front = self.try_front()?;
        Ok(self.lend(front)?)
    }

    /// Hands up to `limit` messages that are there now to `take`, one after the other, and gives
    /// how many. Each is freed when `take` returns.
    ///
    /// # Errors
    /// As [`Self::try_recv`], but an empty ring is no error, it gives 0.
    ///
    /// # Examples
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("demo.tombolo");
    /// let mut region = tombolo::EventsRegion::open_path(path)?;
    /// let (mut tx, mut rx) = region.split_spsc()?;
    /// tx.send_batch(&[b"a", b"b", b"c"])?;
    /// let mut bytes = 0;
    /// assert_eq!(rx.drain(2, |record| bytes += record.len())?, 2);
    /// assert_eq!(rx.drain(usize::MAX, |record| bytes += record.len())?, 1);
    /// assert_eq!(bytes, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn drain(
        &mut self,
        limit: usize,
        mut take: impl FnMut(&RecordRef<'_>),
    ) -> Result<usize, TryRecvError> {
        let mut next = match self.try_front() {
            Err(TryRecvError::Empty) => None,
            front => Some(front?),
        };
        let mut count = 0;
        while let Some(front) = next.filter(|_| count < limit) {
            take(&self.lend(front)?);
            count += 1;
            next = self.claimed()?.front().unwrap_or(None); // damage is told by the next call
        }
        Ok(count)
    }

    /// Iterates over messages as they come, and ends when the ring is empty and its sender is gone.
    /// Damage is an item, not an end.
    pub fn iter(&mut self) -> Iter<'_, K> {
        Iter { receiver: self, is_over: false }
    }

    /// Longest message, in bytes.
    #[must_use]
    pub fn max_message(&self) -> usize {
        self.region.entries()[self.index as usize].max_message as usize
    }

    /// Index of the ring in the region's directory.
    #[must_use]
    pub fn ring(&self) -> u32 {
        self.index
    }

    fn lend(&mut self, front: Front) -> Result<RecordRef<'_>, Error> {
        let Claimed { end, consumer, .. } = self.claimed()?;
        let payload = Payload::new(&end.ring.memory, front.payload_position(), front.payload_len());
        Ok(RecordRef { payload, front, end, consumer, on_drop: OnDrop::Free })
    }

    fn front_until(&mut self, deadline: Deadline) -> Result<Front, RecvTimeoutError> {
        let mut backoff = Backoff::spinning();
        loop {
            match self.try_front() {
                Err(TryRecvError::Empty) if backoff.wait(deadline) => {}
                other => return Ok(other?),
            }
        }
    }

    #[inline]
    fn try_front(&mut self) -> Result<Front, TryRecvError> {
        let claimed = self.claimed()?;
        claimed.end.check_usable()?;
        match claimed.front()? {
            Some(front) => Ok(front),
            None => claimed.empty(),
        }
    }

    #[inline]
    fn claimed(&mut self) -> Result<&mut Claimed, Error> {
        if self.claimed.is_none() {
            self.claimed = Some(self.claim_endpoint()?);
        }
        // Just filled where it was empty; the error is never made.
        self.claimed.as_mut().ok_or(Error::ForkedChild)
    }

    #[cold]
    fn claim_endpoint(&self) -> Result<Claimed, Error> {
        if !self.region.mapping().is_ours() {
            return Err(Error::ForkedChild);
        }
        let end = Attached::claim(&self.region, self.index, Role::Receiver, Deadline::PAST)?;
        let consumer = Consumer::attach(&end.ring).map_err(|damage| end.damaged(damage))?;
        let peer = Peer::new(&end.slot, end.entry.tx_slots())?;
        Ok(Claimed { end, consumer, peer })
    }
}

impl Claimed {
    #[inline]
    fn front(&mut self) -> Result<Option<Front>, Error> {
        let Self { end, consumer, peer } = self;
        match consumer.front(&end.ring) {
            Ok(Some(front)) => {
                peer.met();
                Ok(Some(front))
            }
            Ok(None) => Ok(None),
            Err(damage) => Err(end.damaged_at(damage, consumer.head())),
        }
    }

    /// What to say of an empty ring. Its senders' death is asked for at most every 10 ms, and the
    /// ring looked at once more after the answer: what they sent before is delivered first.
    fn empty(&mut self) -> Result<Front, TryRecvError> {
        if !self.peer.is_time() || !self.peer.is_gone(&self.end.slot)? {
            return Err(TryRecvError::Empty);
        }
        if let Some(front) = self.front()? {
            return Ok(front);
        }
        self.peer.tell(&self.end.slot);
        Err(TryRecvError::Disconnected)
    }
}

/// A message where it lies in the ring. Dropping it frees the room: the message is taken then, and
/// not before. See [`Payload`] for how to look at it.
///
/// # Examples
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("demo.tombolo");
/// let mut region = tombolo::EventsRegion::open_path(path)?;
/// let (mut tx, mut rx) = region.split_spsc()?;
/// tx.send(b"key=value")?;
/// let record = rx.recv_ref()?;
/// let mut key = [0; 3];
/// assert_eq!((record.len(), record.read_at(0, &mut key)), (9, 3));
/// assert_eq!(&key, b"key");
/// record.keep(); // not taken: it comes again
/// assert_eq!(rx.recv()?.data, b"key=value");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RecordRef<'a> {
    payload: Payload<'a>,
    front: Front,
    end: &'a Attached,
    consumer: &'a mut Consumer,
    on_drop: OnDrop,
}

#[derive(Debug, PartialEq, Eq)]
enum OnDrop {
    Free,
    Keep,
}

impl RecordRef<'_> {
    /// The message's position in the ring: the same where it is delivered again, never that of
    /// another message.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.front.position
    }

    /// Leaves the message where it is, to be delivered again.
    pub fn keep(mut self) {
        self.on_drop = OnDrop::Keep;
    }

    /// Takes the message into a buffer of its own.
    fn take(self) -> MessagePacket {
        let mut data = vec![0; self.front.payload_len()];
        Consumer::copy_out(&self.end.ring, self.front, &mut data);
        data.into()
    }

    /// Takes the message into `room`, or leaves it where that is too small.
    fn take_into(mut self, room: &mut [u8]) -> Result<usize, Error> {
        let (needed, available) = (self.front.payload_len(), room.len());
        let Some(room) = room.get_mut(..needed) else {
            self.on_drop = OnDrop::Keep;
            return Err(Error::BufferTooSmall { needed, room: available });
        };
        Consumer::copy_out(&self.end.ring, self.front, room);
        Ok(needed)
    }
}

impl<'a> std::ops::Deref for RecordRef<'a> {
    type Target = Payload<'a>;

    fn deref(&self) -> &Payload<'a> {
        &self.payload
    }
}

impl Drop for RecordRef<'_> {
    fn drop(&mut self) {
        if self.on_drop == OnDrop::Free && self.end.ring.memory.is_ours() {
            self.consumer.free(&self.end.ring, self.front);
        }
    }
}

/// Messages as they come, see [`Receiver::iter`].
#[derive(Debug)]
pub struct Iter<'a, K: Discipline> {
    receiver: &'a mut Receiver<K>,
    is_over: bool,
}

impl<K: Discipline> Iterator for Iter<'_, K> {
    type Item = Result<MessagePacket, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        match self.receiver.recv() {
            Ok(message) => Some(Ok(message)),
            Err(RecvError::Disconnected) => None,
            Err(RecvError::Failed { source }) => {
                self.is_over = true;
                Some(Err(source))
            }
        }
    }
}

impl<'a, K: Discipline> IntoIterator for &'a mut Receiver<K> {
    type Item = Result<MessagePacket, Error>;
    type IntoIter = Iter<'a, K>;

    fn into_iter(self) -> Iter<'a, K> {
        self.iter()
    }
}
