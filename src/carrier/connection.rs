//! One connection at the receiver's end, and what is found in front of its queue.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;

use rustix::io::Errno;
use tombolo_abi::{
    CarriedHandle, HANDLE_COUNT_MAX, HandlePacket, Hello, LockWord, RecordExt, carried, packet_kind,
};

use super::{CARRIED_LEN, PACKET_LEN_MAX};
use crate::crash::test_point;
use crate::handle::Handle;
use crate::os::descriptor::Descriptor;
use crate::os::socket;
use crate::region::Region;
use crate::rights::Rights;

/// Packets without a record that one search skips. Each death of a sender leaves one at the most.
const ORPHANS_MAX: u32 = 1024;

/// Handles that are kept of one sender at most: those that may be under way in a ring, 256, and what a few owners of
/// the other end have left who died before they published a record.
const KEPT_MAX: usize = 512;

/// A connection of one sender.
#[derive(Debug)]
pub(super) struct Connection {
    /// `None` once it is over: then nothing comes from it any more.
    pub(super) socket: Option<Descriptor>,
    /// `None` if the hello has not come yet.
    pub(super) hello: Option<Hello>,
    /// Of a channel: it leads to the other end, also after that has another owner. It came with this end, and then says
    /// no hello, or the other end has come to the door with it.
    given: Option<Given>,
    /// Handles of records before one that was taken out of turn. Their packets have left the queue.
    pub(super) kept: Vec<Kept>,
}

/// The handles of a packet that left the queue before its turn.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) position: u64,
    /// The sender's.
    pub(super) incarnation: u32,
    pub(super) handles: Vec<Handle>,
}

/// Whose packets come over a connection that came with the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    pub(super) ring: u32,
    /// The sending end's.
    pub(super) slot: u16,
}

/// A record that carries handles.
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
    /// They were given to a consumer that has exited.
    Lost,
    /// The sender broke the rules.
    Violation(&'static str),
}

/// What a connection has of a record.
#[derive(Debug)]
pub(super) enum Sought {
    Found(Vec<Handle>),
    NotThere,
    /// Nothing comes any more.
    Over,
}

/// What becomes of a packet at which [`Connection::sort_out`] looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    Dropped,
    Left,
}

impl Kept {
    fn is_of(&self, wanted: &Wanted) -> bool {
        let incarnation_low = self.incarnation as u16;
        (self.position, incarnation_low) == (wanted.position, wanted.ext.incarnation_low)
    }
}

impl Connection {
    pub(super) fn new(socket: Descriptor) -> Self {
        Self { socket: Some(socket), hello: None, given: None, kept: Vec::new() }
    }

    pub(super) fn given(socket: Descriptor, given: Given) -> Self {
        Self { given: Some(given), ..Self::new(socket) }
    }

    pub(super) fn is_given(&self) -> bool {
        self.given.is_some()
    }

    /// The slot of its sender, if it came with the end.
    pub(super) fn given_slot(&self) -> u16 {
        self.given.map_or(0, |given| given.slot)
    }

    pub(super) fn sender(&self) -> Option<LockWord> {
        self.hello.map(|hello| LockWord { slot: hello.slot, incarnation: hello.incarnation })
    }

    pub(super) fn slot(&self) -> Option<u16> {
        self.hello.map(|hello| hello.slot)
    }

    pub(super) fn is_of(&self, wanted: &Wanted) -> bool {
        match self.given {
            Some(given) => (given.ring, given.slot) == (wanted.ring, wanted.ext.slot),
            None => {
                self.hello.is_some_and(|hello| hello.ring == wanted.ring && hello.is_of(wanted.ext))
            }
        }
    }

    /// Reads the first packet if that has not been done. Anything else than a hello of one of
    /// `rings` ends the connection.
    pub(super) fn read_hello(&mut self, region: &Region, rings: &Range<u32>) {
        let (Some(socket), None, None) = (&self.socket, &self.hello, &self.given) else { return };
        let mut bytes = [0; size_of::<Hello>()];
        let len = match socket::peek_bytes(socket.as_fd(), &mut bytes) {
            Err(Errno::AGAIN) => return, // it has connected and not come to saying it
            found => found.unwrap_or(0),
        };
        let hello: Hello = bytemuck::pod_read_unaligned(&bytes);
        let (header, file) = (region.header(), region.file_id());
        let is_ours = len == bytes.len()
            && hello.kind == packet_kind::HELLO
            && rings.contains(&hello.ring)
            && region.entries()[hello.ring as usize].tx_slots().contains(&hello.slot)
            && (hello.region_uuid, hello.key) == (header.region_uuid, header.key)
            && (hello.device, hello.inode) == (file.dev, file.ino);
        if is_ours && socket::drop_first(socket).is_ok() {
            if region.description().is_channel() {
                // The later of two ends comes once. Who owns it next sends over the same connection.
                self.given = Some(Given { ring: hello.ring, slot: hello.slot });
            }
            self.hello = Some(hello);
        } else {
            self.socket = None;
        }
    }

