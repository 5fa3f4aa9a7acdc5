//! Objects in the manner of Zircon's, for programs that are written with numbers.
//!
//! A [`HandleTable`] numbers [`Handle`](crate::Handle)s as a Zircon process does; a [`TableDisposition`]
//! says what becomes of one that is sent. A [`Status`] is an error's number.

mod disposition;
mod table;

pub use self::disposition::TableDisposition;
pub use self::table::{HandleTable, HandleValue};
pub use crate::handle::channel_end_koid;
pub use crate::status::Status;
