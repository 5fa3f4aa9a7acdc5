//! The payload of one record, in place.

use std::slice;

use super::{RingSpan, copy};
use crate::error::Error;

/// The bytes of a message, in place in the region.
///
/// Another process can write them at any time, so they are copied out to be read. Copy what a decision
/// depends on once, and check the copy.
#[derive(Debug)]
pub(crate) struct Payload<'a> {
    span: &'a RingSpan,
    position: u64,
    len: usize,
}

impl<'a> Payload<'a> {
    /// `len` bytes from `position` on, a multiple of 8, which don't wrap.
    #[inline]
    pub(crate) fn new(span: &'a RingSpan, position: u64, len: usize) -> Self {
        Self { span, position, len }
    }

    /// Copies the message to the start of `buffer` and gives its length.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`] if `buffer` is shorter than the message; nothing was copied.
    /// [`Error::ForkedChild`] in a forked child, which doesn't have the mapping.
    #[inline]
    pub(crate) fn copy_to(&self, buffer: &mut [u8]) -> Result<usize, Error> {
        if !self.span.is_ours() {
            return Err(Error::ForkedChild);
        }
        let available = buffer.len();
        let Some(buffer) = buffer.get_mut(..self.len) else {
            return Err(Error::BufferTooSmall { needed: self.len, available });
        };
        copy::copy_out(self.words(), buffer);
        Ok(self.len)
    }

    /// Copies bytes from `offset` on to `buffer`, as many as there are and fit, and gives how many.
    ///
    /// # Errors
    /// [`Error::ForkedChild`] in a forked child, which doesn't have the mapping.
    #[inline]
    pub(crate) fn read_at(&self, offset: usize, buffer: &mut [u8]) -> Result<usize, Error> {
        if !self.span.is_ours() {
            return Err(Error::ForkedChild);
        }
        let behind = self.len.saturating_sub(offset);
        if buffer.len() > behind {
            return Ok(self.read_end(offset, &mut buffer[..behind]));
        }
        // Mostly of a length that the compiler knows: then the copy is of a few words, and asks nothing.
        if !buffer.is_empty() {
            copy::copy_out_at(self.words(), offset, buffer);
        }
        Ok(buffer.len())
    }

    /// Copies what is left behind `offset`, which may be nothing.
    fn read_end(&self, offset: usize, buffer: &mut [u8]) -> usize {
        if !buffer.is_empty() {
            copy::copy_out_at(self.words(), offset, buffer);
        }
        buffer.len()
    }

    /// The message's address, for building or reading it by other means.
    ///
    /// The address is valid for [`Self::len`] bytes for as long as this value is borrowed.
    #[inline]
    #[must_use]
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.span.data_ptr(self.position)
    }

    /// The message as a slice, without copying it.
    ///
    /// # Safety
    /// While the slice lives, the message must not be written, in this process or another. A sender
    /// that follows the protocol doesn't; one that is hostile or broken may, and then the behaviour is
    /// undefined. So this is for peers that are trusted like one's own code.
    #[inline]
    #[must_use]
    pub(crate) unsafe fn as_slice(&self) -> &'a [u8] {
        // SAFETY:
        // - `as_ptr` leads to `len` mapped bytes, kept mapped by the span that `self` borrows;
        // - the caller vouches that they are not written;
        // - a payload is shorter than a ring, and so than `isize::MAX`.
        unsafe { slice::from_raw_parts(self.as_ptr(), self.len) }
    }

    /// Writes `bytes` from `offset` on.
    #[inline]
    pub(crate) fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<(), Error> {
        if !self.span.is_ours() {
            return Err(Error::ForkedChild);
        }
        let needed = offset.saturating_add(bytes.len());
        if needed > self.len {
            return Err(Error::BufferTooSmall { needed, available: self.len });
        }
        if !bytes.is_empty() {
            copy::merge_in(self.words(), offset, bytes);
        }
        Ok(())
    }

    #[inline]
    fn words(&self) -> &[std::sync::atomic::AtomicU64] {
        self.span.words_from(self.position)
    }
}
