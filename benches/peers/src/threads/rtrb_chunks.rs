//! rtrb as a ring of bytes. The messages of a run have one size, so that they need no framing, and a
//! message that passes over the ring's end comes in two parts.

use ::rtrb::chunks::ReadChunk;
use ::rtrb::{Consumer, CopyToUninit, Producer, RingBuffer};
use tombolo_benches::Registry;
use tombolo_benches::system::{Failure, Look, Meeting, Receive, ThreadSystem, Transmit, Waiting};

use crate::wait;

/// Adds it.
pub(super) fn register(registry: Registry) -> Registry {
    registry.threads::<RtrbChunks>()
}

struct RtrbChunks;

impl ThreadSystem for RtrbChunks {
    const NAME: &'static str = "rtrb-chunks";
    const PRODUCERS_MAX: usize = 1;
    const BATCHES: bool = true;
    type Sender = Sender;
    type Receiver = Receiver;

    fn takes(meeting: &Meeting) -> bool {
        meeting.waiting == Waiting::Busy && meeting.size <= meeting.capacity
    }

    fn ends(meeting: &Meeting) -> Result<(Vec<Sender>, Receiver), Failure> {
        let (producer, consumer) = RingBuffer::new(meeting.capacity);
        Ok((vec![Sender(producer)], Receiver { consumer, size: meeting.size }))
    }
}

struct Sender(Producer<u8>);

impl Transmit for Sender {
    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        wait::for_room(|| self.write(&[payload], payload.len()));
        Ok(())
    }

    fn send_batch(&mut self, payloads: &[&[u8]]) -> Result<(), Failure> {
        let Some(size) = payloads.first().map(|payload| payload.len()) else { return Ok(()) };
        let mut rest = payloads;
        while !rest.is_empty() {
            let count = wait::for_room(|| {
                let count = (self.0.slots() / size).min(rest.len());
                self.write(&rest[..count], count * size)?;
                (count > 0).then_some(count)
            });
            rest = &rest[count..];
        }
        Ok(())
    }
}

impl Sender {
    /// Writes messages of `len` bytes in all, if there is room for them.
    #[inline]
    fn write(&mut self, payloads: &[&[u8]], len: usize) -> Option<()> {
        let mut chunk = self.0.write_chunk_uninit(len).ok()?;
        let (mut first, mut second) = chunk.as_mut_slices();
        for payload in payloads {
            let (head, tail) = payload.split_at(payload.len().min(first.len()));
            let (to, rest) = first.split_at_mut(head.len());
            head.copy_to_uninit(to);
            first = rest;
            let (to, rest) = second.split_at_mut(tail.len());
            tail.copy_to_uninit(to);
            second = rest;
        }
        // SAFETY: both parts, which are all of the chunk, were just written.
        unsafe { chunk.commit_all() };
        Some(())
    }
}

struct Receiver {
    consumer: Consumer<u8>,
    size: usize,
}

/// Looks at `count` messages that begin where the chunk does.
#[inline]
fn look_at(chunk: &ReadChunk<'_, u8>, size: usize, look: &mut impl Look) {
    let (first, second) = chunk.as_slices();
    for start in (0..chunk.len()).step_by(size) {
        let end = start + size;
        if end <= first.len() {
            look.at_slice(&first[start..end]);
        } else if start >= first.len() {
            look.at_slice(&second[start - first.len()..end - first.len()]);
        } else {
            look.in_place(size, |offset, to| copy_from(first, second, start + offset, to));
        }
    }
}

/// Copies what lies in two parts, from an index on.
fn copy_from(first: &[u8], second: &[u8], index: usize, to: &mut [u8]) {
    let head = first.get(index..).unwrap_or_default();
    let head = &head[..head.len().min(to.len())];
    to[..head.len()].copy_from_slice(head);
    let begin = (index + head.len()).saturating_sub(first.len());
    let rest = to.len() - head.len();
    to[head.len()..].copy_from_slice(&second[begin..begin + rest]);
}

impl Receive for Receiver {
    #[inline]
    fn receive(&mut self, look: &mut impl Look) -> Result<(), Failure> {
        wait::for_message(|| {
            let chunk = self.consumer.read_chunk(self.size).ok()?;
            look_at(&chunk, self.size, look);
            chunk.commit_all();
            Some(())
        });
        Ok(())
    }

    fn receive_batch(&mut self, limit: usize, look: &mut impl Look) -> Result<usize, Failure> {
        Ok(wait::for_message(|| {
            let count = (self.consumer.slots() / self.size).min(limit);
            let chunk = self.consumer.read_chunk(count * self.size).ok()?;
            look_at(&chunk, self.size, look);
            chunk.commit_all();
            (count > 0).then_some(count)
        }))
    }
}
