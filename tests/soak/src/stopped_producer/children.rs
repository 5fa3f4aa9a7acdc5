//! The three processes.

use std::path::PathBuf;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread;
use std::time::{Duration, Instant};

use tombolo::{Error, MpscProducer, SendTimeoutError, TryRecvError, TrySendError};

use super::plan::{self, HOLDER, HOLDERS, LEN_MAX, RIVAL, RIVALS};
use crate::content::{Content, HEAD_LEN, word_at};
use crate::figures;
use crate::sending::{Batch, PATIENCE};
use crate::shared_words::SharedWords;
use crate::stream::join;
use crate::{Failure, required};

/// Lines of the shared words: messages received of each producer, and what the rival does.
pub(super) const RECEIVED_LINE: usize = 0;
pub(super) const RIVAL_LINE: usize = 1;
/// Values of the rival's word.
pub(super) const BLOCKED: u64 = 1;
pub(super) const RETURNED: u64 = 2;

/// Figures of the rival that are added up.
pub(super) const SUMS: [&str; 3] = [TOLD_AT_ONCE, TOLD_IN_TIME, WAITED];
const TOLD_AT_ONCE: &str = "try_sends told who holds the lock";
const TOLD_IN_TIME: &str = "sends with a deadline told who holds the lock";
const WAITED: &str = "sends without a deadline that went out after the stop";
/// Figures of the rival in nanoseconds, of which the longest counts.
pub(super) const LONGEST: [&str; 3] = [LONGEST_TRY, LATEST, LONGEST_WAIT];
const LONGEST_TRY: &str = "longest try_send";
const LATEST: &str = "longest time after a deadline";
const LONGEST_WAIT: &str = "longest send without a deadline";

/// How much longer than it must a call may take.
const PROMPT: Duration = Duration::from_secs(2);
/// Between two attempts.
const REST: Duration = Duration::from_millis(1);

/// Sends all of the holder's messages: path, seed, words.
pub(super) fn hold(arguments: &[String]) -> Result<(), Failure> {
    let (path, seed): (String, u64) = (required(arguments, 0)?, required(arguments, 1)?);
    let words = SharedWords::open(&required::<PathBuf>(arguments, 2)?)?;
    let mut region = join(&path)?;
    let (mut sender, _) = region.split_mpsc()?;
    let mut outgoing = Outgoing::new(seed, HOLDER);
    let mut next = 1;
    while next <= HOLDERS {
        let count = plan::count_from(next);
        outgoing.fill(next, count);
        if count > 1 {
            wait_until_received(&words, next - 1)?;
        }
        outgoing.batch.send(&mut sender)?;
        next += count;
    }
    Ok(())
}

/// Waits until `count` of the holder's messages have come: a batch that finds the ring empty goes
/// out in one piece, and so passes its crash point once.
fn wait_until_received(words: &SharedWords, count: u64) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    while words.word(RECEIVED_LINE, HOLDER).load(Acquire) < count {
        if Instant::now() > deadline {
            return Err(format!("message {count} was not received").into());
        }
        thread::yield_now();
    }
    Ok(())
}

/// Messages of one producer.
struct Outgoing {
    content: Content,
    mark: usize,
    batch: Batch,
}

impl Outgoing {
    fn new(seed: u64, mark: usize) -> Self {
        Self { content: plan::content_of(seed, mark), mark, batch: Batch::default() }
    }

    /// Makes the batch of `count` messages from `first` on.
    fn fill(&mut self, first: u64, count: u64) {
        let Self { content, mark, batch } = self;
        batch.clear();
        for number in first..first + count {
            let write = |message: &mut [u8]| content.write(number, *mark as u64, message);
            batch.add(plan::len(content, number), write);
        }
    }
}

/// Meets a stopped holder: path, seed, words, where to leave the figures, the holder's slot and
/// process, milliseconds.
pub(super) fn rival(arguments: &[String]) -> Result<(), Failure> {
    let (path, seed): (String, u64) = (required(arguments, 0)?, required(arguments, 1)?);
    let (words, found): (PathBuf, PathBuf) = (required(arguments, 2)?, required(arguments, 3)?);
    let holder = (required(arguments, 4)?, required(arguments, 5)?);
    let pause = Duration::from_millis(required(arguments, 6)?);
    let words = SharedWords::open(&words)?;
    let mut region = join(&path)?;
    let (sender, _) = region.split_mpsc()?;
    let content = plan::content_of(seed, RIVAL);
    let mut first = vec![0; plan::len(&content, 1)];
    content.write(1, RIVAL as u64, &mut first);
    let mut rival = Rival { sender, first, holder };
    let (tries, longest_try) = rival.try_for(pause / 2)?;
    let latest = rival.wait_for(pause / 10)?.max(rival.wait_for_batch(pause / 10)?);
    words.word(RIVAL_LINE, 0).store(BLOCKED, Release);
    let began = Instant::now();
    rival.sender.send(&rival.first)?;
    let waited = began.elapsed();
    words.word(RIVAL_LINE, 0).store(RETURNED, Release);
    rival.send_others(seed)?;
    let figures = [
        (TOLD_AT_ONCE, tries),
        (TOLD_IN_TIME, 2),
        (WAITED, 1),
        (LONGEST_TRY, longest_try.as_nanos() as u64),
        (LATEST, latest.as_nanos() as u64),
        (LONGEST_WAIT, waited.as_nanos() as u64),
    ];
    figures::save(&found, &figures)
}

