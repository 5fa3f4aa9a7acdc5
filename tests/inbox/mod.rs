//! All orders of what the threads do that wait at an end of a channel: callers, readers, one that closes it; and the
//! other end's server. They run the real code of the inbox over a real ring.
//!
//! Time passes for none of them: one that sleeps is woken, or never goes on. So a wake-up that is lost is found without
//! waiting for it. What other processes do between two of their steps is searched in `tests/ring/processes`: here a
//! server's message is there, and notified of, at once.

mod claims;
mod orders;

use std::time::Duration;

use orders::{Covered, Scene, Search};

use super::super::kernel_object::KernelObject;
use super::super::object_error::ObjectError;
use super::super::registered::Registered;
use super::super::signal::Signal;
use super::*;
use crate::Channel;
use crate::OpenOptions;
use crate::crash::turns;
use crate::ends::MessagePacket;
use crate::ring::{Memory, Word};

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    /// Calls, and waits for the reply.
    Call(u32),
    /// As that, but registers for the reply after the request was published, as it must not.
    CallRegisteredLate(u32),
    /// Calls, looks once, and leaves.
    CallInPassing(u32),
    Read,
    /// The server answers the next request, once there is one.
    Answer,
    /// The server writes a message.
    Write(u32),
    /// Closes the end at which the others wait.
    Close,
    /// Closes the other end.
    CloseFar,
    /// Waits for signals.
    Wait(Signal),
    /// As that, but looks before it is registered, and not behind that, as it must.
    LookAndWait(Signal),
    /// Sets a signal of the end at which the others wait: from that end, or from the other.
    Set(Signal),
    SetFromFar(Signal),
}

/// What came of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Replied(u32),
    Read(u32),
    Seen(Signal),
    Looked,
    Ended,
}

struct Waiting {
    near: Channel,
    far: Channel,
    threads: Vec<Vec<Job>>,
    /// By thread, in the order in which messages were taken.
    log: Mutex<Vec<(usize, Outcome)>>,
    /// How many of its jobs each thread has done.
    progress: Mutex<Vec<usize>>,
}

fn message(number: u32) -> Vec<u8> {
    number.to_ne_bytes().to_vec()
}

fn number(message: &MessagePacket) -> u32 {
    u32::from_ne_bytes(*message.data.first_chunk().unwrap())
}

impl Waiting {
    fn new(threads: &[&[Job]]) -> Self {
        let (near, far) =
            Channel::create_with(OpenOptions::new().spsc_capacity(4096).max_message(64)).unwrap();
        near.set_spin_max(Duration::ZERO);
        let threads: Vec<_> = threads.iter().map(|jobs| jobs.to_vec()).collect();
        let progress = Mutex::new(vec![0; threads.len()]);
        Self { near, far, threads, log: Mutex::default(), progress }
    }

    fn note(&self, thread: usize, outcome: Outcome) {
        lock(&self.log).push((thread, outcome));
    }

    /// Whether the end was closed under the thread's feet.
    fn note_ended(&self, thread: usize, error: &ChannelError) {
        use ChannelError::{Canceled, Closed, PeerClosed};
        assert!(matches!(error, Canceled | Closed | PeerClosed), "{error:?}");
        self.note(thread, Outcome::Ended);
    }

