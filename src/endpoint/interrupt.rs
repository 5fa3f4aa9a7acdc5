//! Ending a blocked call from elsewhere: another thread, or a signal handler.
//!
//! | edge | release side | acquire side | carries |
//! |---|---|---|---|
//! | `interrupt` | [`Interrupter::interrupt`] stores the word, then wakes its sleepers | a call loads the word, and the kernel compares it before it lets the call sleep | that a call is to end |
//!
//! A call that checked before the store is either awake and checks again, or asks the kernel to sleep
//! on its ring's word *and* on this one: the kernel finds it changed, or the wake finds the sleeper.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

#[cfg(test)]
use crate::crash::turns;
use crate::deadline::Deadline;
use crate::os::futex::{self, Moment, Sleeping, Woken};

/// How late an interrupt is noticed if the kernel cannot sleep on two words.
const SLICE: Duration = Duration::from_millis(10);

/// Ends a blocked call of a [`Sender`](crate::Sender) or [`Receiver`](crate::Receiver), or its next one,
/// with *Interrupted*: made by [`Sender::interrupter`](crate::Sender::interrupter) and
/// [`Receiver::interrupter`](crate::Receiver::interrupter).
///
/// Calls that block are those without `try_` in their names, whether or not this one would have
/// waited: a send that is interrupted has sent nothing and gives its message back, a receive has taken
/// nothing. Interrupts don't add up: the next call takes all of them.
///
/// # Examples
/// ```
/// use tombolo::{EventsRegion, OpenOptions, RecvError};
/// let (_, mut rx) = EventsRegion::anonymous(OpenOptions::new())?.split_spsc()?;
/// let interrupter = rx.interrupter();
/// let other = std::thread::spawn(move || interrupter.interrupt());
/// assert!(matches!(rx.recv(), Err(RecvError::Interrupted)));
/// # other.join().unwrap();
/// # Ok::<(), tombolo::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Interrupter {
    word: Arc<AtomicU32>,
}

impl Interrupter {
    /// Ends the blocked call, or else the next one.
    ///
    /// May be called from a signal handler: it touches memory of this process only, allocates nothing
    /// and takes no lock. In a forked child it does nothing to the parent.
    ///
    /// # Cost
    /// One system call.
    pub fn interrupt(&self) {
        self.note();
        self.wake();
    }

    /// As [`Self::interrupt`], of a thread that is known not to sleep and looks before it does.
    pub(crate) fn note(&self) {
        self.word.store(1, Release); // edge `interrupt`
    }

    /// Wakes a thread for which [`Self::note`] was called.
    pub(crate) fn wake(&self) {
        futex::wake_own(&self.word);
    }
}

/// A handle's side of its interrupters. Costs nothing as long as there are none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupts(Option<Arc<AtomicU32>>);

impl Interrupts {
    /// Those of a call that nothing interrupts.
    pub(crate) fn never() -> &'static Self {
        static NEVER: Interrupts = Interrupts(None);
        &NEVER
    }

    /// An interrupter of this handle.
    pub(crate) fn interrupter(&mut self) -> Interrupter {
        Interrupter { word: self.0.get_or_insert_default().clone() }
    }

    /// Whether there are interrupters.
    pub(crate) fn are_possible(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a call is to end.
    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        self.0.as_ref().is_some_and(|word| word.load(Relaxed) != 0)
    }

    /// As [`Self::is_pending`]; the call that asks is the one that ends.
    #[inline]
    pub(crate) fn take(&self) -> bool {
        self.is_pending() && self.0.as_ref().is_some_and(|word| word.swap(0, Acquire) != 0)
    }

    /// What to sleep on beside the ring's word.
    pub(crate) fn sleeping(&self) -> Option<Sleeping> {
        self.0.as_ref().map(|word| Sleeping::on_own(word, 0))
    }

    /// Sleeps while `word` is `expected` and no interrupt comes.
    pub(crate) fn sleep(&self, word: &AtomicU32, expected: u32, until: Option<Moment>) -> Woken {
        #[cfg(test)]
        if turns::sleep(&self.words_with(Some((word, expected)))) {
            return Woken::Perhaps;
        }
        let Some(interrupt) = self.sleeping() else { return futex::wait(word, expected, until) };
        match futex::wait_any(&[Sleeping::on(word, expected), interrupt], until) {
            Ok(woken) => woken,
            Err(_) => self.sleep_in_slices(word, expected, until),
        }
    }

    /// Sleeps until an interrupt comes, `until` has come, or for no reason.
    pub(crate) fn sleep_alone(&self, until: Option<Moment>) {
        #[cfg(test)]
        if turns::sleep(&self.words_with(None)) {
            return;
        }
        let Some(interrupt) = self.sleeping() else { return };
        if futex::wait_any(&[interrupt], until).is_err() && !self.is_pending() {
            std::thread::sleep(SLICE); // on kernels without the call
        }
    }

    #[cfg(test)]
    fn words_with<'a>(&'a self, other: Option<(&'a AtomicU32, u32)>) -> Vec<(&'a AtomicU32, u32)> {
        self.0.as_deref().map(|word| (word, 0)).into_iter().chain(other).collect()
    }

    /// As [`Self::sleep`], on kernels that sleep on one word at a time.
    #[cold]
    fn sleep_in_slices(&self, word: &AtomicU32, expected: u32, until: Option<Moment>) -> Woken {
        while !self.is_pending() {
            let slice = Moment::after(SLICE);
            let is_last = until.is_some_and(|until| slice.is_none_or(|slice| until <= slice));
            match futex::wait(word, expected, if is_last { until } else { slice }) {
                Woken::TimedOut if !is_last => {}
                woken => return woken,
            }
        }
        Woken::Perhaps
    }
}

