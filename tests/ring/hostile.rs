//! Words that no honest peer stores, and records that none sends yet.

use std::sync::atomic::Ordering::Relaxed;

use tombolo_abi::{LockWord, Record, RecordKind};

use super::super::{Consumer, Held, Memory, Refusal, SpscProducer, Wakes, Word, try_lock};
use super::heap::Heap;
use super::{ring, send_step};
use crate::error::Damage;

const CAPACITY: u64 = 256;
const ME: LockWord = LockWord { slot: 3, incarnation: 1 };

/// What taking the lock says of these words.
fn judged(tail: u64, head_cache: u64) -> Result<(), &'static str> {
    let heap = Heap::new(CAPACITY, 0);
    let ring = ring(&heap, CAPACITY, 3, 48);
    for (word, value) in [(Word::Tail, tail), (Word::HeadCache, head_cache)] {
        ring.memory.store(word, value, Relaxed);
    }
    match try_lock(&ring, ME, &Wakes::default()) {
        Ok(_) => Ok(()),
        Err(Held::Damaged(Damage::Position { word, .. })) => Err(word),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn a_window_is_believed_only_within_one_lap_and_at_places_of_records() {
    assert_eq!(judged(512, 448), Ok(()));
    assert_eq!(judged(512, 512 - CAPACITY), Ok(()));
    assert_eq!(judged(512, 512 - CAPACITY - 8), Err("tail"));
    assert_eq!(judged(512, 449), Err("tail"));
    assert_eq!(judged(513, 448), Err("tail"));
}

#[test]
fn a_batch_that_meets_an_impossible_head_leaves_no_header_behind_that_is_believed() {
    let (heap, wakes) = (Heap::new(CAPACITY, 0), Wakes::default());
    let ring = ring(&heap, CAPACITY, 3, 48);
    let mut producer = SpscProducer::attach(&ring).unwrap();
    producer.produce(&ring, &wakes, send_step(&[1; 8])).unwrap();
    ring.memory.store(Word::Head, producer.window.tail + 8, Relaxed);
    let batch = [&[2; 8][..]; 20];
    let refused = producer.produce(&ring, &wakes, |window, ring| window.send_batch(ring, &batch));
    assert!(matches!(refused, Err(Refusal::Damaged(Damage::Position { word: "head", .. }))));
    ring.memory.store(Word::Head, 0, Relaxed);
    producer.produce(&ring, &wakes, send_step(&[3; 8])).unwrap();

    let mut consumer = Consumer::attach(&ring).unwrap();
    for expected in [1, 3] {
        let front = consumer.front(&ring, &wakes).unwrap().unwrap();
        let mut buffer = [0; 8];
        consumer.copy_out(&ring, front, &mut buffer);
        assert_eq!(buffer, [expected; 8]);
        consumer.free(&ring, front, &wakes);
    }
    assert_eq!(consumer.front(&ring, &wakes), Ok(None));
}

#[test]
fn a_record_with_an_extension_has_its_payload_behind_that() {
    let mut received = 0;
    for (kind, len) in [(RecordKind::Data, 0), (RecordKind::Data, 9), (RecordKind::Call, 48)] {
        let heap = Heap::new(CAPACITY, 0);
        let ring = ring(&heap, CAPACITY, 3, 48);
        let record = Record { kind, payload_len: len, handle_count: 0, ext: true, flags: 0xa5 };
        let payload: Vec<u8> = (1..=len as u8).collect();
        ring.memory.store(Word::Data(ring.rules.record_len(&record)), 0, Relaxed);
        ring.memory.copy_in(16, &payload);
        ring.memory.store(Word::Data(0), ring.rules.encode(&record, 0), Relaxed);

        let mut consumer = Consumer::attach(&ring).unwrap();
        let front = consumer.front(&ring, &Wakes::default()).unwrap().unwrap();
        let mut buffer = vec![0; front.payload_len()];
        consumer.copy_out(&ring, front, &mut buffer);
        assert_eq!(buffer, payload);
        consumer.free(&ring, front, &Wakes::default());
        assert_eq!(consumer.head(), ring.rules.record_len(&record));
        received += 1;
    }
    assert_eq!(received, 3);
}
