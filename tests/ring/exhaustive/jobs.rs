//! What the two sides do, on the real code, and what is broken on purpose.

use super::super::super::{Consumer, Memory, Refusal, Ring, SpscProducer, Wakes};
use super::super::replay::{Reached, Replay, replay};
use super::super::ring;
use super::state::{CAPACITY, Thread};

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutant {
    None,
    /// No zero is ever stored to the data area.
    NoZeroing,
    /// The header is published by a plain store.
    NoRelease,
    /// A claim that is given up leaves `zeroed_to` where it was before.
    AbortKeepsZeroedTo,
    /// A successor goes on behind what was published, but does not store where that is.
    TakeoverKeepsTail,
}

/// What a producer does, one message or one aborted claim after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Job {
    Send(u8, u32),
    /// Two messages of so many bytes, at once.
    Batch(u8, u8, u32),
    /// Claims so many bytes, fills them with what could be headers, and gives up.
    Abort(u32),
    /// Claims so many bytes and commits fewer.
    Shorten(u8, u32, u32),
}

impl Job {
    /// The messages that it sends.
    pub(super) fn numbers(self) -> Vec<u8> {
        match self {
            Self::Send(number, _) | Self::Shorten(number, ..) => vec![number],
            Self::Batch(first, second, _) => vec![first, second],
            Self::Abort(_) => vec![],
        }
    }
}

/// What is left of one job, on the real code; gives how many of its messages were sent, and `None`
/// where there was no room.
pub(super) fn work(
    producer: &mut SpscProducer,
    ring: &Ring<&Replay<'_>>,
    job: Job,
    part: usize,
    mutant: Mutant,
) -> Result<Option<usize>, String> {
    let fill = |number: u8, len: u32| vec![number; len as usize];
    let (before, wakes) = (producer.window.zeroed_to, &Wakes::default());
    let sent = match job {
        Job::Send(number, len) => producer.try_send(ring, &fill(number, len), wakes).map(|()| 1),
        Job::Batch(first, second, len) => producer.try_send_batch(
            ring,
            &[&fill(first, len)[..], &fill(second, len)][part..],
            wakes,
        ),
        Job::Abort(len) | Job::Shorten(_, len, _) => producer.claim(ring, len).map(|claimed| {
            let number = job.numbers().first().copied().unwrap_or(0xee);
            ring.memory.copy_in(producer.payload_position(ring, claimed), &fill(number, len));
            if let Job::Shorten(_, _, commit) = job {
                producer.commit(ring, claimed, commit as usize, wakes);
                return 1;
            }
            if mutant == Mutant::AbortKeepsZeroedTo {
                producer.window.zeroed_to = before;
            }
            0
        }),
    };
    match sent {
        Ok(count) => Ok(Some(count)),
        Err(Refusal::Full(_)) => Ok(None),
        Err(Refusal::Damaged(damage)) => Err(damage.to_string()),
    }
}

/// The consumer's two operations in turn: look and copy, then free.
#[expect(clippy::type_complexity, reason = "used once, taken apart at once")]
pub(super) fn run_consumer(
    thread: &Thread<Consumer>,
) -> Reached<Result<(Consumer, Option<(u64, u8)>), String>> {
    replay(&thread.log, |memory| {
        let (ring, wakes) = (model(memory, 0), Wakes::default());
        let Some(kept) = &thread.kept else {
            let attached = Consumer::attach(&ring).map_err(|damage| damage.to_string())?;
            return Ok((attached, None));
        };
        let mut consumer = kept.clone();
        let front = consumer.front(&ring, &wakes).map_err(|damage| damage.to_string())?;
        let Some(front) = front else { return Ok((consumer, None)) };
        if thread.job == 1 {
            consumer.free(&ring, front, &wakes);
            return Ok((consumer, None));
        }
        let mut bytes = vec![0; front.payload_len()];
        consumer.copy_out(&ring, front, &mut bytes);
        let position = consumer.head();
        match bytes.split_first() {
            Some((number, rest))
                if rest.iter().all(|byte| byte == number) && (1..0x80).contains(number) =>
            {
                Ok((consumer, Some((position, *number))))
            }
            _ => Err(format!("torn: {bytes:x?} at {position}")),
        }
    })
}

pub(super) fn model<'a>(memory: &'a Replay<'a>, prezero_len: u64) -> Ring<&'a Replay<'a>> {
    Ring { prezero_len, ..ring(memory, CAPACITY, 3, 24) }
}
