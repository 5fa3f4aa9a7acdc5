//! What makes the stores of other processes arrive: a barrier, and time.
//!
//! A step that nobody else can see goes first, so a process may have stored more already than it had
//! when the barrier came. What it stored since its last step that others can see is marked, and a
//! barrier may come between any two of these stores.

use super::receiver::Idles;
use super::setup::{Barriers, Order};
use super::state::State;
use super::step::{Outcomes, Stepper};
use super::{actor::Actor, call::Ends, call::TIMED_OUT};

impl Stepper<'_> {
    pub(super) fn barrier(&mut self, state: State, index: usize) -> Outcomes {
        self.seen.barriers += 1;
        let states = match self.setup.barriers {
            Barriers::Work => self.drained(state, index, self.setup.unregistered),
            Barriers::Refused | Barriers::Pretended => vec![state],
        };
        let is_done = self.setup.barriers != Barriers::Refused;
        self.answer_all(states, index, |_, _| Ok(is_done.into()))
    }

    /// A sleep ends by itself.
    pub(super) fn time_out(&mut self, mut state: State, index: usize) -> Outcomes {
        self.seen.timed_out += 1;
        let states = match state.threads[index].asleep.take() {
            Some((_, Ends::Soon)) => self.drained(state, index, &[]),
            _ => vec![state],
        };
        self.answer_all(states, index, |_, _| Ok(TIMED_OUT))
    }

    /// Whether stores must be marked: a barrier may come, and steps have an order.
    pub(super) fn marks_stores(&self) -> bool {
        let sleeps = |actor: &Actor| match actor {
            Actor::Receiver(receiver) => receiver.idles != Idles::Polls,
            Actor::Lanes(_) => true, // or executes barriers for other reasons
            _ => false,
        };
        self.setup.order == Order::UnseenFirst && self.setup.actors.iter().any(sleeps)
    }

    /// Everything that `index` has stored arrives, and what all others had but `spared`, at any
    /// moment since their last steps that can be seen.
    fn drained(&self, mut state: State, index: usize, spared: &[usize]) -> Vec<State> {
        state.drain(index);
        let reached = |other: &usize| *other != index && !spared.contains(other);
        (0..state.threads.len()).filter(reached).fold(vec![state], |states, other| {
            states.iter().flat_map(|state| drained_to_any_mark(state, other)).collect()
        })
    }
}

fn drained_to_any_mark(state: &State, index: usize) -> Vec<State> {
    let buffer = &state.threads[index].buffer;
    let marked = buffer.iter().rev().take_while(|store| store.is_marked).count();
    let counts = buffer.len() - marked..=buffer.len();
    let outcomes = counts.map(|count| {
        let mut next = state.clone();
        let rest = next.threads[index].buffer.split_off(count);
        next.drain(index);
        next.threads[index].buffer = rest;
        next
    });
    outcomes.collect()
}
