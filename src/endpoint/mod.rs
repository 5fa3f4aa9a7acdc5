//! Who owns an end of a ring, and who has died.

pub(crate) mod attached;
pub(crate) mod group;
pub(crate) mod interrupt;
pub(crate) mod meeting;
pub(crate) mod peer;
pub(crate) mod slot;
pub(crate) mod slot_table;
pub(crate) mod watcher;

pub use interrupt::Interrupter;
pub use meeting::{Disconnect, Peers};
