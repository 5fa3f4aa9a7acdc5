//! The receiving half of a channel's end: which thread gets which message, and who sleeps for all.
//!
//! ```text
//!          head                 scanned                 tail
//!           v                      v                     v
//!   ..freed..|msg|(taken)|msg|msg..|  not looked at yet  |0
//!             `read` takes these     a waiting call looks here for its reply
//! ```
//!
//! Each record is looked at once. A reply to a call that waits goes to that call, out of turn if messages lie
//! before it; all else stays in the ring, in its order, for `read`. So what calls pass is kept without a copy,
//! bounded by the ring, and still in the region if the end goes to another process.
//!
//! One of the threads that wait *leads*: it alone sleeps on the ring's doorbell. The others sleep each on a word of
//! its own. The leader looks at what has come, wakes the one that it belongs to, and wakes a successor when it
//! leaves. A call is registered and its request published under the lock of those who look: its reply is not seen
//! before it is expected, and nothing is taken for the reply to a request that was not published.

use std::mem::offset_of;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tombolo_abi::{Record, RecordKind, RingControl, Role, Slot};

use super::channel_error::ChannelError;
use super::waiters::{WaiterId, Waiters};
use crate::carrier::{Intake, Wanted};
use crate::deadline::Deadline;
use crate::endpoint::{Attached, Disconnect, Interrupts, Peer, Until};
use crate::ends::{BorrowedWhile, MessagePacket, RecordRef};
use crate::error::Error;
use crate::os::futex::Moment;
use crate::region::Region;
use crate::ring::doorbell::{Polled, poll};
use crate::ring::{Consumer, Front, Wakes};
use crate::wait::{Bell, Incoming, SLEEP_MAX, Spin};

/// Records that one look passes at most: then the caller's deadline is checked.
const LOOK_MAX: u32 = 4096;

/// Bytes of a transaction id.
pub(super) const TXID_LEN: usize = 4;

/// The receiving half of an end.
#[derive(Debug)]
pub(super) struct Inbox {
    /// `None` once the end was closed.
    state: Mutex<Option<State>>,
    /// Held by the leader while it sleeps.
    lead: Mutex<Lead>,
    /// Position up to which records were looked at. Stored under `state`; the leader polls there.
    scanned: AtomicU64,
}

#[derive(Debug)]
struct State {
    end: Arc<Attached>,
    consumer: Consumer,
    intake: Option<Intake>,
    wakes: Wakes,
    peer: Peer,
    waiters: Waiters,
}

/// What the leader needs to sleep.
#[derive(Debug)]
struct Lead {
    bell: Bell,
    wakes: Wakes,
}

/// What is at the front of the queue.
pub(super) type Message<'a> = RecordRef<'a>;

impl Inbox {
    /// Attaches as the receiver of ring `ring`.
    pub(super) fn attach(
        region: &Arc<Region>,
        ring: u32,
        spin: Spin,
        until: Until<'_>,
    ) -> Result<Self, Error> {
        let end = Attached::attach(region, ring, Role::Receiver, until)?;
        let consumer = Consumer::attach(&end.ring).map_err(|damage| end.damaged(damage))?;
        let bell = Bell::attach(&end, spin)?;
        let intake = Intake::open(&end)?;
        let mut peer = Peer::default();
        peer.set_rule(Disconnect::Ever);
        let scanned = AtomicU64::new(consumer.head());
        let (end, wakes, waiters) = (Arc::new(end), Wakes::default(), Waiters::default());
        let state = State { end, consumer, intake, wakes, peer, waiters };
        let lead = Lead { bell, wakes: Wakes::default() };
        Ok(Self { state: Mutex::new(Some(state)), lead: Mutex::new(lead), scanned })
    }

