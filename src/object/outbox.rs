//! The sending half of a channel's end, which all threads of the process share.

use std::mem::offset_of;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Wake, Waker};

use tombolo_abi::{HANDLE_COUNT_MAX, RingEntry, Slot};

use super::channel_error::ChannelError;
use super::close_reason::CloseReason;
use super::inbox::Inbox;
use super::space::Space;
use crate::backoff::Backoff;
use crate::carrier::Outgoing;
use crate::crash::{crash_point, test_lock};
use crate::deadline::Deadline;
use crate::endpoint::{Attached, Disconnect, Interrupter, Interrupts, Until};
use crate::ends::{MessagePacket, NotSent, Sending, Shared, Spsc, check_handles, not_sent};
use crate::error::Error;
use crate::handle::{Handle, check_count};
use crate::mutex::{lock, try_lock};
use crate::os::descriptor::Descriptor;
use crate::os::fork;
use crate::ring::doorbell::has_come;
use crate::ring::{SendFast, Window};
use crate::wait::{Bridge, Ready, SPIN_MAX, Spin, sleep_for_peer, sleep_for_space, wake};

/// The sending half of an end.
#[derive(Debug)]
pub(super) struct Outbox {
    /// `None` once the end was closed.
    sending: Mutex<Option<Sending<Spsc>>>,
    /// Ends waits for space when the end is closed.
    closing: Interrupter,
    closed: Interrupts,
    /// Tasks that wait for space.
    tasks: Mutex<Vec<Waker>>,
    /// What the signals are made of.
    space: Arc<Space>,
    /// Whether they are to be woken once `sending` is not locked: what they do then is not ours.
    is_to_wake: AtomicBool,
    limits: Limits,
    /// A forked child of this process takes no lock: its threads may have held it.
    owner: fork::Owner,
}

/// What the ring takes of a message.
#[derive(Clone, Copy, Debug)]
struct Limits {
    ring: u32,
    max_message: u32,
    max_handles: u16,
}

/// Attempts to let an arming stand for space, while the other end frees some.
const STANDS_MAX: u32 = 64;

