//! `Channel`: one end of a bidirectional pipe of messages.

use std::fmt;
use std::io::IoSlice;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::io::Errno;

use super::channel_error::{ChannelError, NotWritten};
use super::close_reason::CloseReason;
use super::end_object::{EndObject, Parts};
use super::inbox::Inbox;
use super::looking::Message;
use super::message_buf::MessageBuf;
use super::outbox::{As, Outbox, Writing, attempt, prepare};
use super::readable::Reading;
use super::space::Space;
use crate::crash::{crash_point, test_point};
use crate::deadline::Deadline;
use crate::endpoint::{Attached, EndWords, Interrupts, Until, map_ring};
use crate::ends::{MessagePacket, Readiness, Waitable};
use crate::error::{CHANNEL, Error};
use crate::handle::{Handle, HandleDisposition, HandleType, KoID, Rights, channel_end_koid};
use crate::options::Prefault;
use crate::os::descriptor::Descriptor;
use crate::os::futex::Sleeping;
use crate::os::{fork, socket};
use crate::region::{EventsRegion, OpenOptions, Region};
use crate::wait::{SPIN_MAX, Spin, Turn, Waited, any};

/// The most parts that [`Channel::write_vectored`] gathers.
pub(super) const PART_COUNT_MAX: usize = 8192;

/// One end of a channel: messages of up to 65,536 bytes and 64 handles, both ways, in order.
///
/// Both ends may be in one process or in two, and any number of threads may use an end at once. What is written
/// to one end is read from the other, whole or not at all. A message that was written stays, whatever happens to
/// the process that wrote it. A channel is closed for good when one of its ends is: the other end reads what is
/// left and then gets [`ChannelError::PeerClosed`], also if the process that owned the closed end was killed.
///
/// A [`call`](Self::call) is a message with a reply: the first four bytes of both are the transaction id. The
/// other end reads requests like all messages, and answers by writing a message that begins with the same four
/// bytes.
///
/// | | waits | with a deadline | never waits |
/// |---|---|---|---|
/// | write; the handles are gone in any case | [`write`](Self::write) | | |
/// | write; a failure gives the message back | | [`write_timeout`](Self::write_timeout) | [`try_write`](Self::try_write) |
/// | read | | [`read_timeout`](Self::read_timeout) | [`read`](Self::read) |
/// | request and reply | | [`call`](Self::call) | |
///
/// # Cost
/// A write or a read copies the message once, without a system call as long as neither end sleeps. Messages with
/// handles take the system calls of [`Sender::send_packet`](crate::Sender::send_packet).
///
/// # Source
/// Zircon's channel, as zCore has it, with the `call` of both; giving the message back is Magenta's.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use tombolo::Channel;
/// let (client, server) = Channel::create()?;
/// let serving = std::thread::spawn(move || {
///     let mut message = server.read_timeout(Duration::from_secs(10))?;
///     message.data.extend(b" pong"); // the first four bytes say which call this answers
///     server.write(message)
/// });
/// let reply = client.call(b"\0\0\0\0ping", Duration::from_secs(10))?;
/// assert_eq!(&reply.data[4..], b"ping pong");
/// serving.join().unwrap()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Channel {
    region: Arc<Region>,
    /// The ring on which this end sends: 0 or 1.
    pub(super) side: u32,
    pub(super) object: Arc<EndObject>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) outbox: Arc<Outbox>,
    /// The next transaction id to try for a call, but for the bit that is set in all.
    pub(super) next_txid: AtomicU32,
    in_wait_any: InWaitAny,
}

/// What `wait_any` knows of an end.
#[derive(Debug)]
struct InWaitAny {
    /// When it last named the end: its count of all that were named.
    named: u64,
    spin: Spin,
    timed_out: bool,
}

/// A handle that was read, with what is known of it before it is used: by [`Channel::read_etc`].
///
/// # Source
/// `zx_handle_info_t`.
#[derive(Debug)]
#[non_exhaustive]
pub struct HandleInfo {
    /// The handle.
    pub handle: Handle,
    /// Its type, as the kernel shows it.
    pub handle_type: HandleType,
    /// Its rights, as the sender left them.
    pub rights: Rights,
}

