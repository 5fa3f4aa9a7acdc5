//! Both sides in one process, on a thread each.

use std::sync::Barrier;
use std::thread;

use crate::actor::{Actor, Order, Percentiles};
use crate::place::pin;
use crate::system::Failure;

/// Two actors, each with its processor: who leads and takes the time, and who follows.
#[derive(Debug)]
pub(crate) struct PairOfThreads<L, F> {
    pub(crate) lead: L,
    pub(crate) follow: F,
    pub(crate) cpus: (usize, usize),
}

impl<L: Actor, F: Actor + Send> Actor for PairOfThreads<L, F> {
    fn obey(&mut self, order: Order, ready: &mut dyn FnMut()) -> Result<Option<f64>, Failure> {
        let Self { lead, follow, cpus } = self;
        let both_ready = Barrier::new(2);
        ready();
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                pin(cpus.1)?;
                follow.obey(order, &mut || _ = both_ready.wait())
            });
            pin(cpus.0)?;
            let ns = lead.obey(order, &mut || _ = both_ready.wait())?;
            other.join().map_err(|_| "the other thread panicked")??;
            Ok(ns)
        })
    }

    fn percentiles(&self) -> Option<Percentiles> {
        self.lead.percentiles()
    }
}

/// Several who send, on one processor, and one who receives and takes the time on another.
#[derive(Debug)]
pub(crate) struct FanOfThreads<S, R> {
    pub(crate) sources: Vec<S>,
    pub(crate) sink: R,
    pub(crate) cpus: (usize, usize),
}

impl<S: Actor + Send, R: Actor> Actor for FanOfThreads<S, R> {
    fn obey(&mut self, order: Order, ready: &mut dyn FnMut()) -> Result<Option<f64>, Failure> {
        let Self { sources, sink, cpus } = self;
        let all_ready = Barrier::new(sources.len() + 1);
        ready();
        thread::scope(|scope| {
            let all_ready = &all_ready;
            let start = |source: &mut S| {
                pin(cpus.0)?;
                source.obey(order, &mut || _ = all_ready.wait())
            };
            let started: Vec<_> =
                sources.iter_mut().map(|source| scope.spawn(move || start(source))).collect();
            pin(cpus.1)?;
            let ns = sink.obey(order, &mut || _ = all_ready.wait())?;
            for source in started {
                source.join().map_err(|_| "a sending thread panicked")??;
            }
            Ok(ns)
        })
    }
}
