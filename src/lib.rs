//! Channels between Linux processes, in one memory-mapped file.
#![deny(unsafe_code)]

mod error;
mod mem;
mod os;
mod ring;

pub use error::{Damage, Error};
