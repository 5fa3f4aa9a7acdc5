//! Headers, directories, records, lock words and whole regions, damaged by chance: each is judged,
//! and nothing panics.

mod header;
mod record;
mod region;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{Failure, Report, Rng, Run, Setting};

/// Cases between two whole regions, which take longer than the others.
const REGION_EVERY: u64 = 200;

/// Outcomes that every run must meet, or it has not come deep enough.
const REQUIRED: &[(&str, &str)] = &[
    ("header", "accepted"),
    ("header", "BadMagic"),
    ("header", "Truncated"),
    ("header", "ForeignEndian"),
    ("header", "UnsupportedMajor"),
    ("header", "UnknownCapability"),
    ("header", "Checksum"),
    ("header", "TooSmall"),
    ("header", "Field"),
    ("header", "OutOfBounds"),
    ("header", "Overlap"),
    ("header", "SharedSlot"),
    ("record", "accepted"),
    ("record", "not committed"),
    ("record", "Kind"),
    ("record", "Tag"),
    ("record", "Len"),
    ("record", "Handles"),
    ("record", "MissingExt"),
    ("record", "Padding"),
    ("lock word", "held"),
    ("lock word", "refused"),
    ("look at a region", "Healthy"),
    ("look at a region", "Damaged"),
    ("use of a region", "opened"),
    ("use of a region", "received"),
    ("use of a region", "poisoned"),
    ("use of a region", "refused"),
];

/// The run.
pub(crate) const RUN: Run = Run {
    name: "fuzz",
    about: "10,000,000 fuzzed headers, records and regions: each is judged, nothing panics",
    body,
    roles: &[],
};

/// How often each outcome came, by what was judged.
#[derive(Clone, Debug, Default)]
struct Outcomes {
    counts: BTreeMap<(&'static str, &'static str), u64>,
}

impl Outcomes {
    fn add(&mut self, subject: &'static str, outcome: &'static str) {
        *self.counts.entry((subject, outcome)).or_default() += 1;
    }

    fn report(mut self) -> Report {
        for required in REQUIRED {
            self.counts.entry(*required).or_default();
        }
        let mut report = Report::new();
        for ((subject, outcome), count) in self.counts {
            report.count(&format!("{subject}, {outcome}"), count);
        }
        report
    }
}

fn body(setting: &Setting) -> Result<Report, Failure> {
    let mut region = region::Fuzzed::new()?;
    let mut outcomes = Outcomes::default();
    let cases = setting.count(10_000_000, 100_000);
    for case in 0..cases {
        let mut rng = Rng::of_part(setting.seed, case);
        let guarded = AssertUnwindSafe(|| judge(case, &mut rng, &mut region, &mut outcomes));
        let outcome = catch_unwind(guarded).unwrap_or_else(|_| Err("panicked".into()));
        outcome.map_err(|error| format!("case {case}: {error}"))?;
    }
    let mut report = outcomes.report();
    report.count("cases", cases);
    Ok(report)
}

fn judge(
    case: u64,
    rng: &mut Rng,
    region: &mut region::Fuzzed,
    outcomes: &mut Outcomes,
) -> Result<(), Failure> {
    if case.is_multiple_of(REGION_EVERY) {
        return region.judge(rng, outcomes);
    }
    match case % 4 {
        0 | 1 => header::judge(rng, region.sound(), outcomes),
        2 => record::judge(rng, outcomes),
        _ => record::judge_with_lock(rng, outcomes),
    }
}

/// A number that is often a limit of something, or next to one.
fn edge(rng: &mut Rng) -> u64 {
    let power = 1u64 << rng.below(64);
    match rng.below(8) {
        0 => rng.number(),
        1 => rng.below(100),
        2 => power.wrapping_add(rng.below(17)).wrapping_sub(8),
        3 => u64::MAX - rng.below(4097),
        4 => 0x1000 * rng.below(0x300),
        5 => 128 * rng.below(0x200),
        _ => power,
    }
}
