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
//!
//! Once a task or a poller waits at the end, no thread leads: what sleeps on the doorbell is the process's thread for
//! all of those, and looks at what has come in the leader's place.

use std::mem::offset_of;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Poll, Wake, Waker};
use std::time::{Duration, Instant};

use tombolo_abi::{Record, RecordKind, RingControl, Slot};

use super::channel_error::ChannelError;
use super::waiters::{Reply, WaiterId, Waiters};
use crate::carrier::{Intake, Wanted};
use crate::crash::{crash_point, left_out, test_lock, test_point};
use crate::deadline::Deadline;
use crate::endpoint::{Attached, Disconnect, Interrupts, Peer, Until};
use crate::ends::{BorrowedWhile, MessagePacket, RecordRef, buffer};
use crate::error::Error;
use crate::os::descriptor::Descriptor;
use crate::os::eventfd::EventFd;
use crate::os::fork;
use crate::os::futex::{Moment, Sleeping};
use crate::ring::doorbell::{Arming, Polled, poll};
use crate::ring::{Consumer, Front, Wakes};
use crate::wait::{
    Bell, Incoming, Ready, SLEEP_MAX, SPIN_MAX, Sleep, Spin, Standby, Standing, wake,
};

/// Records that one look passes at most: then the caller's deadline is checked.
const LOOK_MAX: u32 = 4096;

/// Messages taken before the bell is told of them: a turn of its.
const BELL_EVERY: u32 = 256;

/// Looks of one call of [`Inbox::drive`].
const DRIVES_MAX: u32 = 64;

/// Bytes of a transaction id.
pub(super) const TXID_LEN: usize = 4;

/// The receiving half of an end.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<Inside>,
    /// Held by the leader while it sleeps.
    lead: Mutex<Lead>,
    /// Position up to which records were looked at. Stored under `state`; the leader polls there.
    scanned: AtomicU64,
    /// A forked child of this process takes no lock: its threads may have held it.
    owner: fork::Owner,
}

#[derive(Debug)]
struct Inside {
    /// `None` once the end was closed.
    open: Option<State>,
    /// Replies that had come for calls before that, and were not taken yet.
    left: Vec<(WaiterId, Reply)>,
}

#[derive(Debug)]
struct State {
    end: Arc<Attached>,
    consumer: Consumer,
    intake: Option<Intake>,
    wakes: Wakes,
    peer: Peer,
    waiters: Waiters,
    /// How long the next leader spins at most, if that was changed.
    spin: Option<Spin>,
    /// If tasks or pollers wait.
    pollers: Option<Pollers>,
    /// Messages taken, of which the bell was not told.
    untold: u32,
    /// Whether handles may be kept of messages that a reply was taken before.
    keeps_handles: bool,
    /// Whether all that wait were told that the peer has gone.
    is_end_told: bool,
    /// Whether all handles were closed that it had handed over, as nothing is left to read.
    is_cleared: bool,
}

/// What tasks and pollers wait for.
#[derive(Debug)]
struct Pollers {
    /// What sleeps in the place of a leader.
    standby: Standby,
    /// Readable while there may be something to read.
    descriptor: Arc<EventFd>,
    is_readable: bool,
}

/// What the leader needs to sleep.
#[derive(Debug)]
struct Lead {
    /// `None` once the end was closed.
    end: Option<Arc<Attached>>,
    bell: Bell,
    wakes: Wakes,
}

/// What is left of an inbox that was given up.
pub(super) struct GivenUp {
    pub(super) sockets: Vec<OwnedFd>,
    pub(super) woken: Vec<Waker>,
    pub(super) end: Arc<Attached>,
}

/// What became of a record that was taken out of its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Withdrawn {
    Gone,
    Stays,
}

/// What is at the front of the queue.
pub(super) type Message<'a> = RecordRef<'a>;

impl Inbox {
    /// Receives at `end`. Handles come over `sockets`, if they came with the end.
    pub(super) fn attach(end: Attached, sockets: Option<Vec<Descriptor>>) -> Result<Self, Error> {
        let spin = Spin::new(SPIN_MAX);
        let owner = fork::Owner::current();
        let owner = owner.map_err(|error| end.slot.region().io_error("mark", error))?;
        let consumer = Consumer::attach(&end.ring).map_err(|damage| end.damaged(damage))?;
        let bell = Bell::attach(&end, spin)?;
        let intake = match sockets {
            Some(sockets) => Some(Intake::given(&end, sockets)),
            None => Intake::open(&end)?,
        };
        let mut peer = Peer::default();
        peer.set_rule(Disconnect::Ever);
        let scanned = AtomicU64::new(consumer.head());
        let (end, wakes, waiters) = (Arc::new(end), Wakes::default(), Waiters::default());
        let (spin, pollers, untold, keeps_handles) = (None, None, 0, false);
        let state = State {
            end,
            consumer,
            intake,
            wakes,
            peer,
            waiters,
            spin,
            pollers,
            untold,
            keeps_handles,
            is_end_told: false,
            is_cleared: false,
        };
        state.show_calls(); // an earlier owner may have left some
        let lead = Lead { end: Some(state.end.clone()), bell, wakes: Wakes::default() };
        let state = Mutex::new(Inside { open: Some(state), left: Vec::new() });
        Ok(Self { state, lead: Mutex::new(lead), scanned, owner })
    }

