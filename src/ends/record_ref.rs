//! A message borrowed in place.

use std::mem::{ManuallyDrop, offset_of};
use std::thread::panicking;

use tombolo_abi::Slot;

use crate::carrier::{Intake, Wanted};
use crate::endpoint::Attached;
use crate::ends::MessagePacket;
use crate::error::Error;
use crate::handle::Handle;
use crate::mem::Payload;
use crate::ring::{Consumer, Front, Wakes};

/// A message borrowed in place, in the ring. Dropping it takes the message: its space is freed and its
/// handles are closed. A panic that begins while it is borrowed leaves the message to be delivered again; one
/// that was unwinding before does not.
///
/// Another process can write the bytes at any time, so the methods copy them out. If a decision depends on
/// them, copy once, check the copy, and use only the copy.
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
/// assert_eq!((record.len(), record.read_at(0, &mut key)?), (9, 3));
/// assert_eq!(&key, b"key");
/// record.keep(); // not taken: it comes again
/// assert_eq!(rx.recv()?.data, b"key=value");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RecordRef<'a> {
    /// Position of its payload.
    start: u64,
    front: Front,
    end: &'a Attached,
    consumer: &'a mut Consumer,
    wakes: &'a Wakes,
    intake: &'a Option<Intake>,
    borrowed: BorrowedWhile,
}

/// A buffer to be filled. Its bytes are no zeros at first: zeroed memory doesn't come from what the allocator keeps
/// ready for each thread.
#[inline]
pub(crate) fn buffer(len: usize) -> Vec<u8> {
    vec![!0; len]
}

/// Whether a panic unwound when a message was borrowed. A whole word: the padding of less would be copied
/// along with each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum BorrowedWhile {
    Calm,
    /// The panic did not begin while the message was borrowed.
    Unwinding,
}

impl BorrowedWhile {
    #[inline(always)]
    pub(crate) fn now() -> Self {
        if panicking() { Self::Unwinding } else { Self::Calm }
    }
}

impl<'a> RecordRef<'a> {
    /// Borrows `front`, at `position` of the ring at `end`.
    #[inline(always)]
    pub(crate) fn new(
        end: &'a Attached,
        consumer: &'a mut Consumer,
        wakes: &'a Wakes,
        intake: &'a Option<Intake>,
        (start, front): (u64, Front),
        borrowed: BorrowedWhile,
    ) -> Self {
        Self { start, front, end, consumer, wakes, intake, borrowed }
    }

