//! The search: every state that one step leads to, until there are no new ones.

use std::collections::HashMap;

use super::super::super::Word;
use super::super::recording::Access;
use super::actor::Actor;
use super::call::{Call, Ends};
use super::memory::{EPOCH, cell};
use super::setup::{Killed, Order, Setup};
use super::state::{Life, Seen, State};
use super::step::Stepper;

/// How a state was come to first.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "told by Debug")]
enum Did {
    Started,
    Step(usize, Access),
    TimedOut(usize),
    Killed(usize),
    BecameFree(usize),
    CountedDeath,
    WokeForDeath,
}

/// A search under way.
struct Search<'a> {
    stepper: Stepper<'a>,
    ids: HashMap<u128, u32>,
    /// How each state was come to, and from which.
    from: Vec<(u32, Did)>,
    /// Steps other than kills.
    edges: Vec<(u32, u32)>,
    /// States after which nothing more is asked.
    ends: Vec<u32>,
    open: Vec<(u32, State)>,
}

type Found = Result<(), String>;

/// Explores everything; an error tells what went wrong first, and how that was come to.
pub(super) fn search(setup: &Setup) -> Result<Seen, String> {
    let mut stepper = Stepper { setup, seen: Seen::default() };
    let first = State::new(setup, &mut stepper.seen)?;
    let mut search = Search {
        stepper,
        ids: HashMap::new(),
        from: vec![],
        edges: vec![],
        ends: vec![],
        open: vec![],
    };
    search.add(0, Did::Started, first);
    while let Some((id, state)) = search.open.pop() {
        search.expand(id, &state).map_err(|problem| search.tell(id, &problem))?;
    }
    search.check_no_livelock()?;
    Ok(Seen { states: search.from.len(), ..search.stepper.seen })
}

