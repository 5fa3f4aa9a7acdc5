//! Looking again and again before sleeping.

use std::hint;
use std::time::{Duration, Instant};

use super::Deadline;

/// How long to spin at first, and at most: about what a sleep and a wake-up across processors cost.
/// Longer would cost more than it can save.
const BUDGET_MAX: Duration = Duration::from_micros(50);
/// How long to spin at the least, so that a peer that has become fast is noticed.
const BUDGET_MIN: Duration = Duration::from_micros(1);
/// Looks between two looks at the clock.
const LOOKS_A_CLOCK: u32 = 32;
/// How often to ask how many processors may be used.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How long an endpoint spins before it sleeps: half as long after a spin that ended in sleep, twice
/// as long after one that paid, and not at all where only one processor may be used.
#[derive(Clone, Debug)]
pub(crate) struct Spin {
    budget: Duration,
    /// When the processors were counted, and whether there was one only.
    asked: Option<(Instant, Processors)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Processors {
    One,
    Several,
}

impl Default for Spin {
    fn default() -> Self {
        Self { budget: BUDGET_MAX, asked: None }
    }
}

impl Spin {
    /// Looks until `has_come` or the budget is spent, no longer than to the deadline. Gives whether
    /// it came.
    pub(crate) fn until(&mut self, deadline: Deadline, mut has_come: impl FnMut() -> bool) -> bool {
        let start = Instant::now();
        if self.processors(start) == Processors::One {
            return has_come();
        }
        let budget = deadline.remaining().map_or(self.budget, |left| left.min(self.budget));
        loop {
            for _ in 0..LOOKS_A_CLOCK {
                if has_come() {
                    self.budget = (self.budget * 2).min(BUDGET_MAX);
                    return true;
                }
                hint::spin_loop();
            }
            if start.elapsed() >= budget {
                self.budget = (self.budget / 2).max(BUDGET_MIN);
                return false;
            }
        }
    }

    fn processors(&mut self, now: Instant) -> Processors {
        match self.asked {
            Some((asked, processors)) if now.duration_since(asked) < ASK_EVERY => processors,
            _ => {
                let processors = usable_processors();
                self.asked = Some((now, processors));
                processors
            }
        }
    }
}

/// How many processors this thread may use; several where the kernel doesn't say.
fn usable_processors() -> Processors {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) if set.count() == 1 => Processors::One,
        _ => Processors::Several,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(processors: Processors) -> Spin {
        let asked = Some((Instant::now() + ASK_EVERY * 60, processors)); // and never again
        Spin { asked, ..Spin::default() }
    }

    #[test]
    fn a_spin_in_vain_is_half_as_long_the_next_time_and_one_that_paid_twice() {
        let mut spin = on(Processors::Several);
        for _ in 0..20 {
            let before = spin.budget;
            assert!(!spin.until(Deadline::NEVER, || false));
            assert_eq!(spin.budget, (before / 2).max(BUDGET_MIN));
        }
        assert_eq!(spin.budget, BUDGET_MIN);
        assert!(spin.until(Deadline::NEVER, || true));
        assert_eq!(spin.budget, BUDGET_MIN * 2);
        assert!((0..20).all(|_| spin.until(Deadline::NEVER, || true)));
        assert_eq!(spin.budget, BUDGET_MAX);
    }

    #[test]
    fn where_one_processor_may_be_used_there_is_one_look() {
        let mut spin = on(Processors::One);
        let mut looks = 0;
        assert!(!spin.until(Deadline::NEVER, || {
            looks += 1;
            false
        }));
        assert_eq!((looks, spin.budget), (1, BUDGET_MAX));
    }
}
