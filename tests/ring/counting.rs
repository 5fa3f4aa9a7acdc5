//! Every interleaving of a producer and the consumer of records with handles, with a kill before every
//! step: deaths keep no handles back for good, and let no more through than the bound allows.
//!
//! The two run the real code (see `replay`) on one memory, whose stores arrive in order. A killed
//! process stops where it is; then a successor takes over. Points of choice are the accesses that the
//! other side can see, or that see the other side's.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use tombolo_abi::{LockWord, RecordExt, RecordRules};

use super::super::carry::{Carried, IN_FLIGHT_MAX, NotCarried, Recount};
use super::super::{
    Consumer, Held, Refusal, Ring, SpscProducer, Wakes, Window, Word, transfer, try_lock,
};
use super::recording::Access;
use super::replay::{Reached, Replay, replay};
use super::ring;

const CAPACITY: u64 = 128;
/// Of each message: so four are as many as may be under way.
const HANDLES: u8 = 64;
/// Where positions begin: they go through 0 behind two messages.
const BASE: u64 = 0u64.wrapping_sub(32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    None,
    /// Handles are counted once their record is published.
    CountsAfterPublishing,
    /// No producer adds up what is under way.
    NeverRecounts,
}

#[derive(Clone, Copy, Debug)]
struct Setup {
    is_spsc: bool,
    mutant: Mutant,
    /// Messages that are sent.
    sends: u32,
    kills: u8,
    /// Handles that earlier deaths have left uncounted.
    apart: u64,
}

/// What a producer keeps between two sends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sending {
    spsc: Option<SpscProducer>,
    recount: Recount,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Producer,
    Consumer,
}

/// One side: what it keeps, `None` before it has attached, and what its accesses gave.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Thread<T> {
    kept: Option<T>,
    log: Vec<u64>,
    life: u32,
}

impl<T> Thread<T> {
    fn new(life: u32) -> Self {
        Self { kept: None, log: vec![], life }
    }
}

/// What a send or a receive came to; `None` if it was an attaching.
type Did<T> = Reached<Result<(T, Option<bool>), String>>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    words: BTreeMap<Word, u64>,
    producer: Thread<Sending>,
    consumer: Thread<Consumer>,
    /// A count that [`Mutant::CountsAfterPublishing`] has not stored yet.
    held: Option<u64>,
    sent: u32,
    kills: u8,
}

fn model<'a>(memory: &'a Replay<'a>) -> Ring<&'a Replay<'a>> {
    let ring = ring(memory, CAPACITY, 3, 24);
    Ring { rules: RecordRules { max_handles: 64, ..ring.rules }, ..ring }
}

fn attach(ring: &Ring<&Replay<'_>>, setup: Setup) -> Result<Sending, String> {
    // From beyond all positions of a run on.
    let from = (setup.mutant == Mutant::NeverRecounts).then_some(1 << 62);
    let recount = Recount { from };
    let spsc = setup.is_spsc.then(|| SpscProducer::attach(ring)).transpose();
    Ok(Sending { spsc: spsc.map_err(|damage| damage.to_string())?, recount })
}

/// Sends a message; `false` if it was refused.
fn send(ring: &Ring<&Replay<'_>>, sending: &mut Sending, life: u32) -> Result<bool, String> {
    let (wakes, me) = (Wakes::default(), LockWord { slot: 1, incarnation: life });
    let ext = RecordExt { txid: 0, slot: 1, incarnation_low: life as u16 };
    let carried = Carried { payload: b"", handle_count: HANDLES, ext, is_call: false };
    let Sending { spsc, recount } = sending;
    let step = |window: &mut Window, ring: &Ring<_>| {
        window.send_carried(ring, &carried, recount, |_| Ok::<_, ()>(()))
    };
    let sent = match spsc {
        Some(producer) => producer.produce(ring, &wakes, step),
        None => {
            let mut locked = match try_lock(ring, me, &wakes) {
                Ok(locked) => locked,
                Err(Held::By(dead)) => {
                    let taken = transfer(ring, dead, me, &wakes);
                    taken.map_err(|damage| damage.to_string())?.ok_or("it was taken")?
                }
                Err(held) => return Err(format!("{held:?}")),
            };
            locked.produce(step).map(|sent| sent.count)
        }
    };
    match sent {
        Ok(_) => Ok(true),
        Err(NotCarried::Refused(Refusal::Full(_))) => Ok(false),
        Err(error) => Err(format!("{error:?}")),
    }
}

/// Takes a message; `false` if there is none.
fn receive(ring: &Ring<&Replay<'_>>, consumer: &mut Consumer) -> Result<bool, String> {
    let wakes = Wakes::default();
    let front = consumer.front(ring, &wakes).map_err(|damage| damage.to_string())?;
    let Some(front) = front else { return Ok(false) };
    consumer.free_carried(ring, front, &wakes, || {});
    Ok(true)
}

