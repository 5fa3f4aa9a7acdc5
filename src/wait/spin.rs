//! Polling again and again before sleeping.

use std::hint;
use std::time::{Duration, Instant};

use crate::deadline::Deadline;

/// How long to spin at first, and at most by default: about what a sleep and a wake-up across processors
/// cost. Longer would cost more than it can save.
pub(crate) const SPIN_MAX: Duration = Duration::from_micros(50);
/// How long to spin at the least, so that a peer that has become fast is noticed.
const BUDGET_MIN: Duration = Duration::from_micros(1);
/// Polls between two readings of the clock.
const LOOKS_A_CLOCK: u32 = 32;
/// Polls without a clock, if spinning pays: one to three microseconds of them.
const FIRST_LOOKS: u32 = 64;
/// How often to ask how many processors may be used.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Most short sleeps between two trials of a long spin.
const TRIAL_EVERY_MAX: u32 = 1024;
/// How short a sleep is one that a long spin may have saved: it is over later than what ended it.
const SHORT_SLEEP: Duration = Duration::from_micros(100);

/// How long an endpoint spins before it sleeps: half as long after a spin that ended in sleep, twice
/// as long after one that paid, and not at all if only one processor may be used.
///
/// That alone would keep two sides asleep that once began to sleep: neither answers as fast as a
/// short spin asks for. So after short sleeps a long spin is tried now and then, and more and more
/// seldom if it doesn't pay, as on a processor that both share. One that pays also shows that the
/// other side has a processor of its own, if this one may use one only.
#[derive(Clone, Debug)]
pub(crate) struct Spin {
    max: Duration,
    budget: Duration,
    /// When the last spin began.
    began: Option<Instant>,
    /// Short sleeps until a trial, and from that one to the next if it fails.
    until_trial: u32,
    trial_every: u32,
    /// When the processors were counted, and whether there was one only.
    asked: Option<(Instant, Processors)>,
    /// Whether a spin has paid, and not so many since then were in vain that the budget is spent.
    pays: bool,
}

/// What this thread may run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Processors {
    One,
    Several,
}

impl Spin {
    /// Spins for `max` at most.
    pub(crate) fn new(max: Duration) -> Self {
        let (began, asked) = (None, None);
        Self { max, budget: max, began, until_trial: 1, trial_every: 1, asked, pays: false }
    }

    /// Polls `has_come` until it is true, the budget is spent or the deadline has passed. Gives whether
    /// it came.
    pub(crate) fn until(&mut self, deadline: Deadline, mut has_come: impl FnMut() -> bool) -> bool {
        let start = Instant::now();
        self.began = Some(start);
        if self.max.is_zero() || self.may_be_alone(start) {
            return has_come();
        }
        let budget = if self.until_trial == 0 { self.max } else { self.budget };
        let limit = deadline.remaining().map_or(budget, |left| left.min(budget));
        loop {
            for _ in 0..LOOKS_A_CLOCK {
                if has_come() {
                    self.note_paid(budget);
                    return true;
                }
                hint::spin_loop();
            }
            if start.elapsed() >= limit {
                self.note_in_vain();
                return false;
            }
        }
    }

    /// How often to poll before the clock is read: not at all if spinning doesn't pay.
    #[inline]
    pub(crate) fn first_looks(&self) -> u32 {
        if self.pays { FIRST_LOOKS } else { 0 }
    }

    /// Call if the first polls found what was waited for: a spin that paid.
    pub(crate) fn note_first_look(&mut self) {
        self.note_paid(self.budget);
    }

    /// Whether this processor may be the only one for both sides, and it is no time for a trial.
    fn may_be_alone(&mut self, now: Instant) -> bool {
        self.processors(now) == Processors::One && !self.pays && self.until_trial > 0
    }

    fn note_paid(&mut self, budget: Duration) {
        self.budget = budget.saturating_mul(2).min(self.max);
        (self.until_trial, self.trial_every) = (1, 1);
        self.pays = true;
    }

    fn note_in_vain(&mut self) {
        self.budget = (self.budget / 2).max(BUDGET_MIN.min(self.max));
        self.pays &= self.budget > BUDGET_MIN;
        if self.until_trial == 0 {
            self.trial_every = (self.trial_every * 2).min(TRIAL_EVERY_MAX);
            self.until_trial = self.trial_every;
        }
    }

