//! What a run is.

use std::path::PathBuf;
use std::time::Instant;

use crate::Report;

/// Why a run failed, in words.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How much of a run to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As much as was promised.
    Full,
    /// A tenth of it.
    Tenth,
    /// A hundredth of it, for the tests.
    Hundredth,
}

/// What a run is given.
#[derive(Clone, Debug)]
pub struct Setting {
    /// How much to do.
    pub size: Size,
    /// What the run draws its numbers from.
    pub seed: u64,
    /// The program `tombolo-soak`, which the run starts as its children.
    pub program: PathBuf,
    /// Whether to fail if something takes longer than on a machine that has nothing else to do.
    pub holds_times: bool,
}

impl Setting {
    /// A hundredth of a run, for tests: `program` is `env!("CARGO_BIN_EXE_tombolo-soak")`.
    #[must_use]
    pub fn hundredth(program: &str) -> Self {
        Self { size: Size::Hundredth, seed: 1, program: program.into(), holds_times: false }
    }

    /// `full`, or that part of it but at least `least`.
    #[must_use]
    pub fn count(&self, full: u64, least: u64) -> u64 {
        match self.size {
            Size::Full => full,
            Size::Tenth => least.max(full / 10),
            Size::Hundredth => least.max(full / 100),
        }
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// How it is called on the command line.
    pub name: &'static str,
    /// What it does and promises, in a line.
    pub about: &'static str,
    /// Does it.
    pub body: fn(&Setting) -> Result<Report, Failure>,
    /// What its children do.
    pub roles: &'static [Role],
}

impl Run {
    /// Does the run, times it, and fails where something that it should have met never came.
    ///
    /// # Errors
    /// What the run found, with the seed to find it again.
    pub fn start(&self, setting: &Setting) -> Result<Report, Failure> {
        let started = Instant::now();
        let outcome = (self.body)(setting).and_then(|mut report| {
            report.note("seconds", format!("{:.1}", started.elapsed().as_secs_f64()));
            report.note("seed", setting.seed);
            report.check()
        });
        outcome.map_err(|error| format!("{}, seed {}: {error}", self.name, setting.seed).into())
    }
}

/// What a child process of a run does.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// How the child is told: `tombolo-soak child ROLE ARGUMENT...`.
    pub name: &'static str,
    /// Does it, with the arguments.
    pub body: fn(&[String]) -> Result<(), Failure>,
}

/// The argument at `index` of a child, parsed.
///
/// # Errors
/// Where it is missing or no `T`.
pub fn required<T: std::str::FromStr>(arguments: &[String], index: usize) -> Result<T, Failure> {
    let argument = arguments.get(index).and_then(|argument| argument.parse().ok());
    argument.ok_or_else(|| format!("argument {index} is missing or wrong: {arguments:?}").into())
}
