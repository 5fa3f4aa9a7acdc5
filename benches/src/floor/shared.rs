//! A mapped file of which both sides know what lies where.

use std::fs::OpenOptions;
use std::sync::atomic::{AtomicU32, AtomicU64};

use memmap2::{MmapOptions, MmapRaw};

use crate::system::{Failure, Meeting};

/// A mapping of a file of zeros that both sides make.
#[derive(Debug)]
pub(crate) struct Shared(MmapRaw);

impl Shared {
    /// Maps `len` bytes of the file of that name, with its pages in place.
    pub(crate) fn open(meeting: &Meeting, name: &str, len: usize) -> Result<Self, Failure> {
        let path = meeting.directory.join(name);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        file.set_len(len as u64)?;
        Ok(Self(MmapOptions::new().len(len).populate().map_raw(&file)?))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The word at a multiple of 8.
    #[inline]
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len(), "a word in the mapping");
        // SAFETY: aligned and in the mapping, which lives as long as the reference, by the line
        // above; both sides use it as an atomic word only.
        unsafe { AtomicU64::from_ptr(self.0.as_mut_ptr().wrapping_add(offset).cast()) }
    }

    /// The word at a multiple of 4.
    #[inline]
    pub(crate) fn half(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.len(), "a word in the mapping");
        // SAFETY: as for `word`.
        unsafe { AtomicU32::from_ptr(self.0.as_mut_ptr().wrapping_add(offset).cast()) }
    }

    /// Copies bytes in, with plain stores.
    #[inline]
    pub(crate) fn copy_in(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len(), "a place in the mapping");
        let to = self.0.as_mut_ptr().wrapping_add(offset);
        // SAFETY: in the mapping by the line above; `bytes` lie in memory of this process. The
        // other side doesn't look at them before it sees the word that is stored afterwards.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    /// Bytes where they lie.
    ///
    /// # Safety
    /// Nobody may write them while the slice lives.
    #[inline]
    pub(crate) unsafe fn slice(&self, offset: usize, len: usize) -> &[u8] {
        assert!(offset + len <= self.len(), "a place in the mapping");
        let from = self.0.as_ptr().wrapping_add(offset);
        // SAFETY: in the mapping by the line above; that nobody writes is the caller's promise.
        unsafe { std::slice::from_raw_parts(from, len) }
    }
}
