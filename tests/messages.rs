//! Sending and receiving, the same for rings of all kinds.

use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use tombolo::ends::Topology;
use tombolo::options::MpscOrder;
use tombolo::{
    Deadline, Error, EventsRegion, MessagePacket, OpenOptions, Receiver, RecordRef, RecvError,
    RecvTimeoutError, SendError, SendTimeoutError, Sender, TryRecvError, TrySendError,
};
use tombolo_abi::{MAGIC, parse_entries};

mod support;
use support::{Dir, header_of, small};

const SOON: Duration = Duration::from_secs(2);
const SHORT: Duration = Duration::from_millis(30);

/// Runs a test of both ends on each kind of ring, with 4096 bytes of room and messages of 1008.
macro_rules! on_all_rings {
    ($($(#[$doc:meta])* fn $name:ident($ends:ident: Ends) $body:block)*) => {
        $(mod $name {
            use super::*;

            fn on<K: Topology>($ends: Ends<K>) $body

            $(#[$doc])*
            #[test]
            fn spsc() {
                let dir = Dir::new();
                let (tx, rx) = region(&dir).split_spsc().unwrap();
                on(Ends { tx, rx, ring: 0, dir });
            }

            $(#[$doc])*
            #[test]
            fn mpsc() {
                let dir = Dir::new();
                let (tx, rx) = region(&dir).split_mpsc().unwrap();
                on(Ends { tx, rx, ring: 1, dir });
            }

            $(#[$doc])*
            #[test]
            fn lanes() {
                let dir = Dir::new();
                let options = small().mpsc_order(MpscOrder::PerProducer).producers(3);
                let region = EventsRegion::open_path_with(dir.file("r"), options);
                let (tx, rx) = region.unwrap().split_mpsc().unwrap();
                on(Ends { tx, rx, ring: 1, dir });
            }
        })*
    };
}

struct Ends<K: Topology> {
    tx: Sender<K>,
    rx: Receiver<K>,
    ring: u32,
    dir: Dir,
}

fn region(dir: &Dir) -> EventsRegion {
    EventsRegion::open_path_with(dir.file("r"), small()).unwrap()
}

/// Sends and drains 500 numbers when it is dropped.
struct DrainsOnDrop<'a, K: Topology> {
    ends: Ends<K>,
    got: &'a mut Vec<u32>,
}

impl<K: Topology> Drop for DrainsOnDrop<'_, K> {
    fn drop(&mut self) {
        let Self { ends: Ends { tx, rx, .. }, got } = self;
        for number in 0..500u32 {
            tx.send(&number.to_le_bytes()).unwrap();
            let number_of = |record: &RecordRef<'_>| record.to_vec().unwrap().try_into().unwrap();
            rx.drain(10, |record| got.push(u32::from_le_bytes(number_of(record)))).unwrap();
        }
    }
}

on_all_rings! {
    fn messages_of_every_length_come_whole_and_in_order(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        let max = tx.max_message();
        assert!(max >= 1000 && rx.max_message() == max);
        for len in 0..=max {
            let message: Vec<u8> = (0..len).map(|i| (i ^ len) as u8).collect();
            tx.try_send(&message).unwrap();
            assert_eq!(rx.try_recv().unwrap().data, message);
        }
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    }

    fn one_byte_too_many_is_refused_before_anything_is_written(ends: Ends) {
        let Ends { mut tx, mut rx, ring, dir } = ends;
        tx.attach().unwrap();
        let before = dir.snapshot();
        let long = vec![1; tx.max_message() + 1];
        let limit = tx.max_message() as u32;
        let is_refusal = |error: &Error| {
            matches!(error, Error::MessageTooLong { ring: at, found, limit: most }
                if *at == ring && *found == long.len() && *most == limit)
        };
        let TrySendError::Failed { source, .. } = tx.try_send(&long).unwrap_err() else { panic!() };
        assert!(is_refusal(&source), "{source}");
        let SendError::Failed { source, .. } = tx.send(&long).unwrap_err() else { panic!() };
        assert!(is_refusal(&source));
        let batch = tx.try_send_batch(&[b"ok", &long, b"ok"]);
        assert!(matches!(batch, Err(TrySendError::Failed { source, .. }) if is_refusal(&source)));
        assert!(dir.snapshot() == before, "something was written");
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    }

    fn a_full_ring_gives_the_message_back_and_takes_it_when_there_is_room(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        let mut sent = 0;
        while tx.try_send(&[sent; 100]).is_ok() {
            sent += 1;
        }
        assert!(sent > 20);
        let packet = MessagePacket::from(&[sent; 100]);
        let TrySendError::Full(back) = tx.try_send_packet(packet).unwrap_err() else {
            panic!()
        };
        assert_eq!(back.data, [sent; 100]);
        let error = tx.send_packet_timeout(back, SHORT).unwrap_err();
        let SendTimeoutError::Timeout(back) = error else { panic!("{error}") };
        assert!(matches!(tx.send_timeout(b"", Deadline::PAST), Err(SendTimeoutError::Timeout(()))
            | Ok(())));
        for number in 0..10 {
            assert_eq!(rx.recv().unwrap().data, [number; 100]);
        }
        tx.send_packet(back).unwrap();
    }

    fn a_blocked_send_goes_on_when_the_receiver_takes_something(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        while tx.try_send(&[9; 1000]).is_ok() {}
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(SHORT);
                while rx.recv_timeout(SHORT * 10).is_ok() {}
            });
            (0..50).for_each(|_| tx.send_timeout(&[9; 1000], SOON).unwrap());
        });
    }

    fn a_blocked_receive_goes_on_when_something_comes(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        assert!(matches!(rx.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout)));
        assert!(matches!(rx.recv_timeout(Deadline::PAST), Err(RecvTimeoutError::Timeout)));
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(SHORT);
                tx.send(b"late").unwrap();
            });
            assert_eq!(rx.recv_timeout(SOON).unwrap().data, b"late");
        });
    }

    fn a_batch_appears_at_once_as_far_as_there_is_room(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        let messages: Vec<Vec<u8>> = (0..100u8).map(|number| vec![number; 100]).collect();
        let slices: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        let first = tx.try_send_batch(&slices).unwrap();
        assert!((20..100).contains(&first), "{first} in 4096 bytes");
        assert_eq!(tx.try_send_batch(&[]).unwrap(), 0);
        assert!(matches!(tx.try_send_batch(&slices[first..]), Err(TrySendError::Full(()))));
        let error = tx.send_batch_timeout(&slices, SHORT).unwrap_err();
        assert!(matches!(error, SendTimeoutError::Timeout(0)), "{error}");
        thread::scope(|scope| {
            scope.spawn(|| tx.send_batch(&slices[first..]).unwrap());
            for message in &messages {
                assert_eq!(&rx.recv_timeout(SOON).unwrap().data, message);
            }
        });
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    }

    fn a_buffer_that_is_too_small_keeps_the_message(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        tx.send(&[5; 77]).unwrap();
        tx.send(b"").unwrap();
        let mut room = [0; 77];
        let error = rx.try_recv_into(&mut room[..76]).unwrap_err();
        let TryRecvError::Failed { source: Error::BufferTooSmall { needed: 77, available: 76 } } = error
        else {
            panic!("{error}")
        };
        assert!(rx.recv_into(&mut []).is_err());
        assert_eq!(rx.recv_into(&mut room).unwrap(), 77);
        assert_eq!(room, [5; 77]);
        assert_eq!(rx.try_recv_into(&mut []).unwrap(), 0);
    }

    fn a_borrowed_record_is_read_in_place_and_freed_on_drop(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        let message: Vec<u8> = (0..200).collect();
        tx.send(&message).unwrap();
        tx.send(b"next").unwrap();
        let record = rx.try_recv_ref().unwrap();
        let (first, mut room) = (record.position(), [0; 300]);
        assert_eq!(record.copy_to(&mut room).unwrap(), 200);
        assert_eq!(room[..200], message);
        assert!(record.copy_to(&mut room[..199]).is_err());
        for offset in [0, 1, 7, 8, 63, 199] {
            let mut part = [0; 50];
            let len = record.read_at(offset, &mut part).unwrap();
            assert_eq!(part[..len], message[offset..(offset + 50).min(200)]);
        }
        for beyond in [200, usize::MAX] {
            assert_eq!(record.read_at(beyond, &mut room).unwrap(), 0);
        }
        let mut chunks = vec![];
        record.for_each_chunk(|chunk| chunks.extend_from_slice(chunk)).unwrap();
        assert_eq!(chunks, message);
        record.keep();
        let again = rx.recv_ref().unwrap();
        assert_eq!((again.position(), again.to_vec().unwrap()), (first, message));
        drop(again);
        let record = rx.recv_ref_timeout(SOON).unwrap();
        assert!(record.position() > first && record.to_vec().unwrap() == b"next");
        assert!(!record.is_empty());
    }

    fn draining_stops_at_its_limit_and_at_the_end(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        (0..10u8).for_each(|number| tx.send(&[number]).unwrap());
        let mut got = vec![];
        assert_eq!(rx.drain(3, |record| got.extend(record.to_vec().unwrap())).unwrap(), 3);
        assert_eq!(rx.drain(0, |_| panic!("beyond the limit")).unwrap(), 0);
        assert_eq!(rx.drain(100, |record| got.extend(record.to_vec().unwrap())).unwrap(), 7);
        assert_eq!(rx.drain(100, |_| panic!("beyond the end")).unwrap(), 0);
        assert_eq!(got, (0..10).collect::<Vec<u8>>());
    }

    fn a_panic_while_draining_leaves_the_message_it_was_given_and_those_behind_it(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        (0..10u8).for_each(|number| tx.send(&[number]).unwrap());
        let mut panicking = |record: &RecordRef<'_>| assert_ne!(record.to_vec().unwrap(), [3]);
        let drained = AssertUnwindSafe(|| rx.drain(10, &mut panicking).unwrap());
        catch_unwind(drained).expect_err("message 3 panics");
        let mut got = vec![];
        assert_eq!(rx.drain(10, |record| got.extend(record.to_vec().unwrap())).unwrap(), 7);
        assert_eq!(got, (3..10).collect::<Vec<u8>>());
    }

    fn draining_while_another_panic_unwinds_takes_each_message_once(ends: Ends) {
        let mut got = vec![];
        let unwinding = AssertUnwindSafe(|| {
            let _drains = DrainsOnDrop { ends, got: &mut got };
            panic!("another");
        });
        catch_unwind(unwinding).expect_err("it panics");
        assert_eq!(got, (0..500).collect::<Vec<u32>>());
    }

    fn draining_goes_over_runs_of_many_and_the_ends_of_laps(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        let (mut sent, mut taken) = (0u32, 0u32);
        for round in 0..3000 {
            let count = round % 70;
            let numbers: Vec<_> = (sent..sent + count).map(u32::to_le_bytes).collect();
            let slices: Vec<_> = numbers.iter().map(|number| &number[..]).collect();
            tx.send_batch(&slices).unwrap();
            sent += count;
            let mut last_position = None;
            let drained = rx.drain(usize::MAX, |record| {
                assert_eq!(record.to_vec().unwrap(), taken.to_le_bytes());
                assert!(last_position.replace(record.position()) < Some(record.position()));
                taken += 1;
            });
            assert_eq!((drained.unwrap(), taken), (count as usize, sent));
        }
    }

    fn iterating_ends_when_the_sender_has_left_and_all_is_taken(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        thread::scope(|scope| {
            scope.spawn(move || (0..2000u32).for_each(|n| tx.send(&n.to_le_bytes()).unwrap()));
            let mut expected = 0..2000u32;
            for message in &mut rx {
                assert_eq!(message.unwrap().data, expected.next().unwrap().to_le_bytes());
            }
            assert_eq!(expected.next(), None);
        });
        let again = rx.recv_timeout(SHORT);
        assert!(matches!(again, Err(RecvTimeoutError::Disconnected)), "{again:?}");
    }

    fn two_threads_move_many_messages_through_many_laps(ends: Ends) {
        let Ends { mut tx, mut rx, .. } = ends;
        let (count, mut bytes) = (20_000u32, 0);
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..count {
                    let message = vec![number as u8; (number % 997) as usize];
                    tx.send_timeout(&message, SOON).unwrap();
                }
            });
            for number in 0..count {
                let message = rx.recv_timeout(SOON).unwrap().data;
                assert_eq!(message.len(), (number % 997) as usize);
                assert!(message.iter().all(|byte| *byte == number as u8));
                bytes += message.len();
            }
        });
        println!("{count} messages, {bytes} bytes, {} laps", bytes / 4096);
        assert!(bytes / 4096 > 100);
    }

    fn what_no_honest_peer_writes_poisons_the_ring_for_everybody(ends: Ends) {
        let Ends { mut tx, mut rx, ring, dir } = ends;
        let before = dir.snapshot();
        let bytes = &before.values().next().unwrap().2;
        assert!(bytes.starts_with(&MAGIC));
        let header = header_of(bytes);
        let directory = &bytes[header.directory_offset as usize..];
        let entry = parse_entries(&header, directory).nth(ring as usize).unwrap();
        tx.send(b"overwritten").unwrap();
        let file = std::fs::File::options().write(true).open(dir.file("r")).unwrap();
        file.write_all_at(&[0xff; 8], entry.data_offset).unwrap();
        for _ in 0..2 {
            let error = rx.try_recv().unwrap_err();
            assert!(matches!(&error, TryRecvError::Failed { source: Error::Poisoned { ring: at, .. } }
                if *at == ring), "{error}");
        }
        assert!(matches!(rx.recv(), Err(RecvError::Failed { source: Error::Poisoned { .. } })));
        let mut items = rx.iter();
        assert!(matches!(items.next(), Some(Err(Error::Poisoned { .. }))), "damage is no end");
        assert!(items.next().is_none());
        let error = tx.send(b"never delivered").unwrap_err();
        assert!(matches!(error, SendError::Failed { source: Error::Poisoned { .. }, .. }));
        drop(rx);
        let mut late = region(&dir);
        let error = match ring {
            0 => late.split_spsc().unwrap().1.attach(),
            _ => late.split_mpsc().unwrap().1.attach(),
        };
        assert!(matches!(error, Err(Error::Poisoned { .. })));
    }
}

