//! Objects in the manner of Zircon's: handles by number.

pub use crate::handle::{HandleTable, HandleValue, channel_end_koid};
