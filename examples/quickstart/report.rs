//! What the quickstart prints.

use std::path::Path;
use std::process;
use std::time::Duration;

use tombolo::inspect::{EndpointView, Health, Image, Liveness, RingView};

use crate::input::Input;
use crate::sender::Streamed;

/// What is sent, from where to where.
pub(crate) fn introduce(input: &Input, path: &Path) {
    let (lines, bytes) = (count(input.line_count()), count(input.len() as u64));
    println!("input      {}: {lines} lines, {bytes} bytes", input.source);
    println!("region     {}", path.display());
    println!("sender     pid {}, this process", process::id());
}

/// The outcome of streaming.
pub(crate) fn streaming(streamed: &Streamed, receiver: u32, input: &Input) {
    let Streamed { passes, acked, time } = streamed;
    let seconds = time.as_secs_f64();
    let payload = passes * (input.len() as u64 + 1 - input.line_count());
    let rate = count((acked.lines as f64 / seconds) as u64);
    let megabytes = format!("{:.1}", payload as f64 / seconds / 1e6);
    let times = if *passes == 1 { "once".to_owned() } else { format!("{} times", count(*passes)) };
    println!("\nSTREAMING  as fast as the ring takes it, to pid {receiver}");
    row("messages", &count(acked.lines), &format!("one a line, the input {times}"));
    row("seconds", &format!("{seconds:.2}"), "until all of them were acknowledged");
    row("messages/s", &rate, "with the digest made on both sides");
    row("MB/s", &megabytes, "of payload, in millions of bytes");
    row("digest", &format!("{:016x}", acked.digest), "the same on both sides: nothing lost,");
    row("", "", "added, changed or out of order");
}

/// The outcome of the ping-pong.
pub(crate) fn round_trips(mut times: Vec<Duration>, receiver: u32) {
    times.sort_unstable();
    println!("\nPING-PONG  one line out, its acknowledgement back, with pid {receiver}");
    row("round trips", &count(times.len() as u64), "one at a time, each digest compared");
    for (name, per_mille, words) in [
        ("p50", 500, "half of them took no longer"),
        ("p90", 900, "9 of 10"),
        ("p99", 990, "99 of 100"),
        ("p99.9", 999, "999 of 1000"),
        ("max", 1000, "all of them"),
    ] {
        row(name, &microseconds(percentile(&times, per_mille)), words);
    }
}

/// What the region's file says, while both processes use it.
pub(crate) fn inspection(image: &Image) {
    let alive = image.endpoint_count(Liveness::Alive);
    println!("\nINSPECT    the file, read by the library without a lock or a mapping");
    let health = match image.health() {
        Health::Healthy => "healthy".to_owned(),
        health => format!("{health:?}"),
    };
    println!("  {health}: {} rings, {alive} endpoints alive", image.rings().len());
    image.problems().iter().for_each(|problem| println!("  {problem}"));
    println!("\n  RING  KIND    WAITING   CAPACITY        SENT    RECEIVED  FOUND FULL");
    image.rings().iter().for_each(ring);
    println!("\n  RING  END           PID  IS");
    image.endpoints().iter().for_each(endpoint);
}

fn ring(ring: &RingView) {
    let Some(control) = &ring.control else { return };
    let kind = ring.entry.ring_kind().map_or("unknown", |kind| kind.name());
    let waiting = ring.depth.and_then(|depth| depth.msgs).map_or("-".to_owned(), count);
    let (number, capacity) = (ring.ring, count(ring.entry.capacity));
    let (sent, received) = (count(control.sent_msgs), count(control.received_msgs));
    let full = count(control.full_events);
    println!(
        "  {number:<4}  {kind:<6}{waiting:>9}{capacity:>11}{sent:>12}{received:>12}{full:>12}"
    );
}

fn endpoint(endpoint: &EndpointView) {
    let role = endpoint.role().map_or("unknown".to_owned(), |role| format!("{role:?}"));
    let liveness = format!("{:?}", endpoint.liveness).to_lowercase();
    let (ring, pid) = (endpoint.fields.ring, endpoint.fields.pid);
    println!("  {ring:<4}  {:<8}{pid:>9}  {liveness}", role.to_lowercase());
}

fn row(name: &str, value: &str, words: &str) {
    println!("  {name:<12}{value:>16}  {words}");
}

/// The shortest time that `per_mille` of a thousand did not exceed.
fn percentile(sorted: &[Duration], per_mille: usize) -> Duration {
    let rank = (sorted.len() * per_mille).div_ceil(1000).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn microseconds(time: Duration) -> String {
    format!("{:.2} µs", time.as_secs_f64() * 1e6)
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
