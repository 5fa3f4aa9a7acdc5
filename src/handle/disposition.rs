//! What is to become of handles that are sent.

use std::os::fd::BorrowedFd;

use super::check::{HandleOp, Wanted, resolve};
use super::owned::Handle;
use crate::error::{DispositionError, HandleError};
use crate::handle_type::HandleType;
use crate::rights::Rights;

/// Where the handle of a [`HandleDisposition`] is.
#[derive(Debug)]
pub enum HandleSource<'a> {
    /// Here, to be moved.
    Move(Handle),
    /// With the caller, to be duplicated.
    Duplicate(&'a Handle),
    /// It was moved.
    Moved,
}

/// What is to become of one handle of a message.
///
/// All of a list are checked before anything happens, each by these steps in this order:
///
/// 1. it is there, else `BAD_HANDLE`;
/// 2. it is to be moved or duplicated, else `INVALID_ARGS`: a [`HandleOp`] is never anything else;
/// 3. it has [`Rights::TRANSFER`], else `ACCESS_DENIED`;
/// 4. it does not lead to the channel that it would go through, else `NOT_SUPPORTED`;
/// 5. it is of the type expected, else `WRONG_TYPE`;
/// 6. it has the rights wanted, else `INVALID_ARGS`;
/// 7. to be duplicated, it has [`Rights::DUPLICATE`], else `ACCESS_DENIED`.
///
/// All of the list are checked, also after one was refused. Each refused one has its `result` written; the
/// error is that of the first. A success leaves every `result` as it was.
///
/// [`TableDisposition`](crate::object::TableDisposition) is the same for handles in a table.
///
/// # Source
/// `zx_handle_disposition_t` of `zx_channel_write_etc`. Keeping the handles of a refused message is
/// Magenta's, consuming them Zircon's.
///
/// # Examples
/// ```
/// use std::fs::File;
/// use tombolo::{Handle, HandleType, Rights};
/// use tombolo::handle::HandleDisposition;
/// let kept = Handle::new(File::open("/")?);
/// let mut list = [
///     HandleDisposition::duplicate(&kept).expect_type(HandleType::Directory),
///     HandleDisposition::moved(File::open("/proc/self/exe")?).rights(Rights::READ),
/// ];
/// let handles = HandleDisposition::resolve_all(&mut list, &[])?;
/// assert_eq!(handles[0].id(), kept.id());
/// assert_eq!(handles[1].rights(), Rights::READ);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct HandleDisposition<'a> {
    /// The handle, and what to do with it.
    pub source: HandleSource<'a>,
    /// The type that it must have; `None` takes any.
    pub handle_type: Option<HandleType>,
    /// The rights that it has in the end, exactly; [`Rights::SAME_RIGHTS`] leaves them as they are.
    pub rights: Rights,
    /// Why this one was refused. Written by a refusal only.
    pub result: Result<(), HandleError>,
}

impl<'a> HandleDisposition<'a> {
    /// Moves `handle`, of any type, with the rights that it has.
    #[must_use]
    pub fn moved(handle: impl Into<Handle>) -> Self {
        Self::of(HandleSource::Move(handle.into()))
    }

    /// Duplicates `handle`, of any type, with the rights that it has.
    #[must_use]
    pub fn duplicate(handle: &'a Handle) -> Self {
        Self::of(HandleSource::Duplicate(handle))
    }

    /// Takes only a handle of this type.
    #[must_use]
    pub fn expect_type(self, handle_type: HandleType) -> Self {
        Self { handle_type: Some(handle_type), ..self }
    }

    /// Gives it exactly these rights, which may be none at all.
    #[must_use]
    pub fn rights(self, rights: Rights) -> Self {
        Self { rights, ..self }
    }

    /// Returns the handles that a message with this list takes along, in its order. Moved ones leave the
    /// list; on failure all of them are closed.
    ///
    /// They may be sent as they are, also if the list took [`Rights::TRANSFER`] from them.
    ///
    /// `through` are the descriptors of the files that the channel consists of, if it is known: a
    /// handle on one of those is refused.
    ///
    /// # Errors
    /// - [`DispositionError::TooManyHandles`] (`OUT_OF_RANGE`): more than 64, checked before
    ///   anything else; no `result` is written;
    /// - [`DispositionError::Handle`]: the first refusal;
    /// - [`DispositionError::Channel`]: `through` could not be read.
    ///
    /// # Cost
    /// For a handle whose type matters and is not known yet, the system calls that find it; one for each
    /// handle if `through` is given; one for each duplicate.
    pub fn resolve_all(
        list: &mut [Self],
        through: &[BorrowedFd<'_>],
    ) -> Result<Vec<Handle>, DispositionError> {
        let resolved = Self::try_resolve_all(list, through);
        if resolved.is_err() {
            list.iter_mut().for_each(|disposition| drop(disposition.take_moved()));
        }
        resolved
    }

    /// As [`Self::resolve_all`], but on failure everything stays as it was: the handles to be moved are
    /// still in the list.
    ///
    /// # Errors
    /// Those of [`Self::resolve_all`].
    ///
    /// # Examples
    /// ```
    /// use std::fs::File;
    /// use tombolo::HandleType;
    /// use tombolo::handle::{HandleDisposition, HandleError, HandleSource};
    /// let directory = File::open("/")?;
    /// let mut list = [HandleDisposition::moved(directory).expect_type(HandleType::Socket)];
    /// assert!(HandleDisposition::try_resolve_all(&mut list, &[]).is_err());
    /// assert!(matches!(list[0].result, Err(HandleError::WrongType { .. })));
    /// assert!(matches!(list[0].source, HandleSource::Move(_)));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn try_resolve_all(
        list: &mut [Self],
        through: &[BorrowedFd<'_>],
    ) -> Result<Vec<Handle>, DispositionError> {
        let copies = resolve(list.iter().map(Self::wanted), through);
        let copies = copies
            .map_err(|refusal| refusal.tell(|index, error| list[index].result = Err(error)))?;
        let handles =
            list.iter_mut().zip(copies).filter_map(|(one, copy)| copy.or_else(|| one.take_moved()));
        Ok(handles.map(Handle::disposed).collect())
    }

    fn of(source: HandleSource<'a>) -> Self {
        Self { source, handle_type: None, rights: Rights::SAME_RIGHTS, result: Ok(()) }
    }

    /// The handle and what is asked of it.
    fn wanted(&self) -> Result<(&Handle, Wanted), HandleError> {
        let (handle, operation) = match &self.source {
            HandleSource::Move(handle) => (handle, HandleOp::Move),
            HandleSource::Duplicate(handle) => (*handle, HandleOp::Duplicate),
            HandleSource::Moved => return Err(HandleError::AlreadyMoved),
        };
        let wanted = Wanted { operation, handle_type: self.handle_type, rights: self.rights };
        Ok((handle, wanted))
    }

    /// Takes out the handle to be moved, with the rights wanted.
    fn take_moved(&mut self) -> Option<Handle> {
        if !matches!(self.source, HandleSource::Move(_)) {
            return None;
        }
        match std::mem::replace(&mut self.source, HandleSource::Moved) {
            HandleSource::Move(handle) => Some(handle.with(self.rights)),
            HandleSource::Duplicate(_) | HandleSource::Moved => None,
        }
    }
}
