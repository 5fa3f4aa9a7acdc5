//! The header word of a record.
//!
//! | bits | field |
//! |---|---|
//! | 0-27 | payload bytes |
//! | 28-31 | kind |
//! | 32-38 | handles |
//! | 39 | EXT: eight bytes of extension follow the header word |
//! | 40-47 | user flags |
//! | 48-63 | tag: tells the position, so that a stale header of an earlier lap is not believed |
//!
//! A header word of 0 means *not committed*.

use core::fmt;

use crate::directory::RingEntry;
use crate::limits::{RECORD_EXT_LEN, RECORD_HEADER_LEN};

/// The bits of a header word that state the payload's length.
const PAYLOAD_LEN_BITS: u32 = (1 << 28) - 1;

/// Kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// A message.
    Data,
    /// Fills the end of the data area.
    Pad,
    /// Given up by its writer: skipped. Nothing in v1 writes it.
    Abort,
    /// A request.
    Call,
    /// The answer to one.
    Reply,
    /// The library's own.
    Control,
    /// A kind of a newer version (8 to 15): skipped and counted.
    Unknown(u8),
}

impl RecordKind {
    /// The four bits of the kind.
    #[must_use]
    #[inline]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Pad => 2,
            Self::Abort => 3,
            Self::Call => 4,
            Self::Reply => 5,
            Self::Control => 6,
            Self::Unknown(bits) => bits,
        }
    }

    #[inline]
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            1 => Self::Data,
            2 => Self::Pad,
            3 => Self::Abort,
            4 => Self::Call,
            5 => Self::Reply,
            6 => Self::Control,
            8..=15 => Self::Unknown(bits),
            _ => return None,
        })
    }

    /// Whether a consumer passes over such records.
    #[must_use]
    #[inline]
    pub const fn is_skipped(self) -> bool {
        matches!(self, Self::Pad | Self::Abort | Self::Unknown(_))
    }
}

/// A record's header word, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub kind: RecordKind,
    /// Payload bytes.
    pub payload_len: u32,
    /// Handles that travel with it.
    pub handle_count: u8,
    /// Whether the extension word follows the header word.
    pub ext: bool,
    /// The user's eight bits.
    pub flags: u8,
}

impl Record {
    /// A plain message of `payload_len` bytes.
    #[must_use]
    #[inline]
    pub const fn data(payload_len: u32) -> Self {
        Self { kind: RecordKind::Data, payload_len, handle_count: 0, ext: false, flags: 0 }
    }

    /// A message of `payload_len` bytes and `handle_count` handles.
    #[must_use]
    #[inline]
    pub const fn with_handles(payload_len: u32, handle_count: u8) -> Self {
        Self { handle_count, ext: true, ..Self::data(payload_len) }
    }

    /// A request of `payload_len` bytes and `handle_count` handles that its sender waits for a reply to.
    #[must_use]
    #[inline]
    pub const fn call(payload_len: u32, handle_count: u8) -> Self {
        Self { kind: RecordKind::Call, ..Self::with_handles(payload_len, handle_count) }
    }

    /// What takes the place of `self`, which was taken out of turn: as long, and passed over.
    #[must_use]
    #[inline]
    pub const fn withdrawn(self) -> Self {
        Self { kind: RecordKind::Abort, handle_count: 0, flags: 0, ..self }
    }

    /// A padding record that takes `total_len` bytes, header word included.
    #[must_use]
    #[inline]
    pub const fn pad(total_len: u64) -> Self {
        let payload_len = total_len.saturating_sub(RECORD_HEADER_LEN) as u32;
        Self { kind: RecordKind::Pad, payload_len, handle_count: 0, ext: false, flags: 0 }
    }

    /// Bytes from the record's start to its payload.
    #[must_use]
    #[inline]
    pub const fn payload_offset(&self) -> u64 {
        if self.ext { RECORD_HEADER_LEN + RECORD_EXT_LEN } else { RECORD_HEADER_LEN }
    }

