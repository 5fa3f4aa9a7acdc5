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
