//! Creation survives kills.
//!
//! A process that opens a region is killed at each of its system calls, or at any moment, and
//! others open the same name beside it or after it. Whatever it leaves behind, the others all come
//! to one and the same whole region, exactly one process made that, and the region works.

mod crew;
mod disk;
mod histogram;
mod opener;
mod replace;
mod round;
mod spread;
mod stepped;
mod syscalls;

pub(crate) use self::disk::{Ground, check_sound};
pub(crate) use self::opener::Opened;
pub(crate) use self::replace::RUN as REPLACE;
pub(crate) use self::spread::RUN as SPREAD;
pub(crate) use self::syscalls::RUN as SYSCALLS;
