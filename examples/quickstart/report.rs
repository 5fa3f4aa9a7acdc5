//! What the quickstart prints.

use std::io::{self, Write};
use std::path::Path;
use std::process;
use std::time::Duration;

use tombolo::inspect::{EndpointView, Health, Image, Liveness, RingView};

use crate::input::Input;
use crate::sender::Streamed;

/// What is sent, from where to where.
pub(crate) fn introduce(out: &mut impl Write, input: &Input, path: &Path) -> io::Result<()> {
    let (lines, bytes) = (counted(input.line_count(), "line"), counted(input.len(), "byte"));
    writeln!(out, "input      {}: {lines}, {bytes}", input.source)?;
    writeln!(out, "region     {}", path.display())?;
    writeln!(out, "sender     pid {}, this process", process::id())
}

/// The outcome of streaming.
pub(crate) fn streaming(
    out: &mut impl Write,
    input: &Input,
    receiver: u32,
    streamed: &Streamed,
) -> io::Result<()> {
    let Streamed { passes, acked, time } = streamed;
    let seconds = time.as_secs_f64();
    let payload = passes * (input.len() + 1 - input.line_count());
    let rate = count((acked.lines as f64 / seconds) as u64);
    let megabytes = format!("{:.1}", payload as f64 / seconds / 1e6);
    let words = format!("one a line, the whole input {}", counted(*passes, "time"));
    writeln!(out, "\nSTREAMING  as fast as the ring takes it, to pid {receiver}")?;
    row(out, "messages", &count(acked.lines), &words)?;
    row(out, "seconds", &format!("{seconds:.2}"), "until all of them were acknowledged")?;
    row(out, "messages/s", &rate, "with the digest made on both sides")?;
    row(out, "MB/s", &megabytes, "of payload, in millions of bytes")?;
    row(out, "digest", &format!("{:016x}", acked.digest), "the same on both sides: nothing lost,")?;
    row(out, "", "", "added, changed or out of order")
}

/// The outcome of the ping-pong.
pub(crate) fn round_trips(
    out: &mut impl Write,
    receiver: u32,
    mut times: Vec<Duration>,
) -> io::Result<()> {
    times.sort_unstable();
    writeln!(out, "\nPING-PONG  one line out, its acknowledgement back, with pid {receiver}")?;
    row(out, "round trips", &count(times.len() as u64), "one at a time, each digest compared")?;
    for (name, per_mille, words) in [
        ("p50", 500, "half of them took no longer"),
        ("p90", 900, "9 of 10"),
        ("p99", 990, "99 of 100"),
        ("p99.9", 999, "999 of 1000"),
        ("max", 1000, "all of them"),
    ] {
        row(out, name, &microseconds(percentile(&times, per_mille)), words)?;
    }
    Ok(())
}

/// What the region's file says, while both processes use it.
pub(crate) fn inspection(out: &mut impl Write, image: &Image) -> io::Result<()> {
    let alive = image.endpoint_count(Liveness::Alive);
    writeln!(out, "\nINSPECT    the file, read by the library without a lock or a mapping")?;
    let health = match image.health() {
        Health::Healthy => "healthy".to_owned(),
        health => format!("{health:?}"),
    };
    writeln!(out, "  {health}: {} rings, {alive} endpoints alive", image.rings().len())?;
    for problem in image.problems() {
        writeln!(out, "  {problem}")?;
    }
    writeln!(out, "\n  RING  KIND  WAITING     CAPACITY        SENT    RECEIVED  FOUND FULL")?;
    image.rings().iter().try_for_each(|view| ring(out, view))?;
    writeln!(out, "\n  RING  END            PID  IS")?;
    image.endpoints().iter().try_for_each(|view| endpoint(out, view))
}

fn ring(out: &mut impl Write, ring: &RingView) -> io::Result<()> {
    let Some(control) = &ring.control else { return Ok(()) };
    let kind = ring.entry.ring_kind().map_or("unknown", |kind| kind.name());
    let waiting = ring.depth.and_then(|depth| depth.msgs).map_or("-".to_owned(), count);
    let (number, capacity) = (ring.ring, count(ring.entry.capacity));
    let (sent, received) = (count(control.sent_msgs), count(control.received_msgs));
    let full = count(control.full_events);
    write!(out, "  {number:<4}  {kind:<4}{waiting:>9}{capacity:>13}")?;
    writeln!(out, "{sent:>12}{received:>12}{full:>12}")
}

fn endpoint(out: &mut impl Write, endpoint: &EndpointView) -> io::Result<()> {
    let role = endpoint.role().map_or("unknown".to_owned(), |role| format!("{role:?}"));
    let liveness = format!("{:?}", endpoint.liveness).to_lowercase();
    let (ring, pid) = (endpoint.fields.ring, endpoint.fields.pid);
    writeln!(out, "  {ring:<4}  {:<8}{pid:>10}  {liveness}", role.to_lowercase())
}

fn row(out: &mut impl Write, name: &str, value: &str, words: &str) -> io::Result<()> {
    writeln!(out, "  {name:<12}{value:>16}  {words}")
}

/// The shortest time that `per_mille` of a thousand did not exceed.
fn percentile(sorted: &[Duration], per_mille: usize) -> Duration {
    let rank = (sorted.len() * per_mille).div_ceil(1000).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn microseconds(time: Duration) -> String {
    format!("{:.2} µs", time.as_secs_f64() * 1e6)
}

/// A number of things.
fn counted(number: u64, thing: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {thing}{ending}", count(number))
}

/// With commas between the thousands.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