    fn call(&self, thread: usize, txid: u32, deadline: Deadline) {
        let mut request = MessagePacket::from(message(txid));
        let sent = self.near.send_request(&mut request, Deadline::PAST, |_| Ok(txid));
        let waited = match sent {
            Ok(Ok(registered)) => registered.wait(deadline),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ChannelError::Closed), // there is space for all
        };
        match waited {
            Ok(reply) => self.note(thread, Outcome::Replied(number(&reply))),
            Err(ChannelError::TimedOut) => {}
            Err(error) => self.note_ended(thread, &error),
        }
    }

    fn call_registered_late(&self, thread: usize, txid: u32) {
        let _ = self.near.write(message(txid)); // the end may be closed
        let inbox = &self.near.inbox;
        let mut guard = inbox.lock().unwrap();
        let Some(state) = guard.as_mut() else { return };
        let (id, interrupts) = state.waiters.add_call(txid);
        drop(guard);
        match (Registered { inbox, id, interrupts }).wait(Deadline::NEVER) {
            Ok(reply) => self.note(thread, Outcome::Replied(number(&reply))),
            Err(error) => self.note_ended(thread, &error),
        }
    }

    fn read(&self, thread: usize) {
        let read = self.near.inbox.read_until(Deadline::NEVER, |message| {
            let message = message.take()?;
            self.note(thread, Outcome::Read(number(&message))); // in the order in which they are taken
            Ok::<_, ChannelError>(())
        });
        if let Err(error) = read {
            self.note_ended(thread, &error);
        }
    }

    /// What the server does, as one step.
    fn serve<T>(&self, step: impl FnMut() -> Option<T>) -> Option<T> {
        let mut step = step;
        loop {
            if let Some(done) = step() {
                return Some(done);
            }
            if lock(&self.log).iter().any(|(_, outcome)| *outcome == Outcome::Ended) {
                return None;
            }
            turns::pass_until_others_have("next");
        }
    }

    fn act_job(&self, thread: usize, job: Job) {
        match job {
            Job::Call(txid) => self.call(thread, txid, Deadline::NEVER),
            Job::CallInPassing(txid) => self.call(thread, txid, Deadline::PAST),
            Job::CallRegisteredLate(txid) => self.call_registered_late(thread, txid),
            Job::Read => self.read(thread),
            Job::Answer => {
                let request = self.serve(|| turns::quietly(|| self.far.read().ok()));
                if let Some(request) = request {
                    let _ = turns::quietly(|| self.far.write(request.data)); // the end may be closed
                }
            }
            Job::Write(number) => {
                let _ = turns::quietly(|| self.far.write(message(number)));
            }
            Job::Close => self.near.close(),
            Job::CloseFar => turns::quietly(|| self.far.close()),
            Job::LookAndWait(signals) if self.near.signal().intersects(signals) => {
                self.note(thread, Outcome::Seen(signals));
            }
            Job::LookAndWait(signals) => {
                self.note(thread, Outcome::Looked);
                self.act_job(thread, Job::Wait(signals));
            }
            Job::Wait(signals) => match self.near.wait_one(signals, Deadline::NEVER) {
                Ok(seen) => self.note(thread, Outcome::Seen(seen & signals)),
                Err(error) => {
                    assert!(matches!(error.error, ObjectError::Canceled | ObjectError::Closed));
                    self.note(thread, Outcome::Ended);
                }
            },
            Job::Set(signal) => {
                let _ = self.near.signal_set(signal); // the end may be closed
            }
            Job::SetFromFar(signal) => {
                let _ = self.far.signal_peer(Signal::empty(), signal);
            }
        }
    }

    fn wanted_signals(&self) -> usize {
        self.threads
            .iter()
            .flatten()
            .filter(|job| matches!(job, Job::Wait(_) | Job::LookAndWait(_)))
            .count()
    }

    fn wanted(&self, of: impl Fn(Job) -> Option<u32>) -> Vec<u32> {
        self.threads.iter().flatten().filter_map(|job| of(*job)).collect()
    }
}

impl Scene for Waiting {
    fn thread_count(&self) -> usize {
        self.threads.len()
    }

    fn act(&self, index: usize) {
        for job in &self.threads[index] {
            turns::pass("next");
            self.act_job(index, *job);
            lock(&self.progress)[index] += 1;
        }
    }

    fn state(&self) -> String {
        let inbox = &self.near.inbox;
        let log = lock(&self.log).clone();
        let progress = lock(&self.progress).clone();
        let guard = inbox.state.try_lock().expect("no thread has its turn end with this lock");
        let Some(state) = &guard.open else {
            return format!("closed {:?} {log:?} {progress:?}", guard.left.len());
        };
        let (end, scanned) = (&state.end, inbox.scanned.load(Relaxed));
        let armed = end.rx_wake().load(Relaxed) & tombolo_abi::wake::FLAGS;
        let signals = (end.signals(), inbox.signals_seen.load(Relaxed));
        let tail = end.ring.memory.load(Word::Tail, Relaxed);
        let (head, waiters, counted) = (state.consumer.head(), &state.waiters, end.counted());
        format!(
            "{head} {scanned} {tail} {armed} {signals:?} {counted} {waiters:?} {log:?} {progress:?}"
        )
    }

