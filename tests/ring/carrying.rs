//! Records with handles among others: what was handed over is published, what could not be handed
//! over leaves the ring as it was, and no more is on its way than the bound allows.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

use proptest::collection::vec;
use proptest::prelude::*;
use tombolo_abi::{LockWord, RecordExt, RecordRules};

use super::super::carry::{Carried, IN_FLIGHT_MAX, NotCarried, Recount, Spot};
use super::super::{
    Consumer, Memory, Refusal, Ring, Sent, SpscProducer, Wakes, Window, Word, try_lock,
};
use super::heap::Heap;
use super::{ring, send_step};

const CAPACITY: u64 = 4096;
const ME: LockWord = LockWord { slot: 3, incarnation: 0x1_0001 };

#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    Carry(usize, u8),
    /// As `Carry`, but nobody takes the handles.
    Refuse(usize, u8),
    Receive,
    /// As `Receive`, but the consumer dies before it counts the handles.
    ReceiveAndDie,
    /// The producer dies, perhaps just after it handed something over.
    Replace,
    /// The producer dies between counting so many handles and publishing them.
    CountAndReplace(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..300usize).prop_map(Step::Send),
        3 => (0..300usize, 1..=64u8).prop_map(|(len, count)| Step::Carry(len, count)),
        2 => (0..300usize, 1..=64u8).prop_map(|(len, count)| Step::Refuse(len, count)),
        4 => Just(Step::Receive),
        1 => Just(Step::ReceiveAndDie),
        1 => Just(Step::Replace),
        1 => (1..=64u8).prop_map(Step::CountAndReplace),
    ]
}

fn with_handles(heap: &Heap) -> Ring<&Heap> {
    let ring = ring(heap, CAPACITY, 3, 1000);
    Ring { rules: RecordRules { max_handles: 64, ..ring.rules }, ..ring }
}

/// What a test's producer is made of, whichever the flavour.
struct Sending {
    spsc: Option<SpscProducer>,
    recount: Recount,
}

impl Sending {
    fn attach(ring: &Ring<&Heap>, is_spsc: bool) -> Self {
        let spsc = is_spsc.then(|| SpscProducer::attach(ring).unwrap());
        Self { spsc, recount: Recount::default() }
    }
}

/// Runs `step` on either flavour.
fn produce<'a, E>(
    ring: &Ring<&'a Heap>,
    spsc: &mut Option<SpscProducer>,
    step: impl FnOnce(&mut Window, &Ring<&'a Heap>) -> Result<Sent, E>,
) -> Result<(), E> {
    let wakes = Wakes::default();
    match spsc {
        Some(producer) => producer.produce(ring, &wakes, step).map(drop),
        None => try_lock(ring, ME, &wakes).ok().unwrap().produce(step).map(drop),
    }
}

/// Sends on either flavour; gives where the handles were handed over, if they were.
fn carry(
    ring: &Ring<&Heap>,
    Sending { spsc, recount }: &mut Sending,
    payload: &[u8],
    handle_count: u8,
    is_taken: bool,
) -> Result<Spot, NotCarried<()>> {
    let ext = RecordExt { txid: 0, slot: ME.slot, incarnation_low: ME.incarnation as u16 };
    let carried = Carried { payload, handle_count, ext, is_call: false };
    let mut at = None;
    let transfer = |spot: Spot| {
        assert_eq!(ring.memory.load(Word::Data(spot.tail), Relaxed), 0, "visible too early");
        at = Some(spot);
        if is_taken { Ok(()) } else { Err(()) }
    };
    produce(ring, spsc, |window, ring| window.send_carried(ring, &carried, recount, transfer))?;
    Ok(at.expect("published, so handed over"))
}

