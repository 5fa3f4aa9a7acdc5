//! Everything that the rest of a run depends on: threads, their stores on the way, and memory.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::super::super::{SpscProducer, Word};
use super::super::recording::{Access, Order};
use super::jobs::{Job, Kept, Mutant};

/// Bytes of the ring's data area.
pub(super) const CAPACITY: u64 = 64;
const WORDS: usize = (CAPACITY / 8) as usize;

/// One side: the life that it is in, the operation, and what is known within it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Thread<T> {
    /// `None` before it has attached.
    pub(super) kept: Option<T>,
    /// How many of its jobs are done; of a consumer, how many messages it has gone over and not freed.
    pub(super) job: usize,
    /// Messages of the job that were sent already.
    pub(super) part: usize,
    pub(super) log: Vec<u64>,
    /// Stores on their way to memory.
    pub(super) buffer: Vec<(Word, u64, bool)>,
    /// It was killed; its buffer still drains.
    pub(super) is_dead: bool,
    /// Which process it is.
    pub(super) life: u8,
}

impl<T> Thread<T> {
    pub(super) fn new() -> Self {
        Self { kept: None, job: 0, part: 0, log: vec![], buffer: vec![], is_dead: false, life: 0 }
    }
}

/// Everything that the rest of a run depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) area: [u64; WORDS],
    pub(super) control: [u64; 2],
    pub(super) producer: Thread<SpscProducer>,
    pub(super) consumer: Thread<Kept>,
    /// What each life of the producer sent: messages whose send returned, and those that were under
    /// way when it was killed.
    pub(super) sent: Vec<(Vec<u8>, Vec<u8>)>,
    /// What was copied out: position, and the number of the message.
    pub(super) delivered: Vec<(u64, u8)>,
    /// How many of those were freed by a call that returned.
    pub(super) freed: usize,
    pub(super) kills: u8,
}

/// Where a state leads next.
pub(super) enum Steps {
    /// A step that the other side cannot see.
    Unseen(Box<State>),
    /// One state for each outcome that is possible.
    Choices(Vec<State>),
}

impl Steps {
    pub(super) fn into_choices(self) -> impl Iterator<Item = State> {
        match self {
            Self::Unseen(next) => vec![*next],
            Self::Choices(choices) => choices,
        }
        .into_iter()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Producer,
    Consumer,
}

impl State {
    /// A fresh ring, and nobody attached yet.
    pub(super) fn new() -> Self {
        Self {
            area: [0; WORDS],
            control: [0; 2],
            producer: Thread::new(),
            consumer: Thread::new(),
            sent: vec![<_>::default()],
            delivered: vec![],
            freed: 0,
            kills: 0,
        }
    }

    /// Notes that `count` messages of `job` were sent, and goes on to the next job behind the last.
    pub(super) fn advance(&mut self, job: Job, count: usize) {
        let (numbers, part) = (job.numbers(), self.producer.part);
        self.sent.last_mut().expect("a life").0.extend(&numbers[part..part + count]);
        self.producer.part += count;
        if self.producer.part == numbers.len() {
            self.producer.job += 1;
            self.producer.part = 0;
        }
    }

    pub(super) fn buffer(&mut self, side: Side) -> &mut Vec<(Word, u64, bool)> {
        match side {
            Side::Producer => &mut self.producer.buffer,
            Side::Consumer => &mut self.consumer.buffer,
        }
    }

    pub(super) fn log(&mut self, side: Side) -> &mut Vec<u64> {
        match side {
            Side::Producer => &mut self.producer.log,
            Side::Consumer => &mut self.consumer.log,
        }
    }

    /// Every outcome of `side` loading `word`, which the other side stores: as many of the stores
    /// to it as may have arrived.
    pub(super) fn looks(&self, side: Side, word: Word) -> Vec<Self> {
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
    pub(super) fn arrive_at(&mut self, side: Side, word: Word, count: usize) {
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
    pub(super) fn arrive(&mut self, side: Side, count: usize) {
        for (word, value, _) in self.buffer(side).drain(..count).collect::<Vec<_>>() {
            self.write(word, value);
        }
    }

    /// What is in memory.
    pub(super) fn read(&self, word: Word) -> u64 {
        match place(word) {
            Word::Data(position) => self.area[(position / 8) as usize],
            Word::Head => self.control[0],
            Word::Tail => self.control[1],
            _ => 0,
        }
    }

    pub(super) fn write(&mut self, word: Word, value: u64) {
        match word {
            Word::Data(position) => self.area[(position / 8) as usize] = value,
            Word::Head => self.control[0] = value,
            Word::Tail => self.control[1] = value,
            _ => unreachable!("only these are buffered"),
        }
    }

    /// An access that the other side cannot see yet: a store, or a load of what only `side` stores.
    pub(super) fn access(&mut self, side: Side, access: Access, mutant: Mutant) {
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
            Access::AskReached => 1,
            Access::Fence(_) => {
                let count = self.buffer(side).len();
                self.arrive(side, count);
                0
            }
            other => unreachable!("{other:?} where nobody sleeps"),
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

pub(super) fn fingerprint(state: &State) -> u128 {
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        (salt, state).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}