impl From<Handle> for HandleInfo {
    fn from(handle: Handle) -> Self {
        let (handle_type, rights) = (handle.handle_type(), handle.rights());
        Self { handle, handle_type, rights }
    }
}

impl Channel {
    /// Makes a channel in anonymous memory and returns both ends.
    ///
    /// # Errors
    /// As [`EventsRegion::anonymous`].
    pub fn create() -> Result<(Self, Self), Error> {
        Self::create_with(OpenOptions::new())
    }

    /// As [`Self::create`], with options: [`OpenOptions::spsc_capacity`], [`OpenOptions::max_message`] and
    /// [`OpenOptions::max_handles`] are those of each direction, by default 1 MiB, 65,536 bytes and 64 handles.
    ///
    /// # Errors
    /// As [`Self::create`]; [`Error::InvalidOption`] also for options of rings that a channel doesn't have.
    pub fn create_with(options: OpenOptions) -> Result<(Self, Self), Error> {
        let options = options.of_channel()?.prefault(Prefault::OnDemand);
        let region = EventsRegion::anonymous(options)?.shared().clone();
        let [one, other] = sockets()
            .map_err(|error| region.io_error("make sockets for the handles of", error.into()))?;
        let end = |sockets| {
            let ends = Attached::attach_in_new(&region)?;
            Self::at(&region, ends, Some(sockets), Rights::CHANNEL_DEFAULT)
        };
        Ok((end(one)?, end(other)?))
    }

    /// Opens an end of the channel `name`, see [`Self::open_path_with`]; names are those of
    /// [`EventsRegion::open`].
    ///
    /// # Errors
    /// As [`Self::open_path_with`].
    pub fn open(name: &str) -> Result<Self, Error> {
        Self::open_with(name, OpenOptions::new())
    }

    /// As [`Self::open`], with options.
    ///
    /// # Errors
    /// As [`Self::open_path_with`].
    pub fn open_with(name: &str, options: OpenOptions) -> Result<Self, Error> {
        Self::open_by(options, |options| EventsRegion::open_with(name, options))
    }

    /// Opens an end of the channel in the file `path`, see [`Self::open_path_with`].
    ///
    /// # Errors
    /// As [`Self::open_path_with`].
    pub fn open_path(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_path_with(path, OpenOptions::new())
    }

