//! As many as go through.

use super::clock::timed;
use crate::actor::{Actor, Order};
use crate::look::{self, Compare, Touch, fill, number, set_number};
use crate::system::{Failure, Receive, Transmit};

/// Most messages in one call.
const BATCH_MAX: usize = 64;
/// Most bytes in one call.
const BATCH_BYTES: usize = 256 << 10;

/// How many messages go in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calls {
    /// One.
    Single,
    /// Up to 64, and 256 KiB.
    Batched,
}

impl Calls {
    fn batch(self, size: usize) -> usize {
        match self {
            Self::Single => 1,
            Self::Batched => (BATCH_BYTES / size.max(1)).clamp(1, BATCH_MAX),
        }
    }
}

/// A side that sends.
#[derive(Debug)]
pub(crate) struct Source<T> {
    tx: T,
    /// As many messages as go in one call, one behind the other.
    messages: Vec<u8>,
    size: usize,
    calls: Calls,
    producer: usize,
    sent: u64,
}

impl<T: Transmit> Source<T> {
    pub(crate) fn new(tx: T, size: usize, calls: Calls, producer: usize) -> Self {
        let messages = vec![0; size * calls.batch(size)];
        Self { tx, messages, size, calls, producer, sent: 0 }
    }

    fn send(&mut self, count: u64) -> Result<(), Failure> {
        for _ in 0..count {
            self.sent += 1;
            set_number(&mut self.messages, number(self.producer, self.sent));
            self.tx.send(&self.messages)?;
        }
        self.tx.flush()
    }

    fn send_batches(&mut self, count: u64) -> Result<(), Failure> {
        let mut left = count;
        while left > 0 {
            let batch = self.calls.batch(self.size).min(left as usize);
            for message in self.messages.chunks_exact_mut(self.size).take(batch) {
                self.sent += 1;
                set_number(message, number(self.producer, self.sent));
            }
            let mut slices = [&[][..]; BATCH_MAX];
            for (slice, message) in slices.iter_mut().zip(self.messages.chunks_exact(self.size)) {
                *slice = message;
            }
            self.tx.send_batch(&slices[..batch])?;
            left -= batch as u64;
        }
        self.tx.flush()
    }

    fn send_filled(&mut self, count: u64) -> Result<(), Failure> {
        for _ in 0..count {
            self.sent += 1;
            let message = &mut self.messages[..self.size];
            fill(message, number(self.producer, self.sent));
            self.tx.send(message)?;
        }
        self.tx.flush()
    }
}

impl<T: Transmit> Actor for Source<T> {
    fn obey(&mut self, order: Order, ready: &mut dyn FnMut()) -> Result<Option<f64>, Failure> {
        ready();
        match (order, self.calls) {
            (Order::Check { count }, _) => self.send_filled(count)?,
            (Order::Run { count, .. }, Calls::Single) => self.send(count)?,
            (Order::Run { count, .. }, Calls::Batched) => self.send_batches(count)?,
        }
        Ok(None)
    }
}

/// The side that receives, and takes the time: from its first message on, to its last.
#[derive(Debug)]
pub(crate) struct Sink<R> {
    rx: R,
    size: usize,
    calls: Calls,
    producers: u64,
    order: look::Order,
}

impl<R: Receive> Sink<R> {
    pub(crate) fn new(rx: R, size: usize, calls: Calls, producers: usize) -> Self {
        Self { rx, size, calls, producers: producers as u64, order: look::Order::default() }
    }

    fn compare(&mut self, count: u64) -> Result<(), Failure> {
        let mut compare = Compare::new(&mut self.order, self.size);
        (0..count).try_for_each(|_| self.rx.receive(&mut compare))?;
        compare.check()
    }

    fn receive(&mut self, count: u64) -> Result<(), Failure> {
        let mut touch = Touch::new(&mut self.order);
        (0..count).try_for_each(|_| self.rx.receive(&mut touch))
    }

    fn receive_batches(&mut self, count: u64) -> Result<(), Failure> {
        let mut touch = Touch::new(&mut self.order);
        let mut left = count;
        while left > 0 {
            let limit = BATCH_MAX.min(left as usize);
            left -= self.rx.receive_batch(limit, &mut touch)? as u64;
        }
        Ok(())
    }
}

impl<R: Receive> Actor for Sink<R> {
    fn obey(&mut self, order: Order, ready: &mut dyn FnMut()) -> Result<Option<f64>, Failure> {
        ready();
        let ns = match order {
            Order::Check { count } => {
                self.compare(count * self.producers)?;
                None
            }
            Order::Run { count, .. } => {
                let rest = (count * self.producers).saturating_sub(1);
                self.receive(1)?;
                Some(timed(rest, || match self.calls {
                    Calls::Single => self.receive(rest),
                    Calls::Batched => self.receive_batches(rest),
                })?)
            }
        };
        self.order.check()?;
        Ok(ns)
    }
}
