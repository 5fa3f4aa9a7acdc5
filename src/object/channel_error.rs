//! Why an operation on a channel failed.

use crate::ends::{MessagePacket, NotSent};
use crate::error::{DispositionError, Error, HandleError};
use crate::handle::Handle;
use crate::rights::Rights;
use crate::status::Status;

/// Why an operation on a [`Channel`](crate::Channel) failed. Zircon's name for it stands in brackets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// *Retry* (`SHOULD_WAIT`): there is no message now, or no space for one.
    #[error("nothing to read, or no space to write, now; wait for it, or retry")]
    ShouldWait,
    /// *Over* (`PEER_CLOSED`): the other end was closed, or the process that owned it has exited, and all that it
    /// had sent has been read.
    #[error("the other end is closed; open or create a new channel")]
    PeerClosed,
    /// *Retry* (`TIMED_OUT`): the deadline has passed.
    #[error("timed out")]
    TimedOut,
    /// *Over* (`CANCELED`): another thread closed this end while this call waited.
    #[error("this end was closed by another thread while this call waited")]
    Canceled,
    /// *Over* (`BAD_HANDLE`): this end was closed before.
    #[error("this end is closed; use an open one")]
    Closed,
    /// *Fix the call* (`BUFFER_TOO_SMALL`): the message does not fit into the buffers.
    #[error(
        "the next message has {needed} bytes and {needed_handles} handles, the buffers take {available} and \
         {available_handles}; {}", fate(*.is_discarded)
    )]
    BufferTooSmall {
        /// Bytes of the message.
        needed: usize,
        /// Length of the buffer for bytes.
        available: usize,
        /// Handles of the message.
        needed_handles: usize,
        /// Length of the buffer for handles.
        available_handles: usize,
        /// Whether the message is gone, as the call allowed; else it is still there.
        is_discarded: bool,
    },
    /// *Fix the call* (`OUT_OF_RANGE`): longer than a message may be.
    #[error("message of {found} bytes, this channel takes at most {limit}; split it")]
    TooLong {
        /// Bytes of the message.
        found: usize,
        /// The most that the channel takes.
        limit: usize,
    },
    /// *Fix the call* (`OUT_OF_RANGE`): more parts than one message may be gathered from.
    #[error("a message of {found} parts, at most {limit} are gathered; join some")]
    TooManyParts {
        /// Parts of the message.
        found: usize,
        /// The most.
        limit: usize,
    },
    /// *Fix the call* (`INVALID_ARGS`): a request without space for its transaction id.
    #[error("a request of {found} bytes, it begins with 4 bytes for the transaction id; add them")]
    TooShortForCall {
        /// Bytes of the request.
        found: usize,
    },
    /// *Fix the call* (`ALREADY_EXISTS`): another call of this end waits for a reply with this transaction id.
    #[error("a call with transaction id {txid:#x} is waiting already; choose another")]
    TxidInUse {
        /// The id.
        txid: u32,
    },
    /// *Fix the call* (`ACCESS_DENIED`): the end came as a handle without a right that the call needs.
    #[error("this end has the rights {held} and lacks {missing}; use one that has them")]
    AccessDenied {
        /// The end's rights.
        held: Rights,
        /// Those that are missing.
        missing: Rights,
    },
    /// As its source says: handles that no message takes, or not over this channel.
    #[error("{source}")]
    Handles {
        /// Which of them, and why.
        #[from]
        source: DispositionError,
    },
    /// As its source says.
    #[error("{source}")]
    Failed {
        /// What happened. In a box, as it is large and rare.
        source: Box<Error>,
    },
}

fn fate(is_discarded: bool) -> &'static str {
    if is_discarded { "it was discarded" } else { "it is still there" }
}

impl From<Error> for ChannelError {
    fn from(source: Error) -> Self {
        match source {
            Error::BuffersTooSmall { needed, available, needed_handles, available_handles } => {
                let is_discarded = false;
                Self::BufferTooSmall {
                    needed,
                    available,
                    needed_handles,
                    available_handles,
                    is_discarded,
                }
            }
            Error::MessageTooLong { found, limit, .. } => {
                Self::TooLong { found, limit: limit as usize }
            }
            Error::Handles { source } => Self::Handles { source },
            source => Self::Failed { source: source.into() },
        }
    }
}

