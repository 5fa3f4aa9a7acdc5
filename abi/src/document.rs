//! The layout as a document, made from the field tables.

use core::fmt::{self, Write};

use crate::{PACKETS, TABLES, Table};

/// Writes the tables of all stored types and packets as Markdown.
///
/// # Errors
/// Only what `out` returns.
///
/// # Examples
/// ```
/// let mut text = String::new();
/// tombolo_abi::document::write_markdown(&mut text)?;
/// assert!(text.contains("| 0x000 | 8 | `magic` |"));
/// # Ok::<(), std::fmt::Error>(())
/// ```
pub fn write_markdown(out: &mut impl Write) -> fmt::Result {
    TABLES.iter().chain(&PACKETS).try_for_each(|table| write_table(out, table))
}

fn write_table(out: &mut impl Write, table: &Table) -> fmt::Result {
    writeln!(out, "### {}: {} bytes\n\n{}\n", table.name, table.len, table.doc)?;
    writeln!(out, "| offset | bytes | field | type | meaning |\n|---|---|---|---|---|")?;
    for field in table.fields {
        let (offset, len) = (field.offset, field.len);
        writeln!(
            out,
            "| {offset:#05x} | {len} | `{}` | {} | {} |",
            field.name, field.ty, field.doc
        )?;
    }
    writeln!(out)
}