    fn check(&self) -> Result<(), String> {
        let log = lock(&self.log).clone();
        let is_over = |job: &Job| matches!(job, Job::Close | Job::CloseFar);
        let may_end = self.threads.iter().flatten().any(is_over);
        let mut read: Vec<_> = log
            .iter()
            .filter_map(|(_, it)| if let Outcome::Read(number) = it { Some(*number) } else { None })
            .collect();
        while let Ok(rest) = self.near.read() {
            read.push(number(&rest));
        }
        let written =
            self.wanted(|job| if let Job::Write(number) = job { Some(number) } else { None });
        let calls = self.wanted(|job| match job {
            Job::Call(txid) | Job::CallRegisteredLate(txid) => Some(txid),
            _ => None,
        });
        let passing =
            self.wanted(|job| if let Job::CallInPassing(txid) = job { Some(txid) } else { None });
        let replied =
            |txid: u32| log.iter().filter(|(_, it)| *it == Outcome::Replied(txid)).count();
        let waits = self.wanted_signals();
        let seen = log.iter().filter(|(_, it)| matches!(it, Outcome::Seen(_))).count();
        if !may_end && seen != waits {
            return Err(format!("{seen} of {waits} waits have seen something"));
        }
        let messages: Vec<_> = read.iter().copied().filter(|it| written.contains(it)).collect();
        if may_end {
            if !written.starts_with(&messages) {
                return Err(format!("messages {messages:?} of {written:?}"));
            }
            let ended = log.len();
            let asked = self.threads.iter().flatten();
            let asked = asked.filter(|job| matches!(job, Job::Call(_) | Job::Read | Job::Wait(_)));
            let asked = asked.count();
            return if ended == asked { Ok(()) } else { Err(format!("{ended} of {asked} ended")) };
        }
        if messages != written {
            return Err(format!("messages {messages:?} of {written:?}"));
        }
        for txid in calls {
            if replied(txid) != 1 || read.contains(&txid) {
                return Err(format!("call {txid} has {} replies", replied(txid)));
            }
        }
        for txid in passing {
            let found = replied(txid) + read.iter().filter(|it| **it == txid).count();
            if found != 1 {
                return Err(format!("the reply {txid} came {found} times"));
            }
        }
        Ok(())
    }

    fn end(&self) {
        self.note(usize::MAX, Outcome::Ended);
        self.near.close();
    }
}

const A: u32 = 0x101;
const B: u32 = 0x102;
const C: u32 = 0x103;

fn search(threads: &'static [&'static [Job]]) -> Search<impl Fn() -> Waiting> {
    Search::new(move || Waiting::new(threads))
}

/// Runs each, and says how much it went through.
fn pass(scenes: &[&'static [&'static [Job]]]) {
    for scene in scenes {
        let covered = search(scene).run().unwrap_or_else(|wrong| panic!("{scene:?}: {wrong}"));
        println!("{scene:?}: {covered:?}");
        let Covered { states, orders, ends, .. } = covered;
        assert!(states > 0 && orders > 0 && ends > 0, "nothing was searched");
    }
}

#[test]
fn in_no_order_is_a_reply_or_a_message_lost_or_a_thread_left_asleep() {
    pass(&[
        &[&[Job::Call(A)], &[Job::Answer]],
        &[&[Job::Call(A)], &[Job::Call(B)], &[Job::Answer, Job::Answer]],
        &[&[Job::Call(A)], &[Job::Read], &[Job::Write(1), Job::Answer]],
        &[&[Job::Read], &[Job::Read], &[Job::Write(1), Job::Write(2)]],
        &[&[Job::CallInPassing(A)], &[Job::Read], &[Job::Answer, Job::Write(1)]],
    ]);
}

#[test]
fn in_all_orders_calls_and_reads_end_when_an_end_is_closed() {
    pass(&[
        &[&[Job::Call(A)], &[Job::Read], &[Job::Close]],
        &[&[Job::Call(A)], &[Job::Call(B)], &[Job::Answer, Job::Close]],
        &[&[Job::Call(A)], &[Job::Answer, Job::CloseFar]],
        &[&[Job::Call(A)], &[Job::Read], &[Job::CloseFar]],
    ]);
}

const USER: Signal = Signal::USER_0;
const USER_OR_OVER: Signal = Signal::USER_0.union(Signal::PEER_CLOSED);

