//! A message in private memory.

/// A message: its bytes, in a buffer of its own.
///
/// # Examples
/// ```
/// use tombolo::MessagePacket;
/// let packet = MessagePacket::from(b"hello");
/// assert_eq!(packet.data, b"hello");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessagePacket {
    /// The bytes, from none to the ring's `max_message`.
    pub data: Vec<u8>,
}

impl From<Vec<u8>> for MessagePacket {
    fn from(data: Vec<u8>) -> Self {
        Self { data }
    }
}

impl From<&[u8]> for MessagePacket {
    fn from(data: &[u8]) -> Self {
        Self { data: data.to_vec() }
    }
}

impl<const N: usize> From<&[u8; N]> for MessagePacket {
    fn from(data: &[u8; N]) -> Self {
        Self { data: data.to_vec() }
    }
}

impl From<&str> for MessagePacket {
    fn from(data: &str) -> Self {
        Self { data: data.as_bytes().to_vec() }
    }
}
