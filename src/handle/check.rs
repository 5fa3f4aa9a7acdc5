//! Checking handles that are to be sent.

use std::os::fd::BorrowedFd;

use tombolo_abi::HANDLE_COUNT_MAX;

use super::owned::{Handle, refused};
use super::stat::Stat;
use super::subject::Subject;
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

    /// Refuses what leads to one of the files. If there are none, makes no system call.
    fn admits(&self, subject: Subject<'_>) -> Result<(), HandleError> {
        if self.files.is_empty() {
            return Ok(());
        }
        let found = subject.file()?;
        let is_own = self.files.iter().any(|file| file.is_same_file(&found));
        if is_own { Err(HandleError::ThroughItself) } else { Ok(()) }
    }
}

/// Why a list of dispositions was refused.
#[derive(Debug)]
pub(crate) struct ListRefused {
    error: DispositionError,
    /// Each entry that was, by its index. None if the list is no good as a whole.
    entries: Vec<(usize, HandleError)>,
}

impl ListRefused {
    /// Of one entry.
    pub(crate) fn of_entry(index: usize, source: HandleError) -> Self {
        let entries = vec![(index, source.clone())];
        Self { error: DispositionError::Handle { index, source }, entries }
    }

    /// Gives the error of the list, after each of those of its entries was handed to `write`.
    pub(crate) fn tell(self, mut write: impl FnMut(usize, HandleError)) -> DispositionError {
        self.entries.into_iter().for_each(|(index, error)| write(index, error));
        self.error
    }
}

impl From<DispositionError> for ListRefused {
    fn from(error: DispositionError) -> Self {
        Self { error, entries: Vec::new() }
    }
}

/// Checks a list of dispositions whole, and then makes the copies that it asks for: `None` stands for a handle
/// that is to be moved, to which nothing happens. Each entry is a handle with what is asked of it, or why it is
/// not there.
pub(crate) fn resolve<H>(
    list: impl ExactSizeIterator<Item = Result<(H, Wanted), HandleError>>,
    through: &[BorrowedFd<'_>],
) -> Result<Vec<Option<Handle>>, ListRefused>
where
    for<'h> Subject<'h>: From<&'h H>,
{
    check_count(list.len(), HANDLE_COUNT_MAX)?;
    let through = Through::of(through.iter().copied())?;
    let (mut admitted, mut refused) = (Vec::with_capacity(list.len()), Vec::new());
    for (index, entry) in list.enumerate() {
        let checked = entry.and_then(|(handle, wanted)| {
            check((&handle).into(), wanted, &through)?;
            Ok((handle, wanted))
        });
        match checked {
            Ok(entry) => admitted.push(entry),
            Err(error) => refused.push((index, error)),
        }
    }
    if let Some((index, source)) = refused.first().cloned() {
        let error = DispositionError::Handle { index, source };
        return Err(ListRefused { error, entries: refused });
    }
    let copies = admitted.iter().enumerate().map(|(index, (handle, wanted))| {
        let copy = match wanted.operation {
            HandleOp::Move => return Ok(None),
            HandleOp::Duplicate => Subject::from(handle).copy(wanted.rights),
        };
        copy.map(Some).map_err(|source| ListRefused::of_entry(index, source))
    });
    copies.collect()
}

/// Checks a handle that is there, in the order of the seven steps. Nothing happens to it.
fn check(subject: Subject<'_>, wanted: Wanted, through: &Through) -> Result<(), HandleError> {
    subject.require(Rights::TRANSFER)?;
    through.admits(subject)?;
    subject.require_type(wanted.handle_type)?;
    subject.grants(wanted.rights)?;
    match wanted.operation {
        HandleOp::Move => Ok(()),
        HandleOp::Duplicate => subject.require(Rights::DUPLICATE),
    }
}

/// Checks handles that are to be moved into a message just as they are: at most `limit`, with the
/// right to be sent or from a list of dispositions, and none on the files in `through`. Nothing happens to them.
pub(crate) fn check_moved(
    handles: &[Handle],
    limit: u16,
    through: &Through,
) -> Result<(), DispositionError> {
    check_count(handles.len(), limit.min(HANDLE_COUNT_MAX))?;
    for (index, handle) in handles.iter().enumerate() {
        let checked = handle.check_sendable().and_then(|()| through.admits(handle.into()));
        checked.map_err(|source| DispositionError::Handle { index, source })?;
    }
    Ok(())
}

/// Checks how many handles a message has.
pub(crate) fn check_count(found: usize, limit: u16) -> Result<(), DispositionError> {
    let limit = usize::from(limit);
    if found > limit { Err(DispositionError::TooManyHandles { found, limit }) } else { Ok(()) }
}
