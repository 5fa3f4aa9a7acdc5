//! A call as a future.

use std::fmt;
use std::mem::replace;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::channel::Channel;
use super::channel_error::{CallError, CallPhase, ChannelError};
use super::looking::TXID_LEN;
use super::registered::Registered;
use crate::deadline::Deadline;
use crate::ends::{MessagePacket, NotSent};
use crate::handle::{Handle, Rights};

impl Channel {
    /// As [`Self::call`], as a future, which waits until there is a reply. Nothing is written before it is first
    /// polled. It may be dropped at any time: a request that was not written never is, and the reply to one that
    /// was is a message like any other.
    ///
    /// # Cost
    /// From the first one on an end has a descriptor, and its threads that wait are woken by another thread, as with
    /// [`Readiness`](crate::Readiness).
    ///
    /// # Examples
    /// ```
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
    /// use std::time::Duration;
    /// use tombolo::Channel;
    /// let (client, server) = Channel::create()?;
    /// let serving = std::thread::spawn(move || {
    ///     server.write(server.read_timeout(Duration::from_secs(10))?) // says it again
    /// });
    /// let reply = block_on(client.call_async(b"\0\0\0\0ping"))?;
    /// assert_eq!(&reply.data[4..], b"ping");
    /// serving.join().unwrap()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn call_async(&self, message: impl Into<MessagePacket>) -> Call<'_> {
        Call::new(self, message.into())
    }
}

/// A call that is under way, by [`Channel::call_async`](crate::Channel::call_async).
#[must_use = "a future does nothing unless it is polled"]
pub struct Call<'a> {
    channel: &'a Channel,
    progress: Progress<'a>,
}

/// How far it came.
enum Progress<'a> {
    /// Nothing was written.
    Given(MessagePacket),
    /// Written.
    Waiting(Registered<'a>),
    Over,
}

impl<'a> Call<'a> {
    pub(super) fn new(channel: &'a Channel, message: MessagePacket) -> Self {
        Self { channel, progress: Progress::Given(message) }
    }

    /// Attempts to write the request, until it is written or this task waits for space.
    fn write(
        channel: &'a Channel,
        mut request: MessagePacket,
        waker: &Waker,
    ) -> Result<Progress<'a>, CallError> {
        let checked = channel.require(Rights::READ | Rights::WRITE).and_then(|()| {
            let given = channel.check_request(&request.data, request.handles.len())?;
            channel.outbox.check_handles(&request.handles)?;
            channel.inbox.stand_by()?;
            Ok(given)
        });
        let given = match checked {
            Ok(given) => given,
            Err(error) => return Err(not_written(error, request)),
        };
        loop {
            let choose = |is_taken: &dyn Fn(u32) -> bool| Ok(channel.choose_txid(is_taken));
            let error = match channel.send_request(&mut request, Deadline::PAST, choose) {
                Ok(Ok(registered)) => {
                    Handle::close_all(request.handles);
                    return Ok(Progress::Waiting(registered));
                }
                Ok(Err(error)) => Err(error),
                Err(
                    NotSent::Full(_)
                    | NotSent::Crowded
                    | NotSent::NoReceiver { .. }
                    | NotSent::Contended { .. },
                ) => channel.outbox.wait_for_space(waker),
                Err(error) => Err(ChannelError::of_write(error, true, channel.side)),
            };
            request.data[..TXID_LEN].copy_from_slice(&given);
            match error {
                Ok(true) => return Ok(Progress::Given(request)),
                Ok(false) => {}
                Err(error) => return Err(not_written(error, request)),
            }
        }
    }
}

fn not_written(error: ChannelError, request: MessagePacket) -> CallError {
    CallError { phase: CallPhase::Write, error, message: Some(request) }
}

impl Future for Call<'_> {
    type Output = Result<MessagePacket, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Progress::Given(_) = this.progress
            && let Progress::Given(request) = replace(&mut this.progress, Progress::Over)
        {
            this.progress = Self::write(this.channel, request, cx.waker())?;
        }
        let (phase, message) = (CallPhase::Read, None);
        match &this.progress {
            Progress::Given(_) => Poll::Pending,
            Progress::Waiting(registered) => {
                let polled = registered.poll(cx.waker());
                if polled.is_ready() {
                    this.progress = Progress::Over;
                }
                polled.map_err(|error| CallError { phase, error, message })
            }
            Progress::Over => {
                let error = ChannelError::Canceled;
                Poll::Ready(Err(CallError { phase, error, message }))
            }
        }
    }
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let progress = match &self.progress {
            Progress::Given(_) => "not written yet",
            Progress::Waiting(_) => "waits for the reply",
            Progress::Over => "over",
        };
        f.debug_struct("Call").field("channel", self.channel).field("progress", &progress).finish()
    }
}
