//! Joining a region.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tombolo::options::CreatePolicy;
use tombolo::{EventsRegion, OpenOptions};

use crate::system::{Failure, Meeting, SoloSystem};

/// Opens a region that is there.
#[derive(Debug)]
pub struct Join {
    path: PathBuf,
}

impl SoloSystem for Join {
    const NAME: &'static str = "tombolo";

    fn prepare(meeting: &Meeting) -> Result<(), Failure> {
        join_region(meeting).map(drop)
    }

    fn start(meeting: &Meeting) -> Result<Self, Failure> {
        Ok(Self { path: path(meeting) })
    }

    fn once(&mut self) -> Result<Duration, Failure> {
        let options = OpenOptions::new().policy(CreatePolicy::OpenExisting);
        let start = Instant::now();
        let region = EventsRegion::open_path_with(&self.path, options)?;
        let took = start.elapsed();
        drop(region);
        Ok(took)
    }
}

fn path(meeting: &Meeting) -> PathBuf {
    meeting.directory.join("join.tombolo")
}

/// Makes a region of two rings of 1 MiB and gives its path.
pub(crate) fn join_region(meeting: &Meeting) -> Result<PathBuf, Failure> {
    EventsRegion::open_path(path(meeting))?;
    Ok(path(meeting))
}