    /// Call after a sleep that ended with what the spin had waited for.
    pub(crate) fn note_end_of_sleep(&mut self) {
        if self.began.is_some_and(|began| began.elapsed() < SHORT_SLEEP) {
            self.until_trial = self.until_trial.saturating_sub(1);
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

/// How many processors this thread may use; several if the kernel doesn't say.
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
        Spin { asked, ..Spin::new(SPIN_MAX) }
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
        assert_eq!(spin.budget, SPIN_MAX);
    }

    /// The machine may be slow, so the spin's beginning is set to now.
    fn end_a_short_sleep(spin: &mut Spin) {
        spin.began = Some(Instant::now());
        spin.note_end_of_sleep();
    }

    #[test]
    fn after_short_sleeps_a_long_spin_is_tried_and_seldom_where_it_fails() {
        let mut spin = on(Processors::Several);
        let mut trials = 0;
        for _ in 0..10_000 {
            trials += u32::from(spin.until_trial == 0);
            assert!(!spin.until(Deadline::PAST, || false));
            end_a_short_sleep(&mut spin);
        }
        println!("{trials} trials");
        assert!((10..30).contains(&trials));
        while spin.until_trial > 0 {
            end_a_short_sleep(&mut spin);
        }
        assert!(spin.until(Deadline::NEVER, || true));
        assert_eq!((spin.budget, spin.until_trial), (SPIN_MAX, 1));
    }

    #[test]
    fn long_sleeps_lead_to_no_trial() {
        let mut spin = on(Processors::Several);
        for _ in 0..20 {
            assert!(!spin.until(Deadline::PAST, || false));
            spin.began = Instant::now().checked_sub(SHORT_SLEEP);
            spin.note_end_of_sleep();
        }
        assert_eq!((spin.budget, spin.until_trial), (BUDGET_MIN, 1));
    }

    #[test]
    fn who_is_not_to_spin_looks_once() {
        let mut spin = Spin::new(Duration::ZERO);
        let mut looks = 0;
        for _ in 0..10 {
            assert!(!spin.until(Deadline::NEVER, || {
                looks += 1;
                false
            }));
            end_a_short_sleep(&mut spin);
        }
        assert_eq!(looks, 10);
    }

    #[test]
    fn where_one_processor_may_be_used_there_is_one_look() {
        let mut spin = on(Processors::One);
        let mut looks = 0;
        assert!(!spin.until(Deadline::NEVER, || {
            looks += 1;
            false
        }));
        assert_eq!((looks, spin.budget), (1, SPIN_MAX));
        end_a_short_sleep(&mut spin);
        assert!(!spin.until(Deadline::PAST, || false), "a trial");
        assert_eq!((spin.until_trial, spin.pays), (2, false));
    }

    /// As if each side is pinned to a processor of its own.
    #[test]
    fn where_one_processor_may_be_used_a_trial_that_pays_shows_that_the_other_side_has_another() {
        let mut spin = on(Processors::One);
        assert!(!spin.until(Deadline::NEVER, || false));
        end_a_short_sleep(&mut spin);
        let mut looks = 0;
        let mut at_the_tenth = || {
            looks += 1;
            looks == 10
        };
        assert!(spin.until(Deadline::NEVER, &mut at_the_tenth));
        looks = 0;
        assert!(spin.until(Deadline::NEVER, || {
            looks += 1;
            looks == 10
        }));
    }

    #[test]
    fn spinning_pays_until_the_budget_is_spent() {
        let mut spin = on(Processors::Several);
        assert_eq!(spin.first_looks(), 0);
        spin.note_first_look();
        while spin.budget > BUDGET_MIN {
            assert_eq!(spin.first_looks(), FIRST_LOOKS, "{:?} are left", spin.budget);
            assert!(!spin.until(Deadline::NEVER, || false));
        }
        assert_eq!(spin.first_looks(), 0);
    }

    #[test]
    fn no_spin_is_longer_than_it_may_be_or_than_paid_lately_but_a_trial() {
        let max = BUDGET_MIN / 10;
        let mut spin = Spin { max, budget: max, ..on(Processors::Several) };
        assert!(!spin.until(Deadline::NEVER, || false));
        assert_eq!(spin.budget, max);
        let long = Duration::from_secs(3600);
        let mut spin = Spin { max: long, budget: BUDGET_MIN, ..on(Processors::Several) };
        assert!(!spin.until(Deadline::NEVER, || false));
        spin.until_trial = 0;
        assert!(!spin.until(Deadline::PAST, || false));
        assert_eq!(spin.trial_every, 2);
        spin.budget = long;
        let (mut looks, before) = (0, spin.began.take());
        let mut at_last = || {
            looks += 1;
            looks > 2 * LOOKS_A_CLOCK
        };
        assert!(spin.until(Deadline::NEVER, &mut at_last), "given up before its time");
        assert!(spin.began > before);
    }

    #[test]
    fn trials_that_fail_never_end_altogether() {
        let mut spin =
            Spin { until_trial: 0, trial_every: TRIAL_EVERY_MAX, ..on(Processors::Several) };
        assert!(!spin.until(Deadline::PAST, || false));
        assert_eq!((spin.until_trial, spin.trial_every), (TRIAL_EVERY_MAX, TRIAL_EVERY_MAX));
    }

    #[test]
    fn processors_are_counted_again_after_a_while_and_not_before() {
        let found = usable_processors();
        let other = match found {
            Processors::One => Processors::Several,
            Processors::Several => Processors::One,
        };
        let now = Instant::now();
        let counted = |asked| {
            let mut spin = Spin { asked: Some((asked, other)), ..on(other) };
            let processors = spin.processors(now);
            assert_eq!(spin.asked.map(|(_, processors)| processors), Some(processors));
            processors
        };
        assert_eq!(counted(now), other);
        assert_eq!(counted(now.checked_sub(ASK_EVERY).unwrap()), found);
    }

    #[test]
    fn a_thread_that_may_use_one_processor_has_one() {
        let pin = || {
            let all = rustix::thread::sched_getaffinity(None).unwrap();
            let one = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap();
            let mut set = rustix::thread::CpuSet::new();
            set.set(one);
            rustix::thread::sched_setaffinity(None, &set).unwrap(); // of this thread
            (usable_processors(), all.count())
        };
        let (pinned, count) = std::thread::scope(|scope| scope.spawn(pin).join().unwrap());
        assert_eq!(pinned, Processors::One);
        if count > 1 {
            assert_eq!(usable_processors(), Processors::Several);
        }
    }
}
