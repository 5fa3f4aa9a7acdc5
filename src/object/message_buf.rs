//! A buffer for messages that is used again.

use crate::handle::Handle;

/// A buffer for the messages of a channel, which grows to the longest of them and is used again without
/// allocating.
///
/// # Source
/// `MessageBuf` of Fuchsia's Rust bindings.
///
/// # Examples
/// ```
/// use tombolo::Channel;
/// use tombolo::object::MessageBuf;
/// let (ours, theirs) = Channel::create()?;
/// theirs.write(b"one")?;
/// theirs.write(b"two")?;
/// let mut buffer = MessageBuf::new();
/// ours.read_into(&mut buffer)?;
/// assert_eq!(buffer.bytes(), b"one");
/// ours.read_into(&mut buffer)?;
/// assert_eq!((buffer.bytes(), buffer.handle_count()), (&b"two"[..], 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct MessageBuf {
    pub(super) bytes: Vec<u8>,
    pub(super) handles: Vec<Option<Handle>>,
}

impl MessageBuf {
    /// An empty buffer; it allocates with the first message.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes space for messages of so many bytes and handles.
    pub fn reserve(&mut self, len: usize, handle_count: usize) {
        self.bytes.reserve(len.saturating_sub(self.bytes.len()));
        self.handles.reserve(handle_count.saturating_sub(self.handles.len()));
    }

    /// The bytes of the message.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many handles the message has, those taken included.
    #[must_use]
    pub fn handle_count(&self) -> usize {
        self.handles.len()
    }

    /// Takes handle `index` out; `None` if there is none, or none any more.
    pub fn take_handle(&mut self, index: usize) -> Option<Handle> {
        self.handles.get_mut(index)?.take()
    }

    /// Empties it and closes the handles that were not taken.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.handles.clear();
    }

    /// The bytes and the handles that were not taken, as buffers of their own.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, Vec<Handle>) {
        (self.bytes, self.handles.into_iter().flatten().collect())
    }
}
