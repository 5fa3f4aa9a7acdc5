//! What tests of handles on their way share: numbered files, and peers that keep no rules.

use std::fs::File;
use std::io::{PipeReader, Read};
use std::mem::size_of;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bytemuck::{Zeroable, bytes_of};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use tombolo::{Handle, MessagePacket};
use tombolo_abi::{
    CarriedHandle, HandlePacket, Header, Hello, Record, RecordExt, RecordRules, RingControl,
    RingEntry, Slot, packet_kind, parse_entries,
};

use super::{directory_of, header_of};

pub(crate) const SOON: Duration = Duration::from_secs(2);

pub(crate) fn numbered(number: u64) -> OwnedFd {
    let memory = rustix::fs::memfd_create(c"numbered", MemfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&memory, &number.to_le_bytes()).unwrap();
    memory
}

pub(crate) fn numbers_of(handles: &[Handle]) -> Vec<u64> {
    let number_of = |handle: &Handle| {
        let mut bytes = [0; 8];
        rustix::io::pread(handle, &mut bytes, 0).unwrap();
        u64::from_le_bytes(bytes)
    };
    handles.iter().map(number_of).collect()
}

/// A message with `count` handles that say its number.
pub(crate) fn packet(number: u64, count: u64) -> MessagePacket {
    let mut packet = MessagePacket::from(&number.to_le_bytes());
    packet.handles = (0..count).map(|_| Handle::new(numbered(number))).collect();
    packet
}

/// Descriptors that this process has open.
pub(crate) fn open_count() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[track_caller]
pub(crate) fn closes_soon(mut witness: PipeReader) {
    let (done, told) = std::sync::mpsc::channel();
    thread::spawn(move || done.send(witness.read(&mut [0]).unwrap()));
    assert_eq!(told.recv_timeout(SOON), Ok(0), "somebody still has it open");
}

/// Somebody who may write the region's file and connect to its sockets, and keeps no rules.
pub(crate) struct Forger {
    path: PathBuf,
    file: File,
    header: Header,
    ring: u32,
    entry: RingEntry,
    /// That of the sender that it poses as.
    slot: u16,
}

impl Forger {
    /// At the first ring.
    pub(crate) fn at(path: &Path) -> Self {
        Self::at_ring(path, 0)
    }

    pub(crate) fn at_ring(path: &Path, ring: u32) -> Self {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut page = vec![0; 1 << 14];
        let len = file.read_at(&mut page, 0).unwrap();
        let header = header_of(&page[..len]);
        let entry = parse_entries(&header, &page[directory_of(&header)]).nth(ring as usize);
        let entry = entry.unwrap();
        let slot = entry.tx_slot_first;
        Self { path: path.to_owned(), file, header, ring, entry, slot }
    }

    /// Poses as the sender whose slot is `number` behind the first.
    pub(crate) fn posing_as(self, number: u16) -> Self {
        let slot = self.entry.tx_slot_first + number;
        Self { slot, ..self }
    }

