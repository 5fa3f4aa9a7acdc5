//! Why an operation on a handle failed.
//!
//! Each variant is one of: *retry* (may succeed later), *fix the call* (the call must change). The name in
//! capitals is that of its [`Status`](crate::object::Status).

use std::io;

use crate::handle_type::HandleType;
use crate::rights::Rights;
use crate::status::Status;

/// Why an operation on one handle failed.
///
/// If several are true, the one that stands first here is reported; a disposition is checked in an order
/// of its own, which [`HandleDisposition`](crate::handle::HandleDisposition) lists.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// *Fix the call*, `BAD_HANDLE`: the table has no such handle.
    #[error("{number:#x} names no handle of this table; it was closed, moved, or never used")]
    BadHandle {
        /// The number given, a [`HandleValue`](crate::object::HandleValue).
        number: u64,
    },
    /// *Fix the call*, `BAD_HANDLE`: a disposition whose handle an earlier call has taken.
    #[error("the handle of this disposition was moved by an earlier call; make a new one")]
    AlreadyMoved,
    /// *Fix the call*, `INVALID_ARGS`: neither to be moved nor to be duplicated.
    #[error("{found} is no operation on a handle; 0 moves it, 1 duplicates it")]
    InvalidOperation {
        /// The number given.
        found: u32,
    },
    /// *Fix the call*, `WRONG_TYPE`: the handle is of another type.
    #[error("the handle is of type {found}, wanted {wanted}")]
    WrongType {
        /// The handle's type.
        found: HandleType,
        /// The type asked for.
        wanted: HandleType,
    },
    /// *Fix the call*, `ACCESS_DENIED`: the handle lacks a right that the operation needs.
    #[error("the handle has the rights {held} and lacks {missing}; use one that has them")]
    AccessDenied {
        /// The handle's rights.
        held: Rights,
        /// Those that are missing.
        missing: Rights,
    },
    /// *Fix the call*, `INVALID_ARGS`: rights asked for that the handle does not have.
    #[error(
        "rights {wanted} exceed the handle's rights {held}; ask for fewer, or for SAME_RIGHTS alone"
    )]
    InvalidRights {
        /// The handle's rights.
        held: Rights,
        /// The rights asked for.
        wanted: Rights,
    },
    /// *Fix the call*, `NOT_SUPPORTED`: a channel, or a file that it is made of, sent through itself.
    #[error("the handle leads to the channel that it would go through; send it through another")]
    ThroughItself,
    /// *Fix the call*, `WRONG_TYPE`: an end of a channel that is open, which has no descriptor to give.
    #[error(
        "an end of a channel that is open has no descriptor to give; use it by its number, or take it out"
    )]
    NoDescriptor,
    /// As its status says: an end of a channel that is open and could not be made a handle, as
    /// [`Channel::release`](crate::Channel::release) tells: `NOT_SUPPORTED` if its other end has not come yet, or has
    /// gone.
    #[error(
        "the end of a channel cannot leave: {status}; use it here, or retry when its other end is open"
    )]
    NotReleased {
        /// What happened.
        status: Status,
    },
    /// *Retry*, `NO_RESOURCES`: the kernel refused to duplicate or to read about a descriptor.
    #[error("{action}: {}", io::Error::from_raw_os_error(*errno))]
    Descriptor {
        /// What was being done.
        action: &'static str,
        /// What the kernel said, as a number.
        errno: i32,
    },
}

/// Why a list of dispositions was refused; nothing of it was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DispositionError {
    /// *Fix the call*, `OUT_OF_RANGE`: more handles than one message takes. None was checked.
    #[error("{found} handles, a message takes at most {limit}; send them in several messages")]
    TooManyHandles {
        /// Handles in the list.
        found: usize,
        /// The most of one message.
        limit: usize,
    },
    /// As its source says: the first refusal of the list. Each disposition's `result` has its own.
    #[error("handle {index} of the list: {source}")]
    Handle {
        /// Its index in the list.
        index: usize,
        /// What is wrong with it.
        source: HandleError,
    },
    /// *Retry*: the kernel refused to read about the channel's own descriptors.
    #[error("the channel's own descriptor: {source}")]
    Channel {
        /// What happened.
        source: HandleError,
    },
}
