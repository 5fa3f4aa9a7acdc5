//! The v1 layout of a tombolo region: the parts of the file, and the checks that distinguish a sound file
//! from a damaged one.
//!
//! A region is one file:
//!
//! ```text
//! 0x0000  header page    4096 bytes            written once, then only its three mutable words
//! ......  slot table     slot_count x 256      one slot an endpoint: its owner, its state
//! ......  directory      ring_count x 64       written once: kinds and offsets of the rings
//! ......  control        1024 a ring           positions, wake words, counters
//! ......  data areas     page-aligned          records
//! ```
//!
//! `README.md` beside this crate's manifest is the format's document, for authors of readers in other
//! languages. [`document::write_markdown`] writes its tables.
//!
//! There are no pointers in the file, only offsets from its first byte. Everything is
//! little-endian; building this crate for a big-endian machine is an error.
//!
//! This crate holds no unsafe code, needs no allocator and touches no file. A reader of a region copies
//! its bytes to private memory first and passes the copy to [`parse_header`] and [`check_directory`],
//! which are total: any bytes give a value or a [`LayoutError`].
//!
//! # Examples
//! ```
//! use tombolo_abi::{LayoutError, parse_header};
//! let not_a_region = [0x7f, b'E', b'L', b'F'];
//! assert!(matches!(parse_header(&not_a_region), Err(LayoutError::BadMagic { .. })));
//! ```
#![no_std]
#![forbid(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!("the v1 layout is little-endian; big-endian machines are not supported");

#[cfg(test)]
extern crate std;

mod control;
mod crc;
mod directory;
pub mod document;
mod error;
mod header;
mod limits;
mod packet;
mod record;
mod slot;
mod table;
mod validate;

pub use control::{CloseWord, LockWord, RingControl, RingState, wake};
pub use crc::crc32c;
pub use directory::{NO_GROUP, NO_RING, RingEntry, RingKind};
pub use error::{LayoutError, Section};
pub use header::{Header, RegionState, SharedLayout, caps};
pub use limits::*;
pub use packet::{CarriedHandle, HandlePacket, Hello, carried, packet_kind};
pub use record::{Record, RecordError, RecordExt, RecordKind, RecordRules};
pub use slot::{
    NAME_LEN_MAX, Role, Slot, SlotState, end_signals, name_bytes, next_incarnation, slot_flags,
};
pub use table::{Field, Table};
pub use validate::{check_directory, check_writable, header_crc, parse_entries, parse_header};

/// The packets on the connections beside the rings.
pub const PACKETS: [&Table; 3] = [&Hello::TABLE, &HandlePacket::TABLE, &CarriedHandle::TABLE];

/// Every stored type, in the order in which they lie in the file.
pub const TABLES: [&Table; 5] =
    [&Header::TABLE, &SharedLayout::TABLE, &Slot::TABLE, &RingEntry::TABLE, &RingControl::TABLE];
