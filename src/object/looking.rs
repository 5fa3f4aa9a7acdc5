//! What the threads at an end of a channel know of its ring, under their lock: which records have been looked at, and
//! where each goes.
//!
//! Each record is looked at once: a reply is withdrawn for its call, also out of turn, and all else is passed and stays
//! for a reader. `scanned` is the position up to which that was done; the inbox has it, as its leader polls there
//! without the lock.

use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use tombolo_abi::{Record, RecordKind, RingControl, Slot};

use super::channel_error::ChannelError;
use super::signal::Signal;
use super::space::Space;
use super::waiters::{Reply, WaiterId, Waiters};
use crate::carrier::{Intake, Wanted};
use crate::crash::{crash_point, test_point};
use crate::endpoint::{Attached, Disconnect, Peer};
use crate::ends::{BorrowedWhile, MessagePacket, RecordRef, buffer};
use crate::error::Error;
use crate::os::eventfd::EventFd;
use crate::ring::doorbell::{Polled, poll};
use crate::ring::{Consumer, Front, Wakes};
use crate::wait::{Spin, Standby};

/// Records that one look passes at most: then the caller's deadline is checked.
const LOOK_MAX: u32 = 4096;

/// Bytes of a transaction id.
pub(super) const TXID_LEN: usize = 4;

/// What the lock of an inbox is about.
#[derive(Debug)]
pub(super) struct State {
    pub(super) end: Arc<Attached>,
    pub(super) consumer: Consumer,
    pub(super) intake: Option<Intake>,
    pub(super) wakes: Wakes,
    pub(super) peer: Peer,
    pub(super) waiters: Waiters,
    /// How long the next leader spins at most, if that was changed.
    pub(super) spin: Option<Spin>,
    /// If tasks or pollers wait.
    pub(super) pollers: Option<Pollers>,
    /// Messages taken, of which the bell was not told.
    pub(super) untold: u32,
    /// Whether handles may be kept of messages that a reply was taken before.
    keeps_handles: bool,
    /// What the sending half knows.
    pub(super) space: Arc<Space>,
    /// The signals' word as it was last looked at. The leader compares with it.
    signals_seen: Arc<AtomicU32>,
    /// Whether it was found that the peer has gone, and all that wait were told.
    pub(super) has_peer_gone: Arc<AtomicBool>,
    /// Whether all handles were closed that it had handed over, as nothing is left to read.
    is_cleared: bool,
}

/// What tasks and pollers wait for.
#[derive(Debug)]
pub(super) struct Pollers {
    /// What sleeps in the place of a leader.
    pub(super) standby: Standby,
    /// Readable while there may be something to read.
    pub(super) descriptor: Arc<EventFd>,
    pub(super) is_readable: bool,
}

/// What became of a record that was taken out of its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Withdrawn {
    Gone,
    Stays,
}

/// What is at the front of the queue.
pub(super) type Message<'a> = RecordRef<'a>;

impl State {
    pub(super) fn new(
        end: Attached,
        consumer: Consumer,
        intake: Option<Intake>,
        space: Arc<Space>,
    ) -> Self {
        let mut peer = Peer::default();
        peer.set_rule(Disconnect::Ever);
        Self {
            end: Arc::new(end),
            consumer,
            intake,
            wakes: Wakes::default(),
            peer,
            waiters: Waiters::default(),
            spin: None,
            pollers: None,
            untold: 0,
            keeps_handles: false,
            space,
            signals_seen: Arc::default(),
            has_peer_gone: Arc::default(),
            is_cleared: false,
        }
    }

