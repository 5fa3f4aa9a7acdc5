//! Who owns an end of a ring, and who has died.

mod attached;
mod disconnect;
mod group;
mod interrupt;
mod peer;
mod slot;
mod slot_table;
mod watcher;

pub(crate) use attached::{Attached, map_ring, position_of};
pub use disconnect::{Disconnect, Peers};
pub(crate) use disconnect::{Look, Meeting};
pub(crate) use group::Group;
pub use interrupt::Interrupter;
pub(crate) use interrupt::{Interrupts, Until};
pub(crate) use peer::Peer;
pub(crate) use slot::{OwnedSlot, Wanted, claim_until};
pub(crate) use slot_table::{
    attaches, byte, byte_is_held, count_held, incarnations, is_seen_as, pid_of, pid_of_owner,
    slot_offset, slot_u32,
};
pub(crate) use watcher::{Pulse, Upkeep, Watch};
