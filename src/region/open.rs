//! Opening by name: check what the name stands for, act on it, and repeat until it is a region that
//! can be joined or time is up.
//!
//! Each check reads the file's first bytes once and decides in this order:
//!
//! | found                                  | done                                               |
//! |----------------------------------------|----------------------------------------------------|
//! | no such name                           | complete a region, then give it the name; if       |
//! |                                        | there is no space for two, begin with an empty file|
//! | an empty file                          | init lock, still so: initialize in place           |
//! | bytes, but not the magic number        | an error; nothing is written                       |
//! | EMPTY or INITIALIZING, lock busy       | its creator is at work: wait                       |
//! | EMPTY or INITIALIZING, lock obtained   | its creator died: initialize in place              |
//! | READY                                  | check, map, join                                   |
//! | READY, in a copy of the region's file  | an error, unless it is to be replaced              |
//! | READY, of an earlier boot or to be new | no endpoint has an owner: replace                  |
//! | READY, a channel that is over          | replace, if a channel is to be opened              |
//! | READY, unclear of which boot, unread   | no endpoint has an owner: an error                 |
//! | RETIRED                                | its replacer may have died: take part              |
//! | POISONED                               | an error                                           |
//!
//! An opener that obtains a lock checks again under it. No lock call ever blocks.

