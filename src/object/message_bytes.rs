//! The bytes of a message, in one piece or in parts.

use std::io::IoSlice;

use super::channel::{Channel, PART_COUNT_MAX};
use super::channel_error::ChannelError;

/// The bytes of a message that is written by number: in one piece, or gathered from up to 8192 parts.
///
/// # Source
/// What `bytes` of `zx_channel_write` is without and with `ZX_CHANNEL_WRITE_USE_IOVEC`.
///
/// # Examples
/// ```
/// use std::io::IoSlice;
/// use tombolo::object::{HandleTable, WRITE_USE_IOVEC};
/// let table = HandleTable::new();
/// let (ours, theirs) = table.channel_create()?;
/// let parts = [IoSlice::new(b"head "), IoSlice::new(b"and body")];
/// table.channel_write(ours, WRITE_USE_IOVEC, &parts, &[])?;
/// let mut bytes = [0; 16];
/// let (len, _) = table.channel_read(theirs, 0, &mut bytes, &mut [])?;
/// assert_eq!(&bytes[..len], b"head and body");
/// # Ok::<(), tombolo::object::TableError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub enum MessageBytes<'a> {
    /// In one piece.
    Whole(&'a [u8]),
    /// In parts, gathered in their order.
    Parts(&'a [IoSlice<'a>]),
}

impl MessageBytes<'_> {
    /// Checks how much it is, with so many handles, and that it is no shorter than a request if it is to be one.
    ///
    /// # Errors
    /// [`ChannelError::TooManyParts`], [`ChannelError::Closed`], [`ChannelError::TooLong`],
    /// [`ChannelError::Handles`].
    pub(super) fn check(
        self,
        channel: &Channel,
        handle_count: usize,
    ) -> Result<usize, ChannelError> {
        let len = match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Parts(parts) => {
                let (found, limit) = (parts.len(), PART_COUNT_MAX);
                if found > limit {
                    return Err(ChannelError::TooManyParts { found, limit });
                }
                // The lengths may add up to anything.
                parts.iter().fold(0, |len: usize, part| len.saturating_add(part.len()))
            }
        };
        channel.outbox.check_limits(len, handle_count)?;
        Ok(len)
    }

    /// A copy of the `len` bytes that [`Self::check`] has counted.
    pub(super) fn gather(self, len: usize) -> Vec<u8> {
        match self {
            Self::Whole(bytes) => bytes.to_vec(),
            Self::Parts(parts) => {
                let mut data = Vec::with_capacity(len);
                parts.iter().for_each(|part| data.extend_from_slice(part));
                data
            }
        }
    }
}

impl<'a> From<&'a [u8]> for MessageBytes<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Whole(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for MessageBytes<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Whole(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for MessageBytes<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Whole(bytes)
    }
}

impl<'a> From<&'a [IoSlice<'a>]> for MessageBytes<'a> {
    fn from(parts: &'a [IoSlice<'a>]) -> Self {
        Self::Parts(parts)
    }
}

impl<'a, const N: usize> From<&'a [IoSlice<'a>; N]> for MessageBytes<'a> {
    fn from(parts: &'a [IoSlice<'a>; N]) -> Self {
        Self::Parts(parts)
    }
}
