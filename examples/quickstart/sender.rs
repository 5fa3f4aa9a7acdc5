//! This process: starts the receiver, sends lines, measures, and checks the acknowledgements.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::{self, Child, Command};
use std::time::{Duration, Instant};

use tombolo::{EventsRegion, MpscConsumer, SpscSender};

use crate::input::Input;
use crate::tally::{Ack, Tally};
use crate::{Failure, RECEIVE};

/// How long to stream; the pass over the input that has begun is finished.
const STREAM_TIME: Duration = Duration::from_millis(2500);
/// Round trips to measure, unless time is up before.
const ROUND_TRIPS: usize = 50_000;
/// How long to measure round trips at the most.
const ROUND_TRIP_TIME: Duration = Duration::from_secs(4);
/// How long the receiver may take to start.
const START_TIME: Duration = Duration::from_secs(10);

/// A receiver process, and this process's ends of the two rings.
#[derive(Debug)]
pub(crate) struct Talk {
    receiver: Child,
    lines: SpscSender,
    acks: MpscConsumer,
    sent: Tally,
    acked: Ack,
}

/// What streaming came to.
#[derive(Debug)]
pub(crate) struct Streamed {
    /// How often the whole input was sent.
    pub(crate) passes: u64,
    /// The acknowledgement of everything.
    pub(crate) acked: Ack,
    /// From the first line sent to the last acknowledgement.
    pub(crate) time: Duration,
}

impl Talk {
    /// Starts a receiver that acknowledges each `ack_every`-th line, and waits until it is ready.
    pub(crate) fn begin(region: &mut EventsRegion, ack_every: u64) -> Result<Self, Failure> {
        let (mut lines, _) = region.split_spsc()?;
        let (_, mut acks) = region.split_mpsc()?;
        lines.attach()?;
        acks.attach()?;
        let receiver = Command::new(env::current_exe()?)
            .arg(RECEIVE)
            .arg(region.path().ok_or("the region has no path")?)
            .args([ack_every.to_string(), process::id().to_string()])
            .process_group(0) // out of reach of Ctrl-C: it tidies up when this process is gone
            .spawn()?;
        let (sent, acked) = (Tally::default(), Ack::default());
        let mut talk = Self { receiver, lines, acks, sent, acked };
        let ready = talk.acks.recv_into_timeout(&mut [0; Ack::LEN], START_TIME);
        match ready {
            Ok(_) => Ok(talk),
            Err(error) => Err(talk.explain(error.into())),
        }
    }

    /// The receiver's process id.
    pub(crate) fn receiver(&self) -> u32 {
        self.receiver.id()
    }

    /// Sends the input over and over, as fast as the ring takes it.
    pub(crate) fn stream(&mut self, input: &Input) -> Result<Streamed, Failure> {
        let (start, mut passes) = (Instant::now(), 0);
        while start.elapsed() < STREAM_TIME {
            for line in input.lines() {
                self.lines.send(line)?; // waits while the ring is full
                self.sent.add(line);
            }
            passes += 1;
            let acked = &mut self.acked;
            self.acks.drain(usize::MAX, |record| {
                let mut bytes = [0; Ack::LEN];
                if record.read_at(0, &mut bytes).is_ok() {
                    *acked = Ack::from_bytes(bytes);
                } // else the drain says why
            })?;
        }
        while self.acked.lines < self.sent.ack().lines {
            self.wait_for_ack()?;
        }
        let time = start.elapsed();
        self.check()?;
        Ok(Streamed { passes, acked: self.acked, time })
    }

    /// Sends one line at a time and waits for its acknowledgement: the time that each took.
    pub(crate) fn ping_pong(&mut self, input: &Input) -> Result<Vec<Duration>, Failure> {
        let (start, mut times) = (Instant::now(), Vec::with_capacity(ROUND_TRIPS));
        for line in input.lines().cycle() {
            if times.len() == ROUND_TRIPS || start.elapsed() > ROUND_TRIP_TIME {
                break;
            }
            let sent = Instant::now();
            self.lines.send(line)?;
            self.wait_for_ack()?;
            times.push(sent.elapsed());
            self.sent.add(line);
            self.check()?;
        }
        Ok(times)
    }

    /// Gives this process's ends back, and sees the receiver off, which goes when its sender is
    /// gone.
    pub(crate) fn end(self) -> Result<(), Failure> {
        let Self { mut receiver, lines, mut acks, .. } = self;
        drop(lines);
        let surplus = acks.iter().count(); // ends when the receiver is gone
        let status = receiver.wait()?;
        if !status.success() || surplus > 0 {
            let failure = format!("the receiver ended with {status}, {surplus} messages too many");
            return Err(failure.into());
        }
        Ok(())
    }

    /// `failure`, and how the receiver ended where that is why.
    pub(crate) fn explain(&mut self, failure: Failure) -> Failure {
        match self.receiver.try_wait() {
            Ok(Some(status)) => format!("the receiver ended with {status}: {failure}").into(),
            _ => failure,
        }
    }

    fn wait_for_ack(&mut self) -> Result<(), Failure> {
        let mut bytes = [0; Ack::LEN];
        self.acks.recv_into(&mut bytes)?;
        self.acked = Ack::from_bytes(bytes);
        Ok(())
    }

    /// What came out is what went in.
    fn check(&self) -> Result<(), Failure> {
        let (sent, acked) = (self.sent.ack(), self.acked);
        if sent != acked {
            return Err(format!("sent {sent:x?}, but the receiver got {acked:x?}").into());
        }
        Ok(())
    }
}
