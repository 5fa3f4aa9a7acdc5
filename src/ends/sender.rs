//! The sending end of a ring.

use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::{offset_of, replace};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tombolo_abi::{RingKind, Role, Slot};

use crate::backoff::Backoff;
use crate::deadline::Deadline;
use crate::endpoint::{Attached, Disconnect, Interrupter, Interrupts, Peers, Until, attach_until};
use crate::ends::{
    MessagePacket, Mpsc, NotSent, SendError, SendTimeoutError, Sending, Shared, Topology,
    TrySendError, check_handles,
};
use crate::error::Error;
use crate::handle::Handle;
use crate::mutex::try_lock;
use crate::region::Region;
use crate::ring::SendFast;
use crate::wait::{GaveUp, SPIN_MAX, Spin, sleep_for_peer, wait_for_peer};

/// The sending end of a ring: [`SpscSender`](crate::SpscSender) or
/// [`MpscProducer`](crate::MpscProducer).
///
/// It attaches at first use, or by [`Sender::attach`]. Once a send has returned `Ok`, the message is in the
/// region: it is delivered, in order, whatever happens to this process afterwards. A send that did not
/// return `Ok` has sent nothing.
///
/// # Source
/// Operations and errors are those of `std::sync::mpsc`.
#[derive(Debug)]
pub struct Sender<K: Topology> {
    pub(crate) region: Arc<Region>,
    index: u32,
    /// The endpoint, shared by clones once one of them has attached.
    shared: Arc<Mutex<Option<Shared>>>,
    sending: Option<Sending<K>>,
    spin_max: Duration,
    disconnect: Disconnect,
    interrupts: Interrupts,
    /// An end has one user at a time: it may be sent, not shared.
    not_shared: PhantomData<Cell<()>>,
}

/// Messages of a batch that one attempt takes.
const BATCH_MAX: usize = 256;

impl<K: Topology> Sender<K> {
    pub(crate) fn new(region: Arc<Region>, index: u32) -> Self {
        Self {
            region,
            index,
            shared: Arc::default(),
            sending: None,
            spin_max: SPIN_MAX,
            disconnect: Disconnect::default(),
            interrupts: Interrupts::default(),
            not_shared: PhantomData,
        }
    }

    /// Sends `message`, waiting while the ring is full.
    ///
    /// # Errors
    /// [`SendError::Disconnected`] if the ring is full, no receiver is alive, and one counts as having
    /// been there: by default one that this sender met, so that a sender that comes after its receiver
    /// died waits for the next one, unless [`Disconnect::Ever`] is [set](Self::set_disconnect). As long as
    /// there is space, a send does not fail so. [`SendError::Interrupted`] by an [`Interrupter`].
    ///
    /// If this end is not attached, as [`Self::attach`]: a lane that is not empty, or that another sender
    /// owns, is waited for up to 100 ms, by [`Self::send_timeout`] until its deadline if that is later.
    ///
    /// # Cost
    /// No system call and no allocation while there is space and the receiver doesn't sleep; one copy
    /// of the message.
    ///
    /// # Examples
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("demo.tombolo");
    /// let mut region = tombolo::EventsRegion::open_path(path)?;
    /// let (mut tx, mut rx) = region.split_spsc()?;
    /// tx.send(b"one")?;
    /// assert_eq!(rx.recv()?.data, b"one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias("push", "publish", "write", "enqueue"))]
    #[inline]
    pub fn send(&mut self, message: &[u8]) -> Result<(), SendError> {
        if self.send_fast(message) {
            return Ok(());
        }
        Ok(self.send_waiting(message, Deadline::NEVER)?)
    }

    /// Sends `message`, waiting for space until `deadline`.
    ///
    /// # Errors
    /// [`SendTimeoutError::Timeout`] if there was no space until then; else as [`Self::send`].
    #[inline]
    pub fn send_timeout(
        &mut self,
        message: &[u8],
        deadline: impl Into<Deadline>,
    ) -> Result<(), SendTimeoutError> {
        if self.send_fast(message) {
            return Ok(());
        }
        self.send_waiting(message, deadline.into())
    }

