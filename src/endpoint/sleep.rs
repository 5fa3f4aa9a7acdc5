//! Sleeping of both sides: on which word, and what is counted.

use std::mem::offset_of;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tombolo_abi::{RingControl, Role, Slot};

use super::Deadline;
use super::attached::Attached;
use super::bell::Sleep;
use crate::os::futex::{self, Moment, Woken};
use crate::ring::doorbell::arm_for_room;
use crate::ring::{NoRoom, Wakes};

/// The longest sleep: under all that wakes a sleeper, it looks by itself now and then.
pub(super) const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Somebody on the other side is gone.
    ByDeparture,
    /// Something else may have happened.
    Perhaps,
    /// It was time.
    TimedOut,
}

impl Attached {
    /// Sleeps as a consumer that has armed, unless there were other departures than `known` in the
    /// meantime.
    pub(super) fn sleep_for_record(
        &self,
        Sleep { word, limit }: Sleep,
        known: Option<u32>,
        deadline: Deadline,
    ) -> Ended {
        self.sleep_on(self.rx_wake(), word, known, deadline.moment_within(limit))
    }

    /// Sleeps as a producer until there is room for `wanted`, where there is none yet and there were
    /// no other departures than `known`.
    pub(crate) fn sleep_for_room(&self, wanted: &NoRoom, known: Option<u32>, deadline: Deadline) {
        // An arming that is not slept on stays: it costs the consumer one system call.
        if let Some(word) = arm_for_room(&self.ring, wanted) {
            self.sleep_on(self.tx_wake(), word, known, deadline.moment_within(SLEEP_MAX));
        }
    }

    fn sleep_on(
        &self,
        doorbell: &AtomicU32,
        word: u32,
        known: Option<u32>,
        until: Option<Moment>,
    ) -> Ended {
        if self.has_departures(known) {
            return Ended::ByDeparture;
        }
        if !self.ring.is_open() {
            return Ended::Perhaps; // edge `poison`: marked before the arming, told by the next look
        }
        self.count_sleep();
        match futex::wait(doorbell, word, until) {
            _ if self.count_departure(known) => Ended::ByDeparture,
            Woken::Perhaps => Ended::Perhaps,
            Woken::TimedOut => Ended::TimedOut,
        }
    }

    /// Whether there were other departures than `known`. To be asked behind the fence of arming: edge
    /// `departure`.
    pub(crate) fn has_departures(&self, known: Option<u32>) -> bool {
        Some(self.watch.departures()) != known
    }

    /// Counts a sleep that is about to begin.
    pub(crate) fn count_sleep(&self) {
        if self.role == Role::Receiver {
            self.count_control(offset_of!(RingControl, sleeps));
        }
        self.slot.count(offset_of!(Slot, sleeps));
    }

    /// Counts it where a sleep was ended by another departure than those `known`, and says so.
    pub(crate) fn count_departure(&self, known: Option<u32>) -> bool {
        let by_departure = self.has_departures(known);
        if by_departure {
            self.slot.count(offset_of!(Slot, woken_by_death));
        }
        by_departure
    }

    /// Counts a wake-up of the consumer that found nothing.
    pub(crate) fn count_spurious(&self) {
        self.count_control(offset_of!(RingControl, spurious));
    }

    /// Stores what `wakes` has counted, now and then.
    #[inline]
    pub(crate) fn settle_now_and_then(&self, wakes: &Wakes) {
        if wakes.is_due() {
            self.settle(wakes);
        }
    }

    /// Stores what `wakes` has counted.
    #[cold]
    pub(crate) fn settle(&self, wakes: &Wakes) {
        if self.ring.memory.is_ours() && self.slot.check_kept().is_ok() {
            let (sent, elided) = wakes.take();
            self.slot.add(offset_of!(Slot, wakes_sent), sent.into());
            self.slot.add(offset_of!(Slot, wakes_elided), elided.into());
        }
    }

    fn count_control(&self, offset: usize) {
        self.ring.memory.group_u64(offset).fetch_add(1, Relaxed);
    }

    pub(crate) fn rx_wake(&self) -> &AtomicU32 {
        self.ring.memory.group_u32(offset_of!(RingControl, rx_wake))
    }

    fn tx_wake(&self) -> &AtomicU32 {
        self.ring.memory.control_u32(offset_of!(RingControl, tx_wake))
    }
}
