//! Whole regions: real ones with messages, damaged, looked at and then used.

use std::fs;
use std::ops::Range;
use std::path::Path;

use tempfile::TempDir;
use tombolo::ends::Topology;
use tombolo::inspect::{Health, Image};
use tombolo::options::CreatePolicy;
use tombolo::{Error, EventsRegion, OpenOptions, Receiver, Sender, TryRecvError, TrySendError};
use tombolo_abi::{
    HEADER_LEN, Header, RingControl, RingEntry, Slot, header_crc, parse_entries, parse_header,
};

use super::header::{Described, flip, set_field};
use super::{Outcomes, edge};
use crate::{Failure, Rng, scratch};

/// Bytes of each ring.
const CAPACITY: u64 = 4096;
/// Messages that are tried to be received from a damaged ring.
const RECEIVED_MAX: usize = 600;

/// A sound region, and the file in which it is damaged.
#[derive(Debug)]
pub(super) struct Fuzzed {
    directory: TempDir,
    bytes: Vec<u8>,
    header: Header,
    entries: Vec<RingEntry>,
    described: Described,
}

impl Fuzzed {
    /// Makes a region with messages in both rings, one of which has wrapped.
    pub(super) fn new() -> Result<Self, Failure> {
        let directory = scratch()?;
        let path = directory.path().join("sound");
        make(&path)?;
        let mut bytes = fs::read(path)?;
        let mut header = parse_header(&bytes)?;
        let span = directory_span(&header);
        header.file_inode = 0; // it is to be used from other files
        header.crc = header_crc(&header, &bytes[span.clone()]);
        bytes[..HEADER_LEN].copy_from_slice(bytemuck::bytes_of(&header));
        let entries = parse_entries(&header, &bytes[span.clone()]).collect();
        let described =
            Described { header: bytes[..HEADER_LEN].to_vec(), directory: bytes[span].to_vec() };
        Ok(Self { directory, bytes, header, entries, described })
    }

    /// Header and directory of the sound region.
    pub(super) fn sound(&self) -> &Described {
        &self.described
    }

    /// Damages the region, looks at it, and uses it.
    pub(super) fn judge(&mut self, rng: &mut Rng, outcomes: &mut Outcomes) -> Result<(), Failure> {
        let bytes = self.damaged(rng);
        let path = self.directory.path().join("damaged");
        let _ = fs::remove_file(&path); // not there the first time
        write_private(&path, &bytes)?;
        outcomes.add("look at a region", look(&path)?);
        let outcome = use_it(&path, outcomes).map_or_else(|error| name(&error), |()| "opened");
        outcomes.add("use of a region", outcome);
        Ok(())
    }

    fn damaged(&self, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for _ in 0..rng.below(6) {
            let ring = rng.choose(&self.entries);
            match rng.below(16) {
                0 => self.damage_description(rng, &mut bytes),
                1..8 => damage_record(rng, &ring, &mut bytes),
                8..13 => {
                    let control = &mut bytes[ring.control_offset as usize..];
                    set_field(rng, &RingControl::TABLE, control);
                }
                13 | 14 => {
                    let slot = rng.below(self.header.slot_count.into());
                    let offset = self.header.slot_offset + slot * u64::from(self.header.slot_len);
                    set_field(rng, &Slot::TABLE, &mut bytes[offset as usize..]);
                }
                _ => flip(rng, &mut bytes),
            }
        }
        bytes
    }

    fn damage_description(&self, rng: &mut Rng, bytes: &mut [u8]) {
        let mut described = self.described.clone();
        described.damage(rng);
        bytes[..HEADER_LEN].copy_from_slice(&described.header);
        bytes[directory_span(&self.header)].copy_from_slice(&described.directory);
    }
}

/// Changes a word of a ring's data, most likely a header word of a record.
fn damage_record(rng: &mut Rng, ring: &RingEntry, bytes: &mut [u8]) {
    let word = rng.below(ring.capacity / 8) * 8;
    let at = (ring.data_offset + word) as usize;
    let word = &mut bytes[at..at + 8];
    match rng.below(3) {
        0 => word.copy_from_slice(&edge(rng).to_le_bytes()),
        1 => word.fill(0),
        _ => flip(rng, word),
    }
}

