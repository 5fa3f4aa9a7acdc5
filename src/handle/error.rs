//! Why something could not be done with a handle.
//!
//! Each variant is one of: *retry* (may succeed later), *yours* (the call must change). The status
//! is the name that Zircon has for it.

use std::io;

use super::{HandleType, HandleValue, Rights};

/// Why something could not be done with one handle.
///
/// Where several are true, the one that stands first here is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// *Yours*, `BAD_HANDLE`: the table has no such handle.
    #[error("{number:#x} names no handle of this table: it was closed, moved, or never given")]
    BadHandle {
        /// The number given.
        number: HandleValue,
    },
    /// *Yours*, `WRONG_TYPE`: something of another type than asked for.
    #[error("the handle is of type {found}, wanted {wanted}")]
    WrongType {
        /// The handle's type.
        found: HandleType,
        /// The type asked for.
        wanted: HandleType,
    },
    /// *Yours*, `ACCESS_DENIED`: the handle lacks a right that this takes.
    #[error("the handle has the rights {held} and lacks {missing}; use one that has them")]
    AccessDenied {
        /// The handle's rights.
        held: Rights,
        /// Those that are missing.
        missing: Rights,
    },
    /// *Yours*, `INVALID_ARGS`: rights asked for that the handle does not have.
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
    /// *Retry*, `NO_RESOURCES`: the kernel refused a new descriptor or a look at one.
    #[error("{action}: {}", io::Error::from_raw_os_error(*errno))]
    Descriptor {
        /// What was being done.
        action: &'static str,
        /// What the kernel said, as a number.
        errno: i32,
    },
}
