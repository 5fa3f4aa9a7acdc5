//! Stored values as JSON, by the layout's own tables.

use serde_json::{Map, Value, json};
use tombolo_abi::{Field, Table};

use crate::units::{hex, printable_bytes};

/// All fields of the type that `table` describes, as found in `bytes`. Reserved ones only if
/// they are not zero, as they should be.
pub(crate) fn to_json(table: &Table, bytes: &[u8]) -> Value {
    let fields = table.fields.iter().filter_map(|field| {
        let stored = bytes.get(field.offset..field.offset.checked_add(field.len)?)?;
        let zero = stored.iter().all(|byte| *byte == 0);
        let shown = !field.is_reserved() || !zero;
        shown.then(|| (field.name.to_owned(), value(field, stored)))
    });
    Value::Object(fields.collect::<Map<_, _>>())
}

fn value(field: &Field, stored: &[u8]) -> Value {
    match (field.ty, field.len) {
        ("u8" | "u16" | "u32", _) => json!(little_endian(stored)),
        ("u64", _) => json!(little_endian(stored).to_string()),
        (ty, _) if ty.starts_with("[u64") => {
            stored.chunks(8).map(|word| little_endian(word).to_string()).collect()
        }
        _ if field.name == "name" => json!(printable_bytes(stored)),
        _ => json!(hex(stored)),
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
