//! The receiving end of a ring.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crate::deadline::Deadline;
use crate::endpoint::{Disconnect, Interrupter, Interrupts, Peers, Until};
use crate::ends::{
    BorrowedWhile, MessagePacket, Receiving, RecordRef, RecvError, RecvTimeoutError, Topology,
    TryRecvError,
};
use crate::error::Error;
use crate::region::Region;
use crate::ring::doorbell::{Polled, poll};
use crate::ring::{Front, Nothing};
use crate::wait::{SPIN_MAX, Spin, wait_for_peer};

/// The receiving end of a ring: [`SpscReceiver`](crate::SpscReceiver) or
/// [`MpscConsumer`](crate::MpscConsumer).
///
/// It attaches at first use, or by [`Receiver::attach`]. Messages come in the order of the ring, or of each
/// lane, see [`MpscOrder`](crate::options::MpscOrder), each once. If a receiver dies, its successor receives
/// again what was not freed, in the same ring at the same position; nothing else is ever repeated. Positions
/// grow by the bytes of each record, not by messages, and a ring never repeats one in the region's life. Two
/// lanes may have the same position: [`RecordRef::ring`] and [`RecordRef::position`] together identify a
/// message.
///
/// # Source
/// Operations and errors are those of `std::sync::mpsc`.
#[derive(Debug)]
pub struct Receiver<K: Topology> {
    region: Arc<Region>,
    index: u32,
    pub(crate) receiving: Option<Receiving>,
    spin_max: Duration,
    disconnect: Disconnect,
    pub(crate) interrupts: Interrupts,
    topology: PhantomData<fn() -> K>,
    /// An end has one user at a time: it may be sent, not shared.
    not_shared: PhantomData<Cell<()>>,
}

impl<K: Topology> Receiver<K> {
    pub(crate) fn new(region: Arc<Region>, index: u32) -> Self {
        let (topology, not_shared) = (PhantomData, PhantomData);
        let (spin_max, disconnect, interrupts) = (SPIN_MAX, <_>::default(), <_>::default());
        let receiving = None;
        Self { region, index, receiving, spin_max, disconnect, interrupts, topology, not_shared }
    }

    /// Takes the next message, waiting for it, with its handles.
    ///
    /// # Errors
    /// [`RecvError::Disconnected`] if the ring is empty, no sender is alive, and one counts as having been
    /// there: by default one that this receiver met, so that a restarted receiver of an empty ring waits
    /// for the next sender, unless [`Disconnect::Ever`] is [set](Self::set_disconnect);
    /// [`RecvError::Interrupted`] by an [`Interrupter`]. For a message with handles also
    /// [`Error::TooManyFiles`], and then it stays in the ring; [`Error::HandlesLost`], which has its bytes;
    /// [`Error::ProtocolViolation`].
    ///
    /// # Cost
    /// One allocation and one copy of the message; no system call while there are messages
    /// and no sender sleeps.
    #[doc(alias("pop", "read", "dequeue", "subscribe", "recvmsg", "SCM_RIGHTS"))]
    pub fn recv(&mut self) -> Result<MessagePacket, RecvError> {
        Ok(self.recv_timeout(Deadline::NEVER)?)
    }

    /// Takes the next message, waiting for it until `deadline`.
    ///
    /// # Errors
    /// [`RecvTimeoutError::Timeout`] if none came until then; else as [`Self::recv`].
    pub fn recv_timeout(
        &mut self,
        deadline: impl Into<Deadline>,
    ) -> Result<MessagePacket, RecvTimeoutError> {
        Ok(self.recv_ref_timeout(deadline)?.take()?)
    }

    /// Takes the next message if there is one now.
    ///
    /// # Errors
    /// [`TryRecvError::Empty`] if there is none; else as [`Self::recv`].
    #[doc(alias = "try_pop")]
    pub fn try_recv(&mut self) -> Result<MessagePacket, TryRecvError> {
        Ok(self.try_recv_ref()?.take()?)
    }

