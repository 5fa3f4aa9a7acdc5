//! Unit tests of one connection, and a sender that does as a test likes.
#![cfg(test)]

use std::fs::File;

use tombolo_abi::LockWord;

use super::*;
use crate::options::MpscOrder;
use crate::{EventsRegion, OpenOptions};

/// A region with producers on ring 1, or with lanes from there on.
pub(in crate::carrier) fn region(order: MpscOrder) -> EventsRegion {
    let options = OpenOptions::new().spsc_capacity(4096).mpsc_capacity(4096).producers(3);
    EventsRegion::anonymous(options.max_handles(64).mpsc_order(order)).unwrap()
}

fn files(count: usize) -> Vec<File> {
    (0..count).map(|_| File::open("/proc/self/exe").unwrap()).collect()
}

/// A sender's end of a connection, used as the test likes.
pub(in crate::carrier) struct Sender {
    socket: Descriptor,
    hello: Hello,
}

impl Sender {
    /// The sender of ring `ring` in the slot `number` behind the first, at the end `socket`.
    pub(in crate::carrier) fn at(
        socket: Descriptor,
        region: &EventsRegion,
        ring: u32,
        number: u16,
    ) -> Self {
        let region = region.shared();
        let (header, file) = (region.header(), region.file_id());
        let mut hello: Hello = bytemuck::Zeroable::zeroed();
        hello.kind = packet_kind::HELLO;
        hello.ring = ring;
        hello.region_uuid = header.region_uuid;
        hello.generation = header.generation;
        hello.key = header.key;
        hello.incarnation = 1;
        hello.slot = region.entries()[ring as usize].tx_slot_first + number;
        hello.device = file.dev;
        hello.inode = file.ino;
        Self { socket, hello }
    }

    /// With the receiver's end of the connection, to which nothing was said yet.
    pub(in crate::carrier) fn connect(
        region: &EventsRegion,
        ring: u32,
        number: u16,
    ) -> (Self, Connection) {
        let (ours, theirs) = socket::pair().unwrap();
        let ours = Descriptor::shared(ours).unwrap();
        let theirs = Descriptor::shared(theirs).unwrap();
        (Self::at(ours, region, ring, number), Connection::new(theirs))
    }

    /// Says hello: no record before `tail` has its handles on this connection.
    pub(in crate::carrier) fn greet(&self, tail: u64) {
        let mut hello = self.hello;
        hello.tail = tail;
        self.send(bytemuck::bytes_of(&hello), 0);
    }

    /// Sends the packet of the record at `position`, with one handle.
    pub(in crate::carrier) fn hand_over(&self, position: u64) {
        self.send(&self.packet(position, 1), 1);
    }

    pub(in crate::carrier) fn send(&self, bytes: &[u8], descriptor_count: usize) {
        let files = files(descriptor_count);
        let descriptors: Vec<_> = files.iter().map(File::as_fd).collect();
        socket::send(&self.socket, bytes, &descriptors).unwrap();
    }

    fn packet(&self, position: u64, handle_count: u16) -> Vec<u8> {
        let mut packet: HandlePacket = bytemuck::Zeroable::zeroed();
        packet.kind = packet_kind::HANDLES;
        packet.ring = self.hello.ring;
        packet.position = position;
        packet.incarnation = self.hello.incarnation;
        packet.slot = self.hello.slot;
        packet.handle_count = handle_count;
        let one = CarriedHandle { rights: u32::MAX, kind: 0, descriptor_count: 1 };
        let mut bytes = bytemuck::bytes_of(&packet).to_vec();
        (0..handle_count).for_each(|_| bytes.extend_from_slice(bytemuck::bytes_of(&one)));
        bytes
    }

    /// A packet of a kind that is not known, with a number in the place of a position.
    fn unknown(&self, number: u64) -> Vec<u8> {
        let mut bytes = self.packet(number, 0);
        bytes[..4].copy_from_slice(&99u32.to_ne_bytes());
        bytes
    }

    /// The record of this sender at `position`, with one handle.
    pub(in crate::carrier) fn wanted(&self, position: u64) -> Wanted {
        let Hello { ring, slot, incarnation, .. } = self.hello;
        let ext = RecordExt { txid: 0, slot, incarnation_low: incarnation as u16 };
        Wanted { ring, ext, position, count: 1 }
    }

    pub(in crate::carrier) fn identity(&self) -> LockWord {
        LockWord { slot: self.hello.slot, incarnation: self.hello.incarnation }
    }

