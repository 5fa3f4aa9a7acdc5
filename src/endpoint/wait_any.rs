//! Waiting for several receivers at once.

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use rustix::io::Errno;

use super::bell::Sleep;
use super::discipline::Discipline;
use super::errors::RecvTimeoutError;
use super::interrupt::Interrupts;
use super::sleep::SLEEP_MAX;
use super::{Deadline, Receiver};
use crate::error::Error;
use crate::os::futex::{self, Moment, Sleeping, WORDS_MAX, Woken};

/// What [`wait_any`] waits for: a [`Receiver`] of either kind.
pub trait Waitable: sealed::Sealed {}

impl<K: Discipline> Waitable for Receiver<K> {}

/// Closes [`Waitable`] and hides what it takes.
mod sealed {
    use super::super::claimed::Claimed;
    use super::{Deadline, Discipline, Error, Interrupts, Receiver};

    pub trait Sealed {
        /// The endpoint, which is claimed where it isn't yet.
        ///
        /// # Errors
        /// Why it cannot be claimed.
        fn claimed(&mut self, deadline: Deadline) -> Result<&mut Claimed, Error>;

        /// What may end its calls.
        fn interrupts(&self) -> &Interrupts;
    }

    impl<K: Discipline> Sealed for Receiver<K> {
        fn claimed(&mut self, deadline: Deadline) -> Result<&mut Claimed, Error> {
            self.claimed_until(deadline)
        }

        fn interrupts(&self) -> &Interrupts {
            &self.interrupts
        }
    }
}

/// Waits until one of `receivers` is ready, and gives its index: the next receive from it will not
/// wait, whether it gives a message, fails, or says that the other side is disconnected. A receiver that
/// is disconnected is named once each time it became so, and then again if there is a message.
///
/// Of several that are ready, the one that was named least recently comes first, so none starves.
/// Nothing is taken from any of them. Up to 128 receivers, of either kind and of any region.
///
/// # Errors
/// [`RecvTimeoutError::Timeout`] if none was ready until `deadline`; [`RecvTimeoutError::Interrupted`] by
/// an [`Interrupter`](crate::Interrupter) of one of them; [`RecvTimeoutError::Failed`] if a receiver cannot
/// be attached, if there are none or too many ([`Error::WaitCount`]; a receiver with an interrupter counts
/// twice), and with [`Error::Unsupported`] on kernels before Linux 5.16.
///
/// # Cost
/// A look at each receiver; one system call for the sleep, whatever their number.
///
/// # Examples
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("demo.tombolo");
/// use std::time::Duration;
/// let mut region = tombolo::EventsRegion::open_path(path)?;
/// let (mut tx, mut orders) = region.split_spsc()?;
/// let (mut log, mut lines) = region.split_mpsc()?;
/// log.send(b"a line")?;
/// assert_eq!(tombolo::wait_any(&mut [&mut orders, &mut lines], Duration::from_secs(1))?, 1);
/// tx.send(b"an order")?;
/// assert_eq!(tombolo::wait_any(&mut [&mut orders, &mut lines], Duration::from_secs(1))?, 0);
/// assert_eq!(orders.try_recv()?.data, b"an order");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn wait_any(
    receivers: &mut [&mut dyn Waitable],
    deadline: impl Into<Deadline>,
) -> Result<usize, RecvTimeoutError> {
    let interruptible = receivers.iter().filter(|one| one.interrupts().are_possible()).count();
    let (deadline, found) = (deadline.into(), receivers.len() + interruptible);
    if !(1..=WORDS_MAX).contains(&found) {
        return Err(Error::WaitCount { found, limit: WORDS_MAX }.into());
    }
    let attached = receivers.iter_mut().try_for_each(|it| it.claimed(deadline).map(drop));
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
            return Err(RecvTimeoutError::Timeout);
        }
        wait(receivers, deadline)?;
    }
}

/// Takes the interrupts of all: the next call is not to end by one of them, too.
fn take_interrupts(receivers: &[&mut dyn Waitable]) -> Result<(), RecvTimeoutError> {
    match receivers.iter().filter(|receiver| receiver.interrupts().take()).count() {
        0 => Ok(()),
        _ => Err(RecvTimeoutError::Interrupted),
    }
}

/// The receiver that is ready and was named least recently.
fn first_ready(receivers: &mut [&mut dyn Waitable]) -> Result<Option<usize>, Error> {
    static NAMED: AtomicU64 = AtomicU64::new(0);

    let mut first: Option<(u64, usize)> = None;
    for (index, receiver) in receivers.iter_mut().enumerate() {
        let claimed = receiver.claimed(Deadline::PAST)?;
        if claimed.is_ready() {
            let this = (claimed.named, index);
            first = Some(first.map_or(this, |first| first.min(this)));
        }
    }
    let Some((_, index)) = first else { return Ok(None) };
    receivers[index].claimed(Deadline::PAST)?.note_named(NAMED.fetch_add(1, Relaxed) + 1);
    Ok(Some(index))
}

/// Waits until one of them may be ready.
fn wait(receivers: &mut [&mut dyn Waitable], deadline: Deadline) -> Result<(), Error> {
    let mut spin = receivers[0].claimed(Deadline::PAST)?.bell.spin.clone();
    let any_ready = || {
        receivers.iter_mut().any(|receiver| {
            receiver.interrupts().is_pending()
                || receiver.claimed(Deadline::PAST).is_ok_and(|claimed| claimed.is_ready())
        })
    };
    if !spin.until(deadline, any_ready) {
        sleep(receivers, deadline)?;
        spin.note_end_of_sleep();
    }
    receivers[0].claimed(Deadline::PAST)?.bell.spin = spin;
    Ok(())
}

/// Arms all, looks at each once more, and sleeps where none is ready.
fn sleep(receivers: &mut [&mut dyn Waitable], deadline: Deadline) -> Result<(), Error> {
    let mut words = Vec::with_capacity(receivers.len());
    let mut limit = SLEEP_MAX;
    let mut armed = 0;
    for receiver in &mut *receivers {
        let claimed = receiver.claimed(Deadline::PAST)?;
        armed += 1;
        let Some(Sleep { word, limit: own }) = claimed.arm() else { break };
        limit = limit.min(own);
        words.push(Sleeping::on(claimed.end.rx_wake(), word));
    }
    let slept = if words.len() == receivers.len() {
        words.extend(receivers.iter().filter_map(|receiver| receiver.interrupts().sleeping()));
        sleep_on(receivers, &words, deadline.moment_within(limit))
    } else {
        Ok(())
    };
    for receiver in &mut receivers[..armed] {
        receiver.claimed(Deadline::PAST)?.disarm();
    }
    slept
}

fn sleep_on(
    receivers: &mut [&mut dyn Waitable],
    words: &[Sleeping],
    until: Option<Moment>,
) -> Result<(), Error> {
    for receiver in &mut *receivers {
        receiver.claimed(Deadline::PAST)?.end.count_sleep();
    }
    let slept = futex::wait_any(words, until);
    for receiver in &mut *receivers {
        let claimed = receiver.claimed(Deadline::PAST)?;
        claimed.count_departure();
        if matches!(slept, Ok(Woken::TimedOut)) {
            claimed.bell.note_time_out();
        }
    }
    match slept {
        Err(source) if is_missing(&source) => {
            Err(Error::Unsupported { what: "waiting for several futexes", source })
        }
        _ => Ok(()), // a region that was cut short is found by the next look
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSYS | Errno::PERM))
}
