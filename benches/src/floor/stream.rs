//! Messages of one size, side by side, told of by the chunk.

use std::sync::atomic::Ordering::{Acquire, Release};

use super::shared::Shared;
use crate::system::{Failure, Look, Meeting, ProcessSystem, Receive, Transmit, relax};

/// Plain copies into a ring of 4 MiB, read where they lie. Every 4 KiB, or every message that is
/// longer, the receiver is told what there is.
#[derive(Debug)]
pub struct Stream;

const RING: usize = 4 << 20;
const CHUNK: usize = 4096;
/// Two flags side by side would be fetched together.
const FLAG_STRIDE: usize = 128;
/// Where the flags begin; in front of them, the number up to which room is free.
const FLAGS: usize = 4096;
/// Where the ring begins.
const START: usize = FLAGS + RING / CHUNK * FLAG_STRIDE;

/// One end.
#[derive(Debug)]
pub struct StreamEnd {
    shared: Shared,
    size: usize,
    /// Messages that the ring holds, and a chunk of it.
    slots: u64,
    chunk: u64,
    slot: u64,
    /// Of the next message.
    number: u64,
    /// The last message that there is room for, or that there is, as far as this end knows.
    known: u64,
}

impl StreamEnd {
    fn open(meeting: &Meeting, known: fn(u64) -> u64) -> Result<Self, Failure> {
        let size = meeting.size.next_multiple_of(8);
        let chunk = (CHUNK / size).max(1) as u64;
        let slots = (RING / size) as u64 / chunk * chunk;
        let shared = Shared::open(meeting, meeting.name, START + RING)?;
        Ok(Self { shared, size, slots, chunk, slot: 0, number: 1, known: known(slots) })
    }

    fn offset(&self) -> usize {
        START + self.slot as usize * self.size
    }

    /// Of the chunk that the slot is in.
    fn flag(&self, slot: u64) -> usize {
        FLAGS + (slot / self.chunk) as usize * FLAG_STRIDE
    }

    /// Whether a chunk ends here.
    #[inline]
    fn advance(&mut self) -> bool {
        self.number += 1;
        self.slot += 1;
        self.slot.is_multiple_of(self.chunk)
    }

    #[inline]
    fn wrap(&mut self) {
        if self.slot == self.slots {
            self.slot = 0;
        }
    }
}

impl Transmit for StreamEnd {
    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        while self.number > self.known {
            self.known = self.shared.word(0).load(Acquire) + self.slots;
            relax();
        }
        self.shared.copy_in(self.offset(), payload);
        if self.advance() {
            self.shared.word(self.flag(self.slot - 1)).store(self.number - 1, Release);
            self.wrap();
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if !self.slot.is_multiple_of(self.chunk) {
            self.shared.word(self.flag(self.slot)).store(self.number - 1, Release);
        }
        Ok(())
    }
}

impl Receive for StreamEnd {
    #[inline]
    fn receive(&mut self, look: &mut impl Look) -> Result<(), Failure> {
        while self.number > self.known {
            self.known = self.shared.word(self.flag(self.slot)).load(Acquire);
            relax();
        }
        // SAFETY: the message is there, and its room isn't free before the line below.
        look.at_slice(unsafe { self.shared.slice(self.offset(), self.size) });
        if self.advance() {
            if self.slot.is_multiple_of((self.slots / 8).max(1)) {
                self.shared.word(0).store(self.number - 1, Release);
            }
            self.wrap();
        }
        Ok(())
    }
}

impl ProcessSystem for Stream {
    const NAME: &'static str = "stream";
    const PRODUCERS_MAX: usize = 1;
    type Sender = StreamEnd;
    type Receiver = StreamEnd;

    fn takes(meeting: &Meeting) -> bool {
        meeting.size.is_power_of_two() && (8..=RING / 8).contains(&meeting.size)
    }

    fn sender(meeting: &Meeting) -> Result<StreamEnd, Failure> {
        StreamEnd::open(meeting, |slots| slots)
    }

    fn receiver(meeting: &Meeting) -> Result<StreamEnd, Failure> {
        StreamEnd::open(meeting, |_| 0)
    }
}
