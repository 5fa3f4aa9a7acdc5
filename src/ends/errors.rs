//! Why a message was not sent or not received, in the shapes of `std::sync::mpsc`.

use crate::endpoint::Attached;
use crate::error::{Error, by_pid};
use crate::ring::{Refusal, SpaceWanted};
use crate::status::Status;
use crate::wait::GaveUp;

/// Why [`Sender::send`](crate::Sender::send) gave up. `T` is the message if the call took ownership of it, or
/// how many messages of a batch were sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError<T = ()> {
    /// *Over*, until a receiver attaches: the ring is full, or handles are to be sent, no receiver is
    /// alive, and one counts as having been there, see [`Disconnect`](crate::options::Disconnect). The next
    /// receiver finds what is in the ring.
    #[error(
        "receiver disconnected (ring full or no handles taken); restart the receiver and retry"
    )]
    Disconnected(T),
    /// *Retry*: an [`Interrupter`](crate::Interrupter) ended the call. Nothing of this message was sent.
    #[error("interrupted; nothing of this message was sent")]
    Interrupted(T),
    /// As its source says; nothing of this message was sent.
    #[error("{source}")]
    Failed {
        /// The message.
        message: T,
        /// What happened.
        source: Error,
    },
}

impl<T> SendError<T> {
    /// Zircon's number for it.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Disconnected(_) => Status::PEER_CLOSED,
            Self::Interrupted(_) => Status::CANCELED,
            Self::Failed { source, .. } => source.status(),
        }
    }
}

/// Why [`Sender::send_timeout`](crate::Sender::send_timeout) gave up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendTimeoutError<T = ()> {
    /// *Retry*: there was no space until the deadline.
    #[error("timed out; the ring stayed full")]
    Timeout(T),
    /// *Retry*: the message has handles, and no receiver was there to take them until the deadline. Its bytes
    /// alone would wait in the ring.
    #[error("no receiver for handles; start the receiver and retry")]
    NoReceiver(T),
    /// *Retry*: as [`SendError::Disconnected`].
    #[error(
        "receiver disconnected (ring full or no handles taken); restart the receiver and retry"
    )]
    Disconnected(T),
    /// *Retry*: as [`SendError::Interrupted`].
    #[error("interrupted; nothing of this message was sent")]
    Interrupted(T),
    /// As its source says; nothing of this message was sent.
    #[error("{source}")]
    Failed {
        /// The message.
        message: T,
        /// What happened.
        source: Error,
    },
}

impl<T> SendTimeoutError<T> {
    /// Zircon's number for it.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Timeout(_) | Self::NoReceiver(_) => Status::TIMED_OUT,
            Self::Disconnected(_) => Status::PEER_CLOSED,
            Self::Interrupted(_) => Status::CANCELED,
            Self::Failed { source, .. } => source.status(),
        }
    }
}

/// Why [`Sender::try_send`](crate::Sender::try_send) did not send.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrySendError<T = ()> {
    /// *Retry*: there is no space now.
    #[error("the ring is full; retry once the receiver has taken a message")]
    Full(T),
    /// *Retry*: as [`SendError::Disconnected`].
    #[error(
        "receiver disconnected (ring full or no handles taken); restart the receiver and retry"
    )]
    Disconnected(T),
    /// *Retry*: the message has handles, and no receiver is there to take them now. Its bytes alone would
    /// wait in the ring.
    #[error("no receiver for handles; start the receiver and retry")]
    NoReceiver(T),
    /// *Retry*: a live process holds the ring's lock and did not free it; it may be stopped.
    #[error("the ring's lock is held{}, which is alive; retry", by_pid(*.pid))]
    Contended {
        /// The message.
        message: T,
        /// The holder; 0 if that has no pid in this PID namespace.
        pid: u32,
    },
    /// As its source says; nothing of this message was sent.
    #[error("{source}")]
    Failed {
        /// The message.
        message: T,
        /// What happened.
        source: Error,
    },
}

impl<T> TrySendError<T> {
    /// Zircon's number for it.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Full(_) | Self::NoReceiver(_) | Self::Contended { .. } => Status::SHOULD_WAIT,
            Self::Disconnected(_) => Status::PEER_CLOSED,
            Self::Failed { source, .. } => source.status(),
        }
    }
}

/// Why [`Receiver::recv`](crate::Receiver::recv) gave up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// *Over*, until a sender attaches: the ring is empty, no sender is alive, and one counts as having
    /// been there, see [`Disconnect`](crate::options::Disconnect).
    #[error("sender disconnected (ring empty); wait for the next one with wait_for_peer")]
    Disconnected,
    /// *Retry*: an [`Interrupter`](crate::Interrupter) ended the call. No message was taken.
    #[error("interrupted; no message was taken")]
    Interrupted,
    /// As its source says. No message was taken, but for [`Error::HandlesLost`], which has the bytes
    /// of the one that was, and [`Error::ProtocolViolation`], which was passed over.
    #[error("{source}")]
    Failed {
        /// What happened.
        #[from]
        source: Error,
    },
}

impl RecvError {
    /// Zircon's number for it.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Disconnected => Status::PEER_CLOSED,
            Self::Interrupted => Status::CANCELED,
            Self::Failed { source } => source.status(),
        }
    }
}

/// Why [`Receiver::recv_timeout`](crate::Receiver::recv_timeout) gave up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvTimeoutError {
    /// *Retry*: no message came until the deadline.
    #[error("timed out; no message came")]
    Timeout,
    /// *Retry*: as [`RecvError::Disconnected`].
    #[error("sender disconnected (ring empty); wait for the next one with wait_for_peer")]
    Disconnected,
    /// *Retry*: as [`RecvError::Interrupted`].
    #[error("interrupted; no message was taken")]
    Interrupted,
    /// As its source says. No message was taken, but for [`Error::HandlesLost`], which has the bytes
    /// of the one that was, and [`Error::ProtocolViolation`], which was passed over.
    #[error("{source}")]
    Failed {
        /// What happened.
        #[from]
        source: Error,
    },
}

