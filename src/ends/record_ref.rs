//! A message lent where it lies.

use std::mem::{ManuallyDrop, offset_of};
use std::thread::panicking;

use tombolo_abi::Slot;

use crate::carrier::Wanted;
use crate::carrier::intake::Intake;
use crate::endpoint::attached::Attached;
use crate::ends::message::MessagePacket;
use crate::error::Error;
use crate::handle::Handle;
use crate::mem::Payload;
use crate::ring::{Consumer, Front, Wakes};

/// A message where it lies in the ring. Dropping it frees the space: the message is taken then, and
/// not before, and its handles are closed; a panic that begins while it is lent leaves it to be
/// delivered again. One that is lent while a panic unwinds is taken in any case. See [`Payload`] for
/// how to look at it.
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
    intake: &'a Option<Intake>,
    lent: LentWhile,
}

/// What went on when a message was lent. A whole word: the padding of less would be copied along with
/// each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum LentWhile {
    /// Nothing unwound.
    Calm,
    /// A panic unwound already: it did not begin while the message was looked at.
    Unwinding,
}

impl LentWhile {
    #[inline(always)]
    pub(crate) fn now() -> Self {
        if panicking() { Self::Unwinding } else { Self::Calm }
    }
}

impl<'a> RecordRef<'a> {
    /// Lends `front` of the ring at `end`, which has `payload`.
    #[inline(always)]
    pub(crate) fn new(
        end: &'a Attached,
        consumer: &'a mut Consumer,
        wakes: &'a Wakes,
        intake: &'a Option<Intake>,
        front: Front,
        payload: Payload<'a>,
        lent: LentWhile,
    ) -> Self {
        Self { payload, front, end, consumer, wakes, intake, lent }
    }

    /// The message's position in its ring, in bytes, not in messages: from one message to the next it grows by
    /// what the record takes, and by padding at the end of a lap. No other message of that ring ever has it in
    /// the region's life, and one that is delivered again has it again. Messages of two lanes may have the
    /// same. It is compared by difference, as 64 bits wrap in the end.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.payload.position().wrapping_sub(self.front.payload_offset())
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

    /// Handles that travel with the message.
    #[must_use]
    pub fn handle_count(&self) -> usize {
        self.front.handle_count().into()
    }

    /// The message's handles, on descriptors of one's own. The message keeps them too, until it is
    /// taken: asking again gives further descriptors, and those that nobody asked for are closed then.
    ///
    /// # Errors
    /// [`Error::TooManyFiles`] where the process may not have so many descriptors;
    /// [`Error::HandlesLost`], [`Error::ProtocolViolation`] if they are gone: no other call reports that of
    /// a message that is lent. [`Error::ForkedChild`]. The message stays in any case: dropping it takes it,
    /// without its handles.
    ///
    /// # Cost
    /// One system call, and none where the message has no handles.
    pub fn handles(&self) -> Result<Vec<Handle>, Error> {
        if self.handle_count() == 0 {
            return Ok(Vec::new());
        }
        if !self.end.ring.memory.is_ours() {
            return Err(Error::ForkedChild); // its copies of the sockets are the parent's queues
        }
        let fetched = self.fetch();
        self.end.check_whole()?; // bytes that are missing look like another sender's
        fetched.map_err(|error| match error {
            Error::HandlesLost { ring, position, count, .. } => {
                let mut data = vec![0; self.front.payload_len()];
                self.consumer.copy_out(&self.end.ring, self.front, &mut data);
                Error::HandlesLost { ring, position, count, data }
            }
            error => error,
        })
    }

    /// Leaves the message where it is, to be delivered again: next, or where each producer has a lane,
    /// perhaps behind messages of others.
    pub fn keep(self) {
        self.held();
    }

    /// The same, which dropping leaves where it is.
    #[inline(always)]
    pub(crate) fn held(self) -> ManuallyDrop<Self> {
        ManuallyDrop::new(self) // it owns nothing
    }

    /// Takes the message into a buffer of its own.
    pub(crate) fn take(self) -> Result<MessagePacket, Error> {
        let mut this = self.held();
        let mut data = vec![0; this.front.payload_len()];
        this.consumer.copy_out(&this.end.ring, this.front, &mut data);
        this.end.check_whole()?;
        let handles = this.handles_to_take()?;
        this.free();
        Ok(MessagePacket { data, handles })
    }

