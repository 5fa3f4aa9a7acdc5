//! Handles: descriptors with a type, rights and an id; and what becomes of each when it is sent.
//!
//! ```text
//! Handle           descriptor, HandleType, Rights, KoID
//! disposition      what becomes of a handle: moved or duplicated, of which type, with which rights;
//!                  a list is checked whole before anything happens
//! ```
//!
//! * The kernel enforces the mode that a file was opened with, and nothing else. Rights bind the
//!   operations of this library.
//! * Every descriptor in a handle is close-on-exec.
//! * Nothing is written to a descriptor, and its position stays. To find the type of a regular file, its
//!   first bytes are read, once.
//!
//! `carrier` brings handles from one process to another.
//!
//! Names, numbers and the order of errors are those of Zircon's handles.

mod check;
mod classify;
mod disposition;
mod koid;
mod owned;
mod stat;
mod subject;

pub use self::check::HandleOp;
pub(crate) use self::check::{ListRefused, Through, Wanted, check_count, check_moved, resolve};
pub use self::disposition::{HandleDisposition, HandleSource};
pub use self::koid::{KoID, channel_end_koid};
pub use self::owned::Handle;
pub(crate) use self::subject::Subject;
pub use crate::error::{DispositionError, HandleError};
pub use crate::handle_type::HandleType;
pub use crate::rights::Rights;
