//! The receiver's end: it listens, and finds the packet that belongs to a record.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use tombolo_abi::LockWord;

use super::admit;
use super::connection::{Connection, Given, Kept, NotFetched, Sought, Wanted};
use super::door::Door;
use super::outgoing::{copy_of, send_handles};
use crate::endpoint::Attached;
use crate::handle::Handle;
use crate::os::descriptor::Descriptor;
use crate::os::socket;
use crate::region::Region;

/// Connections that are accepted in one search: more than can have waited when it began, which are the
/// backlog's 4,096 and one.
const ACCEPTED_MAX: u32 = 5000;

/// Connections that are kept in any case: those of senders that came, sent and went. No more handles
/// than 256 are under way in a ring, so no more of these have anything.
const CONNECTIONS_MIN: usize = 320;

/// The receiving side of the handles of a ring, or of a group of lanes.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(super) region: Arc<Region>,
    rings: Range<u32>,
    pub(super) door: Door,
    /// In the order in which they were accepted.
    connections: Vec<Connection>,
    /// The most of them that honest senders have.
    connections_max: usize,
    /// The connection of the first packet peeked at last, and for which record.
    found: Option<(usize, Wanted)>,
}

impl Incoming {
    /// Listens for the senders of `rings` as `owner`, the endpoint of their consumer. `senders` is how many
    /// they may have.
    pub(crate) fn listen(
        region: &Arc<Region>,
        rings: Range<u32>,
        senders: usize,
        owner: LockWord,
    ) -> Self {
        let door = Door::open(region, rings.start, owner);
        let connections_max = CONNECTIONS_MIN + 2 * senders;
        let (region, connections) = (region.clone(), Vec::new());
        Self { region, rings, door, connections, connections_max, found: None }
    }

    /// Receives over `sockets`, which came with the end `end` of a channel.
    pub(crate) fn given(end: &Attached, sockets: Vec<Descriptor>) -> Self {
        let region = end.slot.region().clone();
        let given = Given { ring: end.index, slot: end.entry.tx_slot_first };
        let connections_max = sockets.len();
        let connections = sockets.into_iter().map(|socket| Connection::given(socket, given));
        let (rings, door) = (end.index..end.index + 1, Door::None);
        let connections = connections.collect();
        Self { region, rings, door, connections, connections_max, found: None }
    }

    /// Receives over `socket`, which leads to the other end of the channel.
    pub(crate) fn add_given(&mut self, end: &Attached, socket: Descriptor) {
        let given = Given { ring: end.index, slot: end.entry.tx_slot_first };
        self.connections.push(Connection::given(socket, given));
    }

    /// A copy of the socket to the other end of the channel, to send over, once that has come to the door.
    ///
    /// # Errors
    /// [`NotFetched::TooManyFiles`].
    pub(crate) fn peers_socket(&mut self) -> Result<Option<Descriptor>, NotFetched> {
        self.accept_all()?;
        self.tidy(|_| {}); // the other end may have let go of one, and come again
        let mut given = self.connections.iter().rev().filter(|one| one.is_given());
        let copy = given.find_map(|one| one.socket.as_ref()).map(copy_of).transpose();
        copy.map_err(|error| NotFetched::TooManyFiles(error.into()))
    }

    /// Stops listening, and leaves the connections as they are.
    pub(crate) fn close_door(&mut self) {
        self.door.close(&self.region, self.rings.start);
    }

    /// What another process needs to go on in the place of this one, if the other end's socket is still there: a copy
    /// of the newest, and before it one with all packets that are in none but the others or were kept, if there are
    /// any. So there are two at the most, however often the end goes on.
    ///
    /// # Errors
    /// If this process can have no more descriptors, or the kernel has no space for the packets: what was kept stays.
    pub(crate) fn sockets_to_pass_on(&mut self) -> Result<Vec<OwnedFd>, Errno> {
        let ring = self.rings.start;
        let mut given: Vec<_> = self.connections.iter_mut().filter(|one| one.is_given()).collect();
        let Some((newest, earlier)) = given.split_last_mut() else { return Ok(Vec::new()) };
        let Some(socket) = &newest.socket else { return Ok(Vec::new()) };
        socket.stat()?; // else it is another's by now
        let socket = rustix::io::fcntl_dupfd_cloexec(socket, 0)?;
        for connection in earlier {
            connection.keep_all(ring).map_err(|_| Errno::MFILE)?;
        }
        let kept = || given.iter().flat_map(|one| one.kept.iter().map(move |it| (&**one, it)));
        if kept().next().is_none() {
            return Ok(vec![socket]);
        }
        let (entrance, exit) = socket::pair()?;
        let entrance = Descriptor::shared(entrance)?;
        kept().try_for_each(|(connection, kept)| pass_on(&entrance, ring, connection, kept))?;
        Ok(vec![exit, socket])
    }

    /// Descriptors of our own on the handles of a record. The packet stays until [`Self::take`].
    ///
    /// # Errors
    /// [`NotFetched`].
    pub(crate) fn fetch(&mut self, wanted: &Wanted) -> Result<Vec<Handle>, NotFetched> {
        self.drop_kept_before(wanted.position);
        if let Some(handles) = self.search(wanted)? {
            return Ok(handles);
        }
        self.tidy(|one| one.drop_before(wanted));
        for _ in 0..ACCEPTED_MAX {
            if let Some(handles) = self.search(wanted)? {
                return Ok(handles);
            }
            // Their sender may have connected since: it does before it publishes the record.
            if !self.accept()? {
                break;
            }
        }
        Err(self.verdict(wanted))
    }

