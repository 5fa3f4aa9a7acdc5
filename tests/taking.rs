//! Taking messages: what a call decides about a message, it decides on the one that it looked at,
//! whichever lane is next; and taking works the same while a panic unwinds.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tombolo::{
    Discipline, Error, EventsRegion, MpscConsumer, MpscOrder, MpscProducer, OpenOptions, Receiver,
    Sender, TryRecvError, wait_any,
};

mod support;
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
    senders.iter_mut().for_each(|tx| tx.claim().unwrap());
    (senders, rx)
}

/// Bytes that a message was found to have, which did not fit.
fn too_long(error: TryRecvError) -> usize {
    match error {
        TryRecvError::Failed {
            source: Error::HandleRoomTooSmall { needed, .. } | Error::BufferTooSmall { needed, .. },
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
    rx.drain(usize::MAX, |record| model.take(&record.to_vec())).unwrap();
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
        4 => rx.try_recv_ref().map(|record| model.take(&record.to_vec())),
        5 => rx.try_recv_ref().map(|record| {
            let message = record.to_vec();
            assert_eq!(model.lanes[model.lane_of(message.len())].front(), Some(&message));
            record.keep();
        }),
        6 => {
            let limit = 1 + numbers.below(8) as usize;
            let count = rx.drain(limit, |record| model.take(&record.to_vec())).unwrap();
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
struct TakesOnDrop<'a, K: Discipline, F: FnMut(&mut Receiver<K>) -> Option<u32>> {
    rx: &'a mut Receiver<K>,
    got: &'a mut Vec<u32>,
    take: F,
}

impl<K: Discipline, F: FnMut(&mut Receiver<K>) -> Option<u32>> Drop for TakesOnDrop<'_, K, F> {
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

fn taken_while_unwinding<K: Discipline>(
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

fn every_way_while_unwinding<K: Discipline>(mut tx: Sender<K>, mut rx: Receiver<K>) {
    let mut room = [0; 4];
    taken_while_unwinding((&mut tx, &mut rx), |rx| {
        rx.try_recv_ref().ok().map(|record| number_of(&record.to_vec()))
    });
    taken_while_unwinding((&mut tx, &mut rx), |rx| {
        let record = rx.recv_ref_deadline(Duration::from_millis(1)).ok()?;
        Some(number_of(&record.to_vec()))
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
        rx.drain(1, |record| last = Some(number_of(&record.to_vec()))).unwrap();
        last
    });
}

/// The panic began while the first message was lent: that one stays, and comes once more.
fn what_was_lent_when_the_panic_began<K: Discipline>(mut tx: Sender<K>, mut rx: Receiver<K>) {
    let (mut got, mut lent) = (vec![], None);
    (0..3u32).for_each(|number| tx.send(&number.to_le_bytes()).unwrap());
    let unwinding = AssertUnwindSafe(|| {
        let takes = TakesOnDrop {
            rx: &mut rx,
            got: &mut got,
            take: |rx: &mut Receiver<K>| {
                rx.try_recv_ref().ok().map(|record| number_of(&record.to_vec()))
            },
        };
        let record = takes.rx.try_recv_ref().unwrap();
        lent = Some(number_of(&record.to_vec()));
        panic!("while it is lent");
    });
    catch_unwind(unwinding).expect_err("it panics");
    assert_eq!((lent, got), (Some(0), vec![0, 1, 2]));
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
}

fn on_each_ring(
    spsc: impl Fn(Sender<tombolo::Spsc>, Receiver<tombolo::Spsc>),
    mpsc: impl Fn(MpscProducer, MpscConsumer),
) {
    let dir = Dir::new();
    let options = small().spsc_capacity(1 << 14).mpsc_capacity(1 << 14);
    let mut region = EventsRegion::open_path_with(dir.file("r"), options).unwrap();
    let ((tx, rx), (producer, consumer)) =
        (region.split_spsc().unwrap(), region.split_mpsc().unwrap());
    spsc(tx, rx);
    mpsc(producer, consumer);
    let region = EventsRegion::open_path_with(dir.file("lanes"), in_lanes(1));
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