    /// Lets `take` have the first message.
    ///
    /// # Errors
    /// Those of `take`; [`ChannelError::ShouldWait`], [`ChannelError::PeerClosed`], [`ChannelError::Closed`].
    pub(super) fn read<T, E: From<ChannelError>>(
        &self,
        take: impl FnOnce(Message<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut guard = lock(&self.state);
        let state = guard.as_mut().ok_or(ChannelError::Closed)?;
        match state.first(&self.scanned).map_err(ChannelError::from)? {
            Some(front) => state.take(front, &self.scanned, take),
            None => Err(state.none_left(&self.scanned)?.into()),
        }
    }

    /// As [`Self::read`], waiting for a message until `deadline`.
    ///
    /// # Errors
    /// As [`Self::read`], [`ChannelError::TimedOut`] instead of *should wait*, and [`ChannelError::Canceled`].
    pub(super) fn read_until<T, E: From<ChannelError>>(
        &self,
        deadline: Deadline,
        take: impl FnOnce(Message<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut guard = lock(&self.state);
        let state = guard.as_mut().ok_or(ChannelError::Closed)?;
        if let Some(front) = state.first(&self.scanned).map_err(ChannelError::from)? {
            return state.take(front, &self.scanned, take);
        }
        let (id, interrupts) = state.waiters.add_reader();
        let mut take = Some(take);
        self.wait(guard, (id, &interrupts), deadline, |state| {
            let Some(front) = state.first(&self.scanned)? else { return Ok(None) };
            let Some(take) = take.take() else { return Ok(None) }; // never: this ends the wait
            Ok(Some(state.take(front, &self.scanned, take)))
        })?
    }

    /// Registers a call for its reply and lets `send` send its request, with the id that `choose` gives; it is told
    /// whether another call has an id. No record is looked at in between: what came before the request was sent is
    /// no reply to it, and a call whose request was not sent never takes a message.
    ///
    /// # Errors
    /// That of `send`; inside, that of `choose`, and [`ChannelError::Closed`].
    pub(super) fn register_and_send<E>(
        &self,
        choose: impl FnOnce(&dyn Fn(u32) -> bool) -> Result<u32, ChannelError>,
        send: impl FnOnce(u32) -> Result<(), E>,
    ) -> Result<Result<Registered<'_>, ChannelError>, E> {
        let mut guard = lock(&self.state);
        let Some(state) = guard.as_mut() else { return Ok(Err(ChannelError::Closed)) };
        let passed = state.pass_all(&self.scanned).map_err(ChannelError::from);
        let chosen = passed.and_then(|()| choose(&|txid| state.waiters.has_call(txid)));
        let txid = match chosen {
            Ok(txid) => txid,
            Err(error) => return Ok(Err(error)),
        };
        let (id, interrupts) = state.waiters.add_call(txid);
        if let Err(error) = send(txid) {
            state.waiters.remove(id);
            return Err(error);
        }
        state.show_calls();
        Ok(Ok(Registered { inbox: self, id, interrupts }))
    }

    /// Waits until `poll` gives something, the peer is gone, or `deadline` has passed. Takes the waiter `id`
    /// away in any case.
    fn wait<'a, T>(
        &'a self,
        mut guard: MutexGuard<'a, Option<State>>,
        (id, interrupts): (WaiterId, &Interrupts),
        deadline: Deadline,
        mut poll: impl FnMut(&mut State) -> Result<Option<T>, ChannelError>,
    ) -> Result<T, ChannelError> {
        loop {
            interrupts.take(); // before the looks: what comes after them interrupts again
            let Some(state) = guard.as_mut() else { return Err(ChannelError::Canceled) };
            state.waiters.resign(id);
            let polled = state.poll(&self.scanned, id, &mut poll);
            let is_over = polled.is_err() || deadline.has_passed();
            match polled {
                Ok(None) if !is_over => {}
                polled => {
                    state.waiters.remove(id);
                    if self.scanned.load(Relaxed) != state.consumer.head() {
                        state.waiters.wake_reader(); // there are more
                    }
                    state.show_calls();
                    return polled.and_then(|found| found.ok_or(ChannelError::TimedOut));
                }
            }
            if state.waiters.lead(id) {
                state.consumer.notify_pending(&state.end.ring, &state.wakes);
                let (end, known) = (state.end.clone(), state.peer.asked());
                drop(guard);
                let Lead { bell, wakes } = &mut *lock(&self.lead);
                let until = Until { deadline, interrupts };
                let mut cursor = Cursor(&self.scanned);
                // What is wrong is found by the next look.
                let _ = bell.wait(&end, &mut cursor, wakes, known, until);
            } else {
                drop(guard);
                interrupts.sleep_alone(Moment::within(deadline, SLEEP_MAX));
            }
            guard = lock(&self.state);
        }
    }

