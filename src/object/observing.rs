//! Waiting for signals: a thread that waits at an inbox as one that reads does.
//!
//! It is registered, then it looks, then it sleeps: alone on the ring's doorbell, as the leader, or until the leader
//! finds that a message has come, that the word of the signals has changed, or that the peer has gone. For space it
//! lets the sending half's arming stand, and is told by the thread that sleeps for that.

use std::sync::Arc;

use super::channel_error::ChannelError;
use super::end_object::EndObject;
use super::inbox::Inbox;
use super::looking::State;
use super::object_error::{ObjectError, WaitError};
use super::signal::Signal;
use super::space::Space;
use crate::crash::left_out;
use crate::deadline::Deadline;
use crate::rights::Rights;

/// What a wait has found.
enum Found {
    /// One of the signals.
    Signals,
    /// What stood for space has ended, and there is too little still.
    NoSpaceYet,
}

impl EndObject {
    /// Waits, see [`KernelObject`](super::KernelObject).
    pub(super) fn wait_one(
        self: &Arc<Self>,
        signals: Signal,
        deadline: Deadline,
    ) -> Result<Signal, WaitError> {
        self.require(Rights::WAIT)
            .map_err(|error| WaitError { error, observed: self.observe() })?;
        let mut observed = Signal::empty();
        loop {
            let tellings = self.space.tellings(); // before what is told of may stand
            let waits_for_space = signals.contains(Signal::WRITABLE) && !deadline.has_passed();
            let stood = if waits_for_space { self.wait_for_space() } else { Ok(false) };
            let tellings = matches!(stood, Ok(true)).then_some(tellings);
            let found = match stood {
                Err(error) => Err(error),
                Ok(_) => {
                    self.inbox.wait_for(signals, deadline, (&self.space, tellings), &mut observed)
                }
            };
            match found {
                Ok(Found::Signals) => return Ok(observed),
                Ok(Found::NoSpaceYet) => {}
                Err(error) => {
                    let error = ObjectError::from(error);
                    if matches!(error, ObjectError::Canceled | ObjectError::Closed) {
                        observed = Signal::HANDLE_CLOSED;
                    }
                    return Err(WaitError { error, observed });
                }
            }
        }
    }
}

impl Inbox {
    /// Waits for any of `signals` until `deadline`, and stores what there is. With `tellings` it also ends when those
    /// of `space` are others.
    fn wait_for(
        &self,
        signals: Signal,
        deadline: Deadline,
        (space, tellings): (&Space, Option<u32>),
        observed: &mut Signal,
    ) -> Result<Found, ChannelError> {
        let mut is_to_look = !left_out!("the look behind the registration");
        let mut look = |state: &mut State| {
            if std::mem::replace(&mut is_to_look, true) {
                *observed = state.observe(&self.scanned)?;
            }
            if observed.intersects(signals) {
                return Ok(Some(Found::Signals));
            }
            let may_be_space = tellings.is_some_and(|known| known != space.tellings());
            Ok(may_be_space.then_some(Found::NoSpaceYet))
        };
        let mut guard = self.lock()?;
        let state = guard.as_mut().ok_or(ChannelError::Closed)?;
        if deadline.has_passed() {
            return look(state)?.ok_or(ChannelError::TimedOut);
        }
        let (id, interrupts) = state.waiters.add_observer();
        self.wait(guard, (id, &interrupts), deadline, look, |_| Err(ChannelError::Canceled))
    }
}
