//! The receiving half of a channel's end: which thread gets which message, and who sleeps for all.
//!
//! ```text
//!          head                 scanned                 tail
//!           v                      v                     v
//!   ..freed..|msg|(taken)|msg|msg..|  not looked at yet  |0
//!             `read` takes these     a waiting call looks here for its reply
//! ```
//!
//! What is looked at, and where it goes: `looking`. A call that waits: `registered`. A reply goes to its call out of
//! turn; all else stays in the ring, in its order, for `read`. So what calls pass is kept without a copy, bounded by the
//! ring, and still in the region if the end goes to another process.
//!
//! One of the threads that wait *leads*: it alone sleeps on the ring's doorbell. The others sleep each on a word of
//! its own. The leader looks at what has come, wakes the one that it belongs to, and wakes a successor when it
//! leaves. Once a task or a poller waits at the end, no thread leads: see `readable`.

use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use super::channel_error::ChannelError;
use super::looking::{Message, State};
use super::space::Space;
use super::waiters::{Leaving, Reply, WaiterId};
use crate::carrier::Intake;
use crate::crash::{crash_point, left_out, test_lock};
use crate::deadline::Deadline;
use crate::endpoint::{Attached, Interrupts, Until};
use crate::error::Error;
use crate::mutex::{lock, try_lock};
use crate::os::descriptor::Descriptor;
use crate::os::fork;
use crate::os::futex::Moment;
use crate::ring::doorbell::{Polled, poll};
use crate::ring::{Consumer, Wakes};
use crate::wait::{Bell, Incoming, SLEEP_MAX, SPIN_MAX, Spin};

/// Messages taken before the bell is told of them: a turn of its.
const BELL_EVERY: u32 = 256;

/// The receiving half of an end.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<Inside>,
    /// Held by the leader while it sleeps.
    lead: Mutex<Lead>,
    /// Position up to which records were looked at. Stored under `state`; the leader polls there.
    pub(super) scanned: AtomicU64,
    /// A forked child of this process takes no lock: its threads may have held it.
    owner: fork::Owner,
    /// Whether a call has found that the peer has gone.
    has_peer_gone: Arc<AtomicBool>,
    /// The word of the signals as it was last looked at, under `state`.
    signals_seen: Arc<AtomicU32>,
}

#[derive(Debug)]
struct Inside {
    /// `None` once the end was closed.
    open: Option<State>,
    /// Replies that had come for calls before that, and were not taken yet.
    left: Vec<(WaiterId, Reply)>,
}

/// What the leader needs to sleep.
#[derive(Debug)]
pub(super) struct Lead {
    /// `None` once the end was closed.
    end: Option<Arc<Attached>>,
    pub(super) bell: Bell,
    wakes: Wakes,
}

/// What is left of an inbox that was given up.
pub(super) struct GivenUp {
    pub(super) sockets: Vec<OwnedFd>,
    pub(super) woken: Vec<Waker>,
    pub(super) end: Arc<Attached>,
}

impl Inbox {
    /// Receives at `end`. Handles come over `sockets`, if they came with the end.
    pub(super) fn attach(
        end: Attached,
        sockets: Option<Vec<Descriptor>>,
        space: Arc<Space>,
    ) -> Result<Self, Error> {
        let spin = Spin::new(SPIN_MAX);
        let owner = fork::Owner::current();
        let owner = owner.map_err(|error| end.slot.region().io_error("mark", error))?;
        let consumer = Consumer::attach(&end.ring).map_err(|damage| end.damaged(damage))?;
        let bell = Bell::attach(&end, spin)?;
        let intake = match sockets {
            Some(sockets) => Some(Intake::given(&end, sockets)),
            None => Intake::open(&end)?,
        };
        let scanned = AtomicU64::new(consumer.head());
        let state = State::new(end, consumer, intake, space);
        state.show_calls(); // an earlier owner may have left some
        let (has_peer_gone, signals_seen) = (state.has_peer_gone.clone(), state.signals_seen());
        let lead = Lead { end: Some(state.end.clone()), bell, wakes: Wakes::default() };
        let state = Mutex::new(Inside { open: Some(state), left: Vec::new() });
        Ok(Self { state, lead: Mutex::new(lead), scanned, owner, has_peer_gone, signals_seen })
    }

