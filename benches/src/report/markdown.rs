//! Tables for documents.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::row::Row;
use super::table;
use crate::system::Failure;
use crate::test::Test::{self, *};

/// A figure of each system.
struct Column {
    heading: &'static str,
    test: Test,
    size: u64,
    producers: u64,
}

const fn column(heading: &'static str, test: Test, size: u64, producers: u64) -> Column {
    Column { heading, test, size, producers }
}

/// What one looks for first. Round trips in nanoseconds, one way in million messages a second.
const HEADLINE: &[Column] = &[
    column("there and back 8 B, ns", RoundTripBusy, 8, 1),
    column("64 B", RoundTripBusy, 64, 1),
    column("64 KiB", RoundTripBusy, 65536, 1),
    column("one way 8 B, M/s", OneWayBusy, 8, 1),
    column("64 B", OneWayBusy, 64, 1),
    column("4 KiB", OneWayBusy, 4096, 1),
    column("64 KiB", OneWayBusy, 65536, 1),
    column("batched 64 B, M/s", OneWayBatch, 64, 1),
    column("4 senders 64 B, M/s", FanIn, 64, 4),
];

/// Writes the headline and a table for each test, of these rows and of those of the files.
pub(crate) fn write(path: &Path, rows: &[Row], files: &[Vec<Row>]) -> Result<(), Failure> {
    let rows: Vec<&Row> = rows.iter().chain(files.iter().flatten()).collect();
    let mut text = format!("{}\n\n{}", origin(), of_columns(HEADLINE, &rows));
    for test in Test::ALL {
        let columns = columns_of(test);
        if rows.iter().any(|row| row.test == test.name()) {
            write!(
                text,
                "\n`{}`: {}\n\n{}",
                test.name(),
                title(test),
                of_columns(&columns, &rows)
            )?;
        }
    }
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Where and when, as far as that can be told.
fn origin() -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let date = said("date", &["-u", "+%F"]).unwrap_or_default();
    let commit = said("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_default();
    format!("{}, {date}, commit {commit}.", table::machine())
}

fn title(test: Test) -> String {
    let unit = if test.is_one_way() { "million messages a second" } else { "nanoseconds" };
    format!("{}, {unit}.", test.title())
}

fn columns_of(test: Test) -> Vec<Column> {
    let sizes = test.sizes().iter().flat_map(|size| {
        test.producers().iter().map(|producers| (*size as u64, *producers as u64))
    });
    sizes.map(|(size, producers)| Column { heading: "", test, size, producers }).collect()
}

fn heading(column: &Column) -> String {
    match (column.heading, column.size, column.producers) {
        ("", 1, _) if column.test == PassHandles => "1 handle".into(),
        ("", count, _) if column.test == PassHandles => format!("{count} handles"),
        ("", 0, _) => "median".into(),
        ("", size, 1) if column.test != FanIn => length(size),
        ("", _, 1) => "1 sender".into(),
        ("", _, producers) => format!("{producers} senders"),
        (heading, ..) => heading.into(),
    }
}

fn length(bytes: u64) -> String {
    if bytes < 1024 { format!("{bytes} B") } else { format!("{} KiB", bytes / 1024) }
}

/// A line for each system that has one of the figures.
fn of_columns(columns: &[Column], rows: &[&Row]) -> String {
    let mut systems: Vec<&str> = vec![];
    for row in rows {
        let is_asked_for = columns.iter().any(|column| is_in(column, row));
        if is_asked_for && !systems.contains(&&*row.system) {
            systems.push(&row.system);
        }
    }
    let headings: Vec<_> = columns.iter().map(heading).collect();
    let mut text =
        format!("| | {} |\n|---|{}\n", headings.join(" | "), "---:|".repeat(columns.len()));
    for system in systems {
        let figure = |column: &Column| {
            let row = rows.iter().find(|row| row.system == system && is_in(column, row));
            row.map_or(String::new(), |row| figure(column.test, row.median))
        };
        let figures: Vec<_> = columns.iter().map(figure).collect();
        text += &format!("| `{system}` | {} |\n", figures.join(" | "));
    }
    text
}

fn is_in(column: &Column, row: &Row) -> bool {
    (row.size, row.producers) == (column.size, column.producers) && row.test == column.test.name()
}

fn figure(test: Test, median: f64) -> String {
    table::figure(if test.is_one_way() { median / 1e6 } else { median })
}