    /// The record with the header word `word`, with no check but that there is such a kind.
    #[inline]
    const fn from_word(word: u64) -> Option<Self> {
        let Some(kind) = RecordKind::from_bits((word >> 28) as u8 & 0xf) else { return None };
        Some(Self {
            kind,
            payload_len: Self::payload_len_of(word),
            handle_count: Self::handle_count_of(word),
            ext: Self::has_ext(word),
            flags: (word >> 40) as u8,
        })
    }

    /// The payload bytes that a header word states.
    #[must_use]
    #[inline]
    pub const fn payload_len_of(word: u64) -> u32 {
        word as u32 & PAYLOAD_LEN_BITS
    }

    /// The handles that a header word states.
    #[must_use]
    #[inline]
    pub const fn handle_count_of(word: u64) -> u8 {
        (word >> 32) as u8 & 0x7f
    }

    /// Whether a header word states an extension.
    #[must_use]
    #[inline]
    pub const fn has_ext(word: u64) -> bool {
        word >> 39 & 1 == 1
    }
}

/// The extension word of a record that carries handles, or is a call or a reply: its sender.
///
/// # Examples
/// ```
/// use tombolo_abi::RecordExt;
/// let ext = RecordExt { txid: 7, slot: 3, incarnation_low: 0xffff };
/// assert_eq!(RecordExt::from_word(ext.to_word()), ext);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordExt {
    /// Transaction id, 0 if there is none.
    pub txid: u32,
    /// The sender's slot.
    pub slot: u16,
    /// The low 16 bits of the sender's incarnation.
    pub incarnation_low: u16,
}

impl RecordExt {
    /// The word behind the header word.
    #[must_use]
    #[inline]
    pub const fn to_word(self) -> u64 {
        self.txid as u64 | (self.slot as u64) << 32 | (self.incarnation_low as u64) << 48
    }

    /// What `word` says; any word says something.
    #[must_use]
    #[inline]
    pub const fn from_word(word: u64) -> Self {
        Self { txid: word as u32, slot: (word >> 32) as u16, incarnation_low: (word >> 48) as u16 }
    }
}

/// What a ring allows its records to be: the part of its directory entry that each record is
/// checked against. Any numbers are safe here, so that a tool may try those of a damaged entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRules {
    /// Bytes of the data area, a power of two.
    pub capacity: u64,
    /// Records start at multiples of it, a power of two.
    pub align: u64,
    /// Longest payload, in bytes.
    pub max_message: u32,
    /// Most handles.
    pub max_handles: u16,
    /// The region's key.
    pub key: u64,
}

/// Why a header word is not one that an honest producer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordError {
    /// A kind that no version writes.
    Kind {
        /// The four bits found.
        found: u8,
    },
    /// The tag of another position, or of another region.
    Tag {
        /// The tag found.
        found: u16,
        /// The tag that belongs here.
        wanted: u16,
    },
    /// A payload longer than the ring allows, or reaching beyond the data area.
    Len {
        /// Payload bytes found.
        found: u32,
        /// The most that fits here.
        limit: u64,
    },
    /// More handles than the ring allows.
    Handles {
        /// Handles found.
        found: u8,
        /// The most allowed.
        limit: u16,
    },
    /// Handles, a call or a reply without the extension word.
    MissingExt,
    /// A padding record with fields that padding doesn't have, or that doesn't end at the end of the data
    /// area.
    Padding {
        /// Payload bytes found.
        found: u32,
    },
}

impl RecordError {
    /// The number stored as the reason when a ring is poisoned over it.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::Kind { .. } => 1,
            Self::Tag { .. } => 2,
            Self::Len { .. } => 3,
            Self::Handles { .. } => 4,
            Self::MissingExt => 5,
            Self::Padding { .. } => 6,
        }
    }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind { found } => write!(f, "record of unknown kind {found}"),
            Self::Tag { found, wanted } => {
                write!(f, "record tag {found:#06x}, wanted {wanted:#06x} at this position")
            }
            Self::Len { found, limit } => {
                write!(f, "record of {found} payload bytes, at most {limit} fit here")
            }
            Self::Handles { found, limit } => {
                write!(f, "record with {found} handles, at most {limit} are allowed")
            }
            Self::MissingExt => f.write_str("record without the extension word that it needs"),
            Self::Padding { found } => write!(f, "malformed padding of {found} bytes"),
        }
    }
}

