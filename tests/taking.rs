//! Taking messages: what a call decides about a message, it decides on the one that it looked at,
//! whichever lane is next; taking works the same while a panic unwinds; and a drain that is stopped leaves
//! the message at which it was.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tombolo::ends::Topology;
use tombolo::options::MpscOrder;
use tombolo::{
    Error, EventsRegion, MessagePacket, MpscConsumer, MpscProducer, OpenOptions, Receiver, Sender,
    TryRecvError, wait_any,
};

mod support;
use support::carrying::{closes_soon, numbers_of, packet};
use support::parts::ReceiveParts;
use support::{Dir, small};

/// More than any turn of a lane, so that each test meets the end of one.
const MANY: usize = 300;

fn in_lanes(producers: u16) -> OpenOptions {
    let options = OpenOptions::new().mpsc_order(MpscOrder::PerProducer).producers(producers);
    options.spsc_capacity(4096).mpsc_capacity(1 << 14).max_message(200)
}

fn lanes(dir: &Dir, count: u16) -> (Vec<MpscProducer>, MpscConsumer) {
    let region = EventsRegion::open_path_with(dir.file("r"), in_lanes(count));
    let (first, rx) = region.unwrap().split_mpsc().unwrap();
    let mut senders = vec![first];
    while senders.len() < usize::from(count) {
        senders.push(senders[0].clone());
    }
    senders.iter_mut().for_each(|tx| tx.attach().unwrap());
    (senders, rx)
}

/// Bytes that a message was found to have, which did not fit.
fn too_long(error: TryRecvError) -> usize {
    match error {
        TryRecvError::Failed {
            source: Error::BuffersTooSmall { needed, .. } | Error::BufferTooSmall { needed, .. },
        } => needed,
        error => panic!("{error}"),
    }
}

#[test]
fn discarding_drops_the_message_that_did_not_fit_and_never_one_of_another_lane() {
    for before in 0..130 {
        let dir = Dir::new();
        let (mut senders, mut rx) = lanes(&dir, 2);
        (0..before).for_each(|_| senders[0].send(b"a").unwrap());
        senders[0].send(&[b'A'; 100]).unwrap();
        for message in [b"b0", b"b1", b"b2"] {
            senders[1].send(message).unwrap();
        }
        let (mut discarded, mut others, mut room) = (vec![], vec![], [0; 8]);
        loop {
            match rx.try_recv_parts_or_discard(&mut room, &mut []) {
                Ok((len, 0)) if room[..len] == *b"a" => {}
                Ok((len, 0)) => others.push(room[..len].to_vec()),
                Ok(_) => panic!("handles"),
                Err(TryRecvError::Empty) => break,
                Err(error) => discarded.push(too_long(error)),
            }
        }
        assert_eq!(others, [b"b0", b"b1", b"b2"], "behind {before} messages");
        assert_eq!(discarded, [100], "behind {before} messages");
    }
}

/// Messages of a lane that are still to come. Of two lanes no messages are of the same length, so the
/// length that an error states tells whose it is.
struct Model {
    lanes: Vec<VecDeque<Vec<u8>>>,
}

impl Model {
    fn lane_of(&self, len: usize) -> usize {
        len % self.lanes.len()
    }

    fn take(&mut self, message: &[u8]) {
        let lane = self.lane_of(message.len());
        assert_eq!(self.lanes[lane].pop_front().as_deref(), Some(message));
    }

    /// The message of `needed` bytes, which did not fit into `room`, is the next of its lane.
    fn is_next(&self, needed: usize, room: usize) {
        let next = self.lanes[self.lane_of(needed)].front().expect("it stayed");
        assert!(next.len() == needed && needed > room);
    }
}

/// A small generator: the same numbers in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

