//! A message lent where it lies.

use super::MessagePacket;
use super::attached::Attached;
use crate::Error;
use crate::mem::Payload;
use crate::ring::{Consumer, Front, Wakes};

/// A message where it lies in the ring. Dropping it frees the room: the message is taken then, and
/// not before; a panic leaves it to be delivered again. See [`Payload`] for how to look at it.
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
    wakes: &'a Wakes,
    on_drop: OnDrop,
}

#[derive(Debug, PartialEq, Eq)]
enum OnDrop {
    Free,
    Keep,
}

impl<'a> RecordRef<'a> {
    /// Lends `front` of the ring at `end`.
    #[inline(always)]
    pub(super) fn new(
        end: &'a Attached,
        consumer: &'a mut Consumer,
        wakes: &'a Wakes,
        front: Front,
    ) -> Self {
        let position = consumer.payload_position(front);
        let payload = Payload::new(&end.ring.memory, position, front.payload_len());
        Self { payload, front, end, consumer, wakes, on_drop: OnDrop::Free }
    }

    /// The message's position in its ring: the same where it is delivered again, never that of
    /// another message of that ring. Messages of two lanes may have the same.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.consumer.head()
    }

    /// Index in the region's directory of the ring that it lies in: of lanes, the one of its producer.
    #[must_use]
    pub fn ring(&self) -> u32 {
        self.end.index
    }

    /// Copies the message to the start of `room` and gives its length.
    ///
    /// # Errors
    /// As [`Payload::copy_to`]; [`Error::RegionTooSmall`] where the file was cut short and the copy
    /// may hold zeros instead of the message.
    #[inline]
    pub fn copy_to(&self, room: &mut [u8]) -> Result<usize, Error> {
        let len = self.payload.copy_to(room)?;
        self.check()?;
        Ok(len)
    }

    /// Whether what was read so far was the message: an error where the file was cut short and
    /// missing bytes read as zeros.
    ///
    /// # Errors
    /// [`Error::RegionTooSmall`].
    #[inline]
    pub fn check(&self) -> Result<(), Error> {
        self.end.check_whole()
    }

    /// Leaves the message where it is, to be delivered again: next, or where each producer has a lane,
    /// perhaps behind messages of others.
    pub fn keep(mut self) {
        self.on_drop = OnDrop::Keep;
    }

    /// Takes the message into a buffer of its own.
    pub(super) fn take(mut self) -> Result<MessagePacket, Error> {
        self.on_drop = OnDrop::Keep;
        let mut data = vec![0; self.front.payload_len()];
        self.consumer.copy_out(&self.end.ring, self.front, &mut data);
        self.end.check_whole()?;
        self.free();
        Ok(data.into())
    }

    /// Takes the message into `room`, or leaves it where that is too small.
    pub(super) fn take_into(mut self, room: &mut [u8]) -> Result<usize, Error> {
        self.on_drop = OnDrop::Keep;
        let (needed, available) = (self.front.payload_len(), room.len());
        let Some(room) = room.get_mut(..needed) else {
            return Err(Error::BufferTooSmall { needed, room: available });
        };
        self.consumer.copy_out(&self.end.ring, self.front, room);
        self.end.check_whole()?;
        self.free();
        Ok(needed)
    }

    /// Frees the room, but leaves alone what is another's by now, the mapping or the endpoint.
    #[inline]
    fn free(&mut self) {
        let Self { end, consumer, wakes, front, .. } = self;
        if end.ring.memory.is_ours() && end.slot.check_kept().is_ok() {
            consumer.free(&end.ring, *front, wakes);
        }
    }
}

impl<'a> std::ops::Deref for RecordRef<'a> {
    type Target = Payload<'a>;

    #[inline]
    fn deref(&self) -> &Payload<'a> {
        &self.payload
    }
}

impl Drop for RecordRef<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.on_drop == OnDrop::Free && !std::thread::panicking() {
            self.free();
        }
    }
}