    /// Ends all waits and gives up the end.
    pub(super) fn close(&self) {
        let Some(state) = lock(&self.state).take() else { return };
        state.waiters.wake_all();
        drop(lock(&self.lead)); // the leader has left the ring
        drop(state);
    }

    /// What the peer stored when it closed, if it has.
    pub(super) fn with_end<T>(&self, look: impl FnOnce(&Attached) -> T) -> Option<T> {
        let end = lock(&self.state).as_ref().map(|state| state.end.clone())?;
        Some(look(&end))
    }

    /// Whether the peer has gone, and nothing is left to read.
    pub(super) fn is_drained(&self) -> Result<bool, ChannelError> {
        let mut guard = lock(&self.state);
        let state = guard.as_mut().ok_or(ChannelError::Closed)?;
        if state.first(&self.scanned)?.is_some() {
            return Ok(false);
        }
        match state.none_left(&self.scanned) {
            Ok(ChannelError::PeerClosed) => Ok(true),
            other => other.map(|_| false),
        }
    }

    /// Sets how long the leader spins at most.
    pub(super) fn set_spin(&self, spin: Spin) {
        lock(&self.lead).bell.spin = spin;
    }
}

/// A call that is registered for its reply. Dropping it unregisters it: its reply is a message like any other then.
#[derive(Debug)]
pub(super) struct Registered<'a> {
    inbox: &'a Inbox,
    id: WaiterId,
    interrupts: Interrupts,
}

impl Registered<'_> {
    /// Waits for the reply until `deadline`.
    ///
    /// # Errors
    /// [`ChannelError::TimedOut`], [`ChannelError::PeerClosed`], [`ChannelError::Canceled`].
    pub(super) fn wait(self, deadline: Deadline) -> Result<MessagePacket, ChannelError> {
        let this = std::mem::ManuallyDrop::new(self); // `wait` takes it away
        let guard = lock(&this.inbox.state);
        let waited = this.inbox.wait(guard, (this.id, &this.interrupts), deadline, |state| {
            let reply = state.waiters.take_reply(this.id);
            reply.transpose().map_err(ChannelError::from)
        });
        // Its share of the word on which it slept.
        drop(this.interrupts.clone());
        waited
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        if let Some(state) = lock(&self.inbox.state).as_mut() {
            state.waiters.remove(self.id);
            state.show_calls();
        }
    }
}

impl State {
    /// The first message that is no reply to a call.
    fn first(&mut self, scanned: &AtomicU64) -> Result<Option<Front>, Error> {
        self.end.check_usable()?;
        if self.waiters.has_calls() {
            self.look(scanned, None)?;
        }
        let front = self.front()?;
        self.keep_up(scanned);
        // What came since the look may be a reply.
        let is_looked_at =
            !self.waiters.has_calls() || scanned.load(Relaxed) != self.consumer.head();
        Ok(front.filter(|_| is_looked_at))
    }

    fn front(&mut self) -> Result<Option<Front>, Error> {
        let Self { end, consumer, wakes, .. } = self;
        match consumer.front(&end.ring, wakes) {
            Ok(front) => {
                end.settle_now_and_then(wakes);
                Ok(front)
            }
            Err(damage) => Err(end.damaged_at(damage, consumer.head())),
        }
    }

