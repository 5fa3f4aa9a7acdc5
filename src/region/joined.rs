//! A region that this process has mapped.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::fs::Stat;
use rustix::io::Errno;
use tombolo_abi::{
    HEADER_PAGE_LEN, Header, LayoutError, RegionState, RingEntry, RingKind, SharedLayout,
};

use super::description::{Description, STATE_OFFSET, state_of};
use super::name::socket_name;
use super::options::{OpenOptions, Prefault};
use super::place::Place;
use super::refusal;
use super::rendezvous::Rendezvous;
use super::rings::RingDescription;
use crate::error::Error;
use crate::mem::Mapping;
use crate::os::descriptor::Descriptor;
use crate::os::file::{FileId, is_without_holes, reopen, written_parts};
use crate::os::{file_system, futex};

/// The offset of the word that counts changes of slots.
const MEMBERSHIP_OFFSET: u64 = std::mem::offset_of!(SharedLayout, membership_seq) as u64;

/// An open region: its mapping, the private copy of its description, and the file behind it.
///
/// | edge    | release side                          | acquire side             | carries            |
/// |---------|---------------------------------------|--------------------------|--------------------|
/// | `ready` | creator stores state READY            | joiner loads `state`     | all contents       |
/// | `retire`| replacer stores state RETIRED         | attacher loads `state`   | joining has ended  |
#[derive(Debug)]
pub(crate) struct Region {
    mapping: Arc<Mapping>,
    /// For queries of locks and bytes; never holds a lock.
    plain: Descriptor,
    description: Description,
    /// The name it was opened by; `None` for an anonymous region.
    place: Option<Arc<Place>>,
    /// For messages.
    path: PathBuf,
    pub(super) creator: bool,
    prefault: Prefault,
    /// Of a region without a name: the sockets through which handles arrive.
    pub(super) rendezvous: Vec<Rendezvous>,
    /// Whether no other process can have it.
    pub(super) is_alone: AtomicBool,
}

/// How this process got the region.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) place: Option<Arc<Place>>,
    pub(crate) path: PathBuf,
    pub(crate) creator: bool,
}

impl Region {
    /// Checks and maps the region in `plain`, a description that holds no lock. The state is the
    /// caller's business.
    pub(crate) fn map(
        plain: OwnedFd,
        origin: Origin,
        options: &OpenOptions,
    ) -> Result<Self, Error> {
        let path = &origin.path;
        let plain =
            Descriptor::shared(plain).map_err(|error| refusal::io("keep open", path, error))?;
        let description = Description::read(plain.as_fd(), path)?;
        let found = file_system::lasting_inode(plain.as_fd())
            .map_err(|error| refusal::io("stat", path, error))?;
        if description.header.is_copy_in(found) {
            // It has lock bytes of its own: an end that is owned here may be owned there, too.
            let (path, wanted) = (path.clone(), description.header.file_inode);
            return Err(Error::Copied { path, found, wanted });
        }
        description.check(path, options)?;
        Self::map_described(plain, description, origin, options)
    }

    /// As [`Self::map`], of the region that `description` describes.
    pub(super) fn map_described(
        plain: Descriptor,
        description: Description,
        origin: Origin,
        options: &OpenOptions,
    ) -> Result<Self, Error> {
        let Origin { place, path, creator } = origin;
        let mapping = Mapping::new(plain.as_fd(), description.header.total_len)
            .map_err(|error| refusal::io("map", &path, error))?;
        let (address, align) = (mapping.base() as usize, HEADER_PAGE_LEN as usize);
        if !address.is_multiple_of(align) {
            return Err(Error::Misaligned { address, align });
        }
        let (mapping, prefault) = (Arc::new(mapping), options.prefault);
        let (rendezvous, is_alone) = (Vec::new(), AtomicBool::new(false));
        let region = Self {
            mapping,
            plain,
            description,
            place,
            path,
            creator,
            prefault,
            rendezvous,
            is_alone,
        };
        // A lane takes its pages when a producer attaches: opening a region of hundreds takes no longer.
        let is_lane = |entry: &&RingEntry| entry.ring_kind() == Some(RingKind::Lane);
        let lanes = region.entries().iter().filter(is_lane).map(|entry| entry.data_offset);
        region.populate(0..lanes.min().unwrap_or(region.header().total_len))?;
        Ok(region)
    }

    /// Faults in the pages of the first `len_max` bytes of a lane's data area, if pages are not to
    /// come on demand.
    pub(crate) fn populate_lane(&self, lane: &RingEntry, len_max: u64) -> Result<(), Error> {
        self.populate(lane.data_offset..lane.data_offset + lane.capacity.min(len_max))
    }

