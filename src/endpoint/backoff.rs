//! Waiting without being told: spin, then sleep in growing slices.

use std::hint;
use std::thread;
use std::time::{Duration, Instant};

use super::Deadline;

/// How long to spin before the first sleep: about what a sleep and a wake-up cost.
const SPIN: Duration = Duration::from_micros(50);
/// The first sleep.
const SLEEP_MIN: Duration = Duration::from_micros(50);
/// The longest sleep.
const SLEEP_MAX: Duration = Duration::from_millis(1);
/// Looks at the shared word between two looks at the clock.
const LOOKS_A_CLOCK: u32 = 32;

/// One wait for something that another process does.
#[derive(Debug)]
pub(crate) struct Backoff {
    /// Looks left until the clock is asked; none once sleeping has begun.
    looks: u32,
    spin_until: Option<Instant>,
    sleep: Duration,
}

impl Backoff {
    /// Spins before it sleeps.
    pub(crate) fn spinning() -> Self {
        Self { looks: LOOKS_A_CLOCK, spin_until: None, sleep: SLEEP_MIN }
    }

    /// Sleeps at once.
    pub(crate) fn sleeping() -> Self {
        Self { looks: 0, spin_until: Some(Instant::now()), sleep: SLEEP_MIN }
    }

    /// Waits a moment; `false`, without waiting, where the deadline has passed.
    #[inline]
    pub(crate) fn wait(&mut self, deadline: Deadline) -> bool {
        if self.looks > 0 {
            self.looks -= 1;
            hint::spin_loop();
            return true;
        }
        self.wait_by_the_clock(deadline)
    }

    #[cold]
    fn wait_by_the_clock(&mut self, deadline: Deadline) -> bool {
        let remaining = deadline.remaining();
        if remaining == Some(Duration::ZERO) {
            return false;
        }
        let now = Instant::now();
        if *self.spin_until.get_or_insert(now + SPIN) > now {
            self.looks = LOOKS_A_CLOCK;
            return true;
        }
        thread::sleep(remaining.map_or(self.sleep, |remaining| remaining.min(self.sleep)));
        self.sleep = (self.sleep * 2).min(SLEEP_MAX);
        true
    }
}
