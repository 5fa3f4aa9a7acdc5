//! One thing wrong with a region.

use std::fmt;

use tombolo_abi::{Header, LayoutError, RingEntry, Section};

/// One thing wrong: what, where, what was found and what was wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// A stable word for scripts, such as `"checksum"`.
    pub code: &'static str,
    /// In which part of the region.
    pub place: Place,
    /// At which byte of the file, if it is at one.
    pub offset: Option<u64>,
    /// The thing that is wrong, such as a field's name.
    pub what: String,
    /// What it was found to be.
    pub found: String,
    /// What it should be.
    pub wanted: String,
}

/// A part of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The file itself.
    File,
    /// The header page.
    Header,
    /// A ring's directory entry, or the places of two sections.
    Directory(u32),
    /// A slot.
    Slot(u32),
    /// A ring's control block.
    Control(u32),
    /// A record of a ring.
    Record {
        /// The ring.
        ring: u32,
        /// The record's position.
        position: u64,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("file"),
            Self::Header => f.write_str("header"),
            Self::Directory(ring) => write!(f, "directory entry of ring {ring}"),
            Self::Slot(slot) => write!(f, "slot {slot}"),
            Self::Control(ring) => write!(f, "ring {ring}"),
            Self::Record { ring, position } => write!(f, "ring {ring}, position {position}"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, what, found, wanted, .. } = self;
        write!(f, "{place}: {what} is {found}, wanted {wanted}")?;
        match self.offset {
            Some(offset) => write!(f, " (at offset {offset:#x})"),
            None => Ok(()),
        }
    }
}

impl Problem {
    pub(super) fn new(
        code: &'static str,
        place: Place,
        what: impl Into<String>,
        found: impl fmt::Display,
        wanted: impl fmt::Display,
    ) -> Self {
        let (found, wanted) = (found.to_string(), wanted.to_string());
        Self { code, place, offset: None, what: what.into(), found, wanted }
    }

    pub(super) fn at(self, offset: Option<u64>) -> Self {
        Self { offset, ..self }
    }

    /// What the layout's rules found wrong with `header` and its directory.
    pub(super) fn from_layout(error: &LayoutError, header: &Header) -> Self {
        match *error {
            LayoutError::Truncated { found_len, wanted_len } => {
                let wanted = format!("at least {wanted_len} bytes");
                Self::new("truncated", Place::File, "length", bytes(found_len), wanted)
            }
            LayoutError::TooSmall { found_len, claimed_len } => {
                let wanted = format!("the {claimed_len} bytes that the header claims");
                Self::new("truncated", Place::File, "length", bytes(found_len), wanted)
            }
            LayoutError::Checksum { found, computed } => {
                let wanted = format!("{computed:#010x}, which its bytes give");
                Self::new("checksum", Place::Header, "checksum", format!("{found:#010x}"), wanted)
                    .at(header_offset("crc"))
            }
            LayoutError::Field { field, ring, found, wanted, limit } => {
                let (place, offset) = field_place(header, ring, field);
                let found = format!("{found} ({found:#x})");
                Self::new("field", place, field, found, format!("{wanted} {limit}")).at(offset)
            }
            LayoutError::OutOfBounds { section, offset, len, total_len } => {
                let found = format!("{len} bytes at {offset:#x}");
                let wanted = format!("inside the region of {total_len} bytes");
                Self::new("out_of_bounds", place_of(section), section.to_string(), found, wanted)
            }
            LayoutError::Overlap { first, second, offset } => {
                let what = format!("byte {offset:#x}");
                let found = format!("in both the {first} and the {second}");
                Self::new("overlap", place_of(second), what, found, "in one section")
                    .at(Some(offset))
            }
            LayoutError::SharedSlot { slot, first_ring, second_ring } => {
                let (what, place) = (format!("slot {slot}"), Place::Directory(second_ring));
                let found = format!("used by ring {first_ring} too");
                Self::new("shared_slot", place, what, found, "one ring's only")
            }
            ref other => Self::new("layout", Place::Header, "layout", other, "a v1 region"),
        }
    }
}

pub(super) fn header_offset(field: &str) -> Option<u64> {
    Header::TABLE.field(field).map(|field| field.offset as u64)
}

fn field_place(header: &Header, ring: Option<u32>, field: &str) -> (Place, Option<u64>) {
    let Some(ring) = ring else { return (Place::Header, header_offset(field)) };
    let entry = u64::from(ring)
        .checked_mul(header.entry_len.into())
        .and_then(|start| start.checked_add(header.directory_offset));
    let offset = entry
        .zip(RingEntry::TABLE.field(field))
        .and_then(|(entry, field)| entry.checked_add(field.offset as u64));
    (Place::Directory(ring), offset)
}

fn place_of(section: Section) -> Place {
    match section {
        Section::Header | Section::Slots | Section::Directory => Place::Header,
        Section::Control(ring) | Section::Data(ring) => Place::Directory(ring),
    }
}

fn bytes(len: u64) -> String {
    format!("{len} bytes")
}
