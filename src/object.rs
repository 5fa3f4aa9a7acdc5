//! Objects in the manner of Zircon's: handles by number.

pub use crate::handle::{HandleTable, HandleValue, TableDisposition, channel_end_koid};
