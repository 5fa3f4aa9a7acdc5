//! What the two sides do, on the real code, and what is broken on purpose.

use super::super::super::{Consumer, Memory, Refusal, Ring, Run, SpscProducer, Wakes};
use super::super::replay::{Reached, Replay, replay};
use super::super::{ring, send_step};
use super::state::{CAPACITY, Thread};

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutant {
    None,
    /// No zero is ever stored to the data area.
    NoZeroing,
    /// The header is published by a plain store.
    NoRelease,
    /// A successor goes on behind what was published, but does not store where that is.
    TakeoverKeepsTail,
    /// The consumer frees a message before it copies it.
    FreesBeforeCopy,
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
/// where there was no space.
pub(super) fn work(
    producer: &mut SpscProducer,
    ring: &Ring<&Replay<'_>>,
    job: Job,
    part: usize,
) -> Result<Option<usize>, String> {
    let fill = |number: u8, len: u32| vec![number; len as usize];
    let wakes = &Wakes::default();
    let sent = match job {
        Job::Send(number, len) => producer.produce(ring, wakes, send_step(&fill(number, len))),
        Job::Batch(first, second, len) => producer.produce(ring, wakes, |window, ring| {
            window.send_batch(ring, &[&fill(first, len)[..], &fill(second, len)][part..])
        }),
        Job::Abort(len) | Job::Shorten(_, len, _) => {
            let reserved = producer.window.reserve(ring, len);
            let number = job.numbers().first().copied().unwrap_or(0xee);
            reserved.and_then(|reserved| {
                let position = producer.window.payload_position(ring, reserved);
                ring.memory.copy_in(position, &fill(number, len));
                let Job::Shorten(_, _, commit) = job else { return Ok(0) };
                producer.produce(ring, wakes, |window, ring| {
                    Ok(window.commit(ring, reserved, commit as usize))
                })
            })
        }
    };
    match sent {
        Ok(count) => Ok(Some(count)),
        Err(Refusal::Full(_)) => Ok(None),
        Err(Refusal::Damaged(damage)) => Err(damage.to_string()),
    }
}

/// A consumer between two operations, with what it has gone over and not freed.
pub(super) type Kept = (Consumer, Run);

/// What an operation of the consumer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Did {
    Nothing,
    /// It copied this message, from this position, and went on behind it.
    Took(u64, u8),
    /// It freed all that it had gone over.
    Freed,
}

/// The consumer's next operation: a look and a copy, or freeing so many messages, or fewer where there
/// are no more.
pub(super) fn run_consumer(
    thread: &Thread<Kept>,
    run_max: usize,
    mutant: Mutant,
) -> Reached<Result<(Kept, Did), String>> {
    replay(&thread.log, |memory| {
        let (ring, wakes) = (model(memory), Wakes::default());
        let Some((consumer, run)) = &thread.kept else {
            let attached = Consumer::attach(&ring).map_err(|damage| damage.to_string())?;
            let run = attached.run();
            return Ok(((attached, run), Did::Nothing));
        };
        let (mut consumer, mut run) = (consumer.clone(), run.clone());
        let is_over = run.count() as usize == run_max;
        let front = if is_over { None } else { next_front(&ring, &mut consumer, &mut run)? };
        let free = |consumer: &mut Consumer, run: &mut Run| {
            consumer.free_run(&ring, run, &wakes);
            *run = consumer.run();
        };
        let Some((offset, len)) = front else {
            let did = if run.count() > 0 { Did::Freed } else { Did::Nothing };
            if did == Did::Freed {
                free(&mut consumer, &mut run);
            }
            return Ok(((consumer, run), did));
        };
        let position = run.head();
        run.pass(&ring.rules, offset, len);
        if mutant == Mutant::FreesBeforeCopy {
            free(&mut consumer, &mut run);
        }
        let mut bytes = vec![0; len as usize];
        ring.memory.copy_out(position.wrapping_add(offset), &mut bytes);
        match bytes.split_first() {
            Some((number, rest))
                if rest.iter().all(|byte| byte == number) && (1..0x80).contains(number) =>
            {
                Ok(((consumer, run), Did::Took(position, *number)))
            }
            _ => Err(format!("torn: {bytes:x?} at {position}")),
        }
    })
}

/// Where the payload of the next message begins in its record, and how long it is. Where a run has not
/// begun, padding is passed over.
fn next_front(
    ring: &Ring<&Replay<'_>>,
    consumer: &mut Consumer,
    run: &mut Run,
) -> Result<Option<(u64, u32)>, String> {
    if let Some((front, len)) = run.front(&ring.memory, &ring.rules) {
        return Ok(Some((front.payload_offset(), len)));
    }
    if run.count() > 0 {
        return Ok(None);
    }
    let front = consumer.front(ring, &Wakes::default()).map_err(|damage| damage.to_string())?;
    *run = consumer.run();
    Ok(front.map(|front| (front.payload_offset(), front.payload_len() as u32)))
}

pub(super) fn model<'a>(memory: &'a Replay<'a>) -> Ring<&'a Replay<'a>> {
    ring(memory, CAPACITY, 3, 24)
}