impl Setup {
    fn start(self) -> State {
        let positions = [Word::Tail, Word::Head, Word::HeadCache].map(|word| (word, BASE));
        let others = [(Word::HandlesSent, self.apart)];
        State {
            words: positions.into_iter().chain(others).collect(),
            producer: Thread::new(1),
            consumer: Thread::new(1),
            held: None,
            sent: 0,
            kills: 0,
        }
    }

    fn run_producer(self, thread: &Thread<Sending>) -> Did<Sending> {
        replay(&thread.log, |memory| {
            let ring = model(memory);
            let Some(mut sending) = thread.kept.clone() else {
                return Ok((attach(&ring, self)?, None));
            };
            let sent = send(&ring, &mut sending, thread.life)?;
            Ok((sending, Some(sent)))
        })
    }

    fn run_consumer(self, thread: &Thread<Consumer>) -> Did<Consumer> {
        replay(&thread.log, |memory| {
            let ring = model(memory);
            let Some(mut consumer) = thread.kept.clone() else {
                let consumer = Consumer::attach(&ring).map_err(|damage| damage.to_string())?;
                return Ok((consumer, None));
            };
            let taken = receive(&ring, &mut consumer)?;
            Ok((consumer, Some(taken)))
        })
    }

    /// One step of `side`: the access, if it is one, and how the operation ended, if it did.
    fn step(self, state: &mut State, side: Side) -> Result<(Option<Access>, Option<bool>), String> {
        let access = match side {
            Side::Producer => match self.run_producer(&state.producer) {
                Reached::Step(access) => access,
                Reached::End(result) => {
                    let (kept, sent) = result?;
                    state.producer = Thread { kept: Some(kept), log: vec![], ..state.producer };
                    state.sent += u32::from(sent == Some(true));
                    return Ok((None, sent));
                }
            },
            Side::Consumer => match self.run_consumer(&state.consumer) {
                Reached::Step(access) => access,
                Reached::End(result) => {
                    let (kept, taken) = result?;
                    state.consumer = Thread { kept: Some(kept), log: vec![], ..state.consumer };
                    return Ok((None, taken));
                }
            },
        };
        let answer = state.answer(access, self.mutant);
        match side {
            Side::Producer => state.producer.log.push(answer),
            Side::Consumer => state.consumer.log.push(answer),
        }
        Ok((Some(access), None))
    }

    /// Runs operations of `side`, alone, until one of them is no attaching, and gives how that ended.
    fn finish(self, state: &mut State, side: Side) -> Result<bool, String> {
        loop {
            if let (_, Some(did)) = self.step(state, side)? {
                return Ok(did);
            }
        }
    }

    /// From here on no process dies. A message is taken only if a send was refused, so that there is
    /// always one; and sends go on.
    fn check_goes_on(self, mut state: State) -> Result<(), String> {
        let mut refused = 0;
        for _ in 0..4 {
            while !self.finish(&mut state, Side::Producer)? {
                refused += 1;
                if refused > 4 || !self.finish(&mut state, Side::Consumer)? {
                    return Err(format!("handles are kept back: {state:#x?}"));
                }
            }
            refused = 0;
        }
        Ok(())
    }

    /// Explores everything, and gives how many states and kills there were.
    fn search(self) -> Result<(usize, u64), String> {
        let (mut open, mut visited, mut kills) = (vec![self.start()], HashSet::new(), 0);
        while let Some(state) = open.pop() {
            if !visited.insert(fingerprint(&state)) {
                continue;
            }
            if state.under_way()? > IN_FLIGHT_MAX + u64::from(HANDLES) {
                return Err(format!("more under way than the bound allows: {state:#x?}"));
            }
            if state.producer.log.is_empty() && state.consumer.log.is_empty() {
                self.check_goes_on(state.clone())?;
            }
            let mut choices = vec![];
            for side in [Side::Consumer, Side::Producer] {
                if side == Side::Producer
                    && state.sent == self.sends
                    && state.producer.log.is_empty()
                {
                    continue; // it is done
                }
                let mut next = state.clone();
                let (access, _) = self.step(&mut next, side)?;
                if state.kills < self.kills && state.is_worth_a_kill(side, access) {
                    kills += 1;
                    open.push(state.without(side));
                }
                if !is_visible(side, access) {
                    choices = vec![next]; // it commutes with all that the other side does
                    break;
                }
                choices.push(next);
            }
            open.extend(choices);
        }
        Ok((visited.len(), kills))
    }
}

