//! The threads and tasks of this process that wait at an end of a channel.

use std::task::Waker;

use crate::crash::left_out;
use crate::endpoint::{Interrupter, Interrupts};
use crate::ends::MessagePacket;
use crate::error::Error;
use crate::wait::wake;

/// The number of one of them.
pub(super) type WaiterId = usize;

/// What comes for a call: its reply, or why that cannot be had.
pub(super) type Reply = Result<MessagePacket, Error>;

/// Threads and tasks that wait, each for the reply to its call or for any message.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    /// Those that have left keep their places for the next.
    places: Vec<Waiter>,
    free: Vec<WaiterId>,
    /// Calls without a reply, in the order of their transaction ids. New ids mostly come last.
    calls: Vec<(u32, WaiterId)>,
    /// The one that sleeps on the ring's doorbell, for all.
    leader: Option<WaiterId>,
    /// Whether another thread has found something for the leader, and is to wake it.
    leader_is_to_look: Called,
    /// Whether another thread of the process sleeps in the leader's place.
    stands_by: bool,
    /// Whether all were woken, and none has begun to sleep since.
    are_all_told: bool,
    /// Tasks that wait until there is something to read.
    readers: Vec<Waker>,
    /// Threads and tasks that wait for signals.
    signal_count: usize,
    /// What is to be woken, too, when signals may have changed.
    observer: Option<Waker>,
    leaving: Leaving,
}

#[derive(Debug)]
struct Waiter {
    waits_for: WaitsFor,
    /// Whether the thread may sleep. One that doesn't looks itself, once it has the lock.
    is_asleep: bool,
    /// Of a thread, which sleeps on them.
    interrupts: Interrupts,
    interrupter: Interrupter,
    /// Of a task that was polled.
    waker: Option<Waker>,
    reply: Option<Reply>,
}

/// Threads and tasks that are woken, and wakers that are dropped, when this is dropped, once there is no lock: each
/// thread takes it, and what wakers do is not ours.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    threads: Vec<Interrupter>,
    woken: Vec<Waker>,
    dropped: Vec<Waker>,
}

impl Leaving {
    /// All wakers, for one who wakes them later: of what is only to be dropped the task looks once more.
    pub(super) fn into_wakers(mut self) -> Vec<Waker> {
        let mut wakers = std::mem::take(&mut self.woken);
        wakers.append(&mut self.dropped);
        wakers
    }

    fn is_empty(&self) -> bool {
        self.threads.is_empty() && self.woken.is_empty() && self.dropped.is_empty()
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.threads.iter().for_each(Interrupter::wake);
        self.woken.drain(..).for_each(|waker| wake(Some(waker)));
    }
}

/// Whether the leader was woken for what another thread has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Called {
    #[default]
    No,
    /// It is to be.
    Due,
    Once,
}

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitsFor {
    /// It has left.
    Nothing,
    Message,
    Reply {
        txid: u32,
    },
    Signals,
}

impl Waiter {
    /// Has it look.
    fn tell(&self) {
        if self.is_asleep {
            self.interrupter.interrupt();
        } else {
            self.interrupter.note();
        }
    }
}

impl Waiters {
    /// Adds a thread that waits for any message. It sleeps on the interrupts returned.
    pub(super) fn add_reader(&mut self) -> (WaiterId, Interrupts) {
        self.add(WaitsFor::Message)
    }

    /// Adds a thread that waits for the reply with `txid`, which no other waits for.
    pub(super) fn add_call(&mut self, txid: u32) -> (WaiterId, Interrupts) {
        let added = self.add(WaitsFor::Reply { txid });
        let (Ok(place) | Err(place)) = self.find_call(txid);
        self.calls.insert(place, (txid, added.0));
        added
    }

    /// Adds a thread or a task that waits for signals.
    pub(super) fn add_observer(&mut self) -> (WaiterId, Interrupts) {
        self.signal_count += 1;
        self.add(WaitsFor::Signals)
    }

    /// Whether `id` waits for signals.
    pub(super) fn is_observer(&self, id: WaiterId) -> bool {
        self.places[id].waits_for == WaitsFor::Signals
    }

    /// Whether any thread or task waits for signals.
    pub(super) fn has_observers(&self) -> bool {
        self.signal_count > 0
    }

    /// Has `observer` woken whenever signals may have changed.
    pub(super) fn set_observer(&mut self, observer: Waker) {
        self.leaving.dropped.extend(self.observer.replace(observer));
    }

