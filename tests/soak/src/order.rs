//! Four producers of one ring, and one order: a send that returned before another one began, in
//! whatever process, comes first.
//!
//! Each producer keeps, in a word that all of them share, how many of its sends have returned, by
//! messages. Before a send it looks at all these words and puts them into the message, as its
//! *stamp*. So whoever receives the message must have received that many from each producer. A
//! batch is one send: its messages have one stamp, and count when all of them are sent.
//!
//! | message | bytes |
//! |---|---|
//! | producer | 8 |
//! | stamp: a count for each producer | 32 |
//! | content, marked with a checksum of the above | 16 or more |

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::thread;
use std::time::{Duration, Instant};

use tombolo::{EventsRegion, OpenOptions, TryRecvError};

use crate::content::{Content, HEAD_LEN, number_of, word_at};
use crate::figures::{self, Figures};
use crate::sending::{Batch, PATIENCE};
use crate::shared_words::SharedWords;
use crate::stream::{join, overall_limit, settled_ring};
use crate::{Failure, Process, Report, Rng, Role, Run, Setting, required, scratch};

const PRODUCERS: usize = 4;
/// The line of the count of producers that are ready.
const READY_LINE: usize = PRODUCERS;
/// Bytes of the ring: a few hundred messages, so that it is full now and then.
const CAPACITY: u64 = 1 << 16;
/// Bytes in front of the content.
const STAMP_LEN: usize = 8 * (1 + PRODUCERS);
/// Bytes of a message.
const LEN_MIN: usize = STAMP_LEN + HEAD_LEN;
const LEN_MAX: usize = 400;
/// Most messages in a batch.
const BATCH_MAX: u64 = 12;
/// In how many of a hundred sends a producer first lets the others send.
const TURNS_PERCENT: u64 = 10;
/// How often it looks for that.
const LOOKS: usize = 8;

/// The run.
pub(crate) const RUN: Run = Run {
    name: "order",
    about: "four producers, 10,000,000 messages: in the order in which their sends returned",
    body,
    roles: &[
        Role { name: "order.send", body: send },
        Role { name: "order.receive", body: receive },
    ],
};

fn body(setting: &Setting) -> Result<Report, Failure> {
    let directory = scratch()?;
    let at = |name| directory.path().join(name).to_string_lossy().into_owned();
    let (path, words, found) = (at("order.tombolo"), at("words"), at("figures"));
    drop(EventsRegion::open_path_with(&path, OpenOptions::new().mpsc_capacity(CAPACITY))?);
    drop(SharedWords::create(words.as_ref(), PRODUCERS + 1)?);
    let each = setting.count(10_000_000, 100_000) / PRODUCERS as u64;
    let (count, seed) = (each.to_string(), setting.seed.to_string());
    let receiver = Process::start(setting, "order.receive", &[&*path, &*count, &*seed, &*found])?;
    let mut senders = Vec::new();
    for producer in 0..PRODUCERS {
        let arguments = [&*path, &*count, &*seed, &*words, &producer.to_string()];
        senders.push(Process::start(setting, "order.send", &arguments)?);
    }
    for sender in senders {
        sender.finish(overall_limit(each * PRODUCERS as u64))?;
    }
    receiver.finish(PATIENCE * 2)?;
    report(path.as_ref(), &figures::load(found.as_ref())?)
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

/// The messages of one producer.
fn content_of(seed: u64, producer: usize) -> Content {
    Content::new(Rng::of_part(seed, producer as u64).number())
}

/// Bytes of message `number`.
fn len(content: &Content, number: u64) -> usize {
    LEN_MIN + content.rng(number).below((LEN_MAX - LEN_MIN + 1) as u64) as usize
}

/// How many messages of each producer had been sent before a send began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stamp {
    producer: usize,
    returned: [u64; PRODUCERS],
}

impl Stamp {
    /// What `producer` sees now.
    fn take(words: &SharedWords, producer: usize) -> Self {
        Self { producer, returned: std::array::from_fn(|line| words.word(line, 0).load(Acquire)) }
    }

    /// Writes message `number` of its producer.
    fn write(&self, content: &Content, number: u64, message: &mut [u8]) {
        let (head, rest) = message.split_at_mut(STAMP_LEN);
        for (room, word) in head.as_chunks_mut::<8>().0.iter_mut().zip(self.words()) {
            *room = word.to_le_bytes();
        }
        content.write(number, self.checksum(), rest);
    }

    /// The stamp in `message`.
    fn read(message: &[u8]) -> Result<Self, Failure> {
        if message.len() < LEN_MIN {
            return Err(format!("a message of {} bytes", message.len()).into());
        }
        let producer = usize::try_from(word_at(message, 0))?;
        let returned = std::array::from_fn(|index| word_at(message, 8 + 8 * index));
        let (stamp, first) = (Self { producer, returned }, word_at(message, STAMP_LEN));
        if producer >= PRODUCERS || first ^ number_of(first) != stamp.checksum() << 40 {
            return Err(format!("{stamp:?} is damaged, {first:#x} follows").into());
        }
        Ok(stamp)
    }

    fn words(&self) -> impl Iterator<Item = u64> {
        std::iter::once(self.producer as u64).chain(self.returned)
    }

    /// 24 bits.
    fn checksum(&self) -> u64 {
        self.words().fold(0, |sum, word| Rng::of_part(sum, word).number()) >> 40
    }
}

