//! A whole region, read once.

use std::path::Path;

use tombolo_abi::{LOCK_INIT, LayoutError, RegionState, SharedLayout};

use super::channel::ChannelView;
use super::endpoint::{EndpointView, Liveness, SlotTable};
use super::file::{Boot, RegionFile};
use super::group;
use super::header::{HeaderImage, Verdict};
use super::problem::{Place, Problem, header_offset};
use super::process::Process;
use super::records::Records;
use super::ring::RingView;
use super::stuck::{Scene, Stuck};
use super::walk::RingPlace;
use crate::error::Error;

/// Records that are counted over all rings: about a second's worth.
const COUNTED_MAX: u64 = 1 << 20;

/// What a file is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// A region without problems. [`Image::stuck`] says whether messages get through.
    Healthy,
    /// A region without problems that a newer one has replaced.
    Retired,
    /// Something is wrong: see [`Image::problems`].
    Damaged,
    /// Marked as damaged beyond use.
    Poisoned,
    /// An empty file, or a region whose creation is not finished.
    NotInitialized,
    /// A region of another version, byte order, or with unknown capabilities.
    Unsupported,
    /// Something else.
    NotARegion,
}

/// What one reading of a file found.
#[derive(Debug)]
pub struct Image {
    file: RegionFile,
    health: Health,
    reason: Option<LayoutError>,
    page: Option<SharedLayout>,
    rings: Vec<RingView>,
    endpoints: Vec<EndpointView>,
    channel: Option<ChannelView>,
    problems: Vec<Problem>,
    stuck: Vec<Stuck>,
    /// Whether the words of an endpoint changed during the reading.
    endpoints_moved: bool,
}