    /// Lets `take` have the first message.
    ///
    /// # Errors
    /// Those of `take`; [`ChannelError::ShouldWait`], [`ChannelError::PeerClosed`], [`ChannelError::Closed`].
    pub(super) fn read<T, E: From<ChannelError>>(
        &self,
        take: impl FnOnce(Message<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut guard = self.lock().map_err(ChannelError::from)?;
        let state = guard.as_mut().ok_or(ChannelError::Closed)?;
        match state.first(&self.scanned).map_err(ChannelError::from)? {
            Some(front) => {
                self.tell_bell(state);
                state.take(front, &self.scanned, take)
            }
            None => {
                let reason = state.none_left(&self.scanned)?;
                if let (Some(pollers), ChannelError::ShouldWait) = (&mut state.pollers, &reason) {
                    pollers.is_readable = false;
                    pollers.descriptor.clear();
                }
                Err(reason.into())
            }
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
        let mut guard = self.lock().map_err(ChannelError::from)?;
        let state = guard.as_mut().ok_or(ChannelError::Closed)?;
        if let Some(front) = state.first(&self.scanned).map_err(ChannelError::from)? {
            return state.take(front, &self.scanned, take);
        }
        let (id, interrupts) = state.waiters.add_reader();
        let mut take = Some(take);
        let poll = |state: &mut State| {
            let Some(front) = state.first(&self.scanned)? else { return Ok(None) };
            let Some(take) = take.take() else { return Ok(None) }; // never: this ends the wait
            Ok(Some(state.take(front, &self.scanned, take)))
        };
        self.wait(guard, (id, &interrupts), deadline, poll, |_| Err(ChannelError::Canceled))?
    }

    /// Registers a call for its reply and lets `send` send its request, with the id that `choose` gives; it is told
    /// whether another call has an id. No record is looked at in between: what came before the request was sent is
    /// no reply to it, and a call whose request was not sent never takes a message. Tasks that are to be woken come
    /// to `woken`: the caller holds a lock.
    ///
    /// # Errors
    /// That of `send`; inside, that of `choose`, and [`ChannelError::Closed`].
    pub(super) fn register_and_send<E>(
        &self,
        woken: &mut Vec<Waker>,
        choose: impl FnOnce(&dyn Fn(u32) -> bool) -> Result<u32, ChannelError>,
        send: impl FnOnce(u32) -> Result<(), E>,
    ) -> Result<Result<Registered<'_>, ChannelError>, E> {
        let mut guard = match self.lock() {
            Ok(guard) => guard,
            Err(error) => return Ok(Err(error.into())),
        };
        let Some(state) = guard.as_mut() else { return Ok(Err(ChannelError::Closed)) };
        let passed = state.pass_all(&self.scanned).map_err(ChannelError::from);
        let chosen = passed.and_then(|()| choose(&|txid| state.waiters.has_call(txid)));
        let registered = chosen.map(|txid| {
            let (id, interrupts) = state.waiters.add_call(txid);
            crash_point!("call.registered");
            let sent = send(txid);
            crash_point!("call.sent");
            if sent.is_err() {
                state.waiters.remove(id);
            }
            state.show_calls();
            sent.map(|()| (id, interrupts))
        });
        woken.extend(guard.unlock());
        match registered {
            Ok(sent) => sent.map(|(id, interrupts)| Ok(Registered { inbox: self, id, interrupts })),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Waits until `poll` gives something, the peer is gone, or `deadline` has passed; if the end was closed, what
    /// `left` gives. Takes the waiter `id` away in any case.
    fn wait<'a, T>(
        &'a self,
        mut guard: Locked<'a>,
        (id, interrupts): (WaiterId, &Interrupts),
        deadline: Deadline,
        mut poll: impl FnMut(&mut State) -> Result<Option<T>, ChannelError>,
        left: impl FnOnce(&mut Locked<'_>) -> Result<T, ChannelError>,
    ) -> Result<T, ChannelError> {
        /// None wakes a leader: see [`State::wake_all`].
        static NONE: Interrupts = Interrupts::none();

        let mut has_looked = false;
        loop {
            interrupts.take(); // before the looks: what comes after them interrupts again
            let Some(state) = guard.as_mut() else { return left(&mut guard) };
            state.waiters.begin_look(id);
            let polled = state.poll(id, &self.scanned, &mut poll);
            let is_found = !matches!(polled, Ok(None));
            self.tell_bell(state);
            let leads = !is_found && state.pollers.is_none() && state.waiters.lead(id);
            if leads && let Some(spin) = state.spin.take() {
                lock(&self.lead).bell.spin = spin; // of no other thread: this one leads
            }
            if leads && !std::mem::replace(&mut has_looked, true) {
                let mut lead = lock(&self.lead);
                let Lead { end, bell, .. } = &mut *lead;
                if let (Some(end), 1..) = (end, bell.spin.first_looks()) {
                    let known = state.peer.asked();
                    state.waiters.begin_sleep(id);
                    drop(guard);
                    bell.look_first(end, &mut Cursor(&self.scanned), known);
                    drop(lead);
                    guard = self.lock()?;
                    continue;
                }
            }
            if is_found || deadline.has_passed() {
                state.waiters.remove(id);
                let are_more = self.scanned.load(Relaxed) != state.consumer.head();
                if are_more && !left_out!("the wake of the next reader") {
                    state.waiters.wake_reader();
                }
                state.show_calls();
                return polled.and_then(|found| found.ok_or(ChannelError::TimedOut));
            }
            state.waiters.begin_sleep(id);
            if leads {
                state.consumer.notify_pending(&state.end.ring, &state.wakes);
                let known = state.peer.asked();
                drop(guard);
                let Lead { end, bell, wakes } = &mut *self.lead();
                let (until, mut cursor) =
                    (Until { deadline, interrupts: &NONE }, Cursor(&self.scanned));
                // What is wrong is found by the next look.
                let _ = end.as_ref().map(|end| bell.wait(end, &mut cursor, wakes, known, until));
            } else {
                drop(guard);
                interrupts.sleep_alone(Moment::within(deadline, SLEEP_MAX));
            }
            guard = self.lock()?;
        }
    }

    /// Ends all waits and gives up the end.
    pub(super) fn close(&self) {
        let Ok(mut guard) = self.lock() else { return };
        let Some(mut state) = guard.take() else { return };
        drop(guard);
        state.wake_all();
        self.lead().end = None; // the leader has left the ring
        if let Some(pollers) = &state.pollers {
            pollers.descriptor.set();
        }
        let woken = Woken(state.waiters.take_woken());
        drop(state);
        drop(woken);
    }

    /// A copy of the socket to the other end, once that has come, if this is the end that is come to.
    pub(super) fn peers_socket(&self) -> Result<Option<Descriptor>, Error> {
        let guard = self.lock()?;
        let Some(State { end, intake: Some(intake), .. }) = guard.as_ref() else { return Ok(None) };
        intake.peers_socket(end)
    }

    /// Receives over `socket`, too, which leads to the other end.
    pub(super) fn add_socket(&self, socket: Descriptor) {
        if let Ok(guard) = self.lock()
            && let Some(State { end, intake: Some(intake), .. }) = guard.as_ref()
        {
            intake.add_given(end, socket);
        }
    }

    /// Gives the end up without closing it, with what its next owner needs for handles. Threads that wait have been
    /// told to leave it; the tasks are for the caller to wake, who holds a lock.
    ///
    /// # Errors
    /// [`ChannelError::Closed`]; if that cannot be had, and then nothing happened.
    pub(super) fn give_up(&self) -> Result<GivenUp, ChannelError> {
        let mut guard = self.lock()?;
        let state = guard.as_mut().ok_or(ChannelError::Closed)?;
        state.end.check_usable()?;
        let (ring, region) = (state.end.index, state.end.slot.region());
        if let Some(intake) = &state.intake {
            intake.peers_socket(&state.end)?; // if it has come and was not needed yet
        }
        let sockets = state.intake.as_ref().map(Intake::sockets_to_pass_on).transpose();
        let sockets = sockets.map_err(|error| {
            ChannelError::from(region.io_error("copy the sockets of", error.into()))
        })?;
        let sockets = sockets.filter(|sockets| !sockets.is_empty()).ok_or_else(|| {
            let reason =
                "the other end has not come yet, or is closed; release this one when it has";
            ChannelError::from(Error::HandlesNotCarried { ring, reason })
        })?;
        crash_point!("release.after-sockets");
        state.consumer.notify_pending(&state.end.ring, &state.wakes);
        let Some(mut state) = guard.take() else { return Err(ChannelError::Closed) };
        drop(guard);
        state.wake_all();
        self.lead().end = None; // the leader has left the ring
        if let Some(pollers) = &state.pollers {
            pollers.descriptor.set();
        }
        if let Some(intake) = state.intake.take() {
            intake.close_door(); // and nothing else: it goes on elsewhere
        }
        crash_point!("release.gave-inbox-up");
        Ok(GivenUp { sockets, woken: state.waiters.take_woken(), end: state.end.clone() })
    }

    /// Tells the bell of messages that were taken, now and then: senders may go on without fences after many.
    fn tell_bell(&self, state: &mut State) {
        if state.untold >= BELL_EVERY
            && let Ok(mut lead) = self.lead.try_lock()
        {
            lead.bell.note_turn(&state.end);
            state.untold = 0;
        }
    }

    /// The state, locked.
    ///
    /// # Errors
    /// [`Error::ForkedChild`].
    fn lock(&self) -> Result<Locked<'_>, Error> {
        if !self.owner.is_here() {
            return Err(Error::ForkedChild);
        }
        test_lock!("inbox.lock", &self.state);
        Ok(Locked { guard: lock(&self.state), woken: None })
    }

    /// What the leader needs, once no other thread has it.
    fn lead(&self) -> MutexGuard<'_, Lead> {
        test_lock!("inbox.lead", &self.lead);
        lock(&self.lead)
    }

    /// Forgets it in a forked child, if a thread of the parent has been changing it: it is not dropped then.
    pub(super) fn forget_if_locked(self: &Arc<Self>) {
        let is_locked = matches!(self.state.try_lock(), Err(TryLockError::WouldBlock));
        if is_locked {
            std::mem::forget(self.clone());
        }
    }

    /// Lets tasks and pollers wait from now on, and returns what is readable while there may be something to read.
    ///
    /// # Errors
    /// [`ChannelError::Closed`]; if the process can have no more descriptors or threads.
    pub(super) fn stand_by(self: &Arc<Self>) -> Result<Arc<EventFd>, ChannelError> {
        let mut guard = self.lock()?;
        let state = guard.as_mut().ok_or(ChannelError::Closed)?;
        state.end.check_usable()?;
        if let Some(pollers) = &state.pollers {
            return Ok(pollers.descriptor.clone());
        }
        let descriptor = EventFd::readable().map_err(|error| {
            state.end.slot.region().io_error("make a descriptor for", error.into())
        })?;
        let descriptor = Arc::new(descriptor);
        let (standby, is_readable) = (Standby::new(&state.end)?, true);
        state.pollers = Some(Pollers { standby, descriptor: descriptor.clone(), is_readable });
        state.wake_all();
        drop(guard);
        drop(self.lead()); // the leader has left the ring
        self.drive();
        Ok(descriptor)
    }

    /// Looks at what has come, tells those that it belongs to, and arms for what comes next. For the thread that
    /// sleeps in the place of a leader.
    fn drive(self: &Arc<Self>) {
        for _ in 0..DRIVES_MAX {
            let Ok(mut guard) = self.lock() else { return };
            let Some(state) = guard.as_mut() else { return };
            if !matches!(state.look_for_all(&self.scanned), Ok(false)) {
                state.tell_readable();
                state.wake_all(); // each finds out why
                return;
            }
            let Some(Pollers { standby, .. }) = &state.pollers else { return };
            let Lead { bell, .. } = &mut *self.lead();
            let (end, known) = (&state.end, state.peer.asked());
            bell.note_time_out(); // if the last arming stood for so long
            let armed = bell.arm(end, &mut Cursor(&self.scanned));
            let armed = armed.ok().flatten().filter(|_| end.may_sleep(known));
            let stands = bell.stand(end, &standby.bridge, armed, known);
            if stands && standby.bridge.wait(&Waker::from(self.clone())) {
                return;
            }
        }
        self.drive_later();
    }

    /// Has [`Self::drive`] called again, after others for which the same thread sleeps.
    fn drive_later(self: &Arc<Self>) {
        let Ok(mut guard) = self.lock() else { return };
        let Some(state) = guard.as_mut() else { return };
        let Some(Pollers { standby, .. }) = &state.pollers else { return };
        let (due, peer_exits) = (Some(Instant::now()), None);
        let standing = Standing { arming: Arming::Time, due, peer_exits };
        let (ring, word) = (&state.end.ring, state.end.rx_wake());
        // It is due at once: the thread may be faster than this one.
        if !standby.bridge.stand_for(ring, word, standing, Waker::from(self.clone())) {
            state.tell_readable(); // the ring is damaged
            state.wake_all();
        }
    }

    /// Whether the next read would not say that there is nothing, but for a closing that was named before.
    pub(super) fn is_ready(&self) -> bool {
        let Ok(mut guard) = self.lock() else { return true };
        let Some(state) = guard.as_mut() else { return true };
        match state.first(&self.scanned) {
            Ok(None) => match state.none_left(&self.scanned) {
                Ok(ChannelError::ShouldWait) => false,
                Ok(ChannelError::PeerClosed) => state.peer.is_to_be_named(),
                _ => true,
            },
            _ => true,
        }
    }

    /// Notes that `wait_any` has named it. If that was not for a message, its closing has been told.
    pub(super) fn note_named(&self) {
        if let Ok(mut guard) = self.lock()
            && let Some(state) = guard.as_mut()
            && matches!(state.first(&self.scanned), Ok(None))
        {
            state.peer.note_named();
        }
    }

    /// Arms and looks once more, for a thread that alone uses the end. Gives what to sleep on and for how long at
    /// most, or `None` if it is not to sleep. [`Self::disarm`] afterwards, either way.
    pub(super) fn arm(&self) -> Option<(Sleeping, Duration)> {
        let mut guard = self.lock().ok()?;
        let state = guard.as_mut()?;
        if let Some(Pollers { standby, is_readable, .. }) = &state.pollers {
            let seen = standby.bridge.ends();
            return (!is_readable).then(|| (standby.bridge.sleeping(seen), SLEEP_MAX));
        }
        state.consumer.notify_pending(&state.end.ring, &state.wakes);
        let (end, known) = (&state.end, state.peer.asked());
        let armed = self.lead().bell.arm(end, &mut Cursor(&self.scanned));
        let Sleep { word, limit } = armed.ok()?.filter(|_| end.may_sleep(known))?;
        Some((Sleeping::on(end.rx_wake(), word), limit))
    }

    /// Ends an arming by [`Self::arm`]; `timed_out` if time alone has ended the sleep.
    pub(super) fn disarm(&self, timed_out: bool) {
        if let Ok(guard) = self.lock()
            && let Some(state) = guard.as_ref()
            && state.pollers.is_none()
        {
            let Lead { bell, .. } = &mut *self.lead();
            if timed_out {
                bell.note_time_out();
            }
            bell.disarm(&state.end);
        }
    }

    /// What the peer stored when it closed, if it has.
    pub(super) fn with_end<T>(&self, look: impl FnOnce(&Attached) -> T) -> Option<T> {
        let end = self.lock().ok()?.as_ref().map(|state| state.end.clone())?;
        Some(look(&end))
    }

    /// Whether the peer has gone, and nothing is left to read.
    pub(super) fn is_drained(&self) -> Result<bool, ChannelError> {
        let mut guard = self.lock()?;
        let state = guard.as_mut().ok_or(ChannelError::Closed)?;
        if state.first(&self.scanned)?.is_some() {
            return Ok(false);
        }
        match state.none_left(&self.scanned) {
            Ok(ChannelError::PeerClosed) => Ok(true),
            other => other.map(|_| false),
        }
    }

    /// Sets how long the leader spins at most; the next one, if a thread leads now.
    pub(super) fn set_spin(&self, spin: Spin) {
        if let Ok(mut guard) = self.lock()
            && let Some(state) = guard.as_mut()
        {
            state.spin = Some(spin);
        }
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
        let mut this = std::mem::ManuallyDrop::new(self); // `wait` takes it away
        let interrupts = std::mem::take(&mut this.interrupts);
        let guard = this.inbox.lock()?;
        let take = |state: &mut State| this.take_reply(state);
        this.inbox.wait(guard, (this.id, &interrupts), deadline, take, |it| this.take_left(it))
    }

    /// The reply, if it has come.
    fn take_reply(&self, state: &mut State) -> Result<Option<MessagePacket>, ChannelError> {
        state.waiters.take_reply(self.id).transpose().map_err(ChannelError::from)
    }

    /// What to say if the end was closed: the reply, if it had come.
    fn take_left(&self, guard: &mut Locked<'_>) -> Result<MessagePacket, ChannelError> {
        guard.take_left(self.id).map_or(Err(ChannelError::Canceled), |reply| Ok(reply?))
    }
    /// The reply, if it has come; if not, has `waker` woken when it does.
    ///
    /// # Errors
    /// [`ChannelError::PeerClosed`], [`ChannelError::Canceled`].
    pub(super) fn poll(&self, waker: &Waker) -> Poll<Result<MessagePacket, ChannelError>> {
        let mut guard = match self.inbox.lock() {
            Ok(guard) => guard,
            Err(error) => return Poll::Ready(Err(error.into())),
        };
        let Some(state) = guard.as_mut() else { return Poll::Ready(self.take_left(&mut guard)) };
        state.waiters.set_task(self.id, waker);
        let mut take = |state: &mut State| self.take_reply(state);
        let polled = state.poll(self.id, &self.inbox.scanned, &mut take);
        polled.transpose().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let Ok(mut guard) = self.inbox.lock() else { return };
        let reply = match guard.as_mut() {
            Some(state) => {
                let reply = state.waiters.remove(self.id);
                state.show_calls();
                reply
            }
            None => guard.take_left(self.id),
        };
        drop(guard);
        drop(reply); // closes handles: without the lock
    }
}

impl State {
    /// The first message that is no reply to a call.
    fn first(&mut self, scanned: &AtomicU64) -> Result<Option<Front>, Error> {
        self.end.check_usable()?;
        loop {
            if self.waiters.has_calls() {
                self.look(scanned)?;
                test_point!("inbox.looked");
            }
            let front = self.front()?;
            self.keep_up(scanned);
            // What has come since the look may be a reply.
            let is_passed = scanned.load(Relaxed) != self.consumer.head();
            if front.is_none() || is_passed || !self.waiters.has_calls() {
                return Ok(front);
            }
        }
    }