/// Sends: path, how many, seed, words, which producer.
fn send(arguments: &[String]) -> Result<(), Failure> {
    let (path, count): (String, u64) = (required(arguments, 0)?, required(arguments, 1)?);
    let (seed, words): (u64, PathBuf) = (required(arguments, 2)?, required(arguments, 3)?);
    let producer: usize = required(arguments, 4)?;
    let words = SharedWords::open(&words)?;
    let content = content_of(seed, producer);
    let mut rng = Rng::new(!content.rng(0).number());
    let mut region = join(&path)?;
    let (mut sender, _) = region.split_mpsc()?;
    sender.attach()?;
    start_together(&words)?;
    let mut batch = Batch::default();
    let mut sent = 0;
    while sent < count {
        let wanted = if rng.percent(20) { 2 + rng.below(BATCH_MAX - 1) } else { 1 };
        let numbers = sent + 1..(sent + wanted).min(count) + 1;
        if rng.percent(TURNS_PERCENT) {
            wait_for_news(&words, producer);
        }
        let stamp = Stamp::take(&words, producer);
        batch.clear();
        for number in numbers.clone() {
            batch.add(len(&content, number), |message| stamp.write(&content, number, message));
        }
        batch.send(&mut sender)?;
        sent = numbers.end - 1;
        words.word(producer, 0).store(sent, Release);
    }
    Ok(())
}

/// Waits until all producers are ready.
fn start_together(words: &SharedWords) -> Result<(), Failure> {
    let ready = words.word(READY_LINE, 0);
    ready.fetch_add(1, AcqRel);
    let deadline = Instant::now() + PATIENCE;
    while ready.load(Acquire) < PRODUCERS as u64 {
        if Instant::now() > deadline {
            return Err("the other producers did not start".into());
        }
        thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

/// Gives way until a send of somebody else has returned, but not for long.
fn wait_for_news(words: &SharedWords, producer: usize) {
    let before = Stamp::take(words, producer);
    for _ in 0..LOOKS {
        thread::yield_now();
        if Stamp::take(words, producer) != before {
            break;
        }
    }
}

/// Receives: path, how many of each producer, seed, where to leave the figures.
fn receive(arguments: &[String]) -> Result<(), Failure> {
    let (path, count): (String, u64) = (required(arguments, 0)?, required(arguments, 1)?);
    let (seed, found): (u64, PathBuf) = (required(arguments, 2)?, required(arguments, 3)?);
    let mut region = join(&path)?;
    let (_, mut receiver) = region.split_mpsc()?;
    let mut incoming = Incoming::new(seed);
    let mut room = [0; LEN_MAX];
    for _ in 0..count * PRODUCERS as u64 {
        let len = receiver.recv_into_timeout(&mut room, PATIENCE)?;
        incoming.judge(&room[..len])?;
    }
    match receiver.try_recv() {
        Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        other => return Err(format!("after the last message: {other:?}").into()),
    }
    incoming.expect_each(count)?;
    figures::save(&found, &incoming.figures())
}

/// What has come.
struct Incoming {
    contents: [Content; PRODUCERS],
    received: [u64; PRODUCERS],
    /// The last stamp of each producer.
    stamps: [Stamp; PRODUCERS],
    bytes: u64,
    batched: u64,
    changes: u64,
    last: usize,
    news: u64,
    tight: u64,
}

impl Incoming {
    fn new(seed: u64) -> Self {
        let contents = std::array::from_fn(|producer| content_of(seed, producer));
        let (received, stamps) = Default::default();
        let (bytes, batched, changes, last, news, tight) = (0, 0, 0, 0, 0, 0);
        Self { contents, received, stamps, bytes, batched, changes, last, news, tight }
    }

    /// Whether `message` is its producer's next, whole, and behind all that it must follow.
    fn judge(&mut self, message: &[u8]) -> Result<(), Failure> {
        let stamp = Stamp::read(message)?;
        let own = stamp.producer;
        let (content, number) = (&self.contents[own], self.received[own] + 1);
        let context = |error| format!("message {number}, {stamp:?}: {error}");
        content.check(number, &message[STAMP_LEN..]).map_err(|error| context(error.to_string()))?;
        if message.len() != len(content, number) {
            return Err(context(format!("{} bytes", message.len())).into());
        }
        let previous = std::mem::replace(&mut self.stamps[own], stamp);
        if stamp.returned[own] != self.received[own] {
            if stamp != previous {
                return Err(context("neither the first of its send nor of the same".into()).into());
            }
            self.batched += 1;
        }
        self.compare(&stamp, &previous).map_err(|error| context(error.to_string()))?;
        self.received[own] = number;
        self.bytes += message.len() as u64;
        self.changes += u64::from(own != std::mem::replace(&mut self.last, own));
        Ok(())
    }

    /// Whether as many have come of each other producer as `stamp` says; `previous` is the one
    /// before, of the same producer.
    fn compare(&mut self, stamp: &Stamp, previous: &Stamp) -> Result<(), Failure> {
        for other in (0..PRODUCERS).filter(|other| *other != stamp.producer) {
            let (received, returned) = (self.received[other], stamp.returned[other]);
            if received < returned {
                let error = format!("only {received} of producer {other} have come before it");
                return Err(error.into());
            }
            let is_news = returned > previous.returned[other];
            self.news += u64::from(is_news);
            self.tight += u64::from(is_news && received == returned);
        }
        Ok(())
    }

    /// Nothing is missing, and nothing too much.
    fn expect_each(&self, count: u64) -> Result<(), Failure> {
        if self.received != [count; PRODUCERS] {
            return Err(format!("{:?} came, {count} of each were sent", self.received).into());
        }
        Ok(())
    }

    fn figures(&self) -> [(&'static str, u64); 6] {
        [
            ("messages", self.received.iter().sum()),
            ("bytes", self.bytes),
            ("messages behind the first of a batch", self.batched),
            ("changes from one producer to another", self.changes),
            ("comparisons with news of another producer", self.news),
            ("of these, with that producer's last message so far", self.tight),
        ]
    }
}
