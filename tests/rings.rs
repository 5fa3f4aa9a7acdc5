//! A region holds the rings that its creator listed, each with its own kind, capacity, longest message and
//! handles; each end is found by the ring's place in the list, and by nothing else.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tombolo::inspect::Image;
use tombolo::options::{
    CreatePolicy, FileSystemPolicy, MpscOrder, RingDescription, RingKind, RingOptions,
};
use tombolo::{
    Error, EventsRegion, LayoutError, MessagePacket, OpenOptions, SendError, TrySendError,
};
use tombolo_abi::{RING_COUNT_MAX, RingEntry, SLOT_COUNT_MAX, parse_entries};

mod support;
use support::carrying::{SOON, numbers_of, packet};
use support::process::{Peer, report, role, wait_for_parent};
use support::{Dir, directory_of, forge_entry, header_of, write_private};

fn listed(rings: impl IntoIterator<Item = RingOptions>) -> OpenOptions {
    rings.into_iter().fold(OpenOptions::new(), OpenOptions::ring)
}

fn spsc() -> RingOptions {
    RingOptions::spsc().capacity(4096)
}

fn mpsc() -> RingOptions {
    RingOptions::mpsc().capacity(4096).producers(2)
}

fn lanes() -> RingOptions {
    RingOptions::lanes().capacity(4096).producers(3)
}

/// Rings of all kinds, two of each, of which the first half carries handles.
fn all_kinds() -> OpenOptions {
    let first = [lanes(), spsc(), mpsc()].map(|ring| ring.max_handles(4));
    listed(first.into_iter().chain([mpsc(), lanes(), spsc()]))
}

fn kinds(region: &EventsRegion) -> Vec<RingKind> {
    region.rings().iter().map(|ring| ring.kind).collect()
}

/// Sends a message on ring `ring` of `from` and takes it from the ring of the same number of `to`.
fn passes(from: &EventsRegion, to: &EventsRegion, ring: u32, message: MessagePacket) {
    let (bytes, count) = (message.data.clone(), message.handles.len());
    let received = match from.rings()[ring as usize].kind {
        RingKind::Spsc => {
            let (mut tx, mut rx) =
                (from.spsc_sender(ring).unwrap(), to.spsc_receiver(ring).unwrap());
            rx.attach().unwrap();
            tx.send_packet_timeout(message, SOON).unwrap();
            rx.recv_timeout(SOON).unwrap()
        }
        _ => {
            let (mut tx, mut rx) =
                (from.mpsc_producer(ring).unwrap(), to.mpsc_consumer(ring).unwrap());
            rx.attach().unwrap();
            tx.send_packet_timeout(message, SOON).unwrap();
            rx.recv_timeout(SOON).unwrap()
        }
    };
    assert_eq!((received.data, received.handles.len()), (bytes, count), "ring {ring}");
}

#[test]
fn each_ring_is_as_it_was_listed() {
    let region = EventsRegion::anonymous(listed([
        RingOptions::lanes().capacity(1 << 14).max_message(10).producers(5),
        RingOptions::spsc().capacity(1 << 20).max_handles(64),
        RingOptions::mpsc().max_message(100).max_handles(1).producers(7),
        RingOptions::spsc().capacity(4096),
        RingOptions::lanes(),
    ]))
    .unwrap();
    let of = |ring: &RingDescription| {
        let RingDescription { kind, capacity, max_message, max_handles, producers, .. } = *ring;
        (kind, capacity, max_message, max_handles, producers)
    };
    let rings = region.rings();
    assert_eq!(
        rings.iter().map(of).collect::<Vec<_>>(),
        [
            (RingKind::Lane, 1 << 14, 10, 0, 5),
            (RingKind::Spsc, 1 << 20, 65536, 64, 1),
            (RingKind::Mpsc, 1 << 20, 100, 1, 7),
            (RingKind::Spsc, 4096, 1008, 0, 1),
            (RingKind::Lane, 1 << 18, 65520, 0, 64),
        ]
    );
    let numbers: Vec<_> = rings.into_iter().map(|ring| ring.numbers).collect();
    assert_eq!(numbers, [0..5, 5..6, 6..7, 7..8, 8..72]);
    assert_eq!((region.spsc_capacity(), region.mpsc_capacity()), (4096, 1 << 14));
    assert_eq!((region.max_message(), region.max_handles()), (10, 0));
    assert_eq!((region.producers(), region.mpsc_order()), (5, Some(MpscOrder::PerProducer)));
}

