//! What becomes of handles in a table when they are sent.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::table::{HandleTable, HandleValue};
use crate::handle::{
    DispositionError, Handle, HandleError, HandleOp, HandleType, Rights, Through, Wanted, check,
    check_count, copy, first_of,
};

/// What is to become of one handle of a message, by its number in a [`HandleTable`]. Checked by the steps of
/// [`HandleDisposition`](crate::handle::HandleDisposition). A number that follows its own move in a list is
/// a `BAD_HANDLE`; one that is duplicated may follow again.
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

    fn refuse(&mut self, error: &HandleError) {
        self.result = Err(error.clone());
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
            let _ = self.close_many(&moved(list)); // the error reports those that it never had
        }
        resolved
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
        check_count(list.len())?;
        let through = Through::of(through.iter().copied())?;
        let handles = self.check_all(list, &through)?;
        let copies = make_copies(list, &handles)?;
        drop(handles); // what only the table holds now can leave it without a second descriptor
        let mut taken = self.take_moved(list)?.into_iter();
        let both = list.iter().zip(copies).filter_map(|(one, copy)| {
            copy.or_else(|| taken.next().map(|handle| handle.with(one.rights)))
        });
        Ok(both.map(Handle::disposed).collect())
    }

    /// The handles of the list, if all of them pass.
    fn check_all(
        &self,
        list: &mut [TableDisposition],
        through: &Through,
    ) -> Result<Vec<Arc<Handle>>, DispositionError> {
        let (mut handles, mut refusals) = (Vec::new(), Vec::new());
        for index in 0..list.len() {
            let (earlier, rest) = list.split_at_mut(index);
            let Some(one) = rest.first_mut() else { break };
            match self.check_one(earlier, one, through) {
                Ok(handle) => {
                    handles.push(handle);
                    refusals.push(None);
                }
                Err(error) => {
                    one.refuse(&error);
                    refusals.push(Some(error));
                }
            }
        }
        first_of(refusals)?;
        Ok(handles)
    }

    fn check_one(
        &self,
        earlier: &[TableDisposition],
        one: &TableDisposition,
        through: &Through,
    ) -> Result<Arc<Handle>, HandleError> {
        if moved(earlier).contains(&one.handle) {
            return Err(HandleError::BadHandle { number: one.handle });
        }
        let handle = self.find(one.handle)?;
        check(&handle, one.wanted(), through)?;
        Ok(handle)
    }

    /// Takes out the handles to be moved: all of them, or none if another thread was faster.
    fn take_moved(&self, list: &mut [TableDisposition]) -> Result<Vec<Handle>, DispositionError> {
        self.take(&moved(list)).map_err(|(place, source)| {
            let mut moves =
                list.iter_mut().enumerate().filter(|(_, one)| one.operation == HandleOp::Move);
            let index = moves.nth(place).map_or(0, |(index, one)| {
                one.refuse(&source);
                index
            });
            DispositionError::Handle { index, source }
        })
    }
}

/// The numbers that the list moves.
fn moved(list: &[TableDisposition]) -> Vec<HandleValue> {
    let moves = list.iter().filter(|one| one.operation == HandleOp::Move);
    moves.map(|one| one.handle).collect()
}

fn make_copies(
    list: &mut [TableDisposition],
    handles: &[Arc<Handle>],
) -> Result<Vec<Option<Handle>>, DispositionError> {
    let mut copies = Vec::with_capacity(list.len());
    for (index, (one, handle)) in list.iter_mut().zip(handles).enumerate() {
        let copy = copy(handle, one.wanted()).inspect_err(|error| one.refuse(error));
        copies.push(copy.map_err(|source| DispositionError::Handle { index, source })?);
    }
    Ok(copies)
}