    /// Opens an end of the channel in the file `path`: the first to open it gets one end, the next the other.
    /// Either may write at once. When an end is closed, or its owner has exited, the channel is over, and the
    /// next to open it makes a new one; the end that is left keeps what it has.
    ///
    /// Options are those of [`Self::create_with`] and all that are not of rings.
    ///
    /// # Errors
    /// [`Error::Busy`] if both ends have owners; [`Error::Layout`] also if the region there is not a channel; else
    /// as [`EventsRegion::open_path_with`].
    ///
    /// # Examples
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("demo.tombolo");
    /// use tombolo::{Channel, Error};
    /// let ours = Channel::open_path(&path)?;
    /// ours.write(b"hello")?;
    /// let theirs = Channel::open_path(&path)?; // in another process, mostly
    /// assert_eq!(theirs.read()?.data, b"hello");
    /// assert!(matches!(Channel::open_path(&path), Err(Error::Busy { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_path_with(path: impl AsRef<Path>, options: OpenOptions) -> Result<Self, Error> {
        let path = path.as_ref();
        Self::open_by(options, |options| EventsRegion::open_path_with(path, options))
    }

    fn open_by(
        options: OpenOptions,
        open: impl Fn(OpenOptions) -> Result<EventsRegion, Error>,
    ) -> Result<Self, Error> {
        let options = options.of_channel()?;
        let deadline = Deadline::from(options.patience());
        loop {
            let region = open(options.clone())?;
            let is_again = match Self::attach(region.shared()) {
                // It was replaced, or an end lost its owner, since it was opened: the next to open it makes another.
                Err(error @ (Error::Replaced { .. } | Error::LaneNotEmpty { .. })) => error,
                Err(Error::Busy { pid, .. }) => {
                    return Err(Error::Busy { ring: 0, role: CHANNEL, pid, places: 2 });
                }
                attached => {
                    let channel = attached?;
                    channel.outbox.meet(&channel.inbox, deadline);
                    return Ok(channel);
                }
            };
            if deadline.has_passed() {
                return Err(is_again);
            }
        }
    }

    /// Takes an end that has had no owner.
    fn attach(region: &Arc<Region>) -> Result<Self, Error> {
        region.check_ours()?;
        let until = Until { deadline: Deadline::PAST, interrupts: Interrupts::never() };
        let ends = Attached::attach_to_either(region, until)?;
        Self::at(region, ends, None, Rights::CHANNEL_DEFAULT)
    }

    /// The end that sends and receives there. Handles cross over `sockets`, or as in the region's other rings.
    pub(super) fn at(
        region: &Arc<Region>,
        (sending, receiving): (Attached, Attached),
        sockets: Option<Sockets>,
        rights: Rights,
    ) -> Result<Self, Error> {
        let (region, side) = (region.clone(), sending.index);
        let id = |side: u32| channel_end_koid(region.header().region_uuid, side.into());
        let slots = [&sending, &receiving].map(|end| end.slot.seat().slot);
        slots.iter().for_each(|slot| EndWords::new(&region, *slot).set_koid(id(side)));
        let peer_slot = sending.entry.rx_slot;
        let ends = [(id(side), slots[1]), (id(receiving.index), peer_slot)];
        let space = Arc::new(Space::new(map_ring(&region, side, side)?));
        let (outgoing, incoming) = sockets.map(|Sockets { out, into }| (out, into)).unzip();
        // The end that was opened first is come to, the later one comes.
        let incoming = incoming.or((side != 0).then(Vec::new));
        let inbox = Inbox::attach(receiving, incoming, space.clone())?;
        test_point!("channel.half-attached");
        let outbox = Outbox::attach(sending, outgoing, space.clone())?;
        let (inbox, outbox) = (Arc::new(inbox), Arc::new(outbox));
        let parts = Parts { inbox: inbox.clone(), outbox: outbox.clone(), space };
        let object = Arc::new(EndObject::new(&region, parts, rights, ends));
        let next_txid = AtomicU32::new(0);
        let in_wait_any = InWaitAny { named: 0, spin: Spin::new(SPIN_MAX), timed_out: false };
        Ok(Self { region, side, object, inbox, outbox, next_txid, in_wait_any })
    }

    /// What this end may be used for: a new one for everything but duplicating, one that came as a handle for what
    /// its sender left.
    #[must_use]
    pub fn rights(&self) -> Rights {
        self.object.rights
    }

    pub(super) fn require(&self, wanted: Rights) -> Result<(), ChannelError> {
        let (held, missing) = (self.rights(), wanted - self.rights());
        if missing.is_empty() { Ok(()) } else { Err(ChannelError::AccessDenied { held, missing }) }
    }

    /// The id of this end: the same in all processes, and never another end's.
    #[must_use]
    pub fn id(&self) -> KoID {
        self.object.id
    }

    /// Writes `message`, waiting while there is no space. Its handles are consumed in any case: either they
    /// are on their way, or they are closed.
    ///
    /// # Errors
    /// [`ChannelError::PeerClosed`]; [`ChannelError::TooLong`] (`OUT_OF_RANGE`), [`ChannelError::Handles`];
    /// [`ChannelError::Closed`], [`ChannelError::Canceled`].
    ///
    /// # Source
    /// `zx_channel_write`, which consumes handles on failure; it never waits, as its queue has no bound.
    pub fn write(&self, message: impl Into<MessagePacket>) -> Result<(), ChannelError> {
        self.write_timeout(message, Deadline::NEVER).map_err(|refused| refused.error)
    }

    /// Writes `message`, waiting for space until `deadline`. On failure the error has the message, with all its
    /// handles.
    ///
    /// # Errors
    /// As [`Self::write`]; [`ChannelError::TimedOut`].
    ///
    /// # Source
    /// Magenta's `mx_channel_write`: all handles are with the caller still, or all are in the channel.
    pub fn write_timeout(
        &self,
        message: impl Into<MessagePacket>,
        deadline: impl Into<Deadline>,
    ) -> Result<(), NotWritten> {
        self.send(message.into(), deadline.into(), true)
    }

    /// Writes `message` if there is space now. On failure the error has the message, with all its handles.
    ///
    /// # Errors
    /// As [`Self::write`]; [`ChannelError::ShouldWait`].
    ///
    /// # Examples
    /// ```
    /// use tombolo::{Channel, MessagePacket};
    /// use tombolo::object::ChannelError;
    /// let (ours, theirs) = Channel::create()?;
    /// ours.try_write(b"one")?;
    /// drop(theirs);
    /// let file = std::fs::File::open("/proc/self/exe")?;
    /// let refused = ours.try_write(MessagePacket::from(b"two").handle(file)).unwrap_err();
    /// assert!(matches!(refused.error, ChannelError::PeerClosed));
    /// assert_eq!(refused.message.handles.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_write(&self, message: impl Into<MessagePacket>) -> Result<(), NotWritten> {
        self.send(message.into(), Deadline::PAST, false)
    }

    fn send(
        &self,
        message: MessagePacket,
        deadline: Deadline,
        is_timed: bool,
    ) -> Result<(), NotWritten> {
        let checked = self.require(Rights::WRITE).and_then(|()| {
            self.outbox.check_limits(message.data.len(), message.handles.len())?;
            self.outbox.check_handles(&message.handles)
        });
        let sent = checked.and_then(|()| {
            let sent = self.outbox.send(deadline, |sending| {
                prepare(sending, &self.inbox, &message)?;
                attempt(sending, &message, As::Message)
            });
            sent.map_err(|error| ChannelError::of_write(error, is_timed, self.side))
        });
        match sent {
            Ok(()) => {
                Handle::close_all(message.handles);
                Ok(())
            }
            Err(error) => Err(NotWritten { error, message }),
        }
    }

    /// Writes one message that is gathered from `parts`, with `handles`, which are consumed in any case.
    ///
    /// # Errors
    /// As [`Self::write`]; [`ChannelError::TooManyParts`] (`OUT_OF_RANGE`) for more than 8192.
    ///
    /// # Source
    /// `ZX_CHANNEL_WRITE_USE_IOVEC`.
    ///
    /// # Examples
    /// ```
    /// use std::io::IoSlice;
    /// use tombolo::Channel;
    /// let (ours, theirs) = Channel::create()?;
    /// ours.write_vectored(&[IoSlice::new(b"head "), IoSlice::new(b"and body")], Vec::new())?;
    /// assert_eq!(theirs.read()?.data, b"head and body");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "writev")]
    pub fn write_vectored(
        &self,
        parts: &[IoSlice<'_>],
        handles: Vec<Handle>,
    ) -> Result<(), ChannelError> {
        let (found, limit) = (parts.len(), PART_COUNT_MAX);
        if found > limit {
            return Err(ChannelError::TooManyParts { found, limit });
        }
        // Before so much is gathered: the lengths may add up to anything.
        let found = parts.iter().fold(0usize, |len, part| len.saturating_add(part.len()));
        self.outbox.check_limits(found, handles.len())?;
        let mut data = Vec::with_capacity(found);
        parts.iter().for_each(|part| data.extend_from_slice(part));
        self.write(MessagePacket { data, handles })
    }

    /// Writes `bytes` with the handles of `list`, each moved or duplicated as its disposition says. On failure
    /// nothing is written, moved handles are closed, and duplicated ones stay with the caller.
    ///
    /// # Errors
    /// As [`Self::write`]; [`ChannelError::Handles`] for the first refusal of the list, each of which is also in
    /// its disposition's `result`.
    ///
    /// # Source
    /// `zx_channel_write_etc`.
    ///
    /// # Examples
    /// ```
    /// use std::fs::File;
    /// use tombolo::{Channel, Handle, HandleType, Rights};
    /// use tombolo::handle::HandleDisposition;
    /// let (ours, theirs) = Channel::create()?;
    /// let kept = Handle::new(File::open("/")?);
    /// let mut list = [HandleDisposition::duplicate(&kept).rights(Rights::READ)];
    /// ours.write_etc(b"a directory", &mut list)?;
    /// let (bytes, handles) = theirs.read_etc()?;
    /// assert_eq!((&bytes[..], handles.len()), (&b"a directory"[..], 1));
    /// assert_eq!((handles[0].handle_type, handles[0].rights), (HandleType::Directory, Rights::READ));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_etc(
        &self,
        bytes: &[u8],
        list: &mut [HandleDisposition<'_>],
    ) -> Result<(), ChannelError> {
        let checked = self.outbox.check_limits(bytes.len(), list.len());
        self.write(self.resolve(checked, bytes, list)?)
    }

    /// The message of `bytes` and the handles of `list`, if `checked` lets it.
    pub(super) fn resolve(
        &self,
        checked: Result<(), ChannelError>,
        bytes: &[u8],
        list: &mut [HandleDisposition<'_>],
    ) -> Result<MessagePacket, ChannelError> {
        let handles = HandleDisposition::resolve_all(list, &self.own_files()); // in any case: it consumes them
        checked?;
        let handles = handles?;
        Ok(MessagePacket { data: bytes.to_vec(), handles })
    }

    /// The file that the channel consists of.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.region.plain()
    }

    /// That, and what else must not go through it.
    pub(super) fn own_files(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(self.file()).chain(self.region.rendezvous_sockets()).collect()
    }

    /// Reads the next message, if there is one.
    ///
    /// # Errors
    /// [`ChannelError::ShouldWait`] if there is none and the other end is open, [`ChannelError::PeerClosed`] if
    /// there is none and it is not. [`ChannelError::Failed`] with [`Error::TooManyFiles`] if the process may not
    /// have the handles: the message is still there. [`ChannelError::Closed`].
    ///
    /// # Source
    /// zCore's `read`; `zx_channel_read` with buffers is [`Self::read_parts`].
    pub fn read(&self) -> Result<MessagePacket, ChannelError> {
        self.require(Rights::READ)?;
        self.inbox.read(take)
    }

    /// Reads the next message, waiting for it until `deadline`.
    ///
    /// # Errors
    /// As [`Self::read`]; [`ChannelError::TimedOut`], [`ChannelError::Canceled`].
    pub fn read_timeout(
        &self,
        deadline: impl Into<Deadline>,
    ) -> Result<MessagePacket, ChannelError> {
        self.require(Rights::READ)?;
        self.inbox.read_until(deadline.into(), take)
    }

    /// Reads the next message into the caller's buffers, and returns how many bytes and handles it has. Empty
    /// buffers probe for what the next message needs.
    ///
    /// # Errors
    /// As [`Self::read`]; [`ChannelError::BufferTooSmall`] with what is needed: the message is still there.
    ///
    /// # Source
    /// `zx_channel_read`.
    ///
    /// # Examples
    /// ```
    /// use tombolo::Channel;
    /// use tombolo::object::ChannelError;
    /// let (ours, theirs) = Channel::create()?;
    /// ours.write(b"four")?;
    /// let probe = theirs.read_parts(&mut [], &mut []);
    /// assert!(matches!(probe, Err(ChannelError::BufferTooSmall { needed: 4, .. })));
    /// let mut buffer = [0; 16];
    /// assert_eq!(theirs.read_parts(&mut buffer, &mut [])?, (4, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_parts(
        &self,
        bytes: &mut [u8],
        handles: &mut [Option<Handle>],
    ) -> Result<(usize, usize), ChannelError> {
        self.require(Rights::READ)?;
        self.inbox.read(|message| Ok(message.take_parts(bytes, handles)?))
    }

    /// As [`Self::read_parts`], but a message that does not fit is discarded: it is gone, and its handles are
    /// closed.
    ///
    /// # Errors
    /// As [`Self::read_parts`].
    ///
    /// # Source
    /// `ZX_CHANNEL_READ_MAY_DISCARD`.
    pub fn read_or_discard(
        &self,
        bytes: &mut [u8],
        handles: &mut [Option<Handle>],
    ) -> Result<(usize, usize), ChannelError> {
        self.require(Rights::READ)?;
        self.inbox.read(|message| {
            let needed = (message.len(), message.handle_count());
            let fits = ChannelError::check_fit(needed, (bytes.len(), handles.len()), true);
            if let Err(error) = fits {
                drop(message); // takes it
                return Err(error);
            }
            Ok(message.take_parts(bytes, handles)?)
        })
    }

    /// Reads the next message into `buffer`, which grows as needed and does not allocate once it is large enough.
    /// What it held is gone; on failure it is empty.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_into(&self, buffer: &mut MessageBuf) -> Result<(), ChannelError> {
        buffer.clear();
        self.require(Rights::READ)?;
        let MessageBuf { bytes, handles } = buffer;
        let read = self.inbox.read(|message| {
            bytes.resize(message.len(), 0);
            handles.resize_with(message.handle_count(), || None);
            Ok(message.take_parts(bytes, handles).map(drop)?)
        });
        if read.is_err() {
            buffer.clear();
        }
        read
    }

    /// Reads the next message, if there is one, with the type and the rights of each handle.
    ///
    /// # Errors
    /// As [`Self::read`].
    ///
    /// # Source
    /// `zx_channel_read_etc`.
    pub fn read_etc(&self) -> Result<(Vec<u8>, Vec<HandleInfo>), ChannelError> {
        self.read().map(with_info)
    }

    /// Reads the next message if `check` lets it: with a copy of its bytes and the count of its handles. Otherwise
    /// the message is still there. Without a message `check` is not called. It may use this end. If the message is
    /// read otherwise meanwhile, `check` is called with the one that follows it.
    ///
    /// # Errors
    /// That of `check`; as [`Self::read`].
    ///
    /// # Source
    /// zCore's `check_and_read`.
    ///
    /// # Examples
    /// ```
    /// use tombolo::Channel;
    /// use tombolo::object::ChannelError;
    /// let (ours, theirs) = Channel::create()?;
    /// ours.write(b"for another")?;
    /// let refused = theirs.check_and_read(|bytes, _| match bytes {
    ///     b"for me" => Ok(()),
    ///     _ => Err(ChannelError::ShouldWait),
    /// });
    /// assert!(matches!(refused, Err(ChannelError::ShouldWait)));
    /// assert_eq!(theirs.read()?.data, b"for another");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn check_and_read<E: From<ChannelError>>(
        &self,
        mut check: impl FnMut(&[u8], usize) -> Result<(), E>,
    ) -> Result<MessagePacket, E> {
        self.require(Rights::READ)?;
        loop {
            let (position, handle_count, data) = self.inbox.read(peek)?;
            check(&data, handle_count)?; // without a lock: it is the user's
            let taken = self.inbox.read(|message| {
                if message.position() != position {
                    message.keep();
                    return Ok(None);
                }
                let packet = message.take().map_err(ChannelError::from)?;
                Ok(Some(MessagePacket { data, ..packet })) // what was checked: the peer may have changed it since
            })?;
            if let Some(packet) = taken {
                return Ok(packet);
            }
        }
    }

    /// Tells pollers and tasks when there may be something to read: call [`Self::read`] until it fails with
    /// [`ChannelError::ShouldWait`], then wait. A reply to a call makes nothing ready.
    ///
    /// # Errors
    /// [`ChannelError::Closed`]; [`ChannelError::Failed`] if the process can have no more descriptors or threads.
    pub fn readable(&self) -> Result<Readiness, ChannelError> {
        let (inbox, descriptor) = (self.inbox.clone(), self.inbox.stand_by()?);
        Ok(Readiness::over(Arc::new(Reading { inbox, descriptor })))
    }

    /// Tells pollers and tasks when a message that was refused for want of space may be written: call
    /// [`Self::try_write`] until it fails with [`ChannelError::ShouldWait`], then wait, also for this descriptor to
    /// become *readable*.
    ///
    /// # Errors
    /// As [`Self::readable`].
    pub fn writable(&self) -> Result<Readiness, ChannelError> {
        let (outbox, bridge) = (self.outbox.clone(), self.outbox.stand_by()?);
        Ok(Readiness::over(Arc::new(Writing { outbox, bridge })))
    }

    /// Closes this end. Messages that were written to the other end stay readable there; those that were not read
    /// here are gone, and their handles are closed. Calls of this end that wait end with
    /// [`ChannelError::Canceled`], and those that come later with [`ChannelError::Closed`]. Dropping an end closes
    /// it, too.
    pub fn close(&self) {
        self.end(None);
    }

    /// As [`Self::close`], with a reason for the other end: a code, and a text of which up to 112 bytes arrive.
    ///
    /// # Examples
    /// ```
    /// use tombolo::Channel;
    /// let (ours, theirs) = Channel::create()?;
    /// ours.write(b"the last one")?;
    /// ours.close_with_reason(7, "out of paper");
    /// assert_eq!(theirs.close_reason()?, None); // there is a message still
    /// theirs.read()?;
    /// let reason = theirs.close_reason()?.unwrap();
    /// assert_eq!((reason.code, &*reason.text), (7, "out of paper"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close_with_reason(&self, code: u32, text: &str) {
        self.end(Some((code, text)));
    }

    fn end(&self, reason: Option<(u32, &str)>) {
        if self.region.check_ours().is_err() {
            return; // the end is the parent's, and threads that a forked child has not got may hold its locks
        }
        self.outbox.close(reason);
        crash_point!("close.between-halves");
        self.inbox.close();
    }

    /// Why the other end was closed, if it was closed with a reason and all messages have been read.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] if this end is closed; [`ChannelError::Failed`].
    pub fn close_reason(&self) -> Result<Option<CloseReason>, ChannelError> {
        if !self.inbox.is_drained()? {
            return Ok(None);
        }
        Ok(self.inbox.with_end(|end| CloseReason::load(&end.ring.memory)).flatten())
    }

    /// Sets how long a wait spins at most before it sleeps, as
    /// [`Receiver::set_spin_max`](crate::Receiver::set_spin_max).
    pub fn set_spin_max(&self, longest: Duration) {
        self.inbox.set_spin(Spin::new(longest));
        self.outbox.set_spin(Spin::new(longest));
    }
}

