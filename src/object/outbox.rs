//! The sending half of a channel's end, which all threads of the process share.

use std::mem::offset_of;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tombolo_abi::{HANDLE_COUNT_MAX, Slot};

use super::channel_error::ChannelError;
use super::close_reason::CloseReason;
use crate::backoff::Backoff;
use crate::deadline::Deadline;
use crate::endpoint::{Attached, Disconnect, Interrupter, Interrupts, Until};
use crate::ends::{MessagePacket, NotSent, Sending, Shared, Spsc, check_handles};
use crate::error::Error;
use crate::handle::{Handle, check_count};
use crate::ring::SendFast;
use crate::ring::doorbell::has_come;
use crate::wait::{Spin, sleep_for_peer, sleep_for_space};

/// The sending half of an end.
#[derive(Debug)]
pub(super) struct Outbox {
    /// `None` once the end was closed.
    sending: Mutex<Option<Sending<Spsc>>>,
    /// Ends waits for space when the end is closed.
    closing: Interrupter,
    closed: Interrupts,
}

/// How a message is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum As {
    Message,
    /// A request to which the reply has this transaction id.
    Call {
        txid: u32,
    },
}

impl Outbox {
    pub(super) fn attach(end: Attached, spin: Spin) -> Result<Self, Error> {
        let shared = Shared { end: Arc::new(end), outgoing: Arc::default() };
        let sending = Sending::new(shared, Disconnect::Ever, spin)?;
        let mut closed = Interrupts::default();
        let closing = closed.interrupter();
        Ok(Self { sending: Mutex::new(Some(sending)), closing, closed })
    }

    /// Runs `attempt`, such as [`attempt`], again and again until it does not have to wait, or until `deadline`.
    ///
    /// # Errors
    /// [`NotSent`]; `Interrupted` if this end is closed.
    pub(super) fn send<T>(
        &self,
        deadline: Deadline,
        mut attempt: impl FnMut(&mut Sending<Spsc>) -> Result<T, NotSent>,
    ) -> Result<T, NotSent> {
        let (mut backoff, mut has_waited) = (Backoff::new(), false);
        loop {
            let mut guard = lock(&self.sending);
            let sending = guard.as_mut().ok_or(NotSent::Interrupted)?;
            let error = match attempt(sending) {
                Ok(sent) => return Ok(sent),
                Err(error) if deadline.has_passed() => return Err(error),
                Err(error) => error,
            };
            let (end, known, mut spin) =
                (sending.end.clone(), sending.peer.asked(), sending.spin.clone());
            drop(guard); // others may send what there is space for
            let until = Until { deadline, interrupts: &self.closed };
            match &error {
                NotSent::Full(wanted) => {
                    end.check_usable()?;
                    if !std::mem::replace(&mut has_waited, true) {
                        end.slot.count(offset_of!(Slot, full_waits));
                    }
                    let is_over = || {
                        has_come(&end.ring, wanted)
                            || end.has_changed(known)
                            || until.interrupts.is_pending()
                    };
                    if !spin.until(deadline, is_over) {
                        sleep_for_space(&end, wanted, known, until);
                    }
                }
                NotSent::NoReceiver { seen } => {
                    end.check_usable()?;
                    sleep_for_peer(&end, *seen, until);
                }
                NotSent::Contended { .. } | NotSent::Crowded if backoff.wait(deadline) => {}
                _ => return Err(error),
            }
        }
    }

    /// Checks how much a message has, before its handles are looked at.
    ///
    /// # Errors
    /// [`ChannelError::Closed`], [`ChannelError::TooLong`], [`ChannelError::Handles`].
    pub(super) fn check_limits(&self, len: usize, handle_count: usize) -> Result<(), ChannelError> {
        let guard = lock(&self.sending);
        let sending = guard.as_ref().ok_or(ChannelError::Closed)?;
        sending.check_len(len)?;
        match sending.end.entry.max_handles {
            0 => Ok(()), // that has an error of its own
            limit => Ok(check_count(handle_count, limit.min(HANDLE_COUNT_MAX))?),
        }
    }

    /// Checks the handles of a message, before anything else happens.
    ///
    /// # Errors
    /// [`ChannelError::Closed`], [`ChannelError::Handles`], [`ChannelError::Failed`].
    pub(super) fn check_handles(&self, handles: &[Handle]) -> Result<(), ChannelError> {
        if handles.is_empty() {
            return Ok(());
        }
        let guard = lock(&self.sending);
        let sending = guard.as_ref().ok_or(ChannelError::Closed)?;
        let Attached { slot, index, .. } = &*sending.end;
        let outgoing = sending.outgoing();
        Ok(check_handles(slot.region(), *index, Some(&outgoing), handles)?)
    }

    /// Ends all waits, stores the reason, and gives up the end.
    pub(super) fn close(&self, reason: Option<(u32, &str)>) {
        self.closing.interrupt();
        let Some(sending) = lock(&self.sending).take() else { return };
        let ring = &sending.end.ring.memory;
        if let Some((code, text)) = reason
            && sending.end.check_usable().is_ok()
        {
            CloseReason::store(ring, code, text);
        }
    }

    /// Sets how long a wait spins at most.
    pub(super) fn set_spin(&self, spin: Spin) {
        if let Some(sending) = lock(&self.sending).as_mut() {
            sending.spin = spin;
        }
    }
}

/// Sends `packet` if there is space. Its handles are the kernel's then, and still the caller's to close. A peer
/// that has gone is told, whatever space there is.
pub(super) fn attempt(
    sending: &mut Sending<Spsc>,
    packet: &MessagePacket,
    kind: As,
) -> Result<(), NotSent> {
    sending.end.check_usable()?;
    if sending.peer.is_disconnected(&sending.end)? {
        return Err(NotSent::Disconnected);
    }
    match kind {
        _ if !packet.handles.is_empty() => {
            let txid = if let As::Call { txid } = kind { Some(txid) } else { None };
            sending.carry(packet, txid)
        }
        As::Call { txid } => sending.call(&packet.data, txid),
        As::Message => {
            let Sending { end, producer, wakes, .. } = sending;
            let is_short = packet.data.len() <= end.entry.max_message as usize;
            if is_short && producer.send_fast(&end.ring, wakes, &packet.data, |_| ()) {
                end.settle_now_and_then(wakes);
                return Ok(end.check_whole()?);
            }
            let data = &*packet.data;
            sending.produce(&[data], |window, ring| window.send(ring, data)).map(drop)
        }
    }
}

/// Ignores poisoning: no user's code runs under the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