    #[inline]
    fn payload(&self) -> Payload<'_> {
        Payload::new(&self.end.ring.memory, self.start, self.len())
    }

    /// The message's position in its ring, in bytes, not in messages: from one message to the next it grows by
    /// what the record takes, and by padding at the end of a lap. No other message of that ring ever has it in
    /// the region's life, and one that is delivered again has it again. Messages of two lanes may have the
    /// same. It is compared by difference, as 64 bits wrap in the end.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.start.wrapping_sub(self.front.payload_offset())
    }

    /// Index in the region's directory of the ring that it lies in: of lanes, the one of its producer.
    #[must_use]
    pub fn ring(&self) -> u32 {
        self.end.index
    }

    /// Bytes of the message.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.front.payload_len()
    }

    /// Whether the message has no bytes, which is legal.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the message to the start of `buffer` and returns its length.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`] if `buffer` is shorter than the message; nothing was copied.
    /// [`Error::RegionTooSmall`] if the file was truncated: the copy may hold zeros instead of the message.
    /// [`Error::ForkedChild`] in a forked child, which doesn't have the mapping.
    #[inline]
    pub fn copy_to(&self, buffer: &mut [u8]) -> Result<usize, Error> {
        let len = self.payload().copy_to(buffer)?;
        self.check()?;
        Ok(len)
    }

    /// Copies bytes from `offset` on to `buffer`, as many as there are and fit, and returns how many.
    ///
    /// # Errors
    /// As [`Self::copy_to`], but for the first.
    #[inline]
    pub fn read_at(&self, offset: usize, buffer: &mut [u8]) -> Result<usize, Error> {
        let len = self.payload().read_at(offset, buffer)?;
        self.check()?;
        Ok(len)
    }

    /// A copy of the message's bytes, which stay in the ring; [`Self::take`] takes the handles along.
    ///
    /// # Errors
    /// As [`Self::read_at`].
    pub fn to_vec(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = buffer(self.len());
        self.copy_to(&mut bytes)?;
        Ok(bytes)
    }

    /// Calls `visit` with one private copy of 64 bytes after the other; the last may be shorter.
    ///
    /// # Errors
    /// As [`Self::read_at`]; `visit` was not called with the chunk that failed.
    #[inline]
    pub fn for_each_chunk(&self, mut visit: impl FnMut(&[u8])) -> Result<(), Error> {
        let mut chunk = [0; 64];
        for offset in (0..self.len()).step_by(chunk.len()) {
            let len = self.read_at(offset, &mut chunk)?;
            visit(&chunk[..len]);
        }
        Ok(())
    }

    /// The address of the message: [`Self::len`] bytes, which another process can write at any time.
    #[inline]
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.payload().as_ptr()
    }

    /// The message as a slice, without copying it. Call [`Self::check`] after the last read of it.
    ///
    /// # Safety
    /// While the slice lives, no process may write to the message. A sender that keeps to the protocol
    /// doesn't; one that is hostile or broken may, and then the behaviour is undefined. So this is for peers
    /// that are trusted like one's own code.
    #[inline]
    #[must_use]
    #[expect(unsafe_code, reason = "the one unsafe function that a user can call")]
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: the caller vouches that no process writes to the message.
        unsafe { self.payload().as_slice() }
    }

    /// Checks that what was read so far by [`Self::as_slice`] or [`Self::as_ptr`] was the message.
    ///
    /// # Errors
    /// [`Error::RegionTooSmall`] if the file was truncated and missing bytes read as zeros.
    #[inline]
    pub fn check(&self) -> Result<(), Error> {
        self.end.check_whole()
    }

    /// An error in a forked child, which doesn't have the mapping.
    #[inline]
    fn check_ours(&self) -> Result<(), Error> {
        if self.end.ring.memory.is_ours() { Ok(()) } else { Err(Error::ForkedChild) }
    }

    /// Handles that travel with the message.
    #[must_use]
    pub fn handle_count(&self) -> usize {
        self.front.handle_count().into()
    }

    /// The message's handles, on new descriptors. The message keeps its own too, until it is taken: each
    /// call returns further descriptors, and taking the message closes its own.
    ///
    /// # Errors
    /// [`Error::TooManyFiles`] if the process may not have so many descriptors;
    /// [`Error::HandlesLost`], [`Error::ProtocolViolation`] if the handles are lost: no other call on a
    /// borrowed message reports that. [`Error::ForkedChild`]. The message stays borrowed in any case: dropping
    /// it takes it, without its handles. [`Self::take`] also takes a message whose handles are lost.
    ///
    /// # Cost
    /// One system call, and none if the message has no handles.
    pub fn handles(&self) -> Result<Vec<Handle>, Error> {
        if self.handle_count() == 0 {
            return Ok(Vec::new());
        }
        self.check_ours()?; // a child's copies of the sockets are the parent's queues
        let fetched = self.fetch();
        self.end.check_whole()?; // missing bytes look like another sender's
        fetched.map_err(|error| match error {
            Error::HandlesLost { ring, position, count, .. } => {
                let mut data = vec![0; self.front.payload_len()];
                self.consumer.copy_out(&self.end.ring, self.front, &mut data);
                Error::HandlesLost { ring, position, count, data }
            }
            error => error,
        })
    }

    /// Leaves the message in the ring, to be delivered again: next, or if each producer has a lane, perhaps
    /// after messages of other producers.
    pub fn keep(self) {
        self.held();
    }

    /// The same message; dropping the result leaves it in the ring.
    #[inline(always)]
    pub(crate) fn held(self) -> ManuallyDrop<Self> {
        ManuallyDrop::new(self) // it owns nothing
    }

    /// Takes the message, with its handles, into a buffer of its own.
    ///
    /// # Errors
    /// As [`Receiver::recv`](crate::Receiver::recv) of a message that is there.
    pub fn take(self) -> Result<MessagePacket, Error> {
        let mut this = self.held();
        this.check_ours()?;
        let mut data = buffer(this.front.payload_len());
        this.consumer.copy_out(&this.end.ring, this.front, &mut data);
        this.end.check_whole()?;
        let handles = this.handles_to_take()?;
        this.free();
        Ok(MessagePacket { data, handles })
    }

    /// The handles of a message that is about to be taken. Frees the message if its handles are lost.
    #[inline]
    fn handles_to_take(&mut self) -> Result<Vec<Handle>, Error> {
        let handles = self.handles();
        if let Err(Error::HandlesLost { .. } | Error::ProtocolViolation { .. }) = handles {
            self.free();
        }
        handles
    }

    /// Takes the message into `buffer` and returns its length.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`] if it is longer, [`Error::BuffersTooSmall`] if it has handles: it stays
    /// in the ring.
    pub fn take_into(self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut this = self.held();
        this.check_ours()?;
        if this.handle_count() > 0 {
            return Err(this.too_small(buffer.len(), 0));
        }
        let (needed, available) = (this.front.payload_len(), buffer.len());
        let Some(buffer) = buffer.get_mut(..needed) else {
            return Err(Error::BufferTooSmall { needed, available });
        };
        this.consumer.copy_out(&this.end.ring, this.front, buffer);
        this.end.check_whole()?;
        this.free();
        Ok(needed)
    }

    /// Takes the message's bytes into `buffer` and its handles into the first places of `available_handles`.
    /// Returns how many there were of each.
    ///
    /// # Errors
    /// As [`Receiver::recv`](crate::Receiver::recv) of a message that is there;
    /// [`Error::BuffersTooSmall`] with what is needed if either does not fit, and then the message stays in
    /// the ring with its handles. To discard it instead, compare [`Self::len`] and [`Self::handle_count`]
    /// first, and drop it.
    ///
    /// # Source
    /// `zx_channel_read`.
    ///
    /// # Examples
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("demo.tombolo");
    /// use std::fs::File;
    /// use tombolo::{EventsRegion, MessagePacket, OpenOptions};
    /// let mut region = EventsRegion::open_path_with(path, OpenOptions::new().max_handles(8))?;
    /// let (mut tx, mut rx) = region.split_spsc()?;
    /// rx.attach()?;
    /// tx.send_packet(MessagePacket::from(b"here").handle(File::open("/proc/self/exe")?))?;
    /// let (mut bytes, mut handles) = ([0; 64], [None, None]);
    /// assert!(rx.recv_ref()?.take_parts(&mut bytes, &mut []).is_err()); // it stays
    /// assert_eq!(rx.recv_ref()?.take_parts(&mut bytes, &mut handles)?, (4, 1));
    /// assert!(handles[0].is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn take_parts(
        self,
        buffer: &mut [u8],
        available_handles: &mut [Option<Handle>],
    ) -> Result<(usize, usize), Error> {
        let mut this = self.held();
        this.check_ours()?;
        let (needed, count) = (this.front.payload_len(), this.handle_count());
        let (Some(bytes), true) = (buffer.get_mut(..needed), count <= available_handles.len())
        else {
            return Err(this.too_small(buffer.len(), available_handles.len()));
        };
        this.consumer.copy_out(&this.end.ring, this.front, bytes);
        this.end.check_whole()?;
        let handles = this.handles_to_take()?;
        this.free();
        available_handles.iter_mut().zip(handles).for_each(|(place, handle)| *place = Some(handle));
        Ok((needed, count))
    }

    #[cold]
    fn too_small(&self, available: usize, available_handles: usize) -> Error {
        let (needed, needed_handles) = (self.front.payload_len(), self.handle_count());
        Error::BuffersTooSmall { needed, available, needed_handles, available_handles }
    }

    #[inline]
    pub(crate) fn free(&mut self) {
        let Self { end, consumer, wakes, front, .. } = self;
        // The mapping or the endpoint may be another process's by now.
        if end.ring.memory.is_ours() && (end.slot.is_surely_kept() || is_kept(end)) {
            if front.handle_count() > 0 {
                return self.free_carried();
            }
            consumer.free(&end.ring, *front, wakes);
        }
    }

    /// Frees the space of a message with handles, then closes its handles. If the process dies in between,
    /// the kernel closes them.
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

    /// What identifies the message's handles.
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

