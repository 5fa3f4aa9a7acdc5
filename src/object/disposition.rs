//! What becomes of handles in a table when they are sent.

use std::os::fd::BorrowedFd;

use super::table::{HandleTable, HandleValue};
use crate::handle::{
    DispositionError, Handle, HandleError, HandleOp, HandleType, ListRefused, Rights, Wanted,
    resolve,
};

/// What is to become of one handle of a message, by its number in a [`HandleTable`]. Checked by the steps of
/// [`HandleDisposition`](crate::handle::HandleDisposition). A number that follows its own move in a list is
/// a `BAD_HANDLE`; one that is duplicated may follow again. An end of a channel that is open is moved as a handle:
/// calls and waits of other threads at it are canceled.
///
/// # Source
/// `zx_handle_disposition_t`.
#[derive(Clone, Debug)]
pub struct TableDisposition {
    /// What to do with it.
    pub operation: HandleOp,
    /// Its number.
    pub handle: HandleValue,
    /// The type that it must have; `None` takes any.
    pub handle_type: Option<HandleType>,
    /// The rights that it has in the end, exactly; [`Rights::SAME_RIGHTS`] leaves them as they are.
    pub rights: Rights,
    /// Why this one was refused. Written by a refusal only.
    pub result: Result<(), HandleError>,
}

impl TableDisposition {
    /// Does `operation` with the handle of this number, of any type, with the rights that it has.
    #[must_use]
    pub fn new(operation: HandleOp, handle: HandleValue) -> Self {
        let rights = Rights::SAME_RIGHTS;
        Self { operation, handle, handle_type: None, rights, result: Ok(()) }
    }

    fn wanted(&self) -> Wanted {
        let Self { operation, handle_type, rights, .. } = *self;
        Wanted { operation, handle_type, rights }
    }
}

impl HandleTable {
    /// Returns the handles that a message with this list takes along, in its order. Moved ones leave the
    /// table; on failure all that the list would have moved are closed. The handles may be sent as they
    /// are, also if the list took [`Rights::TRANSFER`](crate::Rights::TRANSFER) from them.
    ///
    /// `through` is as for [`HandleDisposition::resolve_all`](crate::handle::HandleDisposition::resolve_all).
    ///
    /// # Errors
    /// - [`DispositionError::TooManyHandles`] (`OUT_OF_RANGE`): more than 64, checked before
    ///   anything else; no `result` is written;
    /// - [`DispositionError::Handle`]: the first refusal, and a number that another thread took out
    ///   meanwhile;
    /// - [`DispositionError::Channel`]: `through` could not be read.
    ///
    /// # Source
    /// `zx_channel_write_etc` up to the message itself.
    ///
    /// # Examples
    /// ```
    /// use tombolo::object::{HandleTable, TableDisposition};
    /// use tombolo::Handle;
    /// use tombolo::handle::HandleOp;
    /// let table = HandleTable::new();
    /// let (reader, writer) = std::io::pipe()?;
    /// let (reader, writer) = (table.insert(Handle::new(reader)), table.insert(Handle::new(writer)));
    /// let mut list = [
    ///     TableDisposition::new(HandleOp::Move, reader),
    ///     TableDisposition::new(HandleOp::Duplicate, writer),
    /// ];
    /// let handles = table.resolve_all(&mut list, &[])?;
    /// assert_eq!(handles.len(), 2);
    /// assert!(!table.contains(reader) && table.contains(writer));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resolve_all(
        &self,
        list: &mut [TableDisposition],
        through: &[BorrowedFd<'_>],
    ) -> Result<Vec<Handle>, DispositionError> {
        let resolved = self.try_resolve_all(list, through);
        if resolved.is_err() {
            self.close_moved(list);
        }
        resolved
    }

    /// Closes what the list moves, if it is there.
    pub(super) fn close_moved(&self, list: &[TableDisposition]) {
        let numbers: Vec<_> = moved(list).map(|(_, number)| number).collect();
        let _ = self.close_many(&numbers); // of those that are not there an error has told
    }

    /// As [`Self::resolve_all`], but on failure everything stays as it was: all handles are still in
    /// the table, under their numbers.
    ///
    /// # Errors
    /// Those of [`Self::resolve_all`].
    ///
    /// # Source
    /// Magenta's `mx_channel_write`, which puts the handles of a refused message back.
    pub fn try_resolve_all(
        &self,
        list: &mut [TableDisposition],
        through: &[BorrowedFd<'_>],
    ) -> Result<Vec<Handle>, DispositionError> {
        let resolved = self.resolve(list, through);
        resolved.map_err(|refusal| refusal.tell(|index, error| list[index].result = Err(error)))
    }

    fn resolve(
        &self,
        list: &[TableDisposition],
        through: &[BorrowedFd<'_>],
    ) -> Result<Vec<Handle>, ListRefused> {
        let entries = list.iter().enumerate().map(|(index, one)| {
            if moved(&list[..index]).any(|(_, number)| number == one.handle) {
                return Err(HandleError::BadHandle { number: one.handle });
            }
            Ok((self.find(one.handle)?, one.wanted()))
        });
        // What only the table holds from here on can leave it without a second descriptor.
        let copies = resolve(entries, through)?;
        let (places, numbers): (Vec<_>, Vec<_>) = moved(list).unzip();
        // All of them or, if another thread was faster, none.
        let taken = self.take(&numbers);
        let taken = taken.map_err(|(nth, error)| ListRefused::of_entry(places[nth], error))?;
        let mut taken = taken.into_iter();
        let both = list.iter().zip(copies).filter_map(|(one, copy)| {
            copy.or_else(|| taken.next().map(|handle| handle.with(one.rights)))
        });
        Ok(both.map(Handle::disposed).collect())
    }
}

/// What the list moves: the places in it, and the numbers.
fn moved(list: &[TableDisposition]) -> impl Iterator<Item = (usize, HandleValue)> {
    let moves = list.iter().enumerate().filter(|(_, one)| one.operation == HandleOp::Move);
    moves.map(|(index, one)| (index, one.handle))
}
