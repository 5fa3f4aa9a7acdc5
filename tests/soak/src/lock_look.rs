//! The lock of a ring with many producers, read from the region's file: looking disturbs nobody.

use std::fs::File;
use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tombolo::inspect::Image;
use tombolo_abi::{LockWord, RingControl, RingEntry, RingKind, Slot};

use crate::Failure;

/// A lock, for reading.
#[derive(Debug)]
pub(crate) struct LockLook {
    file: File,
    control_offset: u64,
    slot_offset: u64,
    slot_len: u64,
}

impl LockLook {
    /// The lock in the region at `path`.
    ///
    /// # Errors
    /// Where there is none.
    pub(crate) fn new(path: &Path) -> Result<Self, Failure> {
        let image = Image::open(path)?;
        let header = image.page().ok_or("no header")?.header;
        let is_mpsc = |entry: &&RingEntry| entry.ring_kind() == Some(RingKind::Mpsc);
        let mut entries = image.rings().iter().map(|ring| &ring.entry);
        let control_offset = entries.find(is_mpsc).ok_or("no ring with a lock")?.control_offset;
        let (slot_offset, slot_len) = (header.slot_offset, header.slot_len.into());
        Ok(Self { file: File::open(path)?, control_offset, slot_offset, slot_len })
    }

    /// The lock word.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(crate) fn word(&self) -> Result<u64, Failure> {
        self.control_word(offset_of!(RingControl, lock))
    }

    /// How often the lock was taken over from a dead holder.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(crate) fn breaks(&self) -> Result<u64, Failure> {
        self.control_word(offset_of!(RingControl, lock_breaks))
    }

    fn control_word(&self, offset: usize) -> Result<u64, Failure> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, self.control_offset + offset as u64)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The process id in the slot of the holder that `word` names; `None` where it names none.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(crate) fn pid(&self, word: u64) -> Result<Option<u32>, Failure> {
        let Some(holder) = LockWord::from_word(word) else { return Ok(None) };
        let slot = self.slot_offset + u64::from(holder.slot) * self.slot_len;
        let mut bytes = [0; 4];
        self.file.read_exact_at(&mut bytes, slot + offset_of!(Slot, pid) as u64)?;
        Ok(Some(u32::from_le_bytes(bytes)))
    }
}