    /// The handles of a message that is about to be taken. One whose handles are nowhere is freed.
    #[inline]
    fn handles_to_take(&mut self) -> Result<Vec<Handle>, Error> {
        let handles = self.handles();
        if let Err(Error::HandlesLost { .. } | Error::ProtocolViolation { .. }) = handles {
            self.free();
        }
        handles
    }

    /// Takes the message into `room`, or leaves it where that is too small.
    pub(crate) fn take_into(self, room: &mut [u8]) -> Result<usize, Error> {
        let mut this = self.held();
        if this.handle_count() > 0 {
            return Err(this.too_small(room.len(), 0));
        }
        let (needed, available) = (this.front.payload_len(), room.len());
        let Some(room) = room.get_mut(..needed) else {
            return Err(Error::BufferTooSmall { needed, room: available });
        };
        this.consumer.copy_out(&this.end.ring, this.front, room);
        this.end.check_whole()?;
        this.free();
        Ok(needed)
    }

    /// Takes the message into `room` and its handles into the first places of `handle_room`, or
    /// leaves it where either is too small.
    pub(crate) fn take_parts(
        self,
        room: &mut [u8],
        handle_room: &mut [Option<Handle>],
    ) -> Result<(usize, usize), Error> {
        self.held().move_parts(room, handle_room)
    }

    /// As [`Self::take_parts`], but a message that does not fit is taken with its handles, unseen.
    pub(crate) fn take_parts_or_discard(
        self,
        room: &mut [u8],
        handle_room: &mut [Option<Handle>],
    ) -> Result<(usize, usize), Error> {
        let mut this = self.held();
        let moved = this.move_parts(room, handle_room);
        if let Err(Error::HandleRoomTooSmall { .. }) = moved {
            this.free(); // the one that was looked at: of lanes, the next look may find another's
        }
        moved
    }

    fn move_parts(
        &mut self,
        room: &mut [u8],
        handle_room: &mut [Option<Handle>],
    ) -> Result<(usize, usize), Error> {
        let (needed, count) = (self.front.payload_len(), self.handle_count());
        let (Some(bytes), true) = (room.get_mut(..needed), count <= handle_room.len()) else {
            return Err(self.too_small(room.len(), handle_room.len()));
        };
        self.consumer.copy_out(&self.end.ring, self.front, bytes);
        self.end.check_whole()?;
        let handles = self.handles_to_take()?;
        self.free();
        handle_room.iter_mut().zip(handles).for_each(|(place, handle)| *place = Some(handle));
        Ok((needed, count))
    }

    #[cold]
    fn too_small(&self, room: usize, handle_room: usize) -> Error {
        let (needed, needed_handles) = (self.front.payload_len(), self.handle_count());
        Error::HandleRoomTooSmall { needed, room, needed_handles, handle_room }
    }

    /// Frees the space, but leaves alone what is another's by now, the mapping or the endpoint.
    #[inline]
    pub(crate) fn free(&mut self) {
        let Self { end, consumer, wakes, front, .. } = self;
        if end.ring.memory.is_ours() && (end.slot.is_surely_kept() || is_kept(end)) {
            if front.handle_count() > 0 {
                return self.free_carried();
            }
            consumer.free(&end.ring, *front, wakes);
        }
    }

    /// Frees the space of a message with handles, then what the kernel keeps for it. A process that
    /// dies in between leaves that to the kernel, which closes it.
    #[cold]
    fn free_carried(&mut self) {
        let wanted = self.wanted();
        let Self { end, consumer, wakes, front, intake, .. } = self;
        consumer.free_carried(&end.ring, *front, wakes, || {
            if let Some(intake) = intake {
                intake.take(&wanted);
            }
        });
        end.slot.add(offset_of!(Slot, handles), wanted.count.into());
    }

    /// What tells the message's handles from others.
    fn wanted(&self) -> Wanted {
        let ext = self.consumer.ext(&self.end.ring);
        let (position, count) = (self.position(), self.front.handle_count());
        Wanted { ring: self.ring(), ext, position, count }
    }

    #[cold]
    fn fetch(&self) -> Result<Vec<Handle>, Error> {
        match self.intake {
            Some(intake) => intake.fetch(&self.wanted()),
            None => Ok(Vec::new()), // never: a ring without them has no record with handles
        }
    }
}

/// Whether the endpoint is still ours, if the kernel must be asked.
#[cold]
fn is_kept(end: &Attached) -> bool {
    end.slot.check_kept().is_ok()
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
        // A panic that began while it was lent leaves it.
        if !panicking() || self.lent == LentWhile::Unwinding {
            self.free();
        }
    }
}