impl Search<'_> {
    fn add(&mut self, from: u32, did: Did, state: State) {
        let new = self.from.len() as u32;
        let id = *self.ids.entry(state.fingerprint()).or_insert(new);
        if !matches!(did, Did::Killed(_)) {
            self.edges.push((from, id));
        }
        if id == new {
            self.from.push((from, did));
            if state.armings > self.stepper.setup.armings {
                self.stepper.seen.cut += 1;
                self.ends.push(id);
            } else {
                self.open.push((id, state));
            }
        }
    }

    /// Adds every state that one step leads to.
    fn expand(&mut self, id: u32, state: &State) -> Found {
        for (index, thread) in state.threads.iter().enumerate() {
            if self.stepper.setup.order == Order::UnseenFirst
                && let Some(access) = thread.next
                && self.stepper.is_unseen(state, index, access)
            {
                self.kill(id, state, index);
                return self.step(id, state, index, access);
            }
        }
        (0..state.threads.len()).for_each(|index| self.kill(id, state, index));
        let before = self.edges.len();
        for index in 0..state.threads.len() {
            self.go_on(id, state, index)?;
        }
        self.watch(id, state)?;
        if self.edges.len() == before { self.end(id, state) } else { Ok(()) }
    }

    /// What `index` can do: its next step, waking up by itself, or being gone after a kill.
    fn go_on(&mut self, id: u32, state: &State, index: usize) -> Found {
        let thread = &state.threads[index];
        match (thread.life, thread.next, thread.asleep) {
            (Life::Dead, ..) => self.become_free(id, state, index),
            (_, Some(access), None) if self.can_step(state, access) => {
                self.step(id, state, index, access)?;
            }
            (_, _, Some((_, ends)))
                if ends != Ends::Never && state.naps < self.stepper.setup.naps =>
            {
                let mut state = state.clone();
                state.naps += 1;
                self.time_out(id, state, index)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn time_out(&mut self, id: u32, state: State, index: usize) -> Found {
        for next in self.stepper.time_out(state, index)? {
            self.add(id, Did::TimedOut(index), next);
        }
        Ok(())
    }

    fn can_step(&self, state: &State, access: Access) -> bool {
        match access {
            Access::Call(call) => self.stepper.is_worth_polling(state, call),
            _ => true,
        }
    }

    fn step(&mut self, id: u32, state: &State, index: usize, access: Access) -> Found {
        for next in self.stepper.step(state, index)? {
            self.add(id, Did::Step(index, access), next);
        }
        Ok(())
    }

    fn kill(&mut self, id: u32, state: &State, index: usize) {
        let setup = self.stepper.setup;
        let thread = &state.threads[index];
        let is_running =
            thread.next.is_some() && (setup.killed == Killed::Anywhere || thread.is_inside);
        if state.kills == setup.kills || !setup.killable.contains(&index) || !is_running {
            return;
        }
        self.stepper.seen.kills += 1;
        let mut next = state.clone();
        next.kills += 1;
        let thread = &mut next.threads[index];
        thread.life = Life::Dead;
        (thread.actor, thread.next, thread.asleep) = (Actor::Done, None, None);
        thread.log.clear();
        next.unmark(index);
        self.add(id, Did::Killed(index), next);
    }

    /// All that a killed process stored has arrived, and its lock byte is free.
    fn become_free(&mut self, id: u32, state: &State, index: usize) {
        let mut next = state.clone();
        next.drain(index);
        next.threads[index].life = Life::Gone;
        next.threads[index].is_inside = false;
        for byte in &mut next.bytes {
            if *byte == Some(index as u8) {
                *byte = None;
            }
        }
        let setup = self.stepper.setup;
        let is_producer = setup.actors[index].is_producer();
        next.to_count += u8::from(setup.is_watched && is_producer);
        self.add(id, Did::BecameFree(index), next);
    }

    /// What the consumer's process does about a death: it counts it, then wakes the consumer.
    fn watch(&mut self, id: u32, state: &State) -> Found {
        if state.to_count > 0 {
            let mut next = state.clone();
            next.shared.set(EPOCH, next.shared.get(EPOCH) + 1);
            (next.to_count, next.to_wake) = (next.to_count - 1, next.to_wake + 1);
            self.add(id, Did::CountedDeath, next);
        }
        if state.to_wake > 0 {
            self.stepper.seen.death_wakes += 1;
            let mut next = state.clone();
            next.to_wake -= 1;
            let word = cell(Word::RxWake, self.stepper.setup.capacity).expect("a cell");
            for next in self.stepper.notify(next, None, word)? {
                self.add(id, Did::WokeForDeath, next);
            }
        }
        Ok(())
    }

    /// Nobody can do anything more. Once everything that was stored has arrived, everybody who lives
    /// must be done, or rightly asleep.
    fn end(&mut self, id: u32, state: &State) -> Found {
        let receivers = self.alive(state, Actor::is_receiver);
        if !state.unfreed.is_empty() && !receivers.is_empty() {
            return self.wake_in_time(id, state, &receivers);
        }
        let waits = |index: &usize| {
            let next = state.threads[*index].next;
            !matches!(next, None | Some(Access::Call(Call::TakeByte(_))))
        };
        let producers = self.alive(state, Actor::is_producer);
        if let Some(index) = producers.into_iter().find(waits)
            && !receivers.is_empty()
        {
            return Err(if state.threads[index].is_asleep() {
                "an empty ring, and none to wake its producer".to_owned()
            } else {
                format!("producer {index} is stuck")
            });
        }
        self.stepper.seen.ends += 1;
        self.ends.push(id);
        Ok(())
    }

    /// Who lives, of those that were set up as `is_meant` says.
    fn alive(&self, state: &State, is_meant: impl Fn(&Actor) -> bool) -> Vec<usize> {
        let actors = self.stepper.setup.actors.iter().enumerate();
        let lives = |index: &usize| state.threads[*index].life == Life::Alive;
        actors.filter(|(_, actor)| is_meant(actor)).map(|(index, _)| index).filter(lives).collect()
    }

    /// There is a record, and nobody does anything: a short sleep ends.
    fn wake_in_time(&mut self, id: u32, state: &State, receivers: &[usize]) -> Found {
        let is_short = |index: &&usize| {
            state.threads[**index].asleep.is_some_and(|(_, ends)| ends != Ends::Never)
        };
        let Some(index) = receivers.iter().find(is_short) else {
            let sleeps = receivers.iter().any(|index| state.threads[*index].is_asleep());
            return Err(if sleeps {
                "a record in the ring, and none to wake its consumer".to_owned()
            } else {
                "a message was published and is not there".to_owned()
            });
        };
        let mut next = state.clone();
        (0..next.threads.len()).for_each(|index| next.drain(index));
        self.time_out(id, next, *index)
    }

    /// From every state an end can be come to, without anybody being killed for it.
    fn check_no_livelock(&mut self) -> Found {
        self.edges.sort_unstable_by_key(|(_, to)| *to);
        let mut reaches = vec![false; self.from.len()];
        let mut open = self.ends.clone();
        while let Some(id) = open.pop() {
            if !std::mem::replace(&mut reaches[id as usize], true) {
                let first = self.edges.partition_point(|(_, to)| *to < id);
                let into = self.edges[first..].iter().take_while(|(_, to)| *to == id);
                open.extend(into.map(|(from, _)| from));
            }
        }
        match reaches.iter().position(|reaches| !reaches) {
            None => Ok(()),
            Some(id) => Err(self.tell(id as u32, "no end can be come to any more")),
        }
    }

    /// What went wrong, and every step up to there.
    fn tell(&self, mut id: u32, problem: &str) -> String {
        let mut steps = vec![];
        while id != 0 {
            let (from, did) = self.from[id as usize];
            steps.push(format!("{did:?}"));
            id = from;
        }
        steps.push(problem.to_owned());
        steps.reverse();
        steps.join("\n")
    }
}
