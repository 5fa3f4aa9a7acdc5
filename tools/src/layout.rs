//! `tombolo layout`.

use std::io::Write;

use serde_json::{Value, json};
use tombolo_abi::{LOCK_BASE, LOCK_SLOTS, MAJOR, MINOR, TABLES, Table};

use crate::columns::Columns;
use crate::exit::{Exit, Failure};

/// How to show it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut impl Write) -> Result<Exit, Failure> {
    if args.json {
        writeln!(out, "{:#}", to_json())?;
        return Ok(Exit::Healthy);
    }
    writeln!(out, "tombolo layout v{MAJOR}.{MINOR}, little-endian, offsets from 0")?;
    for table in TABLES {
        writeln!(out, "\n{}: {} bytes. {}", table.name, table.len, table.doc)?;
        columns(table).write(out)?;
    }
    writeln!(out, "\nLock bytes: {LOCK_BASE:#x} init, +1 recovery, {LOCK_SLOTS:#x} + n slot n")?;
    Ok(Exit::Healthy)
}

fn columns(table: &Table) -> Columns {
    let mut columns = Columns::new(">OFFSET, >BYTES, FIELD, TYPE, MEANING");
    for field in table.fields {
        columns.row([
            format!("{:#05x}", field.offset),
            field.len.to_string(),
            field.name.to_owned(),
            field.ty.to_owned(),
            field.doc.to_owned(),
        ]);
    }
    columns
}

fn to_json() -> Value {
    json!({
        "schema": "tombolo.layout/1",
        "version": { "major": MAJOR, "minor": MINOR },
        "lock_base": LOCK_BASE.to_string(),
        "lock_slots": LOCK_SLOTS.to_string(),
        "types": TABLES.iter().map(|table| table_json(table)).collect::<Value>(),
    })
}

fn table_json(table: &Table) -> Value {
    let fields = table.fields.iter().map(|field| {
        json!({
            "name": field.name,
            "offset": field.offset,
            "len": field.len,
            "type": field.ty,
            "doc": field.doc,
        })
    });
    json!({
        "name": table.name,
        "doc": table.doc,
        "len": table.len,
        "fields": fields.collect::<Value>(),
    })
}
