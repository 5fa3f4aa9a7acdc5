//! An end of a channel as an object: its id, its name, its signals, and who is called when they change.

use std::sync::{Arc, OnceLock, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;

use super::callbacks::{Callbacks, Ended};
use super::channel_error::ChannelError;
use super::inbox::{Inbox, Locked};
use super::kernel_object::SignalCallback;
use super::looking::State;
use super::object_error::ObjectError;
use super::outbox::Outbox;
use super::signal::Signal;
use super::space::Space;
use crate::crash::test_point;
use crate::endpoint::EndWords;
use crate::handle::KoID;
use crate::region::Region;
use crate::rights::Rights;

/// The type's name.
pub(super) const CHANNEL: &str = "Channel";

/// What is an object of an end. It keeps no end open that was closed.
#[derive(Debug)]
pub(super) struct EndObject {
    pub(super) inbox: Arc<Inbox>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) space: Arc<Space>,
    pub(super) rights: Rights,
    pub(super) region: Arc<Region>,
    pub(super) id: KoID,
    pub(super) peer_id: KoID,
    words: EndWords,
    peer_words: EndWords,
    callbacks: Callbacks,
    /// Runs the callbacks.
    observer: OnceLock<Waker>,
    /// Has all that wait for signals look, as there may be space.
    of_space: OnceLock<Waker>,
}

/// The parts of an end.
pub(super) struct Parts {
    pub(super) inbox: Arc<Inbox>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) space: Arc<Space>,
}

impl EndObject {
    /// Of the end with these parts, with the ids and the receivers' slots of it and of its peer.
    pub(super) fn new(
        region: &Arc<Region>,
        Parts { inbox, outbox, space }: Parts,
        rights: Rights,
        [(id, slot), (peer_id, peer_slot)]: [(KoID, u16); 2],
    ) -> Self {
        let (words, peer_words) = (EndWords::new(region, slot), EndWords::new(region, peer_slot));
        let (callbacks, observer, of_space) = <_>::default();
        let region = region.clone();
        Self {
            inbox,
            outbox,
            space,
            rights,
            region,
            id,
            peer_id,
            words,
            peer_words,
            callbacks,
            observer,
            of_space,
        }
    }

    pub(super) fn require(&self, wanted: Rights) -> Result<(), ObjectError> {
        let (held, missing) = (self.rights, wanted - self.rights);
        if missing.is_empty() { Ok(()) } else { Err(ObjectError::AccessDenied { held, missing }) }
    }

