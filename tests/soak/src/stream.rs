//! Two processes, and a long stream of messages of all lengths: all arrive once, in order.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tombolo::inspect::{Health, Image};
use tombolo::options::CreatePolicy;
use tombolo::{EventsRegion, OpenOptions, SpscReceiver, SpscSender, TryRecvError};
use tombolo_abi::{RingControl, RingEntry, RingKind};

use crate::content::{Content, MESSAGE_LEN_MAX};
use crate::figures::{self, Figures};
use crate::sending::{Batch, PATIENCE, Way, send_in_place};
use crate::{Failure, Process, Report, Rng, Role, Run, Setting, required, scratch};

/// Messages received in one way before another one is drawn.
const BLOCK: u64 = 1000;

/// The run.
pub(crate) const RUN: Run = Run {
    name: "stream",
    about: "two processes, 10,000,000 messages of 0 to 65,536 bytes: each once, in order, whole",
    body,
    roles: &[
        Role { name: "stream.send", body: send },
        Role { name: "stream.receive", body: receive },
    ],
};

fn body(setting: &Setting) -> Result<Report, Failure> {
    let directory = scratch()?;
    let path = directory.path().join("stream.tombolo");
    let found = directory.path().join("figures");
    drop(EventsRegion::open_path(&path)?);
    let count = setting.count(10_000_000, 100_000);
    let (path_text, found_text) = (path.to_string_lossy(), found.to_string_lossy());
    let (count_text, seed) = (count.to_string(), setting.seed.to_string());
    let common = [&*path_text, &*count_text, &*seed];
    let receiver =
        Process::start(setting, "stream.receive", &[&common[..], &[&*found_text]].concat())?;
    let sender = Process::start(setting, "stream.send", &common)?;
    sender.finish(overall_limit(count))?;
    receiver.finish(PATIENCE * 2)?;
    report(&path, &figures::load(&found)?)
}

/// Generous: each single message has a limit of its own.
pub(crate) fn overall_limit(count: u64) -> Duration {
    Duration::from_secs(60 + count / 1000)
}

fn report(path: &Path, figures: &Figures) -> Result<Report, Failure> {
    let (control, entry) = settled_ring(path, 0)?;
    let mut report = Report::new();
    figures.iter().for_each(|(name, number)| report.count(name, *number));
    report.note("times that the ring was full", control.full_events);
    report.count("laps of the ring", control.tail / entry.capacity);
    Ok(report)
}

/// The control block and the directory entry of a ring in a sound region that nobody uses any
/// more. The tail of a lane whose producer was killed may be behind by one batch, as long as no other
/// has claimed the lane after that: on other rings, one has.
///
/// # Errors
/// Where it is not sound, or the ring is not empty.
pub(crate) fn settled_ring(path: &Path, ring: usize) -> Result<(RingControl, RingEntry), Failure> {
    let image = Image::open(path)?;
    if image.health() != Health::Healthy {
        return Err(format!("the region is {:?}: {:?}", image.health(), image.problems()).into());
    }
    let ring = image.rings().get(ring).ok_or("no such ring")?;
    let control = ring.control.ok_or("no control block")?;
    let is_lane = ring.entry.ring_kind() == Some(RingKind::Lane);
    let lag_max = if is_lane { ring.entry.capacity } else { 0 };
    if control.head.wrapping_sub(control.tail) > lag_max {
        return Err(format!("head {} and tail {} differ", control.head, control.tail).into());
    }
    Ok((control, ring.entry))
}

/// The same of all rings for many producers, added up: one, or the lanes of a group.
///
/// # Errors
/// As [`settled_ring`].
pub(crate) fn settled_rings_of_many(path: &Path) -> Result<Totals, Failure> {
    let count = Image::open(path)?.rings().len();
    let mut totals = Totals::default();
    for ring in 1..count {
        let (control, entry) = settled_ring(path, ring)?;
        totals.messages += control.sent_msgs;
        totals.full_events += control.full_events;
        totals.laps += control.tail / entry.capacity;
        totals.lock_breaks += control.lock_breaks;
    }
    Ok(totals)
}

/// What rings have counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) messages: u64,
    pub(crate) full_events: u64,
    pub(crate) laps: u64,
    pub(crate) lock_breaks: u64,
}

/// Joins the region at `path`, which is there.
///
/// # Errors
/// The region's.
pub(crate) fn join(path: &str) -> Result<EventsRegion, Failure> {
    let options = OpenOptions::new().policy(CreatePolicy::OpenExisting);
    Ok(EventsRegion::open_path_with(PathBuf::from(path), options)?)
}

fn send(arguments: &[String]) -> Result<(), Failure> {
    let (path, count, seed): (String, u64, u64) =
        (required(arguments, 0)?, required(arguments, 1)?, required(arguments, 2)?);
    let mut region = join(&path)?;
    let (mut sender, _) = region.split_spsc()?;
    let content = Content::new(seed);
    let mut rng = Rng::new(seed);
    let mut batch = Batch::default();
    let mut next = 1;
    while next <= count {
        let way = Way::draw(rng.number());
        next += send_some(&mut sender, &content, way, next..count + 1, &mut batch)?;
    }
    Ok(())
}

