//! The systems that a program measures.

use crate::system::{ProcessSystem, ThreadSystem};

/// The systems that a program measures, in the order of its tables.
#[derive(Debug, Default)]
pub struct Registry {}

impl Registry {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a system between processes.
    pub fn processes<S: ProcessSystem>(self) -> Self {
        self
    }

    /// Adds a system between threads.
    pub fn threads<S: ThreadSystem>(self) -> Self {
        self
    }
}
