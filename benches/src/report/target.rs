//! What this crate wants to reach, and whether it did.

use super::row::Row;
use super::say;
use crate::cell::Outcome;
use crate::ours::memory::Memory;
use crate::test::Test::{self, *};

/// A figure: system, test, size, producers.
type Place = (&'static str, Test, u64, u64);

/// Which way a ratio has to go.
#[derive(Debug, Clone, Copy)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

use Limit::{AtLeast, AtMost};

/// One figure over another, and its limit.
struct Target {
    what: &'static str,
    of: Place,
    over: Place,
    limit: Limit,
}

const fn target(what: &'static str, of: Place, over: Place, limit: Limit) -> Target {
    Target { what, of, over, limit }
}

const SPSC: &str = "tombolo-spsc";
const IN_PLACE: &str = "tombolo-spsc-in-place";
const SLICE: &str = "tombolo-spsc-slice";
const MPSC: &str = "tombolo-mpsc";
const LANES: &str = "tombolo-lanes";
const MANY_LANES: &str = "tombolo-lanes-256";
const CHANNEL: &str = "tombolo-channel";
const LINE: &str = "fresh-line";
const FUTEX: &str = "futex-wake";

/// Latencies: nanoseconds over nanoseconds. One way: messages a second over messages a second.
const TARGETS: &[Target] = &[
    target(
        "round trip 8 B, to a fresh line",
        at(SPSC, RoundTripBusy, 8),
        at(LINE, RoundTripBusy, 8),
        AtMost(1.15),
    ),
    target(
        "round trip 64 B, to a fresh line",
        at(SPSC, RoundTripBusy, 64),
        at(LINE, RoundTripBusy, 64),
        AtMost(1.15),
    ),
    target(
        "one way 4 KiB copied, to a stream",
        at(SPSC, OneWayBusy, 4096),
        at("stream", OneWayBusy, 4096),
        AtLeast(0.9),
    ),
    target(
        "one way 4 KiB as a slice, to a stream",
        at(SLICE, OneWayBusy, 4096),
        at("stream", OneWayBusy, 4096),
        AtLeast(0.9),
    ),
    target(
        "one way 64 KiB as a slice, to a stream",
        at(SLICE, OneWayBusy, 65536),
        at("stream", OneWayBusy, 65536),
        AtLeast(0.9),
    ),
    target(
        "spin-sleep 8 B, to busy-poll",
        at(SPSC, OneWaySpinSleep, 8),
        at(SPSC, OneWayBusy, 8),
        AtLeast(0.95),
    ),
    target(
        "spin-sleep 64 B, to busy-poll",
        at(SPSC, OneWaySpinSleep, 64),
        at(SPSC, OneWayBusy, 64),
        AtLeast(0.95),
    ),
    target(
        "spin-sleep 4 KiB, to busy-poll",
        at(SPSC, OneWaySpinSleep, 4096),
        at(SPSC, OneWayBusy, 4096),
        AtLeast(0.95),
    ),
    target(
        "in place 64 KiB, to in place 64 B",
        at(IN_PLACE, RoundTripInPlace, 65536),
        at(IN_PLACE, RoundTripInPlace, 64),
        AtMost(1.3),
    ),
    target(
        "both sleep, two CPUs, to a futex",
        at(SPSC, RoundTripSleep, 8),
        at(FUTEX, RoundTripSleep, 8),
        AtMost(1.05),
    ),
    target(
        "both sleep, one CPU, to a futex",
        at(SPSC, RoundTripSleepOneCpu, 8),
        at(FUTEX, RoundTripSleepOneCpu, 8),
        AtMost(1.1),
    ),
    target(
        "call 64 B, to a round trip of the ring",
        at(CHANNEL, CallBusy, 64),
        at(SPSC, CallBusy, 64),
        AtMost(1.5),
    ),
    target(
        "call 64 B asleep, two CPUs, to the ring",
        at(CHANNEL, CallSleep, 64),
        at(SPSC, CallSleep, 64),
        AtMost(1.15),
    ),
    target(
        "call 64 B asleep, one CPU, to the ring",
        at(CHANNEL, CallSleepOneCpu, 64),
        at(SPSC, CallSleepOneCpu, 64),
        AtMost(1.15),
    ),
    target(
        "call 64 B, to iceoryx2",
        at(CHANNEL, CallBusy, 64),
        at("iceoryx2", CallBusy, 64),
        AtMost(0.4),
    ),
    target(
        "making a channel, to the bare calls",
        at(CHANNEL, Create, 0),
        at("bare-channel", Create, 0),
        AtMost(2.0),
    ),
    target("join, to open and mmap", at("tombolo", Join, 0), at("open-mmap", Join, 0), AtMost(3.0)),
    target(
        "16 handles, to bare rights told by a line",
        at(SPSC, PassHandles, 16),
        at("scm-rights-told", PassHandles, 16),
        AtMost(1.25),
    ),
    target(
        "16 handles, to bare rights",
        at(SPSC, PassHandles, 16),
        at("scm-rights", PassHandles, 16),
        AtMost(1.25),
    ),
    target(
        "one way 64 B, to iceoryx2",
        at(SPSC, OneWayBusy, 64),
        at("iceoryx2", OneWayBusy, 64),
        AtLeast(50.0),
    ),
    target(
        "one way 64 B, to aeron",
        at(SPSC, OneWayBusy, 64),
        at("aeron", OneWayBusy, 64),
        AtLeast(3.0),
    ),
    target(
        "one way 64 B, to rtrb's chunks",
        at(SPSC, OneWayBusy, 64),
        at("rtrb-chunks", OneWayBusy, 64),
        AtLeast(2.0),
    ),
    target(
        "batched 8 B, to disruptor",
        at(SPSC, OneWayBatch, 8),
        at("disruptor", OneWayBatch, 8),
        AtLeast(0.5),
    ),
    target(
        "batched 64 B, to disruptor",
        at(SPSC, OneWayBatch, 64),
        at("disruptor", OneWayBatch, 64),
        AtLeast(0.8),
    ),
    target("1 sender 64 B, to aeron", fan(MPSC, 1), fan("aeron", 1), AtLeast(1.5)),
    target("2 senders 64 B, to aeron", fan(MPSC, 2), fan("aeron", 2), AtLeast(1.5)),
    target("4 senders 64 B, to aeron", fan(MPSC, 4), fan("aeron", 4), AtLeast(1.5)),
    target("1 sender 64 B, to iceoryx2", fan(MPSC, 1), fan("iceoryx2", 1), AtLeast(25.0)),
    target("2 senders 64 B, to iceoryx2", fan(MPSC, 2), fan("iceoryx2", 2), AtLeast(25.0)),
    target("4 senders 64 B, to iceoryx2", fan(MPSC, 4), fan("iceoryx2", 4), AtLeast(25.0)),
    target("lanes, 2 senders, to 1", fan(LANES, 2), fan(LANES, 1), AtLeast(0.8)),
    target("lanes, 4 senders, to 1", fan(LANES, 4), fan(LANES, 1), AtLeast(0.8)),
    target("2 of 256 lanes busy, to 2 of 4", fan(MANY_LANES, 2), fan(LANES, 2), AtLeast(1.0 / 1.2)),
    target("lanes, 2 senders 64 B, to aeron", fan(LANES, 2), fan("aeron", 2), AtLeast(2.5)),
    target("lanes, 4 senders 64 B, to aeron", fan(LANES, 4), fan("aeron", 4), AtLeast(2.5)),
    target("1 sender 64 B, to crossbeam", fan(MPSC, 1), fan("crossbeam", 1), AtLeast(1.0)),
    target("2 senders 64 B, to crossbeam", fan(MPSC, 2), fan("crossbeam", 2), AtLeast(1.0)),
    target("4 senders 64 B, to crossbeam", fan(MPSC, 4), fan("crossbeam", 4), AtLeast(1.0)),
];

/// Bytes that an open region may take besides itself.
const RESIDENT_MAX: i64 = 256 << 10;

const fn at(system: &'static str, test: Test, size: u64) -> Place {
    (system, test, size, 1)
}

const fn fan(system: &'static str, producers: u64) -> Place {
    (system, FanIn, 64, producers)
}

/// Those targets for which there are figures: in this run, or else in one of the files; or else of
/// one in this run and of another in a file.
pub(crate) fn print(
    outcomes: &[Outcome],
    rows: &[Row],
    files: &[Vec<Row>],
    memory: Option<Memory>,
) {
    let mut lines = vec![];
    for target in TARGETS {
        let own = ratio(target, outcomes).map(|ratio| (ratio, ""));
        let Some((ratio, note)) = own.or_else(|| from_files(target, rows, files)) else { continue };
        let (met, limit) = match target.limit {
            AtMost(limit) => (ratio <= limit, format!("at most  {limit:>8.2}")),
            AtLeast(limit) => (ratio >= limit, format!("at least {limit:>8.2}")),
        };
        lines.push(format!("{}{note}", line(target.what, &format!("{ratio:.2}"), &limit, met)));
    }
    lines.extend(memory.into_iter().flat_map(of_memory));
    if !lines.is_empty() {
        say(format_args!("\nTargets"));
        say(format_args!("  {:<44} {:>10}  wanted", "", "found"));
        lines.iter().for_each(|line| say(format_args!("{line}")));
    }
}

/// Of this run.
fn ratio(target: &Target, outcomes: &[Outcome]) -> Option<f64> {
    let find = |(system, test, size, producers): Place| {
        outcomes.iter().find(|outcome| {
            let place = (outcome.system, outcome.test);
            place == (system, test)
                && (outcome.size as u64, outcome.producers as u64) == (size, producers)
        })
    };
    let ratio = find(target.of)?.over(find(target.over)?)?;
    Some(if target.of.1.is_one_way() { 1.0 / ratio } else { ratio })
}

fn from_files(target: &Target, rows: &[Row], files: &[Vec<Row>]) -> Option<(f64, &'static str)> {
    let both = |rows| Some(find(rows, target.of)? / find(rows, target.over)?);
    if let Some(ratio) = files.iter().find_map(|rows| both(rows)) {
        return Some((ratio, ", both from a file"));
    }
    let over = files.iter().find_map(|rows| find(rows, target.over))?;
    Some((find(rows, target.of)? / over, ", from two runs"))
}

fn find(rows: &[Row], (system, test, size, producers): Place) -> Option<f64> {
    let is_it = |row: &&Row| {
        (&*row.system, row.size, row.producers) == (system, size, producers)
            && row.test == test.name()
    };
    rows.iter().find(is_it).map(|row| row.median)
}

fn of_memory(memory: Memory) -> [String; 3] {
    let Memory { by_send, by_receive, resident } = memory;
    let none = format!("at most  {:>8}", 0);
    let kib = |bytes: i64| bytes / 1024;
    let limit = format!("at most  {:>8}", kib(RESIDENT_MAX));
    [
        line("allocations a send", &by_send.to_string(), &none, by_send == 0.0),
        line(
            "allocations a receive into a buffer",
            &by_receive.to_string(),
            &none,
            by_receive == 0.0,
        ),
        line(
            "resident KiB of a region besides itself",
            &kib(resident).to_string(),
            &limit,
            resident < RESIDENT_MAX,
        ),
    ]
}

fn line(what: &str, found: &str, limit: &str, met: bool) -> String {
    format!("  {what:<44} {found:>10}  {limit}  {}", if met { "met" } else { "NOT MET" })
}