/// Whether this process still owns the endpoint, by the kernel's word.
#[cold]
fn is_kept(end: &Attached) -> bool {
    end.slot.check_kept().is_ok()
}

impl Drop for RecordRef<'_> {
    #[inline]
    fn drop(&mut self) {
        // A panic that began while it was borrowed leaves it.
        if !panicking() || self.borrowed == BorrowedWhile::Unwinding {
            self.free();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::endpoint::slot_u32;
    use crate::ring::{Memory, Word};
    use crate::{EventsRegion, OpenOptions, SpscReceiver, SpscSender};

    /// A ring with messages in it.
    fn filled(messages: &[&[u8]]) -> (SpscSender, SpscReceiver) {
        let options = OpenOptions::new().spsc_capacity(4096);
        let (mut tx, mut rx) = EventsRegion::anonymous(options).unwrap().split_spsc().unwrap();
        rx.attach().unwrap();
        messages.iter().for_each(|message| tx.send(message).unwrap());
        (tx, rx)
    }

    #[test]
    fn only_a_message_of_no_bytes_is_empty() {
        let (_tx, mut rx) = filled(&[b"", b"1"]);
        assert!(rx.recv_ref().unwrap().is_empty());
        assert!(!rx.recv_ref().unwrap().is_empty());
    }

    #[test]
    fn a_message_that_a_panic_drops_comes_again() {
        let (_tx, mut rx) = filled(&[b"first", b"second"]);
        let taken = catch_unwind(AssertUnwindSafe(|| {
            let _record = rx.recv_ref().unwrap();
            panic!("while it is borrowed");
        }));
        assert!(taken.is_err());
        assert_eq!(rx.recv().unwrap().data, b"first");
    }

    struct TakesOne<'a>(&'a mut SpscReceiver);

    impl Drop for TakesOne<'_> {
        fn drop(&mut self) {
            drop(self.0.recv_ref().unwrap());
        }
    }

    #[test]
    fn a_message_that_is_dropped_while_an_earlier_panic_unwinds_is_taken() {
        let (_tx, mut rx) = filled(&[b"first", b"second"]);
        let taken = catch_unwind(AssertUnwindSafe(|| {
            let _takes_one = TakesOne(&mut rx);
            panic!("before it is borrowed");
        }));
        assert!(taken.is_err());
        assert_eq!(rx.recv().unwrap().data, b"second");
    }

    #[test]
    fn a_message_of_an_end_that_was_lost_meanwhile_is_its_successors() {
        let (_tx, mut rx) = filled(&[b"first"]);
        let record = rx.recv_ref().unwrap();
        let (slot, head) = (&record.end.slot, || record.end.ring.memory.load(Word::Head, Relaxed));
        let (identity, before) = (slot.identity(), head());
        let incarnation = offset_of!(Slot, incarnation);
        slot_u32(slot.region(), identity.slot, incarnation).fetch_add(1, Relaxed);
        assert!(matches!(slot.is_any_held(1..2), Err(Error::LockLost { .. })));
        let memory = record.end;
        drop(record);
        assert_eq!(memory.ring.memory.load(Word::Head, Relaxed), before);
    }
}
