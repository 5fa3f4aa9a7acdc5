//! One record, for people and for scripts.

use std::io::{self, Write};

use serde_json::{Value, json};
use tombolo::inspect::RecordView;
use tombolo_abi::RecordKind;

use crate::units::{count, hex, printable};

/// Bytes on a line of the dump.
const LINE_LEN: usize = 16;

pub(crate) fn write(view: &RecordView, out: &mut impl Write) -> io::Result<()> {
    let (record, position) = (&view.record, view.position);
    let mut line = format!("#{position} @{:#x}  {}", view.offset, kind(record.kind));
    line += &format!("  {} B", count(record.payload_len.into()));
    if record.handle_count > 0 {
        line += &format!("  {} handles", record.handle_count);
    }
    if record.flags != 0 {
        line += &format!("  flags {:#04x}", record.flags);
    }
    if let Some(ext) = view.ext {
        let txid = u32::from_le_bytes([ext[0], ext[1], ext[2], ext[3]]);
        line += &format!("  txid {txid:#x}");
    }
    writeln!(out, "{line}")?;
    for (index, bytes) in view.payload.chunks(LINE_LEN).enumerate() {
        writeln!(out, "  {:08x}  {}", index * LINE_LEN, hex_and_text(bytes))?;
    }
    match (record.payload_len as usize).saturating_sub(view.payload.len()) {
        0 => Ok(()),
        _ if record.kind == RecordKind::Pad => Ok(()),
        more => writeln!(out, "  ... {} more bytes", count(more as u64)),
    }
}

/// Hexadecimal digits in two groups of eight, and the bytes that are ASCII text.
fn hex_and_text(bytes: &[u8]) -> String {
    let mut line = String::new();
    for index in 0..LINE_LEN {
        line += &bytes.get(index).map_or("   ".to_owned(), |byte| format!("{byte:02x} "));
        line += if index + 1 == LINE_LEN / 2 { " " } else { "" };
    }
    let text = bytes.iter().map(|byte| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '.',
    });
    format!("{line} |{}|", text.collect::<String>())
}

pub(crate) fn to_json(view: &RecordView) -> Value {
    let record = &view.record;
    json!({
        "ring": view.ring,
        "position": view.position.to_string(),
        "offset": view.offset.to_string(),
        "kind": kind(record.kind),
        "len": record.payload_len,
        "flags": record.flags,
        "handles": record.handle_count,
        "ext": view.ext.map(|ext| hex(&ext)),
        "payload_hex": hex(&view.payload),
        "payload_text": std::str::from_utf8(&view.payload).ok().map(printable),
        "cut": view.payload.len() < record.payload_len as usize,
    })
}

fn kind(kind: RecordKind) -> String {
    match kind {
        RecordKind::Data => "data".to_owned(),
        RecordKind::Pad => "padding".to_owned(),
        RecordKind::Abort => "abort".to_owned(),
        RecordKind::Call => "call".to_owned(),
        RecordKind::Reply => "reply".to_owned(),
        RecordKind::Control => "control".to_owned(),
        RecordKind::Unknown(bits) => format!("unknown {bits}"),
    }
}