#[test]
fn every_way_of_taking_decides_on_the_message_that_it_looked_at() {
    const LANES: usize = 3;
    let dir = Dir::new();
    let (mut senders, mut rx) = lanes(&dir, LANES as u16);
    let (mut model, mut numbers) = (Model { lanes: vec![VecDeque::new(); LANES] }, Numbers(1));
    let mut counts = [0; 9];
    for round in 0..20_000u32 {
        for (lane, tx) in senders.iter_mut().enumerate() {
            let len = lane + LANES * numbers.below(30) as usize;
            let message: Vec<u8> = (0..len).map(|at| (at as u32 ^ round) as u8).collect();
            if numbers.below(3) > 0 && tx.try_send(&message).is_ok() {
                model.lanes[lane].push_back(message);
            }
        }
        for _ in 0..numbers.below(3) {
            let way = numbers.below(counts.len() as u64) as usize;
            counts[way] += u32::from(take(way, &mut rx, &mut model, &mut numbers));
        }
    }
    println!("taken by each way: {counts:?}");
    assert!(counts.iter().all(|count| *count > 500));
    rx.drain(usize::MAX, |record| model.take(&record.to_vec().unwrap())).unwrap();
    assert!(model.lanes.iter().all(VecDeque::is_empty));
}

/// Takes a message, or leaves it, in one of nine ways; gives whether there was one.
fn take(way: usize, rx: &mut MpscConsumer, model: &mut Model, numbers: &mut Numbers) -> bool {
    let mut bytes = [0; 100];
    let room = numbers.below(100) as usize;
    let taken = match way {
        0 => rx.try_recv().map(|message| model.take(&message.data)),
        1 => rx.try_recv_into(&mut bytes[..room]).map(|len| model.take(&bytes[..len])),
        2 => {
            rx.try_recv_parts(&mut bytes[..room], &mut []).map(|(len, _)| model.take(&bytes[..len]))
        }
        3 => match rx.try_recv_parts_or_discard(&mut bytes[..room], &mut []) {
            Err(error @ TryRecvError::Failed { .. }) => {
                let needed = too_long(error);
                model.is_next(needed, room);
                let lane = model.lane_of(needed);
                return model.lanes[lane].pop_front().is_some();
            }
            taken => taken.map(|(len, _)| model.take(&bytes[..len])),
        },
        4 => rx.try_recv_ref().map(|record| model.take(&record.to_vec().unwrap())),
        5 => rx.try_recv_ref().map(|record| {
            let message = record.to_vec().unwrap();
            assert_eq!(model.lanes[model.lane_of(message.len())].front(), Some(&message));
            record.keep();
        }),
        6 => {
            let limit = 1 + numbers.below(8) as usize;
            let count = rx.drain(limit, |record| model.take(&record.to_vec().unwrap())).unwrap();
            return count > 0;
        }
        7 => match wait_any(&mut [rx], Duration::ZERO) {
            Ok(_) => rx.try_recv().map(|message| model.take(&message.data)),
            Err(_) => return false,
        },
        _ if model.lanes.iter().all(VecDeque::is_empty) => return false,
        _ => {
            model.take(&rx.iter().next().unwrap().unwrap().data);
            return true;
        }
    };
    match taken {
        Ok(()) => true,
        Err(TryRecvError::Empty) => {
            assert!(model.lanes.iter().all(VecDeque::is_empty));
            false
        }
        Err(error) => {
            model.is_next(too_long(error), room);
            true
        }
    }
}

/// Takes messages in one way, until there is none, when it is dropped.
struct TakesOnDrop<'a, K: Topology, F: FnMut(&mut Receiver<K>) -> Option<u32>> {
    rx: &'a mut Receiver<K>,
    got: &'a mut Vec<u32>,
    take: F,
}

impl<K: Topology, F: FnMut(&mut Receiver<K>) -> Option<u32>> Drop for TakesOnDrop<'_, K, F> {
    fn drop(&mut self) {
        while let Some(number) = (self.take)(self.rx) {
            self.got.push(number);
            if self.got.len() > MANY {
                return; // one comes again and again
            }
        }
    }
}