impl From<HandleError> for ChannelError {
    fn from(source: HandleError) -> Self {
        DispositionError::Channel { source }.into()
    }
}

impl ChannelError {
    /// Checks whether a message of so many bytes and handles fits into buffers, else the error says whether it is gone.
    pub(super) fn check_fit(
        (needed, needed_handles): (usize, usize),
        (available, available_handles): (usize, usize),
        is_discarded: bool,
    ) -> Result<(), Self> {
        if needed <= available && needed_handles <= available_handles {
            return Ok(());
        }
        Err(Self::BufferTooSmall {
            needed,
            available,
            needed_handles,
            available_handles,
            is_discarded,
        })
    }

    /// Zircon's number for it.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::ShouldWait => Status::SHOULD_WAIT,
            Self::PeerClosed => Status::PEER_CLOSED,
            Self::TimedOut => Status::TIMED_OUT,
            Self::Canceled => Status::CANCELED,
            Self::Closed => Status::BAD_HANDLE,
            Self::BufferTooSmall { .. } => Status::BUFFER_TOO_SMALL,
            Self::TooLong { .. } | Self::TooManyParts { .. } => Status::OUT_OF_RANGE,
            Self::TooShortForCall { .. } => Status::INVALID_ARGS,
            Self::TxidInUse { .. } => Status::ALREADY_EXISTS,
            Self::AccessDenied { .. } => Status::ACCESS_DENIED,
            Self::Handles { source } => source.status(),
            Self::Failed { source } => source.status(),
        }
    }

    /// Of a write that was to wait until its deadline, or not at all.
    pub(super) fn of_write(error: NotSent, has_waited: bool, ring: u32) -> Self {
        match error {
            NotSent::Full(_) | NotSent::Crowded | NotSent::NoReceiver { .. } if has_waited => {
                Self::TimedOut
            }
            NotSent::Full(_) | NotSent::Crowded | NotSent::NoReceiver { .. } => Self::ShouldWait,
            NotSent::Disconnected => Self::PeerClosed,
            NotSent::Interrupted => Self::Canceled,
            NotSent::Contended { slot, pid } => Error::Stalled { ring, slot, pid }.into(),
            NotSent::Failed(error) => error.into(),
        }
    }
}

/// Why a message was not written; the caller has it back whole.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
#[non_exhaustive]
pub struct NotWritten {
    /// What happened.
    #[source]
    pub error: ChannelError,
    /// The message, with all its handles.
    pub message: MessagePacket,
}

impl NotWritten {
    /// Zircon's number for it.
    #[must_use]
    pub fn status(&self) -> Status {
        self.error.status()
    }
}

/// Why a handle did not become a [`Channel`](crate::Channel); the caller has it back.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
#[non_exhaustive]
pub struct NotAdopted {
    /// What happened.
    #[source]
    pub error: ChannelError,
    /// The handle.
    pub handle: Handle,
}

impl NotAdopted {
    /// Zircon's number for it.
    #[must_use]
    pub fn status(&self) -> Status {
        self.error.status()
    }
}

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", .phase.name())]
#[non_exhaustive]
pub struct CallError {
    /// How far it came.
    pub phase: CallPhase,
    /// What happened.
    #[source]
    pub error: ChannelError,
    /// The request, if it was not written.
    pub message: Option<MessagePacket>,
}

impl CallError {
    /// Zircon's number for it, which says nothing of the phase.
    #[must_use]
    pub fn status(&self) -> Status {
        self.error.status()
    }
}

/// How far a call came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallPhase {
    /// The request was not written: the peer never sees it.
    Write,
    /// The request was written, so that the peer may have acted on it, and no reply came.
    Read,
}

impl CallPhase {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Write => "the request was not written",
            Self::Read => "the request was written, but there is no reply",
        }
    }
}