    /// Faults pages in, but none that the file has not got: a length in a header costs its writer nothing.
    fn populate(&self, bytes: Range<u64>) -> Result<(), Error> {
        if self.prefault == Prefault::OnDemand || !self.check_plain_is_ours() {
            return Ok(()); // what another file has is not asked, nor is its position moved
        }
        let populate = |bytes| match self.mapping.populate(bytes) {
            // Linux before 5.14 has no such advice; pages then come at first use.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            result => result.map_err(|error| self.io_error("fault in the pages of", error)),
        };
        if is_without_holes(self.plain(), self.header().total_len) {
            return populate(bytes);
        }
        written_parts(self.plain(), bytes).try_for_each(populate)
    }

    /// The private copy of header and directory.
    pub(crate) fn description(&self) -> &Description {
        &self.description
    }

    /// The private copy of the header.
    pub(crate) fn header(&self) -> &Header {
        &self.description.header
    }

    /// The private copy of the directory.
    pub(crate) fn entries(&self) -> &[RingEntry] {
        &self.description.entries
    }

    /// The directory entry of ring `ring`.
    pub(crate) fn entry(&self, ring: u32) -> Result<RingEntry, Error> {
        let (field, found) = ("ring_count", self.entries().len() as u64);
        let (ring, wanted, limit) = (ring as usize, "above", ring.into());
        self.entries().get(ring).copied().ok_or_else(|| {
            self.layout_error(LayoutError::Field { field, ring: None, found, wanted, limit })
        })
    }

    /// The bytes.
    pub(crate) fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// Whether no other process can have the region yet: what happens to its slots is told within this one.
    pub(crate) fn is_alone(&self) -> bool {
        self.is_alone.load(Ordering::Relaxed)
    }

    /// Notes that another process may have the region from now on. Before it can. Endpoints that have been attached
    /// learn of peers there with the watcher's next tick at the latest.
    pub(crate) fn note_shared(&self) {
        self.is_alone.store(false, Ordering::Relaxed);
    }