/// Whether the other side can see it, or it sees what the other side does.
fn is_visible(side: Side, access: Option<Access>) -> bool {
    let Some(access) = access else { return false };
    match side {
        Side::Producer => matches!(
            access,
            Access::Load(Word::Head | Word::HandlesTaken, _)
                | Access::Store(Word::Data(_) | Word::Tail, ..)
        ),
        Side::Consumer => matches!(
            access,
            Access::Load(Word::Data(_) | Word::Tail, _)
                | Access::Store(Word::Head | Word::HandlesTaken, ..)
        ),
    }
}

impl State {
    fn read(&self, word: Word) -> u64 {
        self.words.get(&place(word)).copied().unwrap_or(0)
    }

    fn write(&mut self, word: Word, value: u64) {
        let is_mere_statistics =
            matches!(word, Word::SentMsgs | Word::SentBytes | Word::FullEvents | Word::LockBreaks)
                || matches!(word, Word::ReceivedMsgs | Word::ReceivedBytes);
        if !is_mere_statistics {
            self.words.insert(place(word), value);
        }
    }

    fn answer(&mut self, access: Access, mutant: Mutant) -> u64 {
        match access {
            Access::Load(word, _) => self.read(word),
            Access::Store(Word::HandlesSent, value, _)
                if mutant == Mutant::CountsAfterPublishing =>
            {
                self.held = Some(value);
                0
            }
            Access::Store(word, value, _) => {
                self.write(word, value);
                if word == Word::Tail
                    && let Some(sent) = self.held.take()
                {
                    self.write(Word::HandlesSent, sent);
                }
                0
            }
            Access::CompareExchange(word, current, new) => {
                let found = self.read(word);
                if found == current {
                    self.write(word, new);
                }
                found
            }
            Access::AskReached | Access::Barrier => 1,
            _ => 0,
        }
    }

    /// Whether a kill of `side` before `access` leaves something else than one before the access that
    /// follows: all that loads leave is in its log.
    fn is_worth_a_kill(&self, side: Side, access: Option<Access>) -> bool {
        let is_between = match side {
            Side::Producer => self.producer.log.is_empty() && self.producer.kept.is_some(),
            Side::Consumer => self.consumer.log.is_empty() && self.consumer.kept.is_some(),
        };
        is_between || matches!(access, Some(Access::Store(..) | Access::CompareExchange(..)))
    }

    /// The same, if a successor of `side` is about to attach.
    fn without(&self, side: Side) -> Self {
        let mut next = Self { kills: self.kills + 1, ..self.clone() };
        match side {
            Side::Producer => {
                (next.producer, next.held) = (Thread::new(self.producer.life + 1), None);
            }
            Side::Consumer => next.consumer = Thread::new(self.consumer.life + 1),
        }
        next
    }

    /// Handles of the records that are published and not freed.
    fn under_way(&self) -> Result<u64, String> {
        let rules = replay(&[], |memory| model(memory).rules);
        let Reached::End(rules) = rules else { return Err("no access".into()) };
        let rules: RecordRules = rules;
        let (mut position, mut count) = (self.read(Word::Head), 0);
        loop {
            let record = rules.decode(self.read(Word::Data(position)), position);
            match record.map_err(|error| error.to_string())? {
                Some(record) => {
                    count += u64::from(record.handle_count);
                    position = position.wrapping_add(rules.record_len(&record));
                }
                None => return Ok(count),
            }
        }
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

/// Three deaths of consumers lie behind, so that one more would leave nothing of the bound.
fn setup(is_spsc: bool, mutant: Mutant) -> Setup {
    let apart = 3 * u64::from(HANDLES);
    Setup { is_spsc, mutant, sends: 3, kills: 1, apart }
}

#[test]
fn no_interleaving_and_no_kill_keeps_handles_back_or_lets_too_many_through() {
    for is_spsc in [true, false] {
        let (states, kills) = setup(is_spsc, Mutant::None).search().unwrap();
        println!("one sender at a time, spsc {is_spsc}: {states} states, {kills} kills");
        assert!(states > 1000 && kills > 100);
    }
}

/// Asserts that the search finds what `problem` describes.
fn assert_caught(setup: Setup, problem: &str) {
    let found = setup.search().expect_err("it must be caught");
    assert!(found.starts_with(problem), "caught for another reason: {found}");
}

#[test]
fn where_nothing_is_added_up_the_search_finds_handles_that_are_kept_back_for_good() {
    for is_spsc in [true, false] {
        assert_caught(setup(is_spsc, Mutant::NeverRecounts), "handles are kept back");
    }
}

#[test]
fn with_handles_counted_behind_their_record_the_search_finds_too_many_under_way() {
    let setup = setup(true, Mutant::CountsAfterPublishing);
    assert_caught(Setup { sends: 6, kills: 2, apart: 0, ..setup }, "more under way");
}
