//! What lies in the directory of a round, before and after a kill.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::mem::offset_of;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tombolo::EventsRegion;
use tombolo::inspect::{Health, Image};
use tombolo::options::CreatePolicy;
use tombolo_abi::{HEADER_LEN, Header, MAGIC, RegionState, header_crc, parse_header};

use super::opener::options;
use crate::Failure;

/// The generation of a retired region.
const OLD_GENERATION: u64 = 41;

/// A directory with at most one region in it.
#[derive(Debug)]
pub(crate) struct Ground {
    dir: TempDir,
}

impl Ground {
    /// An empty directory, in memory where there is such a file system.
    pub(crate) fn new() -> io::Result<Self> {
        let shm = Path::new("/dev/shm");
        let root = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        Ok(Self { dir: tempfile::Builder::new().prefix("soak-").tempdir_in(root)? })
    }

    /// The region's file.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("region")
    }

    /// What lies beside the region's file.
    pub(super) fn strangers(&self) -> Result<Vec<OsString>, Failure> {
        let names = fs::read_dir(self.dir.path())?.map(|entry| Ok(entry?.file_name()));
        let names = names.collect::<Result<Vec<_>, io::Error>>()?;
        Ok(names.into_iter().filter(|name| *name != "region").collect())
    }

    /// Fails unless there is nothing but the region's file.
    pub(crate) fn check_clean(&self) -> Result<(), Failure> {
        match self.strangers()? {
            none if none.is_empty() => Ok(()),
            found => Err(format!("left behind beside the region: {found:?}").into()),
        }
    }

    /// Replaces the region of `generation` by a new one.
    pub(super) fn replace(&self, generation: u64) -> Result<(), Failure> {
        let new = options(4096).policy(CreatePolicy::CreateNew);
        let region = EventsRegion::open_path_with(self.path(), new)?;
        if region.is_creator() && region.generation() == generation + 1 {
            return Ok(());
        }
        Err(format!("replacing generation {generation} gave {}", region.generation()).into())
    }

    /// Fails unless whatever lies beside the region's file is one retired region at most, which a
    /// replacer leaves that is killed between taking the name away and removing the file.
    pub(super) fn count_retired(&self) -> Result<u64, Failure> {
        let found = self.strangers()?;
        for name in &found {
            let path = self.dir.path().join(name);
            let state = Found::look(&path)?.label(0);
            if !name.to_string_lossy().ends_with(".retired") || state != "retired" {
                return Err(format!("left behind, {state}: {}", path.display()).into());
            }
        }
        if found.len() > 1 {
            return Err(format!("more than one replacer's file was left: {found:?}").into());
        }
        Ok(found.len() as u64)
    }
}

/// What the region's name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Absent,
    /// An empty file.
    Empty,
    /// A region, whole or not.
    Region {
        /// Its state word.
        state: u32,
        /// Its id.
        uuid: u128,
        /// Its generation.
        generation: u64,
        /// The process that it says made it.
        creator_pid: u32,
    },
}

impl Found {
    /// Looks at the file `path`, which others may be changing.
    pub(super) fn look(path: &Path) -> Result<Self, Failure> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Absent),
            result => result?,
        };
        if bytes.is_empty() {
            return Ok(Self::Empty);
        }
        if bytes.len() < HEADER_LEN || !bytes.starts_with(&MAGIC) {
            return Err(format!("{} bytes that are no region", bytes.len()).into());
        }
        let state = u32_at(&bytes, offset_of!(Header, state));
        if state < RegionState::Ready as u32 {
            return Ok(Self::Region { state, uuid: 0, generation: 0, creator_pid: 0 });
        }
        let header = parse_header(&bytes[..HEADER_LEN])?;
        let uuid = u128::from_be_bytes(header.region_uuid);
        let (generation, creator_pid) = (header.generation, header.creator_pid);
        Ok(Self::Region { state, uuid, generation, creator_pid })
    }

    /// What it is in a word, where the region `old` was there before.
    pub(super) fn label(&self, old: u128) -> &'static str {
        match *self {
            Self::Absent => "absent",
            Self::Empty => "empty",
            Self::Region { state: 0, .. } => "state 0",
            Self::Region { state: 1, .. } => "state 1",
            Self::Region { state: 2, uuid, .. } if uuid == old => "old",
            Self::Region { state: 2, .. } => "ready",
            Self::Region { state: 3, .. } => "retired",
            Self::Region { .. } => "poisoned",
        }
    }

    /// As [`Self::look`] where nobody changes the file: a region that says that it is READY must be
    /// sound.
    pub(super) fn look_closely(path: &Path) -> Result<Self, Failure> {
        let found = Self::look(path)?;
        if found.joinable().is_some() {
            check_sound(path)?;
        }
        Ok(found)
    }

    /// The id of a region that can be joined.
    pub(super) fn joinable(&self) -> Option<u128> {
        match *self {
            Self::Region { state: 2, uuid, .. } => Some(uuid),
            _ => None,
        }
    }
}

