//! Calls: a request and the reply to it, for a thread that waits, or as a future.

use std::fmt;
use std::mem::replace;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};

use super::channel::{Channel, HandleInfo, with_info};
use super::channel_error::{CallError, CallPhase, ChannelError};
use super::looking::TXID_LEN;
use super::outbox::{As, attempt, prepare};
use super::registered::Registered;
use crate::deadline::Deadline;
use crate::ends::{MessagePacket, NotSent};
use crate::handle::{Handle, HandleDisposition, Rights};

/// The first transaction id that is generated: bit 31 is set in all.
const FIRST_TXID: u32 = 1 << 31;

impl Channel {
    /// Writes `message` and waits for the reply, until `deadline`. The first four bytes of the message are replaced
    /// by a transaction id that no other call waiting here has, with bit 31 set, in native byte order. The reply is
    /// the message from the other end that begins with the same bytes, and is no request: both ends may call at once.
    ///
    /// Messages that come meanwhile stay for [`Self::read`]; if they take all the space, the reply comes after some
    /// are read. A reply after the deadline is a message like any other. A deadline that has passed sends the
    /// request if there is space, and then times out, unless the reply is there at once.
    ///
    /// # Errors
    /// [`CallError`] with the phase. In the write phase, as [`Self::write_timeout`], with the request as it was
    /// given; [`ChannelError::TooShortForCall`] (`INVALID_ARGS`). In the read phase [`ChannelError::TimedOut`],
    /// [`ChannelError::PeerClosed`], [`ChannelError::Canceled`].
    ///
    /// # Source
    /// `zx_channel_call`. The phase and the request in the error are Magenta's.
    pub fn call(
        &self,
        message: impl Into<MessagePacket>,
        deadline: impl Into<Deadline>,
    ) -> Result<MessagePacket, CallError> {
        self.call_as(message.into(), deadline, |_, is_taken| Ok(self.choose_txid(is_taken)))
    }

    /// As [`Self::call`], with the transaction id that the first four bytes of `message` are.
    ///
    /// # Errors
    /// As [`Self::call`]; [`ChannelError::TxidInUse`] (`ALREADY_EXISTS`) if another call that waits here has it.
    ///
    /// # Source
    /// Magenta's `mx_channel_call`.
    pub fn call_with_txid(
        &self,
        message: impl Into<MessagePacket>,
        deadline: impl Into<Deadline>,
    ) -> Result<MessagePacket, CallError> {
        self.call_as(message.into(), deadline, |given, is_taken| {
            let txid = u32::from_ne_bytes(given);
            if is_taken(txid) { Err(ChannelError::TxidInUse { txid }) } else { Ok(txid) }
        })
    }

    /// As [`Self::call`], with handles as [`Self::write_etc`] takes them and [`Self::read_etc`] gives them.
    ///
    /// # Errors
    /// As [`Self::call`]; without the request.
    ///
    /// # Source
    /// `zx_channel_call_etc`.
    pub fn call_etc(
        &self,
        bytes: &[u8],
        list: &mut [HandleDisposition<'_>],
        deadline: impl Into<Deadline>,
    ) -> Result<(Vec<u8>, Vec<HandleInfo>), CallError> {
        let checked = self.check_request(bytes, list.len()).map(drop);
        let message =
            self.resolve(checked, bytes, list).map_err(|error| not_written(error, None))?;
        let reply = self.call(message, deadline);
        reply.map(with_info).map_err(|error| CallError { message: None, ..error })
    }

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
        Call { channel: self, progress: Progress::Given(message.into()) }
    }

    /// Calls with the transaction id that `choose` gives, which is told what the message has in its place and
    /// whether another call has an id.
    fn call_as(
        &self,
        mut message: MessagePacket,
        deadline: impl Into<Deadline>,
        mut choose: impl FnMut([u8; TXID_LEN], &dyn Fn(u32) -> bool) -> Result<u32, ChannelError>,
    ) -> Result<MessagePacket, CallError> {
        let given = match self.check_call(&message) {
            Ok(given) => given,
            Err(error) => return Err(not_written(error, Some(message))),
        };
        let mut send = |message: &mut _, deadline| {
            self.send_request(message, deadline, |is_taken| choose(given, is_taken))
        };
        let mut sent = send(&mut message, Deadline::PAST);
        // The clock is read once the request is under way, or has to wait: that takes a twentieth of a call.
        let deadline = deadline.into();
        if sent.as_ref().is_err_and(NotSent::is_to_wait) && !deadline.has_passed() {
            sent = send(&mut message, deadline);
        }
        let sent = sent.map_err(|error| ChannelError::of_write(error, true, self.side));
        match sent.and_then(|registered| registered) {
            Ok(registered) => {
                Handle::close_all(message.handles);
                registered.wait(deadline).map_err(no_reply)
            }
            Err(error) => Err(not_written(error, Some(message))),
        }
    }

    /// Checks all that can be known before a request is sent, and gives the bytes in the place of its transaction id.
    fn check_call(&self, request: &MessagePacket) -> Result<[u8; TXID_LEN], ChannelError> {
        self.require(Rights::READ | Rights::WRITE)?;
        let given = self.check_request(&request.data, request.handles.len())?;
        self.outbox.check_handles(&request.handles)?;
        Ok(given)
    }

