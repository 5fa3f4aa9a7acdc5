//! Waiting for several things at once.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::io::Errno;

use crate::deadline::Deadline;
use crate::endpoint::Interrupts;
use crate::error::Error;
use crate::os::futex::{self, Moment, Sleeping, WORDS_MAX, Woken};
use crate::wait::{GaveUp, SLEEP_MAX, Spin};

/// What can be waited for, once it is attached.
pub(crate) trait Waitable {
    /// What it offers, attached if it wasn't yet.
    ///
    /// # Errors
    /// Why it cannot be attached.
    fn attached(&mut self, deadline: Deadline) -> Result<&mut dyn Waited, Error>;

    /// What may end its calls.
    fn interrupts(&self) -> &Interrupts;
}

/// What a thing offers to be waited for.
pub(crate) trait Waited {
    /// Whether its next call would not wait, or would report its peer's exit.
    fn is_ready(&mut self) -> bool;

    /// Arms and polls once more. Gives what to sleep on and for how long at most, or `None` if it is not to
    /// sleep. Disarm afterwards, either way.
    fn arm(&mut self) -> Option<(Sleeping, Duration)>;

    /// Disarms after a sleep, or after none.
    fn disarm(&mut self);

    /// Counts a sleep that is about to begin.
    fn count_sleep(&self);

    /// Counts the sleep if a peer's exit ended it.
    fn count_peer_exit(&self);

    /// Learns that the sleep was ended by time alone.
    fn note_timeout(&mut self);

    /// Learns that it was named, as the `count`th of all.
    fn note_named(&mut self, count: u64);

    /// What decides when it is named, and how long a wait for it spins.
    fn turn(&mut self) -> Turn<'_>;
}

/// See [`Waited::turn`].
pub(crate) struct Turn<'a> {
    /// When it was last named, as a count of all that were.
    pub(crate) named: u64,
    pub(crate) spin: &'a mut Spin,
}

/// Waits until one of `receivers` is ready, and gives its index; of several, the one that was named least
/// recently.
///
/// # Errors
/// [`GaveUp`]; [`Error::WaitCount`], [`Error::Unsupported`].
pub(crate) fn wait_any<W: Waitable + ?Sized>(
    receivers: &mut [&mut W],
    deadline: Deadline,
) -> Result<usize, GaveUp> {
    let interruptible = receivers.iter().filter(|one| one.interrupts().are_possible()).count();
    let found = receivers.len() + interruptible;
    if !(1..=WORDS_MAX).contains(&found) {
        return Err(Error::WaitCount { found, limit: WORDS_MAX }.into());
    }
    let attached = receivers.iter_mut().try_for_each(|it| it.attached(deadline).map(drop));
    if let Err(error) = attached {
        take_interrupts(receivers)?;
        return Err(error.into());
    }
    loop {
        take_interrupts(receivers)?;
        if let Some(index) = first_ready(receivers)? {
            return Ok(index);
        }
        if deadline.has_passed() {
            return Err(GaveUp::Timeout);
        }
        wait(receivers, deadline)?;
    }
}

/// Takes the interrupts of all: the next call is not to end by one of them, too.
fn take_interrupts<W: Waitable + ?Sized>(receivers: &[&mut W]) -> Result<(), GaveUp> {
    match receivers.iter().filter(|receiver| receiver.interrupts().take()).count() {
        0 => Ok(()),
        _ => Err(GaveUp::Interrupted),
    }
}

/// The receiver that is ready and was named least recently.
fn first_ready<W: Waitable + ?Sized>(receivers: &mut [&mut W]) -> Result<Option<usize>, Error> {
    static NAMED: AtomicU64 = AtomicU64::new(0);

    let mut first: Option<(u64, usize)> = None;
    for (index, receiver) in receivers.iter_mut().enumerate() {
        let end = receiver.attached(Deadline::PAST)?;
        if end.is_ready() {
            let this = (end.turn().named, index);
            first = Some(first.map_or(this, |first| first.min(this)));
        }
    }
    let Some((_, index)) = first else { return Ok(None) };
    receivers[index].attached(Deadline::PAST)?.note_named(NAMED.fetch_add(1, Relaxed) + 1);
    Ok(Some(index))
}

