//! `HandleTable`: handles and objects by number.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::entry::Entry;
use crate::handle::{Handle, HandleError, HandleType, KoID, Rights, Subject};
use crate::mutex::{lock, try_lock};

/// The number of a handle in a [`HandleTable`]. 0 names none.
///
/// Zircon's numbers have 32 bits, these have 64, so that none is ever given twice. As there, the two
/// lowest bits are set.
pub type HandleValue = u64;

/// The lowest bits of every number.
const LOWEST_BITS: HandleValue = 3;

/// Handles and objects by number, for programs that are written with numbers.
///
/// A number names a descriptor (a [`Handle`]) or an object that lives in this process: an end of a channel, which
/// [`channel_create`](Self::channel_create) and [`insert_channel`](Self::insert_channel) put there, and to which
/// [`channel_write`](Self::channel_write), [`channel_read`](Self::channel_read) and
/// [`channel_call`](Self::channel_call) write, read and call by its number. The rights are the number's own.
///
/// An end of a channel is moved as any handle is. Where it arrives it is a handle until it is first used as a channel
/// by its number, and is opened then. If that fails, the handle stays, and the next use tries again.
///
/// All operations take `&self`, from any thread, and are atomic. A number is never used twice, so that the
/// number of a closed handle doesn't come to mean something else. If several things are wrong, `BAD_HANDLE`
/// is reported first, then `WRONG_TYPE`, then `ACCESS_DENIED`.
///
/// A handle that [`Self::get`] returned to one thread stays open for it, whatever other threads do with the
/// number. If such a handle is taken out or moved at the same time, it leaves with a descriptor of its own on
/// the same description: then both own the end of a channel, until the thread drops its handle. An end of a channel
/// that is open is closed with its number, and leaves with it: what other threads do there by then ends with
/// `CANCELED`.
///
/// A number that is being moved is a `BAD_HANDLE` for other threads meanwhile, also if the move fails in the end and
/// puts it back.
///
/// # Cost
/// A lock, held while the number is found. No system call is made under it, and no descriptor closed.
///
/// # Source
/// The handle table of a Zircon process, with the form of zCore's numbers.
///
/// # Examples
/// ```
/// use std::fs::File;
/// use tombolo::object::HandleTable;
/// use tombolo::{Handle, HandleType, Rights};
/// use tombolo::handle::HandleError;
/// let table = HandleTable::new();
/// let root = table.insert(Handle::new(File::open("/")?));
/// let handle = table.get(root, Some(HandleType::Directory), Rights::READ)?;
/// assert_eq!(handle.handle_type(), HandleType::Directory);
/// let weaker = table.duplicate(root, Rights::TRANSFER)?;
/// let refused = table.get(weaker, None, Rights::READ);
/// assert!(matches!(refused, Err(HandleError::AccessDenied { .. })));
/// let (ours, theirs) = table.channel_create()?;
/// table.channel_write(ours, 0, b"a directory", &[root])?;
/// let (mut bytes, mut handles) = ([0; 16], [0; 4]);
/// assert_eq!(table.channel_read(theirs, 0, &mut bytes, &mut handles)?, (11, 1));
/// table.close_many(&[weaker, ours, theirs, handles[0]])?;
/// assert!(table.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct HandleTable {
    inside: Mutex<Inside>,
    /// Notified when a handle has been opened, or could not be.
    settled: Condvar,
}

/// What is known of a number without using what it names: by [`HandleTable::info`] and
/// [`HandleTable::channel_read_etc`].
///
/// # Source
/// `zx_handle_info_t`, and `ZX_INFO_HANDLE_BASIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableHandleInfo {
    /// The number.
    pub handle: HandleValue,
    /// The type, as the kernel shows it.
    pub handle_type: HandleType,
    /// The rights that the number has.
    pub rights: Rights,
    /// The id of the object.
    pub id: KoID,
}

#[derive(Debug, Default)]
pub(super) struct Inside {
    /// Numbers used so far.
    given_count: u64,
    entries: BTreeMap<HandleValue, Entry>,
    /// Numbers of handles that a thread is opening without the lock: none of them may leave meanwhile.
    opening: BTreeSet<HandleValue>,
}

