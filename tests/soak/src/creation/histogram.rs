//! How often what was found where.

use std::collections::BTreeMap;

use crate::Report;

/// Counts by row and column.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    rows: BTreeMap<String, BTreeMap<&'static str, u64>>,
}

impl Histogram {
    /// Counts one more in `row` and `column`.
    pub(super) fn add(&mut self, row: String, column: &'static str) {
        *self.rows.entry(row).or_default().entry(column).or_default() += 1;
    }

    /// What was counted in `column`.
    pub(super) fn in_column(&self, column: &str) -> u64 {
        self.rows.values().filter_map(|columns| columns.get(column)).sum()
    }

    /// One line a row.
    pub(super) fn report(&self, report: &mut Report) {
        for (row, columns) in &self.rows {
            let all: u64 = columns.values().sum();
            let parts = columns.iter().map(|(column, count)| format!("{column} {count}"));
            let parts: Vec<_> = parts.collect();
            report.note(row, format!("killed {all}: {}", parts.join(", ")));
        }
    }
}
