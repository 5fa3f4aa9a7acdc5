//! The receiver's end: it listens, and finds the packet that belongs to a record.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::Mode;
use rustix::io::Errno;
use tombolo_abi::{
    CarriedHandle, HANDLE_COUNT_MAX, HandlePacket, Hello, LockWord, RecordExt, packet_kind,
};

use super::{PACKET_LEN_MAX, admit, socket_name};
use crate::error::Error;
use crate::handle::Handle;
use crate::os::socket;
use crate::region::Region;

/// Packets without a record that are passed over in one search. Each death of a sender leaves one at
/// the most.
const ORPHANS_MAX: u32 = 1024;

/// Where the handles of a ring come in.
#[derive(Debug)]
pub(crate) struct Incoming {
    region: Arc<Region>,
    ring: u32,
    /// `None` where the region was opened without a directory.
    listener: Option<OwnedFd>,
    /// In the order in which they were accepted.
    connections: Vec<Connection>,
    /// The most of them that honest senders have.
    connections_max: usize,
    /// The connection whose first packet was looked at last, and whose that was.
    found: Option<(usize, u64)>,
}

#[derive(Debug)]
struct Connection {
    /// `None` once it is over: then nothing comes from it any more.
    socket: Option<OwnedFd>,
    /// `None` where the hello has not come yet.
    hello: Option<Hello>,
}

/// A record whose handles are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
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
    /// Listens for the senders of ring `ring`, as the owner of its consumer's slot. `senders` is how
    /// many the ring may have.
    ///
    /// # Errors
    /// What the system calls say.
    pub(crate) fn listen(region: &Arc<Region>, ring: u32, senders: u16) -> Result<Self, Error> {
        let listener = listener(region, ring)
            .map_err(|error| region.io_error("listen for the handles of", error.into()))?;
        let connections_max = 64 + 2 * usize::from(senders);
        let (region, connections) = (region.clone(), Vec::new());
        Ok(Self { region, ring, listener, connections, connections_max, found: None })
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
        self.accept()?;
        match self.search(wanted)? {
            Some(handles) => Ok(handles),
            None => Err(self.verdict(wanted)),
        }
    }

    /// Takes the packet of a record that was freed, and with it what nobody has fetched.
    pub(crate) fn take(&mut self, wanted: &Wanted) {
        if let Some((index, position)) = self.found.take()
            && position == wanted.position
            && let Some(socket) = self.connections.get(index).and_then(|one| one.socket.as_ref())
        {
            let _ = socket::drop_first(socket.as_fd()); // it is there: nobody else takes it
            return;
        }
        let _ = self.accept(); // what is not accepted stays, and is an orphan later
        for connection in self.connections.iter_mut().filter(|one| one.is_of(wanted.ext)) {
            connection.drop_up_to(wanted.position);
        }
    }

    /// The senders of connections for which `is_gone` says so. What those have published is in the
    /// ring: once it has been read, [`Self::forget`] them.
    pub(crate) fn departed(&mut self, is_gone: impl Fn(LockWord) -> bool) -> Vec<LockWord> {
        let _ = self.accept(); // tried again the next time
        let senders = self.connections.iter().filter_map(Connection::sender);
        senders.filter(|sender| is_gone(*sender)).collect()
    }

    /// Closes the connections of `senders`, with all that is left in them.
    pub(crate) fn forget(&mut self, senders: &[LockWord]) {
        self.found = None;
        self.connections
            .retain(|one| !one.sender().is_some_and(|sender| senders.contains(&sender)));
    }

    /// Closes everything, and removes the name; not in a forked child, whose parent still listens.
    pub(crate) fn close(&mut self) {
        self.connections.clear();
        if self.listener.take().is_some()
            && let Some(place) = self.region.place()
        {
            let _ = socket::remove(place.dir(), &socket_name(&self.region, self.ring));
        }
    }

    /// Looks for the packet of a record, on newer connections first.
    fn search(&mut self, wanted: &Wanted) -> Result<Option<Vec<Handle>>, NotFetched> {
        self.found = None;
        for (index, connection) in self.connections.iter_mut().enumerate().rev() {
            if !connection.is_of(wanted.ext) {
                continue;
            }
            let sought = connection.seek(self.ring, wanted);
            if matches!(sought, Ok(Sought::Over) | Err(NotFetched::Violation(_))) {
                connection.socket = None;
            }
            if let Sought::Found(handles) = sought? {
                self.found = Some((index, wanted.position));
                return Ok(Some(handles));
            }
        }
        Ok(None)
    }

    /// Why the packet of a record is nowhere.
    fn verdict(&self, wanted: &Wanted) -> NotFetched {
        let newest = self.connections.iter().rev().find(|one| one.is_of(wanted.ext));
        match newest.and_then(|one| one.hello) {
            Some(hello) if wanted.position.wrapping_sub(hello.tail) as i64 >= 0 => {
                NotFetched::Violation("a record with handles, and none were sent with it")
            }
            _ => NotFetched::Lost,
        }
    }

    /// Accepts all who wait, reads the hello of each, and closes what is over.
    fn accept(&mut self) -> Result<(), NotFetched> {
        self.connections.iter_mut().for_each(Connection::close_if_over);
        let accepted = self.accept_waiting();
        for connection in &mut self.connections {
            connection.read_hello(&self.region, self.ring);
        }
        self.drop_stale();
        self.found = None;
        accepted
    }

    /// Drops what nothing comes from any more.
    fn drop_stale(&mut self) {
        // One that is over still tells where its sender began, until its slot connects again.
        let connections = &self.connections;
        let is_stale: Vec<_> = (0..connections.len())
            .map(|index| {
                let one = &connections[index];
                let later = &connections[index + 1..];
                one.socket.is_none()
                    && (one.hello.is_none() || later.iter().any(|next| next.slot() == one.slot()))
            })
            .collect();
        let mut is_stale = is_stale.into_iter();
        self.connections.retain(|_| !is_stale.next().unwrap_or(false));
    }

    fn accept_waiting(&mut self) -> Result<(), NotFetched> {
        let Some(listener) = &self.listener else { return Ok(()) };
        loop {
            match socket::accept(listener.as_fd()) {
                Ok(None) => return Ok(()),
                Ok(Some(socket)) => {
                    let admitted = admit(&self.region, socket);
                    if admitted.is_some() && self.connections.len() < self.connections_max {
                        self.connections.push(Connection { socket: admitted, hello: None });
                    }
                }
                Err(error) => return Err(NotFetched::TooManyFiles(error.into())),
            }
        }
    }
}

