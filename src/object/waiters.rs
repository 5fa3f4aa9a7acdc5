//! The threads of this process that wait at an end of a channel.

use std::collections::BTreeMap;

use crate::endpoint::{Interrupter, Interrupts};
use crate::ends::MessagePacket;
use crate::error::Error;

/// The number of one of them.
pub(super) type WaiterId = usize;

/// Threads that wait, each for the reply to its call or for any message.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    /// Those that have left keep their places for the next.
    places: Vec<Waiter>,
    free: Vec<WaiterId>,
    /// Calls without a reply, by transaction id.
    calls: BTreeMap<u32, WaiterId>,
    /// The one that sleeps on the ring's doorbell, for all.
    leader: Option<WaiterId>,
}

#[derive(Debug)]
struct Waiter {
    waits_for: WaitsFor,
    interrupts: Interrupts,
    interrupter: Interrupter,
    reply: Option<Result<MessagePacket, Error>>,
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
}

impl Waiters {
    /// Adds a thread that waits for any message. It sleeps on the interrupts returned.
    pub(super) fn add_reader(&mut self) -> (WaiterId, Interrupts) {
        self.add(WaitsFor::Message)
    }

    /// Adds a thread that waits for the reply with `txid`, which no other waits for.
    pub(super) fn add_call(&mut self, txid: u32) -> (WaiterId, Interrupts) {
        let added = self.add(WaitsFor::Reply { txid });
        self.calls.insert(txid, added.0);
        added
    }

    fn add(&mut self, waits_for: WaitsFor) -> (WaiterId, Interrupts) {
        let id = self.free.pop().unwrap_or_else(|| {
            let mut interrupts = Interrupts::default();
            let interrupter = interrupts.interrupter();
            let waits_for = WaitsFor::Nothing;
            self.places.push(Waiter { waits_for, interrupts, interrupter, reply: None });
            self.places.len() - 1
        });
        let place = &mut self.places[id];
        place.waits_for = waits_for;
        place.interrupts.take(); // what was meant for an earlier one
        (id, place.interrupts.clone())
    }

    /// Takes a thread away that waits no longer, and wakes one that is to lead in its place.
    pub(super) fn remove(&mut self, id: WaiterId) -> Option<Result<MessagePacket, Error>> {
        let place = &mut self.places[id];
        if let WaitsFor::Reply { txid } = std::mem::replace(&mut place.waits_for, WaitsFor::Nothing)
        {
            self.calls.remove(&txid);
        }
        let reply = place.reply.take();
        self.free.push(id);
        self.resign(id);
        if self.leader.is_none()
            && let Some(next) = self.waiting().next()
        {
            next.interrupter.interrupt();
        }
        reply
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
        self.calls.contains_key(&txid)
    }

    /// Gives the call with `txid` its reply. `me` is the waiter that does so, if it is one.
    pub(super) fn deliver(
        &mut self,
        txid: u32,
        reply: Result<MessagePacket, Error>,
        me: Option<WaiterId>,
    ) {
        if let Some(id) = self.calls.remove(&txid) {
            let place = &mut self.places[id];
            place.reply = Some(reply);
            if me != Some(id) {
                place.interrupter.interrupt(); // also the leader: it looks at what comes, not at what came
            }
        }
    }

    /// The reply to a call, once it has come.
    pub(super) fn take_reply(&mut self, id: WaiterId) -> Option<Result<MessagePacket, Error>> {
        self.places[id].reply.take()
    }

    /// Whether `id` waits for any message.
    pub(super) fn is_reader(&self, id: WaiterId) -> bool {
        self.places[id].waits_for == WaitsFor::Message
    }

    /// Wakes a thread that waits for any message and was not woken yet, if there is one. When it leaves, it wakes the
    /// next if there are more messages.
    pub(super) fn wake_reader(&self) {
        let is_asleep = |place: &&Waiter| {
            place.waits_for == WaitsFor::Message && !place.interrupts.is_pending()
        };
        if let Some(reader) = self.places.iter().find(is_asleep) {
            reader.interrupter.interrupt();
        }
    }

    /// Wakes all that are not woken yet: each of them may call this in turn.
    pub(super) fn wake_all(&self) {
        let asleep = self.waiting().filter(|place| !place.interrupts.is_pending());
        asleep.for_each(|place| place.interrupter.interrupt());
    }

    /// Makes `id` the leader if there is none.
    pub(super) fn lead(&mut self, id: WaiterId) -> bool {
        let is_vacant = self.leader.is_none();
        if is_vacant {
            self.leader = Some(id);
        }
        is_vacant
    }

    /// Ends the lead of `id`, if it has it.
    pub(super) fn resign(&mut self, id: WaiterId) {
        self.leader.take_if(|leader| *leader == id);
    }

    fn waiting(&self) -> impl Iterator<Item = &Waiter> {
        self.places.iter().filter(|place| place.waits_for != WaitsFor::Nothing)
    }
}
