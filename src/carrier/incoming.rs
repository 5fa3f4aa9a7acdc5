//! The receiver's end: it listens, and finds the packet that belongs to a record.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use tombolo_abi::{
    CarriedHandle, HANDLE_COUNT_MAX, HandlePacket, Hello, LockWord, RecordExt, packet_kind,
};

use super::admit;
use super::door::Door;
use crate::error::Error;
use crate::handle::Handle;
use crate::os::socket;
use crate::region::Region;

/// Bytes of the longest packet.
const PACKET_LEN_MAX: usize =
    size_of::<HandlePacket>() + HANDLE_COUNT_MAX as usize * size_of::<CarriedHandle>();

/// Packets without a record that are passed over in one search. Each death of a sender leaves one at
/// the most.
const ORPHANS_MAX: u32 = 1024;

/// How often one look accepts as many as there may be: more than wait on an honest day.
const ROUNDS_MAX: u32 = 64;

/// Where the handles of a ring come in, or of a group of lanes.
#[derive(Debug)]
pub(crate) struct Incoming {
    region: Arc<Region>,
    rings: Range<u32>,
    door: Door,
    /// In the order in which they were accepted.
    connections: Vec<Connection>,
    /// The most of them that honest senders have.
    connections_max: usize,
    /// The connection whose first packet was looked at last, and for which record.
    found: Option<(usize, Wanted)>,
}

#[derive(Debug)]
struct Connection {
    /// `None` once it is over: then nothing comes from it any more.
    socket: Option<OwnedFd>,
    /// `None` where the hello has not come yet.
    hello: Option<Hello>,
}

/// A record whose handles are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The ring that it lies in.
    pub(crate) ring: u32,
    /// Its sender, in the sender's own words.
    pub(crate) ext: RecordExt,
    pub(crate) position: u64,
    pub(crate) count: u8,
}

/// Why there are no handles.
#[derive(Debug)]
pub(crate) enum NotFetched {
    /// This process may not have so many descriptors; the packet stays.
    TooManyFiles(io::Error),
    /// They were given to a consumer that is gone.
    Lost,
    /// The sender broke the rules.
    Violation(&'static str),
}

/// What a connection has of a record.
#[derive(Debug)]
enum Sought {
    Found(Vec<Handle>),
    NotThere,
    /// Nothing comes any more.
    Over,
}

impl Incoming {
    /// Listens for the senders of `rings`, as the owner of their consumer's slot. `senders` is how
    /// many they may have.
    ///
    /// # Errors
    /// What the system calls say.
    pub(crate) fn listen(
        region: &Arc<Region>,
        rings: Range<u32>,
        senders: usize,
    ) -> Result<Self, Error> {
        let door = Door::open(region, rings.start)
            .map_err(|error| region.io_error("listen for the handles of", error.into()))?;
        let connections_max = 64 + 2 * senders;
        let (region, connections) = (region.clone(), Vec::new());
        Ok(Self { region, rings, door, connections, connections_max, found: None })
    }

    /// Whether senders can come in at all.
    pub(crate) fn has_door(&self) -> bool {
        !matches!(self.door, Door::None)
    }

    /// Descriptors of our own on the handles of a record. The packet stays until [`Self::take`].
    ///
    /// # Errors
    /// [`NotFetched`].
    pub(crate) fn fetch(&mut self, wanted: &Wanted) -> Result<Vec<Handle>, NotFetched> {
        if let Some(handles) = self.search(wanted)? {
            return Ok(handles);
        }
        // Whoever sent them may have connected since, and has before it published the record.
        self.accept(Some(wanted))?;
        match self.search(wanted)? {
            Some(handles) => Ok(handles),
            None => Err(self.verdict(wanted)),
        }
    }

    /// Takes the packet of a record that was freed, and with it what nobody has fetched.
    pub(crate) fn take(&mut self, wanted: &Wanted) {
        if let Some((index, found)) = self.found.take()
            && found == *wanted
            && let Some(socket) = self.connections.get(index).and_then(|one| one.socket.as_ref())
        {
            let _ = socket::drop_first(socket.as_fd()); // it is there: nobody else takes it
            return;
        }
        let _ = self.accept(Some(wanted)); // what is not accepted stays, and is an orphan later
        for connection in self.connections.iter_mut().filter(|one| one.is_of(wanted)) {
            connection.drop_up_to(wanted.position);
        }
    }

    /// The senders of accepted connections for which `is_gone` says so. What those have published is in the
    /// ring: once it has been read, [`Self::forget`] them.
    pub(crate) fn departed(&self, is_gone: impl Fn(LockWord) -> bool) -> Vec<LockWord> {
        let senders = self.connections.iter().filter_map(Connection::sender);
        senders.filter(|sender| is_gone(*sender)).collect()
    }

