//! What a step does: to memory, to sleepers, and to what the search knows of messages.

use tombolo_abi::{LockWord, RecordKind, wake};

use super::super::super::Word;
use super::super::recording::{Access, Order};
use super::actor::Actor;
use super::bridge::Crossing;
use super::call::{Call, Ends, WOKEN};
use super::memory::{Cell, EPOCH, LANES, Store, cell, incarnation, lane_position, split_position};
use super::mutant::{Altered, alter};
use super::setup::Setup;
use super::state::{Seen, State};

/// Takes steps.
#[derive(Debug)]
pub(super) struct Stepper<'a> {
    pub(super) setup: &'a Setup,
    pub(super) seen: Seen,
}

/// Every state that a step may lead to.
pub(super) type Outcomes = Result<Vec<State>, String>;

impl Stepper<'_> {
    /// Takes `index`'s next step.
    pub(super) fn step(&mut self, state: &State, index: usize) -> Outcomes {
        let thread = &state.threads[index];
        let mut state = state.clone();
        let access = thread.next.expect("a step");
        if !self.is_unseen(&state, index, access) {
            state.unmark(index);
        }
        match alter(self.setup, &mut state, index, access) {
            Altered::Answer(value) => self.answer(state, index, value),
            Altered::Access(access) => self.access(state, index, access),
        }
    }

    fn answer(&mut self, state: State, index: usize, value: u64) -> Outcomes {
        Ok(vec![state.answer(index, value, self.setup, &mut self.seen)?])
    }

    pub(super) fn answer_all(
        &mut self,
        states: Vec<State>,
        index: usize,
        mut act: impl FnMut(&mut Self, &mut State) -> Result<u64, String>,
    ) -> Outcomes {
        let mut outcomes = vec![];
        for mut state in states {
            let value = act(self, &mut state)?;
            outcomes.push(state.answer(index, value, self.setup, &mut self.seen)?);
        }
        Ok(outcomes)
    }

    fn cell(&self, word: Word) -> Option<Cell> {
        cell(word, self.setup.capacity)
    }

    fn access(&mut self, mut state: State, index: usize, access: Access) -> Outcomes {
        match access {
            Access::Load(word, _) => self.load(state, index, word),
            Access::Store(word, value, order) => {
                self.store(&mut state, index, word, value, order);
                self.answer(state, index, 0)
            }
            Access::CompareExchange(word, current, new) => {
                self.compare_exchange(state, index, word, current, new)
            }
            Access::FetchOr(word, bits) => {
                self.seen.told += 1;
                self.fetch(state, index, word, |found| found | bits)
            }
            Access::FetchAnd(word, bits) => {
                self.seen.cleared += 1;
                self.fetch(state, index, word, |found| found & bits)
            }
            Access::Fence(_) => {
                state.drain(index);
                self.answer(state, index, 0)
            }
            Access::Barrier => self.barrier(state, index),
            Access::AskReached => {
                let is_reached = !self.setup.unregistered.contains(&index);
                self.answer(state, index, is_reached.into())
            }
            Access::Notify(word, _) => {
                let cell = self.cell(word).expect("a wake word");
                let woken = self.notify(state, Some(index), cell)?;
                self.answer_all(woken, index, |_, _| Ok(0))
            }
            Access::Call(call) => self.call(state, index, call),
        }
    }

    fn load(&mut self, state: State, index: usize, word: Word) -> Outcomes {
        let Some(cell) = self.cell(word) else { return self.answer(state, index, 0) };
        self.look(state, index, cell)
    }

    /// One state for each outcome that a load may have.
    fn look(&mut self, state: State, index: usize, cell: Cell) -> Outcomes {
        if state.threads[index].buffer.iter().any(|store| store.to == cell) {
            let own = state.read(index, cell);
            return self.answer(state, index, own);
        }
        let settled = state.settled(Some(index), cell);
        self.answer_all(settled, index, |_, state| Ok(state.shared.get(cell)))
    }

    fn store(&mut self, state: &mut State, index: usize, word: Word, value: u64, order: Order) {
        let Some(to) = self.cell(word) else { return };
        let is_release = order == Order::Release;
        state.threads[index].buffer.push(Store {
            to,
            value,
            is_release,
            is_marked: self.marks_stores(),
        });
        match word {
            Word::Lock => {
                (state.threads[index].is_inside, state.is_taken_over) = (false, false);
            }
            Word::Data(position) if is_release && value != 0 => {
                self.publish(state, index, position);
            }
            Word::Head => free(state, 0, value),
            Word::HeadCache if matches!(state.threads[index].actor, Actor::Lanes(_)) => {
                free(state, 1, value);
            }
            _ => {}
        }
    }

    /// Notes what a store at `position` publishes: every message from there on, as whoever sees all
    /// of this process's stores finds them.
    fn publish(&mut self, state: &mut State, index: usize, mut position: u64) {
        let (rules, capacity) = (self.setup.rules(), self.setup.capacity);
        let read = |state: &State, position| {
            state.read(index, cell(Word::Data(position), capacity).expect("a cell"))
        };
        let decode = |word, position| rules.decode(word, split_position(position).1);
        while let Ok(Some(record)) = decode(read(state, position), position) {
            if record.kind == RecordKind::Data {
                let is_empty = record.payload_len == 0;
                let first = read(state, position + record.payload_offset()) as u8;
                let number = if is_empty { 0 } else { first };
                state.unfreed.push((position, number));
                state.threads[index].published += 1;
            } else {
                self.seen.paddings += 1;
            }
            position += rules.record_len(&record);
        }
    }

    fn compare_exchange(
        &mut self,
        mut state: State,
        index: usize,
        word: Word,
        current: u64,
        new: u64,
    ) -> Outcomes {
        let cell = self.cell(word).expect("a cell");
        arrive_own(&mut state, index, cell);
        let settled = state.settled(Some(index), cell);
        self.answer_all(settled, index, |stepper, state| {
            let found = state.shared.get(cell);
            if found == current {
                state.drain(index);
                state.shared.set(cell, new);
                if word == Word::Lock {
                    stepper.enter(state, index, found)?;
                }
                state.armings += u8::from(word == Word::TxWake);
            }
            Ok(found)
        })
    }

    /// Changes a word by one access that reads and writes.
    fn fetch(
        &mut self,
        mut state: State,
        index: usize,
        word: Word,
        change: impl Fn(u64) -> u64,
    ) -> Outcomes {
        let cell = self.cell(word).expect("a cell");
        arrive_own(&mut state, index, cell);
        let settled = state.settled(Some(index), cell);
        self.answer_all(settled, index, |_, state| {
            state.drain(index);
            state.shared.set(cell, change(state.shared.get(cell)));
            Ok(0)
        })
    }

    /// `index` has taken the lock, which was `found`.
    fn enter(&mut self, state: &mut State, index: usize, found: u64) -> Result<(), String> {
        if let Some(other) = state.threads.iter().position(|thread| thread.is_inside) {
            return Err(format!("{other} and {index} hold the lock"));
        }
        let is_transfer = found != LockWord::FREE;
        self.seen.transfers += u64::from(is_transfer);
        self.seen.transfers_again += u64::from(state.is_taken_over);
        (state.threads[index].is_inside, state.is_taken_over) = (true, is_transfer);
        Ok(())
    }

    /// Clears the armed bit and wakes everybody who sleeps on it.
    pub(super) fn notify(
        &mut self,
        mut state: State,
        index: Option<usize>,
        cell: Cell,
    ) -> Outcomes {
        self.seen.notified += 1;
        if let Some(index) = index {
            arrive_own(&mut state, index, cell);
        }
        let mut outcomes = state.settled(index, cell);
        for state in &mut outcomes {
            let word = state.shared.get(cell);
            state.shared.set(cell, word & !u64::from(wake::ARMED_FUTEX));
            for sleeper in 0..state.threads.len() {
                if state.threads[sleeper].asleep.is_some_and(|(on, _)| on == cell) {
                    self.seen.wakes += 1;
                    state.threads[sleeper].asleep = None;
                    state.threads[sleeper].log.push(WOKEN);
                    state.advance(sleeper, self.setup, &mut self.seen)?;
                }
            }
        }
        Ok(outcomes)
    }

    fn call(&mut self, mut state: State, index: usize, call: Call) -> Outcomes {
        match call {
            Call::Incarnation(slot) => self.look(state, index, incarnation(slot)),
            Call::SetIncarnation(slot, value) => {
                let (to, value) = (incarnation(slot), value.into());
                let is_marked = self.marks_stores();
                let store = Store { to, value, is_release: true, is_marked };
                state.threads[index].buffer.push(store);
                self.answer(state, index, 0)
            }
            Call::TakeByte(slot) | Call::TryByte(slot) => self.take_byte(state, index, slot),
            Call::DropByte(slot) => {
                state.bytes[usize::from(slot)] = None;
                self.answer(state, index, 0)
            }
            Call::Probe(slot) => {
                let is_held = state.bytes[usize::from(slot)].is_some();
                self.answer(state, index, is_held.into())
            }
            Call::Wait(word, expected, ends) => self.wait(state, index, word, expected, ends),
            Call::Epoch => {
                let epoch = state.shared.get(EPOCH);
                self.answer(state, index, epoch)
            }
            Call::Choose(count) => {
                let mut outcomes = vec![];
                for value in 0..count {
                    outcomes.extend(self.answer(state.clone(), index, value)?);
                }
                Ok(outcomes)
            }
            Call::UntilLock(_)
            | Call::UntilRecord(_)
            | Call::UntilRoom(..)
            | Call::UntilLanes { .. } => self.answer(state, index, 0),
            Call::Bridge(crossing) => {
                match crossing {
                    Crossing::Stand(..) => {
                        self.seen.stood += 1;
                        state.armings += 1;
                    }
                    Crossing::Unlock => state.drain(index), // who has the lock next sees all
                    Crossing::End | Crossing::EndNow => {
                        self.seen.ended += u64::from(state.bridge.standing.is_some());
                    }
                    Crossing::Await(_) => self.seen.awaited += 1,
                    _ => {}
                }
                let value = state.bridge.cross(crossing);
                self.answer(state, index, value)
            }
        }
    }

    fn take_byte(&mut self, mut state: State, index: usize, slot: u16) -> Outcomes {
        let byte = &mut state.bytes[usize::from(slot)];
        if let Some(holder) = *byte {
            // Who holds a byte that is not its own is only looking.
            let looks = !matches!(&self.setup.actors[usize::from(holder)],
                Actor::Locked(locked) if locked.me.slot == slot);
            if looks {
                return Err(format!("slot {slot} has no owner, but its byte is held by {holder}"));
            }
            return self.answer(state, index, 0);
        }
        *byte = Some(index as u8);
        self.answer(state, index, 1)
    }

    fn wait(
        &mut self,
        state: State,
        index: usize,
        word: Word,
        expected: u32,
        ends: Ends,
    ) -> Outcomes {
        let cell = self.cell(word).expect("a wake word");
        let is_own = state.threads[index].buffer.iter().any(|store| store.to == cell);
        let settled = if is_own { vec![state] } else { state.settled(Some(index), cell) };
        let mut outcomes = vec![];
        for mut next in settled {
            if next.read(index, cell) == u64::from(expected) {
                self.seen.sleeps += 1;
                next.threads[index].asleep = Some((cell, ends));
                outcomes.push(next);
            } else {
                outcomes.extend(self.answer(next, index, 0)?);
            }
        }
        Ok(outcomes)
    }

    /// Whether polling for this could find something now, or when more has arrived.
    pub(super) fn is_worth_polling(&self, state: &State, call: Call) -> bool {
        let values = |word| state.possible(self.cell(word).expect("a cell"));
        match call {
            Call::TakeByte(slot) => state.bytes[usize::from(slot)].is_none(),
            Call::UntilLock(word) => {
                let holder = LockWord::from_word(word).expect("a holder");
                let byte = state.bytes[usize::from(holder.slot)];
                let incarnation = u64::from(holder.incarnation);
                values(Word::Lock).any(|value| value != word)
                    || byte.is_none()
                    || state.possible(self::incarnation(holder.slot)).any(|it| it != incarnation)
            }
            Call::UntilRecord(position) => values(Word::Data(position)).any(|value| value != 0),
            Call::UntilLanes { heads, active, epoch } => {
                let may_lie = |lane: usize| {
                    let position = lane_position(lane as u8, heads[lane]);
                    active >> lane & 1 == 1 && values(Word::Data(position)).any(|value| value != 0)
                };
                (0..LANES).any(may_lie)
                    || values(Word::Summary(0)).any(|bits| bits & !u64::from(active) != 0)
                    || state.possible(EPOCH).any(|it| it != epoch)
            }
            Call::Bridge(crossing) => state.bridge.can(crossing),
            Call::UntilRoom(tail, needed) => values(Word::Head).any(|head| {
                tail.wrapping_sub(head) as i64 <= self.setup.capacity.wrapping_sub(needed) as i64
            }),
            _ => true,
        }
    }

    /// Whether nobody else can see the step, nor change what it finds.
    pub(super) fn is_unseen(&self, state: &State, index: usize, access: Access) -> bool {
        let thread = &state.threads[index];
        match access {
            Access::Load(word, _) => self.cell(word).is_none() || is_private(&thread.actor, word),
            Access::Store(..) | Access::AskReached => true,
            Access::Fence(_) => thread.buffer.is_empty(),
            Access::Call(Call::SetIncarnation(..)) => true,
            // Who has the lock: others can but wait for it.
            Access::Call(Call::Bridge(Crossing::Standing | Crossing::Known)) => true,
            Access::Call(Call::Bridge(Crossing::Unlock)) => thread.buffer.is_empty(),
            _ => false,
        }
    }
}