/// The ring on which the end that was opened first sends.
const FIRST_SIDE: u32 = 0;

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
    /// Sends at `end`. Handles go over `socket`, if the other end has its counterpart.
    pub(super) fn attach(
        end: Attached,
        socket: Option<Descriptor>,
        space: Arc<Space>,
    ) -> Result<Self, Error> {
        let owner = fork::Owner::current();
        let owner = owner.map_err(|error| end.slot.region().io_error("mark", error))?;
        let outgoing = match socket {
            Some(socket) => Outgoing::given(end.slot.region(), socket)?,
            None => Outgoing::default(),
        };
        let shared = Shared { end: Arc::new(end), outgoing: Arc::new(Mutex::new(outgoing)) };
        let sending = Sending::new(shared, Disconnect::Ever, Spin::new(SPIN_MAX))?;
        let mut closed = Interrupts::default();
        let closing = closed.interrupter();
        let RingEntry { max_message, max_handles, .. } = sending.end.entry;
        let limits = Limits { ring: sending.end.index, max_message, max_handles };
        let (sending, tasks) = (Mutex::new(Some(sending)), Mutex::default());
        let is_to_wake = AtomicBool::new(false);
        Ok(Self { sending, closing, closed, tasks, space, is_to_wake, limits, owner })
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
            let mut guard = self.lock()?;
            let sending = guard.as_mut().ok_or(NotSent::Interrupted)?;
            let error = match attempt(sending) {
                Ok(sent) => return Ok(sent),
                Err(error) => error,
            };
            let observer = self.space.note(&error);
            if deadline.has_passed() {
                drop(guard);
                wake(observer);
                return Err(error);
            }
            let (end, known, mut spin) =
                (sending.end.clone(), sending.peer.asked(), sending.spin.clone());
            drop(guard); // others may send what there is space for
            wake(observer);
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

    /// Has this end, if it is the later of two that were opened by name, come to the door of the first, waiting until
    /// `deadline` for that to be opened. What is wrong is told when handles are to be sent.
    pub(super) fn meet(&self, inbox: &Inbox, deadline: Deadline) {
        loop {
            let Ok(mut guard) = self.lock() else { return };
            let Some(sending) = guard.as_mut().filter(|it| it.end.index != FIRST_SIDE) else {
                return;
            };
            let is_over = deadline.has_passed()
                || !matches!(sending.peer.is_disconnected(&sending.end), Ok(false));
            let Err(NotSent::NoReceiver { seen }) = meet(sending, inbox) else { return };
            if is_over {
                return;
            }
            let end = sending.end.clone();
            drop(guard);
            sleep_for_peer(&end, seen, Until { deadline, interrupts: &self.closed });
        }
    }

    /// Lets tasks and pollers wait for space from now on.
    ///
    /// # Errors
    /// [`ChannelError::Closed`]; if the process can have no more descriptors or threads.
    pub(super) fn stand_by(&self) -> Result<Arc<Bridge>, ChannelError> {
        let mut guard = self.lock()?;
        let sending = guard.as_mut().ok_or(ChannelError::Closed)?;
        sending.end.check_usable()?;
        Ok(sending.bridge()?)
    }

    /// Has `waker` woken when a send that was refused may succeed; `false` if that is so now. Of a sender at which
    /// tasks wait, and as often as it is asked: each task is woken with the others.
    fn wait(self: &Arc<Self>, bridge: &Bridge, waker: &Waker) -> bool {
        if !bridge.is_ours() {
            return false;
        }
        let is_known = |tasks: &[Waker]| tasks.iter().any(|task| task.will_wake(waker));
        let mut tasks = lock(&self.tasks);
        if !is_known(&tasks) {
            drop(tasks); // what is not ours runs without the lock
            let waker = waker.clone();
            tasks = lock(&self.tasks);
            tasks.push(waker);
        }
        drop(tasks);
        bridge.wait(&Waker::from(self.clone()))
    }

    /// Has `waker` woken when the space may be there that the signals miss; `false` if none is missing.
    ///
    /// # Errors
    /// As [`Self::stand_by`].
    pub(super) fn wait_for_missing(self: &Arc<Self>, waker: &Waker) -> Result<bool, ChannelError> {
        for _ in 0..STANDS_MAX {
            if self.space.missing().is_none() {
                return Ok(false);
            }
            let bridge = self.stand_by()?;
            if self.wait(&bridge, waker) {
                return Ok(true); // for that space, or for what ends sooner
            }
            let mut guard = self.lock()?;
            let sending = guard.as_mut().ok_or(ChannelError::Closed)?;
            if let Some(missing) = self.space.missing() {
                sending.stand_for_space(&missing);
            }
        }
        Ok(false)
    }

    /// As [`Self::wait`], at the bridge that there is.
    ///
    /// # Errors
    /// As [`Self::stand_by`].
    pub(super) fn wait_for_space(self: &Arc<Self>, waker: &Waker) -> Result<bool, ChannelError> {
        Ok(self.wait(&*self.stand_by()?, waker))
    }

    /// Checks how much a message has, before its handles are looked at.
    ///
    /// # Errors
    /// [`ChannelError::Closed`], [`ChannelError::TooLong`], [`ChannelError::Handles`].
    pub(super) fn check_limits(&self, len: usize, handle_count: usize) -> Result<(), ChannelError> {
        if self.closed.is_pending() {
            return Err(ChannelError::Closed);
        }
        let Limits { ring, max_message: limit, max_handles } = self.limits;
        if len > limit as usize {
            return Err(Error::MessageTooLong { ring, found: len, limit }.into());
        }
        match max_handles {
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
        let guard = self.lock()?;
        let sending = guard.as_ref().ok_or(ChannelError::Closed)?;
        let Attached { slot, index, .. } = &*sending.end;
        let outgoing = sending.outgoing();
        Ok(check_handles(slot.region(), *index, Some(&outgoing), handles)?)
    }

    /// Ends all waits, stores the reason, and gives up the end.
    pub(super) fn close(&self, reason: Option<(u32, &str)>) {
        self.closing.interrupt();
        self.wake_tasks();
        let Ok(Some(sending)) = self.lock().map(|mut guard| guard.take()) else { return };
        let ring = &sending.end.ring.memory;
        if let Some((code, text)) = reason
            && sending.end.check_usable().is_ok()
        {
            CloseReason::store(ring, code, text);
        }
    }

    /// Gives the end up without closing it, if `prepare` succeeds. Threads that wait have been told to leave it.
    ///
    /// # Errors
    /// Those of `prepare`, [`ChannelError::Closed`]: nothing happened.
    pub(super) fn give_up<T>(
        &self,
        prepare: impl FnOnce(&Attached) -> Result<T, ChannelError>,
    ) -> Result<(T, Arc<Attached>), ChannelError> {
        let mut guard = self.lock()?;
        let sending = guard.as_ref().ok_or(ChannelError::Closed)?;
        sending.end.check_usable()?;
        let prepared = prepare(&sending.end)?;
        let end = sending.end.clone();
        let sending = guard.take();
        drop(guard);
        self.closing.interrupt();
        self.wake_tasks();
        drop(sending);
        Ok((prepared, end))
    }

    /// What a thread keeps that is about to leave the end.
    #[cfg(test)]
    pub(super) fn end(&self) -> Arc<Attached> {
        self.lock().unwrap().as_ref().unwrap().end.clone()
    }

    /// Sets how long a wait spins at most.
    pub(super) fn set_spin(&self, spin: Spin) {
        if let Ok(mut guard) = self.lock()
            && let Some(sending) = guard.as_mut()
        {
            sending.spin = spin;
        }
    }
}

impl Outbox {
    /// # Errors
    /// [`Error::ForkedChild`].
    fn lock(&self) -> Result<Locked<'_>, Error> {
        if !self.owner.is_here() {
            return Err(Error::ForkedChild);
        }
        test_lock!("outbox.lock", &self.sending);
        Ok(Locked { guard: lock(&self.sending), _unlocked: Unlocked(self) })
    }

    /// Forgets it in a forked child, if a thread of the parent has been changing it: it is not dropped then.
    pub(super) fn forget_if_locked(self: &Arc<Self>) {
        if try_lock(&self.sending).is_none() || try_lock(&self.tasks).is_none() {
            std::mem::forget(self.clone());
        }
    }

    /// Has these tasks woken once no lock of this end is held, and with them those that wait for space.
    pub(super) fn wake_later(&self, tasks: Vec<Waker>) {
        if !tasks.is_empty() {
            lock(&self.tasks).extend(tasks);
            self.is_to_wake.store(true, SeqCst);
        }
    }

    fn wake_tasks(&self) {
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        tasks.into_iter().for_each(|task| wake(Some(task)));
    }
}

