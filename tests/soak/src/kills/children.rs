//! The two processes that are killed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tombolo::ends::Topology;
use tombolo::{
    MpscProducer, Receiver, RecordRef, RecvTimeoutError, SendTimeoutError, Sender, SpscSender,
};

use tombolo_abi::RingKind;

use super::ledger::{Entry, Log};
use super::plan::{self, Way};
use crate::content::{Content, MESSAGE_LEN_MAX, number_of, word_at};
use crate::sending::PATIENCE;
use crate::stream::join;
use crate::{Failure, required};

/// Pieces in which a slow message is built.
const PIECES: usize = 16;
/// The wait behind each of them.
const PIECE_PAUSE: Duration = Duration::from_micros(20);
/// Every how many messages the receiver pauses between logging and freeing one.
const HOLD_EVERY: u64 = 16;
/// That pause.
const HOLD: Duration = Duration::from_micros(50);

/// How far a sender is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Which sender.
    pub(super) sender: u64,
    /// The number it sends next: all before have been sent.
    pub(super) next: u64,
}

impl Progress {
    /// Writes it to `file`. Both words lie in one page, so a kill cannot cut them.
    ///
    /// # Errors
    /// The system's refusal.
    pub(super) fn save(self, file: &File) -> Result<(), Failure> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.sender.to_le_bytes());
        bytes[8..].copy_from_slice(&self.next.to_le_bytes());
        Ok(file.write_all_at(&bytes, 0)?)
    }

    /// Reads it from `file`.
    ///
    /// # Errors
    /// The system's refusal.
    pub(super) fn load(file: &File) -> Result<Self, Failure> {
        let mut bytes = [0; 16];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Self { sender: word_at(&bytes, 0), next: word_at(&bytes, 8) })
    }
}

/// Sends until it is killed: path, seed, progress file, which sender, first number, kind of ring.
pub(super) fn send(arguments: &[String]) -> Result<(), Failure> {
    let (path, seed): (String, u64) = (required(arguments, 0)?, required(arguments, 1)?);
    let progress: PathBuf = required(arguments, 2)?;
    let (mark, first): (u64, u64) = (required(arguments, 3)?, required(arguments, 4)?);
    let progress = File::options().write(true).open(progress)?;
    let (content, room) = (Content::new(seed), Vec::new());
    let mut region = join(&path)?;
    if required::<String>(arguments, 5)? == RingKind::Lane.name() {
        let (sender, slowly) = (region.split_mpsc()?.0, send_long as SendSlowly<_>);
        return Outgoing { sender, slowly, content, mark, room }.run(first, &progress);
    }
    let (sender, slowly) = (region.split_spsc()?.0, send_slowly as SendSlowly<_>);
    Outgoing { sender, slowly, content, mark, room }.run(first, &progress)
}

/// How a message is sent that takes its time.
type SendSlowly<K> = fn(&mut Sender<K>, &[u8]) -> Result<(), SendTimeoutError<usize>>;

struct Outgoing<K: Topology> {
    sender: Sender<K>,
    slowly: SendSlowly<K>,
    content: Content,
    mark: u64,
    room: Vec<u8>,
}

impl<K: Topology> Outgoing<K> {
    fn run(mut self, first: u64, progress: &File) -> Result<(), Failure> {
        let mut next = first;
        loop {
            next = self.send_from(next)?;
            Progress { sender: self.mark, next }.save(progress)?;
        }
    }

