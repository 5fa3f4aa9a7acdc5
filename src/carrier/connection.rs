//! One connection at the receiver's end, and what is found in front of its queue.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;

use rustix::io::Errno;
use tombolo_abi::{
    CarriedHandle, HANDLE_COUNT_MAX, HandlePacket, Hello, LockWord, RecordExt, packet_kind,
};

use super::PACKET_LEN_MAX;
use crate::handle::Handle;
use crate::os::descriptor::Descriptor;
use crate::os::socket;
use crate::region::Region;

/// Packets without a record that are passed over in one search. Each death of a sender leaves one at
/// the most.
const ORPHANS_MAX: u32 = 1024;

/// A connection of one sender.
#[derive(Debug)]
pub(super) struct Connection {
    /// `None` once it is over: then nothing comes from it any more.
    pub(super) socket: Option<Descriptor>,
    /// `None` where the hello has not come yet.
    pub(super) hello: Option<Hello>,
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
pub(super) enum Sought {
    Found(Vec<Handle>),
    NotThere,
    /// Nothing comes any more.
    Over,
}

impl Connection {
    pub(super) fn sender(&self) -> Option<LockWord> {
        self.hello.map(|hello| LockWord { slot: hello.slot, incarnation: hello.incarnation })
    }

    pub(super) fn slot(&self) -> Option<u16> {
        self.hello.map(|hello| hello.slot)
    }

    pub(super) fn is_of(&self, wanted: &Wanted) -> bool {
        self.hello.is_some_and(|hello| hello.ring == wanted.ring && hello.is_of(wanted.ext))
    }

    /// Reads the first packet where that has not been done. Anything else than a hello of one of
    /// `rings` ends the connection.
    pub(super) fn read_hello(&mut self, region: &Region, rings: &Range<u32>) {
        let (Some(socket), None) = (&self.socket, &self.hello) else { return };
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
            && (hello.device, hello.inode) == (file.device(), file.inode());
        if is_ours && socket::drop_first(socket).is_ok() {
            self.hello = Some(hello);
        } else {
            self.socket = None;
        }
    }

    /// Closes it where its sender has closed it too and nothing is left in it.
    pub(super) fn close_if_over(&mut self) {
        let is_over = |socket: &Descriptor| {
            !matches!(socket::peek_bytes(socket.as_fd(), &mut [0; 1]), Ok(1..) | Err(Errno::AGAIN))
        };
        self.socket.take_if(|socket| is_over(socket));
    }

    /// Whether there is a packet in it.
    pub(super) fn has_something(&self) -> bool {
        let peeked = |socket: &Descriptor| socket::peek_bytes(socket.as_fd(), &mut [0; 1]);
        self.socket.as_ref().is_some_and(|socket| peeked(socket).is_ok_and(|len| len > 0))
    }

    /// Looks at the first packet that is not an orphan.
    pub(super) fn seek(&self, wanted: &Wanted) -> Result<Sought, NotFetched> {
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
            if socket::drop_first(socket).is_err() {
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
    pub(super) fn drop_before(&self, wanted: &Wanted) {
        if self.hello.is_some_and(|hello| hello.ring == wanted.ring) {
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
    Ok(Handle::carried(found.descriptors, carried.map(|one| one.rights)))
}

/// The value at the start of `bytes`, which hold one.
fn first_of<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> T {
    bytemuck::pod_read_unaligned(&bytes[..size_of::<T>()])
}