    /// Closes it if its sender has closed it too and nothing is left in it.
    pub(super) fn close_if_over(&mut self) {
        let is_over = |socket: &Descriptor| {
            !matches!(socket::peek_bytes(socket.as_fd(), &mut [0; 1]), Ok(1..) | Err(Errno::AGAIN))
        };
        self.socket.take_if(|socket| is_over(socket));
    }

    /// Whether nothing comes from it any more.
    pub(super) fn is_spent(&self) -> bool {
        self.socket.is_none() && self.kept.is_empty()
    }

    /// Whether there is a packet in it.
    pub(super) fn has_something(&self) -> bool {
        let peeked = |socket: &Descriptor| socket::peek_bytes(socket.as_fd(), &mut [0; 1]);
        self.socket.as_ref().is_some_and(|socket| peeked(socket).is_ok_and(|len| len > 0))
    }

    /// Keeps the handles of records from `head` to `wanted`, so that the packet of `wanted` comes first.
    ///
    /// # Errors
    /// [`NotFetched`]; what was kept stays so.
    pub(super) fn keep_between(&mut self, head: u64, wanted: &Wanted) -> Result<(), NotFetched> {
        let distance = wanted.position.wrapping_sub(head);
        self.sort_out(wanted.ring, |position| match position.wrapping_sub(head) {
            behind if (behind as i64) < 0 => Fate::Dropped, // of a record that never came to be
            behind if behind < distance => Fate::Kept,
            _ => Fate::Left,
        })
    }

    /// Keeps the handles of all packets, up to one that breaks the rules, and closes the connection.
    ///
    /// # Errors
    /// [`NotFetched::TooManyFiles`]; what was kept stays so.
    pub(super) fn keep_all(&mut self, ring: u32) -> Result<(), NotFetched> {
        let sorted = self.sort_out(ring, |_| Fate::Kept);
        if let Err(NotFetched::TooManyFiles(_)) = sorted {
            return sorted;
        }
        self.socket = None; // what is left is none's that keeps the rules
        Ok(())
    }

    /// Takes the first packets out, as `fate` says by the positions of their records, up to one that is left.
    fn sort_out(&mut self, ring: u32, fate: impl Fn(u64) -> Fate) -> Result<(), NotFetched> {
        let Some(socket) = &self.socket else { return Ok(()) };
        let mut bytes = [0; PACKET_LEN_MAX];
        for _ in 0..ORPHANS_MAX {
            let Ok(found) = socket::peek(socket.as_fd(), &mut bytes) else { return Ok(()) };
            let packet: HandlePacket = first_of(&bytes);
            if found.len == 0 {
                return Ok(());
            }
            if packet.kind == packet_kind::HANDLES {
                let fate = fate(packet.position);
                if fate == Fate::Left {
                    return Ok(());
                }
                self.check(ring, &packet, found.len)?;
                if fate == Fate::Kept {
                    let count = packet.handle_count as u8; // 64 at the most, by the check
                    let kept: usize = self.kept.iter().map(|kept| kept.handles.len()).sum();
                    if kept + usize::from(count) > KEPT_MAX {
                        let reason = "more handles than may be under way";
                        return Err(NotFetched::Violation(reason));
                    }
                    let handles = open(&packet, &bytes, found, count)?;
                    let HandlePacket { position, incarnation, .. } = packet;
                    self.kept.push(Kept { position, incarnation, handles });
                }
            }
            if socket::drop_first(socket).is_err() {
                return Ok(());
            }
            test_point!("connection.sorted-out");
        }
        Ok(())
    }

    /// Copies of the handles kept for `wanted`.
    fn kept(&self, wanted: &Wanted) -> Option<Result<Vec<Handle>, NotFetched>> {
        let Kept { handles, .. } = self.kept.iter().find(|kept| kept.is_of(wanted))?;
        if handles.len() != usize::from(wanted.count) {
            let reason = "another number of handles than the record states";
            return Some(Err(NotFetched::Violation(reason)));
        }
        let copies = handles.iter().map(|handle| handle.copy(Rights::SAME_RIGHTS));
        let copies: Result<_, _> = copies.collect();
        Some(copies.map_err(|_| NotFetched::TooManyFiles(Errno::MFILE.into())))
    }

    /// Closes the handles kept for `wanted`; gives whether there were any.
    pub(super) fn drop_kept(&mut self, wanted: &Wanted) -> bool {
        self.kept.extract_if(.., |kept| kept.is_of(wanted)).count() > 0
    }

