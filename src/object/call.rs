//! A call as a future.

#![expect(clippy::result_large_err, reason = "errors give the message back")]

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::channel::Channel;
use super::channel_error::{CallError, CallPhase, ChannelError};
use super::inbox::{Registered, TXID_LEN};
use super::outbox::As;
use crate::deadline::Deadline;
use crate::ends::{MessagePacket, NotSent};
use crate::handle::{Handle, Rights};

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
    /// Registered, and to be written once there is space.
    Ready {
        request: MessagePacket,
        given: [u8; TXID_LEN],
        registered: Registered<'a>,
    },
    /// Written.
    Waiting(Registered<'a>),
    Over,
}

impl<'a> Call<'a> {
    pub(super) fn new(channel: &'a Channel, message: MessagePacket) -> Self {
        Self { channel, progress: Progress::Given(message) }
    }

    /// Registers the call. The request has its transaction id then.
    fn register(
        channel: &'a Channel,
        mut request: MessagePacket,
    ) -> Result<Progress<'a>, CallError> {
        let Some(given) = request.data.first_chunk::<TXID_LEN>().copied() else {
            let error = ChannelError::TooShortForCall { found: request.data.len() };
            return Err(not_written(error, request));
        };
        let checked = channel.require(Rights::READ | Rights::WRITE);
        let ready = checked.and_then(|()| channel.outbox.check(&request)).and_then(|()| {
            channel.inbox.stand_by()?;
            channel.register()
        });
        match ready {
            Ok(registered) => {
                request.data[..TXID_LEN].copy_from_slice(&registered.txid.to_ne_bytes());
                Ok(Progress::Ready { request, given, registered })
            }
            Err(error) => Err(not_written(error, request)),
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
        let outbox = &this.channel.outbox;
        loop {
            match std::mem::replace(&mut this.progress, Progress::Over) {
                Progress::Given(request) => {
                    this.progress = Self::register(this.channel, request)?;
                }
                Progress::Ready { mut request, given, registered } => {
                    let kind = As::Call { txid: registered.txid };
                    let error =
                        match outbox.send(&this.channel.inbox, &request, kind, Deadline::PAST) {
                            Ok(()) => {
                                Handle::close_all(request.handles);
                                this.progress = Progress::Waiting(registered);
                                continue;
                            }
                            Err(error) => error,
                        };
                    let waits = match &error {
                        NotSent::Full(_)
                        | NotSent::Crowded
                        | NotSent::NoReceiver { .. }
                        | NotSent::Contended { .. } => outbox.wait_for_space(cx.waker()),
                        _ => Err(ChannelError::of_write(error, true, this.channel.side)),
                    };
                    match waits {
                        Ok(waits) => {
                            this.progress = Progress::Ready { request, given, registered };
                            if waits {
                                return Poll::Pending;
                            }
                        }
                        Err(error) => {
                            request.data[..TXID_LEN].copy_from_slice(&given);
                            return Poll::Ready(Err(not_written(error, request)));
                        }
                    }
                }
                Progress::Waiting(registered) => {
                    let polled = registered.poll(cx.waker());
                    if polled.is_pending() {
                        this.progress = Progress::Waiting(registered);
                    }
                    let (phase, message) = (CallPhase::Read, None);
                    return polled.map_err(|error| CallError { phase, error, message });
                }
                Progress::Over => {
                    let (phase, error, message) = (CallPhase::Read, ChannelError::Canceled, None);
                    return Poll::Ready(Err(CallError { phase, error, message }));
                }
            }
        }
    }
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let progress = match &self.progress {
            Progress::Given(_) => "not begun",
            Progress::Ready { .. } => "waits for space",
            Progress::Waiting(_) => "waits for the reply",
            Progress::Over => "over",
        };
        f.debug_struct("Call").field("channel", self.channel).field("progress", &progress).finish()
    }
}
