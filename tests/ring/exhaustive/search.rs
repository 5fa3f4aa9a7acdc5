//! The search: every state that one step leads to, until there are no new ones.

use std::collections::HashSet;

use super::super::super::{SpscProducer, Word};
use super::super::recording::Access;
use super::super::replay::{Reached, replay};
use super::jobs::{Did, Job, Mutant, model, run_consumer, work};
use super::state::{Side, State, Steps, Thread, fingerprint};

/// What a search covers, and what it found.
pub(super) struct Search {
    pub(super) mutant: Mutant,
    /// The jobs of the producer, and of each successor.
    pub(super) jobs: Vec<Vec<Job>>,
    pub(super) kills: u8,
    /// Bytes that producers zero ahead.
    /// Messages that the consumer goes over before it frees them.
    run_max: usize,
    visited: HashSet<u128>,
    ends: u64,
    kills_hit: u64,
    redelivered: u64,
}

/// What a search went through without finding anything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Covered {
    pub(super) states: usize,
    pub(super) ends: u64,
    pub(super) kills: u64,
    pub(super) redelivered: u64,
}

type Found = Result<(), String>;

/// The producer after an operation, and how many messages that sent; `None` where there was no space.
type Worked = Result<(SpscProducer, Option<usize>), String>;

impl Search {
    pub(super) fn new(mutant: Mutant, jobs: Vec<Vec<Job>>, kills: u8) -> Self {
        let visited = HashSet::new();
        let (run_max, ends) = (1, 0);
        let (kills_hit, redelivered) = (0, 0);
        Self { mutant, jobs, kills, run_max, visited, ends, kills_hit, redelivered }
    }

    /// The same, where producers zero so many bytes ahead.
    /// The same, where the consumer goes over so many messages before it frees them.
    pub(super) fn freeing(self, run_max: usize) -> Self {
        Self { run_max, ..self }
    }

    /// Explores everything; an error tells what went wrong first.
    pub(super) fn run(mut self) -> Result<Covered, String> {
        let mut open = vec![State::new()];
        while let Some(state) = open.pop() {
            if self.visited.insert(fingerprint(&state)) {
                self.expand(state, &mut open)?;
            }
        }
        let Self { visited, ends, kills_hit: kills, redelivered, .. } = self;
        Ok(Covered { states: visited.len(), ends, kills, redelivered })
    }

    /// Adds every state that one step leads to. A step that the other side cannot see goes first,
    /// alone: it commutes with all of theirs.
    fn expand(&mut self, state: State, open: &mut Vec<State>) -> Found {
        if state.kills < self.kills {
            self.kill(&state, open);
        }
        let producer = self.producer_steps(&state)?;
        if let Steps::Unseen(next) = producer {
            open.push(*next);
            return Ok(());
        }
        let consumer = self.consumer_steps(&state)?;
        if let Steps::Unseen(next) = consumer {
            open.push(*next);
            return Ok(());
        }
        open.extend(producer.into_choices().chain(consumer.into_choices()));
        if state.producer.job == self.jobs_of(&state).len() && !state.producer.is_dead {
            self.check_end(state)?;
        }
        Ok(())
    }

    fn jobs_of(&self, state: &State) -> &[Job] {
        &self.jobs[usize::from(state.producer.life)]
    }

    fn kill(&mut self, state: &State, open: &mut Vec<State>) {
        let has_successor = usize::from(state.producer.life) + 1 < self.jobs.len();
        if !state.producer.is_dead && has_successor {
            let mut next = state.clone();
            next.kills += 1;
            next.producer.is_dead = true;
            if let Some(job) = self.jobs_of(state).get(state.producer.job) {
                let under_way = job.numbers().split_off(state.producer.part);
                next.sent.last_mut().expect("a life").1 = under_way;
            }
            self.kills_hit += u64::from(!next.producer.log.is_empty());
            open.push(next);
        }
        if !state.consumer.is_dead && state.consumer.kept.is_some() {
            let mut next = state.clone();
            next.kills += 1;
            next.consumer.is_dead = true;
            self.kills_hit += u64::from(!next.consumer.log.is_empty());
            open.push(next);
        }
    }

