//! A row of a file of results.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::cell::Outcome;
use crate::system::Failure;

/// What came out of one cell, as it is written to files.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) system: String,
    pub(crate) test: String,
    pub(crate) size: u64,
    pub(crate) producers: u64,
    /// `ns` for round trips and what one process does alone, `msg/s` one way.
    pub(crate) unit: String,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Of single rounds; none one way.
    pub(crate) p99: Option<f64>,
    pub(crate) reps: u64,
}

impl Row {
    /// None where the cell failed.
    pub(crate) fn new(outcome: &Outcome) -> Option<Self> {
        let (summary, percentiles) = outcome.result.as_ref().ok()?;
        let is_rate = outcome.test.is_one_way();
        let value = |ns: f64| if is_rate { 1e9 / ns } else { ns };
        let (low, high) = (value(summary.min), value(summary.max));
        Some(Self {
            system: outcome.system.into(),
            test: outcome.test.name(),
            size: outcome.size as u64,
            producers: outcome.producers as u64,
            unit: if is_rate { "msg/s".into() } else { "ns".into() },
            median: value(summary.median),
            min: low.min(high),
            max: low.max(high),
            p99: percentiles.map(|percentiles| percentiles[1]),
            reps: summary.count as u64,
        })
    }

    /// With the keys in the order in which one reads them.
    fn to_json(&self) -> String {
        let (system, test, unit) = (json!(self.system), json!(self.test), json!(self.unit));
        let [median, min, max] = [self.median, self.min, self.max].map(rounded);
        let (size, producers, reps) = (self.size, self.producers, self.reps);
        let p99 = json!(self.p99.map(rounded));
        format!(
            r#"{{"system":{system},"test":{test},"size":{size},"producers":{producers},"unit":{unit},"median":{median},"min":{min},"max":{max},"p99":{p99},"reps":{reps}}}"#
        )
    }

    fn from_json(line: &Value) -> Option<Self> {
        let text = |key: &str| line[key].as_str().map(str::to_owned);
        Some(Self {
            system: text("system")?,
            test: text("test")?,
            size: line["size"].as_u64()?,
            producers: line["producers"].as_u64()?,
            unit: text("unit")?,
            median: line["median"].as_f64()?,
            min: line["min"].as_f64()?,
            max: line["max"].as_f64()?,
            p99: line["p99"].as_f64(),
            reps: line["reps"].as_u64()?,
        })
    }
}

/// Tenths are enough.
fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Writes a line for each row.
pub(crate) fn write(path: &Path, rows: &[Row]) -> Result<(), Failure> {
    let mut file =
        fs::File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
    rows.iter().try_for_each(|row| writeln!(file, "{}", row.to_json()))?;
    Ok(())
}

/// Reads what `write` wrote.
pub(crate) fn read(path: &Path) -> Result<Vec<Row>, Failure> {
    let wrong = |why: &str| Failure::from(format!("{}: {why}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| wrong(&error.to_string()))?;
    let parse = |line: &str| {
        let value = serde_json::from_str(line).map_err(|error| wrong(&error.to_string()))?;
        Row::from_json(&value).ok_or_else(|| wrong("a line that isn't a row"))
    };
    text.lines().filter(|line| !line.trim().is_empty()).map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let row = Row {
            system: "pipe".into(),
            test: "one-way-busy".into(),
            size: 8,
            producers: 1,
            unit: "msg/s".into(),
            median: 2.5,
            min: 1.0,
            max: 3.0,
            p99: None,
            reps: 31,
        };
        let value = serde_json::from_str(&row.to_json()).expect("JSON");
        assert_eq!(Row::from_json(&value), Some(row));
    }
}
