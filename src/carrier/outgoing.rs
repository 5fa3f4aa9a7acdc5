//! The sender's end: one connection for an endpoint, made when it is first needed.

use std::os::fd::AsFd;

use bytemuck::{Zeroable, bytes_of};
use rustix::io::Errno;
use tombolo_abi::{CarriedHandle, HandlePacket, Hello, LockWord, carried, packet_kind};

use super::door::{self, NotConnected};
use super::{CARRIED_LEN, PACKET_LEN_MAX, admit};
use crate::error::Error;
use crate::handle::{Handle, Through};
use crate::os::descriptor::Descriptor;
use crate::os::{fork, socket};
use crate::region::Region;

/// A sender's connection, or none yet.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    connection: Option<Connection>,
    /// Whether it came with the end, as that of a channel: there is no other, and its packets are all the sender's.
    is_given: bool,
}

#[derive(Debug)]
struct Connection {
    socket: Descriptor,
    /// The consumer it was made for, by [`door::consumer`].
    consumer: Option<u32>,
    /// The files that no handle sent here may lead to: the region's, and the socket itself.
    through: Through,
    /// Whether it has said hello.
    is_greeted: bool,
}

/// Why handles were not handed over; the caller still has them.
#[derive(Debug)]
pub(crate) enum Unsent {
    /// No process listens, the backlog is full, or the receiver that had accepted has exited.
    NoReceiver,
    /// The kernel has no space for them now: the queue is full, or this user has too many in flight.
    Crowded,
    /// Anything else.
    Failed(Error),
}

/// What is handed over, and for which record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandOver<'a> {
    pub(crate) region: &'a Region,
    pub(crate) ring: u32,
    /// The sending endpoint.
    pub(crate) sender: LockWord,
    /// The ring's tail.
    pub(crate) tail: u64,
    /// The record's position.
    pub(crate) position: u64,
    pub(crate) handles: &'a [Handle],
}

impl Outgoing {
    /// What sends over `socket`, which leads to the owner of the other end of the channel in `region`.
    pub(crate) fn given(region: &Region, socket: Descriptor) -> Result<Self, Error> {
        let through = through(region, &socket)?;
        let connection = Connection { socket, consumer: None, through, is_greeted: true };
        Ok(Self { connection: Some(connection), is_given: true })
    }