    /// Closes the connections of `senders`, with all that is left in them.
    pub(crate) fn forget(&mut self, senders: &[LockWord]) {
        self.found = None;
        self.connections
            .retain(|one| !one.sender().is_some_and(|sender| senders.contains(&sender)));
    }

    /// Closes everything; not in a forked child, whose parent still listens.
    pub(crate) fn close(&mut self) {
        self.connections.clear();
        self.door.close(&self.region, self.rings.start);
    }

    /// Looks for the packet of a record, on newer connections first.
    fn search(&mut self, wanted: &Wanted) -> Result<Option<Vec<Handle>>, NotFetched> {
        self.found = None;
        for (index, connection) in self.connections.iter_mut().enumerate().rev() {
            if !connection.is_of(wanted) {
                continue;
            }
            let sought = connection.seek(wanted);
            if matches!(sought, Ok(Sought::Over) | Err(NotFetched::Violation(_))) {
                connection.socket = None;
            }
            if let Sought::Found(handles) = sought? {
                self.found = Some((index, *wanted));
                return Ok(Some(handles));
            }
        }
        Ok(None)
    }

    /// Why the packet of a record is nowhere.
    fn verdict(&self, wanted: &Wanted) -> NotFetched {
        let newest = self.connections.iter().rev().find(|one| one.is_of(wanted));
        match newest.and_then(|one| one.hello) {
            Some(hello) if wanted.position.wrapping_sub(hello.tail) as i64 >= 0 => {
                NotFetched::Violation("a record with handles, and none were sent with it")
            }
            _ => NotFetched::Lost,
        }
    }

    /// Accepts who waits, as many as there may be, and reads the hello of each. Closes what is over, and
    /// what is passed where `wanted` is the first record of its ring.
    ///
    /// # Errors
    /// [`NotFetched::TooManyFiles`]; those who are still waiting go on waiting.
    pub(crate) fn accept(&mut self, wanted: Option<&Wanted>) -> Result<(), NotFetched> {
        self.found = None;
        self.connections.iter_mut().for_each(Connection::close_if_over);
        let mut accepted = Ok(());
        for _ in 0..ROUNDS_MAX {
            self.drop_stale(wanted);
            let before = self.connections.len();
            accepted = self.accept_waiting();
            for connection in &mut self.connections {
                connection.read_hello(&self.region, &self.rings);
            }
            // Newcomers may have made others stale, and others may be waiting for their room.
            if self.connections.len() == before || self.connections.len() < self.connections_max {
                break;
            }
        }
        self.drop_stale(wanted);
        accepted
    }

    /// Drops what nothing comes from any more, or nothing that `wanted` or a later record has.
    fn drop_stale(&mut self, wanted: Option<&Wanted>) {
        let connections = &self.connections;
        let is_stale = |(index, one): (usize, &Connection)| {
            let mut later =
                connections[index + 1..].iter().filter(|next| next.slot() == one.slot());
            match one.socket {
                // One that is over still tells where its sender began, until its slot connects again.
                None => one.hello.is_none() || later.next().is_some(),
                Some(_) => later.any(|next| wanted.is_some_and(|wanted| next.began_by(wanted))),
            }
        };
        let is_stale: Vec<_> = connections.iter().enumerate().map(is_stale).collect();
        let mut is_stale = is_stale.into_iter();
        self.connections.retain(|_| !is_stale.next().unwrap_or(false));
    }

    fn accept_waiting(&mut self) -> Result<(), NotFetched> {
        while self.connections.len() < self.connections_max {
            match self.door.accept(&self.region, self.rings.start) {
                Ok(None) => break,
                Ok(Some(socket)) => {
                    if let Some(socket) = admit(&self.region, socket) {
                        self.connections.push(Connection { socket: Some(socket), hello: None });
                    }
                }
                Err(error) => return Err(NotFetched::TooManyFiles(error.into())),
            }
        }
        Ok(())
    }
}

impl Connection {
    fn sender(&self) -> Option<LockWord> {
        self.hello.map(|hello| LockWord { slot: hello.slot, incarnation: hello.incarnation })
    }

    fn slot(&self) -> Option<u16> {
        self.hello.map(|hello| hello.slot)
    }

    /// Whether its sender connected when `wanted` was not published yet, or was just to be: what its slot
    /// has sent over earlier connections lies before that.
    fn began_by(&self, wanted: &Wanted) -> bool {
        self.hello.is_some_and(|hello| {
            hello.ring == wanted.ring && wanted.position.wrapping_sub(hello.tail) as i64 >= 0
        })
    }

    fn is_of(&self, wanted: &Wanted) -> bool {
        self.hello.is_some_and(|hello| hello.ring == wanted.ring && hello.is_of(wanted.ext))
    }

