//! Opening by name: look at what the name stands for, act on it, and look again until it is a
//! region that can be joined or time is up.
//!
//! Judged in this order, from one look at the file's first bytes:
//!
//! | found                                  | done                                               |
//! |----------------------------------------|----------------------------------------------------|
//! | no such name                           | create a whole region, then give it the name; if   |
//! |                                        | there is no space for two, begin with an empty file|
//! | an empty file                          | init lock, still so: initialize in place           |
//! | bytes, but not the magic number        | an error; nobody writes to it                      |
//! | EMPTY or INITIALIZING, lock busy       | its creator is at work: wait                       |
//! | EMPTY or INITIALIZING, lock obtained   | its creator died: initialize in place              |
//! | READY                                  | check, map, join                                   |
//! | READY, in a copy of the region's file  | an error, unless it is to be replaced              |
//! | READY, of an earlier boot or to be new | nobody owns an endpoint: replace                   |
//! | RETIRED                                | its replacer may have died: take part              |
//! | POISONED                               | an error                                           |
//!
//! Whoever obtains a lock judges again under it. No lock call ever blocks.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tombolo_abi::RegionState;

use super::contents::NewContents;
use super::create::{Unnamed, create_empty, fill_in_place, has_space_for_two, remove_empty};
use super::description::{Contents, Description};
use super::init_lock::{INITIALIZING, InitLock, owned_slot};
use super::joined::{Origin, Region};
use super::options::{CreatePolicy, OpenOptions};
use super::place::{Candidate, Place};
use super::refusal;
use super::replace::{self, Outcome};
use crate::Error;
use crate::crash::crash_point;
use crate::os::file::FileId;

const PAUSE_MIN: Duration = Duration::from_micros(200);
const PAUSE_MAX: Duration = Duration::from_millis(5);
/// How long a lack of space is not believed: an opener says within a second that there is none.
const SPACE_PATIENCE: Duration = Duration::from_millis(800);

/// One call of `open` under way.
#[derive(Debug)]
pub(crate) struct Opening {
    place: Arc<Place>,
    options: OpenOptions,
    started: Instant,
    /// The state last seen, for the error of an opening that took too long.
    state_seen: u32,
    /// The generation of the region that this opening would make.
    generation: u64,
    /// The empty file that this opening has made.
    begun: Option<FileId>,
}

