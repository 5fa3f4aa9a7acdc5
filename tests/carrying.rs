//! Handles cross with the messages that they belong to, or stay where they are.

use std::fs::File;
use std::io::{PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::thread;
use std::time::{Duration, Instant};

use tombolo::ends::{Mpsc, Topology};
use tombolo::handle::{DispositionError, HandleDisposition, HandleError};
use tombolo::options::MpscOrder;
use tombolo::{
    Error, EventsRegion, Handle, HandleType, MessagePacket, OpenOptions, Receiver, Rights,
    SendTimeoutError, Sender, TryRecvError, TrySendError,
};

mod support;
use support::carrying::{SOON, numbered, numbers_of};
use support::parts::ReceiveParts;
use support::{Dir, small};

const SHORT: Duration = Duration::from_millis(30);

/// Runs a test of both ends on each kind of ring, with the receiver in its place.
macro_rules! on_each_ring {
    ($(fn $name:ident($ends:ident: Ends) $body:block)*) => {
        $(mod $name {
            use super::*;

            fn on<K: Topology>($ends: Ends<K>) $body

            #[test]
            fn spsc() {
                on(Ends::of(0, MpscOrder::Total, EventsRegion::split_spsc));
            }

            #[test]
            fn mpsc() {
                on(Ends::of(1, MpscOrder::Total, EventsRegion::split_mpsc));
            }

            #[test]
            fn lanes() {
                on(Ends::of(1, MpscOrder::PerProducer, EventsRegion::split_mpsc));
            }

            #[test]
            fn spsc_without_a_name() {
                on(Ends::nameless(0, MpscOrder::Total, EventsRegion::split_spsc));
            }

            #[test]
            fn lanes_without_a_name() {
                on(Ends::nameless(1, MpscOrder::PerProducer, EventsRegion::split_mpsc));
            }
        })*
    };
}

struct Ends<K: Topology> {
    tx: Sender<K>,
    rx: Receiver<K>,
    ring: u32,
    home: Home<K>,
    dir: Dir,
}

/// Opens the region once more.
type Open = Box<dyn Fn() -> EventsRegion + Send>;

type Split<K> = fn(&mut EventsRegion) -> Result<(Sender<K>, Receiver<K>), Error>;

/// Where the ends come from.
struct Home<K: Topology> {
    open: Open,
    split: Split<K>,
    /// Sockets in the region's directory while a receiver is there.
    sockets: usize,
}

impl<K: Topology> Home<K> {
    /// Both ends once more.
    fn again(&self) -> (Sender<K>, Receiver<K>) {
        (self.split)(&mut (self.open)()).unwrap()
    }
}

impl<K: Topology> Ends<K> {
    /// Ends of a region with a path, which each opens by that.
    fn of(ring: u32, order: MpscOrder, split: Split<K>) -> Self {
        let dir = Dir::new();
        let path = dir.file("r");
        let options = move || options().mpsc_order(order);
        let open = Box::new(move || EventsRegion::open_path_with(&path, options()).unwrap());
        Self::at(Home { open, split, sockets: 1 }, ring, dir)
    }

    /// Ends of a region that is passed on by descriptors.
    fn nameless(ring: u32, order: MpscOrder, split: Split<K>) -> Self {
        let region = EventsRegion::anonymous(options().mpsc_order(order)).unwrap();
        let fds = move || region.to_fds().unwrap();
        let open = Box::new(move || EventsRegion::from_fds(fds(), OpenOptions::new()).unwrap());
        Self::at(Home { open, split, sockets: 0 }, ring, Dir::new())
    }

    fn at(home: Home<K>, ring: u32, dir: Dir) -> Self {
        let (tx, mut rx) = home.again();
        rx.attach().unwrap();
        Self { tx, rx, ring, home, dir }
    }
}

fn options() -> OpenOptions {
    small().spsc_capacity(1 << 16).mpsc_capacity(1 << 16).producers(8).max_handles(64)
}

fn number_of(handle: &Handle) -> u64 {
    let mut bytes = [0; 8];
    rustix::io::pread(handle, &mut bytes, 0).unwrap();
    u64::from_le_bytes(bytes)
}

/// The writing end of a pipe as a handle, and what tells when nobody has it any more.
fn witness() -> (Handle, Witness) {
    let (reader, writer) = std::io::pipe().unwrap();
    (Handle::new(writer), Witness(reader))
}

struct Witness(PipeReader);

impl Witness {
    fn is_closed(&mut self) -> bool {
        let mut events = [rustix::event::PollFd::new(&self.0, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut events, Some(&now)).unwrap();
        let hung_up = events[0].revents().contains(rustix::event::PollFlags::HUP);
        hung_up && self.0.read(&mut [0]).unwrap() == 0
    }

    #[track_caller]
    fn closes_soon(mut self) {
        let start = Instant::now();
        while !self.is_closed() {
            assert!(start.elapsed() < SOON, "somebody still has it open");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

on_each_ring! {
    fn any_number_up_to_64_arrives_whole_and_in_order(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        assert_eq!(tx.max_handles(), 64);
        for (round, count) in [1, 0, 63, 64, 2, 0, 64, 1].into_iter().enumerate() {
            let first = 1000 * round as u64;
            let mut packet = MessagePacket::from(vec![round as u8; round]);
            packet.handles = (0..count).map(|i| Handle::new(numbered(first + i))).collect();
            tx.try_send_packet(packet).unwrap();
            let message = rx.try_recv().unwrap();
            assert_eq!(message.data, vec![round as u8; round]);
            assert_eq!(numbers_of(&message.handles), Vec::from_iter(first..first + count));
        }
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    }

    fn messages_with_and_without_handles_keep_their_order_over_many_laps(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        for number in 0..3000u64 {
            let mut packet = MessagePacket::from(vec![number as u8; (number * 7 % 300) as usize]);
            packet.handles = (0..number % 4).map(|_| Handle::new(numbered(number))).collect();
            tx.try_send_packet(packet).unwrap();
            tx.try_send(&number.to_le_bytes()).unwrap();
            let message = rx.try_recv().unwrap();
            assert_eq!(message.data, vec![number as u8; (number * 7 % 300) as usize]);
            assert_eq!(numbers_of(&message.handles), vec![number; (number % 4) as usize]);
            assert_eq!(rx.try_recv().unwrap().data, number.to_le_bytes());
        }
    }

    fn the_65th_is_refused_before_anything_happens(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        for count in [65, 253, 254] {
            let mut packet = MessagePacket::from(b"too many");
            packet.handles = (0..count).map(|i| Handle::new(numbered(i))).collect();
            let refused = tx.try_send_packet(packet).unwrap_err();
            let TrySendError::Failed { message, source: Error::Handles { source } } = refused else { panic!("{refused}") };
            let found = count as usize;
            assert_eq!(source, DispositionError::TooManyHandles { found, limit: 64 });
            assert_eq!(numbers_of(&message.handles), Vec::from_iter(0..count));
            assert_eq!(message.data, b"too many");
        }
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    }

    fn a_handle_without_the_right_to_be_sent_keeps_the_whole_message_back(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        let kept = Handle::new(numbered(2)).replace(Rights::READ).unwrap();
        let packet = MessagePacket::from(b"no").handle(numbered(1));
        let mut packet = packet.handle(numbered(1));
        packet.handles.push(kept);
        let refused = tx.try_send_packet(packet).unwrap_err();
        let TrySendError::Failed { message, source: Error::Handles { source } } = refused else { panic!("{refused}") };
        assert_eq!(message.handles.len(), 3);
        let is_denied = matches!(
            source,
            DispositionError::Handle { index: 2, source: HandleError::AccessDenied { .. } }
        );
        assert!(is_denied, "{source}");
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    }

    fn a_list_sends_handles_with_the_rights_that_it_gives_them_also_none(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        let kept = Handle::new(numbered(1));
        let mut list = [
            HandleDisposition::duplicate(&kept).rights(Rights::READ),
            HandleDisposition::moved(numbered(2)).rights(Rights::empty()),
            HandleDisposition::moved(numbered(3)).expect_type(HandleType::MemFd),
        ];
        let mut packet = MessagePacket::from(b"disposed");
        packet.handles = HandleDisposition::resolve_all(&mut list, &[]).unwrap();
        tx.try_send_packet(packet).unwrap();
        let message = rx.try_recv().unwrap();
        assert_eq!(numbers_of(&message.handles), [1, 2, 3]);
        let rights: Vec<_> = message.handles.iter().map(Handle::rights).collect();
        assert_eq!(rights, [Rights::READ, Rights::empty(), kept.rights()]);
        let refused = tx.try_send_packet(message).unwrap_err(); // what has come so goes no further
        let TrySendError::Failed { source: Error::Handles { source }, .. } = refused else { panic!("{refused}") };
        let is_denied = matches!(
            source,
            DispositionError::Handle { index: 0, source: HandleError::AccessDenied { .. } }
        );
        assert!(is_denied, "{source}");
        assert_eq!(number_of(&kept), 1);
    }

    fn the_region_itself_does_not_go_through_its_own_rings(ends: Ends) {
        let Ends { mut tx, home, .. } = ends;
        let own = (home.open)().to_fds().unwrap();
        for own in own {
            let refused = tx.try_send_packet(MessagePacket::from(b"").handle(own)).unwrap_err();
            let TrySendError::Failed { source: Error::Handles { source }, .. } = refused else { panic!("{refused}") };
            let through_itself =
                DispositionError::Handle { index: 0, source: HandleError::ThroughItself };
            assert_eq!(source, through_itself);
        }
    }

    fn type_and_rights_arrive_and_descriptors_are_close_on_exec(ends: Ends) {
        let Ends { mut tx, mut rx, dir, .. } = ends;
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let narrowed = Handle::new(numbered(1)).replace(Rights::TRANSFER | Rights::READ).unwrap();
        let nothing_but_sent = Handle::new(File::open(dir.path()).unwrap());
        let nothing_but_sent = nothing_but_sent.replace(Rights::TRANSFER).unwrap();
        let mut packet = MessagePacket::from(b"all kinds").handle(socket).handle(numbered(2));
        packet.handles.extend([narrowed, nothing_but_sent]);
        let wanted: Vec<_> =
            packet.handles.iter().map(|one| (one.handle_type(), one.rights())).collect();
        tx.send_packet(packet).unwrap();
        let message = rx.recv().unwrap();
        let found: Vec<_> =
            message.handles.iter().map(|one| (one.handle_type(), one.rights())).collect();
        assert_eq!(found, wanted);
        assert_eq!(found[0].0, HandleType::Socket);
        for handle in &message.handles {
            let flags = rustix::io::fcntl_getfd(handle).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
    }

    fn odd_descriptors_are_passed_on_untouched(ends: Ends) {
        let Ends { mut tx, mut rx, dir, .. } = ends;
        let fifo = dir.file("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        let path_only = rustix::fs::open(
            &fifo,
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        let packet = MessagePacket::from(b"odd")
            .handle(path_only.unwrap())
            .handle(File::open("/dev/null").unwrap())
            .handle(File::open(dir.path()).unwrap());
        tx.send_packet(packet).unwrap();
        let handles = rx.recv().unwrap().handles;
        let kinds: Vec<_> = handles
            .into_iter()
            .map(|one| File::from(one.into_fd()).metadata().unwrap().file_type())
            .collect();
        assert!(kinds[0].is_fifo() && kinds[1].is_char_device() && kinds[2].is_dir());
    }

    fn too_little_room_keeps_the_message_and_says_what_it_needs(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        let (handle, mut witness) = witness();
        let mut packet = MessagePacket::from(b"12345").handle(numbered(7));
        packet.handles.push(handle);
        tx.send_packet(packet).unwrap();
        let wanted = |error: TryRecvError, rooms: (usize, usize)| {
            let TryRecvError::Failed { source } = error else { panic!("{error}") };
            let Error::BuffersTooSmall { needed: 5, available, needed_handles: 2, available_handles } =
                source
            else {
                panic!("{source}")
            };
            assert_eq!((available, available_handles), rooms);
        };
        wanted(rx.try_recv_into(&mut [0; 64]).unwrap_err(), (64, 0));
        wanted(rx.try_recv_parts(&mut [0; 4], &mut [None, None]).unwrap_err(), (4, 2));
        wanted(rx.try_recv_parts(&mut [0; 5], &mut [None]).unwrap_err(), (5, 1));
        let (mut bytes, mut handles) = ([0; 8], [None, None, None]);
        assert_eq!(rx.try_recv_parts(&mut bytes, &mut handles).unwrap(), (5, 2));
        assert_eq!(&bytes[..5], b"12345");
        let [Some(first), Some(second), None] = handles else { panic!() };
        assert_eq!(number_of(&first), 7);
        assert!(!witness.is_closed());
        drop(second);
        witness.closes_soon();
    }

    fn what_may_be_discarded_is_gone_with_its_handles(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        let (handle, witness) = witness();
        let mut packet = MessagePacket::from(b"large");
        packet.handles.push(handle);
        tx.send_packet(packet).unwrap();
        tx.send(b"next").unwrap();
        let error = rx.try_recv_parts_or_discard(&mut [0; 4], &mut [None]).unwrap_err();
        let is_too_small = matches!(
            error,
            TryRecvError::Failed { source: Error::BuffersTooSmall { needed: 5, .. } }
        );
        assert!(is_too_small, "{error}");
        witness.closes_soon();
        assert_eq!(rx.try_recv().unwrap().data, b"next");
    }

    fn a_record_lent_shows_its_handles_and_closes_those_that_nobody_took(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        let (handle, mut witness) = witness();
        let mut packet = MessagePacket::from(b"lent").handle(numbered(3));
        packet.handles.push(handle);
        tx.send_packet(packet).unwrap();
        let record = rx.try_recv_ref().unwrap();
        assert_eq!((record.len(), record.handle_count()), (4, 2));
        assert_eq!(number_of(&record.handles().unwrap()[0]), 3);
        record.keep(); // with its handles
        assert!(!witness.is_closed());
        let record = rx.try_recv_ref().unwrap();
        let first = record.handles().unwrap().swap_remove(0);
        drop(record);
        assert_eq!(number_of(&first), 3);
        witness.closes_soon();
        tx.send_packet(MessagePacket::from(b"drained").handle(numbered(4))).unwrap();
        let mut numbers = Vec::new();
        let drained = rx.drain(9, |record| numbers = numbers_of(&record.handles().unwrap()));
        assert_eq!((drained.unwrap(), numbers), (1, vec![4]));
    }

    fn if_no_receiver_listens_the_message_comes_back_with_its_handles(ends: Ends) {
        let Ends { mut tx, rx, home, .. } = ends;
        drop(rx);
        let (handle, mut witness) = witness();
        let mut packet = MessagePacket::from(b"anybody?");
        packet.handles.push(handle);
        let refused = tx.try_send_packet(packet).unwrap_err();
        let TrySendError::NoReceiver(packet) = refused else { panic!("{refused}") };
        let refused = tx.send_packet_timeout(packet, SHORT).unwrap_err();
        let SendTimeoutError::NoReceiver(packet) = refused else { panic!("{refused}") };
        assert_eq!((&packet.data[..], packet.handles.len()), (&b"anybody?"[..], 1));
        assert!(!witness.is_closed());
        drop(packet);
        witness.closes_soon();
        // A receiver that comes while it is waited for.
        let waiting = thread::spawn(move || {
            tx.send_packet(MessagePacket::from(b"you").handle(numbered(1))).unwrap();
        });
        thread::sleep(SHORT);
        let (_, mut rx) = home.again();
        let message = rx.recv_timeout(SOON).unwrap();
        assert_eq!((&message.data[..], numbers_of(&message.handles)), (&b"you"[..], vec![1]));
        waiting.join().unwrap();
    }

    fn a_full_ring_gives_message_and_handles_back(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        while tx.try_send(&[0; 900]).is_ok() {}
        while tx.try_send(&[]).is_ok() {}
        let packet = MessagePacket::from(b"full").handle(numbered(1));
        let refused = tx.try_send_packet(packet).unwrap_err();
        let TrySendError::Full(packet) = refused else { panic!("{refused}") };
        while rx.try_recv().is_ok() {}
        tx.try_send_packet(packet).unwrap();
        assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [1]);
    }

    fn handles_under_way_are_bounded_and_waited_for(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        let packet = |number: u64| {
            let mut packet = MessagePacket::from(&number.to_le_bytes());
            packet.handles = (0..8).map(|_| Handle::new(numbered(number))).collect();
            packet
        };
        let mut sent = 0;
        let refused = loop {
            match tx.try_send_packet(packet(sent)) {
                Ok(()) => sent += 1,
                Err(refused) => break refused,
            }
        };
        assert!(matches!(&refused, TrySendError::Full(back) if back.handles.len() == 8));
        assert_eq!(sent * 8, 256);
        tx.try_send(b"bytes alone still go").unwrap();
        let sending = thread::spawn(move || {
            for number in sent..200 {
                tx.send_packet(packet(number)).unwrap();
            }
        });
        let mut next = 0u64;
        while next < 200 {
            let message = rx.recv_timeout(SOON).unwrap();
            if message.handles.is_empty() {
                continue;
            }
            assert_eq!(message.data, next.to_le_bytes());
            assert_eq!(numbers_of(&message.handles), [next; 8]);
            next += 1;
        }
        sending.join().unwrap();
    }

    fn a_restarted_receiver_gets_the_bytes_and_is_told_that_the_handles_are_lost(ends: Ends) {
        let Ends { mut tx, rx, home, ring, .. } = ends;
        let (handle, witness) = witness();
        let mut packet = MessagePacket::from(b"old");
        packet.handles.push(handle);
        tx.send_packet(packet).unwrap();
        tx.send(b"bytes").unwrap();
        drop(rx);
        witness.closes_soon();
        let (_, mut rx) = home.again();
        rx.attach().unwrap();
        tx.send_packet(MessagePacket::from(b"new").handle(numbered(5))).unwrap();
        let error = rx.try_recv().unwrap_err();
        let TryRecvError::Failed { source } = error else { panic!("{error}") };
        let text = source.to_string();
        let Error::HandlesLost { ring: found, count: 1, data, position } = source else {
            panic!("{source}")
        };
        let lost = format!(
            "the 1 handle of the message at position {position} on ring {ring} went to an earlier receiver; \
             this error has its 3 bytes: ask its sender to send it again"
        );
        assert_eq!(text, lost);
        assert_eq!((found, &data[..]), (ring, &b"old"[..]));
        assert_eq!(rx.try_recv().unwrap().data, b"bytes");
        let message = rx.try_recv().unwrap();
        assert_eq!((&message.data[..], numbers_of(&message.handles)), (&b"new"[..], vec![5]));
    }

    fn iterating_goes_on_behind_handles_that_were_lost(ends: Ends) {
        let Ends { mut tx, rx, home, .. } = ends;
        tx.send_packet(MessagePacket::from(b"old").handle(numbered(1))).unwrap();
        drop(rx);
        let (_, mut rx) = home.again();
        tx.send(b"new").unwrap();
        drop(tx);
        let found: Vec<_> = rx.iter().collect();
        assert!(matches!(&found[0], Err(Error::HandlesLost { data, .. }) if data == b"old"));
        assert!(matches!(&found[1], Ok(message) if message.data == b"new"));
        assert_eq!(found.len(), 2);
    }

    fn a_sender_that_has_left_loses_nothing(ends: Ends) {
        let Ends { mut tx, mut rx, home, .. } = ends;
        tx.send_packet(MessagePacket::from(b"first").handle(numbered(1))).unwrap();
        drop(tx);
        let (mut tx, _) = home.again();
        tx.send_packet(MessagePacket::from(b"second").handle(numbered(2))).unwrap();
        drop(tx);
        assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [1]);
        assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [2]);
    }

    fn what_the_receiver_never_took_is_closed_when_it_goes(ends: Ends) {
        let Ends { mut tx, rx, home, dir, .. } = ends;
        let witnesses: Vec<_> = (0..5)
            .map(|_| {
                let (handle, witness) = witness();
                let mut packet = MessagePacket::from(b"");
                packet.handles.push(handle);
                tx.send_packet(packet).unwrap();
                witness
            })
            .collect();
        let sockets = || dir.snapshot().keys().filter(|name| name.as_encoded_bytes().ends_with(b".sock")).count();
        assert_eq!(sockets(), home.sockets);
        drop(rx);
        witnesses.into_iter().for_each(Witness::closes_soon);
        assert_eq!(sockets(), 0);
    }

    fn a_ring_made_without_handles_says_so_and_opens_no_socket(ends: Ends) {
        let Ends { home, dir, .. } = ends;
        let plain = dir.file("plain");
        let mut region = EventsRegion::open_path_with(&plain, small()).unwrap();
        let (mut tx, mut rx) = region.split_spsc().unwrap();
        rx.attach().unwrap();
        let refused = tx.try_send_packet(MessagePacket::from(b"").handle(numbered(1)));
        let TrySendError::Failed { source, message } = refused.unwrap_err() else { panic!() };
        assert!(matches!(source, Error::HandlesNotCarried { ring: 0, .. }), "{source}");
        assert_eq!(message.handles.len(), 1);
        let sockets = dir.snapshot().keys().filter(|name| name.as_encoded_bytes().ends_with(b".sock")).count();
        assert_eq!(sockets, home.sockets, "but for that of the other region");
    }
}

#[test]
fn clones_of_a_producer_send_handles_over_one_connection() {
    clones_send_handles(Ends::of(1, MpscOrder::Total, EventsRegion::split_mpsc));
}

#[test]
fn clones_with_lanes_send_handles_each_over_its_own() {
    clones_send_handles(Ends::of(1, MpscOrder::PerProducer, EventsRegion::split_mpsc));
}

fn clones_send_handles(ends: Ends<Mpsc>) {
    let Ends { mut tx, mut rx, .. } = ends;
    tx.attach().unwrap(); // stays, where the first of the others has left before the last comes
    let threads: Vec<_> = (0..4u64)
        .map(|thread| {
            let mut tx = tx.clone();
            thread::spawn(move || {
                for number in 0..200 {
                    let number = thread << 32 | number;
                    let packet = MessagePacket::from(&number.to_le_bytes());
                    tx.send_packet(packet.handle(numbered(number))).unwrap();
                }
            })
        })
        .collect();
    for _ in 0..800 {
        let message = rx.recv_timeout(SOON).unwrap();
        let number = u64::from_le_bytes(message.data.try_into().unwrap());
        assert_eq!(numbers_of(&message.handles), [number]);
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_joiner_that_knows_only_the_path_sends_and_receives_handles() {
    let dir = Dir::new();
    let path = dir.file("r");
    let _creator = EventsRegion::open_path_with(&path, options()).unwrap();
    let (mut tx, _) = EventsRegion::open_path(&path).unwrap().split_spsc().unwrap();
    let (_, mut rx) = EventsRegion::open_path(&path).unwrap().split_spsc().unwrap();
    rx.attach().unwrap();
    tx.send_packet(MessagePacket::from(b"").handle(numbered(9))).unwrap();
    assert_eq!(numbers_of(&rx.recv().unwrap().handles), [9]);
}

#[test]
fn a_region_that_came_as_one_descriptor_says_that_it_carries_no_handles() {
    let region = EventsRegion::anonymous(OpenOptions::new().max_handles(1)).unwrap();
    let mut other = EventsRegion::from_fd(region.to_fd().unwrap(), OpenOptions::new()).unwrap();
    let (mut tx, mut rx) = other.split_spsc().unwrap();
    rx.attach().unwrap();
    let refused = tx.try_send_packet(MessagePacket::from(b"").handle(numbered(1))).unwrap_err();
    let TrySendError::Failed { source, message } = refused else { panic!("{refused}") };
    assert!(matches!(source, Error::HandlesNotCarried { .. }), "{source}");
    assert_eq!(numbers_of(&message.handles), [1]);
}

#[test]
fn descriptors_that_are_not_all_of_a_region_are_refused() {
    let region = EventsRegion::anonymous(OpenOptions::new().max_handles(1)).unwrap();
    let all = || region.to_fds().unwrap();
    assert_eq!(all().len(), 5);
    let refused = |fds: Vec<OwnedFd>| match EventsRegion::from_fds(fds, OpenOptions::new()) {
        Err(Error::WrongDescriptor { index, found, .. }) => (index, found),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(vec![]), (0, "missing"));
    assert_eq!(refused(all().into_iter().take(4).collect()), (4, "missing"));
    assert_eq!(refused(all().into_iter().chain(all().pop()).collect()), (5, "one too many"));
    let (pipe, _) = std::io::pipe().unwrap();
    let (stream, _) = std::os::unix::net::UnixStream::pair().unwrap();
    for other in [OwnedFd::from(pipe), stream.into()] {
        let mut fds = all();
        fds[2] = other;
        assert_eq!(refused(fds), (2, "something else"));
    }
}