    /// Connects to the other end of a channel, which receives on ring `ring`, and sends over that from now on. Returns
    /// a copy of the socket: what that end sends comes over it, too.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub(crate) fn meet(
        &mut self,
        region: &Region,
        ring: u32,
        sender: LockWord,
    ) -> Result<Descriptor, Unsent> {
        if self.is_given {
            return Err(Unsent::NoReceiver); // it was given, and is broken
        }
        self.connect(region, ring)?;
        let Some(Connection { socket, .. }) = self.connection.take() else {
            return Err(Unsent::NoReceiver); // never: just connected
        };
        let (position, tail, handles) = (0, 0, &[][..]);
        let what = HandOver { region, ring, sender, tail, position, handles };
        socket::send(&socket, bytes_of(&hello(&what)), &[]).map_err(|_| Unsent::NoReceiver)?;
        let failed =
            |error: Errno| Unsent::Failed(region.io_error("copy a socket of", error.into()));
        let copy = copy_of(&socket).map_err(failed)?;
        *self = Self::given(region, socket).map_err(Unsent::Failed)?;
        Ok(copy)
    }

    /// Whether there is a connection, broken perhaps without this side knowing it.
    pub(crate) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// The files that no handle sent over the connection may lead to.
    pub(crate) fn through(&self) -> Option<&Through> {
        self.connection.as_ref().map(|connection| &connection.through)
    }

    /// Connects to the consumer of ring `ring`, or of the lanes of which that is the first, if there
    /// is no connection to it. Not under a ring's lock. The caller has asked whether it lives.
    ///
    /// One to an earlier consumer need not be broken: a forked child may have the other end, or no consumer
    /// accepted it. What was sent over it stays there.
    ///
    /// # Errors
    /// [`Unsent::NoReceiver`] if no process listens or the backlog is full: a name that was removed is made
    /// anew within a second. [`Unsent::Failed`], also if the receiver could make no name.
    pub(crate) fn connect(&mut self, region: &Region, ring: u32) -> Result<(), Unsent> {
        if self.is_given {
            return if self.is_connected() { Ok(()) } else { Err(Unsent::NoReceiver) };
        }
        let consumer = door::consumer(region, ring); // another that comes now is found the next time
        self.connection.take_if(|one| one.consumer != consumer);
        if self.connection.is_some() {
            return Ok(());
        }
        let socket = door::connect(region, ring, consumer)
            .map_err(|error| not_connected(region, ring, error))?;
        let socket = admit(region, socket).ok_or_else(|| {
            let source = Errno::ACCESS.into(); // a stranger's listener
            Unsent::Failed(region.io_error("connect for the handles of", source))
        })?;
        let through = through(region, &socket).map_err(Unsent::Failed)?;
        self.connection = Some(Connection { socket, consumer, through, is_greeted: false });
        Ok(())
    }

    /// Sends the packet of one record, and the hello if it is the first. If the connection turns
    /// out to be broken it is closed: connect, and try again.
    ///
    /// # Errors
    /// [`Unsent`]; nothing of the message was sent.
    pub(crate) fn hand_over(&mut self, what: &HandOver<'_>) -> Result<(), Unsent> {
        if !self.is_given {
            let consumer = door::consumer(what.region, what.ring);
            self.connection.take_if(|one| one.consumer != consumer); // it leads to one that has exited
        }
        let connection = self.connection.as_mut().ok_or(Unsent::NoReceiver)?;
        match connection.send(what) {
            Ok(()) => Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::CONNREFUSED) => {
                self.connection = None;
                Err(Unsent::NoReceiver)
            }
            Err(Errno::AGAIN | Errno::TOOMANYREFS | Errno::NOBUFS | Errno::NOMEM) => {
                Err(Unsent::Crowded)
            }
            Err(error) => {
                Err(Unsent::Failed(what.region.io_error("send handles through", error.into())))
            }
        }
    }
}

/// A copy of a socket, of which no forked child keeps one.
pub(super) fn copy_of(socket: &Descriptor) -> Result<Descriptor, Errno> {
    let no_forks = fork::hold_off()?;
    socket.stat()?; // else it is another's by now
    Descriptor::private(rustix::io::fcntl_dupfd_cloexec(socket, 0)?, &no_forks)
}

/// The files that no handle sent over `socket` may lead to.
fn through(region: &Region, socket: &Descriptor) -> Result<Through, Error> {
    let files = std::iter::once(region.plain()).chain(region.rendezvous_sockets());
    Through::of(files.chain([socket.as_fd()])).map_err(|error| {
        let source = std::io::Error::other(error);
        region.io_error("look at the connection of", source)
    })
}

impl Connection {
    fn send(&mut self, what: &HandOver<'_>) -> Result<(), Errno> {
        if !self.is_greeted {
            socket::send(&self.socket, bytes_of(&hello(what)), &[])?;
            self.is_greeted = true;
        }
        let HandOver { ring, sender, position, handles, .. } = *what;
        send_handles(&self.socket, ring, sender, position, handles)
    }
}

/// Sends the packet with the handles of the record at `position`.
pub(super) fn send_handles(
    socket: &Descriptor,
    ring: u32,
    sender: LockWord,
    position: u64,
    handles: &[Handle],
) -> Result<(), Errno> {
    let mut packet = [0; PACKET_LEN_MAX];
    let (head, table) = packet.split_at_mut(size_of::<HandlePacket>());
    let mut about = HandlePacket::zeroed();
    about.kind = packet_kind::HANDLES;
    about.ring = ring;
    about.position = position;
    about.incarnation = sender.incarnation;
    about.slot = sender.slot;
    about.handle_count = handles.len() as u16;
    head.copy_from_slice(bytes_of(&about));
    let mut descriptors = Vec::with_capacity(handles.len());
    for (handle, place) in handles.iter().zip(table.chunks_exact_mut(CARRIED_LEN)) {
        let before = descriptors.len();
        descriptors.extend(handle.descriptors());
        let descriptor_count = (descriptors.len() - before) as u16;
        let kind = if descriptor_count > 1 { carried::ENDPOINT } else { carried::DESCRIPTOR };
        let carried = CarriedHandle { rights: handle.rights_to_carry(), kind, descriptor_count };
        place.copy_from_slice(bytes_of(&carried));
    }
    let len = size_of::<HandlePacket>() + handles.len() * CARRIED_LEN; // 64 at the most
    socket::send(socket, &packet[..len], &descriptors)
}

