//! What a call of `open` asks for: which name, and a region of which options and generation.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::contents::NewContents;
use super::joined::Origin;
use super::options::{CreatePolicy, OpenOptions};
use super::place::{Candidate, Place};
use super::refusal;
use crate::error::Error;
use crate::os::boot;

/// How long a lack of space is not believed: an opener says within a second that there is none.
const SPACE_PATIENCE: Duration = Duration::from_millis(800);

/// The region that is asked for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(super) place: Arc<Place>,
    pub(super) options: OpenOptions,
    started: Instant,
    /// The generation of the region that would be made.
    generation: u64,
}

impl Request {
    /// A request made now. The options have been checked.
    pub(crate) fn new(place: Place, options: OpenOptions) -> Self {
        Self { place: Arc::new(place), options, started: Instant::now(), generation: 1 }
    }

    pub(crate) fn path(&self) -> &Path {
        self.place.path()
    }

    pub(crate) fn may_create(&self) -> bool {
        self.options.policy != CreatePolicy::OpenExisting
    }

    /// What has the name now.
    pub(crate) fn find(&self) -> Result<Option<Candidate>, Error> {
        self.place.open(&self.options)
    }

    /// How long it has been under way.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// The origin of a region found for this request.
    pub(crate) fn origin(&self) -> Origin {
        Origin { place: Some(self.place.clone()), path: self.path().to_owned(), creator: false }
    }

    /// The contents of a region made for this request.
    pub(crate) fn new_contents(&self) -> Result<NewContents, Error> {
        let file_name = self.place.file_name();
        NewContents::new(&self.options, self.generation, file_name, boot::boot_id(), self.path())
    }

    /// The region made next replaces one of `generation`.
    pub(crate) fn succeed(&mut self, generation: u64) {
        self.generation = generation.wrapping_add(1).max(1);
    }

    /// Bytes of the region that would be made.
    pub(crate) fn new_len(&self) -> u64 {
        self.options.plan().total_len()
    }

    /// What to say if the file system has not so many left.
    pub(crate) fn no_space(&self) -> Error {
        refusal::no_room(self.path(), self.new_len(), Errno::NOSPC)
    }

    /// Whether to try again if there is no space: what other openers have made and not published goes away
    /// within moments.
    pub(crate) fn may_space_come(&self) -> bool {
        self.age() < SPACE_PATIENCE.min(self.options.patience())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tombolo_abi::CAPACITY_MAX;

    use super::*;
    use crate::region::options::Prefault;

    /// Options of a region for which there is no space in `directory`; `None`, with the reason printed, if there
    /// is for any.
    pub(in crate::region) fn too_much_for(directory: &str) -> Option<OpenOptions> {
        let found = rustix::fs::statvfs(directory).unwrap();
        if found.f_blocks == 0 || found.f_bfree.saturating_mul(found.f_frsize) >= CAPACITY_MAX {
            eprintln!("skipped: {directory} takes any region");
            return None;
        }
        let options = OpenOptions::new().spsc_capacity(CAPACITY_MAX).mpsc_capacity(4096);
        Some(options.prefault(Prefault::OnDemand))
    }

    fn request(options: OpenOptions) -> Request {
        Request::new(Place::of_path(Path::new("/dev/shm/name")).unwrap(), options)
    }

    #[test]
    fn a_generation_follows_the_one_before_and_is_never_zero() {
        let mut request = request(OpenOptions::new());
        for (before, after) in [(1, 2), (u64::MAX - 1, u64::MAX), (u64::MAX, 1)] {
            request.succeed(before);
            assert_eq!(request.generation, after);
        }
    }

    #[test]
    fn space_is_hoped_for_as_long_as_the_request_has_time_and_only_for_moments() {
        let mut patient = request(OpenOptions::new().join_timeout(Duration::from_secs(3600)));
        assert!(patient.may_space_come());
        patient.started = Instant::now().checked_sub(SPACE_PATIENCE).unwrap();
        assert!(!patient.may_space_come());
        assert!(!request(OpenOptions::new().join_timeout(Duration::ZERO)).may_space_come());
    }
}
