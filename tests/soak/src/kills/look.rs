//! The ring as the dead left it, read from the file.

use std::fs::File;
use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tombolo::inspect::Image;
use tombolo_abi::{Record, RecordKind, RecordRules, RingControl};

use super::plan;
use crate::Failure;
use crate::content::{Content, number_of, number_word};

/// A ring, for reading.
#[derive(Debug)]
pub(super) struct Look {
    file: File,
    control_offset: u64,
    data_offset: u64,
    rules: RecordRules,
}

/// What is committed in the ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Committed {
    /// Where the last committed record ends.
    pub(super) end: u64,
    /// Number of the last committed message, where one is not freed.
    pub(super) last: Option<u64>,
}

impl Look {
    /// Ring `ring` of the region at `path`.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) fn new(path: &Path, ring: usize) -> Result<Self, Failure> {
        let image = Image::open(path)?;
        let entry = image.rings().get(ring).ok_or("no such ring")?.entry;
        let rules = RecordRules::of(&entry, image.page().ok_or("no header")?.header.key);
        let (control_offset, data_offset) = (entry.control_offset, entry.data_offset);
        Ok(Self { file: File::open(path)?, control_offset, data_offset, rules })
    }

    /// The receiver's position.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn head(&self) -> Result<u64, Failure> {
        self.word(self.control_offset + offset_of!(RingControl, head) as u64)
    }

    /// What is committed, walking from the receiver's position on. No sender may be alive.
    ///
    /// # Errors
    /// Where a header word is impossible.
    pub(super) fn committed(&self) -> Result<Committed, Failure> {
        let head = self.head()?;
        let mut found = Committed { end: head, last: None };
        while let Some(record) = self.rules.decode(self.data(found.end)?, found.end)? {
            if record.kind == RecordKind::Data {
                found.last = Some(number_of(self.data(found.end + record.payload_offset())?));
            }
            found.end += self.rules.record_len(&record);
            if found.end - head > self.rules.capacity {
                return Err("more is committed than the ring holds".into());
            }
        }
        Ok(found)
    }

    /// Whether the sender of `mark` died after the first byte of a payload and before its commit:
    /// the payload's first word lies where it goes, and is this sender's and nobody else's. A batch
    /// begins with its second payload.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn is_under_way(
        &self,
        content: &Content,
        (end, next): (u64, u64),
        mark: u64,
    ) -> Result<bool, Failure> {
        let first = self.place(end, plan::len(content, next));
        let first_end = self.end_of(first, plan::len(content, next));
        let second = self.place(first_end, plan::len(content, next + 1));
        Ok(self.data(first + 8)? == number_word(next, mark)
            || self.data(second + 8)? == number_word(next + 1, mark))
    }

    /// Whether a record of `len` payload bytes at `position` may be followed by one at `next`:
    /// directly, or at the start of a lap.
    pub(super) fn follows(&self, next: u64, position: u64, len: usize) -> bool {
        let end = self.end_of(position, len);
        next == end || next == end.next_multiple_of(self.rules.capacity)
    }

    /// Where a record that starts at `position` ends.
    pub(super) fn end_of(&self, position: u64, len: usize) -> u64 {
        position + self.rules.record_len(&Record::data(len as u32))
    }

    /// Where a record goes that comes after `end`.
    fn place(&self, end: u64, len: usize) -> u64 {
        let to_end = self.rules.capacity - end % self.rules.capacity;
        let record_len = self.rules.record_len(&Record::data(len as u32));
        if record_len > to_end { end + to_end } else { end }
    }

    /// The word of the data area at `position`.
    fn data(&self, position: u64) -> Result<u64, Failure> {
        self.word(self.data_offset + position % self.rules.capacity)
    }

    fn word(&self, offset: u64) -> Result<u64, Failure> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(u64::from_le_bytes(bytes))
    }
}