    #[cold]
    fn send_waiting(&mut self, message: &[u8], deadline: Deadline) -> Result<(), SendTimeoutError> {
        let index = self.index;
        self.until(deadline, |sender| sender.attempt(message))
            .map_err(|error| error.into_timeout_error((), index))
    }

    /// Sends `message` if there is space now. The first use takes 100 ms if another process owns the
    /// endpoint, as [`Self::attach`] does.
    ///
    /// # Errors
    /// [`TrySendError::Full`] if there is none, [`TrySendError::Contended`] if a live process
    /// stopped while it was sending.
    #[doc(alias("try_push", "offer"))]
    #[inline]
    pub fn try_send(&mut self, message: &[u8]) -> Result<(), TrySendError> {
        if self.send_fast(message) {
            return Ok(());
        }
        self.attempt(message).map_err(|error| error.into_try_error(()))
    }

    /// Sends all of `messages`, waiting while the ring is full.
    ///
    /// They become visible in few pieces, each of at most 256 messages.
    ///
    /// # Errors
    /// As [`Self::send`], with the number of messages that were sent before.
    #[doc(alias = "sendmmsg")]
    pub fn send_batch(&mut self, messages: &[&[u8]]) -> Result<(), SendError<usize>> {
        Ok(self.send_batch_timeout(messages, Deadline::NEVER)?)
    }

    /// Sends all of `messages`, waiting for space until `deadline`.
    ///
    /// # Errors
    /// As [`Self::send_timeout`], with the number of messages that were sent before.
    pub fn send_batch_timeout(
        &mut self,
        messages: &[&[u8]],
        deadline: impl Into<Deadline>,
    ) -> Result<(), SendTimeoutError<usize>> {
        let (index, deadline) = (self.index, deadline.into());
        let mut sent = 0;
        while sent < messages.len() {
            let next = &messages[sent..messages.len().min(sent + BATCH_MAX)];
            sent += self
                .until(deadline, |sender| sender.attempt_batch(next))
                .map_err(|error| error.into_timeout_error(sent, index))?;
        }
        Ok(())
    }

