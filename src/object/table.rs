//! `HandleTable`: handles by number.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::handle::{Handle, HandleError, HandleType, Rights};
use crate::mutex::lock;

/// The number of a handle in a [`HandleTable`]. 0 names none.
///
/// Zircon's numbers have 32 bits, these have 64, so that none is ever given twice. As there, the two
/// lowest bits are set.
pub type HandleValue = u64;

/// The lowest bits of every number.
const LOWEST_BITS: HandleValue = 3;

/// Handles by number, for programs that are written with numbers.
///
/// All operations take `&self`, from any thread, and are atomic. A number is never used twice, so that the
/// number of a closed handle doesn't come to mean something else. If several things are wrong, `BAD_HANDLE`
/// is reported first, then `WRONG_TYPE`, then `ACCESS_DENIED`.
///
/// A handle that [`Self::get`] returned to one thread stays open for it, whatever other threads do with the
/// number. If such a handle is taken out or moved at the same time, it leaves with a descriptor of its own on
/// the same description: then both own the end of a channel, until the thread drops its handle.
///
/// # Cost
/// A lock, held while the number is found, and while a descriptor is duplicated if it is in use. No
/// descriptor is closed and no file read under it.
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
/// table.close_many(&[root, weaker])?;
/// assert!(table.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct HandleTable {
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    /// Numbers used so far.
    given_count: u64,
    handles: BTreeMap<HandleValue, Arc<Handle>>,
}

impl HandleTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the handle and returns its number.
    pub fn insert(&self, handle: impl Into<Handle>) -> HandleValue {
        self.lock().insert(handle.into())
    }

    /// The handle with this number. It must be of the type `wanted`, if one is given, and have these rights.
    ///
    /// # Errors
    /// In this order: [`HandleError::BadHandle`] (`BAD_HANDLE`), [`HandleError::WrongType`]
    /// (`WRONG_TYPE`), [`HandleError::AccessDenied`] (`ACCESS_DENIED`).
    pub fn get(
        &self,
        number: HandleValue,
        wanted: Option<HandleType>,
        rights: Rights,
    ) -> Result<Arc<Handle>, HandleError> {
        let handle = self.find(number)?;
        handle.require_type(wanted)?;
        handle.require(rights)?;
        Ok(handle)
    }

    /// Takes the handle out of the table.
    ///
    /// # Errors
    /// [`HandleError::BadHandle`] (`BAD_HANDLE`); [`HandleError::Descriptor`] if another thread uses it and
    /// the kernel refuses a second descriptor: then it stays.
    ///
    /// # Examples
    /// ```
    /// use tombolo::object::HandleTable;
    /// use tombolo::Handle;
    /// let table = HandleTable::new();
    /// let (reader, _) = std::io::pipe()?;
    /// let number = table.insert(Handle::new(reader));
    /// let reader = table.remove(number)?;
    /// assert!(!table.contains(number));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn remove(&self, number: HandleValue) -> Result<Handle, HandleError> {
        let taken = self.lock().take(&[number]).map_err(|(_, error)| error)?;
        taken.into_iter().next().ok_or(HandleError::BadHandle { number })
    }

    /// A second handle to the same object, with a number of its own and `rights` or
    /// [`Rights::SAME_RIGHTS`].
    ///
    /// # Errors
    /// [`HandleError::BadHandle`] (`BAD_HANDLE`), and those of [`Handle::duplicate`].
    pub fn duplicate(
        &self,
        number: HandleValue,
        rights: Rights,
    ) -> Result<HandleValue, HandleError> {
        let duplicate = self.find(number)?.duplicate(rights)?;
        Ok(self.insert(duplicate))
    }

    /// The handle under a new number, with `rights` or [`Rights::SAME_RIGHTS`]. The old number becomes
    /// invalid in any case; on failure the handle is closed.
    ///
    /// # Errors
    /// [`HandleError::BadHandle`] (`BAD_HANDLE`), and those of [`Handle::replace`].
    pub fn replace(&self, number: HandleValue, rights: Rights) -> Result<HandleValue, HandleError> {
        let taken = match self.remove(number) {
            Err(error @ HandleError::Descriptor { .. }) => {
                self.close(number)?;
                return Err(error);
            }
            taken => taken?,
        };
        Ok(self.insert(taken.replace(rights)?))
    }

    /// Closes the handle. Nothing happens for 0.
    ///
    /// # Errors
    /// [`HandleError::BadHandle`] (`BAD_HANDLE`).
    pub fn close(&self, number: HandleValue) -> Result<(), HandleError> {
        self.close_many(&[number])
    }

    /// Closes all of these handles, also if some of the numbers name none.
    ///
    /// # Errors
    /// [`HandleError::BadHandle`] (`BAD_HANDLE`) with the first number that names none, 0 excepted.
    pub fn close_many(&self, numbers: &[HandleValue]) -> Result<(), HandleError> {
        let closed: Vec<_> = {
            let mut inside = self.lock();
            numbers.iter().map(|number| inside.handles.remove(number)).collect()
        };
        let unknown =
            numbers.iter().zip(&closed).find(|(number, handle)| **number != 0 && handle.is_none());
        match unknown {
            Some((number, _)) => Err(HandleError::BadHandle { number: *number }),
            None => Ok(()),
        }
    }

    /// Whether the number names a handle of this table.
    #[must_use]
    pub fn contains(&self, number: HandleValue) -> bool {
        self.lock().handles.contains_key(&number)
    }

    /// Handles in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().handles.len()
    }

    /// Whether it holds no handle.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn find(&self, number: HandleValue) -> Result<Arc<Handle>, HandleError> {
        let found = self.lock().handles.get(&number).cloned();
        found.ok_or(HandleError::BadHandle { number })
    }

    /// Takes out all of these handles or none. The numbers must differ. An error comes with the index of its
    /// number.
    pub(super) fn take(
        &self,
        numbers: &[HandleValue],
    ) -> Result<Vec<Handle>, (usize, HandleError)> {
        self.lock().take(numbers)
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        lock(&self.inside)
    }
}

impl Inside {
    fn insert(&mut self, handle: Handle) -> HandleValue {
        self.given_count += 1;
        let number = self.given_count << 2 | LOWEST_BITS;
        self.handles.insert(number, Arc::new(handle));
        number
    }

    fn take(&mut self, numbers: &[HandleValue]) -> Result<Vec<Handle>, (usize, HandleError)> {
        // First what can fail, a second descriptor for each handle in use; then all leave, which cannot.
        // No other thread gets hold of one meanwhile, as that takes the lock or a clone of the `Arc`.
        let mut copies = Vec::with_capacity(numbers.len());
        for (index, number) in numbers.iter().enumerate() {
            copies.push(self.copy_of_shared(*number).map_err(|error| (index, error))?);
        }
        let taken = numbers.iter().zip(copies).filter_map(|(number, copy)| {
            let ours = self.handles.remove(number)?;
            copy.or_else(|| Arc::into_inner(ours))
        });
        Ok(taken.collect())
    }

    /// A copy of the handle if a thread uses it.
    fn copy_of_shared(&self, number: HandleValue) -> Result<Option<Handle>, HandleError> {
        let handle = self.handles.get(&number).ok_or(HandleError::BadHandle { number })?;
        if Arc::strong_count(handle) == 1 {
            return Ok(None);
        }
        handle.copy(Rights::SAME_RIGHTS).map(Some)
    }
}

impl fmt::Debug for HandleTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.lock().handles).finish()
    }
}
