//! The records of a ring, one after the other, while its ends may be working on it.
//!
//! The producer zeroes the word after a record before it publishes the record, so behind head every
//! header word is 0 or committed. The walk relies on this order:
//!
//! | read | before | because |
//! |---|---|---|
//! | tail | header words | all records before that tail are published, so a 0 among them is damage |
//! | header word | payload | what was committed is there |
//! | payload | head, again | if head passed the record, its bytes may be others by now: dropped |
//!
//! What seems wrong may be a record that head has passed meanwhile. So the walk starts again from head and
//! believes it only if it finds the same word at the same position: it doesn't come to a position again that
//! head has passed.

use tombolo_abi::{RECORD_EXT_LEN, RECORD_HEADER_LEN, Record, RecordKind};

use super::file::RegionFile;
use super::problem::{Place, Problem};
use super::walk::{Excerpt, NoPositions, Positions, RingPlace, is_before};

/// Restarts of a walk before it gives up on a moving ring.
const RESTARTS_MAX: u32 = 8;
/// Records lost to a faster consumer before the walk gives up.
const MISSED_MAX: u64 = 256;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordView {
    /// The ring.
    pub ring: u32,
    /// Its position, in bytes: it grows with each record and never repeats in the region's life.
    pub position: u64,
    /// The offset of its header word in the file.
    pub offset: u64,
    /// Its header word, decoded.
    pub record: Record,
    /// The extension word, if it has one.
    pub ext: Option<[u8; RECORD_EXT_LEN as usize]>,
    /// The first bytes of the payload, at most as many as were asked for.
    pub payload: Vec<u8>,
}

/// Why there are no more records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordsEnd {
    /// Nothing more has been published.
    Uncommitted,
    /// As many were returned as were asked for.
    Limit,
    /// The file ends before the ring does.
    EndOfFile,
    /// The ring is damaged here.
    Damaged,
    /// The ring moves faster than it can be read; no damage was seen.
    Moving,
}

/// The records of a ring from head on. The table in this module's source shows why a live ring never seems
/// damaged.
#[derive(Debug)]
pub struct Records<'a> {
    file: &'a RegionFile,
    place: RingPlace,
    payload_len_max: u32,
    remaining: u64,
    at: Positions,
    position: u64,
    excerpt: Excerpt,
    /// The position behind the last record returned.
    given_to: Option<u64>,
    /// What seemed wrong last: position and header word.
    suspect: Option<(u64, u64)>,
    restarts: u32,
    missed: u64,
    end: Option<RecordsEnd>,
    contradiction: Option<Problem>,
}

enum Step {
    Record(Record),
    End(RecordsEnd),
    Suspect(u64, Problem),
}

impl<'a> Records<'a> {
    pub(super) fn new(
        file: &'a RegionFile,
        place: RingPlace,
        limit: u64,
        payload_len_max: u32,
    ) -> Self {
        let mut records = Self {
            file,
            place,
            payload_len_max,
            remaining: limit,
            at: Positions { head: 0, tail: 0 },
            position: 0,
            excerpt: Excerpt::default(),
            given_to: None,
            suspect: None,
            restarts: 0,
            missed: 0,
            end: None,
            contradiction: None,
        };
        records.start();
        records
    }

    /// Why there are no more, once there are none.
    #[must_use]
    pub fn end(&self) -> Option<RecordsEnd> {
        self.end
    }

    /// Records that the consumer freed while they were being read.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Position at which the walk began.
    pub(super) fn head(&self) -> u64 {
        self.at.head
    }