    fn front(&mut self) -> Result<Option<Front>, Error> {
        let Self { end, consumer, wakes, .. } = self;
        match consumer.front(&end.ring, wakes) {
            Ok(front) => {
                if front.is_some() {
                    // Of most messages the rest lies on the next line; it comes while a buffer is made.
                    end.ring.memory.prefetch(consumer.head().wrapping_add(64));
                }
                end.settle_now_and_then(wakes);
                Ok(front)
            }
            Err(damage) => Err(end.damaged_at(damage, consumer.head())),
        }
    }

    /// Moves `scanned` on to the head, if that has passed it.
    fn keep_up(&mut self, scanned: &AtomicU64) {
        let head = self.consumer.head();
        let behind = head.wrapping_sub(scanned.load(Relaxed)) as i64;
        if behind < 0 {
            return;
        }
        scanned.store(head, Release);
        if behind > 0 {
            self.close_passed_handles();
        }
        // The leader may have armed since the record there was freed, and looked where nothing lies any more.
        if behind > 0
            && self.waiters.has_leader()
            && poll(&self.end.ring, head) == Polled::Something
        {
            self.waiters.call_leader();
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
        self.untold = self.untold.saturating_add(1);
        let Self { end, consumer, wakes, intake, .. } = self;
        let start = consumer.head().wrapping_add(front.payload_offset());
        let taken = take(RecordRef::new(end, consumer, wakes, intake, (start, front), borrowed));
        self.close_passed_handles();
        self.keep_up(scanned);
        let _ = self.free_withdrawn(scanned); // what is wrong is found by the next look
        taken
    }

    /// Looks at all that has come. Gives whether the peer has gone.
    fn look_for_all(&mut self, scanned: &AtomicU64) -> Result<bool, Error> {
        self.end.check_usable()?;
        self.look(scanned)?;
        let is_gone = self.peer.is_disconnected(&self.end)?;
        if is_gone {
            self.look(scanned)?; // what it sent before it went
        }
        self.end.check_whole()?;
        Ok(is_gone)
    }

    /// What to say of an empty queue. A message that the peer had sent before it went comes first: then there is
    /// nothing to say yet.
    fn none_left(&mut self, scanned: &AtomicU64) -> Result<ChannelError, ChannelError> {
        let is_gone = self.peer.is_disconnected(&self.end)?;
        if is_gone && self.first(scanned)?.is_none() {
            self.end.check_whole()?;
            self.clear();
            return Ok(ChannelError::PeerClosed);
        }
        self.end.check_whole()?; // bytes that are missing look like an empty ring
        Ok(ChannelError::ShouldWait)
    }

    /// What `poll` finds for the waiter `id`, after a look at what has come. A reply that it has is given whatever is
    /// wrong with the end.
    fn poll<T>(
        &mut self,
        id: WaiterId,
        scanned: &AtomicU64,
        poll: &mut impl FnMut(&mut Self) -> Result<Option<T>, ChannelError>,
    ) -> Result<Option<T>, ChannelError> {
        if self.waiters.has_reply(id) {
            return poll(self);
        }
        match self.look_and_poll(scanned, poll) {
            Err(_) if self.waiters.has_reply(id) => poll(self),
            polled => polled,
        }
    }

    fn look_and_poll<T>(
        &mut self,
        scanned: &AtomicU64,
        poll: &mut impl FnMut(&mut Self) -> Result<Option<T>, ChannelError>,
    ) -> Result<Option<T>, ChannelError> {
        self.end.check_usable()?;
        // One reader alone takes what comes as it comes.
        if self.pollers.is_some() || !self.waiters.is_one_reader_alone() {
            self.look(scanned)?;
        }
        if let Some(found) = poll(self)? {
            return Ok(Some(found));
        }
        if self.peer.is_disconnected(&self.end)? {
            self.look(scanned)?; // what it sent before it went comes first
            if let Some(found) = poll(self)? {
                return Ok(Some(found));
            }
            self.end.check_whole()?;
            if self.first(scanned)?.is_none() {
                self.clear();
            }
            if !std::mem::replace(&mut self.is_end_told, true) {
                self.wake_all(); // each finds the same, and those that come later find it by themselves
            }
            return Err(ChannelError::PeerClosed);
        }
        self.end.check_whole()?;
        Ok(None)
    }

    /// Closes the handles that the peer, which has gone, had handed over for messages that it never published. For an
    /// empty queue.
    fn clear(&mut self) {
        if !std::mem::replace(&mut self.is_cleared, true)
            && let Some(intake) = &self.intake
        {
            intake.clear();
        }
    }

    /// Wakes all that wait, also a leader, which sleeps on the ring's doorbell alone.
    fn wake_all(&mut self) {
        self.waiters.wake_all();
        if self.waiters.has_leader() {
            self.end.wake_own();
        }
    }

    /// Looks at each record that was not looked at yet: a reply goes to its call, all else is passed.
    fn look(&mut self, scanned: &AtomicU64) -> Result<(), Error> {
        self.keep_up(scanned);
        for _ in 0..LOOK_MAX {
            let position = scanned.load(Relaxed);
            let found = self.consumer.look_at(&self.end.ring, position);
            let found = found.map_err(|damage| self.end.damaged_at(damage, position))?;
            let Some((front, record)) = found else { break };
            let stays = match self.call_of(position, front, &record) {
                Some(txid) => self.deliver(position, (front, record), txid) == Withdrawn::Stays,
                None => !record.kind.is_skipped(),
            };
            if stays {
                self.waiters.wake_reader();
                self.tell_readable();
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
            self.close_passed_handles();
            self.keep_up(scanned);
        }
        Ok(())
    }

    /// Closes the handles that were kept of records before the head: those were taken without them, or never came to
    /// be.
    fn close_passed_handles(&mut self) {
        if self.keeps_handles
            && let Some(intake) = &self.intake
        {
            self.keeps_handles = intake.close_kept_before(self.consumer.head());
        }
    }

    /// Tells tasks and pollers that there may be something to read.
    fn tell_readable(&mut self) {
        if let Some(pollers) = &mut self.pollers
            && !std::mem::replace(&mut pollers.is_readable, true)
        {
            pollers.descriptor.set();
            self.waiters.wake_reading_task();
        }
    }

    /// Looks at all that is there.
    fn pass_all(&mut self, scanned: &AtomicU64) -> Result<(), Error> {
        self.end.check_usable()?;
        let position = self.consumer.head();
        if scanned.load(Relaxed) == position && poll(&self.end.ring, position) == Polled::Nothing {
            return Ok(()); // mostly
        }
        let most = self.end.ring.rules.capacity / u64::from(LOOK_MAX) + 1; // a record has 8 bytes or more
        for _ in 0..most {
            let before = scanned.load(Relaxed);
            self.look(scanned)?;
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
        let first = Consumer::first_word_at(&self.end.ring, position, front);
        let txid = first.first_chunk().copied().map_or(0, u32::from_ne_bytes);
        self.waiters.has_call(txid).then_some(txid)
    }

    /// Takes the record at `position` for the call with `txid`.
    fn deliver(&mut self, position: u64, (front, record): (Front, Record), txid: u32) -> Withdrawn {
        let mut withdrawn = Withdrawn::Gone;
        let reply = self.withdraw(position, (front, record), &mut withdrawn);
        crash_point!("reply.before-delivery");
        self.waiters.deliver(txid, reply);
        withdrawn
    }

    /// Takes a record out of its turn. If its handles cannot be had now, it stays as a message like any other.
    fn withdraw(
        &mut self,
        position: u64,
        (front, record): (Front, Record),
        withdrawn: &mut Withdrawn,
    ) -> Reply {
        self.untold = self.untold.saturating_add(1);
        let Self { end, consumer, intake, wakes, .. } = self;
        let mut data = buffer(front.payload_len());
        Consumer::copy_out_at(&end.ring, position, front, &mut data);
        end.check_whole()?;
        let (ring, count) = (end.index, front.handle_count());
        let (Some(intake), 1..) = (intake, count) else {
            if position == consumer.head() {
                consumer.free(&end.ring, front, wakes); // it is its turn
                end.settle_now_and_then(wakes);
            } else {
                consumer.withdraw(&end.ring, position, (front, record));
            }
            return Ok(MessagePacket::from(data));
        };
        let ext = consumer.at(position).ext(&end.ring);
        let wanted = Wanted { ring, ext, position, count };
        let fetched = intake.fetch_out_of_turn(&wanted, consumer.head());
        self.keeps_handles = true; // perhaps
        let fetched = match fetched {
            Err(error @ Error::TooManyFiles { .. }) => {
                *withdrawn = Withdrawn::Stays;
                return Err(error);
            }
            fetched => fetched,
        };
        crash_point!("reply.before-take");
        consumer.withdraw(&end.ring, position, (front, record));
        crash_point!("reply.withdrawn");
        intake.take(&wanted);
        crash_point!("reply.after-take");
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
        self.pollers = None; // before the endpoint is another's
        self.end.settle(&self.wakes);
        // In a forked child, or after the endpoint was lost or passed on, the sockets are another process's.
        let slot = &self.end.slot;
        let is_ours =
            self.end.ring.memory.is_ours() && !slot.is_passed_on() && slot.check_kept().is_ok();
        if let (Some(intake), true) = (&mut self.intake, is_ours) {
            intake.close();
        }
    }
}

/// For the thread that sleeps in the place of a leader.
impl Wake for Inbox {
    fn wake(self: Arc<Self>) {
        self.drive();
    }
}

/// What is ready while there may be something to read at an inbox.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) inbox: Arc<Inbox>,
    pub(super) descriptor: Arc<EventFd>,
}

impl Ready for Reading {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    fn when_ready(self: Arc<Self>, waker: &Waker) -> bool {
        let Ok(mut guard) = self.inbox.lock() else { return false };
        let Some(state) = guard.as_mut() else { return false };
        let is_readable = state.pollers.as_ref().is_none_or(|pollers| pollers.is_readable);
        if !is_readable {
            state.waiters.set_reading_task(waker);
        }
        !is_readable
    }
}

/// The state, locked. Tasks that were to be woken are, once it is not any more.
struct Locked<'a> {
    guard: MutexGuard<'a, Inside>,
    /// Dropped behind the guard; mostly there are none.
    woken: Option<Woken>,
}

impl Deref for Locked<'_> {
    type Target = Option<State>;

