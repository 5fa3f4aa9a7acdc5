//! Objects in the manner of Zircon's, for programs that are written with numbers.
//!
//! A [`HandleTable`] gives each [`Handle`](crate::Handle) a number, as a Zircon process has it; a
//! [`TableDisposition`] says what is to become of one that is sent.

mod disposition;
mod table;

pub use self::disposition::TableDisposition;
pub use self::table::{HandleTable, HandleValue};
pub use crate::handle::channel_end_koid;
