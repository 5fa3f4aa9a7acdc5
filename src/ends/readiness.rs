//! Waiting for an end elsewhere: in a poller, or in a task.

use std::future::poll_fn;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::deadline::Deadline;
use crate::ends::{Receiver, Sender, Topology};
use crate::error::Error;
use crate::wait::{Bridge, Ready};

/// Tells a poller or a task when to call one end of a ring again: a descriptor for `epoll`, `poll(2)` and
/// the loops over them, and wakers for futures of any runtime.
///
/// The whole contract is: *call until there is nothing to do, then wait*. For a receiver call
/// [`try_recv`](Receiver::try_recv), one of its siblings or [`drain`](Receiver::drain) until it says
/// that there is no message; for a sender [`try_send`](Sender::try_send) or one of its siblings until it
/// refuses. What comes after that makes the end *ready*: a message, space for what was refused, the other
/// side's exit, damage. An end is also ready when its readiness is new, and for as long as it was not called
/// until there was nothing to do. A spurious wake-up is possible; the call then says so.
///
/// * **The descriptor** is readable while the end is ready, also that of a sender: wait for `EPOLLIN` or
///   `POLLIN`, never for `OUT`. Each time that the end becomes ready is an edge, so `EPOLLET` works as well.
///   It is close-on-exec and belongs to this process: wait for it, and neither read, write nor send it.
/// * **A task** calls [`Readiness::poll_ready`], or awaits [`Readiness::ready`].
///
/// *Disconnected* counts as nothing to do: it is told once, and then the end is ready if a peer comes and
/// sends, or frees space. After any other error the end stays ready.
///
/// A sender is also told to call again every 100 ms while there is no receiver for its handles, and each
/// millisecond while a process that lives but is stopped holds the lock of the ring.
///
/// All clones, and all that are made of one end, are the same. From the first one on each call of the end
/// that finds nothing to do arms for it, and calls that block don't spin, until the end is dropped; what waits
/// then becomes ready for good. In a forked child nothing waits: the end's calls say
/// [`Error::ForkedChild`].
///
/// # Cost
/// One descriptor an end. The first of a process starts the thread `tombolo-ready`, and each 127 more
/// another one. The thread runs the wakers, one after the other and without any lock; a waker that blocks
/// holds up the others. A message that makes an end ready takes two wake-ups, the thread's and that of what
/// waits, instead of one; while the end is ready, messages cost as usual.
///
/// On kernels before Linux 5.16 an end becomes ready up to 10 ms late.
///
/// # Examples
/// ```
/// use std::future::Future;
/// use tombolo::{EventsRegion, OpenOptions, Readiness, SpscReceiver, TryRecvError};
/// # use std::sync::{Arc, Condvar, Mutex};
/// # use std::task::{Context, Poll, Wake};
/// # #[derive(Default)]
/// # struct Flag(Mutex<bool>, Condvar);
/// # impl Wake for Flag {
/// #     fn wake(self: Arc<Self>) {
/// #         *self.0.lock().unwrap() = true;
/// #         self.1.notify_one();
/// #     }
/// # }
/// # fn block_on<T>(future: impl Future<Output = T>) -> T {
/// #     let (flag, mut future) = (Arc::<Flag>::default(), std::pin::pin!(future));
/// #     loop {
/// #         let waker = flag.clone().into();
/// #         if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
/// #             return result;
/// #         }
/// #         let woken = flag.1.wait_while(flag.0.lock().unwrap(), |woken| !*woken);
/// #         *woken.unwrap() = false;
/// #     }
/// # }
/// /// Takes the next message. Dropping the future loses nothing.
/// async fn next(rx: &mut SpscReceiver, ready: &Readiness) -> Result<Vec<u8>, TryRecvError> {
///     loop {
///         match rx.try_recv() {
///             Err(TryRecvError::Empty) => ready.ready().await,
///             received => return received.map(|message| message.data),
///         }
///     }
/// }
///
/// let (mut tx, mut rx) = EventsRegion::anonymous(OpenOptions::new())?.split_spsc()?;
/// let ready = Readiness::of(&mut rx)?;
/// let other = std::thread::spawn(move || tx.send(b"hello"));
/// assert_eq!(block_on(next(&mut rx, &ready))?, b"hello");
/// # other.join().unwrap()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// `examples/epoll.rs` waits for several ends in one `epoll`.
///
/// # Source
/// Read readiness that is cleared by a call that would block: `O_NONBLOCK` descriptors, tokio's `AsyncFd`.
#[derive(Clone, Debug)]
pub struct Readiness {
    source: Arc<dyn Ready>,
}

impl Readiness {
    /// That of `end`, which is attached if it wasn't yet.
    ///
    /// # Errors
    /// As [`Receiver::attach`] and [`Sender::attach`]; [`Error::Io`] if the process can have no more
    /// descriptors or threads.
    #[doc(alias("eventfd", "as_fd", "AsyncFd", "poll_recv", "poll_send"))]
    pub fn of(end: &mut impl Pollable) -> Result<Self, Error> {
        Ok(Self::over(end.bridge()?))
    }

    pub(crate) fn over(source: Arc<dyn Ready>) -> Self {
        Self { source }
    }

    /// Whether the end is ready; if not, has the task woken when it is. The last task that asked is woken, so
    /// each end is for one task at a time.
    ///
    /// In a function of the form `poll_recv(cx)`, call the end first, and this if there is nothing to do,
    /// again and again until one of them decides.
    ///
    /// # Cost
    /// No system call.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.source.clone().when_ready(cx.waker()) { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Completes when the end is ready. May be dropped at any time.
    pub fn ready(&self) -> impl Future<Output = ()> + Send + Sync + use<'_> {
        poll_fn(|cx| self.poll_ready(cx))
    }
}

/// The descriptor that is readable while the end is ready.
impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.descriptor()
    }
}

impl AsRawFd for Readiness {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// What has a [`Readiness`]: a [`Receiver`] or [`Sender`] of either kind.
#[expect(private_bounds, reason = "sealed: it names types that no user needs")]
pub trait Pollable: Bridged {}

impl<K: Topology> Pollable for Receiver<K> {}
impl<K: Topology> Pollable for Sender<K> {}

/// Closes [`Pollable`] and hides what it takes.
pub(crate) trait Bridged {
    /// Where others wait for it from now on.
    ///
    /// # Errors
    /// Why it cannot be attached, or nothing can wait for it.
    fn bridge(&mut self) -> Result<Arc<Bridge>, Error>;
}

impl<K: Topology> Bridged for Receiver<K> {
    fn bridge(&mut self) -> Result<Arc<Bridge>, Error> {
        self.receiving_until(Deadline::PAST)?.bridge()
    }
}

impl<K: Topology> Bridged for Sender<K> {
    fn bridge(&mut self) -> Result<Arc<Bridge>, Error> {
        self.usable()?.bridge()
    }
}