    /// Has all that wait for signals look, as those may have changed.
    #[inline]
    pub(super) fn tell_observers(&mut self) {
        if self.signal_count > 0 || self.observer.is_some() {
            self.tell_those_observers();
        }
    }

    /// Has the observer that was [set](Self::set_observer) look.
    #[inline]
    pub(super) fn tell_observer(&mut self) {
        if self.observer.is_some() {
            self.leaving.woken.extend(self.observer.clone());
        }
    }

    #[cold]
    fn tell_those_observers(&mut self) {
        self.tell_observer();
        let mut is_leader_due = false;
        for (id, place) in self.places.iter_mut().enumerate() {
            if place.waits_for != WaitsFor::Signals {
                continue;
            }
            match place.waker.take() {
                Some(waker) => self.leaving.woken.push(waker),
                None if self.leader == Some(id) => is_leader_due = true,
                None => place.tell(),
            }
        }
        if is_leader_due {
            self.call_leader();
        }
    }

    /// Where the call with `txid` stands, or would.
    fn find_call(&self, txid: u32) -> Result<usize, usize> {
        match self.calls.last() {
            None => Err(0),
            Some((last, _)) if *last < txid => Err(self.calls.len()),
            Some(_) => self.calls.binary_search_by_key(&txid, |(txid, _)| *txid),
        }
    }

    fn take_call(&mut self, txid: u32) -> Option<WaiterId> {
        self.find_call(txid).ok().map(|place| self.calls.remove(place).1)
    }

    fn add(&mut self, waits_for: WaitsFor) -> (WaiterId, Interrupts) {
        let id = self.free.pop().unwrap_or_else(|| {
            let mut interrupts = Interrupts::default();
            let interrupter = interrupts.interrupter();
            let waits_for = WaitsFor::Nothing;
            let (is_asleep, waker, reply) = (false, None, None);
            self.places.push(Waiter {
                waits_for,
                is_asleep,
                interrupts,
                interrupter,
                waker,
                reply,
            });
            self.places.len() - 1
        });
        let place = &mut self.places[id];
        (place.waits_for, place.is_asleep) = (waits_for, false);
        place.interrupts.take(); // what was meant for an earlier one
        (id, place.interrupts.clone())
    }

    /// Takes a thread away that waits no longer, and wakes one that is to lead in its place.
    pub(super) fn remove(&mut self, id: WaiterId) -> Option<Reply> {
        let waited_for = std::mem::replace(&mut self.places[id].waits_for, WaitsFor::Nothing);
        if let WaitsFor::Reply { txid } = waited_for {
            // Once it has its reply, another may call with its id.
            if let Ok(place) = self.find_call(txid)
                && self.calls[place].1 == id
            {
                self.calls.remove(place);
            }
        }
        self.signal_count -= usize::from(waited_for == WaitsFor::Signals);
        let place = &mut self.places[id];
        let reply = place.reply.take();
        self.leaving.dropped.extend(place.waker.take());
        self.free.push(id);
        self.resign(id);
        self.call_successor();
        reply
    }

    /// Wakes one that is to lead, if no thread does: one that sleeps and was told of nothing, as it leads unless it
    /// leaves, and calls the next then. Those that are about to look lead without that, or call one when they leave; but
    /// what they do before may take long.
    fn call_successor(&self) {
        let sleeps = |place: &&Waiter| {
            place.waits_for != WaitsFor::Nothing
                && place.is_asleep
                && place.reply.is_none()
                && place.waker.is_none()
                && !place.interrupts.is_pending()
        };
        if self.leader.is_none()
            && !self.stands_by
            && !self.are_all_told
            && !left_out!("the call of a successor")
            && let Some(next) = self.places.iter().find(sleeps)
        {
            next.tell();
        }
    }

    /// Whether any call waits.
    pub(super) fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    /// Calls that wait.
    pub(super) fn call_count(&self) -> usize {
        self.calls.len()
    }

    /// Whether a call with `txid` waits.
    pub(super) fn has_call(&self, txid: u32) -> bool {
        self.find_call(txid).is_ok()
    }

