//! Every interleaving of an SPSC producer and its consumer, with a kill before every step.
//!
//! The two run the real code (see `replay`). Stores go to a buffer of their thread and reach memory
//! in any order that the orderings allow: stores to one word in order, a Release store after
//! everything before it. That is weaker than x86 and about as weak as ARM. A killed process stops
//! where it is; its buffered stores still arrive; then a successor takes over.
//!
//! Only loads of what the other side stores are points of choice: which of the stores on their way
//! have arrived. A store arrives no earlier than somebody looks, which loses no behaviour and keeps
//! the number of states small.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::super::{Consumer, Ring, SpscProducer, Word};
use super::recording::{Access, Order};
use super::replay::{Reached, Replay, replay};
use super::ring;

const CAPACITY: u64 = 64;
const WORDS: usize = (CAPACITY / 8) as usize;

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
}

/// What a producer does, one message or one aborted claim after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Job {
    Send(u8, u32),
    /// Claims so many bytes, fills them with what could be headers, and gives up.
    Abort(u32),
    /// Claims so many bytes and commits fewer.
    Shorten(u8, u32, u32),
}

/// One side: the life that it is in, the operation, and what is known within it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Thread<T> {
    /// `None` before it has attached.
    kept: Option<T>,
    job: usize,
    log: Vec<u64>,
    /// Stores on their way to memory.
    buffer: Vec<(Word, u64, bool)>,
    /// It was killed; its buffer still drains.
    is_dead: bool,
    /// Which process it is.
    life: u8,
}

impl<T> Thread<T> {
    fn new() -> Self {
        Self { kept: None, job: 0, log: vec![], buffer: vec![], is_dead: false, life: 0 }
    }
}

/// Everything that the rest of a run depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    area: [u64; WORDS],
    control: [u64; 2],
    producer: Thread<SpscProducer>,
    consumer: Thread<Consumer>,
    /// Sends that returned in the first life of the producer, and whether one was under way.
    returned: (usize, bool),
    /// What was copied out: position, and the number of the message.
    delivered: Vec<(u64, u8)>,
    kills: u8,
}

/// What a search covers, and what it found.
pub(super) struct Search {
    pub(super) mutant: Mutant,
    /// The jobs of the producer, and of its successor.
    pub(super) jobs: [Vec<Job>; 2],
    pub(super) kills: u8,
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

impl Search {
    pub(super) fn new(mutant: Mutant, jobs: [Vec<Job>; 2], kills: u8) -> Self {
        let visited = HashSet::new();
        Self { mutant, jobs, kills, visited, ends: 0, kills_hit: 0, redelivered: 0 }
    }

    /// Explores everything; an error tells what went wrong first.
    pub(super) fn run(mut self) -> Result<Covered, String> {
        let first = State {
            area: [0; WORDS],
            control: [0; 2],
            producer: Thread::new(),
            consumer: Thread::new(),
            returned: (0, false),
            delivered: vec![],
            kills: 0,
        };
        let mut open = vec![first];
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
        &self.jobs[usize::from(state.producer.life.min(1))]
    }

    fn kill(&mut self, state: &State, open: &mut Vec<State>) {
        if !state.producer.is_dead && state.producer.life == 0 && state.producer.kept.is_some() {
            let mut next = state.clone();
            next.kills += 1;
            next.producer.is_dead = true;
            next.returned.1 = next.producer.job < self.jobs[0].len();
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
            return Ok(Steps::Choices(vec![next]));
        }
        match self.run_producer(state) {
            None => return Ok(Steps::Choices(vec![])),
            Some(Reached::Step(Access::Load(Word::Head, _))) => {
                return Ok(Steps::Choices(state.looks(Side::Producer, Word::Head)));
            }
            Some(Reached::Step(access)) => next.access(Side::Producer, access, self.mutant),
            Some(Reached::End(result)) => {
                let (kept, is_done) = result?;
                if thread.kept.is_some() && is_done {
                    next.producer.job += 1;
                    next.returned.0 += usize::from(thread.life == 0 && self.is_message(thread.job));
                }
                next.producer.kept = Some(match (is_done, &thread.kept) {
                    // Nothing but a counter may tell one refusal from the next.
                    (false, Some(before)) => {
                        let mut refused = before.clone();
                        refused.window = kept.window;
                        refused
                    }
                    _ => kept,
                });
                next.producer.log.clear();
            }
        }
        Ok(Steps::Unseen(Box::new(next)))
    }

