//! What a child found out, for the run that started it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::Failure;

/// Numbers by name.
pub(crate) type Figures = BTreeMap<String, u64>;

/// Leaves `figures` in the file `path`.
///
/// # Errors
/// Where that cannot be written.
pub(crate) fn save(path: &Path, figures: &[(&str, u64)]) -> Result<(), Failure> {
    let lines = figures.iter().map(|(name, number)| format!("{number} {name}\n"));
    Ok(fs::write(path, lines.collect::<String>())?)
}

/// The figures that a child left in the file `path`.
///
/// # Errors
/// Where it left none.
pub(crate) fn load(path: &Path) -> Result<Figures, Failure> {
    let text = fs::read_to_string(path)?;
    let figures = text.lines().filter_map(|line| {
        let (number, name) = line.split_once(' ')?;
        Some((name.to_owned(), number.parse().ok()?))
    });
    Ok(figures.collect())
}
