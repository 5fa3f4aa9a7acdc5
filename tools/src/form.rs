//! The two forms of `tombolo dump`: text, and JSON written as it is read, however long it gets.

use std::io::{self, Write};

use serde_json::{Value, json};
use tombolo::inspect::{Image, Problem, RecordView, RecordsEnd, RingView};

use crate::inspect::problem_json;
use crate::units::{count, printable, size};
use crate::{health, record, report};

/// How the output is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    Json,
}

/// How the records of a ring ended.
pub(crate) struct Ending {
    pub(crate) end: RecordsEnd,
    pub(crate) shown: u64,
    pub(crate) missed: u64,
    pub(crate) damage: Option<Problem>,
}

impl Form {
    pub(crate) fn begin(self, image: &Image, out: &mut impl Write) -> io::Result<()> {
        let line = health::line(image);
        match self {
            Self::Text => writeln!(out, "{line}"),
            Self::Json => {
                let path = json!(image.path().to_string_lossy());
                let (word, line) = (json!(health::word(image)), json!(line));
                write!(out, "{{\"schema\": \"tombolo.dump/1\",\n\"path\": {path},\n")?;
                write!(out, "\"health\": {word},\n\"summary\": {line},\n\"rings\": [")
            }
        }
    }

    pub(crate) fn begin_ring(
        self,
        ring: &RingView,
        index: usize,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let (number, kind) = (ring.ring, report::kind(ring));
        match self {
            Self::Text => {
                let waiting = ring.depth.map_or_else(|| "?".to_owned(), |depth| size(depth.len));
                writeln!(out, "\nring {number}  {kind}  {waiting} not yet received")
            }
            Self::Json => {
                let comma = if index == 0 { "" } else { "," };
                write!(out, "{comma}\n{{\"ring\": {number}, \"kind\": {}, ", json!(kind))?;
                write!(out, "\"records\": [")
            }
        }
    }

    pub(crate) fn record(
        self,
        view: &RecordView,
        index: u64,
        out: &mut impl Write,
    ) -> io::Result<()> {
        match self {
            Self::Text => record::write(view, out),
            Self::Json => {
                let comma = if index == 0 { "" } else { "," };
                write!(out, "{comma}\n{}", record::to_json(view))
            }
        }
    }

    pub(crate) fn end_ring(self, ending: &Ending, out: &mut impl Write) -> io::Result<()> {
        let Ending { end, shown, missed, damage } = ending;
        match self {
            Self::Text => writeln!(out, "{}", ending.words()),
            Self::Json => {
                let damage = damage.as_ref().map_or(Value::Null, problem_json);
                let end = json!(end_word(*end));
                write!(out, "\n], \"shown\": {shown}, \"missed\": {missed}, ")?;
                write!(out, "\"end\": {end}, \"damage\": {damage}}}")
            }
        }
    }

    pub(crate) fn end(self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Text => Ok(()),
            Self::Json => writeln!(out, "\n]}}"),
        }
    }
}

impl Ending {
    fn words(&self) -> String {
        let shown = count(self.shown);
        let mut words = match (&self.damage, self.end) {
            (Some(problem), _) => format!("DAMAGED here: {}", printable(&problem.to_string())),
            (None, RecordsEnd::Uncommitted) if self.shown == 0 => "empty".to_owned(),
            (None, RecordsEnd::Limit) => format!("{shown} shown; there may be more, see --limit"),
            (None, RecordsEnd::EndOfFile) => format!("{shown} shown; the file ends here"),
            (None, RecordsEnd::Moving) => format!("{shown} shown; the ring moves faster than this"),
            (None, _) => format!("{shown} shown, no more are published"),
        };
        if self.missed > 0 {
            words += &format!(" ({} were received meanwhile)", count(self.missed));
        }
        words
    }
}

fn end_word(end: RecordsEnd) -> &'static str {
    match end {
        RecordsEnd::Uncommitted => "uncommitted",
        RecordsEnd::Limit => "limit",
        RecordsEnd::EndOfFile => "end_of_file",
        RecordsEnd::Damaged => "damaged",
        RecordsEnd::Moving => "moving",
        _ => "unknown",
    }
}
