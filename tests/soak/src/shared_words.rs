//! Words that the processes of a run share, beside the region that they test: who got how far, and
//! what it took. What was stored outlives its writer, killed or not.
//!
//! A word is a `u64`. They lie on lines of 128 bytes, so that writers of different lines don't slow
//! each other down. A file of words, new, is zero.

#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use memmap2::MmapRaw;

use crate::Failure;

/// Words of a line.
pub(crate) const LINE_WORDS: usize = 16;

/// A file of words, mapped.
#[derive(Debug)]
pub(crate) struct SharedWords {
    map: MmapRaw,
}

impl SharedWords {
    /// Makes a file of `lines` lines at `path`, or maps the one that is there.
    ///
    /// # Errors
    /// The system's refusal.
    pub(crate) fn create(path: &Path, lines: usize) -> Result<Self, Failure> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        file.set_len((lines * LINE_WORDS * size_of::<u64>()) as u64)?;
        Ok(Self { map: MmapRaw::map_raw(&file)? })
    }

    /// Maps the file at `path`, which is there.
    ///
    /// # Errors
    /// The system's refusal.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Self { map: MmapRaw::map_raw(&file)? })
    }

    /// Word `index` of line `line`, which are there.
    pub(crate) fn word(&self, line: usize, index: usize) -> &AtomicU64 {
        let place = line * LINE_WORDS + index;
        assert!(index < LINE_WORDS && place < self.map.len() / size_of::<u64>(), "{line}, {index}");
        let pointer = self.map.as_mut_ptr().cast::<u64>().wrapping_add(place);
        // SAFETY: `pointer` is a multiple of 8 from the start of a page, and within the mapping, by
        // the assertion; the mapping is readable and writable, and lives as long as the borrow of
        // `self`, and nobody makes the file shorter. Whoever has it mapped gets at its words by this
        // function only, so all accesses are atomic and of one width.
        unsafe { AtomicU64::from_ptr(pointer) }
    }
}