/// Fails unless the tools' eye finds the region sound.
pub(crate) fn check_sound(path: &Path) -> Result<(), Failure> {
    let image = Image::open(path)?;
    if image.health() == Health::Healthy {
        return Ok(());
    }
    let problems: Vec<_> = image.problems().iter().map(ToString::to_string).collect();
    Err(format!("the region is {:?}: {}", image.health(), problems.join("; ")).into())
}

/// What an opener finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scene {
    /// No such name: the region is made whole and then named.
    Absent,
    /// An empty file: the region is made in place.
    Empty,
    /// What a dead creator left, with marks in the rest of the file.
    HalfMade,
    /// A region whose replacer died after it had retired it, which is replaced.
    Retired,
    /// A sound region that nobody uses, which is replaced on demand.
    Orphan,
}

impl Scene {
    /// What it is, for the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Absent => "name absent",
            Self::Empty => "in place",
            Self::HalfMade => "in place again",
            Self::Retired => "retired",
            Self::Orphan => "orphan",
        }
    }

    /// The generation of a region made here.
    pub(super) fn next_generation(self) -> u64 {
        match self {
            Self::Absent | Self::Empty | Self::HalfMade => 1,
            Self::Retired => OLD_GENERATION + 1,
            Self::Orphan => 2,
        }
    }

    /// Whether a region is made here by replacing another.
    pub(super) fn is_replacing(self) -> bool {
        matches!(self, Self::Retired | Self::Orphan)
    }

    /// Sets the scene in an empty directory; gives the id of the region that is there, or 0.
    pub(super) fn set(self, ground: &Ground, capacity: u64) -> Result<u128, Failure> {
        let path = ground.path();
        match self {
            Self::Absent => return Ok(0),
            Self::Empty => write_private(&path, &[])?,
            Self::HalfMade => write_private(&path, &half_made(capacity)?)?,
            Self::Retired => write_private(&path, &retired(capacity)?)?,
            Self::Orphan => drop(EventsRegion::open_path_with(&path, options(capacity))?),
        }
        Ok(Found::look(&path)?.joinable().unwrap_or(0))
    }
}

/// A sound region that nobody has used.
fn sound(capacity: u64) -> Result<Vec<u8>, Failure> {
    let ground = Ground::new()?;
    drop(EventsRegion::open_path_with(ground.path(), options(capacity))?);
    Ok(fs::read(ground.path())?)
}

/// A region whose making was cut short, by a process that wrote more than any does.
fn half_made(capacity: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = sound(capacity)?;
    bytes[HEADER_LEN..].fill(0xa5);
    set(&mut bytes, offset_of!(Header, state), &(RegionState::Initializing as u32).to_le_bytes());
    Ok(bytes)
}

/// A region of which a dead replacer left no more than its mark.
fn retired(capacity: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = sound(capacity)?;
    let mut header = parse_header(&bytes[..HEADER_LEN])?;
    header.generation = OLD_GENERATION;
    let start = header.directory_offset as usize;
    let len = header.ring_count as usize * header.entry_len as usize;
    let crc = header_crc(&header, &bytes[start..start + len]);
    set(&mut bytes, offset_of!(Header, state), &(RegionState::Retired as u32).to_le_bytes());
    set(&mut bytes, offset_of!(Header, generation), &header.generation.to_le_bytes());
    set(&mut bytes, offset_of!(Header, crc), &crc.to_le_bytes());
    Ok(bytes)
}

fn set(bytes: &mut [u8], offset: usize, value: &[u8]) {
    bytes[offset..offset + value.len()].copy_from_slice(value);
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(word)
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}