    /// Reads the first packet where that has not been done. Anything else than a hello of one of
    /// `rings` ends the connection.
    fn read_hello(&mut self, region: &Region, rings: &Range<u32>) {
        let (Some(socket), None) = (&self.socket, &self.hello) else { return };
        let mut bytes = [0; size_of::<Hello>()];
        let len = match socket::peek_bytes(socket.as_fd(), &mut bytes) {
            Err(Errno::AGAIN) => return, // it has connected and not come to saying it
            found => found.unwrap_or(0),
        };
        let hello: Hello = bytemuck::pod_read_unaligned(&bytes);
        let header = region.header();
        let is_ours = len == bytes.len()
            && hello.kind == packet_kind::HELLO
            && rings.contains(&hello.ring)
            && region.entries()[hello.ring as usize].tx_slots().contains(&hello.slot)
            && (hello.region_uuid, hello.key) == (header.region_uuid, header.key);
        if is_ours && socket::drop_first(socket.as_fd()).is_ok() {
            self.hello = Some(hello);
        } else {
            self.socket = None;
        }
    }

    /// Closes it where its sender has closed it too and nothing is left in it.
    fn close_if_over(&mut self) {
        let is_over = |socket: &OwnedFd| {
            !matches!(socket::peek_bytes(socket.as_fd(), &mut [0; 1]), Ok(1..) | Err(Errno::AGAIN))
        };
        self.socket.take_if(|socket| is_over(socket));
    }

    /// Looks at the first packet that is not an orphan.
    fn seek(&self, wanted: &Wanted) -> Result<Sought, NotFetched> {
        let Some(socket) = &self.socket else { return Ok(Sought::Over) };
        let mut bytes = [0; PACKET_LEN_MAX];
        for _ in 0..ORPHANS_MAX {
            let found = match socket::peek(socket.as_fd(), &mut bytes) {
                Ok(found) if found.len > 0 => found,
                Err(Errno::AGAIN) => return Ok(Sought::NotThere),
                _ => return Ok(Sought::Over),
            };
            let packet: HandlePacket = first_of(&bytes);
            if packet.kind == packet_kind::HANDLES {
                self.check(wanted.ring, &packet, found.len)?;
                match packet.position.wrapping_sub(wanted.position) as i64 {
                    0 => return open(&packet, &bytes, found, wanted).map(Sought::Found),
                    1.. => return Ok(Sought::NotThere),
                    _ => {} // an orphan
                }
            }
            if socket::drop_first(socket.as_fd()).is_err() {
                return Ok(Sought::Over);
            }
        }
        Err(NotFetched::Violation("packets with handles without end, and no records to them"))
    }

    /// Whether a packet is well-formed and its sender's.
    fn check(&self, ring: u32, packet: &HandlePacket, len: usize) -> Result<(), NotFetched> {
        let sender = LockWord { slot: packet.slot, incarnation: packet.incarnation };
        let handles_len = usize::from(packet.handle_count) * size_of::<CarriedHandle>();
        let is_sound = packet.ring == ring
            && self.sender() == Some(sender)
            && packet.handle_count <= HANDLE_COUNT_MAX
            && len == size_of::<HandlePacket>() + handles_len;
        if is_sound { Ok(()) } else { Err(NotFetched::Violation("a malformed packet of handles")) }
    }

    /// Drops what lies at `position` and before it.
    fn drop_up_to(&mut self, position: u64) {
        let Some(socket) = &self.socket else { return };
        for _ in 0..ORPHANS_MAX {
            let mut bytes = [0; size_of::<HandlePacket>()];
            let len = socket::peek_bytes(socket.as_fd(), &mut bytes).unwrap_or(0);
            let packet: HandlePacket = first_of(&bytes);
            let is_later = packet.kind == packet_kind::HANDLES
                && packet.position.wrapping_sub(position) as i64 > 0;
            if len == 0 || is_later || socket::drop_first(socket.as_fd()).is_err() {
                return;
            }
        }
    }
}

/// The handles in a packet that is the wanted one's.
fn open(
    packet: &HandlePacket,
    bytes: &[u8],
    found: socket::Packet,
    wanted: &Wanted,
) -> Result<Vec<Handle>, NotFetched> {
    let (count, len) = (usize::from(packet.handle_count), found.descriptors.len());
    if count != usize::from(wanted.count) {
        return Err(NotFetched::Violation("another number of handles than the record states"));
    }
    if len < count && found.is_cut {
        return Err(NotFetched::TooManyFiles(Errno::MFILE.into()));
    }
    if len != count {
        return Err(NotFetched::Violation("another number of descriptors than handles"));
    }
    let carried = bytes[size_of::<HandlePacket>()..].chunks(size_of::<CarriedHandle>());
    let carried = carried.map(first_of::<CarriedHandle>);
    let handles = carried.zip(found.descriptors);
    Ok(handles.map(|(carried, fd)| Handle::carried(fd, carried.rights)).collect())
}

/// The value at the start of `bytes`, which hold one.
fn first_of<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> T {
    bytemuck::pod_read_unaligned(&bytes[..size_of::<T>()])
}