fn number_of(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

fn taken_while_unwinding<K: Topology>(
    (tx, rx): (&mut Sender<K>, &mut Receiver<K>),
    take: impl FnMut(&mut Receiver<K>) -> Option<u32>,
) {
    let mut got = vec![];
    (0..MANY as u32).for_each(|number| tx.send(&number.to_le_bytes()).unwrap());
    let unwinding = AssertUnwindSafe(|| {
        let _takes = TakesOnDrop { rx, got: &mut got, take };
        panic!("another");
    });
    catch_unwind(unwinding).expect_err("it panics");
    assert!(got.into_iter().eq(0..MANY as u32));
}

fn every_way_while_unwinding<K: Topology>(mut tx: Sender<K>, mut rx: Receiver<K>) {
    let mut room = [0; 4];
    taken_while_unwinding((&mut tx, &mut rx), |rx| {
        rx.try_recv_ref().ok().map(|record| number_of(&record.to_vec().unwrap()))
    });
    taken_while_unwinding((&mut tx, &mut rx), |rx| {
        let record = rx.recv_ref_timeout(Duration::from_millis(1)).ok()?;
        Some(number_of(&record.to_vec().unwrap()))
    });
    let mut numbers = 0..;
    taken_while_unwinding((&mut tx, &mut rx), |rx| {
        let discarded = too_long(
            rx.try_recv_parts_or_discard(&mut [], &mut [])
                .err()
                .filter(|error| !matches!(error, TryRecvError::Empty))?,
        );
        assert_eq!(discarded, 4);
        numbers.next()
    });
    taken_while_unwinding((&mut tx, &mut rx), |rx| {
        rx.try_recv().ok().map(|message| number_of(&message.data))
    });
    taken_while_unwinding((&mut tx, &mut rx), |rx| {
        rx.try_recv_into(&mut room).ok().map(|len| number_of(&room[..len]))
    });
    taken_while_unwinding((&mut tx, &mut rx), |rx| {
        let (len, _) = rx.try_recv_parts(&mut room, &mut []).ok()?;
        Some(number_of(&room[..len]))
    });
    taken_while_unwinding((&mut tx, &mut rx), |rx| {
        let mut last = None;
        rx.drain(1, |record| last = Some(number_of(&record.to_vec().unwrap()))).unwrap();
        last
    });
}

/// The panic began while the first message was lent: that one stays, and comes once more.
fn what_was_lent_when_the_panic_began<K: Topology>(mut tx: Sender<K>, mut rx: Receiver<K>) {
    let (mut got, mut lent) = (vec![], None);
    (0..3u32).for_each(|number| tx.send(&number.to_le_bytes()).unwrap());
    let unwinding = AssertUnwindSafe(|| {
        let takes = TakesOnDrop {
            rx: &mut rx,
            got: &mut got,
            take: |rx: &mut Receiver<K>| {
                rx.try_recv_ref().ok().map(|record| number_of(&record.to_vec().unwrap()))
            },
        };
        let record = takes.rx.try_recv_ref().unwrap();
        lent = Some(number_of(&record.to_vec().unwrap()));
        panic!("while it is lent");
    });
    catch_unwind(unwinding).expect_err("it panics");
    assert_eq!((lent, got), (Some(0), vec![0, 1, 2]));
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
}

fn on_each_ring(
    spsc: impl Fn(Sender<tombolo::ends::Spsc>, Receiver<tombolo::ends::Spsc>),
    mpsc: impl Fn(MpscProducer, MpscConsumer),
) {
    on_each_ring_with(0, spsc, mpsc);
}

/// As [`on_each_ring`], with up to so many handles in a message.
fn on_each_ring_with(
    max_handles: u16,
    spsc: impl Fn(Sender<tombolo::ends::Spsc>, Receiver<tombolo::ends::Spsc>),
    mpsc: impl Fn(MpscProducer, MpscConsumer),
) {
    let dir = Dir::new();
    let options = small().spsc_capacity(1 << 14).mpsc_capacity(1 << 14).max_handles(max_handles);
    let mut region = EventsRegion::open_path_with(dir.file("r"), options).unwrap();
    let ((tx, rx), (producer, consumer)) =
        (region.split_spsc().unwrap(), region.split_mpsc().unwrap());
    spsc(tx, rx);
    mpsc(producer, consumer);
    let options = in_lanes(1).max_handles(max_handles);
    let region = EventsRegion::open_path_with(dir.file("lanes"), options);
    let (producer, consumer) = region.unwrap().split_mpsc().unwrap();
    mpsc(producer, consumer);
}

#[test]
fn while_a_panic_unwinds_each_message_is_taken_once_whichever_way() {
    on_each_ring(every_way_while_unwinding, every_way_while_unwinding);
}

#[test]
fn a_message_that_was_lent_when_a_panic_began_stays_for_who_takes_while_it_unwinds() {
    on_each_ring(what_was_lent_when_the_panic_began, what_was_lent_when_the_panic_began);
}

/// More than two runs that are freed at once, and more than a lane's turn.
const DRAINED: u32 = 80;

/// Drains up to message `at`, and leaves that one. Gives the numbers that were seen, `at` among them.
fn drain_to<K: Topology>(rx: &mut Receiver<K>, at: u32) -> (usize, Vec<u32>) {
    let mut seen = vec![];
    let drained = rx.drain(usize::MAX, |record| {
        let number = number_of(&record.to_vec().unwrap());
        seen.push(number);
        if number == at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    (drained.unwrap(), seen)
}

/// Messages of all lengths, so that a stop comes before padding and behind it, too.
fn a_stop_at_each_position<K: Topology>(mut tx: Sender<K>, mut rx: Receiver<K>) {
    for at in 0..DRAINED {
        for number in 0..DRAINED {
            let mut message = number.to_le_bytes().to_vec();
            message.resize(4 + (number * 37 + at) as usize % 120, 0xee);
            tx.try_send(&message).unwrap();
        }
        assert_eq!(drain_to(&mut rx, at), (at as usize, (0..=at).collect()), "stopped at {at}");
        assert_eq!(drain_to(&mut rx, at), (0, vec![at]), "the next drain begins with it");
        assert_eq!(number_of(&rx.try_recv().unwrap().data), at, "the next receive gets it");
        let behind = (at + 1..DRAINED).collect::<Vec<_>>();
        assert_eq!(drain_to(&mut rx, DRAINED), (behind.len(), behind));
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    }
}

#[test]
fn a_drain_that_is_stopped_leaves_the_message_at_which_it_was_and_all_behind_it() {
    on_each_ring(a_stop_at_each_position, a_stop_at_each_position);
}

/// Each third message has handles, those of the one that is left are looked at, and still come with it.
fn a_stop_at_each_message_with_handles<K: Topology>(mut tx: Sender<K>, mut rx: Receiver<K>) {
    const COUNT: u64 = 12;
    rx.attach().unwrap();
    let handle_count = |number: u64| number % 3;
    for at in 0..COUNT {
        (0..COUNT).for_each(|n| tx.send_packet(packet(n, handle_count(n))).unwrap());
        let (mut numbers, mut next) = (vec![], 0);
        let drained = rx.drain(usize::MAX, |record| {
            numbers = numbers_of(&record.handles().unwrap());
            next += 1;
            if next > at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!((drained.unwrap() as u64, next), (at, at + 1));
        let expected = vec![at; handle_count(at) as usize];
        assert_eq!(numbers, expected, "shown by the drain that left it");
        for number in at..COUNT {
            let message = rx.try_recv().unwrap();
            assert_eq!(message.data, number.to_le_bytes());
            let expected = vec![number; handle_count(number) as usize];
            assert_eq!(numbers_of(&message.handles), expected, "stopped at {at}");
        }
    }
}

#[test]
fn the_handles_of_a_message_at_which_a_drain_was_stopped_come_with_it() {
    on_each_ring_with(2, a_stop_at_each_message_with_handles, a_stop_at_each_message_with_handles);
}

#[test]
fn handles_of_drained_messages_are_closed_and_those_of_the_one_that_was_left_stay_open() {
    let dir = Dir::new();
    let options = small().max_handles(1);
    let mut region = EventsRegion::open_path_with(dir.file("r"), options).unwrap();
    let (mut tx, mut rx) = region.split_spsc().unwrap();
    rx.attach().unwrap();
    let (taken, with_taken) = std::io::pipe().unwrap();
    let (left, with_left) = std::io::pipe().unwrap();
    tx.send_packet(MessagePacket::from(b"taken").handle(with_taken)).unwrap();
    tx.send_packet(MessagePacket::from(b"left").handle(with_left)).unwrap();
    let drained = rx.drain(9, |record| match &record.to_vec().unwrap()[..] {
        b"left" => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert_eq!(drained.unwrap(), 1);
    closes_soon(taken);
    assert_eq!(rx.recv().unwrap().handles.len(), 1);
    closes_soon(left);
}

#[test]
fn a_drain_that_is_always_stopped_at_one_lane_comes_to_the_others() {
    let dir = Dir::new();
    let (mut senders, mut rx) = lanes(&dir, 3);
    (0..3u32).for_each(|lane| senders[lane as usize].send(&lane.to_le_bytes()).unwrap());
    let mut seen = [0; 3];
    for _ in 0..MANY {
        let stopped = rx.drain(usize::MAX, |record| {
            seen[number_of(&record.to_vec().unwrap()) as usize] += 1;
            ControlFlow::Break(())
        });
        assert_eq!(stopped.unwrap(), 0);
    }
    println!("messages that were left, by lane: {seen:?}");
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    assert_eq!(rx.drain(usize::MAX, |_| ()).unwrap(), 3);
}

#[test]
fn a_message_at_which_a_drain_was_stopped_comes_to_the_next_receiver() {
    let dir = Dir::new();
    for at in [0, 1, 31, 32, 33, 79] {
        let (mut tx, mut rx) =
            EventsRegion::open_path_with(dir.file("r"), small()).unwrap().split_spsc().unwrap();
        (0..DRAINED).for_each(|number| tx.send(&number.to_le_bytes()).unwrap());
        assert_eq!(drain_to(&mut rx, at).0, at as usize);
        drop(rx);
        let (_, mut next) =
            EventsRegion::open_path_with(dir.file("r"), small()).unwrap().split_spsc().unwrap();
        assert_eq!(drain_to(&mut next, DRAINED).1, (at..DRAINED).collect::<Vec<_>>());
    }
}

fn stopped_while_unwinding<K: Topology>(mut tx: Sender<K>, mut rx: Receiver<K>) {
    let mut left = 0;
    taken_while_unwinding((&mut tx, &mut rx), |rx| {
        let mut last = None;
        let drained = rx.drain(usize::MAX, |record| {
            let number = number_of(&record.to_vec().unwrap());
            if last.replace(number).is_some() {
                last = Some(number - 1); // that one is left
                left += 1;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        assert_eq!(drained.unwrap(), usize::from(last.is_some()));
        last
    });
    assert_eq!(left, MANY - 1);
}

#[test]
fn a_drain_is_stopped_while_a_panic_unwinds_as_at_any_time() {
    on_each_ring(stopped_while_unwinding, stopped_while_unwinding);
}

#[test]
fn closures_that_give_nothing_or_never_return_drain_as_well() {
    let dir = Dir::new();
    let mut region = EventsRegion::open_path_with(dir.file("r"), small()).unwrap();
    let (mut tx, mut rx) = region.split_spsc().unwrap();
    assert_eq!(rx.drain(9, |_| unreachable!("nothing is there")).unwrap(), 0);
    tx.send(b"one").unwrap();
    assert_eq!(rx.drain(9, |_| ControlFlow::Break(())).unwrap(), 0);
    assert_eq!(rx.drain(9, |_| ()).unwrap(), 1);
}
