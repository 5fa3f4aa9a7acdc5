//! Waiting for signals as a future.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::channel::Channel;
use super::channel_error::ChannelError;
use super::object_error::{ObjectError, WaitError};
use super::signal::Signal;
use super::waiters::WaiterId;
use crate::rights::Rights;

impl Channel {
    /// As [`KernelObject::wait_one`](super::KernelObject::wait_one), as a future, which waits until one of `signals` is
    /// there, and gives all that are. It may be dropped at any time, and polled by another task.
    ///
    /// # Errors
    /// [`WaitError`] with the signals that are there, as `wait_one`; there is no deadline.
    ///
    /// # Cost
    /// As [`Self::call_async`].
    ///
    /// # Source
    /// zCore's `wait_signal`.
    ///
    /// # Examples
    /// ```
    /// use std::task::{Context, Poll, Waker};
    /// use tombolo::object::KernelObject;
    /// use tombolo::{Channel, Signal};
    /// let (ours, theirs) = Channel::create()?;
    /// let mut wait = std::pin::pin!(ours.wait_signal(Signal::READABLE | Signal::USER_0));
    /// let mut context = Context::from_waker(Waker::noop()); // a runtime's, mostly
    /// assert!(wait.as_mut().poll(&mut context).is_pending());
    /// theirs.signal_peer(Signal::empty(), Signal::USER_0)?;
    /// let Poll::Ready(seen) = wait.poll(&mut context) else { panic!() };
    /// assert_eq!(seen?, Signal::WRITABLE | Signal::USER_0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias("object_wait_async", "wait_async"))]
    pub fn wait_signal(&self, signals: Signal) -> WaitSignal<'_> {
        WaitSignal { channel: self, signals, id: None }
    }
}

/// A wait for signals: the future of [`Channel::wait_signal`].
#[must_use = "futures do nothing unless they are polled"]
pub struct WaitSignal<'a> {
    channel: &'a Channel,
    signals: Signal,
    /// Once it is registered; what has it registered keeps it so until it is dropped or done.
    id: Option<WaiterId>,
}

impl Future for WaitSignal<'_> {
    type Output = Result<Signal, WaitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let polled = match this.look(context.waker()) {
            Ok(None) => return Poll::Pending,
            Ok(Some(seen)) => Ok(seen),
            Err(error) => {
                let observed = this.channel.object.observe();
                Err(WaitError { error, observed })
            }
        };
        this.leave();
        Poll::Ready(polled)
    }
}

impl WaitSignal<'_> {
    /// Has `waker` woken when signals may have changed, and looks at them.
    fn look(&mut self, waker: &Waker) -> Result<Option<Signal>, ObjectError> {
        let object = &self.channel.object;
        object.require(Rights::WAIT)?;
        let has_waited = self.id.is_some();
        let left = |error| match ObjectError::from(error) {
            ObjectError::Closed if has_waited => ObjectError::Canceled,
            error => error,
        };
        object.inbox.stand_by().map_err(left)?;
        loop {
            let tellings = object.space.tellings(); // before what is told of may stand
            let waits_for_space =
                self.signals.contains(Signal::WRITABLE) && object.wait_for_space().map_err(left)?;
            let mut guard = object.inbox.lock()?;
            let Some(state) = guard.as_mut() else { return Err(left(ChannelError::Closed)) };
            let id = *self.id.get_or_insert_with(|| state.waiters.add_observer().0);
            state.waiters.set_task(id, waker);
            let seen = state.observe(&object.inbox.scanned)?;
            if seen.intersects(self.signals) {
                return Ok(Some(seen));
            }
            if !waits_for_space || tellings == object.space.tellings() {
                return Ok(None);
            }
        }
    }

    fn leave(&mut self) {
        let Some(id) = self.id.take() else { return };
        if let Ok(mut guard) = self.channel.object.inbox.lock()
            && let Some(state) = guard.as_mut()
        {
            state.waiters.remove(id);
        }
    }
}

impl Drop for WaitSignal<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for WaitSignal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channel, signals, .. } = self;
        f.debug_struct("WaitSignal")
            .field("channel", channel)
            .field("signals", signals)
            .finish_non_exhaustive()
    }
}
