//! Handles: descriptors with a type, rights and an id; and what is to become of each when it is sent.
//!
//! ```text
//! Handle           descriptor, HandleType, Rights, KoID
//! disposition      what is to become of a handle: moved or duplicated, of which type, with which
//!                  rights; checked as a whole list before anything happens
//! ```
//!
//! * The kernel enforces the mode that a file was opened with, and nothing else. Rights bind the
//!   operations of this library.
//! * Every descriptor in a handle is close-on-exec.
//! * Nothing is written to a descriptor, and its position stays; of a regular file the first bytes
//!   are read, once, when its type is asked for.
//!
//! How handles cross from one process to another is `carrier`'s business.
//!
//! Names, numbers and the order of errors are those of Zircon's handles.

mod check;
mod classify;
mod disposition;
mod koid;
mod owned;
mod stat;

pub use self::check::HandleOp;
pub(crate) use self::check::{Through, Wanted, check, check_count, check_moved, copy};
pub(crate) use self::disposition::first_of;
pub use self::disposition::{HandleDisposition, HandleSource};
pub use self::koid::{KoID, channel_end_koid};
pub use self::owned::Handle;
pub use crate::error::{DispositionError, HandleError};
pub use crate::handle_type::HandleType;
pub use crate::rights::Rights;