/// For the thread that sleeps in the place of senders, and for a send that finds by itself what they wait for.
impl Wake for Outbox {
    fn wake(self: Arc<Self>) {
        self.is_to_wake.store(true, SeqCst);
        if try_lock(&self.sending).is_none() {
            return; // whoever has the lock looks once more after giving it back
        }
        drop(Unlocked(&self));
    }
}

/// The sender, locked.
struct Locked<'a> {
    guard: MutexGuard<'a, Option<Sending<Spsc>>>,
    /// Dropped behind the guard.
    _unlocked: Unlocked<'a>,
}

impl Deref for Locked<'_> {
    type Target = Option<Sending<Spsc>>;

    fn deref(&self) -> &Self::Target {
        &self.guard
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.guard
    }
}

/// Wakes tasks that were to be woken, when it is dropped: without the lock.
struct Unlocked<'a>(&'a Outbox);

impl Drop for Unlocked<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.0.is_to_wake.load(SeqCst) && self.0.is_to_wake.swap(false, SeqCst) {
            self.0.wake_tasks();
        }
    }
}

/// What is ready while a message that was refused may be written.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) outbox: Arc<Outbox>,
    pub(super) bridge: Arc<Bridge>,
}

impl Ready for Writing {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.bridge.as_fd()
    }

    fn when_ready(self: Arc<Self>, waker: &Waker) -> bool {
        self.outbox.wait(&self.bridge, waker)
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
    let data = &*packet.data;
    if !packet.handles.is_empty() {
        let txid = if let As::Call { txid } = kind { Some(txid) } else { None };
        let sent = sending.carry(packet, txid);
        return unless_gone(sending, sent);
    }
    if attempt_fast(sending, data, kind) {
        sending.end.settle_now_and_then(&sending.wakes);
        fetch_next_lines(sending);
        return Ok(sending.end.check_whole()?);
    }
    match kind {
        As::Call { txid } => sending.call(data, txid),
        As::Message => sending.produce(&[data], |window, ring| window.send(ring, data)).map(drop),
    }
}