    /// Takes the next message into `buffer`, waiting for it, and returns its length.
    ///
    /// # Errors
    /// As [`Self::recv`]; [`Error::BufferTooSmall`] with the size needed, and then the message
    /// stays. So does one that has handles, with [`Error::BuffersTooSmall`]: see
    /// [`RecordRef::take_parts`]. If each producer has a lane, a message of another one may come before it.
    ///
    /// # Cost
    /// One copy of the message, no allocation; no system call while there are messages
    /// and no sender sleeps.
    ///
    /// # Examples
    /// ```
    /// use tombolo::{EventsRegion, OpenOptions};
    /// let mut region = EventsRegion::anonymous(OpenOptions::new())?;
    /// let (mut tx, mut rx) = region.split_spsc()?;
    /// tx.send(b"four")?;
    /// let mut buffer = [0; 64];
    /// assert!(rx.recv_into(&mut buffer[..3]).is_err());
    /// let len = rx.recv_into(&mut buffer)?;
    /// assert_eq!(&buffer[..len], b"four");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn recv_into(&mut self, buffer: &mut [u8]) -> Result<usize, RecvError> {
        if let Some(len) = self.take_spinning(buffer) {
            return Ok(len);
        }
        Ok(self.recv_into_waiting(buffer, Deadline::NEVER)?)
    }

    /// Takes the next message into `buffer`, waiting for it until `deadline`, and returns its length.
    ///
    /// # Errors
    /// As [`Self::recv_timeout`] and [`Self::recv_into`].
    #[inline]
    pub fn recv_into_timeout(
        &mut self,
        buffer: &mut [u8],
        deadline: impl Into<Deadline>,
    ) -> Result<usize, RecvTimeoutError> {
        if let Some(len) = self.take_spinning(buffer) {
            return Ok(len);
        }
        self.recv_into_waiting(buffer, deadline.into())
    }

    #[cold]
    fn recv_into_waiting(
        &mut self,
        buffer: &mut [u8],
        deadline: Deadline,
    ) -> Result<usize, RecvTimeoutError> {
        let record = self.recv_ref_timeout(deadline)?;
        record.take_into(buffer).map_err(RecvTimeoutError::from)
    }

    /// Takes the next message into `buffer` if there is one now, and returns its length.
    ///
    /// # Errors
    /// As [`Self::try_recv`] and [`Self::recv_into`].
    #[inline]
    pub fn try_recv_into(&mut self, buffer: &mut [u8]) -> Result<usize, TryRecvError> {
        match self.take_fast(buffer) {
            Ok(Some(len)) => Ok(len),
            Err(Nothing) => Err(TryRecvError::Empty),
            Ok(None) => self.try_recv_into_slow(buffer),
        }
    }

    #[cold]
    fn try_recv_into_slow(&mut self, buffer: &mut [u8]) -> Result<usize, TryRecvError> {
        let record = self.try_recv_ref()?;
        record.take_into(buffer).map_err(TryRecvError::from)
    }

    /// Borrows the next message in place, waiting for it. Dropping the [`RecordRef`] takes it.
    ///
    /// Lost handles don't keep a message from being borrowed: [`RecordRef::handles`] reports
    /// [`Error::HandlesLost`] and the like. If it isn't called, the message is taken and nothing is reported.
    ///
    /// # Errors
    /// As [`Self::recv`], but for those that are about a message's handles.
    ///
    /// # Cost
    /// No copy and no allocation; no system call while there are messages
    /// and no sender sleeps.
    #[doc(alias = "peek")]
    #[inline(always)]
    pub fn recv_ref(&mut self) -> Result<RecordRef<'_>, RecvError> {
        Ok(self.recv_ref_timeout(Deadline::NEVER)?)
    }

    /// Borrows the next message in place, waiting for it until `deadline`.
    ///
    /// # Errors
    /// [`RecvTimeoutError::Timeout`] if none came until then; else as [`Self::recv_ref`].
    #[inline(always)]
    pub fn recv_ref_timeout(
        &mut self,
        deadline: impl Into<Deadline>,
    ) -> Result<RecordRef<'_>, RecvTimeoutError> {
        let front = match self.front_fast() {
            Ok(Some(front)) => front,
            _ => self.front_until(deadline.into())?,
        };
        Ok(self.borrow(front)?)
    }

    /// Borrows the next message in place if there is one now.
    ///
    /// # Errors
    /// [`TryRecvError::Empty`] if there is none; else as [`Self::recv_ref`].
    #[inline(always)]
    pub fn try_recv_ref(&mut self) -> Result<RecordRef<'_>, TryRecvError> {
        let front = self.try_front()?;
        Ok(self.borrow(front)?)
    }

    /// The next message if there is one now. Doesn't check for a disconnect.
    #[cold]
    pub(crate) fn front_slow(&mut self) -> Result<Option<Front>, Error> {
        let receiving = self.receiving_until(Deadline::PAST)?;
        receiving.end.check_usable()?;
        match receiving.front()? {
            Some(front) => Ok(Some(front)),
            None if receiving.has_bridge() => match receiving.empty() {
                Ok(front) => Ok(Some(front)),
                Err(TryRecvError::Failed { source }) => Err(source),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => Ok(None),
            },
            // If the ring carries handles, those of senders that have exited must be closed.
            None if receiving.intake.is_some() => Ok(receiving.last_poll()?.0),
            None => Ok(None),
        }
    }

    /// Iterates over messages as they come. Ends when [`Self::recv`] would fail because the other side is
    /// disconnected or an [`Interrupter`] interrupts; a later call goes on once a sender has attached. Damage
    /// is an item, the last one, so that it isn't mistaken for the end.
    pub fn iter(&mut self) -> Iter<'_, K> {
        Iter::new(self)
    }

    /// Attaches now and not at first use. Does nothing if this end is attached.
    ///
    /// Waits up to 100 ms for an owner that is just leaving.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process or end owns the endpoint. [`Error::Replaced`] if the region is no
    /// longer the one to use. [`Error::Poisoned`] if the ring is damaged.
    ///
    /// # Cost
    /// Some forty system calls. The first end that a process attaches also starts its thread `tombolo-watch`.
    #[doc(alias = "claim")]
    pub fn attach(&mut self) -> Result<(), Error> {
        self.receiving_until(Deadline::PAST)?.end.check_usable()
    }

    /// Sets which senders count as having been there, when none is alive: those that this receiver met,
    /// unless this was called.
    ///
    /// # Examples
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("demo.tombolo");
    /// use tombolo::{EventsRegion, TryRecvError};
    /// use tombolo::options::Disconnect;
    /// let (mut tx, _) = EventsRegion::open_path(&path)?.split_spsc()?;
    /// tx.attach()?;
    /// drop(tx); // and then this receiver is started
    /// let (_, mut rx) = EventsRegion::open_path(&path)?.split_spsc()?;
    /// assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)), "the next sender is waited for");
    /// rx.set_disconnect(Disconnect::Ever);
    /// assert!(matches!(rx.try_recv(), Err(TryRecvError::Disconnected)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_disconnect(&mut self, disconnect: Disconnect) {
        self.disconnect = disconnect;
        if let Some(receiving) = &mut self.receiving {
            receiving.peer.set_rule(disconnect);
        }
    }

    /// How many senders are alive, how many there ever were, and whether this receiver met one: for endings
    /// that no rule of [`Disconnect`] covers.
    ///
    /// # Errors
    /// As [`Self::attach`], if the endpoint is not owned yet.
    ///
    /// # Cost
    /// A system call, and up to 13 more for each sender that is alive.
    ///
    /// # Examples
    /// ```
    /// use tombolo::{EventsRegion, OpenOptions};
    /// let mut region = EventsRegion::anonymous(OpenOptions::new())?;
    /// let (mut tx, mut rx) = region.split_mpsc()?;
    /// tx.attach()?;
    /// let peers = rx.peers()?;
    /// assert_eq!((peers.alive, peers.ever, peers.met), (1, 1, true));
    /// # Ok::<(), tombolo::Error>(())
    /// ```
    pub fn peers(&mut self) -> Result<Peers, Error> {
        let end = &self.receiving_until(Deadline::PAST)?.end;
        end.check_usable()?;
        end.meeting.peers(&end.slot)
    }

    /// Waits until a sender is alive, or one has come since a call returned *Disconnected*, or since this
    /// call began: it may have left messages. Attaches this end first.
    ///
    /// # Errors
    /// [`RecvTimeoutError::Timeout`], [`RecvTimeoutError::Interrupted`]; [`RecvTimeoutError::Failed`] as
    /// [`Self::attach`].
    pub fn wait_for_peer(&mut self, deadline: impl Into<Deadline>) -> Result<(), RecvTimeoutError> {
        let deadline = deadline.into();
        self.attach_until(deadline)?;
        let until = Until { deadline, interrupts: &self.interrupts };
        match &self.receiving {
            Some(receiving) => Ok(wait_for_peer(&receiving.end, &receiving.peer, until)?),
            None => Err(Error::ForkedChild.into()), // never: just attached
        }
    }

    /// Returns what ends a blocked call of this receiver, from another thread or a signal handler. From then
    /// on calls check for interrupts and take the slow path for it; without, that costs nothing.
    pub fn interrupter(&mut self) -> Interrupter {
        let interrupter = self.interrupts.interrupter();
        if let Some(receiving) = &self.receiving {
            receiving.end.slot.note_interrupter();
        }
        interrupter
    }

    /// Sets how long a wait spins at most before it sleeps: 50 µs by default. It spins for as long as that
    /// paid lately. With zero it polls once more and sleeps, so that waiting keeps no processor busy, at the
    /// price of a wake-up for each wait.
    ///
    /// # Examples
    /// ```
    /// use tombolo::{EventsRegion, OpenOptions};
    /// let mut region = EventsRegion::anonymous(OpenOptions::new())?;
    /// let (mut tx, mut rx) = region.split_spsc()?;
    /// rx.set_spin_max(std::time::Duration::ZERO);
    /// # tx.send(b"x")?;
    /// # rx.recv()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_spin_max(&mut self, longest: Duration) {
        self.spin_max = longest;
        if let Some(receiving) = &mut self.receiving {
            receiving.bell.spin = Spin::new(longest);
        }
    }

    /// Longest message, in bytes.
    #[must_use]
    pub fn max_message(&self) -> usize {
        self.region.entries()[self.index as usize].max_message as usize
    }

    /// Fast path: the next message. Fails if the ring is empty and there is nothing to report. Returns `None`
    /// if the slow path must decide.
    #[inline(always)]
    fn front_fast(&mut self) -> Result<Option<Front>, Nothing> {
        let Some(receiving) = &mut self.receiving else { return Ok(None) };
        let Receiving { end, consumer, peer, bell, lanes, .. } = receiving;
        if !end.is_sound() {
            return Ok(None);
        }
        match consumer.front_fast(&end.ring) {
            // Another lane may have a message.
            Err(Nothing) if K::MAY_HAVE_LANES && lanes.is_some() => Ok(None),
            Err(Nothing) if end.has_changed(peer.known()) || !end.is_whole() => Ok(None),
            Ok(Some(_)) if bell.is_quantum_over() => Ok(None),
            found => found,
        }
    }

    /// Fast path: takes the next message into `buffer` and returns its length. Otherwise as
    /// [`Self::front_fast`].
    #[inline(always)]
    fn take_fast(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Nothing> {
        let Some(front) = self.front_fast()? else { return Ok(None) };
        let Some(Receiving { end, consumer, wakes, .. }) = &mut self.receiving else {
            return Ok(None);
        };
        let Some(buffer) = buffer.get_mut(..front.payload_len()) else { return Ok(None) };
        consumer.copy_out(&end.ring, front, buffer);
        if !end.is_whole() {
            return Ok(None); // zeros may have been read; nothing was freed
        }
        consumer.free(&end.ring, front, wakes);
        Ok(Some(front.payload_len()))
    }

    /// As [`Self::take_fast`], polling a few times if messages come that fast.
    #[inline(always)]
    fn take_spinning(&mut self, buffer: &mut [u8]) -> Option<usize> {
        match self.take_fast(buffer) {
            Ok(Some(len)) => Some(len),
            _ => self.take_after_spin(buffer),
        }
    }

    #[cold]
    fn take_after_spin(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let Receiving { end, consumer, bell, lanes, .. } = self.receiving.as_mut()?;
        if !end.is_sound() || K::MAY_HAVE_LANES && lanes.is_some() {
            return None; // the mapping may be another process's, or another lane have a message
        }
        let is_there = || poll(&end.ring, consumer.head()) == Polled::Something;
        for round in 0..bell.spin.first_looks() {
            if is_there() {
                if round > 0 {
                    bell.spin.note_first_look(); // it was waited for
                }
                break;
            }
            std::hint::spin_loop();
        }
        self.take_fast(buffer).ok().flatten()
    }

    /// Borrows `front`, which was found just now.
    #[inline(always)]
    pub(crate) fn borrow(&mut self, front: Front) -> Result<RecordRef<'_>, Error> {
        let borrowed = BorrowedWhile::now();
        match &mut self.receiving {
            Some(Receiving { end, consumer, wakes, intake, .. }) => {
                let start = consumer.head().wrapping_add(front.payload_offset());
                Ok(RecordRef::new(end, consumer, wakes, intake, (start, front), borrowed))
            }
            None => Err(Error::ForkedChild), // never: the record came from there
        }
    }

    fn front_until(&mut self, deadline: Deadline) -> Result<Front, RecvTimeoutError> {
        self.attach_until(deadline)?;
        loop {
            if self.interrupts.take() {
                return Err(RecvTimeoutError::Interrupted);
            }
            match self.try_front() {
                Err(TryRecvError::Empty) if !deadline.has_passed() => {
                    let until = Until { deadline, interrupts: &self.interrupts };
                    let Some(receiving) = &mut self.receiving else {
                        return Err(Error::ForkedChild.into()); // never: just attached
                    };
                    receiving.wait(until)?;
                }
                other => return Ok(other?),
            }
        }
    }

    /// Attaches for a call that waits until `deadline`. Does nothing if this end is attached.
    fn attach_until(&mut self, deadline: Deadline) -> Result<(), RecvTimeoutError> {
        match self.receiving_until(deadline).map(drop) {
            Err(_) if self.interrupts.take() => Err(RecvTimeoutError::Interrupted),
            attached => Ok(attached?),
        }
    }

    #[inline(always)]
    fn try_front(&mut self) -> Result<Front, TryRecvError> {
        match self.front_fast() {
            Ok(Some(front)) => Ok(front),
            Err(Nothing) => Err(TryRecvError::Empty),
            Ok(None) => self.try_front_slow(),
        }
    }

    #[cold]
    fn try_front_slow(&mut self) -> Result<Front, TryRecvError> {
        let receiving = self.receiving_until(Deadline::PAST)?;
        receiving.end.check_usable()?;
        match receiving.front()? {
            Some(front) => Ok(front),
            None => receiving.empty(),
        }
    }

    #[inline]
    pub(crate) fn receiving_until(&mut self, deadline: Deadline) -> Result<&mut Receiving, Error> {
        if self.receiving.is_none() {
            let spin = Spin::new(self.spin_max);
            let until = Until { deadline, interrupts: &self.interrupts };
            let mut receiving = Receiving::attach(&self.region, self.index, spin, until)?;
            receiving.peer.set_rule(self.disconnect);
            if self.interrupts.are_possible() {
                receiving.end.slot.note_interrupter();
            }
            self.receiving = Some(receiving);
        }
        match &mut self.receiving {
            Some(receiving) => Ok(receiving),
            None => Err(Error::ForkedChild), // never: just filled if it was empty
        }
    }
}

/// Messages as they come, see [`Receiver::iter`].
#[derive(Debug)]
pub struct Iter<'a, K: Topology> {
    receiver: &'a mut Receiver<K>,
    is_over: bool,
}

impl<'a, K: Topology> Iter<'a, K> {
    pub(crate) fn new(receiver: &'a mut Receiver<K>) -> Self {
        Self { receiver, is_over: false }
    }
}

impl<K: Topology> Iterator for Iter<'_, K> {
    type Item = Result<MessagePacket, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        match self.receiver.recv() {
            Ok(message) => Some(Ok(message)),
            Err(RecvError::Disconnected | RecvError::Interrupted) => None,
            Err(RecvError::Failed { source }) => {
                // The message of these was taken: what comes behind it is in order.
                let goes_on =
                    matches!(source, Error::HandlesLost { .. } | Error::ProtocolViolation { .. });
                self.is_over = !goes_on;
                Some(Err(source))
            }
        }
    }
}

impl<'a, K: Topology> IntoIterator for &'a mut Receiver<K> {
    type Item = Result<MessagePacket, Error>;
    type IntoIter = Iter<'a, K>;

    fn into_iter(self) -> Iter<'a, K> {
        self.iter()
    }
}
