//! What can be wrong with the bytes of a region.

use core::fmt::{self, Write};

use crate::directory::RingKind;

/// Why bytes are not a region that this version can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// *Fix the call*: the file is something else. It was not touched.
    BadMagic {
        /// Its first bytes, zero-filled.
        found: [u8; 8],
    },
    /// *Damage*: the file ends before its header or its directory does.
    Truncated {
        /// Bytes there are.
        found_len: u64,
        /// Bytes that header and directory take at least.
        wanted_len: u64,
    },
    /// *Over*: written by a machine of the other byte order.
    ForeignEndian {
        /// The endian tag found.
        found: u32,
    },
    /// *Over*: written for another major version of the layout.
    UnsupportedMajor {
        /// The version found.
        found: u16,
        /// The version that this build reads.
        supported: u16,
    },
    /// *Over*: needs capabilities that this build doesn't know, to be read or to be written.
    UnknownCapability {
        /// The unknown bits of `caps_required`, or of `caps_read_only` for a process that wants to write.
        unknown: u64,
    },
    /// *Retry*: the region is not fully initialized or replaced yet.
    NotReady {
        /// The state word found.
        state: u32,
    },
    /// *Damage*: a bit of the immutable part differs from what the creator wrote.
    Checksum {
        /// The checksum stored.
        found: u32,
        /// The checksum of the bytes found.
        computed: u32,
    },
    /// *Damage*: the file is shorter than its header says.
    TooSmall {
        /// Bytes of the file.
        found_len: u64,
        /// Bytes that the header states.
        claimed_len: u64,
    },
    /// *Damage*, or *fix the call* if it speaks of an option: a field has a value it must not have.
    Field {
        /// The field, by its name in the layout table or in the options.
        field: &'static str,
        /// The ring, if the field is of a ring's entry.
        ring: Option<u32>,
        /// The value found.
        found: u64,
        /// What was wanted, in words.
        wanted: &'static str,
        /// The number that `wanted` speaks of.
        limit: u64,
    },
    /// *Fix the call*: the region's creator chose less than was asked for.
    OptionTooSmall {
        /// The option.
        option: &'static str,
        /// The ring, if the option is one of a listed ring.
        ring: Option<u32>,
        /// Otherwise the kind of ring that has least; `None` if there is no such ring.
        kind: Option<RingKind>,
        /// What the region has.
        found: u64,
        /// The least that was asked for.
        wanted: u64,
    },
    /// *Fix the call*: the region was made with another choice than the one asked for.
    Option {
        /// The option.
        option: &'static str,
        /// What the region has.
        found: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
    /// *Fix the call*: the region has another ring than the one asked for, or none.
    OtherRing {
        /// Which ring was asked for; `None` if any of that kind would have done.
        ring: Option<u32>,
        /// Its kind; `None` if there is no such ring.
        found: Option<RingKind>,
        /// The kind asked for.
        wanted: RingKind,
    },
    /// *Fix the call*: the region is no channel.
    NoChannel,
    /// *Damage*: a section does not lie inside the region.
    OutOfBounds {
        /// The section.
        section: Section,
        /// Its offset.
        offset: u64,
        /// Its bytes.
        len: u64,
        /// Bytes of the region.
        total_len: u64,
    },
    /// *Damage*: two sections share bytes.
    Overlap {
        /// One of them.
        first: Section,
        /// The other.
        second: Section,
        /// An offset that both hold.
        offset: u64,
    },
    /// *Damage*: two endpoints share a slot.
    SharedSlot {
        /// The slot.
        slot: u16,
        /// One ring that uses it.
        first_ring: u32,
        /// The other.
        second_ring: u32,
    },
}

/// A span of the region, for errors and tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The header page.
    Header,
    /// The slot table.
    Slots,
    /// The ring directory.
    Directory,
    /// The control block of a ring.
    Control(u32),
    /// The data area of a ring.
    Data(u32),
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("header page"),
            Self::Slots => f.write_str("slot table"),
            Self::Directory => f.write_str("ring directory"),
            Self::Control(ring) => write!(f, "control block of ring {ring}"),
            Self::Data(ring) => write!(f, "data area of ring {ring}"),
        }
    }
}

/// What to do if a joiner asks for what the creator did not choose.
const OTHER_OPTIONS: &str = "leave the option unset to take what the region's creator chose, ask for the \
    same, or make a new region with CreatePolicy::CreateNew or by removing the file";