/// Whether it was sent by the fast path.
fn attempt_fast(sending: &mut Sending<Spsc>, data: &[u8], kind: As) -> bool {
    let ext = if let As::Call { txid } = kind { Some(sending.ext(txid)) } else { None };
    let Sending { end, producer, wakes, .. } = sending;
    if data.len() > end.entry.max_message as usize {
        return false;
    }
    match ext {
        None => producer.send_fast(&end.ring, wakes, data, |_| ()),
        Some(ext) => {
            let call = |window: &mut Window, ring: &_| window.call_fast(ring, data, ext).ok_or(());
            producer.produce(&end.ring, wakes, call).is_ok()
        }
    }
}

/// Has the lines come that the next message is written to, while the other end is busy with this one: it had them a
/// lap before, and a message is not there before all of its lines are here. The first of them is here.
fn fetch_next_lines(sending: &Sending<Spsc>) {
    const LINE_LEN: u64 = 64;
    let tail = sending.producer.window.tail;
    for line in 1..=2 {
        sending.end.ring.memory.prefetch_to_write(tail.wrapping_add(line * LINE_LEN));
    }
}

/// What goes before an attempt to send `packet`: the peer has not been found gone, and there is a connection to it if
/// the packet has handles.
pub(super) fn prepare(
    sending: &mut Sending<Spsc>,
    inbox: &Inbox,
    packet: &MessagePacket,
) -> Result<(), NotSent> {
    if inbox.has_peer_gone() {
        sending.end.check_usable()?;
        return Err(NotSent::Disconnected);
    }
    if packet.handles.is_empty() {
        return Ok(());
    }
    sending.end.check_usable()?;
    if sending.peer.is_disconnected(&sending.end)? {
        return Err(NotSent::Disconnected);
    }
    let met = meet(sending, inbox);
    unless_gone(sending, met)
}

/// What `sent` says, but that a peer whose end was found free, and which the watcher has not told of yet, has gone.
fn unless_gone(sending: &mut Sending<Spsc>, sent: Result<(), NotSent>) -> Result<(), NotSent> {
    if let Err(NotSent::NoReceiver { .. }) = sent {
        sending.peer.ask_again();
        if sending.peer.is_disconnected(&sending.end)? {
            return Err(NotSent::Disconnected);
        }
    }
    sent
}

/// Sees to it that there is a connection to the other end, which both halves of this end use. Of two ends that were
/// opened by name, the later one comes to the door of the first.
fn meet(sending: &mut Sending<Spsc>, inbox: &Inbox) -> Result<(), NotSent> {
    let Sending { end, outgoing, .. } = sending;
    let region = end.slot.region();
    let seen = region.membership().load(Acquire); // before it is known whether the other is there
    let mut outgoing = lock(outgoing);
    if outgoing.is_connected() {
        return Ok(());
    }
    if end.index == FIRST_SIDE {
        let socket = inbox.peers_socket()?.ok_or(NotSent::NoReceiver { seen })?;
        *outgoing = Outgoing::given(region, socket)?;
    } else {
        let socket = outgoing.meet(region, end.index, end.slot.identity());
        crash_point!("meet.connected");
        inbox.add_socket(socket.map_err(|unsent| not_sent(unsent, seen))?);
        region.announce_membership(); // the other may wait for this
    }
    Ok(())
}