impl Opening {
    /// An opening that starts now. The options have been checked.
    pub(crate) fn new(place: Place, options: OpenOptions) -> Self {
        let place = Arc::new(place);
        Self { place, options, started: Instant::now(), state_seen: 0, generation: 1, begun: None }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn path(&self) -> &Path {
        self.place.path()
    }

    pub(crate) fn options(&self) -> &OpenOptions {
        &self.options
    }

    /// Where a region found by this opening comes from.
    pub(crate) fn origin(&self) -> Origin {
        let (place, path) = (Some(self.place.clone()), self.path().to_owned());
        Origin { place, path, creator: false }
    }

    /// The contents of a region that this opening makes.
    pub(crate) fn new_contents(&self) -> Result<NewContents, Error> {
        let file_name = self.place.file_name();
        NewContents::new(&self.options, self.generation, file_name, self.path())
    }

    /// The region made next replaces one of `generation`.
    pub(crate) fn succeed(&mut self, generation: u64) {
        self.generation = generation.wrapping_add(1).max(1);
    }

    /// Looks until there is a region, an error, or no time left.
    pub(crate) fn run(mut self) -> Result<Region, Error> {
        let mut pause = PAUSE_MIN;
        loop {
            if let Some(region) = self.look()? {
                return Ok(region);
            }
            let waited = self.started.elapsed();
            if waited >= self.options.patience() {
                return Err(refusal::not_ready(self.path(), self.state_seen));
            }
            thread::sleep(pause.min(self.options.patience() - waited));
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One look. `None`: somebody else is at work, or something changed under our eyes.
    fn look(&mut self) -> Result<Option<Region>, Error> {
        let Some(candidate) = self.place.open(&self.options)? else { return self.create() };
        let contents = Contents::of(candidate.file.as_fd(), self.path())?;
        self.state_seen = contents.state();
        match contents {
            Contents::Nothing
            | Contents::Region(RegionState::Empty | RegionState::Initializing) => {
                self.initialize(candidate)
            }
            Contents::Region(RegionState::Ready) => self.join_or_replace(candidate),
            Contents::Region(RegionState::Retired) if self.may_create() => self.replace(&candidate),
            Contents::Region(RegionState::Retired) => Ok(None),
            Contents::Region(RegionState::Poisoned) => {
                Err(Error::RegionPoisoned { path: self.path().to_owned() })
            }
        }
    }

    fn may_create(&self) -> bool {
        self.options.policy != CreatePolicy::OpenExisting
    }

    fn create(&mut self) -> Result<Option<Region>, Error> {
        if !self.may_create() {
            return Err(Error::NotFound { path: self.path().to_owned() });
        }
        if !has_space_for_two(self)? {
            return self.begin_in_place();
        }
        let unnamed = match Unnamed::new(self) {
            Ok(Some(unnamed)) => unnamed,
            Ok(None) => return self.begin_in_place(),
            // Others that create at the same time may have the space: in place they take turns.
            Err(Error::NoSpace { .. }) => return self.begin_in_place(),
            Err(error) if is_out_of_memory(&error) && self.place.stat()?.is_some() => {
                return Ok(None); // one of many creators at once has won: join it
            }
            Err(error) => return Err(error),
        };
        match unnamed.publish(&self.place) {
            Err(Error::Io { .. }) if !has_proc() => self.begin_in_place(),
            result => result,
        }
    }

    /// Makes an empty file with the name, and fills it if no other opener is faster.
    fn begin_in_place(&mut self) -> Result<Option<Region>, Error> {
        match create_empty(&self.place) {
            Err(Error::NoSpace { .. }) if self.may_space_come() => return Ok(None),
            made => self.begun = made?.or(self.begun),
        }
        match self.place.open(&self.options)? {
            Some(candidate) => self.initialize(candidate),
            None => Ok(None),
        }
    }

    /// Whether to try again if there is no space: regions that other openers have made and not published go
    /// away within moments.
    fn may_space_come(&self) -> bool {
        self.started.elapsed() < SPACE_PATIENCE.min(self.options.patience())
    }

    fn initialize(&self, candidate: Candidate) -> Result<Option<Region>, Error> {
        if !self.may_create() {
            return Ok(None);
        }
        let Some(_lock) = InitLock::try_new(&self.place, &candidate, INITIALIZING)? else {
            return Ok(None);
        };
        loop {
            // Judge again: the creator may have finished since the last look.
            let id = candidate.id;
            let Some(now) = self.place.open(&self.options)?.filter(|now| now.id == id) else {
                return Ok(None);
            };
            match Contents::of(now.file.as_fd(), self.path())? {
                Contents::Nothing
                | Contents::Region(RegionState::Empty | RegionState::Initializing) => {}
                Contents::Region(_) => return Ok(None),
            }
            match fill_in_place(self, now) {
                Err(Error::NoSpace { .. }) if self.may_space_come() => thread::sleep(PAUSE_MAX),
                Err(error @ Error::NoSpace { .. }) => {
                    if self.begun == Some(id) {
                        remove_empty(&self.place, id)?;
                    }
                    return Err(error);
                }
                result => return result.map(Some),
            }
        }
    }

    fn join_or_replace(&mut self, candidate: Candidate) -> Result<Option<Region>, Error> {
        let description = Description::read(candidate.file.as_fd(), self.path())?;
        let orphaned = self.is_orphaned(&description, &candidate)?;
        if self.options.policy == CreatePolicy::CreateNew || (orphaned && self.may_create()) {
            // Also if another replacer is faster and, when this one looks again, has taken the old name away
            // and not given the new one yet.
            self.succeed(description.header.generation);
            return self.replace(&candidate);
        }
        if orphaned {
            return Err(Error::NotFound { path: self.path().to_owned() });
        }
        self.join(candidate)
    }

    /// Whether the region is one of an earlier boot.
    fn is_orphaned(&self, found: &Description, candidate: &Candidate) -> Result<bool, Error> {
        if self.options.policy == CreatePolicy::CreateNew {
            return Ok(false); // replaced whatever it is
        }
        let file = candidate.file.as_fd();
        let is_owned = || owned_slot(&self.place, candidate).map(|slot| slot.is_some());
        found.is_of_earlier_boot(file, self.path(), is_owned)
    }

    fn join(&self, candidate: Candidate) -> Result<Option<Region>, Error> {
        let region = Region::map(candidate.file, candidate.id, self.origin(), &self.options)?;
        crash_point!("join.after-map");
        // Replaced while it was being mapped: start over.
        Ok((region.state() == RegionState::Ready as u32).then_some(region))
    }

    fn replace(&mut self, candidate: &Candidate) -> Result<Option<Region>, Error> {
        match replace::replace(self, candidate)? {
            Outcome::Replaced(region) => Ok(Some(*region)),
            Outcome::StartOver => Ok(None),
            Outcome::InUse { pid } if self.options.policy == CreatePolicy::CreateNew => {
                Err(Error::InUse { path: self.path().to_owned(), pid })
            }
            Outcome::InUse { .. } => Ok(None), // somebody came to life: the next look joins
        }
    }
}

fn has_proc() -> bool {
    Path::new("/proc/thread-self/fd").exists()
}

fn is_out_of_memory(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::OutOfMemory)
}