#[test]
fn in_no_order_is_a_signal_missed_that_a_thread_waits_for() {
    pass(&[
        &[&[Job::Wait(USER)], &[Job::SetFromFar(USER)]],
        &[&[Job::Wait(USER)], &[Job::Set(USER)]],
        &[&[Job::Wait(USER)], &[Job::Wait(USER)], &[Job::SetFromFar(USER)]],
        &[&[Job::Wait(USER)], &[Job::Read], &[Job::Write(1), Job::SetFromFar(USER)]],
        &[&[Job::Wait(Signal::READABLE)], &[Job::Write(1)]],
        &[&[Job::Wait(USER)], &[Job::Call(A)], &[Job::Answer, Job::SetFromFar(USER)]],
    ]);
}

#[test]
fn in_all_orders_waits_for_signals_end_when_an_end_is_closed() {
    pass(&[
        &[&[Job::Wait(USER)], &[Job::Close]],
        &[&[Job::Wait(Signal::PEER_CLOSED)], &[Job::Read], &[Job::CloseFar]],
        &[&[Job::Wait(USER_OR_OVER)], &[Job::SetFromFar(USER), Job::CloseFar]],
    ]);
}

/// Minutes.
#[test]
#[ignore = "long: see .ci/search"]
fn nor_in_any_of_larger_scenes() {
    pass(&[
        &[
            &[Job::Call(A)],
            &[Job::Call(B)],
            &[Job::Read],
            &[Job::Answer, Job::Write(1), Job::Answer],
        ],
        &[&[Job::Call(A), Job::Call(B)], &[Job::Call(C)], &[Job::Answer, Job::Answer, Job::Answer]],
        &[&[Job::Read], &[Job::Read], &[Job::Read], &[Job::Write(1), Job::Write(2), Job::Write(3)]],
    ]);
}

/// Asserts that the search finds a thread that sleeps for ever.
fn assert_caught(search: Search<impl Fn() -> Waiting>) {
    let wrong = search.run().expect_err("nothing was found wrong");
    println!("{wrong}");
    assert!(wrong.starts_with("sleeps with no wake due"), "{wrong}");
}

#[test]
fn a_call_that_is_registered_after_its_request_was_published_may_miss_its_reply() {
    // Another thread looks at the reply before.
    assert_caught(search(&[&[Job::CallRegisteredLate(A)], &[Job::Read], &[Job::Answer]]));
}

#[test]
fn a_wait_that_looks_before_it_is_registered_and_not_behind_that_misses_a_signal() {
    let scene = search(&[&[Job::LookAndWait(USER)], &[Job::SetFromFar(USER)]]);
    assert_caught(scene.without("the look behind the registration"));
}

#[test]
fn without_the_look_behind_the_arming_a_signal_is_missed_that_came_before() {
    let scene = search(&[&[Job::Wait(USER)], &[Job::SetFromFar(USER)]]);
    assert_caught(scene.without("the look at the signals behind the arming"));
}

#[test]
fn without_the_wake_for_signals_one_that_sleeps_misses_what_comes() {
    let scene = search(&[&[Job::Wait(USER)], &[Job::SetFromFar(USER)]]);
    assert_caught(scene.without("the wake for signals"));
}

#[test]
fn without_the_call_of_a_successor_none_sleeps_at_the_doorbell() {
    let scene = search(&[&[Job::Call(A)], &[Job::Call(B)], &[Job::Answer, Job::Answer]]);
    assert_caught(scene.without("the call of a successor"));
}

#[test]
fn without_the_call_of_the_leader_what_another_found_before_it_armed_is_missed() {
    let scene = search(&[&[Job::Read], &[Job::Call(A)], &[Job::Write(1), Job::Answer]]);
    assert_caught(scene.without("the call of the leader"));
}

#[test]
fn without_the_wake_of_the_next_reader_messages_stay_though_readers_sleep() {
    let scene = search(&[
        &[Job::Read],
        &[Job::Read],
        &[Job::Call(A)],
        &[Job::Write(1), Job::Write(2), Job::Answer],
    ]);
    assert_caught(scene.without("the wake of the next reader"));
}

#[test]
fn without_the_look_behind_the_arming_a_message_is_missed_that_came_before() {
    let scene = search(&[&[Job::Read], &[Job::Write(1)]]);
    assert_caught(scene.without("the look behind the arming"));
}
