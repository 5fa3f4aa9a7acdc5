//! Unit tests of one connection, and a sender that does as a test likes.
#![cfg(test)]

use std::cell::Cell;
use std::fs::File;
use std::mem::forget;
use std::os::fd::AsRawFd;
use std::rc::{Rc, Weak};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tombolo_abi::LockWord;

use super::*;
use crate::crash::visits;
use crate::options::MpscOrder;
use crate::os::staged;
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

    /// A packet as that of the record at 64 with one handle, but for what `change` does to it.
    fn forged(&self, change: impl FnOnce(&mut HandlePacket)) -> Vec<u8> {
        let mut bytes = self.packet(64, 1);
        let mut packet = first_of(&bytes);
        change(&mut packet);
        bytes[..size_of::<HandlePacket>()].copy_from_slice(bytemuck::bytes_of(&packet));
        bytes
    }

    /// The next owner of the end, which sends over the same socket.
    fn next_owner(mut self) -> Self {
        self.hello.incarnation += 1;
        self
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

/// As [`Sender::connect`] to ring 1, over what came with the end of a channel.
pub(in crate::carrier) fn given(region: &EventsRegion) -> (Sender, Connection) {
    let (sender, connection) = Sender::connect(region, 1, 0);
    let given = Given { ring: 1, slot: sender.hello.slot };
    (sender, Connection { given: Some(given), ..connection })
}

/// The positions of the records of which handles are kept.
pub(in crate::carrier) fn kept(connection: &Connection) -> Vec<u64> {
    connection.kept.iter().map(|kept| kept.position).collect()
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
fn a_connection_that_came_with_the_end_is_for_records_of_its_slot_in_its_ring() {
    let (sender, connection) = given(&region(MpscOrder::Total));
    let wanted = sender.wanted(64);
    let of_another_slot = RecordExt { slot: wanted.ext.slot + 1, ..wanted.ext };
    assert!(connection.is_of(&wanted));
    assert!(!connection.is_of(&Wanted { ring: 2, ..wanted }));
    assert!(!connection.is_of(&Wanted { ext: of_another_slot, ..wanted }));
}

#[test]
fn what_an_owner_never_published_is_passed_over_for_the_record_of_the_next_one() {
    let (sender, connection) = given(&region(MpscOrder::Total));
    sender.hand_over(64);
    let next = sender.next_owner();
    next.hand_over(64);
    assert!(matches!(connection.seek(&next.wanted(64)), Ok(Sought::Found(_))));
    assert_eq!(positions(&connection), [64]);
}

#[test]
fn a_packet_of_another_ring_or_slot_is_neither_found_nor_kept() {
    let region = region(MpscOrder::Total);
    let changes: [fn(&mut HandlePacket); 2] = [|packet| packet.ring = 2, |packet| packet.slot += 1];
    for change in changes {
        let (sender, mut connection) = given(&region);
        sender.send(&sender.forged(change), 1);
        let sought = connection.seek(&sender.wanted(64));
        assert!(matches!(sought, Err(NotFetched::Violation(_))), "{sought:?}");
        let sorted = connection.keep_between(0, &sender.wanted(128));
        assert!(matches!(sorted, Err(NotFetched::Violation(_))), "{sorted:?}");
        assert!(connection.kept.is_empty());
    }
}

#[test]
fn what_lies_between_the_head_and_a_record_is_kept_so_that_its_packet_comes_first() {
    let (sender, mut connection) = given(&region(MpscOrder::Total));
    sender.hand_over(64); // of a record that never came to be
    sender.send(&sender.unknown(130), 0);
    [128, 192, 256, 320].into_iter().for_each(|position| sender.hand_over(position));
    connection.keep_between(128, &sender.wanted(256)).unwrap();
    assert_eq!(kept(&connection), [128, 192]);
    assert_eq!(positions(&connection), [256, 320]);
}

#[test]
fn another_number_of_handles_than_the_record_states_is_a_violation_also_if_they_were_kept() {
    let (sender, mut connection) = given(&region(MpscOrder::Total));
    sender.send(&sender.packet(64, 2), 2);
    connection.keep_between(64, &sender.wanted(128)).unwrap();
    assert_eq!(kept(&connection), [64]);
    let sought = connection.seek(&sender.wanted(64));
    assert!(matches!(sought, Err(NotFetched::Violation(_))), "{sought:?}");
}

/// In a child, which may have all the descriptors that it takes.
#[test]
fn as_many_handles_as_may_be_left_by_owners_are_kept_and_no_more() {
    assert!(staged::in_child(|| {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
        let (sender, mut connection) = given(&region(MpscOrder::Total));
        let last = sender.wanted(1024);
        (0..8).for_each(|number| sender.send(&sender.packet(64 * number, 64), 64));
        connection.keep_between(0, &last).unwrap();
        let count: usize = connection.kept.iter().map(|kept| kept.handles.len()).sum();
        sender.hand_over(512);
        let sorted = connection.keep_between(0, &last);
        count == KEPT_MAX && matches!(sorted, Err(NotFetched::Violation(_)))
    }));
}

#[test]
fn a_connection_of_which_all_is_kept_is_closed_also_if_something_in_it_breaks_the_rules() {
    let region = region(MpscOrder::Total);
    for handle_count in [1, HANDLE_COUNT_MAX + 1] {
        let (sender, mut connection) = given(&region);
        sender.hand_over(64);
        sender.send(&sender.packet(128, handle_count), 1);
        connection.keep_all(1).unwrap();
        let expected: &[u64] = if handle_count == 1 { &[64, 128] } else { &[64] };
        assert_eq!(kept(&connection), expected);
        assert!(connection.socket.is_none() && sender.is_ended());
    }
}

#[test]
fn what_a_process_may_have_no_descriptors_for_stays_where_it_is_while_all_else_is_kept() {
    let (sender, mut connection) = given(&region(MpscOrder::Total));
    sender.hand_over(64);
    sender.hand_over(128);
    assert!(staged::in_child(|| {
        staged::limit_descriptors(staged::lowest_free() + 1);
        let all = connection.keep_all(1);
        assert_eq!(kept(&connection), [64]);
        matches!(all, Err(NotFetched::TooManyFiles(_))) && positions(&connection) == [128]
    }));
}

/// It cannot be taken, and is there for ever.
#[test]
fn a_packet_of_what_another_has_under_the_sockets_number_is_not_looked_at_again_and_again() {
    let (_sender, mut connection) = given(&region(MpscOrder::Total));
    let (theirs, other) = socket::pair().unwrap();
    let other = Descriptor::shared(other).unwrap();
    socket::send(&other, b"of a kind that is not known", &[]).unwrap();
    assert!(staged::in_child(|| {
        let number = connection.socket.as_ref().unwrap().as_fd().as_raw_fd();
        staged::usurp(number, &theirs);
        connection.keep_all(1).is_ok() && socket::peek_bytes(theirs.as_fd(), &mut [0]).is_ok()
    }));
}

#[test]
fn clearing_closes_what_is_kept_and_what_has_come_and_a_connection_that_an_empty_packet_ends() {
    let (sender, mut connection) = given(&region(MpscOrder::Total));
    sender.hand_over(64);
    sender.hand_over(128);
    connection.keep_between(64, &sender.wanted(128)).unwrap();
    assert_eq!(kept(&connection), [64]);
    connection.clear();
    assert!(connection.kept.is_empty());
    assert_eq!(positions(&connection), []);
    sender.hand_over(192);
    sender.send(&[], 0);
    sender.hand_over(256);
    connection.clear();
    assert!(connection.socket.is_none());
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

#[test]
fn a_packet_without_handles_is_of_no_record_and_a_violation() {
    let (sender, mut connection) = greeted(&region(MpscOrder::Total), 1, 0);
    sender.send(&sender.packet(64, 0), 0);
    assert!(matches!(connection.seek(&sender.wanted(128)), Err(NotFetched::Violation(_))));
    connection.keep_all(1).unwrap();
    assert!(connection.kept.is_empty() && connection.socket.is_none());
}

/// Its sender means the one who passes the end on to have no end of it.
#[test]
fn keeping_all_ends_though_for_each_packet_that_is_taken_another_comes() {
    fn send_next(sender: Weak<Sender>, sent: Rc<Cell<u32>>) {
        sent.set(sent.get() + 1);
        let to = sender.upgrade().unwrap();
        to.send(&to.unknown(64), 0);
        if sent.get() < 5 * ORPHANS_MAX {
            forget(visits::at("connection.sorted-out", || send_next(sender, sent)));
        }
    }
    let (sender, mut connection) = greeted(&region(MpscOrder::Total), 1, 0);
    let (sender, sent) = (Rc::new(sender), Rc::default());
    send_next(Rc::downgrade(&sender), Rc::clone(&sent));
    connection.keep_all(1).unwrap();
    assert!(sent.get() < 5 * ORPHANS_MAX, "it was taken to the end");
    assert!(connection.socket.is_none());
}
