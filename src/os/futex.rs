//! Sleeping on shared words and waking their sleepers.
//!
//! Words of a region are shared between processes: the kernel finds them by file and offset, whatever
//! the address. Those of this process alone say so by the name of the call.

use std::io;
use std::num::NonZeroU32;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags, Timespec, Wait, WaitFlags, WaitPtr, WaitvFlags};
use rustix::thread::futex::{WakeOp, WakeOpCmp};
use rustix::time::{ClockId, clock_gettime};
use tombolo_abi::wake;

#[cfg(test)]
use crate::crash::turns;
use crate::deadline::Deadline;

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Woken, or the word had changed before, or for no reason at all.
    Perhaps,
    /// It was time.
    TimedOut,
}

/// The most words that [`wait_any`] can wait for.
pub(crate) const WORDS_MAX: usize = 128;

/// A moment of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct Moment(Timespec);

impl Moment {
    /// That long from now; `None` if the clock cannot represent such a moment.
    pub(crate) fn after(duration: Duration) -> Option<Self> {
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(now.tv_sec.try_into().ok()?, now.tv_nsec.try_into().ok()?);
        let then = now.checked_add(duration)?;
        let tv_sec = then.as_secs().try_into().ok()?;
        Some(Self(Timespec { tv_sec, tv_nsec: then.subsec_nanos().into() }))
    }

    /// When `deadline` has passed, or `limit` from now if that is sooner.
    pub(crate) fn within(deadline: Deadline, limit: Duration) -> Option<Self> {
        Self::after(deadline.remaining().map_or(limit, |remaining| remaining.min(limit)))
    }
}

/// Sleeps while `word` is `expected`, until it is woken or `until` has come. A signal does not end
/// the sleep.
pub(crate) fn wait(word: &AtomicU32, expected: u32, until: Option<Moment>) -> Woken {
    let until = until.map(|moment| moment.0);
    loop {
        let waited =
            futex::wait_bitset(word, Flags::empty(), expected, until.as_ref(), NonZeroU32::MAX);
        match waited {
            Err(Errno::INTR) => {} // the deadline is a moment, not a duration
            Err(Errno::TIMEDOUT) => return Woken::TimedOut,
            _ => return Woken::Perhaps,
        }
    }
}

/// A word to sleep on among others, and what is expected of it.
///
/// It is an address for the kernel, which bears any: if the word's mapping goes before the sleep,
/// there is no sleep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sleeping(Wait);

impl Sleeping {
    /// Sleep on `word` while it is `expected`.
    pub(crate) fn on(word: &AtomicU32, expected: u32) -> Self {
        let mut wait = Wait::new();
        wait.val = expected.into();
        wait.uaddr = WaitPtr::new(word.as_ptr().cast());
        wait.flags = WaitFlags::SIZE_U32;
        Self(wait)
    }

    /// As [`Self::on`], for a word of this process alone.
    pub(crate) fn on_own(word: &AtomicU32, expected: u32) -> Self {
        let mut sleeping = Self::on(word, expected);
        sleeping.0.flags |= WaitFlags::PRIVATE;
        sleeping
    }
}

