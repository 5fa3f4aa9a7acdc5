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
//! | READY, of an earlier boot or to be new | no endpoint has an owner: replace                  |
//! | READY, unclear of which boot, unread   | no endpoint has an owner: an error                 |
//! | RETIRED                                | its replacer may have died: take part              |
//! | POISONED                               | an error                                           |
//!
//! Whoever obtains a lock judges again under it. No lock call ever blocks.

use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::Duration;

use tombolo_abi::RegionState;

use super::create::{create_empty, create_unnamed, fill_in_place, give_name, has_space};
use super::description::{Description, state_in};
use super::init_lock::{INITIALIZING, InitLock, owned_slot};
use super::joined::Region;
use super::options::{CreatePolicy, OpenOptions};
use super::place::{Candidate, Place, check_file_system};
use super::refusal;
use super::replace::{self, Outcome};
use super::request::Request;
use crate::crash::crash_point;
use crate::error::Error;
use crate::os::file::FileId;

const PAUSE_MIN: Duration = Duration::from_micros(200);
const PAUSE_MAX: Duration = Duration::from_millis(5);

/// One call of `open` under way.
#[derive(Debug)]
pub(crate) struct Opening {
    request: Request,
    /// The state last seen, for the error of an opening that took too long.
    state_seen: u32,
    /// An empty file that this opening made, or that appeared while it was at work.
    begun: Option<FileId>,
}

impl Opening {
    /// An opening that starts now. The options have been checked.
    pub(crate) fn new(place: Place, options: OpenOptions) -> Self {
        Self { request: Request::new(place, options), state_seen: 0, begun: None }
    }

    /// Opens or creates, and leaves nothing behind on failure.
    pub(crate) fn run(mut self) -> Result<Region, Error> {
        let opened = self.look_until_done();
        if let (Err(_), Some(id)) = (&opened, self.begun) {
            let _ = replace::remove_empty(&self.request.place, id); // an empty file is the next opener's to fill
        }
        opened
    }

    /// Looks until there is a region, an error, or no time left.
    fn look_until_done(&mut self) -> Result<Region, Error> {
        let mut pause = PAUSE_MIN;
        loop {
            if let Some(region) = self.look()? {
                return Ok(region);
            }
            let waited = self.request.age();
            if waited >= self.request.options.patience() {
                return Err(refusal::not_ready(self.request.path(), self.state_seen));
            }
            thread::sleep(pause.min(self.request.options.patience() - waited));
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One look. `None`: somebody else is at work, or something changed under our eyes.
    fn look(&mut self) -> Result<Option<Region>, Error> {
        let Some(candidate) = self.request.find()? else {
            return self.create();
        };
        let state = state_in(candidate.file.as_fd(), self.request.path())?;
        self.state_seen = state as u32;
        match state {
            RegionState::Empty | RegionState::Initializing => self.initialize(candidate),
            RegionState::Ready => self.join_or_replace(candidate),
            RegionState::Retired if self.request.may_create() => self.replace(&candidate),
            RegionState::Retired => Ok(None),
            RegionState::Poisoned => {
                Err(Error::RegionPoisoned { path: self.request.path().to_owned() })
            }
        }
    }

    fn create(&mut self) -> Result<Option<Region>, Error> {
        if !self.request.may_create() {
            return Err(Error::NotFound { path: self.request.path().to_owned() });
        }
        check_file_system(self.request.path(), self.request.place.dir(), &self.request.options)?;
        if !has_space(&self.request, 2, None)? {
            return self.begin_in_place();
        }
        let made = match create_unnamed(&self.request) {
            Ok(Some(region)) => give_name(region, &self.request.place),
            Ok(None) => return self.begin_in_place(),
            Err(error) => Err(error),
        };
        match made {
            // Others that create at the same time may have the space: in place they take turns.
            Err(Error::NoSpace { .. }) => self.begin_in_place(),
            Err(Error::Io { .. }) if !has_proc() => self.begin_in_place(),
            // One of many creators at once has won: join it.
            Err(error) if is_out_of_memory(&error) && self.request.place.stat()?.is_some() => {
                Ok(None)
            }
            made => made,
        }
    }

    /// Makes an empty file with the name, and fills it if no other opener is faster.
    fn begin_in_place(&mut self) -> Result<Option<Region>, Error> {
        match create_empty(&self.request.place) {
            Err(Error::NoSpace { .. }) if self.request.may_space_come() => return Ok(None),
            made => self.begun = made?.or(self.begun),
        }
        let Some(candidate) = self.request.find()? else {
            return Ok(None);
        };
        if candidate.stat.st_size == 0 {
            self.begun = Some(candidate.id); // there was none when this opening looked
        }
        self.initialize(candidate)
    }

    fn initialize(&self, candidate: Candidate) -> Result<Option<Region>, Error> {
        let request = &self.request;
        if !request.may_create() {
            return Ok(None);
        }
        // Not tried in vain: that would take the space away from others for moments.
        if !has_space(request, 1, Some(candidate.file.as_fd()))? {
            return if request.may_space_come() { Ok(None) } else { Err(request.no_space()) };
        }
        let Some(_lock) = InitLock::try_new(&request.place, candidate.id, INITIALIZING)? else {
            return Ok(None);
        };
        // Judge again: the creator may have finished since the last look.
        let Some(candidate) = request.find()?.filter(|now| now.id == candidate.id) else {
            return Ok(None);
        };
        let state = state_in(candidate.file.as_fd(), request.path())?;
        if !matches!(state, RegionState::Empty | RegionState::Initializing) {
            return Ok(None);
        }
        match fill_in_place(request, candidate) {
            Err(Error::NoSpace { .. }) if request.may_space_come() => Ok(None),
            filled => filled.map(Some),
        }
    }

    fn join_or_replace(&mut self, candidate: Candidate) -> Result<Option<Region>, Error> {
        let request = &mut self.request;
        let (file, path) = (candidate.file.as_fd(), request.path());
        let found = Description::read(file, path)?;
        let is_owned = || Ok(owned_slot(file, candidate.id, path)?.is_some());
        if request.options.policy == CreatePolicy::CreateNew
            || found.is_of_earlier_boot(file, path, is_owned)?
        {
            if !request.may_create() {
                return Err(Error::NotFound { path: path.to_owned() });
            }
            // Also if another replacer is faster and, when this one looks again, has taken the old name away
            // and not given the new one yet.
            request.succeed(found.header.generation);
            return self.replace(&candidate);
        }
        let region = Region::map(candidate.file, request.origin(), &request.options)?;
        crash_point!("join.after-map");
        // Replaced while it was being mapped: start over.
        Ok((region.state() == RegionState::Ready as u32).then_some(region))
    }

    fn replace(&mut self, candidate: &Candidate) -> Result<Option<Region>, Error> {
        match replace::replace(&mut self.request, candidate)? {
            Outcome::Replaced(region) => Ok(Some(*region)),
            Outcome::StartOver => Ok(None),
            Outcome::InUse { pid } if self.request.options.policy == CreatePolicy::CreateNew => {
                Err(Error::InUse { path: self.request.path().to_owned(), pid })
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
