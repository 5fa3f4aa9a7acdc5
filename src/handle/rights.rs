//! What may be done with a handle.

use std::fmt;

use rustix::fs::OFlags;

use super::tell::HandleType;

bitflags::bitflags! {
    /// What may be done with a [`Handle`](crate::Handle).
    ///
    /// **Rights bind this library's own operations**: duplicating, sending, looking one up in a
    /// table. The kernel knows nothing of them. Whoever has the descriptor may do whatever the mode
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
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Rights: u32 {
        /// Making further handles to the same object.
        const DUPLICATE = 1 << 0;
        /// Sending it in a message.
        const TRANSFER = 1 << 1;
        /// Reading from it.
        const READ = 1 << 2;
        /// Writing to it.
        const WRITE = 1 << 3;
        /// Mapping it as code.
        const EXECUTE = 1 << 4;
        /// Mapping it.
        const MAP = 1 << 5;
        /// Asking for its properties.
        const GET_PROPERTY = 1 << 6;
        /// Changing its properties.
        const SET_PROPERTY = 1 << 7;
        /// Listing what is in it.
        const ENUMERATE = 1 << 8;
        /// Ending it.
        const DESTROY = 1 << 9;
        /// Changing its policy.
        const SET_POLICY = 1 << 10;
        /// Asking for its policy.
        const GET_POLICY = 1 << 11;
        /// Setting and clearing its signals.
        const SIGNAL = 1 << 12;
        /// Setting and clearing the signals of its peer.
        const SIGNAL_PEER = 1 << 13;
        /// Waiting for its signals.
        const WAIT = 1 << 14;
        /// Asking for facts about it.
        const INSPECT = 1 << 15;
        /// Managing processes by a job.
        const MANAGE_JOB = 1 << 16;
        /// Managing threads by a process.
        const MANAGE_PROCESS = 1 << 17;
        /// Managing a thread.
        const MANAGE_THREAD = 1 << 18;
        /// No right: asks for whatever the source has. Only by itself.
        const SAME_RIGHTS = 1 << 31;

        /// What nearly every handle has.
        const BASIC = Self::TRANSFER.bits() | Self::DUPLICATE.bits() | Self::WAIT.bits()
            | Self::INSPECT.bits();
        /// Reading and writing.
        const IO = Self::READ.bits() | Self::WRITE.bits();
        /// Asking for properties and changing them.
        const PROPERTY = Self::GET_PROPERTY.bits() | Self::SET_PROPERTY.bits();
        /// Asking for a policy and changing it.
        const POLICY = Self::GET_POLICY.bits() | Self::SET_POLICY.bits();
        /// What the end of a channel has: it can be moved, not duplicated.
        const CHANNEL_DEFAULT = Self::TRANSFER.bits() | Self::WAIT.bits() | Self::INSPECT.bits()
            | Self::IO.bits() | Self::SIGNAL.bits() | Self::SIGNAL_PEER.bits();
    }
}

impl Rights {
    /// What every new handle has, whatever its type and mode.
    pub(super) const ALWAYS: Self = Self::TRANSFER.union(Self::INSPECT);

    /// The rights of a new handle, by the flags of its descriptor.
    pub(super) fn of_new(kind: HandleType, flags: OFlags) -> Self {
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

impl fmt::Display for Rights {
    /// The names of the single rights, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() { f.write_str("none") } else { bitflags::parser::to_writer(self, f) }
    }
}
