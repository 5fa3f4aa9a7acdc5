//! The rings of this crate.

mod channel;
mod ends;
mod handles;
mod join;
mod lanes;
pub(crate) mod memory;

pub use channel::{ChannelCalls, CreateChannel};
pub use ends::{Mpsc, Spsc, SpscInPlace, SpscLarge, SpscSlice};
pub use handles::{HandlesOverMpsc, HandlesOverSpsc, NewHandlesOverSpsc};
pub use join::Join;
pub(crate) use join::join_region;
pub use lanes::{Lanes, ManyLanes};
