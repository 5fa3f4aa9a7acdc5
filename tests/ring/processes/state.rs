//! Everything that the rest of a run depends on.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::super::recording::Access;
use super::super::replay::{Reached, replay};
use super::actor::{Actor, Event};
use super::bridge::{Bridge, Crossing};
use super::call::{Call, Ends};
use super::memory::{CELLS, Cell, SLOTS, Shared, Store, incarnation, split_position};
use super::setup::Setup;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Thread {
    pub(super) actor: Actor,
    /// What its present operation was answered so far.
    pub(super) log: Vec<u64>,
    /// What it does next; `None` where it is done, or dead.
    pub(super) next: Option<Access>,
    pub(super) buffer: Vec<Store>,
    pub(super) life: Life,
    pub(super) asleep: Option<(Cell, Ends)>,
    /// Whether it is between taking the lock and storing that it is free.
    pub(super) is_inside: bool,
    /// Messages that it published, whoever knows of it yet.
    pub(super) published: u8,
    /// What a load that overtook an earlier step found.
    pub(super) early: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Life {
    Alive,
    /// It was killed; its stores still arrive, and its lock byte is held.
    Dead,
    /// Its lock byte is free.
    Gone,
}

/// Everything that the rest of a run depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) shared: Shared,
    pub(super) threads: Vec<Thread>,
    /// Who holds the lock byte of each slot.
    pub(super) bytes: [Option<u8>; SLOTS],
    /// Messages published and not freed, by position.
    pub(super) unfreed: Vec<(u64, u8)>,
    /// Whether the first of them was copied out before.
    pub(super) is_taken: bool,
    /// Whether the lock was taken over and has not been given back since.
    pub(super) is_taken_over: bool,
    pub(super) kills: u8,
    pub(super) naps: u8,
    pub(super) armings: u8,
    /// Deaths that the watcher has to count, and to wake for.
    pub(super) to_count: u8,
    pub(super) to_wake: u8,
    pub(super) bridge: Bridge,
}

/// What a search went through without finding anything.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) states: usize,
    pub(super) ends: u64,
    pub(super) cut: u64,
    pub(super) kills: u64,
    pub(super) transfers: u64,
    /// Those from a holder that had taken over itself.
    pub(super) transfers_again: u64,
    pub(super) refused: u64,
    pub(super) unwound: u64,
    pub(super) relaxed: u64,
    pub(super) paddings: u64,
    pub(super) redelivered: u64,
    pub(super) sleeps: u64,
    pub(super) wakes: u64,
    pub(super) notified: u64,
    pub(super) barriers: u64,
    pub(super) timed_out: u64,
    pub(super) death_wakes: u64,
    /// Bits of a summary set, and cleared, and lanes no longer looked at.
    pub(super) told: u64,
    pub(super) cleared: u64,
    pub(super) forgotten: u64,
    /// Armings that stood, those that were ended, and waits for that.
    pub(super) stood: u64,
    pub(super) ended: u64,
    pub(super) awaited: u64,
}

impl Thread {
    fn new(actor: &Actor) -> Self {
        Self {
            actor: actor.clone(),
            log: vec![],
            next: None,
            buffer: vec![],
            life: Life::Alive,
            asleep: None,
            is_inside: false,
            published: 0,
            early: None,
        }
    }

    /// Whether it sleeps, itself or by another thread.
    pub(super) fn is_asleep(&self) -> bool {
        let waits = matches!(self.next, Some(Access::Call(Call::Bridge(Crossing::Await(_)))));
        waits || self.asleep.is_some()
    }
}

impl State {
    /// A fresh ring; nobody has done anything.
    pub(super) fn new(setup: &Setup, seen: &mut Seen) -> Result<Self, String> {
        let mut state = Self {
            shared: Shared([0; CELLS]),
            threads: setup.actors.iter().map(Thread::new).collect(),
            bytes: [None; SLOTS],
            unfreed: vec![],
            is_taken: false,
            is_taken_over: false,
            kills: 0,
            naps: 0,
            armings: 0,
            to_count: 0,
            to_wake: 0,
            bridge: Bridge::default(),
        };
        for (index, actor) in setup.actors.iter().enumerate() {
            if let Some(slot) = actor.held_from_start() {
                state.bytes[usize::from(slot)] = Some(index as u8);
                state.shared.set(incarnation(slot), 1);
            }
        }
        for index in 0..setup.actors.len() {
            state.advance(index, setup, seen)?;
        }
        Ok(state)
    }