fn directory_span(header: &Header) -> Range<usize> {
    let start = header.directory_offset as usize;
    start..start + header.ring_count as usize * header.entry_len as usize
}

fn make(path: &Path) -> Result<(), Failure> {
    let options = OpenOptions::new();
    let options = options.spsc_capacity(CAPACITY).mpsc_capacity(CAPACITY).producers(4);
    let mut region = EventsRegion::open_path_with(path, options)?;
    let (mut tx, mut rx) = region.split_spsc()?;
    let (mut producer, _consumer) = region.split_mpsc()?;
    for number in 0..200u8 {
        tx.try_send(&vec![number; usize::from(number) % 64])?;
        rx.try_recv()?;
    }
    for number in 0..100u8 {
        tx.try_send(&vec![number; usize::from(number) % 30])?;
        producer.try_send(&vec![number; usize::from(number) % 30]).or_else(full_is_fine)?;
    }
    Ok(())
}

fn full_is_fine(error: TrySendError) -> Result<(), TrySendError> {
    if matches!(error, TrySendError::Full(())) { Ok(()) } else { Err(error) }
}

/// Writes a file that only its owner may use.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::File::options();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(bytes)?)
}

fn look(path: &Path) -> Result<&'static str, Failure> {
    let image = Image::open(path)?;
    for ring in 0..4 {
        let records = image.records(ring, RECEIVED_MAX as u64, 64);
        records.into_iter().flatten().for_each(drop);
    }
    for problem in image.problems() {
        if problem.to_string().is_empty() {
            return Err("a problem without words".into());
        }
    }
    if image.health() == Health::Healthy && !image.problems().is_empty() {
        return Err(format!("healthy, with {:?}", image.problems()).into());
    }
    Ok(match image.health() {
        Health::Healthy => "Healthy",
        Health::Retired => "Retired",
        Health::Damaged => "Damaged",
        Health::Poisoned => "Poisoned",
        Health::NotInitialized => "NotInitialized",
        Health::Unsupported => "Unsupported",
        _ => "NotARegion",
    })
}

fn use_it(path: &Path, outcomes: &mut Outcomes) -> Result<(), Error> {
    let options = OpenOptions::new().policy(CreatePolicy::OpenExisting);
    let options = options.join_timeout(std::time::Duration::ZERO);
    let mut region = EventsRegion::open_path_with(path, options)?;
    let (mut tx, mut rx) = region.split_spsc()?;
    let (mut producer, mut consumer) = region.split_mpsc()?;
    for outcome in [send(&mut tx), send(&mut producer)] {
        outcomes.add("use of a region", outcome);
    }
    for outcome in [receive(&mut rx), receive(&mut consumer)] {
        outcomes.add("use of a region", outcome);
    }
    Ok(())
}

fn send<K: Topology>(sender: &mut Sender<K>) -> &'static str {
    match sender.try_send(b"one more").and_then(|()| sender.try_send_batch(&[b"and", b"two"])) {
        Ok(_) => "sent",
        Err(TrySendError::Full(())) => "full",
        Err(TrySendError::Contended { .. }) => "contended",
        Err(TrySendError::Failed { source, .. }) => name(&source),
        Err(_) => "disconnected",
    }
}

fn receive<K: Topology>(receiver: &mut Receiver<K>) -> &'static str {
    for _ in 0..RECEIVED_MAX {
        match receiver.try_recv() {
            Ok(message) if message.data.len() > CAPACITY as usize => return "too long",
            Ok(_) => {}
            Err(TryRecvError::Failed { source }) => return name(&source),
            Err(_) => return "received",
        }
    }
    "without end"
}

fn name(error: &Error) -> &'static str {
    match error {
        Error::Poisoned { .. } => "poisoned",
        Error::RegionPoisoned { .. } => "region poisoned",
        _ => "refused",
    }
}