    /// Closes what is kept of records before `head`: those are freed, or never came to be.
    pub(super) fn drop_kept_before(&mut self, head: u64) {
        self.kept.retain(|kept| kept.position.wrapping_sub(head) as i64 >= 0);
    }

    /// Closes all handles that are kept or have come.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
        let Some(socket) = &self.socket else { return };
        for _ in 0..ORPHANS_MAX {
            // At the end of a closed connection something is dropped, and nothing is there.
            if !self.has_something() || socket::drop_first(socket).is_err() {
                break;
            }
        }
        self.close_if_over(); // with what lies behind an empty packet
    }

    /// Peeks at the first packet that is not an orphan.
    pub(super) fn seek(&self, wanted: &Wanted) -> Result<Sought, NotFetched> {
        if let Some(kept) = self.kept(wanted) {
            return kept.map(Sought::Found);
        }
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
                    // An earlier owner of the other end never came to publishing a record there.
                    0 if packet.incarnation as u16 != wanted.ext.incarnation_low => {}
                    0 => return open(&packet, &bytes, found, wanted.count).map(Sought::Found),
                    1.. => return Ok(Sought::NotThere),
                    _ => {} // an orphan
                }
            }
            if socket::drop_first(socket).is_err() {
                return Ok(Sought::Over);
            }
        }
        Err(NotFetched::Violation("packets with handles without end, and no records to them"))
    }

    /// Whether a packet is well-formed and its sender's.
    fn check(&self, ring: u32, packet: &HandlePacket, len: usize) -> Result<(), NotFetched> {
        let sender = LockWord { slot: packet.slot, incarnation: packet.incarnation };
        let handles_len = usize::from(packet.handle_count) * CARRIED_LEN;
        let is_its_senders = match self.given {
            Some(given) => given.slot == sender.slot,
            None => self.sender() == Some(sender),
        };
        let is_sound = packet.ring == ring
            && is_its_senders
            && (1..=HANDLE_COUNT_MAX).contains(&packet.handle_count)
            && len == size_of::<HandlePacket>() + handles_len;
        if is_sound { Ok(()) } else { Err(NotFetched::Violation("a malformed packet of handles")) }
    }

    /// Drops packets of records before `wanted` in its ring: those are freed, or never came to be.
    pub(super) fn drop_before(&self, wanted: &Wanted) {
        let ring = self.given.map(|given| given.ring).or(self.hello.map(|hello| hello.ring));
        if ring == Some(wanted.ring) {
            self.drop_up_to(wanted.position.wrapping_sub(1));
        }
    }

    /// Drops what comes before the packet of `wanted`, and that; gives whether it was there.
    pub(super) fn drop_first_of(&self, wanted: &Wanted) -> bool {
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
            if len == 0 || is_later || socket::drop_first(socket).is_err() {
                break;
            }
            if has_position {
                dropped = Some(packet.position);
            }
        }
        dropped
    }
}

/// The handles in a packet, which is of a record with `wanted_count` of them.
fn open(
    packet: &HandlePacket,
    bytes: &[u8],
    found: socket::Packet,
    wanted_count: u8,
) -> Result<Vec<Handle>, NotFetched> {
    let count = usize::from(packet.handle_count);
    if count != usize::from(wanted_count) {
        return Err(NotFetched::Violation("another number of handles than the record states"));
    }
    let table = bytes[size_of::<HandlePacket>()..].chunks(CARRIED_LEN).take(count);
    let all: Vec<CarriedHandle> = table.map(first_of).collect();
    let is_known = |one: &CarriedHandle| match one.kind {
        carried::DESCRIPTOR => one.descriptor_count == 1,
        carried::ENDPOINT => carried::ENDPOINT_DESCRIPTORS.contains(&one.descriptor_count),
        _ => false,
    };
    if !all.iter().all(is_known) {
        return Err(NotFetched::Violation("a kind of handle that is not known here"));
    }
    let all = all.iter().map(|one| (usize::from(one.descriptor_count), one.rights));
    let wanted_len: usize = all.clone().map(|(count, _)| count).sum();
    let found_len = found.descriptors.len();
    if found_len < wanted_len && found.is_cut {
        return Err(NotFetched::TooManyFiles(Errno::MFILE.into()));
    }
    if found_len != wanted_len {
        return Err(NotFetched::Violation("another number of descriptors than handles"));
    }
    Ok(Handle::carried(found.descriptors, all))
}

/// The value at the start of `bytes`, which hold one.
fn first_of<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> T {
    bytemuck::pod_read_unaligned(&bytes[..size_of::<T>()])
}

#[cfg(test)]
pub(super) mod tests;
