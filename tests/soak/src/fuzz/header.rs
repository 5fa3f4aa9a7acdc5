//! Headers and directories, as a joiner judges them.

use tombolo_abi::{
    ENTRY_LEN, HEADER_LEN, Header, LayoutError, MAGIC, RingEntry, RingKind, Table, check_directory,
    header_crc, parse_entries, parse_header,
};

use super::{Outcomes, edge};
use crate::{Failure, Rng};

/// A header with its directory, as bytes.
#[derive(Clone, Debug)]
pub(super) struct Described {
    pub(super) header: Vec<u8>,
    pub(super) directory: Vec<u8>,
}

impl Described {
    /// Changes a field or a few, or a bit or a few; mostly with a checksum that fits.
    pub(super) fn damage(&mut self, rng: &mut Rng) {
        for _ in 0..=rng.below(3) {
            let entry = rng.below(self.directory.len() as u64 / u64::from(ENTRY_LEN)) as usize;
            let entry = &mut self.directory[entry * ENTRY_LEN as usize..];
            match rng.below(8) {
                0 => flip(rng, &mut self.header),
                1 => flip(rng, entry),
                2 | 3 => set_field(rng, &Header::TABLE, &mut self.header),
                _ => set_field(rng, &RingEntry::TABLE, entry),
            }
        }
        if rng.percent(90) {
            self.seal();
        }
    }

    fn seal(&mut self) {
        let header: Header = bytemuck::pod_read_unaligned(&self.header);
        let claimed = header.ring_count as usize * header.entry_len as usize;
        let covered = &self.directory[..claimed.min(self.directory.len())];
        let sum = header_crc(&header, covered);
        let place = Header::TABLE.field("crc").map_or(0, |field| field.offset);
        self.header[place..place + 4].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Gives a field another value.
pub(super) fn set_field(rng: &mut Rng, table: &Table, bytes: &mut [u8]) {
    let field = &table.fields[rng.below(table.fields.len() as u64) as usize];
    let value = edge(rng).to_le_bytes();
    let len = field.len.min(8);
    bytes[field.offset..field.offset + len].copy_from_slice(&value[..len]);
}

/// Flips a bit.
pub(super) fn flip(rng: &mut Rng, bytes: &mut [u8]) {
    let at = rng.below(bytes.len() as u64) as usize;
    bytes[at] ^= 1 << rng.below(8);
}

/// Judges a damaged form of `sound`, or garbage.
pub(super) fn judge(
    rng: &mut Rng,
    sound: &Described,
    outcomes: &mut Outcomes,
) -> Result<(), Failure> {
    let mut found = sound.clone();
    match rng.below(16) {
        0 => garble(rng, &mut found.header),
        1 => {
            let version = found.header[..16].to_vec();
            garble(rng, &mut found.header);
            found.header[..16].copy_from_slice(&version);
        }
        2 => found.header[..MAGIC.len() + 8].rotate_left(8),
        3 => found.header.truncate(rng.below(HEADER_LEN as u64) as usize),
        4 => found.directory.truncate(rng.below(found.directory.len() as u64) as usize),
        5 => {} // sound
        _ => found.damage(rng),
    }
    let (len, page_len) = (edge(rng), rng.choose(&[4096, 4096, 4096, 16384, 0, 3]));
    let outcome = join(&found, |claimed| if len % 4 == 0 { len } else { claimed }, page_len)?;
    outcomes.add("header", outcome);
    Ok(())
}

fn garble(rng: &mut Rng, bytes: &mut [u8]) {
    bytes.fill_with(|| rng.number() as u8);
}

/// What a joiner says; where it accepts, whether it may.
fn join(
    found: &Described,
    file_len: impl Fn(u64) -> u64,
    page_len: u32,
) -> Result<&'static str, Failure> {
    let header = match parse_header(&found.header) {
        Ok(header) => header,
        Err(error) => return name(&error),
    };
    let file_len = file_len(header.total_len);
    match check_directory(&header, &found.directory, file_len, page_len) {
        Err(error) => return name(&error),
        Ok(()) if header.total_len > file_len => return Err("longer than its file".into()),
        Ok(()) => {}
    }
    for entry in parse_entries(&header, &found.directory) {
        if !is_inside(&header, &entry) {
            return Err(format!("accepted {entry:?} of {header:?}").into());
        }
    }
    Ok("accepted")
}

/// Whether a ring lies inside its region, in 128 bits.
fn is_inside(header: &Header, entry: &RingEntry) -> bool {
    let total_len = u128::from(header.total_len);
    let ends_inside = |offset: u64, len: u64| u128::from(offset) + u128::from(len) <= total_len;
    let control_len = u64::from(header.control_len);
    match entry.ring_kind() {
        None => false,
        Some(RingKind::Memory) => ends_inside(entry.data_offset, entry.capacity),
        Some(_) => {
            ends_inside(entry.data_offset, entry.capacity)
                && ends_inside(entry.control_offset, control_len)
                && entry.capacity.is_power_of_two()
                && u32::from(entry.rx_slot) < header.slot_count
                && u32::from(entry.tx_slots().end) <= header.slot_count
        }
    }
}

fn name(error: &LayoutError) -> Result<&'static str, Failure> {
    Ok(match error {
        LayoutError::BadMagic { .. } => "BadMagic",
        LayoutError::Truncated { .. } => "Truncated",
        LayoutError::ForeignEndian { .. } => "ForeignEndian",
        LayoutError::UnsupportedMajor { .. } => "UnsupportedMajor",
        LayoutError::UnknownCapability { .. } => "UnknownCapability",
        LayoutError::Checksum { .. } => "Checksum",
        LayoutError::TooSmall { .. } => "TooSmall",
        LayoutError::Field { .. } => "Field",
        LayoutError::OutOfBounds { .. } => "OutOfBounds",
        LayoutError::Overlap { .. } => "Overlap",
        LayoutError::SharedSlot { .. } => "SharedSlot",
        other => return Err(format!("an error that no joiner should see: {other:?}").into()),
    })
}
