//! What a handle leads to.

use std::fmt;

/// What a [`Handle`](crate::Handle) leads to.
///
/// | type | how it is recognised |
/// |---|---|
/// | `Directory`, `Pipe`, `Socket` | by `statx` |
/// | `EventFd`, `Epoll`, `PidFd` | by the link in `/proc/self/fd`; without `/proc` they are `Other` |
/// | `Region`, `Channel` | a file that can be read and begins as a region does; `Channel` if the descriptor itself holds the lock of an endpoint |
/// | `MemFd` | memory without a name, which has seals and the kernel's name for it |
/// | `File` | any other regular file |
/// | `Other` | all else: devices, timers, descriptors opened with `O_PATH` on something that is neither a regular file nor a directory |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HandleType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// One end of a pipe, or a FIFO.
    Pipe,
    /// A socket of any family.
    Socket,
    /// An eventfd.
    EventFd,
    /// Memory from `memfd_create` that holds no region.
    MemFd,
    /// An epoll instance.
    Epoll,
    /// A process.
    PidFd,
    /// The file of a region, with or without a name.
    Region,
    /// An endpoint of a region, held by this very descriptor. It cannot be duplicated.
    Channel,
    /// Anything else.
    Other,
}

impl HandleType {
    /// The type's name in lower case.
    fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Pipe => "pipe",
            Self::Socket => "socket",
            Self::EventFd => "eventfd",
            Self::MemFd => "memfd",
            Self::Epoll => "epoll",
            Self::PidFd => "pidfd",
            Self::Region => "region",
            Self::Channel => "channel",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for HandleType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