/// Waits until one of them may be ready.
fn wait<W: Waitable + ?Sized>(receivers: &mut [&mut W], deadline: Deadline) -> Result<(), Error> {
    let mut spin = receivers[0].attached(Deadline::PAST)?.turn().spin.clone();
    let any_ready = || {
        receivers.iter_mut().any(|receiver| {
            receiver.interrupts().is_pending()
                || receiver.attached(Deadline::PAST).is_ok_and(|end| end.is_ready())
        })
    };
    if !spin.until(deadline, any_ready) {
        sleep(receivers, deadline)?;
        spin.note_end_of_sleep();
    }
    *receivers[0].attached(Deadline::PAST)?.turn().spin = spin;
    Ok(())
}

/// Arms all, polls each once more, and sleeps if none is ready.
fn sleep<W: Waitable + ?Sized>(receivers: &mut [&mut W], deadline: Deadline) -> Result<(), Error> {
    let mut words = Vec::with_capacity(receivers.len());
    let mut limit = SLEEP_MAX;
    let mut armed = 0;
    for receiver in &mut *receivers {
        let end = receiver.attached(Deadline::PAST)?;
        armed += 1;
        let Some((word, own)) = end.arm() else { break };
        limit = limit.min(own);
        words.push(word);
    }
    let slept = if words.len() == receivers.len() {
        words.extend(receivers.iter().filter_map(|receiver| receiver.interrupts().sleeping()));
        sleep_on(receivers, &words, Moment::within(deadline, limit))
    } else {
        Ok(())
    };
    for receiver in &mut receivers[..armed] {
        receiver.attached(Deadline::PAST)?.disarm();
    }
    slept
}