    /// Whether the other end is over.
    pub(in crate::carrier) fn is_ended(&self) -> bool {
        // An error too, if something was left in it.
        !matches!(socket::peek_bytes(self.socket.as_fd(), &mut [0]), Err(Errno::AGAIN))
    }
}

/// As [`Sender::connect`], with a hello that was read.
pub(in crate::carrier) fn greeted(
    region: &EventsRegion,
    ring: u32,
    number: u16,
) -> (Sender, Connection) {
    let (sender, mut connection) = Sender::connect(region, ring, number);
    sender.greet(0);
    connection.read_hello(region.shared(), &(ring..ring + 1));
    assert!(connection.hello.is_some());
    (sender, connection)
}

/// The positions of the packets in it, which are taken out.
pub(in crate::carrier) fn positions(connection: &Connection) -> Vec<u64> {
    let socket = connection.socket.as_ref().unwrap();
    let take = || {
        let mut bytes = [0; size_of::<HandlePacket>()];
        let len = socket::peek_bytes(socket.as_fd(), &mut bytes).ok()?;
        socket::drop_first(socket).unwrap();
        (len > 0).then(|| first_of::<HandlePacket>(&bytes).position)
    };
    std::iter::from_fn(take).collect()
}

#[test]
fn a_connection_has_something_only_if_there_is_a_packet_behind_its_hello() {
    let (sender, connection) = greeted(&region(MpscOrder::Total), 1, 0);
    assert!(!connection.has_something());
    sender.hand_over(64);
    assert!(connection.has_something());
    assert_eq!(positions(&connection), [64]);
    drop(sender);
    assert!(!connection.has_something(), "its end is no packet");
}

#[test]
fn a_connection_with_nothing_in_it_is_over_only_once_its_sender_has_closed_it() {
    let (sender, connection) = greeted(&region(MpscOrder::Total), 1, 0);
    let wanted = sender.wanted(64);
    assert!(matches!(connection.seek(&wanted), Ok(Sought::NotThere)));
    drop(sender);
    assert!(matches!(connection.seek(&wanted), Ok(Sought::Over)));
}

#[test]
fn more_handles_than_any_message_has_are_a_violation_in_an_orphan_too() {
    let (sender, connection) = greeted(&region(MpscOrder::Total), 1, 0);
    let wanted = sender.wanted(128);
    sender.send(&sender.packet(64, HANDLE_COUNT_MAX), 1);
    assert!(matches!(connection.seek(&wanted), Ok(Sought::NotThere)), "passed over");
    sender.send(&sender.packet(64, HANDLE_COUNT_MAX + 1), 1);
    assert!(matches!(connection.seek(&wanted), Err(NotFetched::Violation(_))));
}

#[test]
fn a_sender_of_another_lane_is_not_the_records_whatever_slot_that_names() {
    let region = region(MpscOrder::PerProducer);
    let (sender, connection) = greeted(&region, 1, 0);
    assert!(connection.is_of(&sender.wanted(64)));
    assert!(!connection.is_of(&Wanted { ring: 2, ..sender.wanted(64) }));
}

#[test]
fn a_packet_of_a_kind_that_is_not_known_has_no_position() {
    let (sender, connection) = greeted(&region(MpscOrder::Total), 1, 0);
    sender.send(&sender.unknown(900), 0);
    sender.hand_over(100);
    sender.send(&sender.unknown(7), 0);
    sender.hand_over(200);
    assert!(connection.drop_first_of(&sender.wanted(100)));
    assert_eq!(positions(&connection), [200]);
}

#[test]
fn an_empty_packet_ends_a_connection_and_what_is_behind_it_is_not_looked_at() {
    let (sender, mut connection) = greeted(&region(MpscOrder::Total), 1, 0);
    sender.send(&[], 0);
    sender.hand_over(100);
    assert!(!connection.drop_first_of(&sender.wanted(100)));
    connection.close_if_over();
    assert!(connection.socket.is_none());
}

#[test]
fn more_descriptors_than_the_record_states_are_never_waited_for() {
    let (sender, _) = greeted(&region(MpscOrder::Total), 1, 0);
    let bytes = sender.packet(64, 3);
    let opened = |descriptor_count| {
        let descriptors = files(descriptor_count).into_iter().map(Into::into).collect();
        let found = socket::Packet { len: bytes.len(), descriptors, is_cut: true };
        open(&first_of(&bytes), &bytes, found, 3)
    };
    assert!(matches!(opened(2), Err(NotFetched::TooManyFiles(_))));
    assert_eq!(opened(3).unwrap().len(), 3);
    assert!(matches!(opened(4), Err(NotFetched::Violation(_))));
}