/// Notes that a consumer stored `head` in `lane`.
fn free(state: &mut State, lane: u64, head: u64) {
    let before = state.unfreed.len();
    let is_left = |position| {
        let (of_lane, position) = split_position(position);
        of_lane != lane || position >= head
    };
    state.unfreed.retain(|(position, _)| is_left(*position));
    state.is_taken &= state.unfreed.len() == before;
}

/// All own stores to `cell` arrive: whoever replaces a word replaces its own last value of it.
fn arrive_own(state: &mut State, index: usize, cell: Cell) {
    let State { shared, threads, .. } = state;
    while shared.arrive(&mut threads[index].buffer, cell) {}
}

/// Whether nobody but `actor` stores the word, or only under a lock that it holds.
fn is_private(actor: &Actor, word: Word) -> bool {
    match actor {
        Actor::Locked(_) => {
            matches!(word, Word::Tail | Word::HeadCache | Word::Data(_))
        }
        Actor::Single(_) => matches!(word, Word::Tail | Word::Data(_)),
        Actor::Receiver(_) => matches!(word, Word::Head),
        Actor::Lane(_) => matches!(word, Word::Tail | Word::Skipped | Word::Data(_)),
        Actor::Lanes(_) => matches!(word, Word::Head | Word::HeadCache),
        Actor::Reactor(_) | Actor::Armer | Actor::Done => false,
    }
}
