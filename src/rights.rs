//! What may be done with a handle.

use rustix::fs::OFlags;

use crate::bit_set::bit_set;
use crate::handle_type::HandleType;

/// What may be done with a [`Handle`](crate::Handle).
///
/// **Rights bind this library's own operations**: duplicating, sending, looking one up in a
/// table. The kernel knows nothing of them. A process that has the descriptor may do whatever the mode
/// that it was opened with allows, and that mode never changes: to hand out less, open the file
/// anew with less. A right that was given up cannot be had back from the same handle.
///
/// What a new handle has follows from the mode of its descriptor and from its type:
///
/// | descriptor | rights |
/// |---|---|
/// | any, but for the two below | [`BASIC`](Self::BASIC) |
/// | opened for reading | `READ`; of files, memory and regions also `MAP`; of directories `ENUMERATE` |
/// | opened for writing | `WRITE` |
/// | an eventfd | `SIGNAL` |
/// | opened with `O_PATH` | `BASIC` without `WAIT`, and none of the above |
/// | the end of a channel | [`CHANNEL_DEFAULT`](Self::CHANNEL_DEFAULT), which has no `DUPLICATE` |
///
/// `WAIT` does not promise that the kernel can wait: it can't for regular files and directories.
///
/// # Source
/// Zircon's rights, with its names and bits, up to those that zCore has too. The later ones
/// have no names here; [`from_bits`](Self::from_bits) refuses them.
///
/// # Examples
/// ```
/// use tombolo::Rights;
/// let rights = Rights::BASIC | Rights::READ;
/// assert!(rights.contains(Rights::TRANSFER) && !rights.contains(Rights::WRITE));
/// assert_eq!(Rights::CHANNEL_DEFAULT.bits(), 0xf00e);
/// assert_eq!((rights - Rights::WAIT).to_string(), "DUPLICATE | TRANSFER | READ | INSPECT");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rights(u32);

bit_set! { Rights {
    /// Making further handles to the same object.
    DUPLICATE = 0;
    /// Sending it in a message.
    TRANSFER = 1;
    /// Reading from it.
    READ = 2;
    /// Writing to it.
    WRITE = 3;
    /// Mapping it as code.
    EXECUTE = 4;
    /// Mapping it.
    MAP = 5;
    /// Asking for its properties.
    GET_PROPERTY = 6;
    /// Changing its properties.
    SET_PROPERTY = 7;
    /// Listing what is in it.
    ENUMERATE = 8;
    /// Ending it.
    DESTROY = 9;
    /// Changing its policy.
    SET_POLICY = 10;
    /// Asking for its policy.
    GET_POLICY = 11;
    /// Setting and clearing its signals.
    SIGNAL = 12;
    /// Setting and clearing the signals of its peer.
    SIGNAL_PEER = 13;
    /// Waiting for its signals.
    WAIT = 14;
    /// Asking for facts about it.
    INSPECT = 15;
    /// Managing processes by a job.
    MANAGE_JOB = 16;
    /// Managing threads by a process.
    MANAGE_PROCESS = 17;
    /// Managing a thread.
    MANAGE_THREAD = 18;
    /// No right: asks for whatever the source has. Only by itself.
    SAME_RIGHTS = 31;
} }

impl Rights {
    /// What nearly every handle has.
    pub const BASIC: Self =
        Self::TRANSFER.union(Self::DUPLICATE).union(Self::WAIT).union(Self::INSPECT);
    /// Reading and writing.
    pub const IO: Self = Self::READ.union(Self::WRITE);
    /// Asking for properties and changing them.
    pub const PROPERTY: Self = Self::GET_PROPERTY.union(Self::SET_PROPERTY);
    /// Asking for a policy and changing it.
    pub const POLICY: Self = Self::GET_POLICY.union(Self::SET_POLICY);
    /// What the end of a channel has: it can be moved, not duplicated.
    pub const CHANNEL_DEFAULT: Self = Self::TRANSFER
        .union(Self::WAIT)
        .union(Self::INSPECT)
        .union(Self::IO)
        .union(Self::SIGNAL)
        .union(Self::SIGNAL_PEER);

    /// Those of these that are among `others`, too.
    #[must_use]
    pub const fn intersection(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }
}

impl Rights {
    /// Those of these bits that are rights with names here.
    pub(crate) fn known(bits: u32) -> Self {
        Self(bits) & Self::NAMED
    }

    /// What every new handle has, whatever its type and mode.
    pub(crate) const ALWAYS: Self = Self::TRANSFER.union(Self::INSPECT);

    /// The rights of a new handle, by the flags of its descriptor.
    pub(crate) fn of_new(kind: HandleType, flags: OFlags) -> Self {
        if kind == HandleType::Channel {
            return Self::CHANNEL_DEFAULT;
        }
        if flags.contains(OFlags::PATH) {
            return Self::BASIC - Self::WAIT;
        }
        let mode = flags & OFlags::ACCMODE;
        let mut rights = Self::BASIC;
        if mode == OFlags::RDONLY || mode == OFlags::RDWR {
            rights |= Self::READ | Self::of_readable(kind);
        }
        if mode == OFlags::WRONLY || mode == OFlags::RDWR {
            rights |= Self::WRITE;
        }
        if kind == HandleType::EventFd {
            rights |= Self::SIGNAL;
        }
        rights
    }

    /// What comes with `READ`.
    fn of_readable(kind: HandleType) -> Self {
        match kind {
            HandleType::File | HandleType::MemFd | HandleType::Region => Self::MAP,
            HandleType::Directory => Self::ENUMERATE,
            _ => Self::empty(),
        }
    }
}
