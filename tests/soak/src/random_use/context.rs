//! What all steps of a world share: numbers to draw, messages to send, files to send along, and what
//! was done last.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::{MemfdFlags, fstat, memfd_create};
use tombolo::Handle;

use super::tally::Tally;
use crate::content::Content;
use crate::{Failure, Rng};

/// Files that are told apart by their numbers.
const FILES: usize = 5;
/// Steps that a failure tells of.
const TRACE_LEN: usize = 60;

/// What all steps share.
#[derive(Debug)]
pub(super) struct Context {
    /// The step's own numbers.
    pub(super) rng: Rng,
    pub(super) content: Content,
    next_number: u64,
    files: Vec<(File, u64)>,
    trace: VecDeque<String>,
    pub(super) tally: Tally,
}

impl Context {
    pub(super) fn new(seed: u64) -> Result<Self, Failure> {
        let file = |_| -> Result<_, Failure> {
            let file = File::from(memfd_create(c"random-use", MemfdFlags::CLOEXEC)?);
            let number = fstat(&file)?.st_ino;
            Ok((file, number))
        };
        Ok(Self {
            rng: Rng::new(seed),
            content: Content::new(seed),
            next_number: 0,
            files: (0..FILES).map(file).collect::<Result<_, _>>()?,
            trace: VecDeque::new(),
            tally: Tally::default(),
        })
    }

    /// Notes what is about to be done.
    pub(super) fn trace(&mut self, what: impl FnOnce() -> String) {
        if self.trace.len() == TRACE_LEN {
            self.trace.pop_front();
        }
        self.trace.push_back(what());
    }

    /// What was done last, the latest last.
    pub(super) fn traced(&self) -> String {
        self.trace.iter().map(|line| format!("  {line}\n")).collect()
    }

    /// The number of a new message.
    pub(super) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// The bytes of message `number`.
    pub(super) fn message(&self, number: u64, len: usize) -> Vec<u8> {
        let mut message = vec![0; len];
        self.content.write(number, 0, &mut message);
        message
    }

    /// Draws which files to send along, `count` of them.
    pub(super) fn draw_files(&mut self, count: usize) -> Vec<usize> {
        (0..count).map(|_| self.rng.below(FILES as u64) as usize).collect()
    }

    /// Handles on these files.
    pub(super) fn handles(&self, files: &[usize]) -> Result<Vec<Handle>, Failure> {
        files.iter().map(|&file| Ok(Handle::new(self.files[file].0.try_clone()?))).collect()
    }

    /// Judges handles that came: they must lead to these files.
    pub(super) fn check_handles<'a>(
        &self,
        handles: impl IntoIterator<Item = &'a Handle>,
        files: &[usize],
    ) -> Result<(), Failure> {
        let number = |handle: &Handle| Ok::<_, Failure>(fstat(handle.as_fd())?.st_ino);
        let found: Vec<_> = handles.into_iter().map(number).collect::<Result<_, _>>()?;
        let wanted: Vec<_> = files.iter().map(|&file| self.files[file].1).collect();
        if found == wanted {
            return Ok(());
        }
        Err(format!("handles of the files {found:?} came instead of {wanted:?}").into())
    }
}