/// An end's socket for handles, once for each direction.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) out: Descriptor,
    /// Several if some of what was sent to the end left the queue before its turn: that first.
    pub(super) into: Vec<Descriptor>,
}

/// Connected sockets for the two ends of a channel.
fn sockets() -> Result<[Sockets; 2], Errno> {
    let no_forks = fork::hold_off()?;
    let (one, other) = socket::pair()?;
    let twice = |socket: OwnedFd| {
        let copy = rustix::io::fcntl_dupfd_cloexec(&socket, 0)?;
        let out = Descriptor::private(copy, &no_forks)?;
        Ok(Sockets { out, into: vec![Descriptor::private(socket, &no_forks)?] })
    };
    Ok([twice(one)?, twice(other)?])
}

impl Waitable for Channel {}

impl any::Waitable for Channel {
    fn attached(&mut self, _: Deadline) -> Result<&mut dyn Waited, Error> {
        self.region.check_ours()?;
        Ok(self)
    }

    fn interrupts(&self) -> &Interrupts {
        Interrupts::never()
    }
}

/// Of a thread that has it alone: no other reads, calls or closes.
impl Waited for Channel {
    fn is_ready(&mut self) -> bool {
        self.inbox.is_ready()
    }

    fn arm(&mut self) -> Option<(Sleeping, Duration)> {
        self.in_wait_any.timed_out = false;
        self.inbox.arm()
    }

