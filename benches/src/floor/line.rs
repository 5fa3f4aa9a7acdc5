//! One cache line that changes hands.

use std::sync::atomic::Ordering::{Acquire, Release};

use super::shared::Shared;
use crate::system::{Failure, Look, Meeting, ProcessSystem, Receive, Transmit, relax};

/// A word that both directions use: it counts up, odd on the way there and even on the way back.
#[derive(Debug)]
pub struct Line;

/// One end of one direction.
#[derive(Debug)]
pub struct LineEnd {
    shared: Shared,
    /// What the word is after the next message.
    next: u64,
    number: u64,
}

impl LineEnd {
    fn open(meeting: &Meeting) -> Result<Self, Failure> {
        let next = if meeting.name == "back" { 2 } else { 1 };
        Ok(Self { shared: Shared::open(meeting, "line", 4096)?, next, number: 0 })
    }
}

impl Transmit for LineEnd {
    #[inline]
    fn send(&mut self, _payload: &[u8]) -> Result<(), Failure> {
        self.shared.word(0).store(self.next, Release);
        self.next += 2;
        Ok(())
    }
}

impl Receive for LineEnd {
    #[inline]
    fn receive(&mut self, look: &mut impl Look) -> Result<(), Failure> {
        while self.shared.word(0).load(Acquire) != self.next {
            relax();
        }
        self.next += 2;
        self.number += 1;
        look.at_slice(&self.number.to_le_bytes());
        Ok(())
    }
}

impl ProcessSystem for Line {
    const NAME: &'static str = "line";
    const PRODUCERS_MAX: usize = 1;
    type Sender = LineEnd;
    type Receiver = LineEnd;

    fn takes(meeting: &Meeting) -> bool {
        meeting.size == 8
    }

    fn sender(meeting: &Meeting) -> Result<LineEnd, Failure> {
        LineEnd::open(meeting)
    }

    fn receiver(meeting: &Meeting) -> Result<LineEnd, Failure> {
        LineEnd::open(meeting)
    }
}