    fn deref(&self) -> &Option<State> {
        &self.guard.open
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Option<State> {
        &mut self.guard.open
    }
}

impl Locked<'_> {
    /// Takes the state for good. Replies that have come stay for their calls.
    fn take(&mut self) -> Option<State> {
        let mut state = self.guard.open.take()?;
        self.guard.left = state.waiters.take_replies();
        Some(state)
    }

    /// The reply to the call `id` that had come before the end was closed.
    fn take_left(&mut self, id: WaiterId) -> Option<Reply> {
        let index = self.guard.left.iter().position(|(of, _)| *of == id)?;
        Some(self.guard.left.swap_remove(index).1)
    }

    /// Unlocks it, and gives the tasks that were to be woken: for a caller that holds another lock.
    fn unlock(mut self) -> Vec<Waker> {
        self.as_mut().map(|state| state.waiters.take_woken()).unwrap_or_default()
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        let Some(state) = self.guard.open.as_mut() else { return };
        if state.waiters.take_call_of_leader() {
            state.end.wake_own();
        }
        if state.waiters.has_woken() {
            self.woken = Some(Woken(state.waiters.take_woken()));
        }
    }
}

/// Tasks that are woken when it is dropped.
struct Woken(Vec<Waker>);

impl Drop for Woken {
    fn drop(&mut self) {
        self.0.drain(..).for_each(|waker| wake(Some(waker)));
    }
}

/// Where the leader polls: other threads take messages meanwhile, and move it on.
struct Cursor<'a>(&'a AtomicU64);