#[test]
fn clones_in_many_threads_lose_nothing_and_keep_each_its_order() {
    let dir = Dir::new();
    let (tx, mut rx) = region(&dir).split_mpsc().unwrap();
    let (threads, each) = (4u8, 5000u32);
    thread::scope(|scope| {
        for number in 0..threads {
            let mut tx = tx.clone();
            scope.spawn(move || {
                for count in 0..each {
                    let [a, b, c, d] = count.to_le_bytes();
                    tx.send_timeout(&[number, a, b, c, d], SOON).unwrap();
                }
            });
        }
        let mut next = [0u32; 4];
        for _ in 0..u32::from(threads) * each {
            let message = rx.recv_timeout(SOON).unwrap().data;
            let count = u32::from_le_bytes(message[1..].try_into().unwrap());
            let next = &mut next[usize::from(message[0])];
            assert_eq!(count, *next);
            *next += 1;
        }
        println!("{next:?}");
    });
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
}

#[test]
fn a_claim_is_sent_as_committed_and_leaves_nothing_when_it_is_not() {
    let dir = Dir::new();
    let (mut tx, mut rx) = region(&dir).split_spsc().unwrap();
    let mut sent = 0;
    for round in 0..500usize {
        let len = round * 37 % 900;
        let mut claim = tx.reserve_timeout(len, SOON).unwrap();
        assert_eq!((claim.len(), claim.is_empty()), (len, len == 0));
        let bytes: Vec<u8> = (0..len).map(|i| (i + round) as u8 | 0x80).collect();
        assert_eq!(claim.fill_from(&bytes[..]).unwrap(), len);
        assert!(claim.write_at(len, b"x").is_err());
        match round % 4 {
            0 => drop(claim),
            1 => std::mem::forget(claim),
            2 => {
                claim.commit_len(len / 2).unwrap();
                assert_eq!(rx.try_recv().unwrap().data, bytes[..len / 2]);
                sent += 1;
            }
            _ => {
                claim.write_at(len / 3, &bytes[len / 3..]).unwrap();
                claim.commit().unwrap();
                assert_eq!(rx.try_recv().unwrap().data, bytes);
                sent += 1;
            }
        }
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    }
    println!("{sent} claims committed");
    assert!(sent > 0);
    assert!(tx.try_reserve(tx.max_message() + 1).is_err());
    let claim = tx.reserve(10).unwrap();
    let error = claim.commit_len(11).unwrap_err();
    assert!(matches!(error, Error::BufferTooSmall { needed: 11, available: 10 }), "{error}");
}

#[test]
fn several_regions_and_rings_of_one_process_keep_apart() {
    let dir = Dir::new();
    let mut regions: Vec<_> = (0..3)
        .map(|number| {
            EventsRegion::open_path_with(dir.file(&number.to_string()), OpenOptions::new()).unwrap()
        })
        .collect();
    let mut ends: Vec<_> = regions
        .iter_mut()
        .map(|region| (region.split_spsc().unwrap(), region.split_mpsc().unwrap()))
        .collect();
    drop(regions);
    for (number, ((tx, _), (producer, _))) in ends.iter_mut().enumerate() {
        tx.send(&[number as u8]).unwrap();
        producer.send(&[number as u8 + 100]).unwrap();
    }
    for (number, ((_, rx), (_, consumer))) in ends.iter_mut().enumerate() {
        assert_eq!(rx.recv().unwrap().data, [number as u8]);
        assert_eq!(consumer.recv().unwrap().data, [number as u8 + 100]);
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    }
}