impl HandleTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the handle and returns its number.
    pub fn insert(&self, handle: impl Into<Handle>) -> HandleValue {
        let entry = Entry::from(handle.into());
        self.lock().insert(entry)
    }

    /// The handle with this number. It must be of the type `wanted`, if one is given, and have these rights.
    ///
    /// # Errors
    /// In this order: [`HandleError::BadHandle`] (`BAD_HANDLE`), [`HandleError::WrongType`]
    /// (`WRONG_TYPE`), [`HandleError::AccessDenied`] (`ACCESS_DENIED`); [`HandleError::NoDescriptor`]
    /// (`WRONG_TYPE`) for an end of a channel that is open, which [`Self::get_channel`] gives.
    pub fn get(
        &self,
        number: HandleValue,
        wanted: Option<HandleType>,
        rights: Rights,
    ) -> Result<Arc<Handle>, HandleError> {
        let entry = self.find(number)?;
        let subject = Subject::from(&entry);
        subject.require_type(wanted)?;
        subject.require(rights)?;
        match entry {
            Entry::Handle(handle) => Ok(handle),
            Entry::Channel(..) => Err(HandleError::NoDescriptor),
        }
    }

    /// What the number names, with which rights.
    ///
    /// # Errors
    /// [`HandleError::BadHandle`] (`BAD_HANDLE`).
    ///
    /// # Source
    /// `zx_object_get_info` with `ZX_INFO_HANDLE_BASIC`, which needs no right.
    ///
    /// # Examples
    /// ```
    /// use tombolo::object::HandleTable;
    /// use tombolo::{HandleType, Rights};
    /// let table = HandleTable::new();
    /// let (ours, _) = table.channel_create()?;
    /// let info = table.info(ours)?;
    /// assert_eq!((info.handle_type, info.rights), (HandleType::Channel, Rights::CHANNEL_DEFAULT));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "zx_object_get_info")]
    pub fn info(&self, number: HandleValue) -> Result<TableHandleInfo, HandleError> {
        let entry = self.find(number)?;
        let subject = Subject::from(&entry);
        let (handle_type, rights) = (subject.handle_type(), subject.rights());
        Ok(TableHandleInfo { handle: number, handle_type, rights, id: entry.id() })
    }

    /// Takes the handle out of the table. An end of a channel that is open becomes a handle, as by
    /// [`Channel::release`](crate::Channel::release).
    ///
    /// # Errors
    /// [`HandleError::BadHandle`] (`BAD_HANDLE`); [`HandleError::Descriptor`] if another thread uses it and
    /// the kernel refuses a second descriptor, and [`HandleError::NotReleased`]: then it stays.
    ///
    /// # Examples
    /// ```
    /// use tombolo::object::HandleTable;
    /// use tombolo::{Channel, Handle};
    /// let table = HandleTable::new();
    /// let (reader, _) = std::io::pipe()?;
    /// let number = table.insert(Handle::new(reader));
    /// let reader = table.remove(number)?;
    /// assert!(!table.contains(number));
    /// let (ours, theirs) = table.channel_create()?;
    /// let theirs = Channel::from_handle(table.remove(theirs)?)?;
    /// theirs.write(b"hello")?;
    /// assert_eq!(table.channel_read(ours, 0, &mut [0; 5], &mut [])?, (5, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn remove(&self, number: HandleValue) -> Result<Handle, HandleError> {
        let taken = self.take(&[number]).map_err(|(_, error)| error)?;
        taken.into_iter().next().ok_or(HandleError::BadHandle { number })
    }

    /// A second handle to the same object, with a number of its own and `rights` or
    /// [`Rights::SAME_RIGHTS`].
    ///
    /// # Errors
    /// [`HandleError::BadHandle`] (`BAD_HANDLE`), and those of [`Handle::duplicate`]: an end of a channel is never
    /// duplicated.
    pub fn duplicate(
        &self,
        number: HandleValue,
        rights: Rights,
    ) -> Result<HandleValue, HandleError> {
        match self.find(number)? {
            Entry::Handle(handle) => Ok(self.insert(handle.duplicate(rights)?)),
            Entry::Channel(_, held) => {
                Err(HandleError::AccessDenied { held, missing: Rights::DUPLICATE })
            }
        }
    }

    /// The handle under a new number, with `rights` or [`Rights::SAME_RIGHTS`]. The old number becomes
    /// invalid in any case; on failure the handle is closed. Calls at an open end of a channel go on.
    ///
    /// # Errors
    /// [`HandleError::BadHandle`] (`BAD_HANDLE`), and those of [`Handle::replace`].
    pub fn replace(&self, number: HandleValue, rights: Rights) -> Result<HandleValue, HandleError> {
        let taken = self.lock_settled(&[number]).entries.remove(&number);
        let replaced = taken.ok_or(HandleError::BadHandle { number })?.replace(rights)?;
        Ok(self.lock().insert(replaced))
    }

    /// Closes the handle. Nothing happens for 0.
    ///
    /// # Errors
    /// [`HandleError::BadHandle`] (`BAD_HANDLE`).
    pub fn close(&self, number: HandleValue) -> Result<(), HandleError> {
        self.close_many(&[number])
    }

    /// Closes all of these handles, also if some of the numbers name none. An end of a channel is closed as by
    /// [`Channel::close`](crate::Channel::close).
    ///
    /// # Errors
    /// [`HandleError::BadHandle`] (`BAD_HANDLE`) with the first number that names none, 0 excepted.
    pub fn close_many(&self, numbers: &[HandleValue]) -> Result<(), HandleError> {
        let closed: Vec<_> = {
            let mut inside = self.lock();
            numbers.iter().map(|number| inside.entries.remove(number)).collect()
        };
        let unknown =
            numbers.iter().zip(&closed).find(|(number, entry)| **number != 0 && entry.is_none());
        let unknown = unknown.map(|(number, _)| HandleError::BadHandle { number: *number });
        closed.into_iter().flatten().for_each(Entry::close);
        unknown.map_or(Ok(()), Err)
    }

    /// Whether the number names something of this table.
    #[must_use]
    pub fn contains(&self, number: HandleValue) -> bool {
        self.lock().entries.contains_key(&number)
    }

    /// Numbers in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn find(&self, number: HandleValue) -> Result<Entry, HandleError> {
        let found = self.lock().entries.get(&number).cloned();
        found.ok_or(HandleError::BadHandle { number })
    }

    /// Takes out all of these handles or none. The numbers must differ. An error comes with the index of its
    /// number.
    pub(super) fn take(
        &self,
        numbers: &[HandleValue],
    ) -> Result<Vec<Handle>, (usize, HandleError)> {
        let taken = self.lock_settled(numbers).take(numbers)?;
        // Without the lock: this makes system calls, and waits until threads have left an end.
        let (mut handles, mut left) = (Vec::with_capacity(numbers.len()), taken.into_iter());
        while let Some(entry) = left.next() {
            let number = numbers[handles.len()];
            match entry.release(number) {
                Ok(handle) => handles.push(handle),
                Err((entry, error)) => {
                    let index = handles.len();
                    let released = handles.into_iter().map(Entry::from);
                    self.put_back(numbers, released.chain([entry]).chain(left));
                    return Err((index, error));
                }
            }
        }
        Ok(handles)
    }

    /// Puts back what was taken out, under the numbers that it had.
    pub(super) fn put_back(
        &self,
        numbers: &[HandleValue],
        entries: impl IntoIterator<Item = Entry>,
    ) {
        self.lock().entries.extend(numbers.iter().copied().zip(entries));
    }

    /// Adds all of these, and gives their numbers to `place`.
    pub(super) fn insert_all(
        &self,
        entries: impl IntoIterator<Item = Entry>,
        mut place: impl FnMut(usize, HandleValue),
    ) {
        let mut inside = self.lock();
        entries.into_iter().enumerate().for_each(|(at, entry)| place(at, inside.insert(entry)));
    }

    /// Lets this thread alone open what `number` names, if that is `handle`: until [`Self::end_opening`]. Waits for
    /// another thread that does.
    pub(super) fn begin_opening(&self, number: HandleValue, handle: &Arc<Handle>) -> bool {
        let mut inside = self.lock_settled(&[number]);
        let found = inside.entries.get(&number);
        let is_it = matches!(found, Some(Entry::Handle(found)) if Arc::ptr_eq(found, handle));
        is_it && inside.opening.insert(number)
    }

    /// Puts what was opened in the place of the handle; returns what the caller is to drop: that handle or, if its
    /// number was closed meanwhile, what was opened.
    pub(super) fn end_opening(&self, number: HandleValue, opened: Option<Entry>) -> Option<Entry> {
        let mut inside = self.lock();
        let left = match (inside.entries.get_mut(&number), opened) {
            (Some(place), Some(opened)) => Some(std::mem::replace(place, opened)),
            (_, opened) => opened,
        };
        inside.opening.remove(&number);
        self.settled.notify_all();
        left
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inside> {
        lock(&self.inside)
    }

    /// The table, once no thread opens one of these.
    fn lock_settled(&self, numbers: &[HandleValue]) -> MutexGuard<'_, Inside> {
        let mut inside = self.lock();
        while numbers.iter().any(|number| inside.opening.contains(number)) {
            inside = self.settled.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
        inside
    }
}

impl Inside {
    pub(super) fn insert(&mut self, entry: Entry) -> HandleValue {
        self.given_count += 1;
        let number = self.given_count << 2 | LOWEST_BITS;
        self.entries.insert(number, entry);
        number
    }

    fn take(&mut self, numbers: &[HandleValue]) -> Result<Vec<Entry>, (usize, HandleError)> {
        for (index, number) in numbers.iter().enumerate() {
            if !self.entries.contains_key(number) {
                return Err((index, HandleError::BadHandle { number: *number }));
            }
        }
        Ok(numbers.iter().filter_map(|number| self.entries.remove(number)).collect())
    }
}

/// Closes all, also the ends of channels that threads have from [`HandleTable::get_channel`].
impl Drop for HandleTable {
    fn drop(&mut self) {
        // In a forked child a thread that it has not got may hold the lock.
        let entries = try_lock(&self.inside).map(|mut inside| std::mem::take(&mut inside.entries));
        entries.into_iter().flatten().for_each(|(_, entry)| entry.close());
    }
}

impl fmt::Debug for HandleTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.lock().entries).finish()
    }
}
