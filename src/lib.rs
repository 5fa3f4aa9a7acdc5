//! Channels between Linux processes, in one memory-mapped file.
#![deny(unsafe_code)]

mod error;
mod mem;
mod os;

pub use error::{Damage, Error};