/// Sleeps while each of `words`, at most [`WORDS_MAX`], is what is expected of it, until one is woken
/// or `until` has come. A signal does not end the sleep.
///
/// # Errors
/// If the kernel, older than Linux 5.16, or a filter in front of it, has no such call.
pub(crate) fn wait_any(words: &[Sleeping], until: Option<Moment>) -> io::Result<Woken> {
    let words: Vec<_> = words.iter().map(|word| word.0).collect();
    let until = until.map(|moment| moment.0);
    loop {
        match futex::waitv(&words, WaitvFlags::empty(), until.as_ref(), ClockId::Monotonic) {
            Err(Errno::INTR) => {}
            Err(Errno::TIMEDOUT) => return Ok(Woken::TimedOut),
            Ok(_) | Err(Errno::AGAIN) => return Ok(Woken::Perhaps),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Wakes all that sleep on `word`.
pub(crate) fn wake_all(word: &AtomicU32) {
    #[cfg(test)]
    turns::wake(word);
    // Fails for bad addresses only.
    let _ = futex::wake(word, Flags::empty(), i32::MAX as u32);
}

/// As [`wake_all`], for a word of this process alone.
pub(crate) fn wake_own(word: &AtomicU32) {
    #[cfg(test)]
    turns::wake(word);
    // Fails for bad addresses only.
    let _ = futex::wake(word, Flags::PRIVATE, i32::MAX as u32);
}

/// Clears `ARMED_FUTEX` in a wake word and wakes up to `count` of its sleepers, in one system call:
/// a process that is killed has done both or neither.
pub(crate) fn disarm_and_wake(word: &AtomicU32, count: u32) {
    let clear = wake::ARMED_FUTEX as u16;
    #[cfg(test)]
    turns::wake(word);
    // The comparison decides about waking more, none here. It fails for bad addresses only.
    let _ =
        futex::wake_op(word, Flags::empty(), count, 0, word, WakeOp::AndN, WakeOpCmp::Eq, clear, 0);
}

/// Wake-ups in a row that led to nothing, of a thread that other processes can wake at will.
#[derive(Debug, Default)]
pub(crate) struct InVain(u32);

impl InVain {
    /// So many, before the thread takes a rest.
    pub(crate) const MAX: u32 = 64;
    /// That rest.
    pub(crate) const REST: Duration = Duration::from_millis(1);

    /// Counts a sleep that ended as `woken`, and whether what was done before it was `of_use`. If a rest is
    /// due, takes it, while `word` is `expected`.
    pub(crate) fn rest_if_due(
        &mut self,
        of_use: bool,
        woken: Woken,
        word: &AtomicU32,
        expected: u32,
    ) {
        if self.is_rest_due_after(of_use, woken) {
            wait(word, expected, Moment::after(Self::REST));
        }
    }

    fn is_rest_due_after(&mut self, of_use: bool, woken: Woken) -> bool {
        let is_in_vain = !of_use && woken != Woken::TimedOut;
        self.0 = if is_in_vain { self.0 + 1 } else { 0 };
        let is_due = self.0 > Self::MAX;
        if is_due {
            self.0 = 0;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::staged;

    #[test]
    fn who_is_woken_for_nothing_all_the_time_rests_now_and_then() {
        let mut in_vain = InVain::default();
        let mut is_to_rest = |count: u32, of_use, woken| {
            (0..count).any(|_| in_vain.is_rest_due_after(of_use, woken))
        };
        for _ in 0..2 {
            assert!(!is_to_rest(InVain::MAX, false, Woken::Perhaps));
            assert!(is_to_rest(1, false, Woken::Perhaps));
        }
        assert!(!is_to_rest(InVain::MAX, false, Woken::Perhaps));
        assert!(!is_to_rest(1, true, Woken::Perhaps));
        assert!(!is_to_rest(InVain::MAX, false, Woken::Perhaps));
        assert!(!is_to_rest(1, false, Woken::TimedOut));
        assert!(!is_to_rest(InVain::MAX, false, Woken::Perhaps));
        assert!(!is_to_rest(1000, true, Woken::Perhaps));
        assert!(!is_to_rest(1000, false, Woken::TimedOut));
    }

    #[test]
    fn a_rest_is_a_sleep_and_is_taken_only_when_it_is_due() {
        let sleeps = || staged::sleeps();
        let Some(before) = sleeps() else { return eprintln!("skipped: no /proc") };
        let (mut in_vain, word) = (InVain::default(), AtomicU32::new(7));
        let mut wake_up = || in_vain.rest_if_due(false, Woken::Perhaps, &word, 7);
        (0..InVain::MAX).for_each(|_| wake_up());
        let not_due = sleeps().unwrap();
        assert!(not_due < before + u64::from(InVain::MAX) / 2);
        wake_up();
        assert!(sleeps().unwrap() > not_due);
    }

    const LONG_ENOUGH: Duration = Duration::from_millis(100);

    #[test]
    fn a_signal_ends_no_sleep() {
        let word = AtomicU32::new(0);
        let woken = staged::interrupted(|| wait(&word, 0, Moment::after(LONG_ENOUGH)));
        assert_eq!(woken, Woken::TimedOut);
        let woken =
            staged::interrupted(|| wait_any(&[Sleeping::on(&word, 0)], Moment::after(LONG_ENOUGH)));
        match woken {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => eprintln!("no such call"),
            woken => assert_eq!(woken.unwrap(), Woken::TimedOut),
        }
    }

    #[test]
    fn a_wait_within_a_limit_is_over_at_the_sooner_of_that_and_its_deadline() {
        let (soon, late) = (Duration::from_secs(10), Duration::from_secs(1000));
        let between = Moment::after(Duration::from_secs(100));
        assert!(Moment::within(late.into(), soon) < between);
        assert!(Moment::within(soon.into(), late) < between);
        assert!(Moment::within(Deadline::NEVER, late) > between);
    }
}