#[test]
fn a_region_of_which_nothing_is_listed_has_two_rings_which_are_those_of_split() {
    for (order, kind) in
        [(MpscOrder::Total, RingKind::Mpsc), (MpscOrder::PerProducer, RingKind::Lane)]
    {
        let options = OpenOptions::new().mpsc_order(order).producers(2);
        let mut region = EventsRegion::anonymous(options).unwrap();
        assert_eq!(kinds(&region), [RingKind::Spsc, kind]);
        let (mut tx, mut producer) =
            (region.spsc_sender(0).unwrap(), region.mpsc_producer(1).unwrap());
        tx.send(b"one").unwrap();
        producer.send(b"many").unwrap();
        assert_eq!(region.split_spsc().unwrap().1.recv_timeout(SOON).unwrap().data, b"one");
        assert_eq!(region.split_mpsc().unwrap().1.recv_timeout(SOON).unwrap().data, b"many");
    }
}

#[test]
fn split_gives_the_first_ring_of_its_kind_and_says_if_there_is_none() {
    let mut region = EventsRegion::anonymous(all_kinds()).unwrap();
    let (mut tx, _) = region.split_spsc().unwrap();
    let (mut producer, _) = region.split_mpsc().unwrap();
    tx.send(b"one").unwrap();
    producer.send(b"many").unwrap();
    assert_eq!(region.spsc_receiver(1).unwrap().try_recv().unwrap().data, b"one");
    assert_eq!(region.mpsc_consumer(0).unwrap().try_recv().unwrap().data, b"many");
    for (ring, other) in
        [(spsc(), RingKind::Mpsc), (mpsc(), RingKind::Spsc), (lanes(), RingKind::Spsc)]
    {
        let mut region = EventsRegion::anonymous(listed([ring])).unwrap();
        let refused = match other {
            RingKind::Spsc => region.split_spsc().map(drop),
            _ => region.split_mpsc().map(drop),
        };
        let Err(Error::Layout { reason, .. }) = refused else { panic!("{refused:?}") };
        let (ring, found) = (None, None);
        assert_eq!(reason, LayoutError::OtherRing { ring, found, wanted: other });
    }
}

#[test]
fn a_region_with_one_ring_alone_works() {
    for ring in [spsc(), mpsc(), lanes()] {
        let region = EventsRegion::anonymous(listed([ring])).unwrap();
        passes(&region, &region, 0, MessagePacket::from(b"alone"));
    }
}