    /// Sends as many of `messages` as there is space for now, from the first on, and returns how
    /// many. The receiver sees all of them or none.
    ///
    /// # Errors
    /// As [`Self::try_send`], if not even the first was sent. If one message is too long for the ring, none
    /// is sent.
    ///
    /// # Examples
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("demo.tombolo");
    /// let mut region = tombolo::EventsRegion::open_path(path)?;
    /// let (mut tx, mut rx) = region.split_mpsc()?;
    /// assert_eq!(tx.try_send_batch(&[b"a", b"bc", b""])?, 3);
    /// let got: Vec<_> = std::iter::from_fn(|| rx.try_recv().ok()).map(|m| m.data).collect();
    /// assert_eq!(got, [&b"a"[..], b"bc", b""]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_send_batch(&mut self, messages: &[&[u8]]) -> Result<usize, TrySendError> {
        if messages.is_empty() {
            return Ok(0);
        }
        self.attempt_batch(messages).map_err(|error| error.into_try_error(()))
    }

    /// Sends `packet`, waiting while there is no space or, if it has handles, no receiver to take them.
    ///
    /// Bytes and handles arrive together. On failure the error returns the packet with all its handles.
    ///
    /// # Errors
    /// As [`Self::send`]; [`Error::Handles`] for handles that no message takes;
    /// [`Error::HandlesNotCarried`] if the region was made without `max_handles`; [`Error::Io`] if the
    /// receiver could make no socket, with the kernel's reason. It tries again each second.
    ///
    /// # Cost
    /// Without handles that of [`Self::send`]. With handles three system calls, the first to ask whether
    /// the receiver lives, the last to close what was sent; one more for each handle of which nothing is
    /// known yet, and four or so for the first message.
    ///
    /// # Source
    /// Whole or nothing is `zx_channel_write`'s; keeping the handles of a message that was not sent is
    /// Magenta's.
    ///
    /// # Examples
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("demo.tombolo");
    /// use std::fs::File;
    /// use tombolo::{EventsRegion, Handle, MessagePacket, OpenOptions, Rights};
    /// use tombolo::handle::HandleDisposition;
    /// let mut region = EventsRegion::open_path_with(path, OpenOptions::new().max_handles(8))?;
    /// let (mut tx, mut rx) = region.split_spsc()?;
    /// rx.attach()?; // the receiver of handles must be attached
    /// tx.send_packet(MessagePacket::from(b"read this").handle(File::open("/proc/self/exe")?))?;
    /// let mut message = rx.recv()?;
    /// let file = File::from(message.handles.remove(0).into_fd());
    /// assert!(file.metadata()?.is_file());
    ///
    /// // A list of dispositions says what is kept here, and what the receiver may do.
    /// let kept = Handle::new(File::open("/proc/self/exe")?);
    /// let mut list = [HandleDisposition::duplicate(&kept).rights(Rights::READ)];
    /// let mut packet = MessagePacket::from(b"read it, and don't pass it on");
    /// packet.handles = HandleDisposition::resolve_all(&mut list, &[])?;
    /// tx.send_packet(packet)?;
    /// assert_eq!(rx.recv()?.handles[0].rights(), Rights::READ);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias("sendmsg", "SCM_RIGHTS"))]
    #[expect(clippy::result_large_err, reason = "the error gives the message back")]
    pub fn send_packet(&mut self, packet: MessagePacket) -> Result<(), SendError<MessagePacket>> {
        Ok(self.send_packet_timeout(packet, Deadline::NEVER)?)
    }

    /// As [`Self::send_packet`], waiting until `deadline`.
    ///
    /// # Errors
    /// As [`Self::send_packet`]; [`SendTimeoutError::Timeout`] if there was no space until then,
    /// [`SendTimeoutError::NoReceiver`] if no receiver was there to take the handles.
    #[expect(clippy::result_large_err, reason = "the error gives the message back")]
    pub fn send_packet_timeout(
        &mut self,
        packet: MessagePacket,
        deadline: impl Into<Deadline>,
    ) -> Result<(), SendTimeoutError<MessagePacket>> {
        let index = self.ring();
        let sent = match self.check_handles(&packet) {
            Ok(()) => self.until(deadline.into(), |sender| sender.attempt_packet(&packet)),
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            return Err(error.into_timeout_error(packet, index));
        }
        Handle::close_all(packet.handles);
        Ok(())
    }

    /// Sends `packet` if there is space now and, if it has handles, a receiver to take them. On failure the
    /// error returns the packet with all its handles.
    ///
    /// # Errors
    /// As [`Self::try_send`]; [`TrySendError::NoReceiver`]; [`Error::Handles`]. The ring is
    /// [`TrySendError::Full`] too if 256 handles are on their way through it, or the kernel takes no
    /// more.
    #[expect(clippy::result_large_err, reason = "the error gives the message back")]
    pub fn try_send_packet(
        &mut self,
        packet: MessagePacket,
    ) -> Result<(), TrySendError<MessagePacket>> {
        match self.check_handles(&packet).and_then(|()| self.attempt_packet(&packet)) {
            Ok(()) => {
                Handle::close_all(packet.handles);
                Ok(())
            }
            Err(error) => Err(error.into_try_error(packet)),
        }
    }

    /// The most handles of one message.
    #[must_use]
    pub fn max_handles(&self) -> usize {
        self.region.entries()[self.ring() as usize].max_handles.into()
    }

    /// Attaches now and not at first use. Does nothing if this end is attached.
    ///
    /// Waits up to 100 ms for an owner that is just leaving.
    ///
    /// # Errors
    /// [`Error::Busy`] if other processes or ends own all endpoints that would do. [`Error::LaneNotEmpty`]
    /// (lanes only) if one has no owner, but its last owner's messages have not been received yet: retry, or
    /// give the region more [`producers`](crate::OpenOptions::producers) than there are processes that send.
    /// [`Error::Replaced`] if the region is no longer the one to use. [`Error::Poisoned`] if the ring is
    /// damaged.
    ///
    /// # Cost
    /// Some forty system calls. The first end that a process attaches also starts its thread `tombolo-watch`.
    #[doc(alias = "claim")]
    pub fn attach(&mut self) -> Result<(), Error> {
        self.usable().map(drop)
    }

    /// Sets which receivers count as having been there, when none is alive: those that this sender met,
    /// unless this was called. Of a clone, as of the producer that it was made from at that time.
    pub fn set_disconnect(&mut self, disconnect: Disconnect) {
        self.disconnect = disconnect;
        if let Some(sending) = &mut self.sending {
            sending.peer.set_rule(disconnect);
        }
    }

    /// Whether a receiver is alive, how many there ever were, and whether this sender met one.
    ///
    /// # Errors
    /// As [`Self::attach`], if the endpoint is not owned yet.
    ///
    /// # Cost
    /// Two system calls.
    pub fn peers(&mut self) -> Result<Peers, Error> {
        let end = &self.usable()?.end;
        end.meeting.peers(&end.slot)
    }

    /// Waits until a receiver is alive, or one has come since a call returned *Disconnected*, or since this
    /// call began. Attaches this end first.
    ///
    /// # Errors
    /// [`SendTimeoutError::Timeout`], [`SendTimeoutError::Interrupted`]; [`SendTimeoutError::Failed`] as
    /// [`Self::attach`].
    ///
    /// # Examples
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("demo.tombolo");
    /// use std::time::Duration;
    /// let mut region = tombolo::EventsRegion::open_path(path)?;
    /// let (mut tx, mut rx) = region.split_spsc()?;
    /// let other = std::thread::spawn(move || rx.attach().map(|()| rx));
    /// tx.wait_for_peer(Duration::from_secs(10))?;
    /// # drop(other.join().unwrap()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_for_peer(&mut self, deadline: impl Into<Deadline>) -> Result<(), SendTimeoutError> {
        let (deadline, index) = (deadline.into(), self.index);
        self.attach_until(deadline).map_err(|error| error.into_timeout_error((), index))?;
        let until = Until { deadline, interrupts: &self.interrupts };
        match &self.sending {
            Some(sending) => Ok(wait_for_peer(&sending.end, &sending.peer, until)?),
            None => Err(GaveUp::Failed(Error::ForkedChild).into()), // never: just attached
        }
    }

    /// Returns what ends a blocked call of this sender, from another thread or a signal handler; a clone has
    /// interrupters of its own. From then on calls check for interrupts and take the slow path for it;
    /// without, that costs nothing.
    pub fn interrupter(&mut self) -> Interrupter {
        let interrupter = self.interrupts.interrupter();
        if let Some(sending) = &self.sending {
            sending.end.slot.note_interrupter();
        }
        interrupter
    }

    /// Sets how long a wait spins at most before it sleeps: 50 µs by default. It spins for as long as that
    /// paid lately. With zero it polls once more and sleeps, so that waiting keeps no processor busy, at the
    /// price of a wake-up for each wait.
    ///
    /// # Examples
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("demo.tombolo");
    /// let mut region = tombolo::EventsRegion::open_path(path)?;
    /// let (mut tx, mut rx) = region.split_spsc()?;
    /// tx.set_spin_max(std::time::Duration::ZERO);
    /// # tx.send(b"x")?;
    /// # rx.recv()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_spin_max(&mut self, longest: Duration) {
        self.spin_max = longest;
        if let Some(sending) = &mut self.sending {
            sending.spin = Spin::new(longest);
        }
    }

    /// Longest message, in bytes.
    #[must_use]
    pub fn max_message(&self) -> usize {
        self.region.entries()[self.index as usize].max_message as usize
    }

    /// Index of the ring in the region's directory. If each producer has a lane: the first lane before this
    /// sender is attached, its own lane afterwards, as [`RecordRef::ring`](crate::RecordRef::ring).
    #[must_use]
    pub fn ring(&self) -> u32 {
        self.sending.as_ref().map_or(self.index, |sending| sending.end.index)
    }

    /// Fast path: sends `message` if the ring is healthy, has space and needs no padding. Returns `false`,
    /// having sent nothing, if [`Self::attempt`] must decide. If the file was truncated meanwhile, the
    /// message may have been written, and later sends fail.
    #[inline(always)]
    fn send_fast(&mut self, message: &[u8]) -> bool {
        let Some(Sending { end, producer, wakes, .. }) = &mut self.sending else { return false };
        let sent = end.is_sound()
            && message.len() <= end.entry.max_message as usize
            && producer.send_fast(&end.ring, wakes, message, |sent| end.slot.count_sent(sent));
        if sent {
            end.settle_now_and_then(wakes);
        }
        sent && end.is_whole()
    }

    #[cold]
    pub(crate) fn attempt(&mut self, message: &[u8]) -> Result<(), NotSent> {
        let sending = self.usable()?;
        sending.produce(&[message], |window, ring| window.send(ring, message)).map(drop)
    }

    fn attempt_batch(&mut self, messages: &[&[u8]]) -> Result<usize, NotSent> {
        self.usable()?.produce(messages, |window, ring| window.send_batch(ring, messages))
    }

    /// Checks the handles of `packet` before anything else happens.
    fn check_handles(&self, packet: &MessagePacket) -> Result<(), NotSent> {
        if packet.handles.is_empty() {
            return Ok(());
        }
        let outgoing = self.usable_sending().map(Sending::outgoing);
        let checked =
            check_handles(&self.region, self.ring(), outgoing.as_deref(), &packet.handles);
        Ok(checked?)
    }

    fn attempt_packet(&mut self, packet: &MessagePacket) -> Result<(), NotSent> {
        if packet.handles.is_empty() {
            self.attempt(&packet.data)
        } else {
            self.usable()?.carry(packet, None)
        }
    }

    #[inline(always)]
    pub(crate) fn sending(&mut self) -> Option<&mut Sending<K>> {
        self.sending.as_mut()
    }

    /// What this sender owns, if it was attached in this process and the ring is usable.
    pub(crate) fn usable_sending(&self) -> Option<&Sending<K>> {
        self.sending.as_ref().filter(|sending| sending.end.check_usable().is_ok())
    }

    #[cfg(test)]
    pub(crate) fn attached_end(&self) -> Option<&Attached> {
        self.usable_sending().map(|sending| &*sending.end)
    }

    /// As [`Self::usable_sending`], attaching first if need be.
    #[inline]
    pub(crate) fn usable(&mut self) -> Result<&mut Sending<K>, Error> {
        let sending = self.sending_until(Deadline::PAST)?;
        sending.end.check_usable()?;
        Ok(sending)
    }

    #[inline]
    fn sending_until(&mut self, deadline: Deadline) -> Result<&mut Sending<K>, Error> {
        if self.sending.is_none() {
            self.sending = Some(self.attach_or_share(deadline)?);
        }
        match &mut self.sending {
            Some(sending) => Ok(sending),
            None => Err(Error::ForkedChild), // never: just filled if it was empty
        }
    }

    #[cold]
    fn attach_or_share(&self, deadline: Deadline) -> Result<Sending<K>, Error> {
        self.region.check_ours()?;
        let until = Until { deadline, interrupts: &self.interrupts };
        let entry = self.region.entries().get(self.index as usize);
        if entry.is_some_and(|entry| entry.ring_kind() == Some(RingKind::Lane)) {
            // Each clone has a lane of its own.
            return self.sending_at(self.own(until)?);
        }
        let mut shared = self.shared_until(until)?;
        let owned = match &*shared {
            Some(owned) => owned.clone(),
            None => self.own(until)?,
        };
        let sending = self.sending_at(owned.clone())?;
        *shared = Some(owned);
        Ok(sending)
    }

    fn own(&self, until: Until<'_>) -> Result<Shared, Error> {
        let end = Arc::new(Attached::attach(&self.region, self.index, Role::Sender, until)?);
        Ok(Shared { end, outgoing: Arc::default() })
    }

    fn sending_at(&self, shared: Shared) -> Result<Sending<K>, Error> {
        let sending = Sending::new(shared, self.disconnect, Spin::new(self.spin_max))?;
        if self.interrupts.are_possible() {
            sending.end.slot.note_interrupter();
        }
        Ok(sending)
    }

    /// The endpoint that clones share, once no other thread is attaching it.
    fn shared_until(&self, until: Until<'_>) -> Result<MutexGuard<'_, Option<Shared>>, Error> {
        let until = attach_until(until);
        let mut backoff = Backoff::new();
        loop {
            if let Some(shared) = try_lock(&self.shared) {
                return Ok(shared);
            }
            if until.is_over() || !backoff.wait(until.deadline) {
                let pid = std::process::id(); // a clone of this very sender
                return Err(Error::Busy { ring: self.index, role: "sender", pid, places: 1 });
            }
        }
    }

    /// Repeats `attempt`, waiting in between, until it succeeds or waiting doesn't help. Attaches first, until
    /// the same deadline.
    pub(crate) fn until<T>(
        &mut self,
        deadline: Deadline,
        mut attempt: impl FnMut(&mut Self) -> Result<T, NotSent>,
    ) -> Result<T, NotSent> {
        self.attach_until(deadline)?;
        let mut behind_holder = Backoff::new();
        let mut has_waited = false;
        loop {
            if self.interrupts.take() {
                return Err(NotSent::Interrupted);
            }
            let result = attempt(self);
            let until = Until { deadline, interrupts: &self.interrupts };
            let Some(sending) = &mut self.sending else { return result };
            match &result {
                Err(NotSent::Full(wanted)) if !deadline.has_passed() => {
                    if !replace(&mut has_waited, true) {
                        sending.end.slot.count(offset_of!(Slot, full_waits));
                    }
                    sending.wait_for_space(wanted, until);
                }
                Err(NotSent::NoReceiver { seen }) if !deadline.has_passed() => {
                    sleep_for_peer(&sending.end, *seen, until);
                }
                Err(NotSent::Contended { .. } | NotSent::Crowded)
                    if self.interrupts.is_pending() || behind_holder.wait(deadline) => {}
                _ => return result,
            }
        }
    }

    /// Attaches for a call that waits until `deadline`. Does nothing if this end is attached.
    fn attach_until(&mut self, deadline: Deadline) -> Result<(), NotSent> {
        match self.sending_until(deadline).map(drop) {
            Err(_) if self.interrupts.take() => Err(NotSent::Interrupted),
            attached => Ok(attached?),
        }
    }
}

/// Clones share the endpoint, and so the slot: to other processes the threads of a process are one producer.
/// If each producer has a lane, each clone attaches to one of its own at first use.
impl Clone for Sender<Mpsc> {
    fn clone(&self) -> Self {
        Self {
            region: self.region.clone(),
            index: self.index,
            shared: self.shared.clone(),
            sending: None,
            spin_max: self.spin_max,
            disconnect: self.disconnect,
            interrupts: Interrupts::default(),
            not_shared: PhantomData,
        }
    }
}