impl Image {
    /// Reads `path` once. Takes no lock, writes nothing, waits for no process.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongFileType`] or [`Error::UnsafePath`] if there is no regular file at
    /// `path`, [`Error::Io`] if it cannot be opened. Any regular file that can be opened makes an image.
    ///
    /// # Cost
    /// A few reads for each ring, slot and record, of at most about a million records.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut file = RegionFile::open(path)?;
        let HeaderImage { verdict, page, entries, is_copy } = HeaderImage::read(&file);
        file.is_copy = is_copy;
        let mut image = Self {
            file,
            health: Health::Healthy,
            reason: None,
            page,
            rings: Vec::new(),
            endpoints: Vec::new(),
            channel: None,
            problems: Vec::new(),
            stuck: Vec::new(),
            endpoints_moved: false,
        };
        match verdict {
            Verdict::NotARegion(error) => return Ok(image.without_rings(Health::NotARegion, error)),
            Verdict::Unsupported(error) => {
                return Ok(image.without_rings(Health::Unsupported, error));
            }
            Verdict::NotInitialized => {
                let state = image.state_word();
                let error = LayoutError::NotReady { state };
                return Ok(image.without_rings(Health::NotInitialized, error));
            }
            Verdict::Damaged(problems) => image.problems = problems,
            Verdict::Region => {}
        }
        image.read_rings(entries);
        image.read_endpoints();
        image.read_again();
        image.find_stuck();
        image.conclude();
        Ok(image)
    }

    fn without_rings(self, health: Health, error: LayoutError) -> Self {
        Self { health, reason: Some(error), ..self }
    }

    fn read_rings(&mut self, entries: Vec<(u32, tombolo_abi::RingEntry)>) {
        let Some(page) = &self.page else { return };
        let mut budget = COUNTED_MAX;
        for entry in entries {
            let mut view = RingView::read(&self.file, &page.header, entry, &mut budget);
            self.problems.append(&mut view.problems);
            self.rings.push(view);
        }
        group::set_listed(&mut self.rings);
        let header = &page.header;
        let place = |view: &RingView| RingPlace::new(header, view.ring, &view.entry);
        self.problems.extend(group::check(&mut self.rings, place));
    }

    fn read_endpoints(&mut self) {
        let Some(page) = &self.page else { return };
        let slots = SlotTable::new(&page.header);
        self.endpoints = slots.endpoints(&self.file);
        let problems = self.endpoints.iter().filter_map(|endpoint| slots.problem(endpoint));
        self.problems.extend(problems);
        self.channel = ChannelView::find(&page.header, &self.rings, &self.endpoints);
    }

    /// Reads all that changes once more. If two readings found the same, all of it was so at one moment,
    /// between the end of the first and the start of the second.
    fn read_again(&mut self) {
        let Some(page) = &self.page else { return };
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst); // between the two readings' loads
        self.rings.iter_mut().for_each(|ring| ring.read_again(&self.file));
        let slots = SlotTable::new(&page.header);
        self.endpoints_moved = slots.have_moved(&self.file, &self.endpoints);
        let messages = |endpoint: &EndpointView| (endpoint.fields.msgs, endpoint.fields.bytes);
        for ring in &mut self.rings {
            let number = ring.ring;
            let of_ring = self.endpoints.iter().filter(|one| one.fields.ring == number);
            ring.compare_with_senders(of_ring.map(messages));
        }
    }

    fn find_stuck(&mut self) {
        let Some(page) = &self.page else { return };
        // A damaged region's rings may share slots, so that this would take long. In one of an earlier boot
        // all owners are dead, and the next process to open it makes it anew.
        if !self.problems.is_empty() || self.boot() == Boot::Earlier {
            return;
        }
        // Nothing gets through a channel that is over, and nothing is to be started in the place of its dead.
        if self.channel.as_ref().is_some_and(ChannelView::is_over) {
            return;
        }
        let (file, header) = (&self.file, &page.header);
        let (rings, endpoints) = (&self.rings[..], &self.endpoints[..]);
        self.stuck = Scene { file, header, rings, endpoints }.stuck();
    }

    fn conclude(&mut self) {
        if let Some(failure) = self.file.failure() {
            let problem = Problem::new("unreadable", Place::File, "read", failure, "the bytes");
            self.problems.push(problem);
        }
        self.health = match RegionState::from_word(self.state_word()) {
            Some(RegionState::Poisoned) => Health::Poisoned,
            _ if !self.problems.is_empty() => Health::Damaged,
            Some(RegionState::Retired) => Health::Retired,
            _ => Health::Healthy,
        };
        if self.health == Health::Poisoned {
            let wanted = "READY; close all users and remove the file";
            let problem = Problem::new("poisoned", Place::Header, "state", "POISONED", wanted);
            self.problems.insert(0, problem.at(header_offset("state")));
        }
    }

    fn state_word(&self) -> u32 {
        self.page.as_ref().map_or(0, |page| page.header.state)
    }

    /// What the file is.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
    }

    /// All that is wrong, the header's first. Empty exactly if nothing is.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The endpoints that keep messages from getting through, in the order of their rings. Empty if there are
    /// none, if it is unknown which owners are alive, and if the region is damaged.
    #[must_use]
    pub fn stuck(&self) -> &[Stuck] {
        &self.stuck
    }

    /// Why the file is no region, or none that this build can use.
    #[must_use]
    pub fn reason(&self) -> Option<&LayoutError> {
        self.reason.as_ref()
    }

    /// The path that was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Bytes of the file.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.file.len
    }

    /// The file's inode.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.file.inode
    }

    /// The header page, zero-filled beyond the end of the file; `None` without the magic.
    #[must_use]
    pub fn page(&self) -> Option<&SharedLayout> {
        self.page.as_ref()
    }

    /// The rings that could be decoded.
    #[must_use]
    pub fn rings(&self) -> &[RingView] {
        &self.rings
    }

    /// The endpoints that a process owns or has owned.
    #[must_use]
    pub fn endpoints(&self) -> &[EndpointView] {
        &self.endpoints
    }

    /// The ends of the channel that the region is; `None` if it is none.
    #[must_use]
    pub fn channel(&self) -> Option<&ChannelView> {
        self.channel.as_ref()
    }

    /// Whether all that is shown is of one moment: nothing moved during the reading, no slot was being
    /// written, and no ring was in the middle of a send.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        !self.has_moved() && self.rings.iter().all(RingView::is_consistent)
    }

    /// Whether something moved during the reading, or a slot was being written.
    #[must_use]
    pub fn has_moved(&self) -> bool {
        self.endpoints_moved
            || self.rings.iter().any(|ring| ring.has_moved)
            || self.endpoints.iter().any(|endpoint| endpoint.torn)
    }

    /// Whether this boot of the machine made the region. An endpoint that is alive proves it.
    #[must_use]
    pub fn boot(&self) -> Boot {
        let Some(page) = &self.page else { return Boot::This };
        if self.endpoint_count(Liveness::Alive) > 0 {
            return Boot::This;
        }
        self.file.boot(page.header.boot_id, page.header.created_unix_ns)
    }

    /// Whether the file is a copy of the region's own. Then it is unknown which owners are alive, because the
    /// locks that show it are on the region's own file.
    #[must_use]
    pub fn is_copy(&self) -> bool {
        self.file.is_copy
    }

    /// The process that made the region.
    #[must_use]
    pub fn creator(&self) -> Process {
        let Some(page) = &self.page else { return Process::Unknown };
        let header = &page.header;
        Process::find(header.creator_pid, header.creator_start_ticks, header.pid_namespace)
    }

    /// Whether a process is creating, replacing or joining the region right now.
    #[must_use]
    pub fn is_being_changed(&self) -> bool {
        self.file.is_locked(LOCK_INIT) == Some(true)
    }

    /// Number of endpoints with this liveness.
    #[must_use]
    pub fn endpoint_count(&self, liveness: Liveness) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.liveness == liveness).count()
    }

    /// The records of a ring from head on: at most `limit` of them, each with at most
    /// `payload_len_max` bytes of its payload. `None` if there is no such ring, or its entry is too damaged.
    #[must_use]
    pub fn records(&self, ring: u32, limit: u64, payload_len_max: u32) -> Option<Records<'_>> {
        let header = &self.page.as_ref()?.header;
        let view = self.rings.iter().find(|view| view.ring == ring)?;
        let place = RingPlace::new(header, ring, &view.entry)?;
        Some(Records::new(&self.file, place, limit, payload_len_max))
    }
}
