//! Waiting for an event that nothing notifies of: sleep in growing slices.

use std::thread;
use std::time::Duration;

use crate::deadline::Deadline;

const SLEEP_MIN: Duration = Duration::from_micros(50);
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
    pub(crate) fn wait(&mut self, deadline: Deadline) -> bool {
        if deadline.has_passed() {
            return false;
        }
        let remaining = deadline.remaining();
        thread::sleep(remaining.map_or(self.sleep, |remaining| remaining.min(self.sleep)));
        self.sleep = (self.sleep * 2).min(SLEEP_MAX);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn each_wait_is_a_sleep_and_longer_than_the_one_before_until_it_is_long() {
        let mut backoff = Backoff::new();
        for expected in [50, 100, 200, 400, 800, 1000, 1000].map(Duration::from_micros) {
            assert_eq!(backoff.sleep, expected);
            let start = Instant::now();
            assert!(backoff.wait(Deadline::NEVER));
            assert!(start.elapsed() >= expected);
        }
        assert!(!backoff.wait(Deadline::PAST));
    }
}
