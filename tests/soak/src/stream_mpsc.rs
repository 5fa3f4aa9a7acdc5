//! Three producers of one ring, and a long stream of messages: all arrive once, each producer's in
//! its order.
//!
//! A message's first byte names its producer, what follows is the producer's own content. Empty
//! messages name nobody, and are counted.

use std::path::{Path, PathBuf};

use tombolo::{EventsRegion, MpscConsumer, TryRecvError};

use crate::content::{Content, MESSAGE_LEN_MAX};
use crate::figures::{self, Figures};
use crate::sending::{Batch, PATIENCE, Way};
use crate::stream::{join, overall_limit, settled_ring};
use crate::{Failure, Process, Report, Rng, Role, Run, Setting, required, scratch};

const PRODUCERS: u64 = 3;

/// The run.
pub(crate) const RUN: Run = Run {
    name: "stream-mpsc",
    about: "three producers, 2,000,000 messages of 0 to 65,536 bytes: each once, in its order, whole",
    body,
    roles: &[
        Role { name: "stream-mpsc.send", body: send },
        Role { name: "stream-mpsc.receive", body: receive },
    ],
};

fn body(setting: &Setting) -> Result<Report, Failure> {
    let directory = scratch()?;
    let path = directory.path().join("stream.tombolo");
    let found = directory.path().join("figures");
    drop(EventsRegion::open_path(&path)?);
    let each = setting.count(2_000_000, 100_000).div_ceil(PRODUCERS);
    let (path_text, found_text) = (path.to_string_lossy(), found.to_string_lossy());
    let (count, seed) = (each.to_string(), setting.seed.to_string());
    let arguments = [&*path_text, &*count, &*seed, &*found_text];
    let receiver = Process::start(setting, "stream-mpsc.receive", &arguments)?;
    let mut senders = Vec::new();
    for producer in 0..PRODUCERS {
        let arguments = [&*path_text, &*count, &*seed, &producer.to_string()];
        senders.push(Process::start(setting, "stream-mpsc.send", &arguments)?);
    }
    for sender in senders {
        sender.finish(overall_limit(each * PRODUCERS))?;
    }
    receiver.finish(PATIENCE * 2)?;
    report(&path, &figures::load(&found)?)
}

fn report(path: &Path, figures: &Figures) -> Result<Report, Failure> {
    let (control, entry) = settled_ring(path, 1)?;
    let mut report = Report::new();
    figures.iter().for_each(|(name, number)| report.count(name, *number));
    report.note("times that the ring was full", control.full_events);
    report.count("laps of the ring", control.tail / entry.capacity);
    report.note("locks taken over", control.lock_breaks);
    Ok(report)
}

/// The content of one producer's messages.
fn content_of(seed: u64, producer: u64) -> Content {
    Content::new(Rng::of_part(seed, producer).number())
}

fn send(arguments: &[String]) -> Result<(), Failure> {
    let (path, count): (String, u64) = (required(arguments, 0)?, required(arguments, 1)?);
    let (seed, producer): (u64, u64) = (required(arguments, 2)?, required(arguments, 3)?);
    let mut region = join(&path)?;
    let (mut sender, _) = region.split_mpsc()?;
    let content = content_of(seed, producer);
    let mut rng = Rng::of_part(!seed, producer);
    let mut batch = Batch::default();
    let mut next = 1;
    while next <= count {
        let wanted = if let Way::Batch(wanted) = Way::draw(rng.number()) { wanted } else { 1 };
        let end = (next + wanted).min(count + 1);
        batch.clear();
        for number in next..end {
            batch.add(content.len(number), |message| write(&content, producer, number, message));
        }
        batch.send(&mut sender)?;
        next = end;
    }
    Ok(())
}

fn write(content: &Content, producer: u64, number: u64, message: &mut [u8]) {
    if let Some((first, rest)) = message.split_first_mut() {
        *first = producer as u8;
        content.write(number, 0, rest);
    }
}

fn receive(arguments: &[String]) -> Result<(), Failure> {
    let (path, count): (String, u64) = (required(arguments, 0)?, required(arguments, 1)?);
    let (seed, found): (u64, PathBuf) = (required(arguments, 2)?, required(arguments, 3)?);
    let mut region = join(&path)?;
    let (_, mut receiver) = region.split_mpsc()?;
    let producers = (0..PRODUCERS).map(|producer| Incoming::new(content_of(seed, producer)));
    let mut incoming: Vec<_> = producers.collect();
    let mut room = vec![0; MESSAGE_LEN_MAX];
    let (mut bytes, mut empty, mut changes, mut last) = (0, 0, 0, 0);
    for number in 0..count * PRODUCERS {
        let message = take(&mut receiver, number, &mut room)?;
        bytes += message.len() as u64;
        let Some((producer, message)) = message.split_first() else {
            empty += 1;
            continue;
        };
        let from = incoming.get_mut(usize::from(*producer));
        from.ok_or_else(|| format!("a message of producer {producer}"))?.judge(message)?;
        changes += u64::from(*producer != last);
        last = *producer;
    }
    expect_end(&mut receiver, &mut incoming, count, empty)?;
    let figures = [
        ("messages", count * PRODUCERS),
        ("bytes", bytes),
        ("empty messages", empty),
        ("changes from one producer to another", changes),
    ];
    figures::save(&found, &figures)
}

/// Takes a message, every other one in place.
fn take<'a>(
    receiver: &mut MpscConsumer,
    number: u64,
    room: &'a mut [u8],
) -> Result<&'a [u8], Failure> {
    let len = if number.is_multiple_of(2) {
        receiver.recv_into_timeout(room, PATIENCE)?
    } else {
        receiver.recv_ref_timeout(PATIENCE)?.copy_to(room)?
    };
    Ok(&room[..len])
}

/// All that was sent has come, and nothing else.
fn expect_end(
    receiver: &mut MpscConsumer,
    incoming: &mut [Incoming],
    count: u64,
    empty: u64,
) -> Result<(), Failure> {
    match receiver.try_recv() {
        Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        other => return Err(format!("after the last message: {other:?}").into()),
    }
    let missing = incoming.iter_mut().map(|from| from.missing(count)).sum::<u64>();
    let skipped = incoming.iter().map(|from| from.empty).sum::<u64>();
    if missing != 0 || skipped != empty {
        return Err(format!("{missing} lost; {empty} empty ones of {skipped}").into());
    }
    Ok(())
}

/// What came from one producer.
struct Incoming {
    content: Content,
    /// The message expected next.
    next: u64,
    /// Empty ones before it.
    empty: u64,
}

impl Incoming {
    fn new(content: Content) -> Self {
        Self { content, next: 1, empty: 0 }
    }

    /// Whether `message`, without its first byte, is the one expected.
    fn judge(&mut self, message: &[u8]) -> Result<(), Failure> {
        self.pass_empty(u64::MAX);
        let (number, wanted) = (self.next, self.content.len(self.next) - 1);
        if message.len() != wanted {
            let found = message.len();
            return Err(format!("message {number}: {found} bytes, {wanted} were sent").into());
        }
        self.next += 1;
        self.content.check(number, message)
    }

    /// Passes over the empty messages that come next, up to message `count`.
    fn pass_empty(&mut self, count: u64) {
        while self.next <= count && self.content.len(self.next) == 0 {
            self.next += 1;
            self.empty += 1;
        }
    }

    /// How many of `count` messages have not come, but for empty ones.
    fn missing(&mut self, count: u64) -> u64 {
        self.pass_empty(count);
        count + 1 - self.next
    }
}
