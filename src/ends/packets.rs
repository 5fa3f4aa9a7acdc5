//! Sending messages with handles.

use std::sync::atomic::Ordering::Acquire;

use std::mem::offset_of;

use tombolo_abi::{LockWord, RecordExt, Slot, slot_flags};

use crate::carrier::{HandOver, Unsent};
use crate::deadline::Deadline;
use crate::endpoint::attached::Attached;
use crate::endpoint::slot_table::byte_is_held;
use crate::ends::errors::{NotSent, SendError, SendTimeoutError, TrySendError};
use crate::ends::message::MessagePacket;
use crate::ends::sender::{Claimed, Sender, lock};
use crate::ends::topology::Topology;
use crate::error::Error;
use crate::handle::{Handle, Through, check_moved};
use crate::ring::carry::{Carried, NotCarried, Spot};

impl<K: Topology> Sender<K> {
    /// Sends `packet`, waiting while there is no room, or, where it has handles, nobody to take them.
    ///
    /// Bytes and handles arrive together. On failure the error gives back the packet with all its handles.
    ///
    /// # Errors
    /// As [`Self::send`]; [`Error::Handles`] for handles that no message takes;
    /// [`Error::HandlesNotCarried`] if the region was made without `max_handles`; [`Error::Io`] if the
    /// receiver could make no socket, with what the kernel told it. It tries again each second.
    ///
    /// # Cost
    /// Without handles that of [`Self::send`]. With handles three system calls, the first to ask whether
    /// the receiver lives, the last to close what was sent; one more for each of which nothing is known
    /// yet, and four or so for the first message.
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
    /// rx.attach()?; // who receives handles must be there
    /// tx.send_packet(MessagePacket::from(b"read this").handle(File::open("/proc/self/exe")?))?;
    /// let mut message = rx.recv()?;
    /// let file = File::from(message.handles.remove(0).into_fd());
    /// assert!(file.metadata()?.is_file());
    ///
    /// // A list of dispositions says what is kept here, and what the receiver may do.
    /// let kept = Handle::new(File::open("/proc/self/exe")?);
    /// let mut list = [HandleDisposition::duplicate(&kept).rights(Rights::READ)];
    /// let mut packet = MessagePacket::from(b"look, and pass it to nobody");
    /// packet.handles = HandleDisposition::resolve_all(&mut list, &[])?;
    /// tx.send_packet(packet)?;
    /// assert_eq!(rx.recv()?.handles[0].rights(), Rights::READ);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[expect(clippy::result_large_err, reason = "the error gives the message back")]
    pub fn send_packet(&mut self, packet: MessagePacket) -> Result<(), SendError<MessagePacket>> {
        Ok(self.send_packet_timeout(packet, Deadline::NEVER)?)
    }

    /// As [`Self::send_packet`], waiting until `deadline`.
    ///
    /// # Errors
    /// As [`Self::send_packet`]; [`SendTimeoutError::Timeout`] if there was no room until then,
    /// [`SendTimeoutError::NoReceiver`] if no receiver was there to take the handles.
    #[expect(clippy::result_large_err, reason = "the error gives the message back")]
    pub fn send_packet_timeout(
        &mut self,
        packet: MessagePacket,
        deadline: impl Into<Deadline>,
    ) -> Result<(), SendTimeoutError<MessagePacket>> {
        let index = self.ring();
        let sent = self
            .check_handles(&packet)
            .and_then(|()| self.until(deadline.into(), |sender| sender.attempt_packet(&packet)));
        match sent {
            Ok(()) => {
                Handle::close_all(packet.handles);
                Ok(())
            }
            Err(error) => Err(error.into_timeout_error(packet, index)),
        }
    }

    /// Sends `packet` if there is room now and, where it has handles, somebody to take them. On failure
    /// the error has the packet with all its handles.
    ///
    /// # Errors
    /// As [`Self::try_send`]; [`TrySendError::NoReceiver`]; [`Error::Handles`]. The ring is
    /// [`TrySendError::Full`] too where 256 handles are on their way through it, or the kernel takes no
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

