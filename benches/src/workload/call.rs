//! A request and its reply.

use std::time::Instant;

use super::clock::{Samples, timed};
use crate::actor::{Actor, Order, Percentiles};
use crate::look::{self, Compare, Touch, fill, set_number};
use crate::system::{CALL_HEAD, CallingSystem, Failure};

/// The messages of one side.
#[derive(Debug)]
struct Messages {
    /// The next one to be sent, with its head.
    message: Vec<u8>,
    sent: u64,
    /// Of those that come.
    order: look::Order,
}

impl Messages {
    fn new(size: usize) -> Self {
        Self { message: vec![0; size], sent: 0, order: look::Order::default() }
    }

    #[inline]
    fn next(&mut self) -> (&[u8], Touch<'_>) {
        self.sent += 1;
        set_number(&mut self.message[CALL_HEAD..], self.sent);
        (&self.message, Touch::new(&mut self.order))
    }

    fn next_filled(&mut self) -> (&[u8], Compare<'_>) {
        self.sent += 1;
        fill(&mut self.message[CALL_HEAD..], self.sent);
        (&self.message, Compare::new(&mut self.order, self.message.len() - CALL_HEAD))
    }
}

/// The side that asks, and takes the time.
pub(crate) struct Asking<S: CallingSystem> {
    caller: S::Caller,
    messages: Messages,
    samples: Samples,
}

impl<S: CallingSystem> Asking<S> {
    pub(crate) fn new(caller: S::Caller, size: usize) -> Self {
        Self { caller, messages: Messages::new(size), samples: Samples::new() }
    }

    #[inline]
    fn round(&mut self) -> Result<(), Failure> {
        let (request, mut look) = self.messages.next();
        S::call(&mut self.caller, request, &mut look)
    }

    fn compared_round(&mut self) -> Result<(), Failure> {
        let (request, mut look) = self.messages.next_filled();
        S::call(&mut self.caller, request, &mut look)?;
        look.check()
    }
}

impl<S: CallingSystem> Actor for Asking<S> {
    fn obey(&mut self, order: Order, ready: &mut dyn FnMut()) -> Result<Option<f64>, Failure> {
        ready();
        let ns = match order {
            Order::Check { count } => {
                (0..count).try_for_each(|_| self.compared_round())?;
                self.samples.clear();
                None
            }
            Order::Run { count, samples } => {
                let ns = timed(count, || (0..count).try_for_each(|_| self.round()))?;
                for _ in 0..samples {
                    let start = Instant::now();
                    self.round()?;
                    self.samples.note(start.elapsed());
                }
                Some(ns)
            }
        };
        self.messages.order.check()?;
        Ok(ns)
    }

    fn percentiles(&self) -> Option<Percentiles> {
        self.samples.percentiles()
    }
}

/// The side that answers.
pub(crate) struct Answering<S: CallingSystem> {
    answerer: S::Answerer,
    messages: Messages,
}

impl<S: CallingSystem> Answering<S> {
    pub(crate) fn new(answerer: S::Answerer, size: usize) -> Self {
        Self { answerer, messages: Messages::new(size) }
    }
}

impl<S: CallingSystem> Actor for Answering<S> {
    fn obey(&mut self, order: Order, ready: &mut dyn FnMut()) -> Result<Option<f64>, Failure> {
        ready();
        let Self { answerer, messages } = self;
        match order {
            Order::Check { count } => {
                for _ in 0..count {
                    let (reply, mut look) = messages.next_filled();
                    S::answer(answerer, reply, &mut look)?;
                    look.check()?;
                }
            }
            Order::Run { count, samples } => {
                for _ in 0..count + samples {
                    let (reply, mut look) = messages.next();
                    S::answer(answerer, reply, &mut look)?;
                }
            }
        }
        messages.order.check()?;
        Ok(None)
    }
}