/// Who wants to send while another one holds the lock.
struct Rival {
    sender: MpscProducer,
    /// What it wants to send.
    first: Vec<u8>,
    /// The holder's slot and process.
    holder: (u16, u32),
}

impl Rival {
    /// Tries again and again for `pause`. Gives how often, and how long one attempt took at most.
    fn try_for(&mut self, pause: Duration) -> Result<(u64, Duration), Failure> {
        let end = Instant::now() + pause;
        let (mut tries, mut longest) = (0, Duration::ZERO);
        self.sender.attach()?; // takes a while, the first time
        while tries == 0 || Instant::now() < end {
            let began = Instant::now();
            match self.sender.try_send(&self.first) {
                Err(TrySendError::Contended { pid, .. }) if pid == self.holder.1 => {}
                other => return Err(format!("try_send gave {other:?}").into()),
            }
            longest = longest.max(began.elapsed());
            tries += 1;
            thread::sleep(REST);
        }
        if longest > PROMPT {
            return Err(format!("a try_send took {longest:?}").into());
        }
        Ok((tries, longest))
    }

    /// Sends with a deadline. Gives how much later than it the answer came.
    fn wait_for(&mut self, timeout: Duration) -> Result<Duration, Failure> {
        let began = Instant::now();
        let outcome = self.sender.send_timeout(&self.first, timeout);
        self.judge(outcome, began.elapsed(), timeout)
    }

    /// As [`Self::wait_for`], with several messages.
    fn wait_for_batch(&mut self, timeout: Duration) -> Result<Duration, Failure> {
        let began = Instant::now();
        let outcome = self.sender.send_batch_timeout(&[&self.first, &self.first], timeout);
        let outcome = outcome.map_err(|error| match error {
            SendTimeoutError::Failed { message: 0, source } => {
                SendTimeoutError::Failed { message: (), source }
            }
            _ => SendTimeoutError::Timeout(()),
        });
        self.judge(outcome, began.elapsed(), timeout)
    }

    /// Sends all messages but the first.
    fn send_others(&mut self, seed: u64) -> Result<(), Failure> {
        let mut outgoing = Outgoing::new(seed, RIVAL);
        for number in 2..=RIVALS {
            outgoing.fill(number, 1);
            outgoing.batch.send(&mut self.sender)?;
        }
        Ok(())
    }

    fn judge(
        &self,
        outcome: Result<(), SendTimeoutError>,
        took: Duration,
        timeout: Duration,
    ) -> Result<Duration, Failure> {
        match outcome {
            Err(SendTimeoutError::Failed {
                source: Error::Stalled { ring: 1, slot, pid }, ..
            }) if (slot, pid) == self.holder => {}
            other => return Err(format!("a send with a deadline gave {other:?}").into()),
        }
        match took.checked_sub(timeout) {
            Some(late) if late < PROMPT => Ok(late),
            _ => Err(format!("a send with {timeout:?} to wait took {took:?}").into()),
        }
    }
}

/// Receives all messages: path, seed, words.
pub(super) fn receive(arguments: &[String]) -> Result<(), Failure> {
    let (path, seed): (String, u64) = (required(arguments, 0)?, required(arguments, 1)?);
    let words = SharedWords::open(&required::<PathBuf>(arguments, 2)?)?;
    let contents = [HOLDER, RIVAL].map(|mark| plan::content_of(seed, mark));
    let mut received = [0; 2];
    let mut region = join(&path)?;
    let (_, mut receiver) = region.split_mpsc()?;
    let mut room = [0; LEN_MAX];
    while received != [HOLDERS, RIVALS] {
        let len = receiver.recv_into_timeout(&mut room, PATIENCE)?;
        let mark = judge(&contents, &room[..len], &mut received)?;
        words.word(RECEIVED_LINE, mark).store(received[mark], Release);
    }
    match receiver.try_recv() {
        Err(TryRecvError::Empty | TryRecvError::Disconnected) => Ok(()),
        other => Err(format!("after the last message: {other:?}").into()),
    }
}

/// Whether `message` is whole and its producer's next. Gives whose it is.
fn judge(
    contents: &[Content; 2],
    message: &[u8],
    received: &mut [u64; 2],
) -> Result<usize, Failure> {
    if message.len() < HEAD_LEN {
        return Err(format!("a message of {} bytes", message.len()).into());
    }
    let mark = (word_at(message, 0) >> 40) as usize;
    let content = contents.get(mark).ok_or_else(|| format!("a message with mark {mark}"))?;
    let number = received[mark] + 1;
    content.check(number, message)?;
    if message.len() != plan::len(content, number) {
        return Err(format!("message {number}: {} bytes", message.len()).into());
    }
    received[mark] = number;
    Ok(mark)
}