    fn is_message(&self, job: usize) -> bool {
        !matches!(self.jobs[0][job], Job::Abort(_))
    }

    /// Runs the producer's current operation up to its next step; `None` where it has no more jobs.
    fn run_producer(&self, state: &State) -> Option<Reached<Result<(SpscProducer, bool), String>>> {
        let thread = &state.producer;
        let Some(kept) = &thread.kept else {
            return Some(replay(&thread.log, |memory| {
                let producer = SpscProducer::attach(&model(memory));
                producer.map(|producer| (producer, true)).map_err(|damage| damage.to_string())
            }));
        };
        let job = *self.jobs_of(state).get(thread.job)?;
        let mutant = self.mutant;
        Some(replay(&thread.log, |memory| {
            let mut producer = kept.clone();
            work(&mut producer, &model(memory), job, mutant).map(|is_done| (producer, is_done))
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
        match run_consumer(thread) {
            Reached::Step(Access::Load(word @ Word::Data(_), _)) => {
                return Ok(Steps::Choices(state.looks(Side::Consumer, word)));
            }
            Reached::Step(access) => next.access(Side::Consumer, access, Mutant::None),
            Reached::End(result) => {
                let (kept, taken) = result.map_err(|problem| format!("{problem}\n{state:#x?}"))?;
                next.consumer.kept = Some(kept);
                next.consumer.log.clear();
                next.consumer.job = usize::from(taken.is_some());
                if let Some((position, number)) = taken {
                    self.deliver(&mut next, position, number)?;
                }
            }
        }
        Ok(Steps::Unseen(Box::new(next)))
    }

    /// Notes a message copied out. The same position twice is the same message, after a consumer's
    /// death.
    fn deliver(&mut self, state: &mut State, position: u64, number: u8) -> Found {
        match state.delivered.iter().find(|(at, _)| *at == position) {
            None => state.delivered.push((position, number)),
            Some((_, same)) if *same == number && state.consumer.life > 0 => self.redelivered += 1,
            Some(_) => return Err(format!("message {number} delivered twice: {state:#x?}")),
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
        let of = |life: usize| {
            self.jobs[life].iter().filter_map(|job| match job {
                Job::Send(number, _) | Job::Shorten(number, ..) => Some(*number),
                Job::Abort(_) => None,
            })
        };
        let (returned, under_way) = state.returned;
        let legal = (returned..=returned + usize::from(under_way)).any(|sent| {
            let successor = of(1).filter(|_| state.producer.life > 0);
            of(0).take(sent).chain(successor).eq(got.iter().copied())
        });
        if legal { Ok(()) } else { Err(format!("got {got:?}: {state:#x?}")) }
    }
}

/// One job, on the real code. `false` where there was no room yet.
fn work(
    producer: &mut SpscProducer,
    ring: &Ring<&Replay<'_>>,
    job: Job,
    mutant: Mutant,
) -> Result<bool, String> {
    use super::super::Memory;
    let fill = |number: u8, len: u32| vec![number; len as usize];
    let before = producer.window.zeroed_to;
    let sent = match job {
        Job::Send(number, len) => producer.try_send(ring, &fill(number, len)),
        Job::Abort(len) | Job::Shorten(_, len, _) => match producer.claim(ring, len) {
            Ok(None) => Ok(false),
            Err(damage) => Err(damage),
            Ok(Some(claimed)) => {
                let number = if let Job::Shorten(number, ..) = job { number } else { 0xee };
                ring.memory.copy_in(claimed.payload_position(), &fill(number, len));
                match job {
                    Job::Shorten(_, _, commit) => producer.commit(ring, claimed, commit),
                    _ if mutant == Mutant::AbortKeepsZeroedTo => producer.window.zeroed_to = before,
                    _ => {}
                }
                Ok(true)
            }
        },
    };
    sent.map_err(|damage| damage.to_string())
}

/// The consumer's two operations in turn: look and copy, then free.
#[expect(clippy::type_complexity, reason = "used once, taken apart at once")]
fn run_consumer(
    thread: &Thread<Consumer>,
) -> Reached<Result<(Consumer, Option<(u64, u8)>), String>> {
    replay(&thread.log, |memory| {
        let ring = model(memory);
        let Some(kept) = &thread.kept else {
            let attached = Consumer::attach(&ring).map_err(|damage| damage.to_string())?;
            return Ok((attached, None));
        };
        let mut consumer = kept.clone();
        let front = consumer.front(&ring).map_err(|damage| damage.to_string())?;
        let Some(front) = front else { return Ok((consumer, None)) };
        if thread.job == 1 {
            consumer.free(&ring, front);
            return Ok((consumer, None));
        }
        let mut bytes = vec![0; front.payload_len()];
        Consumer::copy_out(&ring, front, &mut bytes);
        match bytes.split_first() {
            Some((number, rest)) if rest.iter().all(|byte| byte == number) && *number < 0x80 => {
                Ok((consumer, Some((front.position, *number))))
            }
            _ => Err(format!("torn: {bytes:x?} at {}", front.position)),
        }
    })
}

fn model<'a>(memory: &'a Replay<'a>) -> Ring<&'a Replay<'a>> {
    ring(memory, CAPACITY, 3, 24)
}

/// Where a state leads next.
enum Steps {
    /// A step that the other side cannot see.
    Unseen(Box<State>),
    /// One state for each outcome that is possible.
    Choices(Vec<State>),
}

impl Steps {
    fn into_choices(self) -> impl Iterator<Item = State> {
        match self {
            Self::Unseen(next) => vec![*next],
            Self::Choices(choices) => choices,
        }
        .into_iter()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Producer,
    Consumer,
}

impl State {
    fn buffer(&mut self, side: Side) -> &mut Vec<(Word, u64, bool)> {
        match side {
            Side::Producer => &mut self.producer.buffer,
            Side::Consumer => &mut self.consumer.buffer,
        }
    }

    fn log(&mut self, side: Side) -> &mut Vec<u64> {
        match side {
            Side::Producer => &mut self.producer.log,
            Side::Consumer => &mut self.consumer.log,
        }
    }

    /// Every outcome of `side` loading `word`, which the other side stores: as many of the stores
    /// to it as may have arrived.
    fn looks(&self, side: Side, word: Word) -> Vec<Self> {
        let other = if side == Side::Producer { Side::Consumer } else { Side::Producer };
        let arrivals =
            self.clone().buffer(other).iter().filter(|(to, ..)| *to == place(word)).count();
        let outcomes = (0..=arrivals).map(|count| {
            let mut next = self.clone();
            next.arrive_at(other, place(word), count);
            let found = next.read(word);
            next.log(side).push(found);
            next
        });
        outcomes.collect()
    }

    /// The first `count` stores of `side` to `word` arrive, and whatever must arrive before them.
    fn arrive_at(&mut self, side: Side, word: Word, count: usize) {
        let buffer = self.buffer(side).clone();
        let to_word = (0..buffer.len()).filter(|index| buffer[*index].0 == word).take(count);
        let to_word: Vec<_> = to_word.collect();
        let released = to_word.iter().rev().find(|index| buffer[**index].2);
        let all_before = released.map_or(0, |index| index + 1);
        self.arrive(side, all_before);
        for index in to_word.iter().rev().filter(|index| **index >= all_before) {
            self.buffer(side).remove(index - all_before);
        }
        if let Some(last) = to_word.last() {
            self.write(word, buffer[*last].1);
        }
    }

    /// The first `count` stores of `side` arrive.
    fn arrive(&mut self, side: Side, count: usize) {
        for (word, value, _) in self.buffer(side).drain(..count).collect::<Vec<_>>() {
            self.write(word, value);
        }
    }

    /// What is in memory.
    fn read(&self, word: Word) -> u64 {
        match place(word) {
            Word::Data(position) => self.area[(position / 8) as usize],
            Word::Head => self.control[0],
            Word::Tail => self.control[1],
            _ => 0,
        }
    }

    fn write(&mut self, word: Word, value: u64) {
        match word {
            Word::Data(position) => self.area[(position / 8) as usize] = value,
            Word::Head => self.control[0] = value,
            Word::Tail => self.control[1] = value,
            _ => unreachable!("only these are buffered"),
        }
    }

    /// An access that the other side cannot see yet: a store, or a load of what only `side` stores.
    fn access(&mut self, side: Side, access: Access, mutant: Mutant) {
        let answer = match access {
            Access::Load(word, _) => {
                let own =
                    self.buffer(side).iter().rev().find(|(to, ..)| *to == place(word)).copied();
                own.map_or_else(|| self.read(word), |(_, value, _)| value)
            }
            Access::Store(Word::Data(_), 0, _) if mutant == Mutant::NoZeroing => 0,
            Access::Store(word, value, order) => {
                let release = order == Order::Release && mutant != Mutant::NoRelease;
                push(self.buffer(side), word, value, release);
                0
            }
            Access::CompareExchange(..) | Access::Fence(_) => unreachable!("not in an SPSC ring"),
        };
        self.log(side).push(answer);
    }
}

/// Buffers a store, but for counters: nobody's decisions depend on those.
fn push(buffer: &mut Vec<(Word, u64, bool)>, word: Word, value: u64, release: bool) {
    if matches!(word, Word::Data(_) | Word::Head | Word::Tail) {
        buffer.push((place(word), value, release));
    }
}

/// The word itself, whichever lap its position is of.
fn place(word: Word) -> Word {
    match word {
        Word::Data(position) => Word::Data(position % CAPACITY),
        other => other,
    }
}

fn fingerprint(state: &State) -> u128 {
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        (salt, state).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

/// Laps the area several times with records of every length, aborts and shortened claims among
/// them, each abort longer than the message after it.
fn jobs() -> [Vec<Job>; 2] {
    let first = vec![
        Job::Send(1, 8),
        Job::Abort(24),
        Job::Send(2, 8),
        Job::Shorten(3, 24, 8),
        Job::Send(4, 16),
        Job::Abort(16),
        Job::Send(5, 8),
        Job::Send(6, 24),
        Job::Send(7, 8),
    ];
    [first, vec![Job::Send(8, 8), Job::Abort(24), Job::Send(9, 16), Job::Send(10, 8)]]
}

fn search(mutant: Mutant, kills: u8) -> Result<Covered, String> {
    Search::new(mutant, jobs(), kills).run()
}

#[test]
fn no_interleaving_and_no_kill_loses_tears_or_repeats_a_message() {
    let covered = search(Mutant::None, 2).unwrap();
    println!("{covered:?}");
    assert!(covered.states > 10_000 && covered.ends > 0);
    assert!(covered.kills > 0 && covered.redelivered > 0);
}

#[test]
fn without_zeroing_ahead_the_search_finds_stale_bytes_taken_for_a_header() {
    let sends_only = jobs().map(|mut jobs| {
        jobs.retain(|job| matches!(job, Job::Send(..)));
        jobs
    });
    let problem = Search::new(Mutant::NoZeroing, sends_only, 0).run();
    let problem = problem.expect_err("the mutant must be caught");
    println!("{}", problem.lines().next().unwrap_or_default());
}

#[test]
fn without_the_release_the_search_finds_a_header_before_its_payload() {
    let problem = search(Mutant::NoRelease, 0).expect_err("the mutant must be caught");
    println!("{}", problem.lines().next().unwrap_or_default());
}

#[test]
fn with_an_abort_that_keeps_zeroed_to_the_search_finds_stale_payload() {
    let problem = search(Mutant::AbortKeepsZeroedTo, 0).expect_err("the mutant must be caught");
    println!("{}", problem.lines().next().unwrap_or_default());
}