    /// Judges the handles of `packet`. Nothing has happened before.
    fn check_handles(&self, packet: &MessagePacket) -> Result<(), NotSent> {
        if packet.handles.is_empty() {
            return Ok(());
        }
        let (ring, limit) = (self.ring(), self.max_handles() as u16);
        if limit == 0 {
            let reason = "the region was made without them; see OpenOptions::max_handles";
            return Err(Error::HandlesNotCarried { ring, reason }.into());
        }
        let outgoing = self.usable_claimed().map(Claimed::outgoing);
        let judged = match outgoing.as_ref().and_then(|outgoing| outgoing.through()) {
            Some(through) => check_moved(&packet.handles, limit, through),
            None => {
                let own = std::iter::once(self.region.plain());
                Through::of(own.chain(self.region.rendezvous_sockets()))
                    .and_then(|through| check_moved(&packet.handles, limit, &through))
            }
        };
        Ok(judged.map_err(|source| Error::Handles { source })?)
    }

    fn attempt_packet(&mut self, packet: &MessagePacket) -> Result<(), NotSent> {
        if packet.handles.is_empty() { self.attempt(&packet.data) } else { self.carry(packet) }
    }

    #[cold]
    fn carry(&mut self, packet: &MessagePacket) -> Result<(), NotSent> {
        let claimed = self.usable()?;
        claimed.check_len(packet.data.len())?;
        // Before connecting is tried: who begins to listen after that changes it.
        let seen = claimed.end.slot.region().membership().load(Acquire);
        claimed.attempt(|claimed| claimed.carry_reconnecting(packet, seen))?;
        claimed.end.slot.add(offset_of!(Slot, handles), packet.handles.len() as u64);
        Ok(())
    }
}

impl<K: Topology> Claimed<K> {
    /// Sends over the connection that there is, and over a new one where that is broken.
    fn carry_reconnecting(&mut self, packet: &MessagePacket, seen: u32) -> Result<(), NotSent> {
        let was_connected = self.outgoing().is_connected();
        match self.carry_once(packet, seen) {
            Err(NotSent::NoReceiver { .. }) if was_connected => self.carry_once(packet, seen),
            sent => sent,
        }
    }

    fn carry_once(&mut self, packet: &MessagePacket, seen: u32) -> Result<(), NotSent> {
        let Self { end, outgoing, producer, wakes, recount, .. } = self;
        let (region, ring, sender) = (&**end.slot.region(), end.index, end.slot.identity());
        let not_sent = |unsent| not_sent(unsent, seen);
        let mut outgoing = lock(outgoing); // clones send one after the other, before they take the lock
        if !outgoing.is_connected() {
            check_receiver(end).map_err(not_sent)?;
        }
        outgoing.connect(region, end.group.rings.start).map_err(not_sent)?;
        end.slot.flag(slot_flags::HAS_SOCKET);
        let LockWord { slot, incarnation } = sender;
        let ext = RecordExt { txid: 0, slot, incarnation_low: incarnation as u16 };
        let handle_count = packet.handles.len() as u8; // 64 at the most
        let carried = Carried { payload: &packet.data, handle_count, ext };
        let hand_over = |Spot { tail, position }| {
            check_receiver(end)?;
            let handles = &packet.handles[..];
            outgoing.hand_over(&HandOver { region, ring, sender, tail, position, handles })
        };
        K::produce(end, producer, wakes, &[&packet.data], |window, ring| {
            window.send_carried(ring, &carried, recount, hand_over).map_err(|error| match error {
                NotCarried::Refused(refusal) => NotSent::of(end, refusal),
                NotCarried::NotHandedOver(unsent) => not_sent(unsent),
            })
        })?;
        Ok(())
    }
}

fn not_sent(unsent: Unsent, seen: u32) -> NotSent {
    match unsent {
        Unsent::NoReceiver => NotSent::NoReceiver { seen },
        Unsent::Crowded => NotSent::Crowded,
        Unsent::Failed(error) => NotSent::Failed(error),
    }
}

/// An error if no process owns the receiving endpoint. Its sockets tell nothing: a forked child of
/// the one that was killed may have them still, and would keep what is sent to them.
fn check_receiver(end: &Attached) -> Result<(), Unsent> {
    let region = end.slot.region();
    let slot = region.entries()[end.group.rings.start as usize].rx_slot;
    let is_held = match byte_is_held(region, slot..slot + 1) {
        Ok(false) => end.slot.is_any_held(slot..slot + 1), // believed only when asked with care
        found => found,
    };
    match is_held {
        Ok(true) => Ok(()),
        Ok(false) => Err(Unsent::NoReceiver),
        Err(error) => Err(Unsent::Failed(error)),
    }
}