    /// Whether a call has found that the peer has gone: then writes say so, too, whether or not they were told.
    #[inline]
    pub(super) fn has_peer_gone(&self) -> bool {
        self.has_peer_gone.load(Relaxed)
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
                if let ChannelError::ShouldWait = reason {
                    state.note_empty();
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

    /// Waits until `poll` gives something, the peer is gone, or `deadline` has passed; if the end was closed, what
    /// `left` gives. Takes the waiter `id` away in any case.
    pub(super) fn wait<'a, T>(
        &'a self,
        mut guard: Locked<'a>,
        (id, interrupts): (WaiterId, &Interrupts),
        deadline: Deadline,
        mut poll: impl FnMut(&mut State) -> Result<Option<T>, ChannelError>,
        left: impl FnOnce(&mut Locked<'_>) -> Result<T, ChannelError>,
    ) -> Result<T, ChannelError> {
        let mut has_looked = false;
        loop {
            interrupts.take(); // before the looks: what comes after them interrupts again
            let Some(state) = guard.as_mut() else { return left(&mut guard) };
            state.waiters.begin_look(id);
            let polled = state.poll(id, &self.scanned, &mut poll);
            let is_found = !matches!(polled, Ok(None));
            if !is_found {
                state.look_at_signals();
            }
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
                    let mut cursor = self.cursor(state);
                    drop(guard);
                    bell.look_first(end, &mut cursor, known);
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
                let mut cursor = self.cursor(state);
                drop(guard);
                let Lead { end, bell, wakes } = &mut *self.lead();
                // No interrupt ends its sleep, see `State::wake_all`.
                let until = Until { deadline, interrupts: Interrupts::never() };
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
        let Ok(guard) = self.lock() else { return };
        let Some(mut state) = self.take_out(guard) else { return };
        let leaving = state.waiters.take_leaving();
        drop(state);
        drop(leaving);
    }

    /// Takes the state for good, and has all that wait leave the end.
    fn take_out(&self, mut guard: Locked<'_>) -> Option<State> {
        let mut state = guard.take()?;
        drop(guard);
        state.wake_all();
        self.lead().end = None; // the leader has left the ring
        if let Some(pollers) = &state.pollers {
            pollers.descriptor.set();
        }
        Some(state)
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
        let mut state = self.take_out(guard).ok_or(ChannelError::Closed)?;
        if let Some(intake) = state.intake.take() {
            intake.close_door(); // and nothing else: it goes on elsewhere
        }
        crash_point!("release.gave-inbox-up");
        Ok(GivenUp {
            sockets,
            woken: state.waiters.take_leaving().into_wakers(),
            end: state.end.clone(),
        })
    }

    /// Tells the bell of messages that were taken, now and then: senders may go on without fences after many.
    fn tell_bell(&self, state: &mut State) {
        if state.untold >= BELL_EVERY
            && let Some(mut lead) = try_lock(&self.lead)
        {
            lead.bell.note_turn(&state.end);
            state.untold = 0;
        }
    }

    /// The state, locked.
    ///
    /// # Errors
    /// [`Error::ForkedChild`].
    pub(super) fn lock(&self) -> Result<Locked<'_>, Error> {
        if !self.owner.is_here() {
            return Err(Error::ForkedChild);
        }
        test_lock!("inbox.lock", &self.state);
        Ok(Locked { guard: lock(&self.state), leaving: None })
    }

    /// Where a leader polls.
    pub(super) fn cursor(&self, state: &State) -> Cursor<'_> {
        let Self { scanned, signals_seen, .. } = self;
        Cursor { scanned, signals_seen, spins_for_signals: state.waiters.has_observers() }
    }

    /// What the leader needs, once no other thread has it.
    pub(super) fn lead(&self) -> MutexGuard<'_, Lead> {
        test_lock!("inbox.lead", &self.lead);
        lock(&self.lead)
    }

    /// Forgets it in a forked child, if a thread of the parent has been changing it: it is not dropped then.
    pub(super) fn forget_if_locked(self: &Arc<Self>) {
        if try_lock(&self.state).is_none() {
            std::mem::forget(self.clone());
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

/// The state, locked. Tasks that were to be woken are, once it is not any more.
pub(super) struct Locked<'a> {
    guard: MutexGuard<'a, Inside>,
    /// Dropped behind the guard; mostly there are none.
    leaving: Option<Leaving>,
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
    pub(super) fn take_left(&mut self, id: WaiterId) -> Option<Reply> {
        let index = self.guard.left.iter().position(|(of, _)| *of == id)?;
        Some(self.guard.left.swap_remove(index).1)
    }

    /// Unlocks it, and gives the tasks that were to be woken: for a caller that holds another lock.
    pub(super) fn unlock(mut self) -> Vec<Waker> {
        let leaving = self.as_mut().map(|state| state.waiters.take_leaving());
        leaving.map(Leaving::into_wakers).unwrap_or_default()
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        let Some(state) = self.guard.open.as_mut() else { return };
        if state.waiters.take_call_of_leader() {
            state.end.wake_own();
        }
        if state.waiters.has_leaving() {
            self.leaving = Some(state.waiters.take_leaving());
        }
    }
}

/// Where the leader polls: other threads take messages meanwhile, and move it on.
pub(super) struct Cursor<'a> {
    scanned: &'a AtomicU64,
    /// Behind an arming the signals are compared in any case: a thread may have begun to wait for them since.
    signals_seen: &'a AtomicU32,
    spins_for_signals: bool,
}

impl Cursor<'_> {
    /// Whether the signals have changed since a thread looked at them. Behind an arming: edge `signal`.
    fn have_signals_changed(&self, end: &Attached) -> bool {
        end.signals() != self.signals_seen.load(Acquire)
    }
}

impl Incoming for Cursor<'_> {
    fn has_come(&mut self, end: &Attached, _: bool) -> bool {
        self.is_there(end)
    }

    fn poll_armed(&mut self, end: &Attached) -> Polled {
        if left_out!("the look behind the arming") {
            return Polled::Nothing;
        }
        if self.have_signals_changed(end) && !left_out!("the look at the signals behind the arming")
        {
            return Polled::Something;
        }
        poll(&end.ring, self.head())
    }

    fn is_there(&mut self, end: &Attached) -> bool {
        poll(&end.ring, self.head()) == Polled::Something
            || self.spins_for_signals && self.have_signals_changed(end)
    }

    fn head(&self) -> u64 {
        self.scanned.load(Acquire)
    }
}

/// All orders of the steps of the threads that wait at an end.
#[cfg(test)]
#[path = "../../tests/inbox/mod.rs"]
mod search;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::super::outbox::Outbox;
    use super::*;
    use crate::Channel;
    use crate::os::staged;

    const LONG: Duration = Duration::from_secs(20);

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
}
