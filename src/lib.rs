//! Channels between Linux processes, in one memory-mapped file.
#![deny(unsafe_code)]

#[doc(hidden)]
pub mod crash;
mod error;
pub mod inspect;
mod mem;
mod os;
mod region;
mod ring;

pub use error::{Damage, Error};
pub use region::{
    CreatePolicy, EventsRegion, FileSystemPolicy, OpenOptions, OwnerPolicy, Prefault,
};
pub use tombolo_abi::{LayoutError, SharedLayout};