impl RecvTimeoutError {
    /// Zircon's number for it.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Timeout => Status::TIMED_OUT,
            Self::Disconnected => Status::PEER_CLOSED,
            Self::Interrupted => Status::CANCELED,
            Self::Failed { source } => source.status(),
        }
    }
}

/// Why [`Receiver::try_recv`](crate::Receiver::try_recv) took nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TryRecvError {
    /// *Retry*: there is no message now.
    #[error("the ring is empty")]
    Empty,
    /// *Retry*: as [`RecvError::Disconnected`].
    #[error("sender disconnected (ring empty); wait for the next one with wait_for_peer")]
    Disconnected,
    /// As its source says. No message was taken, but for [`Error::HandlesLost`], which has the bytes
    /// of the one that was, and [`Error::ProtocolViolation`], which was passed over.
    #[error("{source}")]
    Failed {
        /// What happened.
        #[from]
        source: Error,
    },
}

impl TryRecvError {
    /// Zircon's number for it.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Empty => Status::SHOULD_WAIT,
            Self::Disconnected => Status::PEER_CLOSED,
            Self::Failed { source } => source.status(),
        }
    }
}

/// Why sending stopped, without the message: the public errors are made from this.
#[derive(Debug)]
pub(crate) enum NotSent {
    Full(SpaceWanted),
    Disconnected,
    /// A live process holds the lock.
    Contended {
        slot: u16,
        pid: u32,
    },
    /// No receiver to take its handles, while the region's count of changed slots was `seen`.
    NoReceiver {
        seen: u32,
    },
    /// The kernel takes no more handles now.
    Crowded,
    Interrupted,
    Failed(Error),
}

impl From<Error> for NotSent {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl NotSent {
    /// From a refusal of the ring at `end`. Marks the ring as poisoned if it is damaged.
    #[cold]
    pub(crate) fn of(end: &Attached, refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full(wanted) => Self::Full(wanted),
            Refusal::Damaged(damage) => end.damaged(damage).into(),
        }
    }

    /// Whether the same send may succeed later, by what others do.
    pub(crate) fn is_to_wait(&self) -> bool {
        use NotSent::{Contended, Crowded, Full, NoReceiver};

        matches!(self, Full(_) | Crowded | NoReceiver { .. } | Contended { .. })
    }

    pub(crate) fn into_try_error<T>(self, message: T) -> TrySendError<T> {
        match self {
            Self::Full(_) | Self::Crowded | Self::Interrupted => TrySendError::Full(message),
            Self::Disconnected => TrySendError::Disconnected(message),
            Self::NoReceiver { .. } => TrySendError::NoReceiver(message),
            Self::Contended { pid, .. } => TrySendError::Contended { message, pid },
            Self::Failed(source) => TrySendError::Failed { message, source },
        }
    }

    pub(crate) fn into_timeout_error<T>(self, message: T, ring: u32) -> SendTimeoutError<T> {
        match self {
            Self::Full(_) | Self::Crowded => SendTimeoutError::Timeout(message),
            Self::Disconnected => SendTimeoutError::Disconnected(message),
            Self::Interrupted => SendTimeoutError::Interrupted(message),
            Self::NoReceiver { .. } => SendTimeoutError::NoReceiver(message),
            Self::Contended { slot, pid } => {
                SendTimeoutError::Failed { message, source: Error::Stalled { ring, slot, pid } }
            }
            Self::Failed(source) => SendTimeoutError::Failed { message, source },
        }
    }
}

impl<T> From<SendTimeoutError<T>> for SendError<T> {
    /// For waits without a deadline, which never time out.
    fn from(error: SendTimeoutError<T>) -> Self {
        match error {
            SendTimeoutError::Timeout(message)
            | SendTimeoutError::NoReceiver(message)
            | SendTimeoutError::Disconnected(message) => Self::Disconnected(message),
            SendTimeoutError::Interrupted(message) => Self::Interrupted(message),
            SendTimeoutError::Failed { message, source } => Self::Failed { message, source },
        }
    }
}

impl From<GaveUp> for RecvTimeoutError {
    fn from(error: GaveUp) -> Self {
        match error {
            GaveUp::Timeout => Self::Timeout,
            GaveUp::Interrupted => Self::Interrupted,
            GaveUp::Failed(source) => Self::Failed { source },
        }
    }
}

impl From<GaveUp> for SendTimeoutError {
    fn from(error: GaveUp) -> Self {
        match error {
            GaveUp::Timeout => Self::Timeout(()),
            GaveUp::Interrupted => Self::Interrupted(()),
            GaveUp::Failed(source) => Self::Failed { message: (), source },
        }
    }
}

impl From<RecvTimeoutError> for RecvError {
    /// For waits without a deadline, which never time out.
    fn from(error: RecvTimeoutError) -> Self {
        match error {
            RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected => Self::Disconnected,
            RecvTimeoutError::Interrupted => Self::Interrupted,
            RecvTimeoutError::Failed { source } => Self::Failed { source },
        }
    }
}

impl From<TryRecvError> for RecvTimeoutError {
    /// For a wait that ends with an empty ring.
    fn from(error: TryRecvError) -> Self {
        match error {
            TryRecvError::Empty => Self::Timeout,
            TryRecvError::Disconnected => Self::Disconnected,
            TryRecvError::Failed { source } => Self::Failed { source },
        }
    }
}
