//! What a number of a table names.

use std::fmt;
use std::sync::Arc;

use super::channel::Channel;
use super::channel_error::ChannelError;
use crate::handle::{Handle, HandleError, KoID, Rights, Subject};

/// What a number names: an object of this process, with the rights that the number has to it. Other objects than
/// channels come here.
#[derive(Clone)]
pub(super) enum Entry {
    /// A descriptor, which has its rights itself.
    Handle(Arc<Handle>),
    /// An end of a channel that is open.
    Channel(Arc<Channel>, Rights),
}

impl Entry {
    /// The id of the object.
    pub(super) fn id(&self) -> KoID {
        match self {
            Self::Handle(handle) => handle.id(),
            Self::Channel(channel, _) => channel.id(),
        }
    }

    /// The same object, with `wanted` or [`Rights::SAME_RIGHTS`]. On failure it is closed.
    ///
    /// # Errors
    /// Those of [`Handle::replace`]; [`HandleError::Descriptor`].
    pub(super) fn replace(self, wanted: Rights) -> Result<Self, HandleError> {
        if let Err(error) = Subject::from(&self).grants(wanted) {
            self.close();
            return Err(error);
        }
        match self {
            Self::Handle(handle) => {
                Ok(owned(handle).map_err(|(_, error)| error)?.with(wanted).into())
            }
            Self::Channel(channel, held) => {
                let rights = if wanted == Rights::SAME_RIGHTS { held } else { wanted };
                Ok(Self::Channel(channel, rights))
            }
        }
    }

    /// The handle that it is or, of an open end, becomes: threads that wait at that have to leave it.
    ///
    /// # Errors
    /// With what it was: [`HandleError::Descriptor`], [`HandleError::NotReleased`]; [`HandleError::BadHandle`] with
    /// `number` if the end was closed.
    pub(super) fn release(self, number: u64) -> Result<Handle, (Self, HandleError)> {
        match self {
            Self::Handle(handle) => {
                owned(handle).map_err(|(handle, error)| (Self::Handle(handle), error))
            }
            Self::Channel(channel, rights) => channel.release_with(rights).map_err(|error| {
                let error = match error {
                    ChannelError::Closed => HandleError::BadHandle { number },
                    error => HandleError::NotReleased { status: error.status() },
                };
                (Self::Channel(channel, rights), error)
            }),
        }
    }

    /// Closes it, also for threads that use it still: a handle stays open for these, an end of a channel doesn't.
    pub(super) fn close(self) {
        if let Self::Channel(channel, _) = self {
            channel.close();
        }
    }
}

/// The handle, or one with descriptors of its own if a thread uses that.
fn owned(handle: Arc<Handle>) -> Result<Handle, (Arc<Handle>, HandleError)> {
    Arc::try_unwrap(handle).or_else(|shared| match shared.copy(Rights::SAME_RIGHTS) {
        Ok(copy) => Ok(copy),
        Err(error) => Err((shared, error)),
    })
}

impl From<Handle> for Entry {
    fn from(handle: Handle) -> Self {
        Self::Handle(Arc::new(handle))
    }
}

impl From<Channel> for Entry {
    fn from(channel: Channel) -> Self {
        let rights = channel.rights();
        Self::Channel(Arc::new(channel), rights)
    }
}

impl<'a> From<&'a Entry> for Subject<'a> {
    fn from(entry: &'a Entry) -> Self {
        match entry {
            Entry::Handle(handle) => Self::Handle(handle),
            Entry::Channel(channel, rights) => Self::End { file: channel.file(), rights: *rights },
        }
    }
}

/// As what it is.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handle(handle) => handle.fmt(f),
            Self::Channel(channel, _) => channel.fmt(f),
        }
    }
}
