//! What a process does that opens a region: it waits to be told, opens, says what it got, and
//! proves that it can use it.
//!
//! It hears through its standard input, a byte a step, and ends where that ends. It says what it
//! did in lines on its standard output, each of which starts with its number.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tombolo::ends::Topology;
use tombolo::options::{CreatePolicy, Disconnect};
use tombolo::{EventsRegion, OpenOptions, Receiver};

use crate::{Failure, Role, required};

/// The role of this module.
pub(super) const ROLE: Role = Role { name: "creation-opener", body: serve };

/// How long to wait for a message of another opener.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an opener got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// Whether it made the region.
    pub(crate) creator: bool,
    /// The region's id.
    pub(crate) uuid: u128,
    /// The region's generation.
    pub(crate) generation: u64,
    /// When it began to open, by the system's monotonic clock.
    pub(crate) started_ns: u64,
    /// When it had the region.
    pub(crate) ended_ns: u64,
}

impl Opened {
    /// Opens by `open`, and gives the region beside what there is to say of it.
    pub(crate) fn by(
        open: impl FnOnce() -> Result<EventsRegion, tombolo::Error>,
    ) -> Result<(EventsRegion, Self), tombolo::Error> {
        let started_ns = now_ns();
        let region = open()?;
        let opened = Self {
            creator: region.is_creator(),
            uuid: u128::from_be_bytes(region.uuid()),
            generation: region.generation(),
            started_ns,
            ended_ns: now_ns(),
        };
        Ok((region, opened))
    }
}

impl fmt::Display for Opened {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { creator, uuid, generation, started_ns, ended_ns } = self;
        write!(out, "{creator} {uuid} {generation} {started_ns} {ended_ns}")
    }
}

impl FromStr for Opened {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        Ok(Self {
            creator: required(&words, 0)?,
            uuid: required(&words, 1)?,
            generation: required(&words, 2)?,
            started_ns: required(&words, 3)?,
            ended_ns: required(&words, 4)?,
        })
    }
}

/// The time by the clock that all processes share.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// What an opener does in a region to prove that it has the same as the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Sends on the SPSC ring, and receives from this many producers of the MPSC ring.
    Leads(u8),
    /// Receives from the SPSC ring.
    Receives,
    /// Sends on the MPSC ring.
    Produces,
}

impl Part {
    /// The part as the byte that tells an opener.
    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Leads(producers) => b'0' + producers,
            Self::Receives => b'r',
            Self::Produces => b'p',
        }
    }

    fn of_byte(byte: u8) -> Self {
        match byte {
            b'r' => Self::Receives,
            b'p' => Self::Produces,
            digit => Self::Leads(digit - b'0'),
        }
    }

    fn play(self, region: &mut EventsRegion) -> Result<(), Failure> {
        let uuid = region.uuid();
        let (mut spsc_tx, mut spsc_rx) = region.split_spsc()?;
        let (mut mpsc_tx, mut mpsc_rx) = region.split_mpsc()?;
        match self {
            Self::Leads(producers) => {
                spsc_tx.send(&uuid)?;
                for _ in 0..producers {
                    check(&mut mpsc_rx, uuid)?;
                }
            }
            Self::Receives => check(&mut spsc_rx, uuid)?,
            Self::Produces => mpsc_tx.send(&uuid)?,
        }
        Ok(())
    }
}

/// Receives what an opener of the region `wanted` sends.
fn check<K: Topology>(receiver: &mut Receiver<K>, wanted: [u8; 16]) -> Result<(), Failure> {
    receiver.set_disconnect(Disconnect::Never); // one has sent and gone, and the next has not come yet
    let found = receiver.recv_timeout(PATIENCE)?.data;
    if found == wanted {
        return Ok(());
    }
    Err(format!("received {found:?} in the region {wanted:?}").into())
}

/// The options of a region with rings of `capacity` bytes.
pub(super) fn options(capacity: u64) -> OpenOptions {
    OpenOptions::new().spsc_capacity(capacity).mpsc_capacity(capacity).producers(4)
}

fn serve(arguments: &[String]) -> Result<(), Failure> {
    let number: u64 = required(arguments, 0)?;
    let path: PathBuf = required(arguments, 1)?;
    let capacity = required(arguments, 2)?;
    let policy = match required::<String>(arguments, 3)?.as_str() {
        "new" => CreatePolicy::CreateNew,
        _ => CreatePolicy::OpenOrCreate,
    };
    let options = options(capacity).policy(policy);
    match serve_steps(number, path, options) {
        Ok(()) => Ok(()),
        Err(error) => say(number, &format!("refused {error}")),
    }
}

fn serve_steps(number: u64, path: PathBuf, options: OpenOptions) -> Result<(), Failure> {
    say(number, "ready")?;
    if hear()?.is_none() {
        return Ok(());
    }
    let (mut region, opened) = Opened::by(|| {
        mark();
        let region = EventsRegion::open_path_with(path, options);
        mark();
        region
    })?;
    say(number, &format!("opened {opened}"))?;
    let Some(part) = hear()? else { return Ok(()) };
    Part::of_byte(part).play(&mut region)?;
    say(number, "used")?;
    hear().map(drop)
}

/// Makes the system call that tells a tracer where opening begins and where it ends: the library
/// never makes it.
fn mark() {
    let _ = rustix::process::getppid();
}

fn say(number: u64, text: &str) -> Result<(), Failure> {
    let line = format!("{number} {}\n", text.replace('\n', " "));
    // At once, so that the lines of many don't mix.
    let mut output = io::stdout().lock();
    output.write_all(line.as_bytes())?;
    Ok(output.flush()?)
}

fn hear() -> Result<Option<u8>, Failure> {
    let mut byte = [0];
    let count = io::stdin().lock().read(&mut byte)?;
    Ok((count > 0).then_some(byte[0]))
}