    /// Sends a step of the plan, and gives the number after it. A receiver that is gone comes back:
    /// what was not sent is tried again.
    fn send_from(&mut self, number: u64) -> Result<u64, Failure> {
        let (way, numbers) = plan::step(&self.content, number);
        let spans = self.write(numbers.clone());
        let messages: Vec<_> = spans.iter().map(|span| &self.room[span.clone()]).collect();
        let sent = match way {
            Way::Single => self.sender.send_timeout(messages[0], PATIENCE).map_err(count_zero),
            Way::Batch => self.sender.send_batch_timeout(&messages, PATIENCE),
            Way::Slow => (self.slowly)(&mut self.sender, messages[0]),
        };
        match sent {
            Ok(()) => Ok(numbers.end),
            Err(SendTimeoutError::Disconnected(sent)) => {
                self.sender.wait_for_peer(PATIENCE)?;
                Ok(number + sent as u64)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes messages one behind the other, and gives where they lie.
    fn write(&mut self, numbers: std::ops::Range<u64>) -> Vec<std::ops::Range<usize>> {
        self.room.clear();
        let mut spans = Vec::new();
        for number in numbers {
            let start = self.room.len();
            self.room.resize(start + plan::len(&self.content, number), 0);
            self.content.write(number, self.mark, &mut self.room[start..]);
            spans.push(start..self.room.len());
        }
        spans
    }
}

/// The same error of a single message, none of which was sent.
fn count_zero(error: SendTimeoutError) -> SendTimeoutError<usize> {
    match error {
        SendTimeoutError::Disconnected(()) => SendTimeoutError::Disconnected(0),
        SendTimeoutError::Failed { source, .. } => SendTimeoutError::Failed { message: 0, source },
        _ => SendTimeoutError::Timeout(0),
    }
}

/// Builds a message in place, with pauses that a kill is likely to meet.
fn send_slowly(sender: &mut SpscSender, message: &[u8]) -> Result<(), SendTimeoutError<usize>> {
    let failed = |source| SendTimeoutError::Failed { message: 0, source };
    let mut claim = sender.reserve_timeout(message.len(), PATIENCE).map_err(count_zero)?;
    let piece = message.len().div_ceil(PIECES);
    for (index, bytes) in message.chunks(piece).enumerate() {
        claim.write_at(index * piece, bytes).map_err(failed)?;
        thread::sleep(PIECE_PAUSE);
    }
    claim.commit().map_err(failed)
}

/// Sends a message to a lane, which lends no room: it takes only as long as copying does.
fn send_long(sender: &mut MpscProducer, message: &[u8]) -> Result<(), SendTimeoutError<usize>> {
    sender.send_timeout(message, PATIENCE).map_err(count_zero)
}

/// Receives until it is killed: path, seed, log, which receiver, kind of ring.
pub(super) fn receive(arguments: &[String]) -> Result<(), Failure> {
    let (path, seed): (String, u64) = (required(arguments, 0)?, required(arguments, 1)?);
    let (log, mark): (PathBuf, u64) = (required(arguments, 2)?, required(arguments, 3)?);
    let mut region = join(&path)?;
    let incoming = Incoming::new(Content::new(seed), &log, mark)?;
    if required::<String>(arguments, 4)? == RingKind::Lane.name() {
        return incoming.run(region.split_mpsc()?.1);
    }
    incoming.run(region.split_spsc()?.1)
}

struct Incoming {
    content: Content,
    log: Log,
    mark: u64,
    room: Vec<u8>,
    number: u64,
}

impl Incoming {
    fn new(content: Content, log: &Path, mark: u64) -> Result<Self, Failure> {
        let room = vec![0; MESSAGE_LEN_MAX];
        Ok(Self { content, log: Log::open(log)?, mark, room, number: 0 })
    }

    fn run<K: Topology>(mut self, mut receiver: Receiver<K>) -> Result<(), Failure> {
        loop {
            self.wait_for_one(&mut receiver)?;
            if self.number.is_multiple_of(4) {
                self.drain(&mut receiver)?;
            }
        }
    }

    /// Takes one message. A sender that is gone comes back.
    fn wait_for_one<K: Topology>(&mut self, receiver: &mut Receiver<K>) -> Result<(), Failure> {
        match receiver.recv_ref_timeout(PATIENCE) {
            Ok(record) => return self.note(&record),
            Err(RecvTimeoutError::Disconnected) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(receiver.wait_for_peer(PATIENCE)?)
    }

    /// Takes what is there, a few messages at most.
    fn drain<K: Topology>(&mut self, receiver: &mut Receiver<K>) -> Result<(), Failure> {
        let mut outcome = Ok(());
        receiver.drain(plan::DRAINED_MAX, |record| {
            if outcome.is_ok() {
                outcome = self.note(record);
            }
        })?;
        outcome
    }

    /// Judges a message and logs it. It is freed afterwards.
    fn note(&mut self, record: &RecordRef<'_>) -> Result<(), Failure> {
        let len = record.copy_to(&mut self.room)?;
        let message = &self.room[..len];
        let word = message.get(..8).ok_or("a message without a number")?;
        let number = number_of(word_at(word, 0));
        if len != plan::len(&self.content, number) {
            return Err(format!("message {number}: {len} bytes").into());
        }
        self.content.check(number, message)?;
        let position = record.position();
        self.log.add(&Entry { position, number, len: len as u64, receiver: self.mark })?;
        self.number = number;
        if number.is_multiple_of(HOLD_EVERY) {
            thread::sleep(HOLD);
        }
        Ok(())
    }
}