    /// As [`Self::fetch`], of a record that is taken before those from `head` on: theirs are kept.
    ///
    /// # Errors
    /// [`NotFetched`].
    pub(crate) fn fetch_out_of_turn(
        &mut self,
        wanted: &Wanted,
        head: u64,
    ) -> Result<Vec<Handle>, NotFetched> {
        self.drop_kept_before(head);
        for connection in &mut self.connections {
            connection.read_hello(&self.region, &self.rings); // it comes later than the connection
        }
        for _ in 0..ACCEPTED_MAX {
            for connection in self.connections.iter_mut().filter(|one| one.is_of(wanted)) {
                connection.keep_between(head, wanted)?;
            }
            if let Some(handles) = self.search(wanted)? {
                return Ok(handles);
            }
            if !self.accept()? {
                break;
            }
        }
        Err(self.verdict(wanted))
    }

    /// Closes what is kept of records before `head`; gives whether anything else is.
    pub(super) fn close_kept_before(&mut self, head: u64) -> bool {
        self.drop_kept_before(head);
        self.connections.iter().any(|one| !one.kept.is_empty())
    }

    /// Closes all handles that have come, of no record that there is, and keeps the connections.
    pub(super) fn clear(&mut self) {
        let _ = self.accept_all(); // what cannot be accepted now is closed with the door
        self.connections.iter_mut().for_each(Connection::clear);
    }

    fn drop_kept_before(&mut self, head: u64) {
        self.connections.iter_mut().for_each(|one| one.drop_kept_before(head));
    }

    /// Takes the packet of a record that was freed, and with it the handles that were not fetched.
    pub(crate) fn take(&mut self, wanted: &Wanted) {
        let mut of_its_sender = self.connections.iter_mut().filter(|one| one.is_of(wanted));
        if of_its_sender.any(|one| one.drop_kept(wanted)) {
            return;
        }
        if let Some((index, found)) = self.found.take()
            && found == *wanted
            && let Some(socket) = self.connections.get(index).and_then(|one| one.socket.as_ref())
        {
            let _ = socket::drop_first(socket); // it is there: no other thread takes it
            return;
        }
        if self.drop_first_of(wanted) {
            return;
        }
        self.tidy(|one| one.drop_before(wanted));
        for _ in 0..ACCEPTED_MAX {
            // What cannot be accepted stays, and is an orphan later.
            if self.drop_first_of(wanted) || !self.accept().unwrap_or(false) {
                return;
            }
        }
    }

    /// Drops the packet of `wanted` and what is before it; gives whether it was there.
    fn drop_first_of(&self, wanted: &Wanted) -> bool {
        let mut connections = self.connections.iter().filter(|one| one.is_of(wanted));
        connections.any(|one| one.drop_first_of(wanted))
    }

    /// Accepts all pending connections, and closes those that are over.
    ///
    /// # Errors
    /// [`NotFetched::TooManyFiles`]; the rest stay pending.
    pub(crate) fn accept_all(&mut self) -> Result<(), NotFetched> {
        self.tidy(|_| {});
        for _ in 0..ACCEPTED_MAX {
            if !self.accept()? {
                break;
            }
        }
        Ok(())
    }

    /// The senders of accepted connections for which `is_gone` says so. What those have published is in
    /// the ring: once it has been read, [`Self::forget`] them.
    pub(crate) fn departed(&self, is_gone: impl Fn(LockWord) -> bool) -> Vec<LockWord> {
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

    /// Closes everything; not in a forked child: its parent still listens.
    pub(crate) fn close(&mut self) {
        self.door.close(&self.region, self.rings.start);
        self.connections.drain(..).filter_map(|one| one.socket).for_each(socket::end);
    }

    /// Searches for the packet of a record, on newer connections first.
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
        if newest.is_some_and(Connection::is_given) {
            return NotFetched::Violation("a record with handles, and none were sent with it");
        }
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
        // Connections that bring no more packets go. One that is over still says at which position its
        // sender began, until its slot connects again.
        let is_stale = |index: usize| self.connections[index].is_spent() && self.is_surplus(index);
        let stale: Vec<_> = (0..self.connections.len()).map(is_stale).collect();
        let mut stale = stale.into_iter();
        self.connections.retain(|_| !stale.next().unwrap_or(false));
        self.found = None;
    }

    /// Accepts the next pending connection, and gives whether there was one.
    fn accept(&mut self) -> Result<bool, NotFetched> {
        let accepted = self.door.accept(&self.region, self.rings.start);
        let Some(socket) = accepted.map_err(|error| NotFetched::TooManyFiles(error.into()))? else {
            return Ok(false);
        };
        if let Some(socket) = admit(&self.region, socket) {
            let mut connection = Connection::new(socket);
            connection.read_hello(&self.region, &self.rings);
            self.make_room();
            self.connections.push(connection);
        }
        Ok(true)
    }

    /// Closes a connection if there are more than honest senders have: one that has sent nothing, or was
    /// superseded by another from its slot.
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

/// Sends what was kept of a packet again.
fn pass_on(
    entrance: &Descriptor,
    ring: u32,
    connection: &Connection,
    Kept { position, incarnation, handles }: &Kept,
) -> Result<(), Errno> {
    let slot = connection.given_slot();
    let sender = LockWord { slot, incarnation: *incarnation };
    send_handles(entrance, ring, sender, *position, handles)
}

#[cfg(test)]
mod tests;