fn hello(what: &HandOver<'_>) -> Hello {
    let (header, file) = (what.region.header(), what.region.file_id());
    let mut hello = Hello::zeroed();
    hello.kind = packet_kind::HELLO;
    hello.ring = what.ring;
    hello.region_uuid = header.region_uuid;
    hello.generation = header.generation;
    hello.key = header.key;
    hello.incarnation = what.sender.incarnation;
    hello.slot = what.sender.slot;
    hello.tail = what.tail;
    hello.device = file.dev;
    hello.inode = file.ino;
    hello
}

fn not_connected(region: &Region, ring: u32, error: NotConnected) -> Unsent {
    match error {
        NotConnected::Refused(
            Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN | Errno::CONNRESET,
        ) => Unsent::NoReceiver,
        NotConnected::Refused(Errno::TOOMANYREFS | Errno::NOBUFS | Errno::NOMEM) => Unsent::Crowded,
        NotConnected::Refused(error @ (Errno::MFILE | Errno::NFILE)) => {
            Unsent::Failed(Error::TooManyFiles { ring, source: error.into() })
        }
        NotConnected::Refused(error) => {
            Unsent::Failed(region.io_error("connect for the handles of", error.into()))
        }
        NotConnected::NotOpened(error) => {
            let source = std::io::Error::from_raw_os_error(error);
            let action = "reach the receiver, which could make no socket for handles beside";
            Unsent::Failed(region.io_error(action, source))
        }
        NotConnected::NoDoor => {
            let reason = "its region came as one descriptor; open it by name or path, or pass all of \
                          those that EventsRegion::to_fds gives";
            Unsent::Failed(Error::HandlesNotCarried { ring, reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;
    use std::sync::atomic::Ordering::Relaxed;

    use tombolo_abi::Slot;

    use super::super::connection::tests::region;
    use super::*;
    use crate::endpoint::slot_u32;
    use crate::options::MpscOrder;
    use crate::{EventsRegion, MpscConsumer};

    /// A region with a consumer of ring 1, and no senders but those of the test.
    struct Scene {
        region: EventsRegion,
        _consumer: MpscConsumer,
    }

    impl Scene {
        fn new() -> Self {
            let mut region = region(MpscOrder::Total);
            let (_, mut consumer) = region.split_mpsc().unwrap();
            consumer.attach().unwrap();
            Self { region, _consumer: consumer }
        }

        fn connect(&self, outgoing: &mut Outgoing) {
            outgoing.connect(self.region.shared(), 1).unwrap();
        }

        fn hand_over(&self, outgoing: &mut Outgoing, position: u64) -> Result<(), Unsent> {
            let region = self.region.shared();
            let sender = LockWord { slot: region.entries()[1].tx_slot_first, incarnation: 1 };
            let handles = &[Handle::new(std::fs::File::open("/proc/self/exe").unwrap())];
            outgoing.hand_over(&HandOver { region, ring: 1, sender, tail: 0, position, handles })
        }

        /// As if the consumer had exited and another were there, but its rendezvous not closed.
        fn exchange_consumer(&self) {
            let region = self.region.shared();
            let filled = slot_u32(region, region.entries()[1].rx_slot, offset_of!(Slot, seqlock));
            filled.fetch_add(2, Relaxed);
        }

        /// The kinds of the packets that came over the next connection.
        fn arrived(&self) -> Vec<u32> {
            let rendezvous = self.region.shared().rendezvous(1).unwrap();
            let connection = rendezvous.take_out().unwrap().unwrap();
            let mut bytes = [0; 4];
            let take = || {
                socket::peek_bytes(connection.as_fd(), &mut bytes).ok().filter(|len| *len > 0)?;
                socket::drop_first(&connection).unwrap();
                Some(u32::from_ne_bytes(bytes))
            };
            std::iter::from_fn(take).collect()
        }
    }

    #[test]
    fn a_connection_says_hello_once() {
        let (scene, mut outgoing) = (Scene::new(), Outgoing::default());
        scene.connect(&mut outgoing);
        scene.hand_over(&mut outgoing, 64).unwrap();
        scene.hand_over(&mut outgoing, 128).unwrap();
        let handles = packet_kind::HANDLES;
        assert_eq!(scene.arrived(), [packet_kind::HELLO, handles, handles]);
    }

    #[test]
    fn a_hello_names_the_region_and_which_of_all_at_its_path_it_is() {
        let region = region(MpscOrder::Total);
        let (region, sender) = (region.shared(), LockWord { slot: 1, incarnation: 2 });
        let hello =
            hello(&HandOver { region, ring: 1, sender, tail: 0, position: 0, handles: &[] });
        let header = region.header();
        assert_eq!((hello.region_uuid, hello.generation), (header.region_uuid, 1));
    }

    #[test]
    fn nothing_is_handed_over_to_a_consumer_that_came_after_connecting() {
        let (scene, mut outgoing) = (Scene::new(), Outgoing::default());
        scene.connect(&mut outgoing);
        scene.exchange_consumer();
        let unsent = scene.hand_over(&mut outgoing, 64).unwrap_err();
        assert!(matches!(unsent, Unsent::NoReceiver), "{unsent:?}");
        assert!(!outgoing.is_connected());
        assert!(scene.arrived().is_empty());
    }

    #[test]
    fn connecting_again_leaves_a_connection_to_the_consumer_before() {
        let (scene, mut outgoing) = (Scene::new(), Outgoing::default());
        scene.connect(&mut outgoing);
        scene.exchange_consumer();
        scene.connect(&mut outgoing);
        scene.hand_over(&mut outgoing, 64).unwrap();
        assert!(scene.arrived().is_empty(), "sent over the first one");
        assert_eq!(scene.arrived(), [packet_kind::HELLO, packet_kind::HANDLES]);
    }

    #[test]
    fn what_came_with_the_end_is_the_only_connection_also_once_it_is_broken() {
        let scene = Scene::new();
        let region = scene.region.shared();
        let (ours, theirs) = socket::pair().unwrap();
        let ours = Descriptor::shared(ours).unwrap();
        let mut outgoing = Outgoing::given(region, ours).unwrap();
        scene.connect(&mut outgoing);
        let sender = LockWord { slot: region.entries()[1].tx_slot_first, incarnation: 1 };
        let met = outgoing.meet(region, 1, sender).unwrap_err();
        assert!(matches!(met, Unsent::NoReceiver), "{met:?}");
        let said = socket::peek_bytes(theirs.as_fd(), &mut [0]);
        assert_eq!(said, Err(Errno::AGAIN));
        drop(theirs);
        let unsent = scene.hand_over(&mut outgoing, 64).unwrap_err();
        assert!(matches!(unsent, Unsent::NoReceiver), "{unsent:?}");
        let again = outgoing.connect(region, 1).unwrap_err();
        assert!(matches!(again, Unsent::NoReceiver), "{again:?}");
    }

    #[test]
    fn a_sender_that_may_have_no_more_descriptors_is_told_so_and_one_over_its_quota_waits() {
        let region = region(MpscOrder::Total);
        let unsent = |error| not_connected(region.shared(), 1, NotConnected::Refused(error));
        for error in [Errno::MFILE, Errno::NFILE] {
            let unsent = unsent(error);
            let Unsent::Failed(Error::TooManyFiles { ring: 1, source }) = unsent else {
                panic!("{unsent:?}")
            };
            assert_eq!(source.raw_os_error(), Some(error.raw_os_error()));
        }
        for error in [Errno::TOOMANYREFS, Errno::NOBUFS, Errno::NOMEM] {
            assert!(matches!(unsent(error), Unsent::Crowded));
        }
        assert!(matches!(unsent(Errno::ACCESS), Unsent::Failed(Error::Io { .. })));
    }
}
