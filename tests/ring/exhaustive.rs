//! Every interleaving of an SPSC producer and its consumer, with a kill before every step.
//!
//! The two run the real code (see `replay`). Stores go to a buffer of their thread and reach memory
//! in any order that the orderings allow: stores to one word in order, a Release store after
//! everything before it. That is weaker than x86, and as weak as ARM in its stores; loads happen in
//! program order, so what a missing Acquire would do is not found here but by `steps`. A killed
//! process stops where it is; its buffered stores still arrive; then a successor takes over.
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
    /// A successor goes on behind what was published, but does not store where that is.
    TakeoverKeepsTail,
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

/// One side: the life that it is in, the operation, and what is known within it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Thread<T> {
    /// `None` before it has attached.
    kept: Option<T>,
    job: usize,
    /// Messages of the job that were sent already.
    part: usize,
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
        Self { kept: None, job: 0, part: 0, log: vec![], buffer: vec![], is_dead: false, life: 0 }
    }
}

/// Everything that the rest of a run depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    area: [u64; WORDS],
    control: [u64; 2],
    producer: Thread<SpscProducer>,
    consumer: Thread<Consumer>,
    /// What each life of the producer sent: messages whose send returned, and those that were under
    /// way when it was killed.
    sent: Vec<(Vec<u8>, Vec<u8>)>,
    /// What was copied out: position, and the number of the message.
    delivered: Vec<(u64, u8)>,
    /// How many of those were freed by a call that returned.
    freed: usize,
    kills: u8,
}

/// What a search covers, and what it found.
pub(super) struct Search {
    pub(super) mutant: Mutant,
    /// The jobs of the producer, and of each successor.
    pub(super) jobs: Vec<Vec<Job>>,
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

/// The producer after an operation, and how many messages that sent; `None` where there was no room.
type Worked = Result<(SpscProducer, Option<usize>), String>;

impl Search {
    pub(super) fn new(mutant: Mutant, jobs: Vec<Vec<Job>>, kills: u8) -> Self {
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
            sent: vec![<_>::default()],
            delivered: vec![],
            freed: 0,
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
        let (mutant, part) = (self.mutant, thread.part);
        Some(replay(&thread.log, |memory| {
            let mut producer = kept.clone();
            work(&mut producer, &model(memory), job, part, mutant).map(|sent| (producer, sent))
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
                next.freed = if thread.job == 1 { next.delivered.len() } else { next.freed };
                next.consumer.job = usize::from(taken.is_some());
                if let Some((position, number)) = taken {
                    self.deliver(&mut next, position, number)?;
                }
            }
        }
        Ok(Steps::Unseen(Box::new(next)))
    }

    /// Notes a message copied out. What was copied but not freed comes once more after a consumer's
    /// death, the same at the same position; what was freed never does.
    fn deliver(&mut self, state: &mut State, position: u64, number: u8) -> Found {
        let again = state.delivered[state.freed..].first();
        if state.delivered.iter().all(|(at, _)| *at != position) {
            state.freed = state.delivered.len(); // the head has passed all before
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

impl Job {
    /// The messages that it sends.
    fn numbers(self) -> Vec<u8> {
        match self {
            Self::Send(number, _) | Self::Shorten(number, ..) => vec![number],
            Self::Batch(first, second, _) => vec![first, second],
            Self::Abort(_) => vec![],
        }
    }
}

/// What is left of one job, on the real code; gives how many of its messages were sent, and `None`
/// where there was no room.
fn work(
    producer: &mut SpscProducer,
    ring: &Ring<&Replay<'_>>,
    job: Job,
    part: usize,
    mutant: Mutant,
) -> Result<Option<usize>, String> {
    use super::super::Memory;
    let fill = |number: u8, len: u32| vec![number; len as usize];
    let before = producer.window.zeroed_to;
    let sent = match job {
        Job::Send(number, len) => {
            producer.try_send(ring, &fill(number, len)).map(|sent| sent.then_some(1))
        }
        Job::Batch(first, second, len) => producer
            .try_send_batch(ring, &[&fill(first, len)[..], &fill(second, len)][part..])
            .map(|count| (count > 0).then_some(count)),
        Job::Abort(len) | Job::Shorten(_, len, _) => producer.claim(ring, len).map(|claimed| {
            let claimed = claimed?;
            let number = job.numbers().first().copied().unwrap_or(0xee);
            ring.memory.copy_in(claimed.payload_position(), &fill(number, len));
            if let Job::Shorten(_, _, commit) = job {
                producer.commit(ring, claimed, commit);
                return Some(1);
            }
            if mutant == Mutant::AbortKeepsZeroedTo {
                producer.window.zeroed_to = before;
            }
            Some(0)
        }),
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
            Some((number, rest))
                if rest.iter().all(|byte| byte == number) && (1..0x80).contains(number) =>
            {
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
    /// Notes that `count` messages of `job` were sent, and goes on to the next job behind the last.
    fn advance(&mut self, job: Job, count: usize) {
        let (numbers, part) = (job.numbers(), self.producer.part);
        self.sent.last_mut().expect("a life").0.extend(&numbers[part..part + count]);
        self.producer.part += count;
        if self.producer.part == numbers.len() {
            self.producer.job += 1;
            self.producer.part = 0;
        }
    }

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
                let release = match mutant {
                    // Only the payload may come late: zeros stay in order.
                    Mutant::NoRelease => value == 0,
                    _ => order == Order::Release,
                };
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
/// them, each abort longer than the message after it; and what two successors do.
fn jobs() -> Vec<Vec<Job>> {
    vec![
        vec![
            Job::Send(1, 8),
            Job::Abort(24),
            Job::Send(2, 8),
            Job::Shorten(3, 24, 8),
            Job::Batch(4, 5, 8),
            Job::Abort(16),
            Job::Send(6, 8),
            Job::Send(7, 24),
        ],
        vec![Job::Send(8, 24), Job::Abort(24), Job::Batch(9, 10, 16)],
        vec![Job::Send(11, 8), Job::Send(12, 8)],
    ]
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

/// Asserts that the search finds what `problem` describes, and nothing before it.
fn assert_caught(found: Result<Covered, String>, problem: &str) {
    let found = found.expect_err("the mutant must be caught");
    let line = found.lines().next().unwrap_or_default();
    println!("{line}");
    assert!(line.contains(problem), "caught for another reason: {line}");
}

#[test]
fn without_zeroing_ahead_the_search_finds_stale_bytes_taken_for_a_header() {
    let sends = (1..10).map(|number| Job::Send(number, 8 * u32::from(number % 3) + 8));
    let found = Search::new(Mutant::NoZeroing, vec![sends.collect()], 0).run();
    assert_caught(found, "record of unknown kind 0");
}

#[test]
fn without_the_release_the_search_finds_a_header_before_its_payload() {
    let sends = vec![vec![Job::Send(1, 8), Job::Send(2, 16)]];
    assert_caught(Search::new(Mutant::NoRelease, sends, 0).run(), "torn");
}

#[test]
fn with_an_abort_that_keeps_zeroed_to_the_search_finds_stale_payload() {
    assert_caught(search(Mutant::AbortKeepsZeroedTo, 0), "record tag 0xeeee");
}

#[test]
fn with_a_takeover_that_keeps_the_tail_the_search_finds_a_sound_ring_called_damaged() {
    assert_caught(search(Mutant::TakeoverKeepsTail, 2), "while tail is");
}