/// How long a call may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until<'a> {
    pub(crate) deadline: Deadline,
    pub(crate) interrupts: &'a Interrupts,
}

impl Until<'_> {
    /// Whether to wait no longer.
    pub(crate) fn is_over(&self) -> bool {
        self.interrupts.is_pending() || self.deadline.has_passed()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use rustix::io::Errno;

    use super::*;
    use crate::os::staged::{self, Call};

    const LONG: Duration = Duration::from_secs(20);

    fn pair() -> (Interrupter, Interrupts) {
        let mut interrupts = Interrupts::default();
        (interrupts.interrupter(), interrupts)
    }

    #[test]
    fn two_interrupts_before_a_call_are_one() {
        let (interrupter, interrupts) = pair();
        assert!(!interrupts.take());
        interrupter.interrupt();
        interrupter.clone().interrupt();
        assert!(interrupts.take());
        assert!(!interrupts.take());
    }

    #[test]
    fn a_sleep_is_ended_by_either_word_and_by_time_on_any_kernel() {
        type Sleep = fn(&Interrupts, &AtomicU32, u32, Option<Moment>) -> Woken;
        for sleep in [Interrupts::sleep as Sleep, Interrupts::sleep_in_slices] {
            let (interrupter, interrupts) = pair();
            let word = AtomicU32::new(7);
            let until = || Moment::after(LONG);
            assert_eq!(sleep(&interrupts, &word, 6, until()), Woken::Perhaps);
            let soon = Moment::after(SLICE * 3);
            assert_eq!(sleep(&interrupts, &word, 7, soon), Woken::TimedOut);
            thread::scope(|scope| {
                let sleeper = scope.spawn(|| sleep(&interrupts, &word, 7, until()));
                thread::sleep(SLICE);
                interrupter.interrupt();
                assert_eq!(sleeper.join().unwrap(), Woken::Perhaps);
            });
            assert_eq!(sleep(&interrupts, &word, 7, until()), Woken::Perhaps, "not taken yet");
            assert!(interrupts.take());
            thread::scope(|scope| {
                let sleeper = scope.spawn(|| sleep(&interrupts, &word, 7, until()));
                thread::sleep(SLICE);
                while !sleeper.is_finished() {
                    futex::wake_all(&word);
                    thread::yield_now();
                }
                assert_eq!(sleeper.join().unwrap(), Woken::Perhaps);
            });
        }
    }

    #[test]
    fn a_kernel_without_the_call_sleeps_all_the_same_unless_the_interrupt_has_come() {
        let unknown = Call::any(libc::SYS_futex_waitv);
        let slept = staged::refusing(unknown, Errno::NOSYS, || {
            let (interrupter, interrupts) = pair();
            let (began, before) = (Instant::now(), staged::sleeps());
            interrupts.sleep_alone(Moment::after(LONG));
            assert!(began.elapsed() >= SLICE);
            assert!(before.is_none_or(|before| staged::sleeps().unwrap() > before));
            interrupter.interrupt();
            let began = Instant::now();
            (0..1000).for_each(|_| interrupts.sleep_alone(Moment::after(LONG)));
            began.elapsed()
        });
        let Some(slept) = slept else { return eprintln!("skipped: no filters") };
        assert!(slept < SLICE * 500, "{slept:?}");
    }
}

/// Every interleaving of three calls that receive, their sender of one message, and two interrupts with
/// stores that may arrive late: no interrupt is left behind by a call that sleeps.
#[cfg(test)]
mod search {
    use std::collections::HashSet;

