//! A host shares work out to three workers, each a process with a pair of rings of its own: one for what is to be
//! done, one for what came out. A worker may be killed at any time: what it had not done goes to the others.
//!
//! ```text
//! cargo run --release --example workers -- [LIMIT]
//! ```
//!
//! The workers count the primes below LIMIT. The program starts itself as its workers, with the region's name
//! and the worker's number as arguments.

use std::collections::VecDeque;
use std::env;
use std::error::Error;
use std::ops::Range;
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use tombolo::ends::Waitable;
use tombolo::options::{CreatePolicy, RingOptions};
use tombolo::{
    Deadline, EventsRegion, OpenOptions, SendError, SpscReceiver, SpscSender, TryRecvError,
    wait_any,
};

const WORKERS: u32 = 3;
/// Numbers in one part of the work.
const PART_LEN: u64 = 10_000;
/// Parts that a worker has at a time, so that it never waits for the host.
const PARTS_AHEAD: usize = 2;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let done = match &arguments[..] {
        [] => host(2_000_000),
        [limit] => limit.parse().map_err(Into::into).and_then(host),
        [name, number] => number.parse().map_err(Into::into).and_then(|number| work(name, number)),
        _ => Err("usage: workers [LIMIT]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("workers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The rings of a worker: parts go to it on the first, counts come back on the second.
fn rings_of(worker: u32) -> (u32, u32) {
    (2 * worker, 2 * worker + 1)
}

/// A worker as the host sees it.
struct Worker {
    number: u32,
    process: Child,
    parts: SpscSender,
    counts: SpscReceiver,
    /// What it has and has not answered, in its order.
    under_way: VecDeque<Range<u64>>,
}

fn host(limit: u64) -> Result<(), Box<dyn Error>> {
    // Both kinds of messages are short, so the smallest rings will do. There is no ring without a use.
    let parts = || RingOptions::spsc().capacity(4096).max_message(16);
    let counts = || RingOptions::spsc().capacity(4096).max_message(8);
    let new = OpenOptions::new().policy(CreatePolicy::CreateNew);
    let options = (0..WORKERS).fold(new, |options, _| options.ring(parts()).ring(counts()));
    let name = format!("workers-{}", std::process::id());
    let region = EventsRegion::open_with(&name, options)?;
    let counted = count(&region, &name, limit);
    if let Some(path) = region.path() {
        std::fs::remove_file(path)?; // the region is not needed any more
    }
    println!("{} primes below {limit}", counted?);
    Ok(())
}

fn count(region: &EventsRegion, name: &str, limit: u64) -> Result<u64, Box<dyn Error>> {
    let workers = (0..WORKERS).map(|number| Worker::start(region, name, number));
    let mut workers = workers.collect::<Result<Vec<_>, _>>()?;
    let starts = (0..limit).step_by(PART_LEN as usize);
    let mut left: VecDeque<_> = starts.map(|start| start..limit.min(start + PART_LEN)).collect();
    let mut primes = 0;
    while !left.is_empty() || workers.iter().any(|worker| !worker.under_way.is_empty()) {
        for worker in &mut workers {
            worker.give(&mut left)?;
        }
        let mut counts: Vec<_> =
            workers.iter_mut().map(|worker| &mut worker.counts as &mut dyn Waitable).collect();
        let ready = wait_any(&mut counts, Deadline::NEVER)?;
        match workers[ready].counts.try_recv() {
            Ok(message) => {
                primes += number(&message.data)?;
                workers[ready].under_way.pop_front();
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => {
                let worker = workers.remove(ready);
                println!(
                    "worker {} is gone, {} parts go to others",
                    worker.number,
                    worker.under_way.len()
                );
                left.extend(worker.end()?);
                if workers.is_empty() {
                    return Err("all workers are gone".into());
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    for worker in workers {
        worker.end()?;
    }
    Ok(primes)
}

impl Worker {
    fn start(region: &EventsRegion, name: &str, number: u32) -> Result<Self, Box<dyn Error>> {
        let (parts, counts) = rings_of(number);
        let (parts, mut counts) = (region.spsc_sender(parts)?, region.spsc_receiver(counts)?);
        let process =
            Command::new(env::current_exe()?).args([name, &number.to_string()]).spawn()?;
        println!("worker {number} is process {}", process.id());
        counts.wait_for_peer(Duration::from_secs(10))?; // from here on it is known if it goes
        Ok(Self { number, process, parts, counts, under_way: VecDeque::new() })
    }

    /// Gives it what it can have now.
    fn give(&mut self, left: &mut VecDeque<Range<u64>>) -> Result<(), Box<dyn Error>> {
        while self.under_way.len() < PARTS_AHEAD
            && let Some(part) = left.pop_front()
        {
            let message = [part.start.to_le_bytes(), part.end.to_le_bytes()].concat();
            self.under_way.push_back(part);
            match self.parts.send(&message) {
                // A worker that is gone is found when its counts are waited for.
                Ok(()) | Err(SendError::Disconnected(())) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Lets it end, as no more parts come; gives what it has not done.
    fn end(mut self) -> Result<VecDeque<Range<u64>>, Box<dyn Error>> {
        drop(self.parts);
        self.process.wait()?;
        Ok(self.under_way)
    }
}

/// What a worker does until the host has no more parts, or is gone.
fn work(name: &str, worker: u32) -> Result<(), Box<dyn Error>> {
    let region =
        EventsRegion::open_with(name, OpenOptions::new().policy(CreatePolicy::OpenExisting))?;
    let (parts, counts) = rings_of(worker);
    let (mut parts, mut counts) = (region.spsc_receiver(parts)?, region.spsc_sender(counts)?);
    parts.attach()?;
    counts.attach()?; // the host waits for this
    for part in parts.iter() {
        let bytes = part?.data;
        let (start, end) = bytes.split_at_checked(8).ok_or("a part of the wrong length")?;
        let primes = (number(start)?..number(end)?).filter(|number| is_prime(*number)).count();
        match counts.send(&(primes as u64).to_le_bytes()) {
            Err(SendError::Disconnected(())) => break,
            sent => sent?,
        }
    }
    Ok(())
}

fn number(bytes: &[u8]) -> Result<u64, Box<dyn Error>> {
    Ok(u64::from_le_bytes(bytes.try_into()?))
}

fn is_prime(number: u64) -> bool {
    let divisors = (2..).take_while(|divisor| divisor * divisor <= number);
    number > 1 && divisors.into_iter().all(|divisor| !number.is_multiple_of(divisor))
}