    fn disarm(&mut self) {
        self.inbox.disarm(self.in_wait_any.timed_out);
    }

    fn count_sleep(&self) {
        self.inbox.with_end(Attached::count_sleep);
    }

    fn count_peer_exit(&self) {} // told by the next look

    fn note_timeout(&mut self) {
        self.in_wait_any.timed_out = true;
    }

    fn note_named(&mut self, count: u64) {
        self.in_wait_any.named = count;
        self.inbox.note_named();
    }

    fn turn(&mut self) -> Turn<'_> {
        let InWaitAny { named, spin, .. } = &mut self.in_wait_any;
        Turn { named: *named, spin }
    }
}

/// Position, count of handles, and bytes of a message, which stays.
fn peek(message: Message<'_>) -> Result<(u64, usize, Vec<u8>), ChannelError> {
    let message = message.held();
    Ok((message.position(), message.handle_count(), message.to_vec()?))
}

fn take(message: Message<'_>) -> Result<MessagePacket, ChannelError> {
    Ok(message.take()?)
}

/// The bytes of a message, and its handles with what is known of them.
pub(super) fn with_info(packet: MessagePacket) -> (Vec<u8>, Vec<HandleInfo>) {
    (packet.data, packet.handles.into_iter().map(HandleInfo::from).collect())
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.close();
        if self.region.check_ours().is_err() {
            self.inbox.forget_if_locked();
            self.outbox.forget_if_locked();
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("id", &format_args!("{:#x}", self.id()))
            .field("region", &self.region.path())
            .finish_non_exhaustive()
    }
}
