//! Tables of text with aligned columns.

use std::io::{self, Write};

/// Which side of its column a cell keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// A table under construction.
pub(crate) struct Columns {
    sides: Vec<Side>,
    rows: Vec<Vec<String>>,
}

impl Columns {
    /// A table with these headings, with a comma and a blank between them. A heading that starts with `>` makes its
    /// column keep to the right.
    pub(crate) fn new(headings: &str) -> Self {
        let side = |heading: &str| if heading.starts_with('>') { Side::Right } else { Side::Left };
        let sides = headings.split(", ").map(side).collect();
        let titles = headings.split(", ").map(|heading| heading.trim_start_matches('>').to_owned());
        Self { sides, rows: vec![titles.collect()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Writes the table, indented by two, without blanks at the ends of lines.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let widths: Vec<usize> = (0..self.sides.len())
            .map(|column| self.rows.iter().map(|row| width(row, column)).max().unwrap_or(0))
            .collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, (side, width)) in row.iter().zip(self.sides.iter().zip(&widths)) {
                line += &match side {
                    Side::Left => format!("  {cell:<width$}"),
                    Side::Right => format!("  {cell:>width$}"),
                };
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn width(row: &[String], column: usize) -> usize {
    row.get(column).map_or(0, |cell| cell.chars().count())
}
