//! Why an operation that all objects have in common failed.

use super::channel_error::ChannelError;
use super::signal::Signal;
use crate::error::Error;
use crate::rights::Rights;
use crate::status::Status;

/// Why an operation of a [`KernelObject`](super::KernelObject) failed. Zircon's name for it stands in brackets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// *Fix the call* (`INVALID_ARGS`): signals that are not the program's to set or clear.
    #[error(
        "{found:?} was to be changed, of this object only {allowed:?} may be; leave the others out"
    )]
    InvalidSignals {
        /// What was to be changed.
        found: Signal,
        /// What may be.
        allowed: Signal,
    },
    /// *Fix the call* (`ACCESS_DENIED`): the object came as a handle without a right that the call needs.
    #[error("this object has the rights {held} and lacks {missing}; use one that has them")]
    AccessDenied {
        /// The object's rights.
        held: Rights,
        /// Those that are missing.
        missing: Rights,
    },
    /// *Fix the call* (`NOT_SUPPORTED`): objects of this type have nothing of the kind.
    #[error("objects of type {type_name} have no {what}")]
    NotSupported {
        /// The object's type.
        type_name: &'static str,
        /// What they lack.
        what: &'static str,
    },
    /// *Fix the call* (`WRONG_TYPE`): objects of this type have no children.
    #[error("objects of type {type_name} have no children")]
    WrongType {
        /// The object's type.
        type_name: &'static str,
    },
    /// *Over* (`PEER_CLOSED`): the other end is closed.
    #[error("the other end is closed; open or create a new channel")]
    PeerClosed,
    /// *Retry* (`TIMED_OUT`): none of the signals was there before the deadline.
    #[error("timed out")]
    TimedOut,
    /// *Over* (`CANCELED`): another thread closed or released the object while this call waited.
    #[error("this object was closed or released by another thread while this call waited")]
    Canceled,
    /// *Over* (`BAD_HANDLE`): the object was closed or released before.
    #[error("this object is closed or released; use an open one")]
    Closed,
    /// As its source says.
    #[error("{source}")]
    Failed {
        /// What happened. In a box, as it is large and rare.
        source: Box<Error>,
    },
}

impl ObjectError {
    /// Zircon's number for it.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::InvalidSignals { .. } => Status::INVALID_ARGS,
            Self::AccessDenied { .. } => Status::ACCESS_DENIED,
            Self::NotSupported { .. } => Status::NOT_SUPPORTED,
            Self::WrongType { .. } => Status::WRONG_TYPE,
            Self::PeerClosed => Status::PEER_CLOSED,
            Self::TimedOut => Status::TIMED_OUT,
            Self::Canceled => Status::CANCELED,
            Self::Closed => Status::BAD_HANDLE,
            Self::Failed { source } => source.status(),
        }
    }
}

impl From<Error> for ObjectError {
    fn from(source: Error) -> Self {
        Self::Failed { source: source.into() }
    }
}

impl From<ChannelError> for ObjectError {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::PeerClosed => Self::PeerClosed,
            ChannelError::Closed => Self::Closed,
            ChannelError::Canceled => Self::Canceled,
            ChannelError::AccessDenied { held, missing } => Self::AccessDenied { held, missing },
            ChannelError::Failed { source } => Self::Failed { source },
            ChannelError::Handles { source } => Error::Handles { source }.into(),
            // The others come of messages, of which there are none here.
            _ => Self::TimedOut,
        }
    }
}

/// Why a wait ended without a signal that was waited for.
#[derive(Debug, thiserror::Error)]
#[error("{error}; seen: {observed:?}")]
#[non_exhaustive]
pub struct WaitError {
    /// What happened.
    #[source]
    pub error: ObjectError,
    /// The signals when it did.
    pub observed: Signal,
}

impl WaitError {
    /// Zircon's number for it.
    #[must_use]
    pub fn status(&self) -> Status {
        self.error.status()
    }
}
