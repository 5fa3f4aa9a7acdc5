//! Messages of one size, one behind the other, with nothing but themselves: a message is there when
//! its number is.

use std::sync::atomic::Ordering::{Acquire, Release};

use super::shared::Shared;
use crate::look::LINE;
use crate::system::{Failure, Look, Meeting, ProcessSystem, Receive, Transmit, relax};

/// Each message begins a line.
#[derive(Debug)]
pub struct FreshLine;

const FRESH_LINE_RING: usize = 1 << 20;

/// Where the ring begins; in front of it, the number up to which room is free.
const START: usize = 4096;

/// One end.
#[derive(Debug)]
pub struct LinesEnd {
    shared: Shared,
    size: usize,
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
    fn open(meeting: &Meeting, align: usize, ring: usize) -> Result<Self, Failure> {
        let stride = meeting.size.next_multiple_of(align);
        let slots = (ring / stride) as u64;
        let shared = Shared::open(meeting, meeting.name, START + ring)?;
        Ok(Self {
            shared,
            size: meeting.size,
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
        self.shared.copy_in(offset + 8, &payload[8..]);
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
        look.at_slice(unsafe { self.shared.slice(offset, len) });
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
        LinesEnd::open(meeting, LINE, FRESH_LINE_RING)
    }

    fn receiver(meeting: &Meeting) -> Result<LinesEnd, Failure> {
        LinesEnd::open(meeting, LINE, FRESH_LINE_RING)
    }
}
