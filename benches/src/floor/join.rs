//! Opening and mapping a file.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use memmap2::MmapOptions;

use crate::ours::join_region;
use crate::system::{Failure, Meeting, SoloSystem};

/// Opens and maps a file as long as that of a region, with all its pages.
#[derive(Debug)]
pub struct OpenMmap {
    path: PathBuf,
    len: usize,
}

impl SoloSystem for OpenMmap {
    const NAME: &'static str = "open-mmap";

    /// The file's pages are there, as those of the region are.
    fn prepare(meeting: &Meeting) -> Result<(), Failure> {
        let path = join_region(meeting)?;
        let len = File::open(&path)?.metadata()?.len();
        std::fs::write(meeting.directory.join("file"), vec![1; len as usize])?;
        std::fs::remove_file(path)?;
        Ok(())
    }

    fn start(meeting: &Meeting) -> Result<Self, Failure> {
        let path = meeting.directory.join("file");
        let len = File::open(&path)?.metadata()?.len() as usize;
        Ok(Self { path, len })
    }

    fn once(&mut self) -> Result<Duration, Failure> {
        let start = Instant::now();
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        let mapping = MmapOptions::new().len(self.len).populate().map_raw(&file)?;
        let took = start.elapsed();
        drop(mapping);
        Ok(took)
    }
}