impl core::error::Error for RecordError {}

impl RecordRules {
    /// The rules of the ring that `entry` describes, in the region with `key`.
    #[must_use]
    pub const fn of(entry: &RingEntry, key: u64) -> Self {
        Self {
            capacity: entry.capacity,
            align: 1u64.wrapping_shl(entry.align_shift as u32),
            max_message: entry.max_message,
            max_handles: entry.max_handles,
            key,
        }
    }

    /// Bytes that a record takes, from its header word to the start of the next.
    ///
    /// # Examples
    /// ```
    /// use tombolo_abi::{Record, RecordRules};
    /// let rules =
    ///     RecordRules { capacity: 4096, align: 8, max_message: 64, max_handles: 0, key: 1 };
    /// assert_eq!(rules.record_len(&Record::data(0)), 8);
    /// assert_eq!(rules.record_len(&Record::data(9)), 24);
    /// ```
    #[must_use]
    #[inline]
    pub const fn record_len(&self, record: &Record) -> u64 {
        self.aligned(record.payload_offset() + record.payload_len as u64)
    }

    /// Bytes that a record takes of which header and payload have `len`.
    #[must_use]
    #[inline]
    pub const fn aligned(&self, len: u64) -> u64 {
        len.wrapping_add(self.align.wrapping_sub(1)) & self.align.wrapping_neg()
    }

    /// The header word of `record` at `position`. Never 0.
    #[must_use]
    #[inline]
    pub const fn encode(&self, record: &Record, position: u64) -> u64 {
        record.payload_len as u64
            | (record.kind.bits() as u64) << 28
            | (record.handle_count as u64) << 32
            | (record.ext as u64) << 39
            | (record.flags as u64) << 40
            | (self.tag(position) as u64) << 48
    }

    /// The record with the header word `word`, read once at `position`; `None` if nothing has
    /// been committed.
    ///
    /// # Errors
    /// [`RecordError`] if an honest producer would not have written `word` at `position`.
    #[inline]
    pub const fn decode(&self, word: u64, position: u64) -> Result<Option<Record>, RecordError> {
        if word == 0 {
            return Ok(None);
        }
        match self.plain_len(word, position) {
            Some(payload_len) => Ok(Some(Record::data(payload_len))),
            None => self.decode_any(word, position),
        }
    }

    /// The payload bytes of a plain message, one without handles, extension and flags, from its header
    /// word `word`, read once at `position`. Most messages are plain: what is left of the word without
    /// kind and tag is the length. `None` for all else, 0 included: see [`Self::decode`].
    #[must_use]
    #[inline]
    pub const fn plain_len(&self, word: u64, position: u64) -> Option<u32> {
        let rest = word ^ self.encode(&Record::data(0), position);
        let limit =
            if self.max_message < PAYLOAD_LEN_BITS { self.max_message } else { PAYLOAD_LEN_BITS };
        if rest > limit as u64 {
            return None;
        }
        let fits = self.record_len(&Record::data(rest as u32)) <= self.len_to_end(position);
        if fits { Some(rest as u32) } else { None }
    }

    /// As [`Self::decode`], for all that is not plain.
    #[cold]
    const fn decode_any(&self, word: u64, position: u64) -> Result<Option<Record>, RecordError> {
        let Some(record) = Record::from_word(word) else {
            return Err(RecordError::Kind { found: (word >> 28) as u8 & 0xf });
        };
        let (found, wanted) = ((word >> 48) as u16, self.tag(position));
        if found != wanted {
            return Err(RecordError::Tag { found, wanted });
        }
        match self.check(&record, position) {
            Ok(()) => Ok(Some(record)),
            Err(error) => Err(error),
        }
    }

    /// Bytes from `position` to the end of the data area.
    #[must_use]
    #[inline]
    pub const fn len_to_end(&self, position: u64) -> u64 {
        self.capacity.wrapping_sub(position & self.capacity.wrapping_sub(1))
    }

