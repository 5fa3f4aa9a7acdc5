//! The process that calls, and a server that is killed.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::task::{Context, Poll, Waker};
use std::thread::{self, Scope};
use std::time::Duration;

use tempfile::TempDir;
use tombolo::object::{CallError, CallPhase, ChannelError};
use tombolo::{Channel, MessagePacket};

use super::latencies::Latencies;
use super::message::{Message, Wish};
use super::server::{self, Note, note};
use super::tasks::run_all;
use super::{ANSWERED, Callers, GIVEN_UP, OUTSTANDING, STACK_LEN, control, longest};
use crate::clock::{now_ns, until};
use crate::mutex::lock;
use crate::sending::PATIENCE;
use crate::shared_words::SharedWords;
use crate::{Failure, Process, Report, Rng, Setting, scratch};

/// Deadline of a call that gets no reply before.
const SHORT: Duration = Duration::from_millis(2);

/// Sums over the rounds.
#[derive(Debug, Default)]
pub(super) struct Tally {
    answered: u64,
    out_of_order: u64,
    timed_out: u64,
    dropped: u64,
    late: u64,
    /// Rounds that took longer than they may if the machine does not make them.
    on_busy_machine: u64,
}

impl Tally {
    pub(super) fn tell(&self, report: &mut Report) {
        report.count("calls with replies", self.answered);
        report.count("replies before that to an earlier request", self.out_of_order);
        report.count("calls that timed out", self.timed_out);
        report.count("calls that were dropped", self.dropped);
        report.count("late replies that were read", self.late);
        report.note("rounds that a busy machine made longer than 2 s", self.on_busy_machine);
    }
}

/// Has this process make what it makes once, for all channels.
pub(super) fn warm_up() -> Result<(), Failure> {
    let (end, _peer) = Channel::create()?;
    drop(end.readable()?);
    Ok(())
}

/// A client with its server.
pub(super) struct Client {
    channel: Channel,
    words: SharedWords,
    _directory: TempDir,
}

impl Client {
    /// Starts both.
    pub(super) fn start(setting: &Setting, rng: &mut Rng) -> Result<(Self, Process), Failure> {
        let directory = scratch()?;
        let [path, notes] = ["c", "notes"].map(|name| directory.path().join(name));
        let words = SharedWords::create(&notes, 1)?;
        let channel = Channel::open_path(&path)?;
        let (path, notes) = (path.to_string_lossy(), notes.to_string_lossy());
        let arguments = [&*path, &*notes, &*rng.number().to_string()];
        let server = Process::start(setting, server::NAME, &arguments)?;
        let client = Self { channel, words, _directory: directory };
        client.until_noted("the server opens the channel", Note::Opened, 1)?;
        Ok((client, server))
    }

    fn until_noted(&self, what: &str, noted: Note, count: usize) -> Result<(), Failure> {
        until(what, || Ok(note(&self.words, noted).load(Acquire) == count as u64))
    }

    /// Has many calls wait, makes others meanwhile, and kills the server.
    pub(super) fn play(
        self,
        mut server: Process,
        callers: Callers,
        rng: &mut Rng,
        latencies: &mut Latencies,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let wait =
            Wait { channel: &self.channel, killed_ns: AtomicU64::new(0), ends: Mutex::default() };
        let pause = Duration::from_micros(rng.below(5000));
        let played = thread::scope(|scope| {
            let played = wait.start(scope, callers).and_then(|()| {
                self.until_noted("all requests come", Note::Unanswered, OUTSTANDING)?;
                self.call_with_replies(callers, tally)?;
                self.give_calls_up(callers, tally)?;
                thread::sleep(pause);
                wait.killed_ns.store(now_ns(), Release);
                Ok(())
            });
            let killed = server.kill_now(); // in any case: the threads wait for it
            played.and(killed)
        });
        played?;
        let ends = std::mem::take(&mut *lock(&wait.ends));
        let ends = ends.into_iter().collect::<Result<Vec<_>, _>>()?;
        if ends.len() != OUTSTANDING {
            return Err(format!("{} calls ended", ends.len()).into());
        }
        let last = ends.iter().max().copied().unwrap_or_default();
        if last > longest(Duration::ZERO) {
            let without_us = control::wake_all()?;
            let limit = longest(without_us);
            if last > limit {
                return Err(
                    format!("a call ended {last:?} after the kill, {limit:?} at most").into()
                );
            }
            tally.on_busy_machine += 1;
        }
        latencies.add(&ends);
        tally.out_of_order += note(&self.words, Note::OutOfOrder).load(Acquire);
        match self.channel.read() {
            Err(ChannelError::PeerClosed) => Ok(()),
            other => Err(format!("{other:?} was left").into()),
        }
    }