    /// Moves `scanned` on to the head, if that has passed it.
    fn keep_up(&self, scanned: &AtomicU64) {
        let head = self.consumer.head();
        if scanned.load(Relaxed).wrapping_sub(head) as i64 <= 0 {
            scanned.store(head, Release);
        }
    }

    /// Lets `take` have the message `front`.
    fn take<T, E: From<ChannelError>>(
        &mut self,
        front: Front,
        scanned: &AtomicU64,
        take: impl FnOnce(Message<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let borrowed = BorrowedWhile::now();
        let Self { end, consumer, wakes, intake, .. } = self;
        let start = consumer.head().wrapping_add(front.payload_offset());
        let taken = take(RecordRef::new(end, consumer, wakes, intake, (start, front), borrowed));
        self.keep_up(scanned);
        let _ = self.free_withdrawn(scanned); // what is wrong is found by the next look
        taken
    }

    /// What to say of an empty queue. A message that the peer had sent before it went comes first: then there is
    /// nothing to say yet.
    fn none_left(&mut self, scanned: &AtomicU64) -> Result<ChannelError, ChannelError> {
        let is_gone = self.peer.is_disconnected(&self.end)?;
        if is_gone && self.first(scanned)?.is_none() {
            self.end.check_whole()?;
            return Ok(ChannelError::PeerClosed);
        }
        self.end.check_whole()?; // bytes that are missing look like an empty ring
        Ok(ChannelError::ShouldWait)
    }

    /// One step of the wait of `me`.
    fn poll<T>(
        &mut self,
        scanned: &AtomicU64,
        me: WaiterId,
        poll: &mut impl FnMut(&mut Self) -> Result<Option<T>, ChannelError>,
    ) -> Result<Option<T>, ChannelError> {
        self.end.check_usable()?;
        self.look(scanned, Some(me))?;
        if let Some(found) = poll(self)? {
            return Ok(Some(found));
        }
        if self.peer.is_disconnected(&self.end)? {
            self.look(scanned, Some(me))?; // what it sent before it went comes first
            if let Some(found) = poll(self)? {
                return Ok(Some(found));
            }
            self.end.check_whole()?;
            self.waiters.wake_all(); // each finds the same
            return Err(ChannelError::PeerClosed);
        }
        self.end.check_whole()?;
        Ok(None)
    }

    /// Looks at each record that was not looked at yet: a reply goes to its call, all else is passed. `me` is the
    /// waiter that looks, if it is one: it needs no waking, and a reader takes a message then.
    fn look(&mut self, scanned: &AtomicU64, me: Option<WaiterId>) -> Result<(), Error> {
        let is_reader = me.is_some_and(|me| self.waiters.is_reader(me));
        self.keep_up(scanned);
        for _ in 0..LOOK_MAX {
            let position = scanned.load(Relaxed);
            let found = self.consumer.look_at(&self.end.ring, position);
            let found = found.map_err(|damage| self.end.damaged_at(damage, position))?;
            let Some((front, record)) = found else { break };
            match self.call_of(position, front, &record) {
                Some(txid) => {
                    let reply = self.withdraw(position, (front, record));
                    self.waiters.deliver(txid, reply, me);
                }
                None if !is_reader && !record.kind.is_skipped() => self.waiters.wake_reader(),
                None => {}
            }
            let len = self.end.ring.rules.record_len(&record);
            scanned.store(position.wrapping_add(len), Release);
        }
        self.free_withdrawn(scanned)
    }

    /// Frees the replies at the head, which no unread message lies before.
    fn free_withdrawn(&mut self, scanned: &AtomicU64) -> Result<(), Error> {
        if scanned.load(Relaxed) != self.consumer.head() {
            self.front()?;
            self.keep_up(scanned);
        }
        Ok(())
    }

    /// Looks at all that is there.
    fn pass_all(&mut self, scanned: &AtomicU64) -> Result<(), Error> {
        self.end.check_usable()?;
        let most = self.end.ring.rules.capacity / u64::from(LOOK_MAX) + 1; // a record has 8 bytes or more
        for _ in 0..most {
            let before = scanned.load(Relaxed);
            self.look(scanned, None)?;
            if scanned.load(Relaxed) == before {
                break;
            }
        }
        Ok(())
    }

    /// The transaction id of the call to which the record is the reply. A request never is one, whatever it begins
    /// with: both sides may call at once.
    fn call_of(&self, position: u64, front: Front, record: &Record) -> Option<u32> {
        if !self.waiters.has_calls()
            || record.kind == RecordKind::Call
            || record.kind.is_skipped()
            || front.payload_len() < TXID_LEN
        {
            return None;
        }
        let mut txid = [0; TXID_LEN];
        self.consumer.at(position).copy_out(&self.end.ring, front, &mut txid);
        let txid = u32::from_ne_bytes(txid);
        self.waiters.has_call(txid).then_some(txid)
    }

    /// Takes a record out of its turn. It stays if its handles cannot be had now.
    fn withdraw(
        &mut self,
        position: u64,
        (front, record): (Front, Record),
    ) -> Result<MessagePacket, Error> {
        let Self { end, consumer, intake, .. } = self;
        let there = consumer.at(position);
        let mut data = vec![0; front.payload_len()];
        there.copy_out(&end.ring, front, &mut data);
        end.check_whole()?;
        let (ring, count) = (end.index, front.handle_count());
        let (Some(intake), 1..) = (intake, count) else {
            consumer.withdraw(&end.ring, position, (front, record));
            return Ok(MessagePacket::from(data));
        };
        let wanted = Wanted { ring, ext: there.ext(&end.ring), position, count };
        let fetched = intake.fetch_out_of_turn(&wanted, consumer.head());
        if matches!(fetched, Err(Error::TooManyFiles { .. })) {
            return Err(fetched.err().unwrap_or(Error::ForkedChild)); // it stays, as a message like any other
        }
        consumer.withdraw(&end.ring, position, (front, record));
        intake.take(&wanted);
        end.slot.add(offset_of!(Slot, handles), count.into());
        let handles = fetched.map_err(|error| match error {
            Error::HandlesLost { ring, position, count, .. } => {
                Error::HandlesLost { ring, position, count, data: std::mem::take(&mut data) }
            }
            error => error,
        })?;
        let mut packet = MessagePacket::from(data);
        packet.handles = handles;
        Ok(packet)
    }

    /// Stores how many calls wait, for tools.
    fn show_calls(&self) {
        if self.end.ring.memory.is_ours() {
            let calls = self.end.ring.memory.control_u64(offset_of!(RingControl, calls));
            calls.store(self.waiters.call_count() as u64, Relaxed);
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.end.settle(&self.wakes);
        // In a forked child, or after the endpoint was lost, the sockets are another process's.
        let is_ours = self.end.ring.memory.is_ours() && self.end.slot.check_kept().is_ok();
        if let (Some(intake), true) = (&mut self.intake, is_ours) {
            intake.close();
        }
    }
}

/// Where the leader polls: other threads take messages meanwhile, and move it on.
struct Cursor<'a>(&'a AtomicU64);

impl Incoming for Cursor<'_> {
    fn has_come(&mut self, end: &Attached, _: bool) -> bool {
        self.is_there(end)
    }

    fn poll_armed(&mut self, end: &Attached) -> Polled {
        poll(&end.ring, self.head())
    }

    fn is_there(&mut self, end: &Attached) -> bool {
        poll(&end.ring, self.head()) == Polled::Something
    }

    fn head(&self) -> u64 {
        self.0.load(Acquire)
    }
}

/// Ignores poisoning: a thread that panicked with the lock, in a user's check, left nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
