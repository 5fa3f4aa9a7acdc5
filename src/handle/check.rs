//! Checking one handle that is to be sent.

use std::os::fd::BorrowedFd;

use tombolo_abi::HANDLE_COUNT_MAX;

use super::owned::{Handle, refused};
use super::stat::Stat;
use crate::error::{DispositionError, HandleError};
use crate::handle_type::HandleType;
use crate::rights::Rights;

/// What to do with a handle. As numbers: 0 moves it, 1 duplicates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum HandleOp {
    /// Replace it with the rights wanted, then send that: the sender no longer has it.
    Move = 0,
    /// Duplicate it with the rights wanted, then send the duplicate: the sender keeps it.
    Duplicate = 1,
}

impl TryFrom<u32> for HandleOp {
    type Error = HandleError;

    /// # Errors
    /// [`HandleError::InvalidOperation`] (`INVALID_ARGS`).
    fn try_from(number: u32) -> Result<Self, HandleError> {
        match number {
            0 => Ok(Self::Move),
            1 => Ok(Self::Duplicate),
            found => Err(HandleError::InvalidOperation { found }),
        }
    }
}

/// What is asked of a handle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) operation: HandleOp,
    /// `None` takes any.
    pub(crate) handle_type: Option<HandleType>,
    /// The rights that the receiver gets.
    pub(crate) rights: Rights,
}

/// The files that a channel is made of, which must not go through it.
#[derive(Debug)]
pub(crate) struct Through {
    files: Vec<Stat>,
}

impl Through {
    /// The files behind the descriptors in `channel`.
    pub(crate) fn of<'a>(
        channel: impl IntoIterator<Item = BorrowedFd<'a>>,
    ) -> Result<Self, DispositionError> {
        let files = channel.into_iter().map(Stat::of).collect::<Result<_, _>>();
        files.map(|files| Self { files }).map_err(|error| DispositionError::Channel {
            source: refused("look at a descriptor", error),
        })
    }

    /// Refuses a handle on one of the files. If there are none, makes no system call.
    fn admits(&self, handle: &Handle) -> Result<(), HandleError> {
        if self.files.is_empty() {
            return Ok(());
        }
        let found = handle.file().map_err(|error| refused("look at a descriptor", error))?;
        let is_own = self.files.iter().any(|file| file.is_same_file(&found));
        if is_own { Err(HandleError::ThroughItself) } else { Ok(()) }
    }
}

/// Refuses more handles than one message takes.
pub(crate) fn check_count(found: usize) -> Result<(), DispositionError> {
    let limit = usize::from(HANDLE_COUNT_MAX);
    if found > limit {
        return Err(DispositionError::TooManyHandles { found, limit });
    }
    Ok(())
}

/// Checks a handle by the steps of [`HandleDisposition`](super::HandleDisposition) from the third on.
pub(crate) fn check(handle: &Handle, wanted: Wanted, through: &Through) -> Result<(), HandleError> {
    handle.require(Rights::TRANSFER)?;
    through.admits(handle)?;
    handle.require_type(wanted.handle_type)?;
    handle.grants(wanted.rights)?;
    match wanted.operation {
        HandleOp::Move => Ok(()),
        HandleOp::Duplicate => handle.require(Rights::DUPLICATE),
    }
}

/// Checks handles that are to be moved into a message as they are: at most `limit`, each with the right to be
/// sent or from a list of dispositions, and none on the files in `through`.
pub(crate) fn check_moved(
    handles: &[Handle],
    limit: u16,
    through: &Through,
) -> Result<(), DispositionError> {
    let (found, limit) = (handles.len(), usize::from(limit.min(HANDLE_COUNT_MAX)));
    if found > limit {
        return Err(DispositionError::TooManyHandles { found, limit });
    }
    for (index, handle) in handles.iter().enumerate() {
        let checked = handle.check_sendable().and_then(|()| through.admits(handle));
        checked.map_err(|source| DispositionError::Handle { index, source })?;
    }
    Ok(())
}

/// The copy that a checked disposition asks for; `None` if the handle is to be moved.
pub(crate) fn copy(handle: &Handle, wanted: Wanted) -> Result<Option<Handle>, HandleError> {
    match wanted.operation {
        HandleOp::Move => Ok(None),
        HandleOp::Duplicate => handle.copy(wanted.rights).map(Some),
    }
}
