//! `tombolo inspect`.

use std::ffi::OsString;
use std::io::Write;

use serde_json::{Value, json};
use tombolo::inspect::{Boot, EndpointView, Image, LockView, Problem, RingView};
use tombolo_abi::{RingControl, RingEntry, SharedLayout, Slot};

use crate::exit::{Exit, Failure};
use crate::units::printable;
use crate::{channel, fields, health, locate, report, stuck};

/// What to look at.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Path or name of the region
    region: OsString,
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut impl Write) -> Result<Exit, Failure> {
    let image = Image::open(&locate::locate(&args.region))?;
    if args.json {
        writeln!(out, "{:#}", to_json(&image))?;
    } else {
        report::write(&image, out)?;
    }
    Ok(Exit::from(&image))
}

fn to_json(image: &Image) -> Value {
    let header = image.page().map(|page| {
        let mut fields =
            fields::to_json(&tombolo_abi::Header::TABLE, bytemuck::bytes_of(&page.header));
        let words = fields::to_json(&SharedLayout::TABLE, bytemuck::bytes_of(page));
        for word in ["membership_seq", "successor_generation", "koid_next"] {
            fields[word] = words[word].clone();
        }
        fields
    });
    json!({
        "schema": "tombolo.inspect/1",
        "path": image.path().to_string_lossy(),
        "health": health::word(image),
        "summary": health::line(image),
        "snapshot_consistent": image.is_consistent(),
        "copy": image.is_copy(),
        "boot": health::boot(image.boot()),
        "another_boot": image.boot() == Boot::Earlier,
        "stuck": image.stuck().iter().map(|one| stuck::to_json(image, one)).collect::<Value>(),
        "problems": image.problems().iter().map(problem_json).collect::<Value>(),
        "file": { "len": image.file_len().to_string(), "inode": image.inode().to_string() },
        "header": header,
        "channel": image.channel().map(channel::to_json),
        "rings": image.rings().iter().map(ring_json).collect::<Value>(),
        "endpoints": image.endpoints().iter().map(endpoint_json).collect::<Value>(),
    })
}

/// A problem, for every command's JSON.
pub(crate) fn problem_json(problem: &Problem) -> Value {
    json!({
        "code": problem.code,
        "place": problem.place.to_string(),
        "offset": problem.offset.map(|offset| offset.to_string()),
        "what": problem.what,
        "found": problem.found,
        "wanted": problem.wanted,
        "text": printable(&problem.to_string()),
    })
}

fn ring_json(ring: &RingView) -> Value {
    let control = ring.control.as_ref().map(bytemuck::bytes_of);
    json!({
        "ring": ring.ring,
        "listed": ring.listed,
        "kind": report::kind(ring),
        "state": report::ring_state(ring),
        "depth": ring.depth.map(|depth| json!({
            "len": depth.len.to_string(),
            "msgs": depth.msgs.map(|msgs| msgs.to_string()),
        })),
        "lock": ring.lock.as_ref().map(lock_json),
        "snapshot_consistent": ring.is_consistent(),
        "entry": fields::to_json(&RingEntry::TABLE, bytemuck::bytes_of(&ring.entry)),
        "control": control.map(|bytes| fields::to_json(&RingControl::TABLE, bytes)),
    })
}

fn lock_json(lock: &LockView) -> Value {
    json!({
        "slot": lock.slot,
        "incarnation": lock.incarnation,
        "pid": lock.pid,
        "liveness": health::liveness(lock.liveness),
    })
}

fn endpoint_json(endpoint: &EndpointView) -> Value {
    json!({
        "slot": endpoint.slot,
        "liveness": health::liveness(endpoint.liveness),
        "state": report::slot_state(endpoint),
        "role": report::role(endpoint),
        "command": health::process(&endpoint.process),
        "torn": endpoint.torn,
        "fields": fields::to_json(&Slot::TABLE, bytemuck::bytes_of(&endpoint.fields)),
    })
}
