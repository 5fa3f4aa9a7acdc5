//! How anything sleeps: it spins for as long as that pays, arms, polls once more, and sleeps in the kernel.
//!
//! The handshake of a receiver that goes to sleep and a sender:
//!
//! ```text
//!  receiver                            sender
//!
//!  polls and finds nothing
//!  stores `armed` to rx_wake           stores the record's header
//!  fence                               fence
//!  polls: still nothing                loads rx_wake: `armed`
//!  sleeps while rx_wake is `armed` <-- clears `armed` and wakes, in one system call
//!  stores `disarmed`
//!  polls: the record
//! ```
//!
//! Each side stores, fences, then loads what the other side stores. So at least one of the two loads sees the
//! other's store: the receiver finds the record, or the sender finds the arming. If the sender clears the
//! word before the receiver sleeps, the kernel refuses the sleep, because the word has changed.
//!
//! A sender in a full ring sleeps on `tx_wake` in the same way, and the receiver's `head` is in the place of
//! the record's header. `ring::doorbell` says when a side may leave its fence out.

pub(crate) mod any;
mod bell;
mod bridge;
mod reactor;
mod sleep;
mod spin;

pub(crate) use any::{Turn, Waited};
pub(crate) use bell::{Bell, Incoming, OneRing};
pub(crate) use bridge::{Bridge, Ready, Standing, run_foreign, wake};
pub(crate) use reactor::Standby;
pub(crate) use sleep::{
    Ended, GaveUp, SLEEP_MAX, Sleep, sleep_for_peer, sleep_for_record, sleep_for_space,
    wait_for_peer,
};
pub(crate) use spin::{SPIN_MAX, Spin};
