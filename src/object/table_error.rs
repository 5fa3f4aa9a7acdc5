//! Why an operation on a channel by its number failed.

use super::channel_error::{CallError, CallPhase, ChannelError};
use super::table::HandleValue;
use crate::ends::MessagePacket;
use crate::error::{DispositionError, Error, HandleError};
use crate::status::Status;

/// Why an operation on a channel by its number, in a [`HandleTable`](crate::object::HandleTable), failed. Zircon's
/// name for it stands in brackets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// *Fix the call* (`INVALID_ARGS`): options of a write or a call that there are not, or
    /// [`WRITE_USE_IOVEC`](crate::object::WRITE_USE_IOVEC) for bytes that are no parts.
    #[error("options {found:#x}; a write takes 0, and 1 with parts")]
    WriteOptions {
        /// The options given.
        found: u32,
    },
    /// *Fix the call* (`NOT_SUPPORTED`): options of a read that there are not.
    #[error("options {found:#x}; a read takes 0, and 1 for a message that may be discarded")]
    ReadOptions {
        /// The options given.
        found: u32,
    },
    /// As its source says: the number of the channel.
    #[error("the channel: {source}")]
    Handle {
        /// What is wrong with it.
        #[from]
        source: HandleError,
    },
    /// As its source says: the number is that of an end that could not be opened in this process. It is still there.
    #[error("the channel {number:#x} could not be opened: {source}")]
    NotOpened {
        /// The number.
        number: HandleValue,
        /// What happened.
        source: ChannelError,
    },
    /// As its source says, also if one of the handles that were to be sent was refused.
    #[error("{source}")]
    Channel {
        /// What happened.
        #[from]
        source: ChannelError,
    },
}

impl From<DispositionError> for TableError {
    fn from(source: DispositionError) -> Self {
        ChannelError::from(source).into()
    }
}

impl From<Error> for TableError {
    fn from(source: Error) -> Self {
        ChannelError::from(source).into()
    }
}

impl TableError {
    /// Zircon's number for it.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::WriteOptions { .. } => Status::INVALID_ARGS,
            Self::ReadOptions { .. } => Status::NOT_SUPPORTED,
            Self::Handle { source } => source.status(),
            Self::NotOpened { source, .. } | Self::Channel { source } => source.status(),
        }
    }
}

/// Why a call by number gave no reply to the caller's buffers.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", .phase.name())]
#[non_exhaustive]
pub struct TableCallError {
    /// How far it came.
    pub phase: CallPhase,
    /// What happened.
    #[source]
    pub error: TableError,
    /// The reply that was too large for the buffers. Dropping it closes its handles, which have no numbers.
    pub reply: Option<Box<MessagePacket>>,
}

impl TableCallError {
    /// Zircon's number for it, which says nothing of the phase.
    #[must_use]
    pub fn status(&self) -> Status {
        self.error.status()
    }

    /// Of a request that was not written.
    pub(super) fn not_written(error: impl Into<TableError>) -> Self {
        Self { phase: CallPhase::Write, error: error.into(), reply: None }
    }
}

impl From<CallError> for TableCallError {
    /// A request that was not written is dropped, and its handles closed.
    fn from(CallError { phase, error, .. }: CallError) -> Self {
        Self { phase, error: error.into(), reply: None }
    }
}