    const fn check(&self, record: &Record, position: u64) -> Result<(), RecordError> {
        let found = record.payload_len;
        let to_end = self.len_to_end(position);
        if matches!(record.kind, RecordKind::Pad) {
            let plain = record.handle_count == 0 && !record.ext && record.flags == 0;
            let fills = RECORD_HEADER_LEN + found as u64 == to_end && to_end != self.capacity;
            return if plain && fills { Ok(()) } else { Err(RecordError::Padding { found }) };
        }
        if found > self.max_message {
            return Err(RecordError::Len { found, limit: self.max_message as u64 });
        }
        if self.record_len(record) > to_end {
            let limit = to_end.saturating_sub(RECORD_HEADER_LEN);
            return Err(RecordError::Len { found, limit });
        }
        if record.handle_count as u16 > self.max_handles {
            let (found, limit) = (record.handle_count, self.max_handles);
            return Err(RecordError::Handles { found, limit });
        }
        let call = matches!(record.kind, RecordKind::Call | RecordKind::Reply);
        if (record.handle_count > 0 || call) && !record.ext {
            return Err(RecordError::MissingExt);
        }
        Ok(())
    }

    /// The tag of `position`: differs from lap to lap at every capacity.
    #[inline]
    const fn tag(&self, position: u64) -> u16 {
        (((position >> 3).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) ^ self.key) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MESSAGE_LEN_MAX;

    fn rules(capacity: u64) -> RecordRules {
        RecordRules { capacity, align: 8, max_message: 1000, max_handles: 64, key: 0x1234 }
    }

    #[test]
    fn what_is_encoded_is_decoded_at_its_position_and_nowhere_else() {
        let rules = rules(1 << 20);
        let record = Record {
            kind: RecordKind::Reply,
            payload_len: 999,
            handle_count: 64,
            ext: true,
            flags: 0xa5,
        };
        for position in [0, 8, 1 << 19, u64::MAX - (1 << 20) + 1] {
            let word = rules.encode(&record, position);
            assert_eq!(rules.decode(word, position), Ok(Some(record)));
            let lap_later = position.wrapping_add(1 << 20);
            assert!(matches!(rules.decode(word, lap_later), Err(RecordError::Tag { .. })));
        }
        assert_eq!(rules.decode(0, 64), Ok(None));
    }

    #[test]
    fn the_tag_differs_from_lap_to_lap_at_every_capacity() {
        for shift in 12..=40 {
            let rules = rules(1 << shift);
            let laps: std::vec::Vec<u16> =
                (0..8).map(|lap| rules.tag(4096 + (lap << shift))).collect();
            assert!(
                laps.windows(2).all(|pair| pair[0] != pair[1]),
                "capacity 2^{shift}: {laps:x?}"
            );
        }
    }

    #[test]
    fn padding_may_be_longer_than_the_longest_message() {
        let rules = RecordRules { max_message: 1, ..rules(4096) };
        let position = 4096 - 16;
        let word = rules.encode(&Record::pad(16), position);
        assert!(matches!(rules.decode(word, position), Ok(Some(_))));
        let short = rules.encode(&Record::pad(8), position);
        assert!(matches!(rules.decode(short, position), Err(RecordError::Padding { found: 0 })));
        let whole = rules.encode(&Record::pad(4096), 0);
        assert!(matches!(rules.decode(whole, 0), Err(RecordError::Padding { .. })));
    }

    #[test]
    fn the_longest_record_leaves_no_more_padding_than_a_header_can_state() {
        let rules = RecordRules { max_message: MESSAGE_LEN_MAX, ..rules(1 << 31) };
        let longest = Record { ext: true, ..Record::data(MESSAGE_LEN_MAX) };
        let pad_len = rules.record_len(&longest) - 8;
        let position = (1 << 31) - pad_len;
        let word = rules.encode(&Record::pad(pad_len), position);
        assert_eq!(rules.decode(word, position), Ok(Some(Record::pad(pad_len))));
    }

    #[test]
    fn kind_zero_with_other_bits_and_kind_seven_are_refused() {
        let rules = rules(4096);
        for kind in [0u64, 7] {
            let word = (kind << 28) | 5 | u64::from(rules.tag(0)) << 48;
            assert_eq!(rules.decode(word, 0), Err(RecordError::Kind { found: kind as u8 }));
        }
    }
}
