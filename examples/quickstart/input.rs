//! What is sent: a file, line by line.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::Failure;

/// The longest input, in bytes, so that one pass over it takes seconds and not minutes.
const LEN_MAX: u64 = 1 << 30;

/// Bytes to send, and where they are from.
#[derive(Debug)]
pub(crate) struct Input {
    /// In words.
    pub(crate) source: String,
    bytes: Vec<u8>,
}

impl Input {
    /// The file at `path`, whatever is in it.
    pub(crate) fn from_file(path: &Path) -> Result<Self, Failure> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(LEN_MAX + 1).read_to_end(&mut bytes))
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        if bytes.len() as u64 > LEN_MAX {
            return Err(format!("{} has more than {LEN_MAX} bytes", path.display()).into());
        }
        Ok(Self { source: path.display().to_string(), bytes })
    }

    /// The Rust sources of this repository, one after the other.
    pub(crate) fn own_sources() -> Result<Self, Failure> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        for directory in ["src", "abi/src", "tools/src", "examples"] {
            let directory = root.join(directory);
            if directory.is_dir() {
                find_sources(&directory, &mut files)
                    .map_err(|error| format!("cannot list {}: {error}", directory.display()))?;
            }
        }
        files.sort();
        let mut bytes = Vec::new();
        for file in &files {
            bytes.append(&mut Self::from_file(file)?.bytes);
        }
        let source = format!("{} source files of this repository", files.len());
        Ok(Self { source, bytes })
    }

    /// The lines, without the line feeds between them. Joined by line feeds they are the input
    /// again, to the byte: what ends in a line feed has an empty last line.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.bytes.split(|byte| *byte == b'\n')
    }

    /// Bytes of the input.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// How many lines there are, at least one.
    pub(crate) fn line_count(&self) -> u64 {
        self.lines().count() as u64
    }

    /// Bytes of the longest line.
    pub(crate) fn longest_line(&self) -> usize {
        self.lines().map(<[u8]>::len).max().unwrap_or(0)
    }
}

fn find_sources(directory: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            find_sources(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}
