//! What the receivers logged, and whether it is what was sent.
//!
//! An entry is 32 bytes, written before its message is freed, so all that was freed is in the log.
//! Entries never lie across a page, so a kill cannot cut one.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::look::Look;
use super::plan::DRAINED_MAX;
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
    /// The messages with the highest numbers, as many as may have been received and not freed.
    newest: VecDeque<Entry>,
    /// Which of them come once more.
    repeats: VecDeque<Entry>,
    /// The receiver at work.
    receiver: u64,
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
        let (last, newest, repeats) = <_>::default();
        let (read_to, receiver, repeated, changes) = (0, 0, 0, 0);
        Ok(Self { file, read_to, last, newest, repeats, receiver, repeated, changes })
    }

    /// Notes that the next receiver starts, the one before being dead.
    ///
    /// # Errors
    /// Where the dead one's log is not in order, or it freed something without logging it, or had
    /// not freed more than it takes at once.
    pub(super) fn change_receiver(&mut self, receiver: u64, look: &Look) -> Result<(), Failure> {
        self.read(look)?;
        self.receiver = receiver;
        let head = look.head()?;
        let Some(newest) = self.newest.back() else { return Ok(()) };
        let is_freed = look.end_of(newest.position, newest.len as usize) == head
            || look.follows(head, newest.position, newest.len as usize);
        let first = self.newest.iter().position(|entry| entry.position == head);
        let Some(first) = first.or(is_freed.then_some(self.newest.len())) else {
            return Err(format!("head is {head} after {newest:?}").into());
        };
        self.repeats = self.newest.range(first..).copied().collect();
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
        self.changes += u64::from(self.last.is_some_and(|last| last.receiver != entry.receiver));
        if let Some(repeat) = self.repeats.pop_front() {
            self.repeated += 1;
            let is_same = Entry { receiver: entry.receiver, ..repeat } == *entry;
            return if is_same { Ok(()) } else { Err("not what had not been freed") };
        }
        let judged = match self.newest.back() {
            None if entry.number == 1 && entry.position == 0 => Ok(()),
            None => Err("not the first message"),
            Some(newest) if entry.number != newest.number + 1 => Err("lost, reordered or repeated"),
            Some(newest) if look.follows(entry.position, newest.position, newest.len as usize) => {
                Ok(())
            }
            Some(_) => Err("not behind the message before"),
        };
        if self.newest.len() == DRAINED_MAX {
            self.newest.pop_front();
        }
        self.newest.push_back(*entry);
        judged
    }
}