    /// Runs `index` up to its next step.
    pub(super) fn advance(
        &mut self,
        index: usize,
        setup: &Setup,
        seen: &mut Seen,
    ) -> Result<(), String> {
        loop {
            let thread = &mut self.threads[index];
            if thread.actor == Actor::Done {
                thread.next = None;
                return Ok(());
            }
            match replay(&thread.log, |memory| thread.actor.run(memory, setup)) {
                Reached::Step(access) => {
                    thread.next = Some(access);
                    return Ok(());
                }
                Reached::End(ran) => {
                    let (actor, event) = ran?;
                    (thread.actor, thread.early) = (actor, None);
                    thread.log.clear();
                    self.note(index, event, seen)?;
                }
            }
        }
    }

    /// Compares what an operation that returned says with what there is.
    fn note(&mut self, index: usize, event: Event, seen: &mut Seen) -> Result<(), String> {
        match event {
            Event::Sent(count) if count != self.threads[index].published => {
                return Err(format!("{count} messages sent, not so many published"));
            }
            Event::Took(position, number) => {
                let is_of_lane = |(other, _): &&(u64, u8)| {
                    split_position(*other).0 == split_position(position).0
                };
                let wanted = self.unfreed.iter().find(is_of_lane);
                if wanted != Some(&(position, number)) {
                    return Err(format!("got {number} at {position}, wanted {wanted:?}"));
                }
                seen.redelivered += u64::from(self.is_taken);
                self.is_taken = true;
            }
            Event::Refused => seen.refused += 1,
            Event::Unwound => seen.unwound += 1,
            Event::Relaxed => seen.relaxed += 1,
            Event::Forgot => seen.forgotten += 1,
            Event::Sent(_) | Event::Nothing => {}
        }
        Ok(())
    }

    /// The answer to `index`'s step.
    pub(super) fn answer(
        mut self,
        index: usize,
        value: u64,
        setup: &Setup,
        seen: &mut Seen,
    ) -> Result<Self, String> {
        self.threads[index].log.push(value);
        self.advance(index, setup, seen)?;
        Ok(self)
    }

    /// What `index` finds in `cell` without any more stores arriving.
    pub(super) fn read(&self, index: usize, cell: Cell) -> u64 {
        let own = self.threads[index].buffer.iter().rev().find(|store| store.to == cell);
        own.map_or_else(|| self.shared.get(cell), |store| store.value)
    }

    /// Every state that stores to `cell` by others than `index` may lead to by arriving.
    pub(super) fn settled(&self, index: Option<usize>, cell: Cell) -> Vec<Self> {
        let mut all = vec![self.clone()];
        let mut done = 0;
        while done < all.len() {
            for other in (0..self.threads.len()).filter(|other| Some(*other) != index) {
                if self.threads[other].buffer.iter().any(|store| store.to == cell) {
                    let mut next = all[done].clone();
                    let is_new = next.shared.arrive(&mut next.threads[other].buffer, cell);
                    if is_new && !all.contains(&next) {
                        all.push(next);
                    }
                }
            }
            done += 1;
        }
        all
    }

    /// All that `cell` may hold, now or when more has arrived.
    pub(super) fn possible(&self, cell: Cell) -> impl Iterator<Item = u64> {
        let stores = self.threads.iter().flat_map(|thread| &thread.buffer);
        let on_the_way = stores.filter(move |store| store.to == cell).map(|store| store.value);
        on_the_way.chain([self.shared.get(cell)])
    }

    /// `index` takes a step that others can see.
    pub(super) fn unmark(&mut self, index: usize) {
        self.threads[index].buffer.iter_mut().for_each(|store| store.is_marked = false);
    }

    /// Everything that `index` has stored arrives.
    pub(super) fn drain(&mut self, index: usize) {
        self.shared.drain(&mut self.threads[index].buffer);
    }

    pub(super) fn fingerprint(&self) -> u128 {
        let half = |salt: u64| {
            let mut hasher = DefaultHasher::new();
            (salt, self).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        half(1) << 64 | half(2)
    }
}