/// What to do if a ring is not what it was taken for.
const OTHER_RINGS: &str = "see EventsRegion::rings for what the region's creator chose, or make a new region \
    with CreatePolicy::CreateNew or by removing the file";

/// A ring's kind as an error names it.
struct Kind(Option<RingKind>);

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Some(RingKind::Spsc) => "SPSC",
            Some(RingKind::Mpsc) => "MPSC",
            Some(RingKind::Broadcast) => "BROADCAST",
            Some(RingKind::Lane) => "LANE",
            Some(RingKind::Memory) => "MEMORY",
            None => "none",
        })
    }
}

/// Bytes as pairs of hexadecimal digits.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(index, byte)| {
            let gap = if index == 0 { "" } else { " " };
            write!(f, "{gap}{byte:02x}")
        })
    }
}

/// Bytes as text, with a dot for each that is no printable ASCII.
struct Text<'a>(&'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| {
            let printable = byte.is_ascii_graphic() || *byte == b' ';
            f.write_char(if printable { (*byte).into() } else { '.' })
        })
    }
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BadMagic { found } => write!(
                f,
                "not a region: starts with {} ({}); it was left as it is, choose another path",
                Hex(&found),
                Text(&found)
            ),
            Self::Truncated { found_len, wanted_len } => write!(
                f,
                "cut short: {found_len} bytes, header and directory take {wanted_len}; remove the file"
            ),
            Self::ForeignEndian { found } => {
                write!(f, "endian tag {found:#010x}: written by a machine of another byte order")
            }
            Self::UnsupportedMajor { found, supported } => write!(
                f,
                "layout version {found}, this build reads version {supported}; use the same major \
                 version of tombolo in all processes"
            ),
            Self::UnknownCapability { unknown } => write!(
                f,
                "needs unknown capabilities {unknown:#x}; open it with the version that made it"
            ),
            Self::NotReady { state } => write!(
                f,
                "still being initialized or replaced (state {state}); wait longer, or look at it \
                 with `tombolo inspect`"
            ),
            Self::Checksum { found, computed } => write!(
                f,
                "header checksum {found:#010x}, its bytes give {computed:#010x}: damaged; close \
                 all users and remove the file"
            ),
            Self::TooSmall { found_len, claimed_len } => write!(
                f,
                "file of {found_len} bytes holds a region of {claimed_len}: truncated; close all \
                 users and remove the file"
            ),
            Self::Field { field, ring, found, wanted, limit } => {
                write!(f, "{field}")?;
                if let Some(ring) = ring {
                    write!(f, " of ring {ring}")?;
                }
                write!(f, " is {found}")?;
                if found > 9 {
                    write!(f, " ({found:#x})")?;
                }
                write!(f, ", wanted {wanted} {limit}")
            }
            Self::OptionTooSmall { option, ring, kind, found, wanted } => {
                write!(f, "{option}")?;
                match (ring, kind) {
                    (Some(ring), _) => write!(f, " of ring {ring}")?,
                    (None, Some(RingKind::Lane)) => f.write_str(" of the lanes")?,
                    (None, Some(kind)) => write!(f, " of the {} ring", Kind(Some(kind)))?,
                    (None, None) => {}
                }
                write!(f, " is {found}, wanted at least {wanted}; {OTHER_OPTIONS}")
            }
            Self::Option { option, found, wanted } => {
                write!(f, "{option} is {found}, wanted {wanted}; {OTHER_OPTIONS}")
            }
            Self::NoChannel => f.write_str(
                "the region is no channel, which is two SPSC rings of which each carries the replies to the other; \
                 open it as an EventsRegion, or use another name for the channel",
            ),
            Self::OtherRing { ring: Some(ring), found, wanted } => write!(
                f,
                "kind of ring {ring} is {}, wanted {}; {OTHER_RINGS}",
                Kind(found),
                Kind(Some(wanted))
            ),
            Self::OtherRing { ring: None, wanted, .. } => {
                write!(f, "the region has no {} ring; {OTHER_RINGS}", Kind(Some(wanted)))
            }
            Self::OutOfBounds { section, offset, len, total_len } => write!(
                f,
                "{section} at {offset:#x}, {len} bytes, is not inside the region of {total_len}"
            ),
            Self::Overlap { first, second, offset } => {
                write!(f, "{first} and {second} share the byte at {offset:#x}")
            }
            Self::SharedSlot { slot, first_ring, second_ring } => {
                write!(f, "rings {first_ring} and {second_ring} both use slot {slot}")
            }
        }
    }
}

impl core::error::Error for LayoutError {}
