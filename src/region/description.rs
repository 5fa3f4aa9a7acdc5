//! A private, checked copy of what a region says about itself, and how far its creation has come.

use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::path::Path;

use tombolo_abi::{
    HEADER_LEN, Header, LayoutError, MAGIC, RegionState, RingEntry, RingKind, check_directory,
    check_writable, parse_entries, parse_header,
};

use super::options::Asked;
use super::refusal;
use crate::Error;
use crate::os::file;

/// Where the state word lies.
pub(crate) const STATE_OFFSET: u64 = offset_of!(Header, state) as u64;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Nothing at all.
    Nothing,
    /// A region in this state.
    Region(RegionState),
}

impl Contents {
    /// Looks at the file's first bytes. A file that has bytes, but not the magic number first, is
    /// somebody else's: an error, and nobody writes to it.
    pub(crate) fn of(file: BorrowedFd<'_>, path: &Path) -> Result<Self, Error> {
        let mut bytes = [0; HEADER_LEN];
        let bytes = read_start(file, path, &mut bytes)?;
        if bytes.is_empty() {
            return Ok(Self::Nothing);
        }
        if bytes.len() < HEADER_LEN || !bytes.starts_with(&MAGIC) {
            let error = parse_header(bytes).err();
            let reason = error.unwrap_or(LayoutError::BadMagic { found: [0; 8] });
            return Err(layout(path, reason));
        }
        let header: Header = bytemuck::pod_read_unaligned(bytes);
        state_of(path, header.state).map(Self::Region)
    }

    /// The state word; 0 for a file that holds nothing.
    pub(crate) fn state(self) -> u32 {
        match self {
            Self::Nothing => RegionState::Empty as u32,
            Self::Region(state) => state as u32,
        }
    }
}

/// The state that the word `found` stands for.
pub(crate) fn state_of(path: &Path, found: u32) -> Result<RegionState, Error> {
    RegionState::from_word(found).ok_or_else(|| {
        let (found, limit) = (found.into(), RegionState::Poisoned as u64);
        let reason =
            LayoutError::Field { field: "state", ring: None, found, wanted: "at most", limit };
        layout(path, reason)
    })
}

/// Header and directory, copied once and checked; nothing else of the file's immutable part is
/// ever read again.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    pub(crate) header: Header,
    pub(crate) entries: Vec<RingEntry>,
}

impl Description {
    /// Reads and checks the description in `file`, whatever its state.
    pub(crate) fn read(file: BorrowedFd<'_>, path: &Path) -> Result<Self, Error> {
        let mut bytes = [0; HEADER_LEN];
        let bytes = read_start(file, path, &mut bytes)?;
        let header = parse_header(bytes).map_err(|reason| layout(path, reason))?;
        let stat = rustix::fs::fstat(file).map_err(|error| refusal::io("stat", path, error))?;
        let file_len = stat.st_size as u64;
        // At most 1024 entries of at most a page each, by `parse_header`.
        let mut directory = vec![0; header.ring_count as usize * header.entry_len as usize];
        let found_len = file::read_at(file, &mut directory, header.directory_offset)
            .map_err(|error| refusal::io("read", path, error))?;
        if found_len < directory.len() {
            let (path, claimed_len) = (path.to_owned(), header.total_len);
            return Err(Error::RegionTooSmall { path, found_len: file_len, claimed_len });
        }
        let page_len = rustix::param::page_size() as u32;
        check_directory(&header, &directory, file_len, page_len)
            .and_then(|()| check_writable(&header))
            .map_err(|reason| layout(path, reason))?;
        let entries = parse_entries(&header, &directory).collect();
        Ok(Self { header, entries })
    }

    /// Whether the region has what the caller asked for.
    pub(crate) fn check(&self, path: &Path, asked: &Asked) -> Result<(), Error> {
        let (found, limit) = (self.header.total_len, asked.total_len_max.unwrap_or(u64::MAX));
        if found > limit {
            return Err(not_as_asked(path, "total_len", None, found, "at most", limit));
        }
        let found = self.header.caps_required;
        if asked.required_caps & !found != 0 {
            let wanted = "all capability bits of";
            return Err(not_as_asked(
                path,
                "caps_required",
                None,
                found,
                wanted,
                asked.required_caps,
            ));
        }
        self.check_ring(path, &[RingKind::Spsc], "spsc_capacity", asked.spsc_capacity)?;
        let of_many = [RingKind::Mpsc, RingKind::Lane];
        self.check_ring(path, &of_many, "mpsc_capacity", asked.mpsc_capacity)?;
        let wanted_message = asked.max_message.unwrap_or(0);
        for (ring, entry) in (0..).zip(&self.entries) {
            if entry.ring_kind() != Some(RingKind::Memory) && entry.max_message < wanted_message {
                let (found, limit) = (entry.max_message.into(), wanted_message.into());
                return Err(not_as_asked(
                    path,
                    "max_message",
                    Some(ring),
                    found,
                    "at least",
                    limit,
                ));
            }
        }
        Ok(())
    }

    fn check_ring(
        &self,
        path: &Path,
        kinds: &[RingKind],
        option: &'static str,
        wanted: Option<u64>,
    ) -> Result<(), Error> {
        let Some(wanted) = wanted else { return Ok(()) };
        let is_meant = |entry: &RingEntry| entry.ring_kind().is_some_and(|it| kinds.contains(&it));
        let ring = self.entries.iter().position(is_meant);
        let found = ring.map_or(0, |ring| self.entries[ring].capacity);
        if found >= wanted {
            return Ok(());
        }
        Err(not_as_asked(path, option, ring.map(|ring| ring as u32), found, "at least", wanted))
    }

    /// Whether an earlier boot made the region: nobody of then lives, and its pages may be half
    /// written. `false` where one of the two boots is not known.
    pub(crate) fn is_of_earlier_boot(&self) -> bool {
        let (now, then) = (crate::os::process::boot_id(), self.header.boot_id);
        now != then && now != [0; 16] && then != [0; 16]
    }
}

/// `reason` as the region's error; a short file has a variant of its own.
pub(crate) fn layout(path: &Path, reason: LayoutError) -> Error {
    let path = path.to_owned();
    match reason {
        LayoutError::TooSmall { found_len, claimed_len } => {
            Error::RegionTooSmall { path, found_len, claimed_len }
        }
        reason => Error::Layout { path, reason },
    }
}

fn not_as_asked(
    path: &Path,
    field: &'static str,
    ring: Option<u32>,
    found: u64,
    wanted: &'static str,
    limit: u64,
) -> Error {
    layout(path, LayoutError::Field { field, ring, found, wanted, limit })
}

/// The file's first bytes, as many as there are and `bytes` has room for.
fn read_start<'a>(
    file: BorrowedFd<'_>,
    path: &Path,
    bytes: &'a mut [u8],
) -> Result<&'a [u8], Error> {
    let len = file::read_at(file, bytes, 0).map_err(|error| refusal::io("read", path, error))?;
    Ok(&bytes[..len])
}