    /// Calls all at once; the server answers them in any order.
    fn call_with_replies(&self, callers: Callers, tally: &mut Tally) -> Result<(), Failure> {
        let failures = Mutex::new(Vec::new());
        let check = |number: usize, called: Result<MessagePacket, CallError>| {
            let expected = Message::of(Wish::Reply, number as u64);
            let reply = called.map_err(Failure::from);
            let reply = reply.and_then(|reply| Message::from_bytes(&reply.data));
            match reply {
                Ok(reply) if Message { txid: 0, ..reply } == expected => {}
                other => lock(&failures).push(format!("{other:?} for {expected:?}")),
            }
        };
        let request = |number: usize| Message::of(Wish::Reply, number as u64).to_bytes();
        let thread_count = if callers == Callers::Threads { ANSWERED } else { ANSWERED / 2 };
        thread::scope(|scope| {
            for number in 0..thread_count {
                let (check, request) = (&check, request(number));
                scope.spawn(move || check(number, self.channel.call(request, PATIENCE)));
            }
            run_all((thread_count..ANSWERED).map(|number| {
                let (check, call) = (&check, self.channel.call_async(request(number)));
                async move { check(number, call.await) }
            }))
        })?;
        tally.answered += ANSWERED as u64;
        let failure = lock(&failures).pop();
        match failure {
            None => Ok(()),
            Some(failure) => Err(failure.into()),
        }
    }

    /// Makes calls that time out or are dropped. Their replies, which come later, are messages.
    fn give_calls_up(&self, callers: Callers, tally: &mut Tally) -> Result<(), Failure> {
        let request = |number: usize| Message::of(Wish::LateReply, number as u64).to_bytes();
        for number in 0..GIVEN_UP {
            if callers != Callers::Threads && number % 3 == 0 {
                let mut call = pin!(self.channel.call_async(request(number)));
                let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                let Poll::Pending = polled else { return Err(format!("{polled:?}").into()) };
                tally.dropped += 1;
                continue;
            }
            match self.channel.call(request(number), SHORT) {
                Err(CallError {
                    error: ChannelError::TimedOut, phase: CallPhase::Read, ..
                }) => {
                    tally.timed_out += 1;
                }
                other => return Err(format!("a call without a reply: {other:?}").into()),
            }
        }
        self.until_noted("all requests come", Note::Late, GIVEN_UP)?;
        self.channel.write(Message::of(Wish::Late, 0).to_bytes())?;
        let mut numbers = BTreeSet::new();
        while numbers.len() < GIVEN_UP {
            let message = Message::from_bytes(&self.channel.read_timeout(PATIENCE)?.data)?;
            if message.wish != Wish::LateReply || !numbers.insert(message.number) {
                return Err(format!("{message:?} was read behind {numbers:?}").into());
            }
        }
        tally.late += numbers.len() as u64;
        Ok(())
    }
}

/// Calls that wait until the server is killed.
struct Wait<'a> {
    channel: &'a Channel,
    /// 0 before.
    killed_ns: AtomicU64,
    /// How long after it each call has ended.
    ends: Mutex<Vec<Result<Duration, Failure>>>,
}

impl<'a> Wait<'a> {
    fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        callers: Callers,
    ) -> Result<(), Failure> {
        let request = |number: usize| Message::of(Wish::Nothing, number as u64).to_bytes();
        let thread_count = callers.thread_count();
        for number in 0..thread_count {
            let caller = thread::Builder::new().stack_size(STACK_LEN);
            caller.spawn_scoped(scope, move || {
                self.end(self.channel.call(request(number), 2 * PATIENCE));
            })?;
        }
        scope.spawn(move || {
            let tasks = (thread_count..OUTSTANDING).map(|number| {
                let call = self.channel.call_async(request(number));
                async move { self.end(call.await) }
            });
            if let Err(failure) = run_all(tasks) {
                self.note(Err(failure));
            }
        });
        Ok(())
    }

    fn end(&self, called: Result<MessagePacket, CallError>) {
        let ended_ns = now_ns();
        let killed_ns = self.killed_ns.load(Acquire);
        let later = ended_ns.checked_sub(killed_ns).filter(|_| killed_ns > 0);
        let is_told = matches!(
            called,
            Err(CallError { error: ChannelError::PeerClosed, phase: CallPhase::Read, .. })
        );
        self.note(match later {
            Some(later) if is_told => Ok(Duration::from_nanos(later)),
            _ => Err(format!("{called:?}, {later:?} ns after the kill").into()),
        });
    }

    fn note(&self, end: Result<Duration, Failure>) {
        lock(&self.ends).push(end);
    }
}
