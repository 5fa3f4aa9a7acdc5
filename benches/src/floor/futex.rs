//! One process wakes another.

use std::num::NonZeroU32;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Release};

use rustix::io::Errno;
use rustix::thread::ClockId;
use rustix::thread::futex::{self, Flags, Wait, WaitFlags, WaitPtr, WaitvFlags};

use super::shared::Shared;
use crate::system::{Failure, Look, Meeting, ProcessSystem, Receive, Transmit};

/// A futex, slept on by the call for one.
#[derive(Debug)]
pub struct FutexWake;

/// A futex, slept on by the call for many.
#[derive(Debug)]
pub struct FutexWaitvWake;

/// The end that wakes.
#[derive(Debug)]
pub struct FutexSender {
    shared: Shared,
    number: u32,
}

/// The end that sleeps, by one of the two calls.
#[derive(Debug)]
pub struct FutexReceiver {
    shared: Shared,
    number: u32,
    sleep: fn(&AtomicU32, u32) -> Result<(), Errno>,
}

impl Transmit for FutexSender {
    fn send(&mut self, _payload: &[u8]) -> Result<(), Failure> {
        self.number += 1;
        let word = self.shared.half(0);
        word.store(self.number, Release);
        futex::wake(word, Flags::empty(), 1)?;
        Ok(())
    }
}

impl Receive for FutexReceiver {
    fn receive(&mut self, look: &mut impl Look) -> Result<(), Failure> {
        let word = self.shared.half(0);
        while word.load(Acquire) == self.number {
            match (self.sleep)(word, self.number) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.number += 1;
        look.at_slice(&u64::from(self.number).to_le_bytes());
        Ok(())
    }
}

fn wait(word: &AtomicU32, expected: u32) -> Result<(), Errno> {
    futex::wait_bitset(word, Flags::empty(), expected, None, NonZeroU32::MAX)
}

fn waitv(word: &AtomicU32, expected: u32) -> Result<(), Errno> {
    let mut wait = Wait::new();
    wait.val = expected.into();
    wait.uaddr = WaitPtr::new(word.as_ptr().cast());
    wait.flags = WaitFlags::SIZE_U32;
    futex::waitv(&[wait], WaitvFlags::empty(), None, ClockId::Monotonic).map(drop)
}

fn sender(meeting: &Meeting) -> Result<FutexSender, Failure> {
    Ok(FutexSender { shared: Shared::open(meeting, meeting.name, 4096)?, number: 0 })
}

impl ProcessSystem for FutexWake {
    const NAME: &'static str = "futex-wake";
    const PRODUCERS_MAX: usize = 1;
    type Sender = FutexSender;
    type Receiver = FutexReceiver;

    fn takes(meeting: &Meeting) -> bool {
        meeting.size == 8
    }

    fn sender(meeting: &Meeting) -> Result<FutexSender, Failure> {
        sender(meeting)
    }

    fn receiver(meeting: &Meeting) -> Result<FutexReceiver, Failure> {
        let shared = Shared::open(meeting, meeting.name, 4096)?;
        Ok(FutexReceiver { shared, number: 0, sleep: wait })
    }
}

impl ProcessSystem for FutexWaitvWake {
    const NAME: &'static str = "futex-waitv-wake";
    const PRODUCERS_MAX: usize = 1;
    type Sender = FutexSender;
    type Receiver = FutexReceiver;

    fn takes(meeting: &Meeting) -> bool {
        meeting.size == 8
    }

    fn sender(meeting: &Meeting) -> Result<FutexSender, Failure> {
        sender(meeting)
    }

    fn receiver(meeting: &Meeting) -> Result<FutexReceiver, Failure> {
        let shared = Shared::open(meeting, meeting.name, 4096)?;
        Ok(FutexReceiver { shared, number: 0, sleep: waitv })
    }
}