use std::io::ErrorKind::OutOfMemory;
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
use crate::crash::{crash_point, test_point};
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
        let opened = self.poll_until_done();
        if let (Err(_), Some(id)) = (&opened, self.begun) {
            let _ = replace::remove_empty(&self.request.place, id); // an empty file is the next opener's to fill
        }
        opened
    }

    /// Polls until there is a region, an error, or no time left.
    fn poll_until_done(&mut self) -> Result<Region, Error> {
        let mut pause = PAUSE_MIN;
        loop {
            if let Some(region) = self.poll()? {
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

    /// One step. `None`: another process is at work, or something changed meanwhile.
    fn poll(&mut self) -> Result<Option<Region>, Error> {
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
            Err(Error::Io { .. }) if !Path::new("/proc/thread-self/fd").exists() => {
                self.begin_in_place()
            }
            // One of many creators at once has won: join it.
            Err(Error::Io { source, .. })
                if source.kind() == OutOfMemory && self.request.place.stat()?.is_some() =>
            {
                Ok(None)
            }
            made => made,
        }
    }

    /// Makes an empty file with the name, and fills it if no other opener is faster.
    fn begin_in_place(&mut self) -> Result<Option<Region>, Error> {
        test_point!("in-place.before-file");
        match create_empty(&self.request.place) {
            Err(Error::NoSpace { .. }) if self.request.may_space_come() => return Ok(None),
            made => self.begun = made?.or(self.begun),
        }
        let Some(candidate) = self.request.find()? else {
            return Ok(None);
        };
        if candidate.stat.st_size == 0 {
            self.begun = Some(candidate.id); // there was none at the first poll
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
        test_point!("in-place.locked");
        // Check again: the creator may have finished since the last poll.
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
        let is_over =
            request.options.is_channel && replace::is_over(file, candidate.id, &found, path)?;
        if request.options.policy == CreatePolicy::CreateNew
            || is_over
            || found.is_of_earlier_boot(file, path, is_owned)?
        {
            if !request.may_create() {
                return Err(Error::NotFound { path: path.to_owned() });
            }
            // Also if another replacer is faster and, at this one's next poll, has taken the old name away
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
            Outcome::InUse { .. } => Ok(None), // an end was attached: the next poll joins
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::sync::atomic::Ordering::Relaxed;

    use rustix::fs::OFlags;
    use rustix::io::Errno;
    use rustix::process::{Resource, Rlimit, setrlimit};
    use tempfile::TempDir;
    use tombolo_abi::{LOCK_INIT, LOCK_SLOTS, LayoutError};

    use super::*;
    use crate::crash::visits;
    use crate::options::Prefault;
    use crate::os::ofd;
    use crate::os::staged::{self, Call};
    use crate::region::description::STATE_OFFSET;
    use crate::region::request::tests::too_much_for;
    use crate::{EventsRegion, OpenOptions};

    /// A directory in memory, and a name in it.
    fn named() -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("name");
        (dir, path)
    }

    fn empty_file(path: &Path) -> File {
        let file = File::create(path).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
        file
    }

    fn lock(file: &File, byte: u64) {
        assert!(ofd::try_lock(file.as_fd(), byte..byte + 1, ofd::Mode::Exclusive).unwrap());
    }

    fn soon() -> OpenOptions {
        OpenOptions::new().join_timeout(Duration::from_millis(20))
    }

    /// A small region at `path`, and what says that it is retired.
    fn made(path: &Path) -> (EventsRegion, impl FnOnce() + use<>) {
        let options = OpenOptions::new().spsc_capacity(4096).mpsc_capacity(4096);
        let region = EventsRegion::open_path_with(path, options).unwrap();
        let shared = region.shared().clone();
        let retire = move || {
            let state = shared.mapping().word_u32(STATE_OFFSET);
            state.store(RegionState::Retired as u32, Relaxed);
        };
        (region, retire)
    }

    fn is_not_ready(opened: &Result<EventsRegion, Error>) -> bool {
        let Err(Error::Layout { reason, .. }) = opened else { return false };
        matches!(reason, LayoutError::NotReady { .. })
    }

    #[test]
    fn a_region_that_is_replaced_while_it_is_joined_is_not_joined() {
        let (_dir, path) = named();
        let (_region, retire) = made(&path);
        let visit = visits::at("join.after-map", retire);
        let existing = soon().policy(CreatePolicy::OpenExisting);
        let opened = EventsRegion::open_path_with(&path, existing);
        assert!(is_not_ready(&opened), "{opened:?}");
        drop(visit);
    }

    #[test]
    fn who_may_not_create_is_told_that_there_is_nothing() {
        let (_dir, path) = named();
        let existing = soon().policy(CreatePolicy::OpenExisting);
        let opened = EventsRegion::open_path_with(&path, existing);
        assert!(matches!(opened, Err(Error::NotFound { .. })), "{opened:?}");
        assert!(!path.exists());
    }

    #[test]
    fn who_may_not_create_replaces_no_region_and_who_may_none_that_has_an_owner() {
        let (_dir, path) = named();
        let (_region, retire) = made(&path);
        retire();
        let existing = soon().policy(CreatePolicy::OpenExisting);
        let opened = EventsRegion::open_path_with(&path, existing);
        assert!(is_not_ready(&opened), "{opened:?}");
        let owner = File::options().write(true).open(&path).unwrap();
        lock(&owner, LOCK_SLOTS);
        let opened = EventsRegion::open_path_with(&path, soon());
        assert!(is_not_ready(&opened), "{opened:?}");
        drop(owner);
        assert!(EventsRegion::open_path_with(&path, soon()).unwrap().is_creator());
    }

    #[test]
    fn another_file_that_has_the_name_by_now_is_its_creators() {
        let (dir, path) = named();
        drop(empty_file(&path));
        let (other, name) = (dir.path().join("other"), path.clone());
        let creator = empty_file(&other);
        lock(&creator, LOCK_INIT);
        let visit = visits::at("in-place.locked", move || fs::rename(other, name).unwrap());
        let opened = EventsRegion::open_path_with(&path, soon());
        assert!(is_not_ready(&opened), "{opened:?}");
        drop(visit);
        assert_eq!(fs::metadata(&path).unwrap().len(), 0, "it was filled");
    }

    #[test]
    fn an_empty_file_that_another_opener_made_meanwhile_goes_if_it_cannot_be_filled() {
        let (_dir, path) = named();
        let opened = staged::refusing(Call::any(libc::SYS_fallocate), Errno::NOSPC, || {
            let name = path.clone();
            let visit = visits::at("in-place.before-file", move || drop(empty_file(&name)));
            let options = OpenOptions::new().join_timeout(Duration::ZERO);
            let opened = EventsRegion::open_path_with(&path, options).map(drop);
            drop(visit);
            opened
        });
        let Some(opened) = opened else { return eprintln!("skipped: no filters") };
        assert!(matches!(opened, Err(Error::NoSpace { .. })), "{opened:?}");
        assert!(!path.exists());
    }

    #[test]
    fn who_cannot_give_its_region_a_name_says_so_also_if_another_region_has_it() {
        let (dir, path) = named();
        let other = dir.path().join("other");
        drop(made(&other));
        let opened = staged::refusing(Call::any(libc::SYS_linkat), Errno::PERM, || {
            let name = path.clone();
            let visit =
                visits::at("create.before-linkat", move || fs::rename(other, name).unwrap());
            let opened = EventsRegion::open_path(&path).map(drop);
            drop(visit);
            opened
        });
        let Some(opened) = opened else { return eprintln!("skipped: no filters") };
        assert!(matches!(opened, Err(Error::Io { .. })), "{opened:?}");
    }

    #[test]
    fn who_has_no_memory_for_its_own_region_joins_that_of_another_who_has_won() {
        let (dir, path) = named();
        let other = dir.path().join("other");
        drop(made(&other));
        assert!(staged::in_child(|| {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
            let kib: u64 = size.split_whitespace().next().unwrap().parse().unwrap();
            let limit = Some((kib << 10) + (1 << 20));
            setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).unwrap();
            let name = path.clone();
            let visit =
                visits::at("create.after-reserve", move || fs::rename(other, name).unwrap());
            // Of more than 2 MiB.
            let options = OpenOptions::new().prefault(Prefault::OnDemand);
            let opened = EventsRegion::open_path_with(&path, options);
            drop(visit);
            opened.is_ok_and(|region| !region.is_creator())
        }));
    }

    #[test]
    fn who_waits_for_a_creator_sleeps() {
        let (_dir, path) = named();
        let begun = empty_file(&path);
        lock(&begun, LOCK_INIT);
        let sleeps = || -> Option<u32> {
            let status = fs::read_to_string("/proc/self/status").ok()?;
            let count =
                status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            count?.trim().parse().ok()
        };
        assert!(staged::in_child(|| {
            let before = sleeps();
            let options = OpenOptions::new().join_timeout(Duration::from_secs(1));
            let opened = EventsRegion::open_path_with(&path, options);
            is_not_ready(&opened) && before.is_none_or(|before| sleeps().unwrap() > before + 10)
        }));
    }

    #[test]
    fn a_named_region_says_how_many_handles_its_messages_may_carry() {
        let (dir, _) = named();
        for count in [0, 3] {
            let options = OpenOptions::new().max_handles(count);
            let region = EventsRegion::open_path_with(dir.path().join(count.to_string()), options);
            assert_eq!(region.unwrap().max_handles(), count);
        }
    }

    #[test]
    fn who_finds_that_the_name_went_with_another_replacer_makes_the_next_generation() {
        let (_dir, path) = named();
        drop(made(&path));
        let name = path.clone();
        let visit = visits::at("init-lock.before-lock", move || fs::remove_file(name).unwrap());
        let options = OpenOptions::new().policy(CreatePolicy::CreateNew);
        let region = EventsRegion::open_path_with(&path, options).unwrap();
        drop(visit);
        assert_eq!(region.shared().header().generation, 2);
    }

    #[test]
    fn a_file_that_became_a_region_before_it_was_locked_is_not_filled_again() {
        let (dir, path) = named();
        let other = dir.path().join("other");
        drop(made(&other));
        drop(empty_file(&path));
        let name = path.clone();
        // In the same file, as its creator does it.
        let visit = visits::at("in-place.locked", move || {
            fs::copy(other, name).unwrap();
        });
        let opened = EventsRegion::open_path_with(&path, soon());
        drop(visit);
        assert!(!opened.is_ok_and(|region| region.is_creator()), "it was made anew");
    }

    /// One step of an opening with so much patience, in which this call fails.
    fn polled(
        path: &Path,
        options: &OpenOptions,
        patience: Duration,
        (call, errno): (Call, Errno),
    ) -> Option<Result<Option<Region>, Error>> {
        let options = options.clone().join_timeout(patience);
        let place = Place::of_path(path).unwrap();
        let polled = staged::refusing(call, errno, || Opening::new(place, options).poll());
        if polled.is_none() {
            eprintln!("skipped: no filters");
        }
        polled
    }

    const HOUR: Duration = Duration::from_secs(3600);

    fn with_flags(flags: OFlags) -> Call {
        Call::with_flags(libc::SYS_openat, 2, flags.bits())
    }

    /// What is tried, and does not fit, is missing to others for moments.
    #[test]
    fn who_has_no_space_makes_no_file_without_a_name_and_fills_none() {
        let Some(huge) = too_much_for("/dev/shm") else { return };
        for call in [with_flags(OFlags::TMPFILE), Call::any(libc::SYS_fallocate)] {
            let (_dir, path) = named();
            let Some(polled) = polled(&path, &huge, Duration::ZERO, (call, Errno::IO)) else {
                return;
            };
            assert!(matches!(polled, Err(Error::NoSpace { .. })), "{polled:?}");
        }
    }

    #[test]
    fn who_has_no_space_hopes_for_moments_that_it_comes() {
        let fits = OpenOptions::new().spsc_capacity(4096).mpsc_capacity(4096);
        let reserving = Call::any(libc::SYS_fallocate);
        let mut cases = vec![(fits.clone(), true, reserving), (fits, false, reserving)];
        if let Some(huge) = too_much_for("/dev/shm") {
            // What doesn't fit, in a file that has been begun, and if there is not even space for that.
            cases.push((huge.clone(), true, reserving));
            cases.push((huge, false, with_flags(OFlags::CREATE)));
        }
        for (options, is_begun, call) in cases {
            let (_dir, path) = named();
            if is_begun {
                drop(empty_file(&path));
            }
            let refused = (call, Errno::NOSPC);
            let Some(hurried) = polled(&path, &options, Duration::ZERO, refused) else { return };
            assert!(matches!(hurried, Err(Error::NoSpace { .. })), "{hurried:?}");
            let patient = polled(&path, &options, HOUR, refused).unwrap();
            assert!(matches!(patient, Ok(None)), "{patient:?}");
        }
    }
}
