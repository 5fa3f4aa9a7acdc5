//! Waiting without being told, where nobody could tell: sleep in growing slices.

use std::thread;
use std::time::Duration;

use super::interrupt::Until;

/// The first sleep.
const SLEEP_MIN: Duration = Duration::from_micros(50);
/// The longest sleep.
const SLEEP_MAX: Duration = Duration::from_millis(1);

/// One wait for something that another process does.
#[derive(Debug)]
pub(crate) struct Backoff {
    sleep: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { sleep: SLEEP_MIN }
    }

    /// Sleeps a moment; `false`, without sleeping, if the wait is over.
    pub(crate) fn wait(&mut self, until: Until<'_>) -> bool {
        if until.is_over() {
            return false;
        }
        let remaining = until.deadline.remaining();
        thread::sleep(remaining.map_or(self.sleep, |remaining| remaining.min(self.sleep)));
        self.sleep = (self.sleep * 2).min(SLEEP_MAX);
        true
    }
}
