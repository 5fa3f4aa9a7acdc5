//! What the survivor does at its end until the other end is gone: several threads read, write, call, and answer.

use std::collections::VecDeque;
use std::fs::File;
use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tombolo::object::{CallError, CallPhase, ChannelError};
use tombolo::{Channel, Handle, MessagePacket, OpenOptions};

use super::RING_LEN;
use super::ends::Ends;
use super::letter::{Carried, Kind, Letter, stream};
use super::notes::{ENDS_MAX, VICTIMS_FIRST};
use crate::mutex::lock;
use crate::sending::PATIENCE;
use crate::{Failure, Rng};

/// Threads that call.
const CALLERS: u64 = 3;
/// Channels of which the victim has an end at most, of the survivor's.
const ENDS_AT_ONCE: usize = 8;
/// The longest that a victim may live.
const LIFE_MAX: Duration = Duration::from_secs(40);

/// What has come of it.
#[derive(Debug, Default)]
pub(super) struct Talked {
    pub(super) ends: Ends,
    /// Messages that have come.
    pub(super) got: u64,
    pub(super) handles: u64,
    /// Requests that have come.
    pub(super) asked: u64,
    /// Calls with replies, calls that ended without, requests that were not written.
    pub(super) answered: u64,
    pub(super) ended: u64,
    pub(super) unwritten: u64,
}

/// Talks until the other end is gone. `kill` is called again and again, and says when next.
pub(super) fn talk(
    channel: &Channel,
    fifo: &File,
    rng: &mut Rng,
    kill: impl FnMut() -> Result<Option<Instant>, Failure>,
) -> Result<Talked, Failure> {
    let talk = Talk {
        channel,
        fifo,
        ends: Mutex::default(),
        next_call: AtomicU64::new(0),
        answered: AtomicU64::new(0),
        ended: AtomicU64::new(0),
        unwritten: AtomicU64::new(0),
        failure: Mutex::default(),
    };
    let mut talked = Talked::default();
    let seed = rng.number();
    let has_task = rng.percent(30);
    thread::scope(|scope| {
        let talk = &talk;
        scope.spawn(|| talk.guarded(|| talk.write(Rng::of_part(seed, 0))));
        for caller in 1..=CALLERS {
            let is_task = has_task && caller == 1;
            scope.spawn(move || talk.guarded(|| talk.call(is_task, Rng::of_part(seed, caller))));
        }
        talk.guarded(|| talk.read(&mut talked, Rng::of_part(seed, CALLERS + 1), kill));
    });
    if let Some(failure) = lock(&talk.failure).take() {
        return Err(failure);
    }
    talked.ends = std::mem::take(&mut *lock(&talk.ends));
    talked.answered = talk.answered.into_inner();
    (talked.ended, talked.unwritten) = (talk.ended.into_inner(), talk.unwritten.into_inner());
    Ok(talked)
}

struct Talk<'a> {
    channel: &'a Channel,
    fifo: &'a File,
    ends: Mutex<Ends>,
    next_call: AtomicU64,
    answered: AtomicU64,
    ended: AtomicU64,
    unwritten: AtomicU64,
    /// The first.
    failure: Mutex<Option<Failure>>,
}