    /// Gives the call with `txid` its reply.
    pub(super) fn deliver(&mut self, txid: u32, reply: Reply) {
        if let Some(id) = self.take_call(txid) {
            let is_leader = self.leader == Some(id);
            let place = &mut self.places[id];
            place.reply = Some(reply);
            match place.waker.take() {
                Some(waker) => self.leaving.woken.push(waker),
                None if is_leader => self.call_leader(),
                None => place.tell(),
            }
        }
    }

    /// The reply to a call, once it has come.
    pub(super) fn take_reply(&mut self, id: WaiterId) -> Option<Reply> {
        self.places[id].reply.take()
    }

    /// Whether it has come.
    pub(super) fn has_reply(&self, id: WaiterId) -> bool {
        self.places[id].reply.is_some()
    }

    /// All replies that have come and were not taken.
    pub(super) fn take_replies(&mut self) -> Vec<(WaiterId, Reply)> {
        let places = self.places.iter_mut().enumerate();
        places.filter_map(|(id, place)| Some((id, place.reply.take()?))).collect()
    }

    /// Whether `id` waits for any message.
    fn is_reader(&self, id: WaiterId) -> bool {
        self.places[id].waits_for == WaitsFor::Message
    }

    /// Wakes a thread that waits for any message and was not woken yet, if there is one. When it leaves, it wakes the
    /// next if there are more messages.
    pub(super) fn wake_reader(&mut self) {
        let leader = self.leader;
        let is_untold = |(id, place): &(WaiterId, &Waiter)| {
            place.waits_for == WaitsFor::Message
                && leader != Some(*id)
                && !place.interrupts.is_pending()
        };
        if let Some((_, reader)) = self.places.iter().enumerate().find(is_untold) {
            reader.tell();
        } else if leader.is_some_and(|id| self.is_reader(id)) {
            self.call_leader();
        }
    }

    /// Has the leader look once more, if there is one: what it polls for may have been found by another thread, before
    /// it armed.
    pub(super) fn call_leader(&mut self) {
        if self.leader.is_some()
            && self.leader_is_to_look == Called::No
            && !left_out!("the call of the leader")
        {
            self.leader_is_to_look = Called::Due;
        }
    }

    /// Whether the leader is to be woken now.
    pub(super) fn take_call_of_leader(&mut self) -> bool {
        let is_due = self.leader_is_to_look == Called::Due;
        if is_due {
            self.leader_is_to_look = Called::Once;
        }
        is_due
    }

    /// Wakes the tasks that wait until there is something to read.
    pub(super) fn wake_reading_tasks(&mut self) {
        self.leaving.woken.append(&mut self.readers);
    }

    /// Has `waker` woken by [`Self::wake_reading_tasks`], with those of other tasks.
    pub(super) fn set_reading_task(&mut self, waker: &Waker) {
        if !self.readers.iter().any(|reader| reader.will_wake(waker)) {
            self.readers.push(waker.clone());
        }
    }

    /// Has `waker` woken when the call `id` has its reply, in the place of an earlier one.
    pub(super) fn set_task(&mut self, id: WaiterId, waker: &Waker) {
        let place = &mut self.places[id];
        if place.waker.as_ref().is_none_or(|before| !before.will_wake(waker)) {
            self.leaving.dropped.extend(place.waker.replace(waker.clone()));
        }
    }

    /// Wakes all that are not woken yet: each of them may call this in turn.
    pub(super) fn wake_all(&mut self) {
        for place in &mut self.places {
            match place.waker.take() {
                Some(waker) => self.leaving.woken.push(waker),
                None if place.waits_for == WaitsFor::Nothing => {}
                None if place.interrupts.is_pending() => {}
                None => {
                    place.interrupter.note();
                    self.leaving.threads.push(place.interrupter.clone());
                }
            }
        }
        self.are_all_told = true;
        self.tell_observer();
        self.wake_reading_tasks();
    }

    /// What is to be dropped now that there is no lock.
    pub(super) fn take_leaving(&mut self) -> Leaving {
        std::mem::take(&mut self.leaving)
    }

    /// Whether there is any of that.
    pub(super) fn has_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Notes that from now on another thread sleeps on the ring's doorbell in the leader's place.
    pub(super) fn note_standby(&mut self) {
        self.stands_by = true;
    }

    /// Whether a thread sleeps on the ring's doorbell, or is about to.
    pub(super) fn has_leader(&self) -> bool {
        self.leader.is_some()
    }

    /// Whether a thread waits here for a message and no other thread, call or observer does.
    pub(super) fn is_one_reader_alone(&self) -> bool {
        self.calls.is_empty() && self.signal_count == 0 && self.free.len() + 1 == self.places.len()
    }