    /// The description for probes.
    pub(crate) fn plain(&self) -> BorrowedFd<'_> {
        self.plain.as_fd()
    }

    /// The path for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The place of a region that has a name.
    pub(crate) fn place(&self) -> Option<&Place> {
        self.place.as_deref()
    }

    /// The most handles of one message: none if the region came as a descriptor alone, without the sockets at
    /// which its ends meet.
    pub(crate) fn max_handles(&self) -> u16 {
        if self.can_meet() { self.description.max_handles().1 as u16 } else { 0 }
    }

    /// Whether the ends of its rings can find each other, to pass handles on.
    pub(crate) fn can_meet(&self) -> bool {
        self.place.is_some() || !self.rendezvous.is_empty()
    }

    /// What each ring is like.
    pub(crate) fn rings(&self) -> impl Iterator<Item = RingDescription> {
        let max_handles = if self.can_meet() { u16::MAX } else { 0 };
        let rings = self.description.rings();
        rings.map(move |ring| RingDescription {
            max_handles: ring.max_handles.min(max_handles),
            ..ring
        })
    }

    /// The number of ring `ring` of the list, or of its first lane, if it is of a kind that is `meant`. The
    /// error speaks of the kind `wanted`.
    pub(crate) fn listed_ring(
        &self,
        ring: u32,
        wanted: RingKind,
        meant: impl Fn(RingKind) -> bool,
    ) -> Result<u32, Error> {
        self.description
            .listed_ring(ring, wanted, meant)
            .map_err(|reason| self.layout_error(reason))
    }

    /// What the layout lacks or breaks, as an error of this region.
    pub(crate) fn layout_error(&self, reason: LayoutError) -> Error {
        Error::Layout { path: self.path.clone(), reason }
    }

    /// The rendezvous of ring `ring`, or of the lanes of which that is the first.
    pub(crate) fn rendezvous(&self, ring: u32) -> Option<&Rendezvous> {
        self.rendezvous.iter().find(|one| one.ring == ring)
    }

    /// The sockets of all.
    pub(crate) fn rendezvous_sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.rendezvous.iter().flat_map(Rendezvous::descriptors)
    }

    /// A new description of the file, which shares no lock with any other: through `/proc`, or by
    /// the name if that is not mounted.
    pub(crate) fn reopen(&self) -> Result<OwnedFd, Error> {
        let error = match reopen(self.plain(), self.file_id()) {
            Ok(file) => return Ok(file),
            Err(error) => error,
        };
        if error.kind() == io::ErrorKind::NotFound
            && let Some(place) = &self.place
        {
            let opened = place.open_again(self.file_id())?;
            return opened.ok_or_else(|| Error::Replaced { path: self.path.clone() });
        }
        Err(refusal::io("open again", &self.path, error))
    }

    /// The file. Names of sockets and hellos contain it, so that a copy's are different.
    pub(crate) fn file_id(&self) -> FileId {
        self.plain.id()
    }

    /// The name at which the consumer of ring `ring` listens, or of the lanes of which that is the first,
    /// in the region's directory; `number` is the one in its slot.
    pub(crate) fn socket_name(&self, ring: u32, number: u64) -> String {
        socket_name(self.header(), self.file_id(), ring, number)
    }

    /// Whether the plain descriptor is still open on the region's file. Check before and after each
    /// query that finds a lock free.
    pub(crate) fn check_plain_is_ours(&self) -> bool {
        self.plain.is_ours()
    }

    /// What the kernel says of the file; an error if the plain descriptor is no longer open on it.
    pub(crate) fn stat(&self) -> Result<Stat, Errno> {
        self.plain.stat()
    }

    /// The state word.
    pub(crate) fn state(&self) -> u32 {
        // `ready`, `retire`.
        self.mapping.word_u32(STATE_OFFSET).load(Ordering::Acquire)
    }

    /// Copies the description again and compares: nothing but the state may ever change, and the
    /// state must be READY.
    pub(crate) fn revalidate(&self) -> Result<(), Error> {
        self.check_ours()?;
        let state = self.state();
        if self.mapping.is_cut() {
            return Err(self.cut_error());
        }
        let state = state_of(&self.path, state)?;
        if state != RegionState::Ready {
            return Err(refusal::unusable(&self.path, state));
        }
        if !self.check_plain_is_ours() {
            return Err(refusal::io("read again", &self.path, Errno::BADF));
        }
        let mut found = Description::read(self.plain(), &self.path)?;
        found.header.state = self.header().state;
        if found.header == *self.header() {
            return Ok(()); // and its checksum is that of the directory, too
        }
        // Valid, but another region: the file was overwritten.
        Err(Error::Replaced { path: self.path.clone() })
    }

    /// Whether new openers of the region's name come to this region.
    pub(crate) fn is_current(&self) -> Result<bool, Error> {
        self.check_ours()?;
        let ready = self.state() == RegionState::Ready as u32;
        if self.mapping.is_cut() {
            return Err(self.cut_error());
        }
        match &self.place {
            Some(place) => Ok(ready && place.names(self.file_id())?),
            None => Ok(ready),
        }
    }

    /// Notifies each process that waits for it that a slot has changed hands.
    pub(crate) fn announce_membership(&self) {
        self.membership().fetch_add(1, Ordering::Release);
        futex::wake_all(self.membership());
    }

    /// The word that changes when a slot has changed hands.
    pub(crate) fn membership(&self) -> &AtomicU32 {
        self.mapping.word_u32(MEMBERSHIP_OFFSET)
    }

    /// Whether no user but this one can have the region open.
    pub(crate) fn is_private(&self) -> bool {
        let own = rustix::process::geteuid().as_raw();
        self.stat().is_ok_and(|stat| stat.st_uid == own && stat.st_mode & 0o077 == 0)
    }

    /// An error in a forked child, which doesn't have the mapping.
    pub(crate) fn check_ours(&self) -> Result<(), Error> {
        if self.mapping.is_ours() { Ok(()) } else { Err(Error::ForkedChild) }
    }

    /// The error of a wait for the end of a replacement.
    pub(crate) fn replacing(&self) -> Error {
        refusal::not_ready(&self.path, self.state())
    }

    /// What to say once a page of the mapping was found missing: how short the file is now, or that there
    /// is no space for a page which it never had.
    #[cold]
    pub(crate) fn cut_error(&self) -> Error {
        let found_len = self.stat().map_or(0, |stat| stat.st_size as u64);
        let (path, claimed_len) = (self.path.clone(), self.header().total_len);
        if found_len < claimed_len {
            return Error::RegionTooSmall { path, found_len, claimed_len };
        }
        if is_without_holes(self.plain(), claimed_len) {
            return self.io_error("reach a page of", Errno::IO.into());
        }
        refusal::no_room(&path, claimed_len, Errno::NOSPC)
    }

    /// An error of the kernel's while doing `action` to this region.
    pub(crate) fn io_error(&self, action: &'static str, error: io::Error) -> Error {
        refusal::io(action, &self.path, error)
    }
}

/// Stores the state word and wakes all that sleep on it.
pub(crate) fn set_state(mapping: &Mapping, state: RegionState) {
    let word = mapping.word_u32(STATE_OFFSET);
    word.store(state as u32, Ordering::Release);
    futex::wake_all(word);
}

#[cfg(test)]
mod tests;