/// Sends the first of `numbers` in one way, and gives how many.
fn send_some(
    sender: &mut SpscSender,
    content: &Content,
    way: Way,
    numbers: std::ops::Range<u64>,
    batch: &mut Batch,
) -> Result<u64, Failure> {
    if way == Way::Claim {
        let mut message = [0; MESSAGE_LEN_MAX];
        let message = &mut message[..content.len(numbers.start)];
        content.write(numbers.start, 0, message);
        send_in_place(sender, message)?;
        return Ok(1);
    }
    let wanted = if let Way::Batch(count) = way { count } else { 1 };
    let count = wanted.min(numbers.end - numbers.start);
    batch.clear();
    for number in numbers.start..numbers.start + count {
        batch.add(content.len(number), |message| content.write(number, 0, message));
    }
    batch.send(sender)?;
    Ok(count)
}

fn receive(arguments: &[String]) -> Result<(), Failure> {
    let (path, count, seed): (String, u64, u64) =
        (required(arguments, 0)?, required(arguments, 1)?, required(arguments, 2)?);
    let found: PathBuf = required(arguments, 3)?;
    let mut region = join(&path)?;
    let (_, receiver) = region.split_spsc()?;
    let mut rng = Rng::new(!seed);
    let mut incoming = Incoming::new(receiver, Content::new(seed));
    while incoming.next <= count {
        let block = BLOCK.min(count - incoming.next + 1);
        match rng.below(3) {
            0 => incoming.take_copies(block)?,
            1 => incoming.take_in_place(block)?,
            _ => incoming.take_drained(block)?,
        }
    }
    incoming.expect_nothing()?;
    figures::save(&found, &incoming.figures())
}

/// The receiving side, with what it has seen.
struct Incoming {
    receiver: SpscReceiver,
    content: Content,
    room: Vec<u8>,
    next: u64,
    bytes: u64,
    copied: u64,
    in_place: u64,
    drained: u64,
    paddings: u64,
}

impl Incoming {
    fn new(receiver: SpscReceiver, content: Content) -> Self {
        let room = vec![0; MESSAGE_LEN_MAX];
        let (next, bytes, copied, in_place, drained, paddings) = (1, 0, 0, 0, 0, 0);
        Self { receiver, content, room, next, bytes, copied, in_place, drained, paddings }
    }

    fn take_copies(&mut self, count: u64) -> Result<(), Failure> {
        for _ in 0..count {
            let len = self.receiver.recv_into_timeout(&mut self.room, PATIENCE)?;
            judge(&self.content, self.next, &self.room[..len])?;
            self.bytes += len as u64;
            self.next += 1;
        }
        self.copied += count;
        Ok(())
    }

    fn take_in_place(&mut self, count: u64) -> Result<(), Failure> {
        let mut expected = None;
        for _ in 0..count {
            let record = self.receiver.recv_ref_timeout(PATIENCE)?;
            let (position, len) = (record.position(), record.copy_to(&mut self.room)?);
            judge(&self.content, self.next, &self.room[..len])?;
            drop(record);
            self.paddings += u64::from(expected.is_some_and(|expected| expected != position));
            expected = Some(position + (8 + len as u64).next_multiple_of(8));
            self.bytes += len as u64;
            self.next += 1;
        }
        self.in_place += count;
        Ok(())
    }

    fn take_drained(&mut self, count: u64) -> Result<(), Failure> {
        let end = self.next + count;
        while self.next < end {
            let limit = (end - self.next) as usize;
            let Self { receiver, content, room, next, bytes, .. } = self;
            let mut outcome = Ok(());
            let taken = receiver.drain(limit, |record| {
                let message = record.copy_to(room).map(|len| &room[..len]);
                let judged = message.map_err(Failure::from).and_then(|message| {
                    *bytes += message.len() as u64;
                    judge(content, *next, message)
                });
                outcome = std::mem::replace(&mut outcome, Ok(())).and(judged);
                *next += 1;
            })?;
            outcome?;
            self.drained += taken as u64;
            if taken == 0 {
                self.take_copies(1)?; // waits
            }
        }
        Ok(())
    }

    fn expect_nothing(&mut self) -> Result<(), Failure> {
        match self.receiver.try_recv() {
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => Ok(()),
            other => Err(format!("after the last message: {other:?}").into()),
        }
    }

    fn figures(&self) -> [(&'static str, u64); 6] {
        [
            ("messages", self.next - 1),
            ("bytes", self.bytes),
            ("messages copied out", self.copied),
            ("messages looked at in place", self.in_place),
            ("messages drained", self.drained),
            ("paddings seen", self.paddings),
        ]
    }
}

/// Whether `message` is message `number`: its length, its number, its checksum, each byte.
fn judge(content: &Content, number: u64, message: &[u8]) -> Result<(), Failure> {
    let wanted = content.len(number);
    if message.len() != wanted {
        let found = message.len();
        return Err(format!("message {number}: {found} bytes, {wanted} were sent").into());
    }
    content.check(number, message)
}
