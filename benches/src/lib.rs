//! A harness that measures ways to pass messages between processes, and between threads.
//!
//! A program lists its systems in a [`Registry`] and gives them to [`main`]. The same program is
//! also its own children: each side of a measurement is a process that was started from the
//! program's file.

mod actor;
mod cell;
mod child;
mod crew;
pub mod floor;
pub mod kernel;
mod look;
mod measure;
pub mod ours;
mod place;
mod registry;
mod report;
mod stats;
pub mod system;
mod test;
mod workload;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use clap::Parser;

use actor::Role;
use cell::{Only, plan};
use measure::{Effort, measure};
use ours::memory::{self, Memory};
use place::Cpus;
use report::row::{self, Row};
use report::{chart, markdown, say, table, target};
use system::Failure;

pub use ours::memory::Counting;
pub use registry::Registry;
pub use test::Test;

/// Measures what messages cost, in turns with the least that the machine asks for.
///
/// Relative paths start where cargo was called.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo bench --")]
struct Cli {
    /// 31 short turns of each instead of 101 longer ones: under a minute instead of under ten
    #[arg(long)]
    quick: bool,
    /// Measure this only, and what it is compared with; may be repeated
    #[arg(long, value_name = "TEST[,SYSTEM]")]
    only: Vec<String>,
    /// Write a line of JSON for each row
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Take the rows of such a file into tables, chart and targets; may be repeated
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,
    /// Write tables for a document
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Draw one-way rates and round trips by size
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

/// A child process.
#[derive(Debug, Parser)]
struct Child {
    #[command(flatten)]
    role: Role,
}

/// Measures the systems as the command line says, or is one side of a measurement.
pub fn main(registry: &Registry) -> ExitCode {
    let mut arguments = std::env::args_os();
    let result = match std::env::args_os().nth(1).as_ref().and_then(|first| first.to_str()) {
        Some("child") => {
            arguments.next();
            return child::run(registry, &Child::parse_from(arguments).role);
        }
        Some("memory") => memory::look().map(|memory| say(format_args!("{memory}"))),
        _ => run(registry, &Cli::parse()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(registry: &Registry, cli: &Cli) -> Result<(), Failure> {
    let start = Instant::now();
    let files =
        cli.with.iter().map(|path| row::read(&from_call(path))).collect::<Result<Vec<_>, _>>()?;
    let effort = if cli.quick { Effort::QUICK } else { Effort::FULL };
    let cpus = Cpus::choose()?;
    let only = Only::new(&cli.only)?;
    if let Some(name) = only.systems().find(|name| !registry.has(name)) {
        return Err(format!("no system '{name}'").into());
    }
    let turns = plan(registry, &only, cpus);
    table::print_head(effort, cpus);
    // The side that leads is blocked whenever there is something to do here.
    place::pin(cpus.lead)?;
    let outcomes = measure(&turns, effort)?;
    table::print(&outcomes);
    let rows: Vec<Row> = outcomes.iter().filter_map(Row::new).collect();
    let memory =
        (registry.looks_at_memory && cli.only.is_empty()).then(look_at_memory).transpose()?;
    if cpus.is_one() {
        say(format_args!("\nThe targets are for two CPUs."));
    } else {
        target::print(&outcomes, &rows, &files, memory);
    }
    if let Some(path) = &cli.json {
        row::write(&from_call(path), &rows)?;
    }
    if let Some(path) = &cli.markdown {
        markdown::write(&from_call(path), &rows, &files)?;
    }
    if let Some(path) = &cli.svg {
        chart::draw(&from_call(path), &rows, &files)?;
    }
    say(format_args!("\ntook {} s", start.elapsed().as_secs()));
    Ok(())
}

/// Cargo starts benchmarks in their package's directory; paths are meant from where it was called.
fn from_call(path: &std::path::Path) -> PathBuf {
    std::env::var_os("PWD").map(PathBuf::from).unwrap_or_default().join(path)
}

/// In a process that has nothing else to do.
fn look_at_memory() -> Result<Memory, Failure> {
    let output = Command::new(std::env::current_exe()?).arg("memory").output()?;
    String::from_utf8_lossy(&output.stdout).parse()
}
