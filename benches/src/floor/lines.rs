//! Messages of one size, each on lines of its own: a message is there when its number is.

use std::sync::atomic::Ordering::{Acquire, Release};

use super::shared::Shared;
use crate::look::LINE;
use crate::system::{Failure, Look, Meeting, ProcessSystem, Receive, Transmit, relax};

/// A number, and the message behind it, as in any ring that carries whatever bytes it is given. So a
/// message of 64 bytes takes two lines.
#[derive(Debug)]
pub struct FreshLine;

/// The message alone, whose first word is the number: a line less, for who sends numbers.
#[derive(Debug)]
pub struct FreshLineBare;

const RING: usize = 1 << 20;

/// Where the ring begins; in front of it, the number up to which room is free.
const START: usize = 4096;

/// One end.
#[derive(Debug)]
pub struct LinesEnd {
    shared: Shared,
    size: usize,
    /// Bytes in front of the message.
    header: usize,
    stride: usize,
    /// Messages that the ring holds.
    slots: u64,
    slot: u64,
    /// The next message.
    number: u64,
    /// The last message that there is room for, as far as the sender knows.
    room: u64,
    /// The message after which the receiver tells what it has freed.
    next_free: u64,
}

impl LinesEnd {
    fn open(meeting: &Meeting, header: usize) -> Result<Self, Failure> {
        let stride = (header + meeting.size).next_multiple_of(LINE);
        let slots = (RING / stride) as u64;
        let shared = Shared::open(meeting, meeting.name, START + RING)?;
        Ok(Self {
            shared,
            size: meeting.size,
            header,
            stride,
            slots,
            slot: 0,
            number: 1,
            room: slots,
            next_free: (slots / 8).max(1),
        })
    }

    #[inline]
    fn offset(&self) -> usize {
        START + self.slot as usize * self.stride
    }

    #[inline]
    fn advance(&mut self) {
        self.number += 1;
        self.slot = if self.slot + 1 == self.slots { 0 } else { self.slot + 1 };
    }

    fn freed(&self) -> u64 {
        self.shared.word(0).load(Acquire)
    }
}

impl Transmit for LinesEnd {
    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        while self.number > self.room {
            self.room = self.freed() + self.slots;
            relax();
        }
        let offset = self.offset();
        self.shared.copy_in(offset + 8, &payload[8 - self.header..]);
        self.shared.word(offset).store(self.number, Release);
        self.advance();
        Ok(())
    }
}

impl Receive for LinesEnd {
    #[inline]
    fn receive(&mut self, look: &mut impl Look) -> Result<(), Failure> {
        let (offset, len) = (self.offset(), self.size);
        while self.shared.word(offset).load(Acquire) != self.number {
            relax();
        }
        // SAFETY: the message is there, and its room isn't free before the line below.
        look.at_slice(unsafe { self.shared.slice(offset + self.header, len) });
        if self.number == self.next_free {
            self.shared.word(0).store(self.number, Release);
            self.next_free += (self.slots / 8).max(1);
        }
        self.advance();
        Ok(())
    }
}

impl ProcessSystem for FreshLine {
    const NAME: &'static str = "fresh-line";
    const PRODUCERS_MAX: usize = 1;
    type Sender = LinesEnd;
    type Receiver = LinesEnd;

    fn sender(meeting: &Meeting) -> Result<LinesEnd, Failure> {
        LinesEnd::open(meeting, 8)
    }

    fn receiver(meeting: &Meeting) -> Result<LinesEnd, Failure> {
        LinesEnd::open(meeting, 8)
    }
}

impl ProcessSystem for FreshLineBare {
    const NAME: &'static str = "fresh-line-bare";
    const PRODUCERS_MAX: usize = 1;
    type Sender = LinesEnd;
    type Receiver = LinesEnd;

    fn sender(meeting: &Meeting) -> Result<LinesEnd, Failure> {
        LinesEnd::open(meeting, 0)
    }

    fn receiver(meeting: &Meeting) -> Result<LinesEnd, Failure> {
        LinesEnd::open(meeting, 0)
    }
}
