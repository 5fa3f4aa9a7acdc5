//! What one process does alone.

use std::time::Duration;

use super::clock::Samples;
use crate::actor::{Actor, Order, Percentiles};
use crate::system::{Failure, SoloSystem};

/// Does it again and again.
#[derive(Debug)]
pub(crate) struct Solo<S> {
    system: S,
    samples: Samples,
}

impl<S> Solo<S> {
    pub(crate) fn new(system: S) -> Self {
        Self { system, samples: Samples::new() }
    }
}

impl<S: SoloSystem> Actor for Solo<S> {
    fn obey(&mut self, order: Order, ready: &mut dyn FnMut()) -> Result<Option<f64>, Failure> {
        ready();
        let Order::Run { count, .. } = order else { return Ok(None) };
        let mut total = Duration::ZERO;
        for _ in 0..count {
            let took = self.system.once()?;
            self.samples.note(took);
            total += took;
        }
        Ok(Some(total.as_nanos() as f64 / count.max(1) as f64))
    }

    fn percentiles(&self) -> Option<Percentiles> {
        self.samples.percentiles()
    }
}
