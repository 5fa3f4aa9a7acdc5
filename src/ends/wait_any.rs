//! Waiting for several receivers at once.

use crate::deadline::Deadline;
use crate::endpoint::Interrupts;
use crate::ends::{Receiver, RecvTimeoutError, Topology};
use crate::error::Error;
use crate::wait::any::{self, Waited};

/// What [`wait_any`] waits for: a [`Receiver`] of either kind, or a [`Channel`](crate::Channel).
#[expect(private_bounds, reason = "sealed: it names types that no user needs")]
pub trait Waitable: any::Waitable {}

impl<K: Topology> Waitable for Receiver<K> {}

impl<K: Topology> any::Waitable for Receiver<K> {
    fn attached(&mut self, deadline: Deadline) -> Result<&mut dyn Waited, Error> {
        Ok(self.receiving_until(deadline)?)
    }

    fn interrupts(&self) -> &Interrupts {
        &self.interrupts
    }
}

/// Waits until one of `receivers` is ready, and returns its index: the next receive from it will not wait,
/// whether it returns a message, fails, or reports a disconnect. A receiver that is disconnected is named
/// once each time it became so, and then again if there is a message.
///
/// If several are ready, the one that was named least recently comes first, so none starves. No message is
/// taken. Up to 128 receivers, of either kind and of any region, and [`Channel`](crate::Channel)s among them, of which
/// the next read will not wait.
///
/// # Errors
/// [`RecvTimeoutError::Timeout`] if none was ready until `deadline`; [`RecvTimeoutError::Interrupted`] by
/// an [`Interrupter`](crate::Interrupter) of one of them; [`RecvTimeoutError::Failed`] if a receiver cannot
/// be attached, if there are none or too many ([`Error::WaitCount`]; a receiver with an interrupter counts
/// twice), and with [`Error::Unsupported`] on kernels before Linux 5.16.
///
/// # Cost
/// A poll of each receiver; one system call for the sleep, whatever their number.
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
#[doc(alias("select", "poll", "epoll"))]
pub fn wait_any(
    receivers: &mut [&mut dyn Waitable],
    deadline: impl Into<Deadline>,
) -> Result<usize, RecvTimeoutError> {
    Ok(any::wait_any(receivers, deadline.into())?)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    use rustix::io::Errno;
    use tombolo_abi::wake;

    use super::*;
    use crate::os::staged::{self, Call};
    use crate::ring::{Memory, Word};
    use crate::{EventsRegion, OpenOptions};

    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn a_kernel_that_cannot_wait_for_several_words_is_named() {
        let (_tx, mut rx) =
            EventsRegion::anonymous(OpenOptions::new()).unwrap().split_spsc().unwrap();
        rx.attach().unwrap();
        for (errno, is_named) in [(Errno::NOSYS, true), (Errno::PERM, true), (Errno::FAULT, false)]
        {
            let call = Call::any(libc::SYS_futex_waitv);
            let waited = staged::refusing(call, errno, || wait_any(&mut [&mut rx], SHORT));
            let Some(waited) = waited else { return eprintln!("skipped: no filters") };
            let is_so = match &waited {
                Err(RecvTimeoutError::Failed { source, .. }) => {
                    is_named && matches!(source, Error::Unsupported { .. })
                }
                Err(RecvTimeoutError::Timeout) => !is_named,
                _ => false,
            };
            assert!(is_so, "{errno}: {waited:?}");
        }
    }

    #[test]
    fn an_interrupt_is_taken_and_told_also_if_a_receiver_cannot_be_attached() {
        let mut region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let (_, mut owner) = region.split_spsc().unwrap();
        owner.attach().unwrap();
        let (_, mut rx) = region.split_spsc().unwrap();
        rx.interrupter().interrupt();
        let waited = wait_any(&mut [&mut rx], SHORT);
        assert!(matches!(waited, Err(RecvTimeoutError::Interrupted)), "{waited:?}");
        let waited = wait_any(&mut [&mut rx], SHORT);
        assert!(matches!(waited, Err(RecvTimeoutError::Failed { .. })), "{waited:?}");
    }

    #[test]
    fn none_and_more_than_the_kernel_takes_are_refused_and_one_with_an_interrupter_counts_twice() {
        let mut region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        for (count, interruptible, found) in [(0, 0, 0), (65, 64, 129)] {
            let mut all: Vec<_> = (0..count).map(|_| region.split_spsc().unwrap().1).collect();
            all.iter_mut().take(interruptible).for_each(|rx| drop(rx.interrupter()));
            let mut all: Vec<_> = all.iter_mut().map(|rx| rx as &mut dyn Waitable).collect();
            let waited = wait_any(&mut all, Deadline::PAST);
            let Err(RecvTimeoutError::Failed { source, .. }) = waited else { panic!("{waited:?}") };
            assert!(matches!(source, Error::WaitCount { found: it, .. } if it == found));
        }
    }

    /// Many times, as a sleep that no interrupt ends is over by itself after a second.
    #[test]
    fn each_interrupt_ends_one_sleep_at_once() {
        const COUNT: u32 = 15;
        let (_tx, mut rx) =
            EventsRegion::anonymous(OpenOptions::new()).unwrap().split_spsc().unwrap();
        let interrupter = rx.interrupter();
        let start = std::time::Instant::now();
        for _ in 0..COUNT {
            let waited = std::thread::scope(|scope| {
                let waiting = scope.spawn(|| wait_any(&mut [&mut rx], Duration::from_secs(60)));
                std::thread::sleep(Duration::from_millis(20)); // until it sleeps
                interrupter.interrupt();
                waiting.join().unwrap()
            });
            assert!(matches!(waited, Err(RecvTimeoutError::Interrupted)), "{waited:?}");
        }
        assert!(start.elapsed() < Duration::from_secs(COUNT.into()) * 2 / 3);
        let waited = wait_any(&mut [&mut rx], SHORT);
        assert!(matches!(waited, Err(RecvTimeoutError::Timeout)), "{waited:?}");
    }

    #[test]
    fn no_receiver_stays_armed() {
        let (_tx, mut rx) =
            EventsRegion::anonymous(OpenOptions::new()).unwrap().split_spsc().unwrap();
        assert!(wait_any(&mut [&mut rx], SHORT).is_err());
        let end = &rx.receiving.as_ref().unwrap().end;
        let wake = end.ring.memory.load(Word::RxWake, Relaxed) as u32;
        assert_eq!(wake & wake::ARMED_FUTEX, 0);
    }
}