fn run(is_spsc: bool, base: u64, steps: &[Step]) {
    let heap = Heap::new(CAPACITY, base);
    let ring = with_handles(&heap);
    let wakes = Wakes::default();
    let mut sending = Sending::attach(&ring, is_spsc);
    let mut consumer = Consumer::attach(&ring).unwrap();
    let mut model: VecDeque<(Vec<u8>, u8, u64)> = VecDeque::new();
    for (number, step) in (1u8..).cycle().zip(steps) {
        match step {
            Step::Send(len) => {
                let payload = vec![number | 1; *len];
                if produce(&ring, &mut sending.spsc, send_step(&payload)).is_ok() {
                    model.push_back((payload, 0, 0));
                }
            }
            Step::Carry(len, count) => {
                let payload = vec![number | 1; *len];
                let before: u64 = model.iter().map(|(_, count, _)| u64::from(*count)).sum();
                match carry(&ring, &mut sending, &payload, *count, true) {
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
                let refused = carry(&ring, &mut sending, &vec![0xff; *len], *count, false);
                let refused = refused.unwrap_err();
                let is_full = matches!(refused, NotCarried::Refused(Refusal::Full(_)));
                assert!(is_full || refused == NotCarried::NotTransferred(()));
            }
            Step::Receive | Step::ReceiveAndDie => {
                match (consumer.front(&ring, &wakes).unwrap(), model.pop_front()) {
                    (Some(front), Some((payload, count, position))) => {
                        let mut found = vec![0; front.payload_len()];
                        consumer.copy_out(&ring, front, &mut found);
                        assert_eq!((found, front.handle_count()), (payload, count));
                        if count > 0 {
                            assert_eq!(consumer.head(), position);
                            let RecordExt { slot, incarnation_low, .. } = consumer.ext(&ring);
                            assert_eq!((slot, incarnation_low), (3, 1));
                        }
                        if matches!(step, Step::Receive) && count > 0 {
                            consumer.free_carried(&ring, front, &wakes, || {});
                        } else {
                            consumer.free(&ring, front, &wakes);
                        }
                        if matches!(step, Step::ReceiveAndDie) {
                            consumer = Consumer::attach(&ring).unwrap();
                        }
                    }
                    (None, None) => {}
                    (front, expected) => panic!("{front:?}, and not {expected:?}"),
                }
            }
            Step::Replace => sending = Sending::attach(&ring, is_spsc),
            Step::CountAndReplace(count) => {
                add_to(&ring, Word::HandlesSent, (*count).into());
                sending = Sending::attach(&ring, is_spsc);
            }
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

fn add_to(ring: &Ring<&Heap>, counter: Word, amount: i64) {
    let before = ring.memory.load(counter, Relaxed);
    ring.memory.store(counter, before.wrapping_add_signed(amount), Relaxed);
}

#[test]
fn counters_that_a_death_left_apart_are_set_right_by_an_empty_ring() {
    let heap = Heap::new(CAPACITY, 0);
    let ring = with_handles(&heap);
    let mut sending = Sending::attach(&ring, true);
    ring.memory.store(Word::HandlesSent, 1000, Relaxed);
    carry(&ring, &mut sending, b"", 64, true).unwrap();
    assert_eq!(ring.memory.load(Word::HandlesSent, Relaxed), 64);
    // More taken than was ever sent.
    ring.memory.store(Word::HandlesTaken, 500, Relaxed);
    carry(&ring, &mut sending, b"", 64, true).unwrap();
}

/// Sends a message with `count` handles and takes the oldest, over and over, so that there is always
/// one; before each send, `disturb` does to the counters what it likes. Gives how often in a row a send
/// was refused at the most.
fn refused_in_a_row(
    is_spsc: bool,
    count: u8,
    mut disturb: impl FnMut(&Ring<&Heap>, &mut Sending),
) -> u32 {
    let base = 0u64.wrapping_sub(CAPACITY * 5); // the positions go through 0
    let heap = Heap::new(CAPACITY, base);
    let ring = with_handles(&heap);
    let (mut sending, wakes) = (Sending::attach(&ring, is_spsc), Wakes::default());
    let mut consumer = Consumer::attach(&ring).unwrap();
    let mut under_way = VecDeque::new();
    let (mut refused, mut refused_max) = (0, 0);
    for round in 0..2000 {
        disturb(&ring, &mut sending);
        match carry(&ring, &mut sending, b"with", count, true) {
            Ok(_) => {
                under_way.push_back(count);
                refused = 0;
            }
            Err(error) => {
                assert!(matches!(error, NotCarried::Refused(Refusal::Full(_))), "{error:?}");
                refused += 1;
                refused_max = refused_max.max(refused);
            }
        }
        assert!(under_way.iter().map(|count| u64::from(*count)).sum::<u64>() <= IN_FLIGHT_MAX);
        if under_way.len() < 3 {
            let payload = [0; 20]; // bytes alone keep it from being empty
            produce(&ring, &mut sending.spsc, send_step(&payload)).unwrap();
            under_way.push_back(0);
        }
        if round > 2 {
            let front = consumer.front(&ring, &wakes).unwrap().expect("it is never empty");
            assert_eq!(under_way.pop_front(), Some(front.handle_count()));
            if front.handle_count() > 0 {
                consumer.free_carried(&ring, front, &wakes, || {});
            } else {
                consumer.free(&ring, front, &wakes);
            }
        }
    }
    refused_max
}

#[test]
fn deaths_at_each_side_of_counting_keep_no_handles_back_though_the_ring_is_never_empty() {
    for is_spsc in [true, false] {
        for count in [1, 8, 64] {
            let apart = i64::from(count);
            let by_consumers = refused_in_a_row(is_spsc, count, |ring, _| {
                add_to(ring, Word::HandlesTaken, -apart);
            });
            let by_producers = refused_in_a_row(is_spsc, count, |ring, sending| {
                add_to(ring, Word::HandlesSent, apart);
                *sending = Sending::attach(ring, is_spsc);
            });
            // Until half of what was there is freed, which is a few records.
            assert!(by_consumers <= 3 && by_producers <= 3, "{by_consumers}, {by_producers}");
        }
    }
}

#[test]
fn whatever_a_hostile_peer_stores_as_counters_handles_go_on() {
    for is_spsc in [true, false] {
        for (sent, taken) in [(u64::MAX, 0), (0, u64::MAX), (1 << 63, 0), (0, 1 << 63), (256, 0)] {
            let refused = refused_in_a_row(is_spsc, 8, |ring, _| {
                ring.memory.store(Word::HandlesSent, sent, Relaxed);
                ring.memory.store(Word::HandlesTaken, taken, Relaxed);
            });
            assert!(refused <= 3, "{refused} times in a row with {sent:#x} and {taken:#x}");
        }
    }
}

#[test]
fn what_is_under_way_is_added_up_no_more_often_than_half_of_it_is_freed() {
    let heap = Heap::new(CAPACITY, 0);
    let ring = with_handles(&heap);
    let (mut sending, wakes) = (Sending::attach(&ring, true), Wakes::default());
    let mut consumer = Consumer::attach(&ring).unwrap();
    for _ in 0..4 {
        carry(&ring, &mut sending, b"", 64, true).unwrap();
    }
    let recounts = |sending: &mut Sending| {
        ring.memory.store(Word::HandlesSent, 1 << 40, Relaxed); // a recount corrects it
        let sent = carry(&ring, sending, b"", 64, true);
        (sent.is_ok(), ring.memory.load(Word::HandlesSent, Relaxed) < 1 << 40)
    };
    assert_eq!(recounts(&mut sending), (false, true), "the first time");
    let freed = |consumer: &mut Consumer| {
        let front = consumer.front(&ring, &wakes).unwrap().unwrap();
        consumer.free_carried(&ring, front, &wakes, || {});
    };
    assert_eq!(recounts(&mut sending), (false, false), "nothing was freed");
    freed(&mut consumer);
    assert_eq!(recounts(&mut sending), (false, false), "a quarter was freed");
    freed(&mut consumer);
    assert_eq!(recounts(&mut sending), (true, true), "half was freed");
}