    pub(crate) fn word(&self, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, offset).unwrap();
        u64::from_le_bytes(bytes)
    }

    /// A word of the ring's control block.
    pub(crate) fn control(&self, offset: usize) -> u64 {
        self.word(self.entry.control_offset + offset as u64)
    }

    pub(crate) fn set_control(&self, offset: usize, value: u64) {
        let offset = self.entry.control_offset + offset as u64;
        self.file.write_all_at(&value.to_le_bytes(), offset).unwrap();
    }

    /// The ring's tail.
    pub(crate) fn tail(&self) -> u64 {
        self.control(std::mem::offset_of!(RingControl, tail))
    }

    /// The sender that owns the slot now.
    pub(crate) fn sender(&self) -> RecordExt {
        RecordExt { txid: 0, slot: self.slot, incarnation_low: self.incarnation() as u16 }
    }

    pub(crate) fn incarnation(&self) -> u32 {
        let slot = u64::from(self.slot) * u64::from(self.header.slot_len);
        let offset = std::mem::offset_of!(Slot, incarnation) as u64;
        let mut bytes = [0; 4];
        self.file.read_exact_at(&mut bytes, self.header.slot_offset + slot + offset).unwrap();
        u32::from_le_bytes(bytes)
    }

    /// Publishes an empty record that states handles, at the tail, and gives its position.
    pub(crate) fn publish(&self, handle_count: u8, ext: RecordExt) -> u64 {
        let position = self.tail();
        let rules = RecordRules::of(&self.entry, self.header.key);
        let at = |position: u64| self.entry.data_offset + (position & (self.entry.capacity - 1));
        let word = rules.encode(&Record::with_handles(0, handle_count), position);
        self.file.write_all_at(&ext.to_word().to_le_bytes(), at(position + 8)).unwrap();
        self.file.write_all_at(&[0; 8], at(position + 16)).unwrap();
        self.file.write_all_at(&word.to_le_bytes(), at(position)).unwrap();
        position
    }

    /// Publishes `record` with `payload` at `position` of the first lap, and gives the position behind it.
    pub(crate) fn publish_at(&self, position: u64, record: &Record, payload: &[u8]) -> u64 {
        let rules = RecordRules::of(&self.entry, self.header.key);
        let at = |position: u64| self.entry.data_offset + position;
        let next = position + rules.record_len(record);
        assert!(next < self.entry.capacity);
        self.file.write_all_at(&[0; 8], at(next)).unwrap();
        if record.ext {
            self.set_word(at(position + 8), self.sender().to_word());
        }
        self.file.write_all_at(payload, at(position + record.payload_offset())).unwrap();
        self.set_word(at(position), rules.encode(record, position));
        next
    }

    /// Where the words lie that peers share: the ring's control block, its first records, all slots.
    pub(crate) fn shared_words(&self) -> Vec<u64> {
        let control = self.entry.control_offset..self.entry.control_offset + 1024;
        let records = self.entry.data_offset..self.entry.data_offset + 128;
        let slots_len = u64::from(self.header.slot_count) * u64::from(self.header.slot_len);
        let slots = self.header.slot_offset..self.header.slot_offset + slots_len;
        [control, records, slots].into_iter().flat_map(|place| place.step_by(8)).collect()
    }

    pub(crate) fn set_word(&self, offset: u64, value: u64) {
        self.file.write_all_at(&value.to_le_bytes(), offset).unwrap();
    }

    pub(crate) fn connect(&self) -> OwnedFd {
        self.try_connect().unwrap()
    }

    /// Connects where the backlog has room.
    pub(crate) fn try_connect(&self) -> Result<OwnedFd, Errno> {
        let name = self.path.parent().unwrap().join(self.socket_name());
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, kind, flags, None).unwrap();
        rustix::net::connect(&socket, &SocketAddrUnix::new(&name).unwrap()).map(|()| socket)
    }

    /// The name at which the consumer listens.
    pub(crate) fn socket_name(&self) -> String {
        let half = u64::from_be_bytes(*self.header.region_uuid.first_chunk().unwrap());
        let (device, inode) = self.file_id();
        let number = self.word(self.socket_number());
        format!(".{half:016x}.{device:x}.{inode:x}.{}.{number:x}.sock", self.ring)
    }

    /// Says another number than the consumer's.
    pub(crate) fn set_socket_number(&self, number: u64) {
        self.file.write_all_at(&number.to_le_bytes(), self.socket_number()).unwrap();
    }

    /// Where the number in that name is said.
    fn socket_number(&self) -> u64 {
        let slot = u64::from(self.entry.rx_slot) * u64::from(self.header.slot_len);
        self.header.slot_offset + slot + std::mem::offset_of!(Slot, socket_number) as u64
    }

    /// Device and inode number of the region's file.
    fn file_id(&self) -> (u64, u64) {
        let found = self.file.metadata().unwrap();
        (found.dev(), found.ino())
    }

    /// A connection of the sender that owns the slot now, from `tail` on.
    pub(crate) fn connect_as_sender(&self, tail: u64) -> OwnedFd {
        let socket = self.connect();
        send(&socket, bytes_of(&self.hello(tail)), &[]);
        socket
    }

    pub(crate) fn hello(&self, tail: u64) -> Hello {
        let (device, inode) = self.file_id();
        let mut hello = Hello::zeroed();
        hello.kind = packet_kind::HELLO;
        hello.ring = self.ring;
        hello.region_uuid = self.header.region_uuid;
        hello.generation = self.header.generation;
        hello.key = self.header.key;
        hello.incarnation = self.incarnation();
        hello.slot = self.slot;
        hello.tail = tail;
        hello.device = device;
        hello.inode = inode;
        hello
    }

    /// The packet of a record, whose handles are `descriptors` and said to be `count`.
    pub(crate) fn send_packet(
        &self,
        socket: &OwnedFd,
        position: u64,
        count: u16,
        descriptors: &[BorrowedFd<'_>],
    ) {
        send(socket, &self.packet(position, count), descriptors);
    }

    /// The bytes of the packet of the record at `position`, with `count` handles.
    pub(crate) fn packet(&self, position: u64, count: u16) -> Vec<u8> {
        let mut packet = HandlePacket::zeroed();
        packet.kind = packet_kind::HANDLES;
        packet.ring = self.ring;
        packet.position = position;
        packet.incarnation = self.incarnation();
        packet.slot = self.slot;
        packet.handle_count = count;
        let mut bytes = bytes_of(&packet).to_vec();
        let one = CarriedHandle { rights: u32::MAX, kind: 0, descriptor_count: 1 };
        (0..count).for_each(|_| bytes.extend_from_slice(bytes_of(&one)));
        assert_eq!(bytes.len(), size_of::<HandlePacket>() + 8 * usize::from(count));
        bytes
    }
}

pub(crate) fn send(socket: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    try_send(socket, bytes, descriptors).unwrap();
}

pub(crate) fn try_send(
    socket: &OwnedFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let lists = [descriptors];
    send_lists(socket, bytes, if descriptors.is_empty() { &[] } else { &lists })
}

/// One packet with several lists of descriptors.
pub(crate) fn send_lists(
    socket: &OwnedFd,
    bytes: &[u8],
    lists: &[&[BorrowedFd<'_>]],
) -> Result<(), Errno> {
    let mut space = vec![std::mem::MaybeUninit::uninit(); 2048];
    let mut control = SendAncillaryBuffer::new(&mut space);
    for list in lists {
        assert!(control.push(SendAncillaryMessage::ScmRights(list)));
    }
    let bytes = [std::io::IoSlice::new(bytes)];
    rustix::net::sendmsg(socket, &bytes, &mut control, SendFlags::empty()).map(drop)
}
