//! The owners of a ring's ends, and their deaths.

mod attached;
mod disconnect;
mod end_words;
mod group;
mod interrupt;
mod ownership;
mod peer;
mod slot;
mod slot_table;
mod watcher;

pub(crate) use attached::{Attached, map_ring, position_of};
pub(crate) use disconnect::Meeting;
pub use disconnect::{Disconnect, Peers};
pub(crate) use end_words::EndWords;
pub(crate) use group::Group;
pub use interrupt::Interrupter;
pub(crate) use interrupt::{Interrupts, Until};
pub(crate) use ownership::Seat;
pub(crate) use peer::Peer;
pub(crate) use slot::{Byte, OwnedSlot, Wanted, attach_until};
pub(crate) use slot_table::{
    attaches, byte, byte_is_held, count_held, first_unseen, incarnations, is_seen_as, pid_of,
    pid_of_owner, slot_offset, slot_u32,
};
pub(crate) use watcher::{Pulse, Upkeep, Watch, tell_of_exits};