fn sleep_on<W: Waitable + ?Sized>(
    receivers: &mut [&mut W],
    words: &[Sleeping],
    until: Option<Moment>,
) -> Result<(), Error> {
    for receiver in &mut *receivers {
        receiver.attached(Deadline::PAST)?.count_sleep();
    }
    let slept = futex::wait_any(words, until);
    for receiver in &mut *receivers {
        let end = receiver.attached(Deadline::PAST)?;
        end.count_peer_exit();
        if matches!(slept, Ok(Woken::TimedOut)) {
            end.note_timeout();
        }
    }
    match slept {
        Err(source)
            if matches!(Errno::from_io_error(&source), Some(Errno::NOSYS | Errno::PERM)) =>
        {
            Err(Error::Unsupported { what: "waiting for several futexes", source })
        }
        _ => Ok(()), // the next poll finds a region that was cut short
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use super::*;
    use crate::endpoint::Interrupter;
    use crate::os::staged::{self, Call};

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(20);

    /// A thing that is ready from one of its looks on, and counts what is asked of it.
    struct Thing {
        word: AtomicU32,
        /// What its sleeps expect of the word.
        expected: u32,
        limit: Duration,
        /// How often it cannot be attached.
        failures: u32,
        may_sleep: bool,
        looks_until_ready: u32,
        interrupts: Interrupts,
        named: u64,
        spin: Spin,
        looks: u32,
        arms: u32,
        disarms: u32,
        timeouts: u32,
        sleeps: Cell<u32>,
        exits: Cell<u32>,
    }

    impl Thing {
        fn new() -> Self {
            Self {
                word: AtomicU32::new(0),
                expected: 0,
                limit: SLEEP_MAX,
                failures: 0,
                may_sleep: true,
                looks_until_ready: u32::MAX,
                interrupts: Interrupts::default(),
                named: 0,
                spin: Spin::new(Duration::ZERO),
                looks: 0,
                arms: 0,
                disarms: 0,
                timeouts: 0,
                sleeps: Cell::new(0),
                exits: Cell::new(0),
            }
        }

        fn ready() -> Self {
            Self { looks_until_ready: 0, ..Self::new() }
        }

        /// Whose sleeps end at once, as if by a wake.
        fn woken() -> Self {
            Self { expected: 1, ..Self::new() }
        }

        fn interrupted(mut self) -> (Self, Interrupter) {
            let interrupter = self.interrupts.interrupter();
            (self, interrupter)
        }

        /// Arms, disarms, sleeps, exits asked after, and time-outs.
        fn seen(&self) -> [u32; 5] {
            [self.arms, self.disarms, self.sleeps.get(), self.exits.get(), self.timeouts]
        }
    }

    impl Waitable for Thing {
        fn attached(&mut self, _: Deadline) -> Result<&mut dyn Waited, Error> {
            match self.failures.checked_sub(1) {
                Some(left) => {
                    self.failures = left;
                    Err(Error::ForkedChild)
                }
                None => Ok(self),
            }
        }

        fn interrupts(&self) -> &Interrupts {
            &self.interrupts
        }
    }

    impl Waited for Thing {
        fn is_ready(&mut self) -> bool {
            self.looks += 1;
            self.looks > self.looks_until_ready
        }

        fn arm(&mut self) -> Option<(Sleeping, Duration)> {
            self.arms += 1;
            self.may_sleep.then(|| (Sleeping::on(&self.word, self.expected), self.limit))
        }

        fn disarm(&mut self) {
            self.disarms += 1;
        }

        fn count_sleep(&self) {
            self.sleeps.set(self.sleeps.get() + 1);
        }

        fn count_peer_exit(&self) {
            self.exits.set(self.exits.get() + 1);
        }

        fn note_timeout(&mut self) {
            self.timeouts += 1;
        }

        fn note_named(&mut self, count: u64) {
            self.named = count;
        }

        fn turn(&mut self) -> Turn<'_> {
            Turn { named: self.named, spin: &mut self.spin }
        }
    }

    fn wait_for(things: &mut [Thing], deadline: impl Into<Deadline>) -> Result<usize, GaveUp> {
        let mut all: Vec<_> = things.iter_mut().collect();
        wait_any(&mut all, deadline.into())
    }

    fn timed_out(waited: &Result<usize, GaveUp>) -> bool {
        matches!(waited, Err(GaveUp::Timeout))
    }

    #[test]
    fn of_those_that_are_ready_the_one_named_least_recently_is_named_and_of_new_ones_the_first() {
        let mut things = [Thing::new(), Thing::ready(), Thing::ready(), Thing::ready()];
        let named: Vec<_> = (0..7).map(|_| wait_for(&mut things, LONG).unwrap()).collect();
        assert_eq!(named, [1, 2, 3, 1, 2, 3, 1]);
        assert!(things[1].named > things[3].named && things[3].named > things[2].named);
        assert_eq!(things[0].named, 0);
        things.iter().for_each(|thing| assert_eq!(thing.arms, 0));
    }

    #[test]
    fn a_deadline_that_has_passed_looks_at_each_once_and_arms_none() {
        let mut things = [Thing::new(), Thing::new()];
        assert!(timed_out(&wait_for(&mut things, Deadline::PAST)));
        assert!(things.iter().all(|thing| thing.looks == 1 && thing.arms == 0));
    }

    #[test]
    fn a_sleep_that_time_ends_is_counted_and_told_to_each() {
        let mut things = [Thing::new(), Thing::new(), Thing::new()];
        assert!(timed_out(&wait_for(&mut things, SHORT)));
        things.iter().for_each(|thing| assert_eq!(thing.seen(), [1; 5]));
    }

    #[test]
    fn one_that_wakes_ends_the_sleep_of_all_and_that_is_no_time_out() {
        let mut things = [Thing::new(), Thing::woken()];
        things[0].looks_until_ready = 8;
        assert_eq!(wait_for(&mut things, LONG).unwrap(), 0);
        let [arms, ..] = things[0].seen();
        assert!(arms > 1);
        things.iter().for_each(|thing| assert_eq!(thing.seen(), [arms, arms, arms, arms, 0]));
    }

    #[test]
    fn if_one_may_not_sleep_none_does_and_only_those_are_disarmed_that_were_armed() {
        let mut things = [Thing::new(), Thing::new(), Thing::new()];
        things[1].may_sleep = false;
        things[0].looks_until_ready = 2;
        assert_eq!(wait_for(&mut things, LONG).unwrap(), 0);
        assert_eq!([0, 1, 2].map(|at| things[at].seen()[..2].to_vec()), [[1, 1], [1, 1], [0, 0]]);
        things.iter().for_each(|thing| assert_eq!(thing.seen()[2..], [0; 3]));
    }

    #[test]
    fn the_shortest_limit_of_all_is_that_of_the_sleep() {
        for shortest in 0..3 {
            let mut things = [Thing::new(), Thing::new(), Thing::new()];
            things[shortest].limit = Duration::from_millis(1);
            things[0].looks_until_ready = 10;
            assert_eq!(wait_for(&mut things, Duration::from_secs(4)).unwrap(), 0);
            assert!(things[0].timeouts > 2);
        }
    }

    #[test]
    fn a_spin_finds_what_comes_and_an_interrupt_without_a_sleep() {
        let mut things = [Thing::new(), Thing::new()];
        things[0].spin = Spin::new(LONG);
        things[1].looks_until_ready = 500;
        assert_eq!(wait_for(&mut things, LONG).unwrap(), 1);
        let ((thing, interrupter), ready) = (Thing::new().interrupted(), Thing::new());
        let mut things = [ready, thing];
        things[0].spin = Spin::new(LONG);
        let waited = thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(SHORT);
                interrupter.interrupt();
            });
            wait_for(&mut things, 2 * LONG)
        });
        assert!(matches!(waited, Err(GaveUp::Interrupted)));
        if thread::available_parallelism().unwrap().get() > 1 {
            assert_eq!(things[0].arms, 0);
        }
    }

    #[test]
    fn the_first_learns_what_its_spins_were_worth() {
        let mut things = [Thing::new(), Thing::new()];
        things[0].spin = Spin::new(Duration::from_micros(50));
        let before = format!("{:?}", things[0].spin);
        assert!(timed_out(&wait_for(&mut things, SHORT)));
        assert_ne!(format!("{:?}", things[0].spin), before);
    }

    #[test]
    fn an_interrupt_ends_a_sleep_and_all_that_are_pending_end_one_call() {
        let ((one, first), (other, second)) =
            (Thing::new().interrupted(), Thing::new().interrupted());
        let mut things = [Thing::new(), one, other];
        // One that comes late, as the machine is busy, finds the sleep over by time.
        let is_woken = (0..10).any(|_| {
            let before = things[0].timeouts;
            let waited = thread::scope(|scope| {
                scope.spawn(|| {
                    thread::sleep(SHORT);
                    second.interrupt();
                });
                wait_for(&mut things, LONG)
            });
            assert!(matches!(waited, Err(GaveUp::Interrupted)));
            assert_eq!(things[0].arms, things[0].disarms);
            things[0].timeouts == before
        });
        assert!(is_woken, "it is found when a sleep is over by time");
        first.interrupt();
        second.interrupt();
        assert!(matches!(wait_for(&mut things, Deadline::PAST), Err(GaveUp::Interrupted)));
        assert!(timed_out(&wait_for(&mut things, Deadline::PAST)));
    }

    #[test]
    fn an_interrupt_comes_before_what_is_ready_and_before_what_is_wrong() {
        let (thing, interrupter) = Thing::ready().interrupted();
        let mut things = [thing];
        interrupter.interrupt();
        assert!(matches!(wait_for(&mut things, LONG), Err(GaveUp::Interrupted)));
        things[0].failures = 2;
        interrupter.interrupt();
        assert!(matches!(wait_for(&mut things, LONG), Err(GaveUp::Interrupted)));
        assert!(matches!(wait_for(&mut things, LONG), Err(GaveUp::Failed(Error::ForkedChild))));
        assert!(wait_for(&mut things, LONG).is_ok());
    }

    #[test]
    fn what_can_be_interrupted_takes_two_words_of_those_that_there_are() {
        let things = |plain: usize, interruptible: usize| {
            let plain = (0..plain).map(|_| Thing::ready());
            let others = (0..interruptible).map(|_| Thing::ready().interrupted().0);
            plain.chain(others).collect::<Vec<_>>()
        };
        for (plain, interruptible) in [(WORDS_MAX, 0), (WORDS_MAX - 2, 1), (0, WORDS_MAX / 2)] {
            assert!(wait_for(&mut things(plain, interruptible), Deadline::PAST).is_ok());
            let waited = wait_for(&mut things(plain + 1, interruptible), Deadline::PAST);
            let found = WORDS_MAX + 1;
            let Err(GaveUp::Failed(error)) = waited else { panic!("{waited:?}") };
            assert!(matches!(error, Error::WaitCount { found: it, .. } if it == found), "{error}");
        }
        let none = wait_for(&mut [], Deadline::PAST);
        assert!(matches!(none, Err(GaveUp::Failed(Error::WaitCount { found: 0, .. }))));
    }

    #[test]
    fn a_kernel_without_the_call_is_named_and_another_refusal_is_for_the_next_look() {
        for (errno, is_told) in [(Errno::NOSYS, true), (Errno::PERM, true), (Errno::NOMEM, false)] {
            let call = Call::any(libc::SYS_futex_waitv);
            let waited = staged::refusing(call, errno, || {
                let mut things = [Thing::new()];
                things[0].looks_until_ready = 2;
                let waited = wait_for(&mut things, LONG);
                assert_eq!(things[0].seen(), [1, 1, 1, 1, 0]);
                waited
            });
            let Some(waited) = waited else { return eprintln!("skipped: no filters") };
            let is_unsupported = matches!(waited, Err(GaveUp::Failed(Error::Unsupported { .. })));
            assert_eq!(is_unsupported, is_told, "{waited:?}");
            assert_eq!(matches!(waited, Ok(0)), !is_told, "{waited:?}");
        }
    }
}