    /// Checks how much a request has, and gives the bytes in the place of its transaction id.
    fn check_request(
        &self,
        data: &[u8],
        handle_count: usize,
    ) -> Result<[u8; TXID_LEN], ChannelError> {
        self.outbox.check_limits(data.len(), handle_count)?;
        data.first_chunk().copied().ok_or(ChannelError::TooShortForCall { found: data.len() })
    }

    /// Sends a request with the transaction id that `choose` gives, and registers its call. One that is not sent is as
    /// it was.
    ///
    /// # Errors
    /// As [`Outbox::send`](super::outbox::Outbox::send); inside, what is wrong with the id, and
    /// [`ChannelError::Closed`].
    pub(super) fn send_request(
        &self,
        request: &mut MessagePacket,
        deadline: Deadline,
        mut choose: impl FnMut(&dyn Fn(u32) -> bool) -> Result<u32, ChannelError>,
    ) -> Result<Result<Registered<'_>, ChannelError>, NotSent> {
        let given = request.data.first_chunk::<TXID_LEN>().copied();
        let sent = self.outbox.send(deadline, |sending| {
            prepare(sending, &self.inbox, request)?;
            let mut woken = Vec::new();
            let sent = self.inbox.register_and_send(&mut woken, &mut choose, |txid| {
                request.data[..TXID_LEN].copy_from_slice(&txid.to_ne_bytes());
                attempt(sending, request, As::Call { txid })
            });
            self.outbox.wake_later(woken);
            sent
        });
        if !matches!(sent, Ok(Ok(_)))
            && let (Some(place), Some(given)) = (request.data.first_chunk_mut(), given)
        {
            *place = given;
        }
        sent
    }

    /// A transaction id that no call waiting here has, by what `is_taken` says.
    fn choose_txid(&self, is_taken: &dyn Fn(u32) -> bool) -> u32 {
        loop {
            let txid = self.next_txid.fetch_add(1, Relaxed) | FIRST_TXID;
            if !is_taken(txid) {
                return txid;
            }
        }
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
    /// Attempts to write the request, until it is written or this task waits for space.
    fn write(
        channel: &'a Channel,
        mut request: MessagePacket,
        waker: &Waker,
    ) -> Result<Progress<'a>, CallError> {
        let checked = channel.check_call(&request).map(drop);
        let checked = checked.and_then(|()| channel.inbox.stand_by().map(drop));
        if let Err(error) = checked {
            return Err(not_written(error, Some(request)));
        }
        loop {
            let choose = |is_taken: &dyn Fn(u32) -> bool| Ok(channel.choose_txid(is_taken));
            let is_waiting = match channel.send_request(&mut request, Deadline::PAST, choose) {
                Ok(Ok(registered)) => {
                    Handle::close_all(request.handles);
                    return Ok(Progress::Waiting(registered));
                }
                Ok(Err(error)) => Err(error),
                Err(error) if error.is_to_wait() => channel.outbox.wait_for_space(waker),
                Err(error) => Err(ChannelError::of_write(error, true, channel.side)),
            };
            match is_waiting {
                Ok(true) => return Ok(Progress::Given(request)),
                Ok(false) => {}
                Err(error) => return Err(not_written(error, Some(request))),
            }
        }
    }
}

fn not_written(error: ChannelError, message: Option<MessagePacket>) -> CallError {
    CallError { phase: CallPhase::Write, error, message }
}

fn no_reply(error: ChannelError) -> CallError {
    CallError { phase: CallPhase::Read, error, message: None }
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
        match &this.progress {
            Progress::Given(_) => Poll::Pending,
            Progress::Waiting(registered) => {
                let polled = registered.poll(cx.waker());
                if polled.is_ready() {
                    this.progress = Progress::Over;
                }
                polled.map_err(no_reply)
            }
            Progress::Over => Poll::Ready(Err(no_reply(ChannelError::Canceled))),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn id_of(message: &MessagePacket) -> u32 {
        u32::from_ne_bytes(*message.data.first_chunk().unwrap())
    }

    #[test]
    fn behind_the_last_id_comes_the_first_that_no_call_waits_with() {
        let (near, far) = Channel::create().unwrap();
        near.next_txid.store(u32::MAX, Relaxed);
        let first = FIRST_TXID.to_ne_bytes();
        std::thread::scope(|scope| {
            let own = scope.spawn(|| near.call_with_txid(&first, Duration::from_secs(30)));
            assert_eq!(id_of(&far.read_timeout(Duration::from_secs(30)).unwrap()), FIRST_TXID);
            for wanted in [u32::MAX, FIRST_TXID + 1, FIRST_TXID + 2] {
                near.call(b"\0\0\0\0", Deadline::PAST).unwrap_err();
                assert_eq!(id_of(&far.read().unwrap()), wanted);
            }
            far.write(&first).unwrap();
            assert_eq!(id_of(&own.join().unwrap().unwrap()), FIRST_TXID);
        });
    }
}