    /// The first message that is no reply to a call.
    pub(super) fn first(&mut self, scanned: &AtomicU64) -> Result<Option<Front>, Error> {
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

    /// What follows when the head may have moved: moves `scanned` on to it, if it has passed that.
    fn keep_up(&mut self, scanned: &AtomicU64) {
        let head = self.consumer.head();
        self.close_passed_handles();
        let behind = head.wrapping_sub(scanned.load(Relaxed)) as i64;
        if behind < 0 {
            return;
        }
        scanned.store(head, Release);
        // The leader may have armed since the record there was freed, and looked where nothing lies any more.
        if behind > 0
            && self.waiters.has_leader()
            && poll(&self.end.ring, head) == Polled::Something
        {
            self.waiters.call_leader();
        }
    }

    /// Lets `take` have the message `front`.
    pub(super) fn take<T, E: From<ChannelError>>(
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
        self.keep_up(scanned);
        let _ = self.free_withdrawn(scanned); // what is wrong is found by the next look
        self.waiters.tell_observer(); // it may have been the last
        taken
    }

    /// Looks at all that has come. Gives whether the peer has gone.
    pub(super) fn look_for_all(&mut self, scanned: &AtomicU64) -> Result<bool, Error> {
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
    pub(super) fn none_left(&mut self, scanned: &AtomicU64) -> Result<ChannelError, ChannelError> {
        let is_gone = self.peer.is_disconnected(&self.end)?;
        if is_gone && self.first(scanned)?.is_none() {
            self.end.check_whole()?;
            self.clear();
            self.note_peer_gone();
            return Ok(ChannelError::PeerClosed);
        }
        self.end.check_whole()?; // bytes that are missing look like an empty ring
        Ok(ChannelError::ShouldWait)
    }

    /// What `poll` finds for the waiter `id`, after a look at what has come. A reply that it has is given whatever is
    /// wrong with the end.
    pub(super) fn poll<T>(
        &mut self,
        id: WaiterId,
        scanned: &AtomicU64,
        poll: &mut impl FnMut(&mut Self) -> Result<Option<T>, ChannelError>,
    ) -> Result<Option<T>, ChannelError> {
        if self.waiters.has_reply(id) {
            return poll(self);
        }
        if self.waiters.is_observer(id) {
            self.look(scanned)?; // past what is no reply, or the leader would find that again
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
            self.note_peer_gone();
            return Err(ChannelError::PeerClosed);
        }
        self.end.check_whole()?;
        Ok(None)
    }

    /// The word of the signals as it was last looked at.
    pub(super) fn signals_seen(&self) -> Arc<AtomicU32> {
        self.signals_seen.clone()
    }

    /// Looks at the word of the signals, and has those that wait for one look if it has changed.
    pub(super) fn look_at_signals(&mut self) {
        let found = self.end.signals();
        if self.signals_seen.load(Relaxed) != found {
            self.signals_seen.store(found, Release);
            self.waiters.tell_observers();
        }
    }

    /// All signals of the end.
    pub(super) fn observe(&mut self, scanned: &AtomicU64) -> Result<Signal, Error> {
        self.end.check_usable()?;
        let is_gone = self.space.has_peer_gone() || self.peer.is_disconnected(&self.end)?;
        let mut signals = Signal::of_slot(self.end.signals());
        // After the peer: what it sent before it went is seen with its going.
        let is_readable = self.first(scanned)?.is_some();
        if is_readable {
            signals |= Signal::READABLE;
        }
        self.end.check_whole()?;
        if is_gone {
            if !is_readable {
                self.clear();
            }
            self.note_peer_gone();
            signals |= Signal::PEER_CLOSED;
        } else if self.space.missing().is_none() {
            signals |= Signal::WRITABLE;
        }
        Ok(signals)
    }

    /// Has all that wait find that the peer has gone. Those that come later find it by themselves.
    fn note_peer_gone(&mut self) {
        if !self.has_peer_gone.swap(true, Relaxed) {
            self.wake_all();
        }
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
    pub(super) fn wake_all(&mut self) {
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
                self.waiters.tell_observers();
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
    pub(super) fn tell_readable(&mut self) {
        if let Some(pollers) = &mut self.pollers
            && !std::mem::replace(&mut pollers.is_readable, true)
        {
            pollers.descriptor.set();
            pollers.standby.bridge.end_sleeps(); // the arming was ended before that was known
            self.waiters.wake_reading_tasks();
        }
    }

    /// Notes that there is nothing to read: what comes next is told.
    pub(super) fn note_empty(&mut self) {
        if let Some(pollers) = &mut self.pollers
            && std::mem::replace(&mut pollers.is_readable, false)
        {
            pollers.descriptor.clear();
        }
    }

    /// Looks at all that is there.
    pub(super) fn pass_all(&mut self, scanned: &AtomicU64) -> Result<(), Error> {
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
    pub(super) fn show_calls(&self) {
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
