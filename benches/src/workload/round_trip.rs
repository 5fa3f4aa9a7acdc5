//! There and back.

use std::time::Instant;

use super::clock::{Samples, timed};
use crate::actor::{Actor, Order, Percentiles};
use crate::look::{self, Compare, Peek, Touch, fill, set_number};
use crate::system::{Failure, Receive, Transmit};

/// Both ends of one side, and what goes through them.
#[derive(Debug)]
struct Ends<T, R> {
    tx: T,
    rx: R,
    message: Vec<u8>,
    sent: u64,
    order: look::Order,
    style: Style,
}

/// How messages are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Copied from a buffer, and every line of it touched by the receiver.
    Copied,
    /// Built in place and not touched.
    Lent,
}

impl<T: Transmit, R: Receive> Ends<T, R> {
    fn new((tx, rx): (T, R), size: usize, style: Style) -> Self {
        Self { tx, rx, message: vec![0; size], sent: 0, order: look::Order::default(), style }
    }

    #[inline]
    fn send(&mut self) -> Result<(), Failure> {
        self.sent += 1;
        set_number(&mut self.message, self.sent);
        self.tx.send(&self.message)?;
        self.tx.flush()
    }

    #[inline]
    fn receive(&mut self) -> Result<(), Failure> {
        self.rx.receive(&mut Touch::new(&mut self.order))
    }

    #[inline]
    fn lend(&mut self) -> Result<(), Failure> {
        self.sent += 1;
        self.tx.lend(self.message.len(), self.sent)?;
        self.tx.flush()
    }

    #[inline]
    fn peek(&mut self) -> Result<(), Failure> {
        self.rx.receive(&mut Peek(&mut self.order))
    }

    fn send_filled(&mut self) -> Result<(), Failure> {
        self.sent += 1;
        fill(&mut self.message, self.sent);
        self.tx.send(&self.message)?;
        self.tx.flush()
    }

    fn compare(&mut self) -> Result<(), Failure> {
        let mut compare = Compare::new(&mut self.order, self.message.len());
        self.rx.receive(&mut compare)?;
        compare.check()
    }
}

/// The side that starts, and takes the time.
#[derive(Debug)]
pub(crate) struct Ping<T, R> {
    ends: Ends<T, R>,
    samples: Samples,
}

impl<T: Transmit, R: Receive> Ping<T, R> {
    pub(crate) fn new(ends: (T, R), size: usize, style: Style) -> Self {
        Self { ends: Ends::new(ends, size, style), samples: Samples::new() }
    }

    #[inline]
    fn round(ends: &mut Ends<T, R>) -> Result<(), Failure> {
        ends.send()?;
        ends.receive()
    }

    #[inline]
    fn lent_round(ends: &mut Ends<T, R>) -> Result<(), Failure> {
        ends.lend()?;
        ends.peek()
    }

    /// The rounds as a whole, and then some of them one by one.
    #[inline]
    fn run(
        &mut self,
        (count, samples): (u64, u64),
        mut round: impl FnMut(&mut Ends<T, R>) -> Result<(), Failure>,
    ) -> Result<f64, Failure> {
        let Self { ends, samples: times } = self;
        let ns = timed(count, || (0..count).try_for_each(|_| round(ends)))?;
        for _ in 0..samples {
            let start = Instant::now();
            round(ends)?;
            times.note(start.elapsed());
        }
        Ok(ns)
    }
}

impl<T: Transmit, R: Receive> Actor for Ping<T, R> {
    fn obey(&mut self, order: Order, ready: &mut dyn FnMut()) -> Result<Option<f64>, Failure> {
        ready();
        let ns = match order {
            Order::Check { count } => {
                for _ in 0..count {
                    self.ends.send_filled()?;
                    self.ends.compare()?;
                }
                self.samples.clear();
                None
            }
            Order::Run { count, samples } => Some(match self.ends.style {
                Style::Copied => self.run((count, samples), Self::round)?,
                Style::Lent => self.run((count, samples), Self::lent_round)?,
            }),
        };
        self.ends.order.check()?;
        Ok(ns)
    }

    fn percentiles(&self) -> Option<Percentiles> {
        self.samples.percentiles()
    }
}

/// The side that answers.
#[derive(Debug)]
pub(crate) struct Pong<T, R> {
    ends: Ends<T, R>,
}

impl<T: Transmit, R: Receive> Pong<T, R> {
    pub(crate) fn new(ends: (T, R), size: usize, style: Style) -> Self {
        Self { ends: Ends::new(ends, size, style) }
    }
}

impl<T: Transmit, R: Receive> Actor for Pong<T, R> {
    fn obey(&mut self, order: Order, ready: &mut dyn FnMut()) -> Result<Option<f64>, Failure> {
        ready();
        let ends = &mut self.ends;
        match order {
            Order::Check { count } => {
                for _ in 0..count {
                    ends.compare()?;
                    ends.send_filled()?;
                }
            }
            Order::Run { count, samples } if ends.style == Style::Lent => {
                for _ in 0..count + samples {
                    ends.peek()?;
                    ends.lend()?;
                }
            }
            Order::Run { count, samples } => {
                for _ in 0..count + samples {
                    ends.receive()?;
                    ends.send()?;
                }
            }
        }
        ends.order.check()?;
        Ok(None)
    }
}