    /// The end, locked and open.
    fn open(&self) -> Result<Locked<'_>, ObjectError> {
        let guard = self.inbox.lock()?;
        match guard.as_ref() {
            Some(state) => state.end.check_usable()?,
            None => return Err(ObjectError::Closed),
        }
        Ok(guard)
    }

    pub(super) fn name(&self) -> String {
        self.name_in(&self.words)
    }

    pub(super) fn peers_name(&self) -> String {
        self.name_in(&self.peer_words)
    }

    fn name_in(&self, words: &EndWords) -> String {
        if self.region.check_ours().is_ok() { words.name() } else { String::new() }
    }

    pub(super) fn set_name(&self, name: &str) -> Result<(), ObjectError> {
        let guard = self.open()?; // one writer at a time, while the slot is this end's
        self.words.set_name(name);
        drop(guard);
        Ok(())
    }

    /// Whether the other end is closed. `true` also if this one is.
    pub(super) fn has_peer_gone(&self) -> bool {
        self.observe().intersects(Signal::PEER_CLOSED | Signal::HANDLE_CLOSED)
    }

    /// All signals. Of an end that is damaged, of which every call tells, that there is something to read: the error.
    pub(super) fn observe(&self) -> Signal {
        self.inbox.observe().unwrap_or_else(|error| match error {
            ChannelError::Closed => Signal::HANDLE_CLOSED,
            _ if self.region.check_ours().is_err() => Signal::HANDLE_CLOSED,
            _ => self.user_signals() | Signal::READABLE,
        })
    }

    fn user_signals(&self) -> Signal {
        Signal::of_slot(self.words.signals())
    }

    /// What can be seen from here of the other end's signals.
    pub(super) fn peers_signals(&self) -> Signal {
        let seen = self.observe();
        if seen.intersects(Signal::HANDLE_CLOSED | Signal::PEER_CLOSED) {
            return Signal::HANDLE_CLOSED;
        }
        let user = Signal::of_slot(self.peer_words.signals());
        let is_readable = self.space.is_unread_there();
        let readable = if is_readable { Signal::READABLE } else { Signal::empty() };
        user | readable | Signal::WRITABLE
    }

    /// Changes the signals of this end.
    pub(super) fn signal_change(&self, clear: Signal, set: Signal) -> Result<(), ObjectError> {
        self.require(Rights::SIGNAL)?;
        check_allowed(clear, set)?;
        let mut guard = self.open()?;
        if self.words.change_signals(clear.bits(), set.bits())
            && let Some(state) = guard.as_mut()
        {
            state.look_at_signals();
        }
        Ok(())
    }

    /// Changes the signals of the other end.
    pub(super) fn signal_peer(&self, clear: Signal, set: Signal) -> Result<(), ObjectError> {
        self.require(Rights::SIGNAL_PEER)?;
        check_allowed(clear, set)?;
        let mut guard = self.open()?;
        let Some(state) = guard.as_mut() else { return Err(ObjectError::Closed) };
        let scanned = &self.inbox.scanned;
        if state.observe(scanned)?.contains(Signal::PEER_CLOSED) {
            return Err(ObjectError::PeerClosed);
        }
        let is_changed = self.peer_words.change_signals(clear.bits(), set.bits());
        drop(guard);
        if is_changed {
            test_point!("signals.changed");
            self.space.notify_peer();
        }
        Ok(())
    }

    /// Adds a callback, see [`KernelObject`](super::KernelObject).
    pub(super) fn add_callback(
        self: &Arc<Self>,
        callback: SignalCallback,
    ) -> Result<(), ObjectError> {
        self.inbox.stand_by()?;
        let observer = self.observer.get_or_init(|| RunCallbacks(Arc::downgrade(self)).into());
        self.space.set_observer(observer.clone());
        match self.open()?.as_mut() {
            Some(state) => state.waiters.set_observer(observer.clone()),
            None => return Err(ObjectError::Closed),
        }
        self.callbacks.add(callback, || self.observe());
        self.run_callbacks();
        Ok(())
    }

    fn run_callbacks(self: &Arc<Self>) {
        let ended = self.callbacks.run(|| {
            let seen = self.observe();
            let over = Signal::WRITABLE | Signal::PEER_CLOSED | Signal::HANDLE_CLOSED;
            // What ends the lack of space is to run them again.
            if !seen.intersects(over) && matches!(self.wait_for_space(), Ok(false)) {
                return self.observe();
            }
            seen
        });
        if ended == Ended::IsDue {
            self.inbox.drive_after(Duration::ZERO);
        }
    }

    /// Has all that wait for signals look when there is the space that is missing; `false` if none is.
    ///
    /// # Errors
    /// [`ChannelError::Closed`]; if the process can have no more descriptors or threads.
    pub(super) fn wait_for_space(self: &Arc<Self>) -> Result<bool, ChannelError> {
        let waker = self.of_space.get_or_init(|| TellOfSpace(Arc::downgrade(self)).into());
        self.outbox.wait_for_missing(waker)
    }
}

fn check_allowed(clear: Signal, set: Signal) -> Result<(), ObjectError> {
    let (found, allowed) = (clear | set, Signal::USER_ALL);
    if allowed.contains(found) {
        Ok(())
    } else {
        Err(ObjectError::InvalidSignals { found, allowed })
    }
}

/// Runs the callbacks of an end that is still there.
struct RunCallbacks(Weak<EndObject>);

impl From<RunCallbacks> for Waker {
    fn from(run: RunCallbacks) -> Self {
        Self::from(Arc::new(run))
    }
}

impl Wake for RunCallbacks {
    fn wake(self: Arc<Self>) {
        if let Some(object) = self.0.upgrade() {
            object.run_callbacks();
        }
    }
}

/// Has all that wait for signals look.
struct TellOfSpace(Weak<EndObject>);

impl From<TellOfSpace> for Waker {
    fn from(tell: TellOfSpace) -> Self {
        Self::from(Arc::new(tell))
    }
}

impl Wake for TellOfSpace {
    fn wake(self: Arc<Self>) {
        let Some(object) = self.0.upgrade() else { return };
        object.space.note_telling();
        if let Ok(mut guard) = object.inbox.lock()
            && let Some(state) = guard.as_mut()
        {
            state.waiters.tell_observers();
        }
    }
}

impl Inbox {
    /// All signals of the end.
    ///
    /// # Errors
    /// [`ChannelError::Closed`], [`ChannelError::Failed`].
    pub(super) fn observe(&self) -> Result<Signal, ChannelError> {
        let mut guard = self.lock()?;
        let state: &mut State = guard.as_mut().ok_or(ChannelError::Closed)?;
        Ok(state.observe(&self.scanned)?)
    }
}
