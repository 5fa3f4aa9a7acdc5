//! 64 producer processes, each with a lane of its own, and one consumer: all messages arrive, each
//! producer's in its order.

use std::path::PathBuf;

use tombolo::options::{Disconnect, MpscOrder};
use tombolo::{EventsRegion, OpenOptions, TryRecvError};

use crate::content::word_at;
use crate::figures;
use crate::sending::PATIENCE;
use crate::stream::{join, overall_limit, settled_rings_of_many};
use crate::{Failure, Process, Report, Rng, Role, Run, Setting, required, scratch};

const PRODUCERS: u64 = 64;
/// Bytes of a lane: some hundreds of messages, so that it is full now and then.
const CAPACITY: u64 = 1 << 13;
/// Bytes of a message: its producer and its number, and what stands for content.
const LEN_MIN: usize = 16;
const LEN_MAX: u64 = 64;

/// The run.
pub(crate) const RUN: Run = Run {
    name: "lanes-many",
    about: "64 producers with a lane each, 5,000,000 messages: nothing lost, each in its order",
    body,
    roles: &[
        Role { name: "lanes-many.send", body: send },
        Role { name: "lanes-many.receive", body: receive },
    ],
};

fn body(setting: &Setting) -> Result<Report, Failure> {
    let directory = scratch()?;
    let at = |name| directory.path().join(name).to_string_lossy().into_owned();
    let (path, found) = (at("lanes.tombolo"), at("figures"));
    let options = OpenOptions::new().mpsc_order(MpscOrder::PerProducer).mpsc_capacity(CAPACITY);
    drop(EventsRegion::open_path_with(&path, options.producers(PRODUCERS as u16))?);
    let count = setting.count(5_000_000, 50_000).div_ceil(PRODUCERS);
    let (each, seed) = (count.to_string(), setting.seed.to_string());
    let receiver = Process::start(setting, "lanes-many.receive", &[&path, &each, &found])?;
    let start = |producer: u64| {
        let arguments = [&*path, &*each, &*seed, &*producer.to_string()];
        Process::start(setting, "lanes-many.send", &arguments)
    };
    let senders = (0..PRODUCERS).map(start).collect::<Result<Vec<_>, _>>()?;
    for sender in senders {
        sender.finish(overall_limit(count * PRODUCERS))?;
    }
    receiver.finish(PATIENCE * 2)?;
    let totals = settled_rings_of_many(path.as_ref())?;
    let mut report = Report::new();
    figures::load(found.as_ref())?.iter().for_each(|(name, number)| report.count(name, *number));
    if totals.messages != count * PRODUCERS {
        return Err(format!("{} messages counted by their producers", totals.messages).into());
    }
    report.count("producers", PRODUCERS);
    report.count("times that a lane was full", totals.full_events);
    report.count("laps of all lanes", totals.laps);
    Ok(report)
}

/// Sends: path, how many, seed, which producer.
fn send(arguments: &[String]) -> Result<(), Failure> {
    let (path, count): (String, u64) = (required(arguments, 0)?, required(arguments, 1)?);
    let (seed, producer): (u64, u64) = (required(arguments, 2)?, required(arguments, 3)?);
    let mut rng = Rng::of_part(seed, producer);
    let (mut sender, _) = join(&path)?.split_mpsc()?;
    let mut message = [0; LEN_MAX as usize];
    for number in 1..=count {
        message[..8].copy_from_slice(&producer.to_le_bytes());
        message[8..16].copy_from_slice(&number.to_le_bytes());
        message[16..].fill(number as u8 ^ producer as u8);
        let len = LEN_MIN + rng.below(LEN_MAX - LEN_MIN as u64 + 1) as usize;
        sender.send_timeout(&message[..len], PATIENCE)?;
    }
    Ok(())
}

/// Receives: path, how many of each producer, where to leave the figures.
fn receive(arguments: &[String]) -> Result<(), Failure> {
    let (path, count): (String, u64) = (required(arguments, 0)?, required(arguments, 1)?);
    let found: PathBuf = required(arguments, 2)?;
    let (_, mut receiver) = join(&path)?.split_mpsc()?;
    receiver.set_disconnect(Disconnect::Never); // some go before others come
    let mut received = [0; PRODUCERS as usize];
    let (mut changes, mut last, mut bytes) = (0, 0, 0);
    let mut room = [0; LEN_MAX as usize];
    for _ in 0..count * PRODUCERS {
        let len = receiver.recv_into_timeout(&mut room, PATIENCE)?;
        let message = room.get(..len).filter(|message| message.len() >= LEN_MIN);
        let message = message.ok_or_else(|| format!("a message of {len} bytes"))?;
        let (producer, number) = (word_at(message, 0), word_at(message, 8));
        let before = received.get_mut(producer as usize);
        let before = before.ok_or_else(|| format!("a message of producer {producer}"))?;
        let is_whole = message[16..].iter().all(|byte| *byte == number as u8 ^ producer as u8);
        if number != *before + 1 || !is_whole {
            return Err(format!("message {number} of producer {producer} after {before}").into());
        }
        *before = number;
        changes += u64::from(producer != std::mem::replace(&mut last, producer));
        bytes += len as u64;
    }
    match receiver.try_recv() {
        Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        other => return Err(format!("after the last message: {other:?}").into()),
    }
    let figures = [
        ("messages", received.iter().sum()),
        ("bytes", bytes),
        ("changes from one producer to another", changes),
    ];
    figures::save(&found, &figures)
}