    /// Position of the next record.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    fn start(&mut self) {
        self.excerpt.forget();
        match Positions::sample(self.file, &self.place) {
            Ok(at) => {
                self.at = at;
                self.position = at.head;
            }
            Err(NoPositions::BeyondFile) => self.end = Some(RecordsEnd::EndOfFile),
            Err(NoPositions::Contradiction(problem)) => {
                self.end = Some(RecordsEnd::Damaged);
                self.contradiction = Some(problem);
            }
        }
    }

    fn step(&mut self) -> Step {
        let (position, rules) = (self.position, self.place.rules);
        if self.remaining == 0 {
            return Step::End(RecordsEnd::Limit);
        }
        if position.wrapping_sub(self.at.head) >= rules.capacity {
            return Step::End(RecordsEnd::Moving); // a whole lap: more was published meanwhile
        }
        let Some(word) = self.excerpt.word(self.file, &self.place, position) else {
            return Step::End(RecordsEnd::EndOfFile);
        };
        let published = is_before(position, self.at.tail);
        match rules.decode(word, position) {
            Err(error) => Step::Suspect(word, self.problem("header word", error)),
            Ok(None) if published => {
                Step::Suspect(word, self.problem("header word", "0, not committed"))
            }
            Ok(None) => Step::End(RecordsEnd::Uncommitted),
            Ok(Some(record)) if published && is_before(self.at.tail, self.behind(&record)) => {
                let found = format!("{}, inside this record", self.at.tail);
                Step::Suspect(word, self.problem("tail", found))
            }
            Ok(Some(record)) => Step::Record(record),
        }
    }

    fn behind(&self, record: &Record) -> u64 {
        self.position.wrapping_add(self.place.rules.record_len(record))
    }

    fn problem(&self, what: &str, found: impl std::fmt::Display) -> Problem {
        let place = Place::Record { ring: self.place.ring, position: self.position };
        let wanted = format!("a published record, as tail is {}", self.at.tail);
        let offset = self.place.data_at(self.position);
        Problem::new("record", place, what, found, wanted).at(Some(offset))
    }

    /// Returns the problem if it was found for the second time, or else starts again from head.
    fn confirm(&mut self, word: u64, problem: Problem) -> Option<Problem> {
        if self.suspect == Some((self.position, word)) {
            self.end = Some(RecordsEnd::Damaged);
            return Some(problem);
        }
        self.suspect = Some((self.position, word));
        self.restarts += 1;
        if self.restarts > RESTARTS_MAX {
            self.end = Some(RecordsEnd::Moving);
        } else {
            self.start();
        }
        None
    }

    /// Copies the record out and passes it. Returns `None` if it was returned before a restart, or if the
    /// consumer freed it meanwhile.
    fn take(&mut self, record: Record) -> Option<RecordView> {
        let (position, behind) = (self.position, self.behind(&record));
        self.position = behind;
        if self.given_to.is_some_and(|given_to| is_before(position, given_to)) {
            return None;
        }
        let view = self.copy(position, record);
        if !view.payload.is_empty() && self.was_freed(position) {
            return None;
        }
        self.given_to = Some(behind);
        self.remaining -= 1;
        Some(view)
    }

    fn copy(&self, position: u64, record: Record) -> RecordView {
        let offset = self.place.data_at(position);
        let is_message = record.kind != RecordKind::Pad;
        let len = if is_message { record.payload_len.min(self.payload_len_max) } else { 0 };
        let payload = self.file.bytes_at(offset + record.payload_offset(), len as usize);
        let ext = record.ext.then(|| self.file.value_at(offset + RECORD_HEADER_LEN)).flatten();
        RecordView { ring: self.place.ring, position, offset, record, ext, payload }
    }

    /// Whether head has passed `position`. Then the walk starts again from head.
    fn was_freed(&mut self, position: u64) -> bool {
        let Some(head) = self.place.word(self.file, "head") else { return false };
        if !is_before(position, head) {
            return false;
        }
        self.missed += 1;
        if self.missed > MISSED_MAX {
            self.end = Some(RecordsEnd::Moving);
        } else {
            self.start();
        }
        true
    }
}

impl Iterator for Records<'_> {
    /// A record, or the damage at which the walk ends.
    type Item = Result<RecordView, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.end.is_none() {
            match self.step() {
                Step::End(end) => self.end = Some(end),
                Step::Record(record) => {
                    if let Some(view) = self.take(record) {
                        return Some(Ok(view));
                    }
                }
                Step::Suspect(word, problem) => {
                    if let Some(problem) = self.confirm(word, problem) {
                        return Some(Err(problem));
                    }
                }
            }
        }
        self.contradiction.take().map(Err)
    }
}
