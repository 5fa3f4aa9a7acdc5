//! What is shown and written.

pub(crate) mod chart;
pub(crate) mod markdown;
pub(crate) mod row;
pub(crate) mod table;
pub(crate) mod target;

/// Prints a line. Who reads it may have gone; that ends nothing.
pub(crate) fn say(line: impl std::fmt::Display) {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}").ok();
}