#[test]
fn no_rings_size_limits_anothers_messages() {
    let long = RingOptions::spsc().capacity(1 << 22).max_message(1 << 19);
    let region = EventsRegion::anonymous(listed([spsc(), long, lanes()])).unwrap();
    let limits = |ring: u32, len: usize| match region.spsc_sender(ring).unwrap().send(&vec![7; len])
    {
        Ok(()) => None,
        Err(SendError::Failed { source: Error::MessageTooLong { limit, .. }, .. }) => Some(limit),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(limits(1, 1 << 19), None);
    assert_eq!(limits(1, (1 << 19) + 1), Some(1 << 19));
    assert_eq!(limits(0, 1008), None);
    assert_eq!(limits(0, 1009), Some(1008));
    assert_eq!(region.spsc_receiver(1).unwrap().recv_timeout(SOON).unwrap().data.len(), 1 << 19);
}

#[test]
fn an_end_of_the_wrong_kind_or_of_no_ring_is_refused_with_what_was_found() {
    let region = EventsRegion::anonymous(all_kinds()).unwrap();
    let mut refused_count = 0;
    for ring in (0..8).chain([u32::MAX]) {
        let found = kinds(&region).get(ring as usize).copied();
        let is_spsc = found == Some(RingKind::Spsc);
        let is_mpsc = matches!(found, Some(RingKind::Mpsc | RingKind::Lane));
        let ends = [
            (region.spsc_sender(ring).map(drop), is_spsc, RingKind::Spsc),
            (region.spsc_receiver(ring).map(drop), is_spsc, RingKind::Spsc),
            (region.mpsc_producer(ring).map(drop), is_mpsc, RingKind::Mpsc),
            (region.mpsc_consumer(ring).map(drop), is_mpsc, RingKind::Mpsc),
        ];
        for (end, is_right, wanted) in ends {
            match end {
                Ok(()) => assert!(is_right, "ring {ring} is {found:?}"),
                Err(Error::Layout { reason, .. }) => {
                    assert!(!is_right);
                    let ring = Some(ring);
                    assert_eq!(reason, LayoutError::OtherRing { ring, found, wanted });
                    refused_count += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert_eq!(refused_count, 6 * 2 + 3 * 4);
    let error = region.spsc_sender(0).unwrap_err().to_string();
    assert!(
        error.contains("kind of ring 0 is LANE, wanted SPSC; see EventsRegion::rings"),
        "{error}"
    );
    let error = region.mpsc_consumer(6).unwrap_err().to_string();
    assert!(error.contains("kind of ring 6 is none, wanted MPSC"), "{error}");
}

#[test]
fn each_ring_has_an_owner_of_its_own_at_each_end() {
    let region = EventsRegion::anonymous(listed([spsc(), spsc()])).unwrap();
    let [mut first, mut second] = [0, 1].map(|ring| region.spsc_sender(ring).unwrap());
    first.attach().unwrap();
    second.attach().unwrap();
    let busy = region.spsc_sender(1).unwrap().attach();
    assert!(matches!(busy, Err(Error::Busy { ring: 1, .. })), "{busy:?}");
}

/// What joining with these options says.
fn join(region: &EventsRegion, options: OpenOptions) -> Result<EventsRegion, Error> {
    EventsRegion::from_fds(region.to_fds().unwrap(), options)
}

#[test]
fn a_joiner_that_lists_rings_requires_them_one_by_one_and_one_that_lists_none_takes_all() {
    let region = EventsRegion::anonymous(all_kinds()).unwrap();
    let has = |kind: fn() -> RingOptions| kind().max_message(1008);
    for options in [
        OpenOptions::new(),
        all_kinds(),
        listed([RingOptions::lanes(), RingOptions::spsc(), RingOptions::mpsc()]), // and more may be there
        listed([lanes().max_handles(4), has(spsc), RingOptions::mpsc().producers(1)]),
    ] {
        let joined = join(&region, options).unwrap();
        assert_eq!(joined.rings(), region.rings());
    }
    let rows = [
        (listed([RingOptions::spsc()]), 0, "kind"),
        (listed([RingOptions::mpsc()]), 0, "kind"), // lanes have another order
        (listed([lanes(), spsc(), lanes()]), 2, "kind"),
        (all_kinds().ring(spsc()), 6, "kind"),
        (listed([lanes().capacity(8192)]), 0, "capacity"),
        (listed([lanes(), spsc().max_message(1009)]), 1, "max_message"),
        (listed([lanes(), spsc().max_handles(5)]), 1, "max_handles"),
        (listed([lanes(), spsc(), mpsc().producers(3)]), 2, "producers"),
        (listed([lanes().producers(4)]), 0, "producers"),
        (listed([lanes(), spsc(), mpsc(), mpsc().max_handles(1)]), 3, "max_handles"),
    ];
    for (options, ring, option) in rows {
        let reason = match join(&region, options) {
            Err(Error::Layout { reason, .. }) => reason,
            joined => panic!("ring {ring}, {option}: {joined:?}"),
        };
        match reason {
            LayoutError::OtherRing { ring: found, .. } => {
                assert_eq!((found, option), (Some(ring), "kind"));
            }
            LayoutError::OptionTooSmall { ring: found_ring, option: found, .. } => {
                assert_eq!((found_ring, found), (Some(ring), option));
            }
            reason => panic!("{reason}"),
        }
        let text = reason.to_string();
        assert!(text.starts_with(&format!("{option} of ring {ring} is ")), "{text}");
        assert!(text.contains("wanted") && text.contains("CreatePolicy::CreateNew"), "{text}");
    }
}

#[test]
fn a_region_that_came_as_one_descriptor_carries_no_handles_on_any_ring() {
    let region = EventsRegion::anonymous(all_kinds()).unwrap();
    let alone = |options| EventsRegion::from_fd(region.to_fd().unwrap(), options);
    let joined = alone(OpenOptions::new()).unwrap();
    assert!(joined.rings().iter().all(|ring| ring.max_handles == 0));
    let error = alone(listed([lanes().max_handles(1)])).unwrap_err().to_string();
    assert!(error.contains("max_handles is 0 in a region that came as one descriptor"), "{error}");
    assert_eq!(region.to_fds().unwrap().len(), 1 + 3 * 2);
}

#[test]
fn rings_that_no_region_can_hold_are_refused_before_anything_is_made() {
    let dir = Dir::new();
    let many = |count: u32, ring: fn() -> RingOptions| listed((0..count).map(|_| ring()));
    let huge = || RingOptions::spsc().capacity(1 << 40);
    let ends = SLOT_COUNT_MAX as u16 / 2;
    let rows = [
        (many(RING_COUNT_MAX + 1, spsc), "ring", None),
        (many(2, || lanes().producers(512)).ring(spsc()), "ring", None),
        (listed([mpsc().producers(ends), mpsc().producers(ends - 1)]), "ring", None),
        (many(64, huge), "ring", None), // and the header's page
        (many(RING_COUNT_MAX, huge), "ring", None),
        (listed([spsc(), spsc().capacity(5000)]), "capacity", Some(1)),
        (listed([spsc(), spsc().capacity(1 << 41)]), "capacity", Some(1)),
        (listed([spsc().max_message(1009)]), "max_message", Some(0)),
        (listed([huge().max_message(1 << 28)]), "max_message", Some(0)),
        (listed([lanes(), mpsc().max_handles(65)]), "max_handles", Some(1)),
        (listed([spsc().producers(2)]), "producers", Some(0)),
        (listed([mpsc().producers(0)]), "producers", Some(0)),
        (listed([mpsc().producers(8190)]), "producers", Some(0)),
        (listed([spsc(), lanes().producers(513)]), "producers", Some(1)),
        (listed([spsc()]).require(tombolo_abi::caps::LANES), "require", None),
        (listed([spsc()]).require(tombolo_abi::caps::HANDLES), "require", None),
        (listed([spsc()]).max_total_len(4096), "max_total_len", None),
    ];
    let count = rows.len();
    for (options, option, ring) in rows {
        dir.refuses_with(&dir.file("a"), options, |error| {
            let is_said =
                ring.is_none_or(|ring| error.to_string().contains(&format!(" of ring {ring} ")));
            is_said
                && matches!(error, Error::InvalidOption { option: found, ring: of, .. }
                    if (*found, *of) == (option, ring))
        });
    }
    println!("lists refused: {count}");
    assert!(count > 0);
}

#[test]
fn as_many_rings_and_ends_as_the_layout_has_numbers_for_fit_into_one_region() {
    let region = EventsRegion::anonymous(listed((0..RING_COUNT_MAX).map(|_| spsc()))).unwrap();
    assert_eq!(region.rings().len(), RING_COUNT_MAX as usize);
    passes(&region, &region, RING_COUNT_MAX - 1, MessagePacket::from(b"the last"));
    let ends = SLOT_COUNT_MAX as u16 / 2 - 1;
    let region = EventsRegion::anonymous(listed([ends, ends].map(|count| mpsc().producers(count))));
    let region = region.unwrap();
    passes(&region, &region, 1, MessagePacket::from(b"the last"));
}

#[test]
fn options_of_the_two_default_rings_are_refused_beside_a_list() {
    let dir = Dir::new();
    let list = || listed([spsc()]);
    let existing = |options: OpenOptions| options.policy(CreatePolicy::OpenExisting);
    for (options, option) in [
        (list().spsc_capacity(4096), "spsc_capacity"),
        (list().mpsc_capacity(4096), "mpsc_capacity"),
        (list().max_message(10), "max_message"),
        (list().max_handles(1), "max_handles"),
        (list().producers(1), "producers"),
        (list().mpsc_order(MpscOrder::Total), "mpsc_order"),
    ] {
        let is_refused = |error: &Error| matches!(error, Error::InvalidOption { option: found, .. } if *found == option);
        let region = EventsRegion::anonymous(list()).unwrap();
        assert!(join(&region, options.clone()).is_err_and(|error| is_refused(&error)));
        for options in [options.clone(), existing(options)] {
            dir.refuses_with(&dir.file("a"), options, is_refused);
        }
    }
}

/// The bytes of a region with these rings, as they may lie in any file.
fn bytes_of(dir: &Dir, options: OpenOptions) -> Vec<u8> {
    support::sound_bytes_with(dir, options.file_system(FileSystemPolicy::Any))
}

#[test]
fn rings_that_share_bytes_or_slots_or_leave_the_file_are_refused() {
    let dir = Dir::new();
    let sound = bytes_of(&dir, listed([spsc(), mpsc(), lanes()]));
    let entry = |ring: usize| -> RingEntry {
        let directory = &sound[directory_of(&header_of(&sound))];
        bytemuck::pod_read_unaligned(&directory[ring * 64..][..64])
    };
    let path = dir.file("a");
    let refused = |ring: usize, change: &dyn Fn(&mut RingEntry)| {
        let mut bytes = sound.clone();
        forge_entry(&mut bytes, ring, change);
        write_private(&path, &bytes);
        dir.refuses(&path, |error| {
            matches!(error, Error::Layout { .. } | Error::RegionTooSmall { .. })
        });
    };
    type Change<'a> = (usize, &'a dyn Fn(&mut RingEntry));
    let changes: [Change<'_>; 12] = [
        (1, &|one| one.data_offset = entry(0).data_offset),
        (1, &|one| one.control_offset = entry(0).control_offset),
        (0, &|one| one.capacity *= 2),
        (4, &|one| one.capacity *= 2), // over the end
        (0, &|one| one.rx_slot = entry(1).rx_slot),
        (0, &|one| one.tx_slot_first = entry(1).tx_slot_first),
        (0, &|one| one.tx_slot_count = 2),
        (3, &|one| one.lane_index = 0),
        (3, &|one| one.rx_slot += 1),
        (2, &|one| one.group = u16::MAX),
        (0, &|one| one.max_handles = 1), // no ring has the capability
        (0, &|one| one.kind = RingKind::Broadcast as u32),
    ];
    for (ring, change) in changes {
        refused(ring, change);
    }
}

#[test]
fn inspecting_tells_the_index_of_each_ring_and_of_lanes_without_a_first_one_that_they_have_none() {
    let dir = Dir::new();
    let bytes = bytes_of(&dir, listed([lanes(), spsc(), lanes(), mpsc()]));
    let path = dir.file("a");
    let of_all = |bytes: &[u8]| -> Vec<_> {
        write_private(&path, bytes);
        Image::open(&path).unwrap().rings().iter().map(|ring| ring.listed).collect()
    };
    let first = [Some(0); 3];
    assert_eq!(of_all(&bytes), [&first[..], &[Some(1)], &[Some(2); 3], &[Some(3)]].concat());
    let mut forged = bytes;
    forge_entry(&mut forged, 4, |entry| entry.kind = RingKind::Memory as u32);
    let second = [Some(2), None, None];
    assert_eq!(of_all(&forged), [&first[..], &[Some(1)], &second, &[Some(3)]].concat());
    let region = EventsRegion::open_path(&path).unwrap();
    assert_eq!(kinds(&region), [RingKind::Lane, RingKind::Spsc, RingKind::Memory, RingKind::Mpsc]);
    passes(&region, &region, 3, MessagePacket::from(b"behind it"));
}

/// Uses all that a region offers, whatever it is; gives how many of its ends attach.
fn use_all(region: &EventsRegion) -> usize {
    let count = region.rings().len() as u32;
    let ends = (0..=count).map(|ring| {
        let one = region.spsc_sender(ring).and_then(|mut end| end.attach());
        let other = region.spsc_receiver(ring).and_then(|mut end| end.attach());
        let many = region.mpsc_producer(ring).and_then(|mut end| end.attach());
        let all = region.mpsc_consumer(ring).and_then(|mut end| end.attach());
        [one, other, many, all].iter().filter(|attached| attached.is_ok()).count()
    });
    ends.sum()
}

#[test]
fn whatever_a_directory_says_opening_and_attaching_end_with_a_value_or_an_error() {
    let dir = Dir::new();
    let sound = bytes_of(&dir, listed([spsc(), lanes().producers(2), mpsc()]));
    let path = dir.file("a");
    let span = directory_of(&header_of(&sound));
    let existing = || OpenOptions::new().policy(CreatePolicy::OpenExisting);
    let (mut opened_count, mut refused_count, mut attached_count) = (0, 0, 0);
    for at in span.clone() {
        for value in [0, 1, 2, 4, 0x7f, 0x80, 0xff] {
            let mut bytes = sound.clone();
            if bytes[at] == value {
                continue;
            }
            bytes[at] = value;
            support::forge(&mut bytes, |_| {});
            write_private(&path, &bytes);
            match EventsRegion::open_path_with(&path, existing()) {
                Ok(region) => {
                    opened_count += 1;
                    attached_count += use_all(&region);
                }
                Err(_) => refused_count += 1,
            }
        }
    }
    println!("{opened_count} opened, {refused_count} refused, {attached_count} ends attached");
    assert!(opened_count > 0 && refused_count > 0 && attached_count > 0);
}

#[test]
fn each_ring_passes_messages_and_handles_between_two_openings_of_a_region() {
    let dir = Dir::new();
    let path = dir.file("a");
    let ours = EventsRegion::open_path_with(&path, all_kinds()).unwrap();
    let theirs = EventsRegion::open_path(&path).unwrap();
    assert!(!theirs.is_creator());
    for (ring, is_carried) in (0..).zip([true, true, true, false, false, false]) {
        passes(&ours, &theirs, ring, MessagePacket::from(b"bytes"));
        if is_carried {
            passes(&theirs, &ours, ring, packet(ring.into(), 4));
        }
    }
    let refused = ours.spsc_sender(5).unwrap().try_send_packet(packet(1, 1));
    let is_refused = matches!(
        refused,
        Err(TrySendError::Failed { source: Error::HandlesNotCarried { ring: 9, .. }, .. })
    );
    assert!(is_refused, "{refused:?}");
}

/// What the process at the other end does: sends all back that comes on ring 0 on ring 1, and so on.
#[test]
fn peer_process() {
    let Some((_, path)) = role() else { return };
    let region = EventsRegion::open_path(&path).unwrap();
    let mut requests = region.spsc_receiver(1).unwrap();
    let (mut many, mut all) = (region.mpsc_consumer(2).unwrap(), region.mpsc_consumer(0).unwrap());
    requests.attach().unwrap();
    many.attach().unwrap();
    all.attach().unwrap();
    report("ready");
    let mut answers = region.spsc_sender(5).unwrap();
    let mut sum = |packet: MessagePacket| {
        let sum: u64 = numbers_of(&packet.handles).into_iter().sum();
        answers.send(&[&packet.data[..], &sum.to_le_bytes()].concat()).unwrap();
    };
    sum(requests.recv_timeout(SOON).unwrap());
    sum(many.recv_timeout(SOON).unwrap());
    sum(all.recv_timeout(SOON).unwrap());
    wait_for_parent();
}

#[test]
fn each_ring_passes_messages_and_handles_between_processes() {
    let dir = Dir::new();
    let path = dir.file("a");
    let region = EventsRegion::open_path_with(&path, all_kinds()).unwrap();
    let peer = Peer::start("peer_process", "answers", Path::new(&path));
    let mut answers = region.spsc_receiver(5).unwrap();
    region.spsc_sender(1).unwrap().send_packet_timeout(packet(3, 2), SOON).unwrap();
    let mut answer = |number: u64, count: u64| {
        let data = answers.recv_timeout(SOON).unwrap().data;
        assert_eq!(data, [number.to_le_bytes(), (number * count).to_le_bytes()].concat());
    };
    answer(3, 2);
    for (ring, number) in [(2, 5), (0, 7)] {
        region.mpsc_producer(ring).unwrap().send_packet_timeout(packet(number, 4), SOON).unwrap();
        answer(number, 4);
    }
    peer.finish();
    assert!(fs::metadata(path).is_ok());
}

/// A ring that a region can have, and how many numbers it takes.
fn any_ring() -> impl Strategy<Value = RingOptions> {
    let kind = prop_oneof![
        Just(RingOptions::spsc()),
        (1_u16..20).prop_map(|count| RingOptions::mpsc().producers(count)),
        (1_u16..20).prop_map(|count| RingOptions::lanes().producers(count)),
    ];
    let message = prop_oneof![Just(None), (8_u32..=1008).prop_map(Some)];
    (kind, 12_u32..17, message, 0_u16..=64).prop_map(|(ring, capacity, message, handles)| {
        let ring = ring.capacity(1 << capacity).max_handles(handles);
        message.into_iter().fold(ring, RingOptions::max_message)
    })
}

/// The parts of a file that belong to its rings, as its directory says.
fn sections(region: &EventsRegion) -> Vec<std::ops::Range<u64>> {
    let mut bytes = Vec::new();
    let mut file = fs::File::from(region.to_fd().unwrap());
    std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
    let header = header_of(&bytes);
    let directory = directory_of(&header);
    let slots =
        header.slot_offset..header.slot_offset + u64::from(header.slot_count * header.slot_len);
    let fixed = [0..4096, slots, directory.start as u64..directory.end as u64];
    let of_ring = |ring: RingEntry| {
        let control = ring.control_offset..ring.control_offset + u64::from(header.control_len);
        [control, ring.data_offset..ring.data_offset + ring.capacity]
    };
    let rings = parse_entries(&header, &bytes[directory]).flat_map(of_ring);
    let mut all: Vec<_> = fixed.into_iter().chain(rings).collect();
    all.sort_by_key(|section| section.start);
    assert!(all.last().unwrap().end <= bytes.len() as u64);
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..<_>::default() })]

    #[test]
    fn any_rings_lie_apart_and_are_found_by_joiners_as_they_were_listed(
        rings in proptest::collection::vec(any_ring(), 1..8)
    ) {
        let region = EventsRegion::anonymous(listed(rings.clone())).unwrap();
        let sections = sections(&region);
        prop_assert!(sections.is_sorted_by(|a, b| a.end <= b.start), "{sections:x?}");
        let joined = join(&region, listed(rings.clone())).unwrap();
        let found = joined.rings();
        prop_assert_eq!(&found, &region.rings());
        prop_assert_eq!(found.len(), rings.len());
        for (ring, one) in (0..).zip(&found) {
            passes(&region, &joined, ring, MessagePacket::from(vec![1; one.max_message as usize]));
            if one.max_handles > 0 && ring < 3 {
                passes(&joined, &region, ring, packet(7, 1));
            }
        }
    }
}
