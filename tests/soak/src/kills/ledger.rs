//! What the receivers logged, and whether it is what was sent.
//!
//! An entry is 32 bytes, written before its message is freed, so all that was freed is in the log.
//! Entries never lie across a page, so a kill cannot cut one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::look::Look;
use crate::Failure;
use crate::content::word_at;

/// Bytes of an entry.
const ENTRY_LEN: usize = 32;

/// A message as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its position in the ring.
    pub(super) position: u64,
    /// Its number.
    pub(super) number: u64,
    /// Its bytes.
    pub(super) len: u64,
    /// Which receiver got it.
    pub(super) receiver: u64,
}

/// The log, for a receiver to write.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
}

impl Log {
    /// Opens or makes the log at `path`.
    ///
    /// # Errors
    /// The system's refusal.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: OpenOptions::new().append(true).create(true).open(path)? })
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// The system's refusal.
    pub(super) fn add(&mut self, entry: &Entry) -> io::Result<()> {
        let words = [entry.position, entry.number, entry.len, entry.receiver];
        let mut bytes = [0; ENTRY_LEN];
        for (room, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *room = word.to_le_bytes();
        }
        self.file.write_all(&bytes)
    }
}

/// The log, judged as it grows.
#[derive(Debug)]
pub(super) struct Ledger {
    file: File,
    read_to: u64,
    /// The entry last judged.
    pub(super) last: Option<Entry>,
    /// The receiver at work.
    receiver: u64,
    /// Where it started.
    head: u64,
    /// Messages that came twice.
    pub(super) repeated: u64,
    /// Changes of the receiver that were met in the log.
    pub(super) changes: u64,
}

impl Ledger {
    /// The log at `path`, which is there.
    ///
    /// # Errors
    /// The system's refusal.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self { file, read_to: 0, last: None, receiver: 0, head: 0, repeated: 0, changes: 0 })
    }

    /// Notes that the next receiver starts, the one before being dead.
    ///
    /// # Errors
    /// Where the dead one's log is not in order, or it freed something without logging it, or had
    /// not freed what was logged before the last entry.
    pub(super) fn change_receiver(&mut self, receiver: u64, look: &Look) -> Result<(), Failure> {
        self.read(look)?;
        let head = look.head()?;
        if let Some(last) = self.last {
            let end = look.end_of(last.position, last.len as usize);
            if head < last.position || head > end.max(last.position) && !is_lap(look, head, last) {
                return Err(format!("head is {head} after {last:?}").into());
            }
        }
        (self.receiver, self.head) = (receiver, head);
        Ok(())
    }

    /// Judges what was logged since the last time.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(&mut self, look: &Look) -> Result<(), Failure> {
        let len = (self.file.metadata()?.len() - self.read_to) as usize;
        let mut bytes = vec![0; len - len % ENTRY_LEN];
        self.file.read_exact_at(&mut bytes, self.read_to)?;
        for entry in bytes.chunks_exact(ENTRY_LEN) {
            let [position, number, len, receiver] = [0, 8, 16, 24].map(|at| word_at(entry, at));
            let entry = Entry { position, number, len, receiver };
            let judged = self.judge(&entry, look);
            judged.map_err(|error| format!("{error}: {entry:?} after {:?}", self.last))?;
            self.last = Some(entry);
        }
        self.read_to += bytes.len() as u64;
        Ok(())
    }

    fn judge(&mut self, entry: &Entry, look: &Look) -> Result<(), &'static str> {
        if entry.receiver != self.receiver {
            return Err("logged by a dead receiver");
        }
        let Some(last) = self.last else {
            let is_first = entry.number == 1 && entry.position == 0;
            return if is_first { Ok(()) } else { Err("not the first message") };
        };
        if last.receiver != entry.receiver {
            self.changes += 1;
            if entry.position < self.head {
                return Err("received again although it had been freed");
            }
            if entry.position == last.position {
                self.repeated += 1;
                let same = (entry.number, entry.len) == (last.number, last.len);
                return if same { Ok(()) } else { Err("another message at the same position") };
            }
        }
        if entry.number != last.number + 1 {
            return Err("lost, reordered or repeated");
        }
        if !look.follows(entry.position, last.position, last.len as usize) {
            return Err("not behind the message before");
        }
        Ok(())
    }
}

/// Whether `head` passed the padding behind `last`.
fn is_lap(look: &Look, head: u64, last: Entry) -> bool {
    look.follows(head, last.position, last.len as usize)
}