    /// What the search changes about the protocol.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Protocol {
        AsItIs,
        /// The kernel is asked to compare the ring's word alone.
        SleepsOnOneWord,
        /// The sleepers are woken before the word is stored.
        WakesFirst,
        /// The call sleeps without a comparison: what `pause` would do.
        SleepsUnasked,
    }

    #[derive(Clone, Copy, PartialEq, Eq, Hash)]
    enum Call {
        Begin,
        Arm,
        Poll,
        Sleep { armed: u8 },
        Asleep,
        Over,
    }

    #[derive(Clone, PartialEq, Eq, Hash)]
    struct State {
        call: Call,
        /// Calls that are still to come after this one.
        calls: u8,
        /// The word, the ring's wake word and its count of messages, as they have arrived.
        word: u8,
        armed: u8,
        messages: u8,
        taken: u8,
        /// A store of the interrupter on its way, and its next step.
        late: bool,
        interrupter: u8,
        sender: u8,
        interrupted: u8,
    }

    const INTERRUPTS: u8 = 2;

    #[derive(Default)]
    struct Seen {
        states: HashSet<State>,
        sleeps: u64,
        woken: u64,
        refused: u64,
        interrupted: u64,
    }

    /// Goes through every state from `state` on, and gives one in which the call sleeps for ever.
    fn search(protocol: Protocol) -> Result<Seen, &'static str> {
        let mut seen = Seen::default();
        let start = State {
            call: Call::Begin,
            calls: 3,
            word: 0,
            armed: 0,
            messages: 0,
            taken: 0,
            late: false,
            interrupter: 0,
            sender: 0,
            interrupted: 0,
        };
        let mut open = vec![start];
        while let Some(state) = open.pop() {
            if !seen.states.insert(state.clone()) {
                continue;
            }
            let before = open.len();
            open.extend(call(&state, protocol, &mut seen));
            open.extend(arrive(&state));
            open.extend(interrupt(&state, protocol, &mut seen));
            open.extend(send(&state, &mut seen));
            let is_stuck = open.len() == before && state.call != Call::Over;
            if is_stuck && state.word == 1 {
                return Err("an interrupt is left behind by a call that sleeps");
            }
        }
        Ok(seen)
    }

    /// A step of the call.
    fn call(state: &State, protocol: Protocol, seen: &mut Seen) -> Option<State> {
        let mut next = state.clone();
        next.call = match state.call {
            Call::Begin if state.word == 1 => {
                (next.word, next.interrupted) = (0, state.interrupted + 1);
                seen.interrupted += 1;
                next.end()
            }
            Call::Begin if state.messages > state.taken => {
                next.taken += 1;
                next.end()
            }
            Call::Begin => Call::Arm,
            Call::Arm => {
                next.armed = 1;
                Call::Poll
            }
            Call::Poll if state.messages > state.taken => Call::Begin,
            Call::Poll => Call::Sleep { armed: state.armed },
            Call::Sleep { armed } => {
                let ring = state.armed == armed || protocol == Protocol::SleepsUnasked;
                let both = matches!(protocol, Protocol::AsItIs | Protocol::WakesFirst);
                if ring && (!both || state.word == 0) {
                    seen.sleeps += 1;
                    Call::Asleep
                } else {
                    seen.refused += 1;
                    Call::Begin
                }
            }
            Call::Asleep | Call::Over => return None,
        };
        Some(next)
    }

    impl State {
        fn end(&mut self) -> Call {
            self.calls -= 1;
            if self.calls == 0 { Call::Over } else { Call::Begin }
        }
    }

    /// The interrupter's store arrives.
    fn arrive(state: &State) -> Option<State> {
        state.late.then(|| State { late: false, word: 1, ..state.clone() })
    }

    /// A step of the interrupter: it stores the word, or wakes. A system call waits for its own stores.
    fn interrupt(state: &State, protocol: Protocol, seen: &mut Seen) -> Option<State> {
        if state.interrupter == INTERRUPTS * 2 {
            return None;
        }
        let mut next = State { interrupter: state.interrupter + 1, ..state.clone() };
        let stores = state.interrupter.is_multiple_of(2) != (protocol == Protocol::WakesFirst);
        if stores {
            next.late = true;
            return Some(next);
        }
        if std::mem::take(&mut next.late) {
            next.word = 1;
        }
        let sleeps_there = !matches!(protocol, Protocol::SleepsOnOneWord);
        if state.call == Call::Asleep && sleeps_there {
            seen.woken += 1;
            next.call = Call::Begin;
        }
        Some(next)
    }

    /// A step of the sender: it publishes one message, or wakes a call that has armed.
    fn send(state: &State, seen: &mut Seen) -> Option<State> {
        let mut next = State { sender: state.sender + 1, ..state.clone() };
        match state.sender {
            0 => next.messages = 1,
            1 if state.armed == 1 => {
                next.armed = 0;
                if state.call == Call::Asleep {
                    seen.woken += 1;
                    next.call = Call::Begin;
                }
            }
            1 => {}
            _ => return None,
        }
        Some(next)
    }

    #[test]
    fn no_interrupt_is_left_behind_by_a_call_that_sleeps() {
        let seen = search(Protocol::AsItIs).unwrap();
        let Seen { states, sleeps, woken, refused, interrupted } = seen;
        println!(
            "{} states, {sleeps} sleeps, {woken} woken, {refused} refused, {interrupted} interrupted",
            states.len()
        );
        assert!(sleeps > 0 && woken > 0 && refused > 0 && interrupted > 0);
        let most = states.iter().map(|state| state.interrupted).max();
        assert_eq!(most, Some(INTERRUPTS), "each may end a call");
        assert!(states.iter().any(|it| it.interrupter == INTERRUPTS * 2 && it.interrupted == 1));
    }

    #[test]
    fn a_sleep_on_the_rings_word_alone_or_a_wake_before_the_store_leaves_one_behind() {
        for control in [Protocol::SleepsOnOneWord, Protocol::WakesFirst, Protocol::SleepsUnasked] {
            assert!(search(control).is_err());
        }
    }
}