fn listener(region: &Region, ring: u32) -> Result<Option<OwnedFd>, Errno> {
    let Some(place) = region.place() else { return Ok(None) };
    let mode = Mode::from_raw_mode(rustix::fs::fstat(region.plain())?.st_mode & 0o777);
    socket::listen(place.dir(), &socket_name(region, ring), mode).map(Some)
}

impl Connection {
    fn sender(&self) -> Option<LockWord> {
        self.hello.map(|hello| LockWord { slot: hello.slot, incarnation: hello.incarnation })
    }

    fn slot(&self) -> Option<u16> {
        self.hello.map(|hello| hello.slot)
    }

    fn is_of(&self, ext: RecordExt) -> bool {
        self.hello.is_some_and(|hello| hello.is_of(ext))
    }

    /// Reads the first packet where that has not been done. Anything else than a hello of this ring
    /// ends the connection.
    fn read_hello(&mut self, region: &Region, ring: u32) {
        let (Some(socket), None) = (&self.socket, &self.hello) else { return };
        let mut bytes = [0; size_of::<Hello>()];
        let len = match socket::peek_bytes(socket.as_fd(), &mut bytes) {
            Err(Errno::AGAIN) => return, // it has connected and not come to saying it
            found => found.unwrap_or(0),
        };
        let hello: Hello = bytemuck::pod_read_unaligned(&bytes);
        let header = region.header();
        let is_ours = len == bytes.len()
            && (hello.kind, hello.ring) == (packet_kind::HELLO, ring)
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
    fn seek(&self, ring: u32, wanted: &Wanted) -> Result<Sought, NotFetched> {
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
                self.check(ring, &packet, found.len)?;
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
    let rights = carried.map(|carried| first_of::<CarriedHandle>(carried).rights);
    Ok(Handle::carried(found.descriptors, rights))
}

/// The value at the start of `bytes`, which hold one.
fn first_of<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> T {
    bytemuck::pod_read_unaligned(&bytes[..size_of::<T>()])
}
