//! What the two ends of a ring have counted, read from the region's file: looking disturbs nobody,
//! and the counts of those who have left stay until somebody else comes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytemuck::{Pod, Zeroable};
use tombolo::inspect::Image;
use tombolo_abi::{RingControl, RingKind, Slot};

use crate::Failure;
use crate::ends::Side;

/// A ring's counters, for reading. Of its producers the first one's.
#[derive(Debug)]
pub(crate) struct Counters {
    file: File,
    control_offset: u64,
    receiver_offset: u64,
    sender_offset: u64,
}

impl Counters {
    /// Those of the ring of `kind` in the region at `path`.
    ///
    /// # Errors
    /// Where there is none.
    pub(crate) fn new(path: &Path, kind: RingKind) -> Result<Self, Failure> {
        let image = Image::open(path)?;
        let header = image.page().ok_or("no header")?.header;
        let mut entries = image.rings().iter().map(|ring| ring.entry);
        let entry = entries.find(|entry| entry.ring_kind() == Some(kind)).ok_or("no such ring")?;
        let slot = |slot: u16| header.slot_offset + u64::from(slot) * u64::from(header.slot_len);
        Ok(Self {
            file: File::open(path)?,
            control_offset: entry.control_offset,
            receiver_offset: slot(entry.rx_slot),
            sender_offset: slot(entry.tx_slots().start),
        })
    }

    /// The slot of a side.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(crate) fn slot(&self, side: Side) -> Result<Slot, Failure> {
        match side {
            Side::Receiving => self.read(self.receiver_offset),
            Side::Sending => self.read(self.sender_offset),
        }
    }

    /// The control block.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(crate) fn control(&self) -> Result<RingControl, Failure> {
        self.read(self.control_offset)
    }

    fn read<T: Pod + Zeroable>(&self, offset: u64) -> Result<T, Failure> {
        let mut value = T::zeroed();
        self.file.read_exact_at(bytemuck::bytes_of_mut(&mut value), offset)?;
        Ok(value)
    }
}
