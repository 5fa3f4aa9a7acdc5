//! How anything sleeps: it spins for as long as that pays, arms, looks once more, and sleeps in the kernel.

pub(crate) mod any;
mod bell;
mod sleep;
mod spin;

pub(crate) use any::{Turn, Waited};
pub(crate) use bell::{Bell, Incoming, OneRing};
pub(crate) use sleep::{
    Ended, GaveUp, SLEEP_MAX, Sleep, sleep_for_peer, sleep_for_record, sleep_for_space,
    wait_for_peer,
};
pub(crate) use spin::{SPIN_MAX, Spin};