impl Incoming for Cursor<'_> {
    fn has_come(&mut self, end: &Attached, _: bool) -> bool {
        self.is_there(end)
    }

    fn poll_armed(&mut self, end: &Attached) -> Polled {
        if left_out!("the look behind the arming") {
            return Polled::Nothing;
        }
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

/// All orders of the steps of the threads that wait at an end.
#[cfg(test)]
#[path = "../../tests/inbox/mod.rs"]
mod search;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::mpsc;
    use std::thread;

    use rustix::event::{PollFd, PollFlags, Timespec};

    use super::super::outbox::Outbox;
    use super::*;
    use crate::Channel;
    use crate::crash::visits;
    use crate::error::Damage;
    use crate::os::staged;
    use crate::ring::{Memory, Word};

    const LONG: Duration = Duration::from_secs(20);

    /// A call whose request was answered, before `then`, or then.
    fn call(is_looked_for: bool, then: impl FnOnce(&Channel)) -> Result<Vec<u8>, ChannelError> {
        let (client, server) = Channel::create().unwrap();
        let mut request = MessagePacket::from(b"\0\0\0\0");
        let sent = client.send_request(&mut request, Deadline::PAST, |_| Ok(7));
        let registered = sent.unwrap().unwrap();
        server.write(server.read().unwrap()).unwrap();
        if is_looked_for {
            assert!(matches!(client.read(), Err(ChannelError::ShouldWait))); // this delivers the reply
        }
        then(&client);
        Ok(registered.wait(LONG.into())?.data)
    }

    fn poison(client: &Channel) {
        client.inbox.with_end(|end| end.ring.poison(Damage::Marked { code: 1 }));
    }

    #[test]
    fn a_call_gets_a_reply_that_had_come_before_its_end_was_closed_released_or_damaged() {
        let ends: [fn(&Channel); 3] =
            [Channel::close, |client| drop(client.release().unwrap()), poison];
        for end in ends {
            assert_eq!(call(true, end).unwrap(), 7u32.to_ne_bytes());
            assert!(call(false, end).is_err(), "nothing had looked");
        }
    }

    #[test]
    fn it_does_if_the_same_look_finds_damage_behind_it() {
        let found = call(false, |client| {
            client.inbox.with_end(|end| {
                let tail = end.ring.memory.load(Word::Tail, Relaxed);
                end.ring.memory.store(Word::Data(tail), u64::MAX, Release);
            });
        });
        assert_eq!(found.unwrap(), 7u32.to_ne_bytes());
    }

    #[test]
    fn handles_of_a_reply_that_nothing_takes_are_closed_with_its_call() {
        let (client, server) = Channel::create().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut request = MessagePacket::from(b"\0\0\0\0");
        let sent = client.send_request(&mut request, Deadline::PAST, |_| Ok(7));
        let registered = sent.unwrap().unwrap();
        let reply = server.read().unwrap();
        server.write(reply.handle(writer)).unwrap();
        assert!(matches!(client.read(), Err(ChannelError::ShouldWait)));
        client.close();
        drop(registered);
        assert_eq!(std::io::Read::read(&mut reader, &mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_reply_that_comes_behind_the_look_of_a_reader_is_no_message() {
        let (client, server) = Channel::create().unwrap();
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| client.call(b"\0\0\0\0", LONG));
            let request = server.read_timeout(LONG).unwrap();
            let (reply, expected) = (request.data.clone(), request.data);
            let visit = visits::at("inbox.looked", move || server.write(reply).unwrap());
            let read = client.read();
            assert!(matches!(read, Err(ChannelError::PeerClosed)), "{read:?}"); // with its reply written
            drop(visit);
            assert_eq!(caller.join().unwrap().unwrap().data, expected);
        });
    }

    /// Has a thread do `busy` with a lock of the end, as long as it is told to stay there, and a child be forked
    /// meanwhile, which closes and drops the end.
    fn fork_while(busy: impl FnOnce(&Inbox, &Outbox, &dyn Fn()) + Send) {
        let (near, far) = Channel::create().unwrap();
        far.write(b"a message").unwrap();
        let (inbox, outbox) = (near.inbox.clone(), near.outbox.clone());
        let mut near = Some(near);
        let ((held, is_held), (go_on, gone_on)) = (mpsc::channel(), mpsc::channel::<()>());
        thread::scope(|scope| {
            scope.spawn(move || {
                busy(&inbox, &outbox, &|| {
                    held.send(()).unwrap();
                    gone_on.recv().unwrap();
                });
            });
            is_held.recv().unwrap();
            let is_let_go = staged::in_child(|| {
                let near = near.take().unwrap();
                let is_told = |error: &ChannelError| matches!(error, ChannelError::Failed { source } if matches!(**source, Error::ForkedChild));
                let told = [
                    near.read().map(drop),
                    near.write(b"from the child"),
                    near.call(b"\0\0\0\0", LONG).map(drop).map_err(|it| it.error),
                    near.release().map(drop),
                    near.readable().map(drop),
                    near.writable().map(drop),
                    near.close_reason().map(drop),
                ];
                near.set_spin_max(Duration::ZERO);
                near.close();
                drop(near);
                told.iter().all(|told| told.as_ref().is_err_and(is_told))
            });
            go_on.send(()).unwrap();
            assert!(is_let_go);
        });
        let near = near.unwrap();
        near.write(b"open").unwrap();
        assert_eq!(far.read().unwrap().data, b"open");
        assert!(matches!(far.read(), Err(ChannelError::ShouldWait)));
        assert_eq!(near.read().unwrap().data, b"a message");
    }

    #[test]
    fn a_forked_child_lets_go_of_an_end_whatever_the_threads_of_its_parent_are_doing() {
        fork_while(|inbox, _, stay| {
            let kept = inbox.read(|message| {
                stay();
                message.keep();
                Ok::<_, ChannelError>(())
            });
            kept.unwrap();
        });
        fork_while(|_, outbox, stay| {
            let sent = outbox.send(Deadline::PAST, |_| {
                stay();
                Ok(())
            });
            sent.unwrap();
        });
        fork_while(|inbox, _, stay| {
            let lead = lock(&inbox.lead);
            stay();
            drop(lead);
        });
        fork_while(|_, _, stay| stay());
    }

    /// Waits until `event` is seen at `fd`.
    fn comes(fd: impl AsFd, event: PollFlags) -> bool {
        let mut polled = [PollFd::new(&fd, event)];
        let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
        rustix::event::poll(&mut polled, Some(&limit)).unwrap() == 1
    }

    #[test]
    fn what_drives_an_inbox_later_does_so_also_if_that_is_due_at_once() {
        let (near, far) = Channel::create().unwrap();
        let inbox = near.inbox.clone();
        let mut guard = inbox.lock().unwrap();
        let state = guard.as_mut().unwrap();
        let standby = Standby::new(&state.end).unwrap();
        let descriptor = Arc::new(EventFd::readable().unwrap());
        descriptor.clear();
        let bridge = standby.bridge.clone();
        state.pollers =
            Some(Pollers { standby, descriptor: descriptor.clone(), is_readable: false });
        drop(guard);
        let visit = visits::at("bridge.stood", move || {
            // The arming is due, so the thread ends it.
            while bridge.ends() == 0 {
                thread::yield_now();
            }
        });
        inbox.drive_later();
        drop(visit);
        far.write(b"a message").unwrap();
        assert!(comes(&*descriptor, PollFlags::IN));
    }

    /// Its sender died between the packet and the record; the next owner of the end published another there.
    #[test]
    fn handles_that_were_kept_for_a_record_that_never_came_are_closed_when_the_ring_has_passed_it()
    {
        let (client, server) = Channel::create().unwrap();
        let mut request = MessagePacket::from(b"\0\0\0\0");
        let sent = client.send_request(&mut request, Deadline::PAST, |_| Ok(7));
        let registered = sent.unwrap().unwrap();
        let reply = server.read().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let orphan = MessagePacket::from(b"never published").handle(writer);
        let visit = visits::at("carry.after-hand-over", || panic!("its process is killed"));
        assert!(catch_unwind(AssertUnwindSafe(|| server.write(orphan))).is_err());
        drop(visit);
        let server = Channel::from_handle(server.release().unwrap()).unwrap();
        server.write(b"a message").unwrap();
        server.write(reply.handle(File::open("/").unwrap())).unwrap();
        assert_eq!(registered.wait(LONG.into()).unwrap().handles.len(), 1);
        assert!(
            !rustix::event::poll(
                &mut [PollFd::new(&reader, PollFlags::IN)],
                Some(&Timespec { tv_sec: 0, tv_nsec: 0 })
            )
            .is_ok_and(|count| count > 0),
            "kept"
        );
        assert_eq!(client.read().unwrap().data, b"a message");
        assert!(comes(&reader, PollFlags::IN), "its other end is open still");
    }
}
