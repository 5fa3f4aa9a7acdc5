//! How the command ends.

use std::fmt;
use std::io;
use std::process::ExitCode;

use tombolo::Error;
use tombolo::inspect::{Health, Image};

use crate::health;

/// The exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Healthy = 0,
    Damaged = 1,
    Usage = 2,
    NotARegion = 3,
    Unsupported = 4,
    Stuck = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<&Image> for Exit {
    fn from(image: &Image) -> Self {
        if health::is_stuck(image) {
            return Self::Stuck;
        }
        match image.health() {
            Health::Healthy | Health::Retired => Self::Healthy,
            Health::Unsupported => Self::Unsupported,
            Health::NotInitialized | Health::NotARegion => Self::NotARegion,
            _ => Self::Damaged,
        }
    }
}

/// Why there is nothing to show.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The file could not be read.
    Region(Error),
    /// The region has no such ring, or there is none to show.
    NoRing(String),
    /// The file holds nothing that could be shown.
    Nothing(Exit, String),
    /// The output could not be written.
    Output(io::Error),
}

impl Failure {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Region(
                Error::NotFound { .. } | Error::WrongFileType { .. } | Error::UnsafePath { .. },
            ) => Exit::NotARegion,
            Self::Nothing(exit, _) => *exit,
            Self::Region(_) | Self::NoRing(_) | Self::Output(_) => Exit::Usage,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Region(Error::NotFound { path }) => write!(
                f,
                "no region at {}; start its creator first, or set TOMBOLO_DIR as the creator has it, \
                 or give the file's path",
                path.display()
            ),
            Self::Region(error) => write!(f, "{error}"),
            Self::NoRing(text) | Self::Nothing(_, text) => f.write_str(text),
            Self::Output(error) => write!(f, "cannot write the output: {error}"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Region(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}
