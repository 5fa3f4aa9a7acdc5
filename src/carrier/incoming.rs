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

/// Connections that are accepted in one search: no fewer than can have waited when it began.
const ACCEPTED_MAX: u32 = 4096;

/// Connections that are kept in any case: those of senders that came, sent and went. No more handles
/// than 256 are under way in a ring, so no more of these have anything.
const CONNECTIONS_MIN: usize = 320;

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
        let connections_max = CONNECTIONS_MIN + 2 * senders;
        let (region, connections) = (region.clone(), Vec::new());
        Ok(Self { region, rings, door, connections, connections_max, found: None })
    }

    /// Descriptors of our own on the handles of a record. The packet stays until [`Self::take`].
    ///
    /// # Errors
    /// [`NotFetched`].
    pub(crate) fn fetch(&mut self, wanted: &Wanted) -> Result<Vec<Handle>, NotFetched> {
        if let Some(handles) = self.search(wanted)? {
            return Ok(handles);
        }
        self.tidy(|one| one.drop_before(wanted));
        for _ in 0..ACCEPTED_MAX {
            if let Some(handles) = self.search(wanted)? {
                return Ok(handles);
            }
            // Whoever sent them may have connected since, and has before it published the record.
            if !self.accept()? {
                break;
            }
        }
        Err(self.verdict(wanted))
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
        self.tidy(|one| one.drop_before(wanted));
        for _ in 0..ACCEPTED_MAX {
            let mut connections = self.connections.iter().filter(|one| one.is_of(wanted));
            // What cannot be accepted stays, and is an orphan later.
            if connections.any(|one| one.drop_first_of(wanted)) || !self.accept().unwrap_or(false) {
                return;
            }
        }
    }

    /// The senders of connections for which `is_gone` says so. What those have published is in the
    /// ring: once it has been read, [`Self::forget`] them.
    pub(crate) fn departed(&mut self, is_gone: impl Fn(LockWord) -> bool) -> Vec<LockWord> {
        self.tidy(|_| {});
        let is_more = |_: &u32| self.accept().unwrap_or(false); // tried again the next time
        (0..ACCEPTED_MAX).take_while(is_more).for_each(drop);
        let senders = self.connections.iter().filter_map(Connection::sender);
        senders.filter(|sender| is_gone(*sender)).collect()
    }

    /// Closes the connections of `senders`, with all that is left in them.
    pub(crate) fn forget(&mut self, senders: &[LockWord]) {
        self.found = None;
        let is_of_them =
            |one: &mut Connection| one.sender().is_some_and(|it| senders.contains(&it));
        let forgotten = self.connections.extract_if(.., is_of_them);
        forgotten.filter_map(|one| one.socket).for_each(socket::end);
    }

    /// Closes everything; not in a forked child, whose parent still listens.
    pub(crate) fn close(&mut self) {
        self.door.close(&self.region, self.rings.start);
        self.connections.drain(..).filter_map(|one| one.socket).for_each(socket::end);
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

    /// Reads hellos that have come, does `look_after` to each connection, and closes what is over.
    fn tidy(&mut self, look_after: impl Fn(&Connection)) {
        for connection in &mut self.connections {
            connection.read_hello(&self.region, &self.rings);
            look_after(connection);
            connection.close_if_over();
        }
        self.drop_stale();
    }

    /// Drops what nothing comes from any more.
    fn drop_stale(&mut self) {
        // One that is over still tells where its sender began, until its slot connects again.
        let is_stale =
            |index: usize| self.connections[index].socket.is_none() && self.is_surplus(index);
        let stale: Vec<_> = (0..self.connections.len()).map(is_stale).collect();
        let mut stale = stale.into_iter();
        self.connections.retain(|_| !stale.next().unwrap_or(false));
        self.found = None;
    }

    /// Accepts the next who waits, and gives whether there was one.
    fn accept(&mut self) -> Result<bool, NotFetched> {
        let accepted = self.door.accept(&self.region, self.rings.start);
        let Some(socket) = accepted.map_err(|error| NotFetched::TooManyFiles(error.into()))? else {
            return Ok(false);
        };
        if let Some(socket) = admit(&self.region, socket) {
            let mut connection = Connection { socket: Some(socket), hello: None };
            connection.read_hello(&self.region, &self.rings);
            self.make_room();
            self.connections.push(connection);
        }
        Ok(true)
    }

    /// Closes a connection where there are more than honest senders have: one that has said nothing,
    /// or whose slot has connected again.
    fn make_room(&mut self) {
        if self.connections.len() < self.connections_max {
            return;
        }
        let candidates = (0..self.connections.len()).filter(|index| self.is_surplus(*index));
        if let Some(index) = candidates.min_by_key(|index| self.connections[*index].has_something())
        {
            self.connections.remove(index);
            self.found = None;
        }
    }

    fn is_surplus(&self, index: usize) -> bool {
        let slot = self.connections[index].slot();
        slot.is_none() || self.connections[index + 1..].iter().any(|later| later.slot() == slot)
    }
}

impl Connection {
    fn sender(&self) -> Option<LockWord> {
        self.hello.map(|hello| LockWord { slot: hello.slot, incarnation: hello.incarnation })
    }

    fn slot(&self) -> Option<u16> {
        self.hello.map(|hello| hello.slot)
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

    /// Whether there is a packet in it.
    fn has_something(&self) -> bool {
        let peeked = |socket: &OwnedFd| socket::peek_bytes(socket.as_fd(), &mut [0; 1]);
        self.socket.as_ref().is_some_and(|socket| peeked(socket).is_ok_and(|len| len > 0))
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

    /// Drops packets of records before `wanted` in its ring: those are freed, or never came to be.
    fn drop_before(&self, wanted: &Wanted) {
        if self.hello.is_some_and(|hello| hello.ring == wanted.ring) {
            self.drop_up_to(wanted.position.wrapping_sub(1));
        }
    }

    /// Drops what comes before the packet of `wanted`, and that; gives whether it was there.
    fn drop_first_of(&self, wanted: &Wanted) -> bool {
        self.drop_up_to(wanted.position) == Some(wanted.position)
    }

    /// Drops what lies at `position` and before it, and gives the position of what was dropped last.
    fn drop_up_to(&self, position: u64) -> Option<u64> {
        let socket = self.socket.as_ref()?;
        let mut dropped = None;
        for _ in 0..ORPHANS_MAX {
            let mut bytes = [0; size_of::<HandlePacket>()];
            let len = socket::peek_bytes(socket.as_fd(), &mut bytes).unwrap_or(0);
            let packet: HandlePacket = first_of(&bytes);
            let has_position = packet.kind == packet_kind::HANDLES;
            let is_later = has_position && packet.position.wrapping_sub(position) as i64 > 0;
            if len == 0 || is_later || socket::drop_first(socket.as_fd()).is_err() {
                break;
            }
            dropped = has_position.then_some(packet.position);
        }
        dropped
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
    let carried = carried.map(first_of::<CarriedHandle>).take(count);
    if carried.clone().any(|one| (one.kind, one.descriptor_count) != (0, 1)) {
        return Err(NotFetched::Violation("a kind of handle that is not known here"));
    }
    let handles = carried.zip(found.descriptors);
    Ok(handles.map(|(carried, fd)| Handle::carried(fd, carried.rights)).collect())
}

/// The value at the start of `bytes`, which hold one.
fn first_of<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> T {
    bytemuck::pod_read_unaligned(&bytes[..size_of::<T>()])
}
