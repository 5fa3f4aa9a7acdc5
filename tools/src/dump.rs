//! `tombolo dump`.

use std::ffi::OsString;
use std::io::{self, Write};

use tombolo::inspect::{Image, Records, RecordsEnd, RingView};

use crate::exit::{Exit, Failure};
use crate::form::{Ending, Form};
use crate::units::counted;
use crate::{health, lanes, locate};

/// What to show.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Path or name of the region
    region: OsString,
    /// Only this ring
    #[arg(long, value_name = "N")]
    ring: Option<u32>,
    /// At most so many records of each ring
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
    /// At most so many bytes of each payload
    #[arg(long, value_name = "N", default_value_t = 256)]
    bytes: u32,
    /// JSON instead of text: one document, in which each record has a line of its own
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut impl Write) -> Result<Exit, Failure> {
    let image = Image::open(&locate::locate(&args.region))?;
    let form = if args.json { Form::Json } else { Form::Text };
    let mut rings = chosen(args, &image)?;
    let unused = lanes::unused(&image);
    if form == Form::Text && args.ring.is_none() {
        rings.retain(|ring| !unused.has(ring));
    }
    let mut exit = Exit::from(&image);
    form.begin(&image, out)?;
    let walks = rings.iter().filter_map(|ring| {
        let records = image.records(ring.ring, args.limit.into(), args.bytes)?;
        Some((*ring, records))
    });
    for (index, (ring, mut records)) in walks.enumerate() {
        form.begin_ring(ring, index, out)?;
        if show(form, &mut records, out)? == RecordsEnd::Damaged {
            exit = Exit::Damaged;
        }
    }
    if form == Form::Text
        && args.ring.is_none()
        && let Some(words) = unused.words()
    {
        writeln!(out, "\n{words}")?;
    }
    form.end(out)?;
    Ok(exit)
}

fn chosen<'a>(args: &Args, image: &'a Image) -> Result<Vec<&'a RingView>, Failure> {
    let path = image.path().display();
    if let Some(ring) = args.ring {
        let found = image.rings().iter().find(|view| view.ring == ring);
        if let Some(view) = found {
            return Ok(vec![view]);
        }
        if !image.rings().is_empty() {
            let rings = counted(image.rings().len() as u64, "ring");
            return Err(Failure::NoRing(format!(
                "{path} has no ring {ring}, it has {rings}; see them with `tombolo inspect`"
            )));
        }
    }
    if image.rings().is_empty() {
        let text = format!("{path}: {}", health::line(image));
        return Err(Failure::Nothing(Exit::from(image), text));
    }
    Ok(image.rings().iter().collect())
}

fn show(form: Form, records: &mut Records<'_>, out: &mut impl Write) -> io::Result<RecordsEnd> {
    let mut shown = 0;
    let mut damage = None;
    for item in records.by_ref() {
        match item {
            Ok(view) => {
                form.record(&view, shown, out)?;
                shown += 1;
            }
            Err(problem) => damage = Some(problem),
        }
    }
    let end = records.end().unwrap_or(RecordsEnd::Uncommitted);
    form.end_ring(&Ending { end, shown, missed: records.missed(), damage }, out)?;
    Ok(end)
}