    /// Notes that the thread `id` is about to look, with the lock.
    pub(super) fn begin_look(&mut self, id: WaiterId) {
        self.places[id].is_asleep = false;
        self.resign(id);
    }

    /// Notes that the thread `id` is about to sleep, without the lock.
    pub(super) fn begin_sleep(&mut self, id: WaiterId) {
        self.places[id].is_asleep = true;
        self.are_all_told = false;
    }

    /// Makes `id` the leader if there is none.
    pub(super) fn lead(&mut self, id: WaiterId) -> bool {
        let is_vacant = self.leader.is_none();
        if is_vacant {
            (self.leader, self.leader_is_to_look) = (Some(id), Called::No);
        }
        is_vacant
    }

    /// Ends the lead of `id`, if it has it.
    pub(super) fn resign(&mut self, id: WaiterId) {
        self.leader.take_if(|leader| *leader == id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that leads and five that wait, of which only the last sleeps and was told nothing.
    #[test]
    fn a_leader_that_leaves_is_followed_by_one_that_sleeps_and_was_told_nothing() {
        let mut waiters = Waiters::default();
        let (leader, _) = waiters.add_reader();
        assert!(waiters.lead(leader));
        let (_looks, looks) = waiters.add_call(1); // its request was sent, and it has not come to waiting
        let (task, _) = waiters.add_call(2);
        waiters.set_task(task, Waker::noop());
        let (answered, _) = waiters.add_call(3);
        let (told, _) = waiters.add_reader();
        let (asleep, interrupts) = waiters.add_reader();
        for id in [leader, answered, told, asleep] {
            waiters.begin_sleep(id);
        }
        waiters.deliver(3, Ok(MessagePacket::from(b"a reply")));
        waiters.wake_reader();
        assert!(!interrupts.is_pending() && !looks.is_pending());
        waiters.remove(leader);
        assert!(interrupts.is_pending());
        assert!(!looks.is_pending());
        assert!(waiters.lead(asleep));
    }

    #[test]
    fn nothing_is_called_while_another_leads_or_if_all_that_wait_are_about_to_look() {
        let mut waiters = Waiters::default();
        let (leader, of_leader) = waiters.add_reader();
        let (other, _) = waiters.add_reader();
        let (asleep, interrupts) = waiters.add_reader();
        assert!(waiters.lead(leader));
        waiters.begin_sleep(asleep);
        waiters.remove(other);
        assert!(!interrupts.is_pending() && !of_leader.is_pending());
        waiters.remove(asleep);
        let (late, interrupts) = waiters.add_reader();
        waiters.remove(leader);
        assert!(!interrupts.is_pending());
        assert!(waiters.lead(late), "it leads by itself");
    }

    #[test]
    fn all_that_wait_are_told_at_once_and_woken_once_there_is_no_lock() {
        let mut waiters = Waiters::default();
        let all: Vec<_> = (0..3).map(|txid| waiters.add_call(txid)).collect();
        all.iter().for_each(|(id, _)| waiters.begin_sleep(*id));
        waiters.wake_all();
        assert!(all.iter().all(|(_, interrupts)| interrupts.is_pending()));
        assert_eq!(waiters.take_leaving().threads.len(), all.len());
        waiters.wake_all();
        assert!(!waiters.has_leaving(), "they were told");
    }

    #[test]
    fn one_that_sleeps_again_after_all_were_told_is_called_as_a_successor() {
        let mut waiters = Waiters::default();
        let (leader, _) = waiters.add_reader();
        let (again, interrupts) = waiters.add_reader();
        waiters.begin_sleep(again);
        waiters.wake_all();
        assert!(interrupts.take());
        waiters.begin_look(again);
        assert!(waiters.lead(leader));
        waiters.begin_sleep(again);
        waiters.remove(leader);
        assert!(interrupts.is_pending());
    }

    #[test]
    fn no_successor_is_called_if_another_thread_of_the_process_sleeps_in_the_leaders_place() {
        let mut waiters = Waiters::default();
        let (reader, _) = waiters.add_reader();
        let (asleep, interrupts) = waiters.add_reader();
        waiters.begin_sleep(asleep);
        waiters.note_standby();
        waiters.remove(reader);
        assert!(!interrupts.is_pending());
    }
}