    fn producer_steps(&self, state: &State) -> Result<Steps, String> {
        let thread = &state.producer;
        let mut next = state.clone();
        if thread.is_dead {
            next.arrive(Side::Producer, thread.buffer.len());
            next.producer = Thread { life: thread.life + 1, ..Thread::new() };
            next.sent.push(<_>::default());
            return Ok(Steps::Choices(vec![next]));
        }
        match self.run_producer(state) {
            None => return Ok(Steps::Choices(vec![])),
            Some(Reached::Step(Access::Load(Word::Head, _))) => {
                return Ok(Steps::Choices(state.looks(Side::Producer, Word::Head)));
            }
            Some(Reached::Step(Access::Fence(_))) => {
                next.arrive(Side::Producer, thread.buffer.len());
                next.producer.log.push(0);
                return Ok(Steps::Choices(vec![next]));
            }
            Some(Reached::Step(Access::Store(Word::Tail, ..)))
                if self.mutant == Mutant::TakeoverKeepsTail && thread.kept.is_none() =>
            {
                next.producer.log.push(0);
            }
            Some(Reached::Step(access)) => next.access(Side::Producer, access, self.mutant),
            Some(Reached::End(result)) => {
                let (kept, sent) = result?;
                next.producer.log.clear();
                next.producer.kept = Some(match (sent, &thread.kept) {
                    // Nothing but a counter may tell one refusal from the next.
                    (None, Some(before)) => {
                        let mut refused = before.clone();
                        refused.window = kept.window;
                        refused
                    }
                    _ => kept,
                });
                if let (Some(count), Some(_)) = (sent, &thread.kept) {
                    next.advance(self.jobs_of(state)[thread.job], count);
                }
            }
        }
        Ok(Steps::Unseen(Box::new(next)))
    }

    /// Runs the producer's current operation up to its next step; `None` where it has no more jobs.
    fn run_producer(&self, state: &State) -> Option<Reached<Worked>> {
        let thread = &state.producer;
        let Some(kept) = &thread.kept else {
            return Some(replay(&thread.log, |memory| {
                let producer = SpscProducer::attach(&model(memory));
                producer.map(|producer| (producer, Some(0))).map_err(|damage| damage.to_string())
            }));
        };
        let job = *self.jobs_of(state).get(thread.job)?;
        let part = thread.part;
        Some(replay(&thread.log, |memory| {
            let mut producer = kept.clone();
            let ring = model(memory);
            work(&mut producer, &ring, job, part).map(|sent| (producer, sent))
        }))
    }

    fn consumer_steps(&mut self, state: &State) -> Result<Steps, String> {
        let thread = &state.consumer;
        let mut next = state.clone();
        if thread.is_dead {
            next.arrive(Side::Consumer, thread.buffer.len());
            next.consumer = Thread { life: thread.life + 1, ..Thread::new() };
            return Ok(Steps::Choices(vec![next]));
        }
        match run_consumer(thread, self.run_max, self.mutant) {
            Reached::Step(Access::Load(word @ Word::Data(_), _)) => {
                return Ok(Steps::Choices(state.looks(Side::Consumer, word)));
            }
            Reached::Step(access) => next.access(Side::Consumer, access, Mutant::None),
            Reached::End(result) => {
                let (kept, did) = result.map_err(|problem| format!("{problem}\n{state:#x?}"))?;
                next.consumer.log.clear();
                match did {
                    Did::Took(position, number) => self.deliver(&mut next, position, number)?,
                    Did::Freed => next.freed += thread.job,
                    Did::Nothing => {}
                }
                next.consumer.job = kept.1.count() as usize;
                next.consumer.kept = Some(kept);
            }
        }
        Ok(Steps::Unseen(Box::new(next)))
    }

    /// Notes a message copied out. What was copied but not freed comes once more after a consumer's
    /// death, the same at the same position; what was freed never does.
    fn deliver(&mut self, state: &mut State, position: u64, number: u8) -> Found {
        let passed = state.consumer.job;
        let again = state.delivered[state.freed..].get(passed);
        if state.delivered.iter().all(|(at, _)| *at != position) {
            state.freed = state.delivered.len() - passed; // the head has gone beyond all before
            state.delivered.push((position, number));
        } else if again == Some(&(position, number)) && state.consumer.life > 0 {
            self.redelivered += 1;
        } else {
            return Err(format!("message {number} delivered twice: {state:#x?}"));
        }
        Ok(())
    }

    /// The producer is done: once everything that it stored has arrived, the consumer, left alone,
    /// must get exactly what was sent.
    fn check_end(&mut self, mut state: State) -> Found {
        self.ends += 1;
        state.arrive(Side::Producer, state.producer.buffer.len());
        let mut seen = HashSet::new();
        while seen.insert(fingerprint(&state)) {
            state = match self.consumer_steps(&state)? {
                Steps::Unseen(next) => *next,
                Steps::Choices(mut choices) => choices.pop().expect("a load gives something"),
            };
        }
        let got: Vec<u8> = state.delivered.iter().map(|(_, number)| *number).collect();
        let legal = possible(&state.sent).contains(&got);
        if legal { Ok(()) } else { Err(format!("got {got:?}: {state:#x?}")) }
    }
}

/// Every sequence of messages that may arrive, given what each life sent: all whose send returned,
/// and of what was under way when it was killed any first part.
fn possible(sent: &[(Vec<u8>, Vec<u8>)]) -> Vec<Vec<u8>> {
    sent.iter().fold(vec![vec![]], |sequences, (returned, under_way)| {
        let prefixes = 0..=under_way.len();
        let longer = sequences.iter().flat_map(|sequence: &Vec<u8>| {
            prefixes.clone().map(|len| [&sequence[..], returned, &under_way[..len]].concat())
        });
        longer.collect()
    })
}
