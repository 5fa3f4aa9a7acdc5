//! Why something could not be done with a handle.
//!
//! Each variant is one of: *retry* (may succeed later), *fix the call* (the call must change). The status
//! is the name that Zircon has for it.

use std::io;

use crate::handle_type::HandleType;
use crate::rights::Rights;

/// Why something could not be done with one handle.
///
/// If several are true, the one that stands first here is told; a disposition judges in an order
/// of its own, which [`HandleDisposition`](crate::handle::HandleDisposition) lists.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// *Fix the call*, `BAD_HANDLE`: the table has no such handle.
    #[error("{number:#x} names no handle of this table: it was closed, moved, or never given")]
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
    /// *Fix the call*, `WRONG_TYPE`: something of another type than asked for.
    #[error("the handle is of type {found}, wanted {wanted}")]
    WrongType {
        /// The handle's type.
        found: HandleType,
        /// The type asked for.
        wanted: HandleType,
    },
    /// *Fix the call*, `ACCESS_DENIED`: the handle lacks a right that this takes.
    #[error("the handle has the rights {held} and lacks {missing}; use one that has them")]
    AccessDenied {
        /// The handle's rights.
        held: Rights,
        /// Those that are missing.
        missing: Rights,
    },
    /// *Fix the call*, `INVALID_ARGS`: rights asked for that the handle does not have.
    #[error(
        "rights {wanted} are no part of the handle's rights {held}; ask for fewer, or for \
         SAME_RIGHTS alone"
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
    /// *Retry*, `NO_RESOURCES`: the kernel refused a new descriptor or a look at one.
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
    /// *Fix the call*, `OUT_OF_RANGE`: more handles than one message takes. None was looked at.
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
        /// The place in the list, from 0.
        index: usize,
        /// What is wrong with it.
        source: HandleError,
    },
    /// *Retry*: the channel's own descriptors could not be looked at.
    #[error("the channel's own descriptor: {source}")]
    Channel {
        /// What happened.
        source: HandleError,
    },
}
