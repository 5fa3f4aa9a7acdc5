//! The side that waits.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use tombolo::{Readiness, TryRecvError, TrySendError};

use super::combination::Combination;
use super::notes::Notes;
use super::plan::Round;
use super::waiting::{How, Waiting};
use crate::ends::{AnyReceiver, AnySender, EIGHTH_LEN, Side};
use crate::figures;
use crate::stream::join;
use crate::{Failure, required};

/// What it is called, and what it finds out.
pub(super) const NAME: &str = "wakes.wait";
pub(super) const STALLED: &str = "rounds in which the machine stood still";
pub(super) const LONGEST: &str = "nanoseconds of the longest round";

/// A little less than the second after which a sleeper looks up by itself.
const LONG: Duration = Duration::from_millis(950);
/// So long before the end of a long round the actor must have acted for it to be a lost wake-up; else
/// it was the actor who came late.
const LONG_BEFORE: Duration = Duration::from_millis(500);

/// Waits: path, notes, rounds, seed, what it found out, combination.
pub(super) fn wait(arguments: &[String]) -> Result<(), Failure> {
    let combination = Combination::parse(arguments, 5)?;
    let (rounds, seed): (u64, u64) = (required(arguments, 2)?, required(arguments, 3)?);
    combination.enter(seed)?;
    let (path, found): (String, PathBuf) = (required(arguments, 0)?, required(arguments, 4)?);
    let notes = Notes::at(&required::<PathBuf>(arguments, 1)?)?;
    let mut region = join(&path)?;
    let (stalled, longest) = (0, Duration::ZERO);
    let mut waits = Waits { notes, seed, combination, waiting: None, stalled, longest };
    match combination.end.side {
        Side::Receiving => {
            let mut receiver = AnyReceiver::claim(&mut region, combination.end.kind)?;
            waits.wait_by(|| receiver.readiness())?;
            (1..=rounds).try_for_each(|number| waits.receive(&mut receiver, number))?;
        }
        Side::Sending => {
            let mut sender = AnySender::claim(&mut region, combination.end.kind)?;
            sender.fill(&[0; EIGHTH_LEN])?;
            waits.wait_by(|| sender.readiness())?;
            (1..=rounds).try_for_each(|number| waits.send(&mut sender, number))?;
        }
    }
    let longest = waits.longest.as_nanos() as u64;
    figures::save(&found, &[(STALLED, waits.stalled), (LONGEST, longest)])
}

struct Waits {
    notes: Notes,
    seed: u64,
    combination: Combination,
    /// `None` if calls block.
    waiting: Option<Waiting>,
    stalled: u64,
    longest: Duration,
}

/// So long that it counts as lost.
const FOR_EVER: Duration = Duration::from_secs(20);

impl Waits {
    /// Waits by what `ready` gives, unless calls are to block.
    fn wait_by(
        &mut self,
        ready: impl FnOnce() -> Result<Readiness, Failure>,
    ) -> Result<(), Failure> {
        if self.combination.how != How::Blocks {
            self.waiting = Some(Waiting::new(ready()?, self.combination.how)?);
        }
        Ok(())
    }

    /// Receives into `message`, waiting as this is to wait.
    fn receive_into(
        &self,
        receiver: &mut AnyReceiver,
        message: &mut [u8],
    ) -> Result<usize, Failure> {
        let Some(waiting) = &self.waiting else { return Ok(receiver.recv_into(message)?) };
        loop {
            match receiver.try_recv_into(message) {
                Err(TryRecvError::Empty) => until_ready(waiting)?,
                received => return Ok(received?),
            }
        }
    }

    /// Sends `message`, waiting as this is to wait.
    fn send_message(&self, sender: &mut AnySender, message: &[u8]) -> Result<(), Failure> {
        let Some(waiting) = &self.waiting else { return Ok(sender.send(message)?) };
        loop {
            match sender.try_send(message) {
                Err(TrySendError::Full(())) => until_ready(waiting)?,
                sent => return Ok(sent?),
            }
        }
    }

    /// Waits for the message of round `number`.
    fn receive(&mut self, receiver: &mut AnyReceiver, number: u64) -> Result<(), Failure> {
        let round = Round::draw(self.seed, number, self.combination.end);
        self.notes.announce(number);
        (0..round.burst).try_for_each(|_| take_awake(receiver))?;
        round.waiter.take();
        let mut message = [0; 8];
        let started = Instant::now();
        let len = self.receive_into(receiver, &mut message)?;
        self.judge(number, started)?;
        if (len, message) != (message.len(), number.to_le_bytes()) {
            return Err(format!("message {number}: {len} bytes, {message:?}").into());
        }
        Ok(())
    }

    /// Waits for the room of round `number`, in a ring that is full, and fills it.
    fn send(&mut self, sender: &mut AnySender, number: u64) -> Result<(), Failure> {
        let round = Round::draw(self.seed, number, self.combination.end);
        self.notes.announce(number);
        round.waiter.take();
        let started = Instant::now();
        self.send_message(sender, &[0; EIGHTH_LEN])?;
        self.judge(number, started)
    }

    /// Fails where the sleep must have ended by itself.
    fn judge(&mut self, number: u64, started: Instant) -> Result<(), Failure> {
        let took = started.elapsed();
        self.longest = self.longest.max(took);
        if took < LONG {
            return Ok(());
        }
        let since_act = Duration::from_nanos(self.notes.since_act_ns(number));
        if since_act > LONG_BEFORE {
            return Err(format!(
                "a wake-up was lost: round {number} took {took:?}, {since_act:?} after the act"
            )
            .into());
        }
        self.stalled += 1;
        Ok(())
    }
}

fn until_ready(waiting: &Waiting) -> Result<(), Failure> {
    if waiting.wait(FOR_EVER)? { Ok(()) } else { Err("a wake-up was lost for good".into()) }
}

/// Takes a message without ever sleeping.
fn take_awake(receiver: &mut AnyReceiver) -> Result<(), Failure> {
    loop {
        match receiver.try_recv_into(&mut [0; 8]) {
            Ok(_) => return Ok(()),
            Err(TryRecvError::Empty) => thread::yield_now(),
            Err(error) => return Err(error.into()),
        }
    }
}
