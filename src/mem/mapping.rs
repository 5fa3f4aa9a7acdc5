//! A region's bytes, mapped for reading and writing.

use std::io;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::guard::Guard;
use super::handler;
use crate::os::fork::Owner;

/// A shared mapping of a complete region.
///
/// Invariants:
/// - the bytes from `base` to `base + len` stay mapped, readable and writable, while this lives;
/// - `base` is at a page boundary, so an offset's alignment is its address's.
#[derive(Debug)]
pub(crate) struct Mapping {
    map: ManuallyDrop<MmapRaw>,
    guard: ManuallyDrop<Guard>,
    owner: Owner,
}

impl Mapping {
    /// Maps the first `len` bytes of `file`, which must have them. A forked child does not get the
    /// mapping.
    pub(crate) fn new(file: BorrowedFd<'_>, len: u64) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let owner = Owner::current()?;
        let map = MmapOptions::new().len(len).map_raw(file.as_raw_fd())?;
        map.advise(Advice::DontFork)?;
        handler::install()?;
        let guard = ManuallyDrop::new(Guard::register(map.as_ptr(), map.len()));
        Ok(Self { map: ManuallyDrop::new(map), guard, owner })
    }

    /// Faults every page of `bytes` in for writing, so that the first message pays no page fault.
    /// Bytes outside of the mapping are `OutOfMemory`, as the kernel says of pages that are not there.
    pub(crate) fn populate(&self, bytes: Range<u64>) -> io::Result<()> {
        // Behind the mapping may lie other memory; its pages must stay as they are.
        let len = bytes.end.checked_sub(bytes.start).filter(|_| bytes.end <= self.len());
        let len = len.ok_or(io::ErrorKind::OutOfMemory)?;
        self.map.advise_range(Advice::PopulateWrite, bytes.start as usize, len as usize)
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// Its bytes.
    pub(crate) fn len(&self) -> u64 {
        self.map.len() as u64
    }

    /// The 32-bit word at `offset` bytes.
    ///
    /// # Panics
    /// If the word is not aligned or not inside: offsets come from a validated layout.
    #[inline]
    pub(crate) fn word_u32(&self, offset: u64) -> &AtomicU32 {
        let address = self.checked(offset, 4).cast();
        // SAFETY:
        // - valid and aligned: `checked` saw that the word's bytes lie inside the mapping at a
        //   multiple of 4, and the mapping outlives the borrow of `self`;
        // - no data race: this crate touches mapped words only through atomics of one width a
        //   word, and other processes are outside of this program.
        unsafe { AtomicU32::from_ptr(address) }
    }

    /// The 64-bit word at `offset` bytes.
    ///
    /// # Panics
    /// As [`Self::word_u32`].
    #[inline]
    pub(crate) fn word_u64(&self, offset: u64) -> &AtomicU64 {
        let address = self.checked(offset, 8).cast();
        // SAFETY:
        // - valid and aligned: `checked` saw that the word's bytes lie inside the mapping at a
        //   multiple of 8, and the mapping outlives the borrow of `self`;
        // - no data race: as in `word_u32`.
        unsafe { AtomicU64::from_ptr(address) }
    }

    /// Whether this process made the mapping. A forked child doesn't have it: check before any access to
    /// the region.
    #[inline]
    pub(crate) fn is_ours(&self) -> bool {
        self.owner.is_here()
    }

    /// Whether the file was cut short and some of the bytes are no longer the region's.
    #[inline]
    pub(crate) fn is_cut(&self) -> bool {
        self.guard.is_cut()
    }

    /// Whether an access to bytes that are no longer the region's would be survived now, by this thread.
    pub(crate) fn is_guarded(&self) -> bool {
        self.is_ours() && handler::is_in_place()
    }

    /// The mark that the file was cut short. Of no meaning after the mapping is removed.
    pub(super) fn cut_mark(&self) -> &'static AtomicBool {
        self.guard.mark()
    }

    /// The process that made the mapping.
    pub(super) fn owner(&self) -> Owner {
        self.owner
    }

    /// The address of `len` bytes at `offset`, aligned to `len`.
    fn checked(&self, offset: u64, len: u64) -> *mut u8 {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len());
        assert!(inside && offset.is_multiple_of(len), "no word of {len} bytes at {offset:#x}");
        self.base().wrapping_add(offset as usize)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: dropped once, here, and not used after; before the memory goes, so that no fault
        // elsewhere is ever taken for one of this mapping.
        unsafe { ManuallyDrop::drop(&mut self.guard) };
        if !self.is_ours() {
            return; // a forked child never had it; something else may be at this address
        }
        // SAFETY: dropped once, here, and not used after.
        unsafe { ManuallyDrop::drop(&mut self.map) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// What the kernel notes of the mapping at `start`.
    fn flags_of(start: usize) -> Option<String> {
        let all = std::fs::read_to_string("/proc/self/smaps").ok()?;
        let (_, behind) = all.split_once(&format!("\n{start:08x}-"))?;
        let flags = behind.lines().find_map(|line| line.strip_prefix("VmFlags:"))?;
        Some(flags.to_owned())
    }

    #[test]
    fn no_page_outside_of_the_mapping_is_faulted_in() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * 4096).unwrap();
        let mapping = Mapping::new(file.as_fd(), 2 * 4096).unwrap();
        mapping.populate(0..2 * 4096).unwrap();
        mapping.populate(2 * 4096..2 * 4096).unwrap();
        let (page, end) = (4096, 2 * 4096);
        for bytes in
            [0..end + 1, page..3 * page, end..end + page, 0..u64::MAX, u64::MAX - 1..u64::MAX]
        {
            let refused = mapping.populate(bytes.clone()).map_err(|error| error.kind());
            assert_eq!(refused, Err(io::ErrorKind::OutOfMemory), "{bytes:?}");
        }
        let refused = mapping.populate(page..0).map_err(|error| error.kind());
        assert_eq!(refused, Err(io::ErrorKind::OutOfMemory));
    }

    #[test]
    fn a_forked_child_does_not_get_a_regions_mapping() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let mapping = Mapping::new(file.as_fd(), 4096).unwrap();
        let Some(flags) = flags_of(mapping.base() as usize) else {
            return eprintln!("skipped: /proc tells nothing of mappings");
        };
        assert!(flags.contains(" wr"), "{flags}");
        assert!(flags.contains(" dc"), "it is copied by a fork: {flags}");
    }
}
