//! The number of each error.

use std::io::{self, ErrorKind};

use rustix::io::Errno;
use tombolo_abi::LayoutError;

use super::{Damage, DispositionError, Error, HandleError};
use crate::status::Status;

impl Error {
    /// Zircon's number for it.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Io { source, .. } => of_kernel(source),
            Self::Layout { reason, .. } => of_layout(reason),
            Self::Handles { source } => source.status(),
            Self::Misaligned { .. } | Self::ProtocolViolation { .. } => Status::INTERNAL,
            Self::UnsupportedFileSystem { .. }
            | Self::HandlesNotCarried { .. }
            | Self::Unsupported { .. } => Status::NOT_SUPPORTED,
            Self::NoSpace { .. } | Self::TooManyFiles { .. } => Status::NO_RESOURCES,
            Self::InvalidName { .. }
            | Self::InvalidPath { .. }
            | Self::InvalidOption { .. }
            | Self::WrongDescriptor { .. } => Status::INVALID_ARGS,
            Self::LockLost { .. } | Self::ForkedChild => Status::BAD_HANDLE,
            Self::WrongFileType { .. } => Status::WRONG_TYPE,
            Self::FileSizeLimit { .. } | Self::MessageTooLong { .. } | Self::WaitCount { .. } => {
                Status::OUT_OF_RANGE
            }
            Self::BufferTooSmall { .. } | Self::BuffersTooSmall { .. } => Status::BUFFER_TOO_SMALL,
            Self::RegionTooSmall { .. }
            | Self::UnclearBoot { .. }
            | Self::Copied { .. }
            | Self::Replaced { .. }
            | Self::RegionPoisoned { .. }
            | Self::Poisoned { .. } => Status::BAD_STATE,
            Self::Stalled { .. } => Status::TIMED_OUT,
            Self::Busy { .. } | Self::LaneNotEmpty { .. } => Status::SHOULD_WAIT,
            Self::HandlesLost { .. } => Status::CANCELED,
            Self::NotFound { .. } => Status::NOT_FOUND,
            Self::InUse { .. } => Status::ALREADY_EXISTS,
            Self::UnsafePath { .. } | Self::Permission { .. } => Status::ACCESS_DENIED,
        }
    }
}

impl Damage {
    /// Zircon's number for it: [`Status::BAD_STATE`], of the ring that has it.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::BAD_STATE
    }
}

impl HandleError {
    /// Zircon's number for it.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::BadHandle { .. } | Self::AlreadyMoved => Status::BAD_HANDLE,
            Self::InvalidOperation { .. } | Self::InvalidRights { .. } => Status::INVALID_ARGS,
            Self::WrongType { .. } | Self::NoDescriptor => Status::WRONG_TYPE,
            Self::NotReleased { status } => *status,
            Self::AccessDenied { .. } => Status::ACCESS_DENIED,
            Self::ThroughItself => Status::NOT_SUPPORTED,
            Self::Descriptor { .. } => Status::NO_RESOURCES,
        }
    }
}

impl DispositionError {
    /// Zircon's number for it.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::TooManyHandles { .. } => Status::OUT_OF_RANGE,
            Self::Handle { source, .. } | Self::Channel { source } => source.status(),
        }
    }
}

/// The number of what is wrong with a region's bytes, or with what was asked of them.
fn of_layout(reason: &LayoutError) -> Status {
    match reason {
        LayoutError::BadMagic { .. } | LayoutError::OtherRing { found: Some(_), .. } => {
            Status::WRONG_TYPE
        }
        LayoutError::OtherRing { found: None, .. } => Status::NOT_FOUND,
        LayoutError::ForeignEndian { .. }
        | LayoutError::UnsupportedMajor { .. }
        | LayoutError::UnknownCapability { .. } => Status::NOT_SUPPORTED,
        LayoutError::NotReady { .. } => Status::TIMED_OUT,
        LayoutError::OptionTooSmall { .. }
        | LayoutError::Option { .. }
        | LayoutError::NoChannel => Status::INVALID_ARGS,
        _ => Status::BAD_STATE, // the bytes contradict themselves or their file
    }
}

/// The number of what the kernel said.
fn of_kernel(error: &io::Error) -> Status {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOLCK) => {
            return Status::NO_RESOURCES;
        }
        Some(Errno::BADF) => return Status::BAD_HANDLE,
        _ => {}
    }
    match error.kind() {
        ErrorKind::NotFound => Status::NOT_FOUND,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Status::ACCESS_DENIED,
        ErrorKind::AlreadyExists => Status::ALREADY_EXISTS,
        ErrorKind::OutOfMemory => Status::NO_MEMORY,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Status::NO_RESOURCES,
        ErrorKind::FileTooLarge => Status::OUT_OF_RANGE,
        ErrorKind::InvalidInput => Status::INVALID_ARGS,
        ErrorKind::Unsupported => Status::NOT_SUPPORTED,
        ErrorKind::TimedOut => Status::TIMED_OUT,
        ErrorKind::WouldBlock => Status::SHOULD_WAIT,
        ErrorKind::Interrupted => Status::INTERRUPTED_RETRY,
        ErrorKind::BrokenPipe
        | ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::NotConnected => Status::PEER_CLOSED,
        _ => Status::INTERNAL,
    }
}
