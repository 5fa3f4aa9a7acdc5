//! What a run exercised.

use std::fmt;

use crate::Failure;

/// What a run did, as lines of a name and a value.
#[derive(Clone, Debug, Default)]
pub struct Report {
    lines: Vec<(String, String)>,
    missing: Vec<String>,
}

impl Report {
    /// A report without lines.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a count of something that must have happened: with 0 the run fails, for it has not
    /// tested what it promises.
    pub fn count(&mut self, name: &str, count: u64) {
        if count == 0 {
            self.missing.push(name.to_owned());
        }
        self.note(name, count);
    }

    /// Adds a value that may be anything.
    pub fn note(&mut self, name: &str, value: impl fmt::Display) {
        self.lines.push((name.to_owned(), value.to_string()));
    }

    /// The report, if everything in it that is counted happened.
    ///
    /// # Errors
    /// The names of what never happened, and the whole report.
    pub fn check(self) -> Result<Self, Failure> {
        if self.missing.is_empty() {
            return Ok(self);
        }
        Err(format!("never happened: {}\n{self}", self.missing.join(", ")).into())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|(name, value)| writeln!(out, "  {name}: {value}"))
    }
}
