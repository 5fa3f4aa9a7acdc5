//! A message in private memory.

use crate::handle::Handle;

/// A message: its bytes, in a buffer of its own, and its handles.
///
/// Dropping it closes the handles.
///
/// # Examples
/// ```
/// use std::fs::File;
/// use tombolo::MessagePacket;
/// let packet = MessagePacket::from(b"hello").handle(File::open("/proc/self/exe")?);
/// assert_eq!(packet.data, b"hello");
/// assert_eq!(packet.handles.len(), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct MessagePacket {
    /// The bytes, from none to the ring's `max_message`.
    pub data: Vec<u8>,
    /// The handles, in their order, from none to the ring's `max_handles`.
    pub handles: Vec<Handle>,
}

impl MessagePacket {
    /// Adds a handle behind those that it has.
    #[must_use]
    pub fn handle(mut self, handle: impl Into<Handle>) -> Self {
        self.handles.push(handle.into());
        self
    }
}

impl From<Vec<u8>> for MessagePacket {
    fn from(data: Vec<u8>) -> Self {
        Self { data, handles: Vec::new() }
    }
}

impl From<&[u8]> for MessagePacket {
    fn from(data: &[u8]) -> Self {
        data.to_vec().into()
    }
}

impl<const N: usize> From<&[u8; N]> for MessagePacket {
    fn from(data: &[u8; N]) -> Self {
        data.to_vec().into()
    }
}

impl From<&str> for MessagePacket {
    fn from(data: &str) -> Self {
        data.as_bytes().to_vec().into()
    }
}