impl Talk<'_> {
    /// Runs `body`. If it fails, all others are ended.
    fn guarded(&self, body: impl FnOnce() -> Result<(), Failure>) {
        if let Err(failure) = body() {
            lock(&self.failure).get_or_insert(failure);
            self.channel.close();
        }
    }

    fn read(
        &self,
        talked: &mut Talked,
        mut rng: Rng,
        mut kill: impl FnMut() -> Result<Option<Instant>, Failure>,
    ) -> Result<(), Failure> {
        let start = Instant::now();
        let mut replies = VecDeque::new();
        loop {
            let kill_at = kill()?;
            self.send_replies(&mut replies)?;
            let at_most = if replies.is_empty() { PATIENCE } else { Duration::from_micros(300) };
            let until = kill_at.map_or(at_most, |at| at_most.min(at - Instant::now().min(at)));
            match self.channel.read_timeout(until) {
                Ok(packet) => replies.extend(self.take(packet, talked, &mut rng)?),
                Err(ChannelError::TimedOut) => {}
                Err(ChannelError::PeerClosed) => return Ok(()),
                Err(error) => return Err(format!("reading: {error}").into()),
            }
            if start.elapsed() > LIFE_MAX {
                return Err(format!("the other process is not dead after {LIFE_MAX:?}").into());
            }
        }
    }

    /// Checks a message. Gives the reply, and how many handles it has.
    fn take(
        &self,
        packet: MessagePacket,
        talked: &mut Talked,
        rng: &mut Rng,
    ) -> Result<Option<(MessagePacket, usize)>, Failure> {
        let (letter, end) = Letter::open(packet)?;
        let expected = match (letter.kind, letter.stream) {
            (Kind::Plain, stream::FROM_VICTIM) => &mut talked.got,
            (Kind::Request, stream::ASKED_BY_VICTIM) => &mut talked.asked,
            _ => return Err(format!("{letter:?} has come").into()),
        };
        if letter.number != *expected {
            return Err(format!("{letter:?} has come for {expected}").into());
        }
        *expected += 1;
        talked.handles += letter.count() as u64;
        if let (Some(carried), Some(handle)) = (letter.end, end) {
            lock(&self.ends).take(carried, handle)?;
        }
        if letter.kind == Kind::Plain {
            return Ok(None);
        }
        let Letter { txid, stream, number, .. } = letter;
        let reply = Letter { txid, ..Letter::draw(Kind::Reply, stream, number, rng) };
        Ok(Some((reply.packet(self.fifo, None)?, reply.count())))
    }

    /// Writes what there is space for.
    fn send_replies(&self, replies: &mut VecDeque<(MessagePacket, usize)>) -> Result<(), Failure> {
        while let Some((packet, count)) = replies.pop_front() {
            let Err(refused) = self.channel.try_write(packet) else { continue };
            if refused.message.handles.len() != count {
                return Err("a reply came back without its handles".into());
            }
            match refused.error {
                ChannelError::ShouldWait => {
                    replies.push_front((refused.message, count));
                    return Ok(());
                }
                ChannelError::PeerClosed => {}
                error => return Err(format!("writing a reply: {error}").into()),
            }
        }
        Ok(())
    }

    /// Writes messages, some with an end.
    fn write(&self, mut rng: Rng) -> Result<(), Failure> {
        let mut next_id = 0;
        for number in 0.. {
            let may_give = {
                let mut ends = lock(&self.ends);
                ends.read_all()?;
                ends.open_count() < ENDS_AT_ONCE
            };
            let mut letter = Letter::draw(Kind::Plain, stream::TO_VICTIM, number, &mut rng);
            let mut end = None;
            if may_give && next_id < VICTIMS_FIRST && rng.percent(40) {
                letter.end = Some(Carried::Far(next_id));
                end = Some(self.make(next_id, &mut rng)?);
                next_id += 1;
            }
            if !self.write_whole(letter, end)? {
                return Ok(());
            }
            thread::sleep(Duration::from_micros(rng.below(200)));
        }
        Ok(())
    }

    /// Makes a channel, and gives the end of it that goes away, perhaps with messages in it.
    fn make(&self, id: u64, rng: &mut Rng) -> Result<Handle, Failure> {
        let (near, far) = Channel::create_with(OpenOptions::new().spsc_capacity(RING_LEN))?;
        let given = rng.below(4);
        for number in 0..given {
            let letter = Letter::draw(Kind::Plain, stream::into(id), number, rng);
            near.write(letter.packet(self.fifo, None)?)?;
        }
        lock(&self.ends).add(id, near, given)?;
        Ok(far.release()?)
    }

    /// Gives whether the other end was there until it was written.
    fn write_whole(&self, letter: Letter, end: Option<Handle>) -> Result<bool, Failure> {
        let mut packet = letter.packet(self.fifo, end)?;
        loop {
            let Err(refused) = self.channel.write_timeout(packet, PATIENCE) else {
                return Ok(true);
            };
            if refused.message.handles.len() != letter.count() {
                return Err(format!("{letter:?} came back without its handles").into());
            }
            match refused.error {
                ChannelError::PeerClosed => return Ok(false),
                ChannelError::TimedOut => packet = refused.message,
                error => return Err(format!("writing {letter:?}: {error}").into()),
            }
        }
    }

    /// Calls until the other end is gone.
    fn call(&self, is_task: bool, mut rng: Rng) -> Result<(), Failure> {
        loop {
            let number = self.next_call.fetch_add(1, Relaxed);
            let letter = Letter::draw(Kind::Request, stream::ASKED_BY_SURVIVOR, number, &mut rng);
            let packet = letter.packet(self.fifo, None)?;
            let called = match is_task {
                true => block_on(self.channel.call_async(packet))?,
                false => self.channel.call(packet, PATIENCE),
            };
            match called {
                Ok(reply) => {
                    let (reply, _) = Letter::open(reply)?;
                    let asked = (Kind::Reply, letter.stream, number);
                    if (reply.kind, reply.stream, reply.number) != asked {
                        return Err(format!("{reply:?} for {letter:?}").into());
                    }
                    self.answered.fetch_add(1, Relaxed);
                }
                Err(error) => return self.end_call(&error, letter),
            }
            thread::sleep(Duration::from_micros(rng.below(200)));
        }
    }

    fn end_call(&self, ended: &CallError, letter: Letter) -> Result<(), Failure> {
        let back = ended.message.as_ref().map(|message| message.handles.len());
        let counter = match (&ended.error, ended.phase, back) {
            (ChannelError::PeerClosed, CallPhase::Read, None) => &self.ended,
            (ChannelError::PeerClosed, CallPhase::Write, Some(count))
                if count == letter.count() =>
            {
                &self.unwritten
            }
            _ => return Err(format!("calling with {letter:?}: {ended}, {back:?} handles").into()),
        };
        counter.fetch_add(1, Relaxed);
        Ok(())
    }
}

/// Ids of the ends of both sides.
const _: () = assert!(VICTIMS_FIRST < ENDS_MAX);

/// Runs a future on this thread.
///
/// # Errors
/// If it is not woken for long.
fn block_on<F: Future>(future: F) -> Result<F::Output, Failure> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = pin!(future);
    let waker = Arc::new(Unpark(thread::current())).into();
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Ok(output);
        }
        thread::park_timeout(PATIENCE);
    }
    Err(format!("a task was not woken for {PATIENCE:?}").into())
}
