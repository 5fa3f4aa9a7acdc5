//! Records with handles among others: what was handed over is published, what could not be handed
//! over leaves the ring as it was, and no more is on its way than the bound allows.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

use proptest::collection::vec;
use proptest::prelude::*;
use tombolo_abi::{LockWord, RecordExt, RecordRules};

use super::super::carry::{Carried, IN_FLIGHT_MAX, NotCarried, Spot};
use super::super::{Consumer, Memory, Refusal, Ring, SpscProducer, Wakes, Word, try_lock};
use super::heap::Heap;
use super::ring;

const CAPACITY: u64 = 4096;
const ME: LockWord = LockWord { slot: 3, incarnation: 0x1_0001 };

#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    Carry(usize, u8),
    /// As `Carry`, but nobody takes the handles.
    Refuse(usize, u8),
    Receive,
    /// The producer dies, perhaps just after it handed something over.
    Replace,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..300usize).prop_map(Step::Send),
        3 => (0..300usize, 1..=64u8).prop_map(|(len, count)| Step::Carry(len, count)),
        2 => (0..300usize, 1..=64u8).prop_map(|(len, count)| Step::Refuse(len, count)),
        4 => Just(Step::Receive),
        1 => Just(Step::Replace),
    ]
}

/// Sends on either flavour; gives where the handles were handed over, if they were.
fn carry(
    ring: &Ring<&Heap>,
    spsc: Option<&mut SpscProducer>,
    payload: &[u8],
    handle_count: u8,
    is_taken: bool,
) -> Result<Spot, NotCarried<()>> {
    let ext = RecordExt { txid: 0, slot: ME.slot, incarnation_low: ME.incarnation as u16 };
    let carried = Carried { payload, handle_count, ext };
    let wakes = Wakes::default();
    let mut at = None;
    let hand_over = |spot: Spot| {
        assert_eq!(ring.memory.load(Word::Data(spot.tail), Relaxed), 0, "visible too early");
        at = Some(spot);
        if is_taken { Ok(()) } else { Err(()) }
    };
    match spsc {
        Some(producer) => producer.try_send_carried(ring, &carried, hand_over, &wakes)?,
        None => {
            let locked = try_lock(ring, ME, &wakes);
            locked
                .unwrap_or_else(|held| panic!("{held:?}"))
                .try_send_carried(&carried, hand_over)?;
        }
    }
    Ok(at.expect("published, so handed over"))
}

fn run(is_spsc: bool, base: u64, steps: &[Step]) {
    let heap = Heap::new(CAPACITY, base);
    let ring = ring(&heap, CAPACITY, 3, 1000);
    let rules = RecordRules { max_handles: 64, ..ring.rules };
    let ring = Ring { rules, ..ring };
    let wakes = Wakes::default();
    let mut producer = SpscProducer::attach(&ring).unwrap();
    let mut consumer = Consumer::attach(&ring).unwrap();
    let mut model: VecDeque<(Vec<u8>, u8, u64)> = VecDeque::new();
    for (number, step) in (1u8..).cycle().zip(steps) {
        let spsc = is_spsc.then_some(&mut producer);
        match step {
            Step::Send(len) => {
                let payload = vec![number | 1; *len];
                let sent = match spsc {
                    Some(producer) => producer.try_send(&ring, &payload, &wakes),
                    None => try_lock(&ring, ME, &wakes).ok().unwrap().try_send(&payload),
                };
                if sent.is_ok() {
                    model.push_back((payload, 0, 0));
                }
            }
            Step::Carry(len, count) => {
                let payload = vec![number | 1; *len];
                let before: u64 = model.iter().map(|(_, count, _)| u64::from(*count)).sum();
                match carry(&ring, spsc, &payload, *count, true) {
                    Ok(Spot { position, .. }) => {
                        assert!(before + u64::from(*count) <= IN_FLIGHT_MAX);
                        model.push_back((payload, *count, position));
                    }
                    Err(error) => {
                        assert!(matches!(error, NotCarried::Refused(Refusal::Full(_))));
                        assert!(!model.is_empty(), "an empty ring takes any");
                    }
                }
            }
            Step::Refuse(len, count) => {
                let refused = carry(&ring, spsc, &vec![0xff; *len], *count, false).unwrap_err();
                let is_full = matches!(refused, NotCarried::Refused(Refusal::Full(_)));
                assert!(is_full || refused == NotCarried::NotHandedOver(()));
            }
            Step::Receive => match (consumer.front(&ring, &wakes).unwrap(), model.pop_front()) {
                (Some(front), Some((payload, count, position))) => {
                    let mut found = vec![0; front.payload_len()];
                    consumer.copy_out(&ring, front, &mut found);
                    assert_eq!((found, front.handle_count()), (payload, count));
                    if count > 0 {
                        assert_eq!(consumer.head(), position);
                        let RecordExt { slot, incarnation_low, .. } = consumer.ext(&ring);
                        assert_eq!((slot, incarnation_low), (3, 1));
                    }
                    consumer.free(&ring, front, &wakes);
                    if count > 0 {
                        consumer.count_handles(&ring, count);
                    }
                }
                (None, None) => {}
                (front, expected) => panic!("{front:?}, and not {expected:?}"),
            },
            Step::Replace => producer = SpscProducer::attach(&ring).unwrap(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..<_>::default() })]

    #[test]
    fn handles_that_nobody_took_leave_nothing_behind_and_those_taken_have_their_record(
        is_spsc: bool,
        base in (0..CAPACITY / 8).prop_map(|word| (word * 8).wrapping_sub(CAPACITY / 2)),
        steps in vec(step(), 1..200),
    ) {
        run(is_spsc, base, &steps);
    }
}

#[test]
fn counters_that_a_death_left_apart_are_set_right_by_an_empty_ring() {
    let heap = Heap::new(CAPACITY, 0);
    let ring = ring(&heap, CAPACITY, 3, 1000);
    let mut producer = SpscProducer::attach(&ring).unwrap();
    ring.memory.store(Word::HandlesSent, 1000, Relaxed);
    carry(&ring, Some(&mut producer), b"", 64, true).unwrap();
    assert_eq!(ring.memory.load(Word::HandlesSent, Relaxed), 64);
    // Taken, but the consumer died before it counted more than it should have: less is under way.
    ring.memory.store(Word::HandlesTaken, 500, Relaxed);
    carry(&ring, Some(&mut producer), b"", 64, true).unwrap();
}
