//! The accesses of send and receive: as the protocol is written down, as the real code makes them
//! on memory, and as the exhaustive search steps through them. The three must be one list.

use std::sync::atomic::Ordering;

use tombolo_abi::LockWord;

use super::super::doorbell::{Fences, Polled, RxDoorbell, arm_for_space, poll, poll_locked};
use super::super::{Attention, LaneProducer};
use super::super::{Consumer, Memory, Ring, SpaceWanted, SpscProducer, Wakes, Word};
use super::super::{transfer, try_lock};
use super::heap::Heap;
use super::recording::{Access, Order, Recording};
use super::replay::{Reached, replay};
use super::{ring, send_step};

const CAPACITY: u64 = 256;
const ME: LockWord = LockWord { slot: 3, incarnation: 9 };
const DEAD: LockWord = LockWord { slot: 4, incarnation: 2 };

/// What is done to a ring whose every access counts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scenario {
    Send,
    SendTwo,
    SendUntilFull,
    Receive,
    /// Attaches and finds nothing.
    FindEmpty,
    SendLocked,
    /// Publishes under the lock and dies.
    DieLocked,
    Transfer,
    /// Arms as the consumer of an SPSC ring, and looks.
    Arm,
    /// The same twice.
    ArmTwice,
    /// Arms as the consumer of an MPSC ring, and looks.
    ArmLocked,
    /// Lets producers go on without fences.
    Relax,
    ArmForRoom,
    /// Two messages as the producer of lane 5.
    SendTwoOnLane,
    /// Takes in the summary, clears the bit of lane 5 and takes it in again.
    ClearLane,
}

/// Does it, and gives a number that tells how it went.
fn run<M: Memory>(scenario: Scenario, ring: &Ring<M>) -> usize {
    let message = b"aaaaaaaa";
    let wakes = &Wakes::default();
    match scenario {
        Scenario::Send | Scenario::SendTwo => {
            let mut producer = SpscProducer::attach(ring).unwrap();
            let times = if matches!(scenario, Scenario::Send) { 1 } else { 2 };
            (0..times).filter(|_| producer.produce(ring, wakes, send_step(message)).is_ok()).count()
        }
        Scenario::SendUntilFull => {
            let mut producer = SpscProducer::attach(ring).unwrap();
            (0..)
                .take_while(|_| producer.produce(ring, wakes, send_step(&[b'a'; 48])).is_ok())
                .count()
        }
        Scenario::Receive => {
            let mut consumer = Consumer::attach(ring).unwrap();
            let front = consumer.front(ring, wakes).unwrap().unwrap();
            let mut buffer = vec![0; front.payload_len()];
            consumer.copy_out(ring, front, &mut buffer);
            consumer.free(ring, front, wakes);
            buffer.len()
        }
        Scenario::FindEmpty => {
            let mut consumer = Consumer::attach(ring).unwrap();
            usize::from(consumer.front(ring, wakes).unwrap().is_none())
        }
        Scenario::SendLocked => {
            let mut locked = try_lock(ring, ME, wakes).ok().unwrap();
            usize::from(locked.produce(send_step(message)).is_ok())
        }
        Scenario::DieLocked => {
            let mut locked = try_lock(ring, DEAD, wakes).ok().unwrap();
            locked.produce(send_step(message)).unwrap();
            std::mem::forget(locked);
            1
        }
        Scenario::Transfer => usize::from(transfer(ring, DEAD, ME, wakes).unwrap().is_some()),
        Scenario::Arm | Scenario::ArmTwice | Scenario::ArmLocked => arm(scenario, ring),
        Scenario::Relax => {
            RxDoorbell::attach(ring, ME, 0, Fences::Requested).relax(ring);
            1
        }
        Scenario::SendTwoOnLane => {
            let mut producer = LaneProducer::attach(ring, 5).unwrap();
            (0..2).filter(|_| producer.produce(ring, wakes, send_step(message)).is_ok()).count()
        }
        Scenario::ClearLane => {
            let mut attention = Attention::new(6);
            attention.note_found(5);
            attention.merge(ring);
            attention.clear(ring, 5);
            attention.merge(ring);
            usize::from(attention.has_draining())
        }
        Scenario::ArmForRoom => {
            let wanted = SpaceWanted { tail: 224, needed: 64, comfortable: 64 };
            usize::from(arm_for_space(ring, &wanted).is_some())
        }
    }
}

/// Arms the consumer's doorbell and looks, and gives how often.
fn arm<M: Memory>(scenario: Scenario, ring: &Ring<M>) -> usize {
    let is_locked = matches!(scenario, Scenario::ArmLocked);
    let fences = if is_locked { Fences::Always } else { Fences::Requested };
    let mut doorbell = RxDoorbell::attach(ring, ME, 0, fences);
    let mut look_once = || {
        doorbell.arm(ring);
        if is_locked { poll_locked(ring, 0) } else { poll(ring, 0) }
    };
    assert_eq!(look_once(), Polled::Nothing);
    if matches!(scenario, Scenario::ArmTwice) {
        assert_eq!(look_once(), Polled::Nothing);
        return 2;
    }
    1
}

/// Runs on memory and gives the accesses made.
fn recorded(heap: &Heap, scenario: Scenario) -> (Vec<Access>, usize) {
    let recording = Recording::new(heap);
    let result = run(scenario, &ring(&recording, CAPACITY, 3, 48));
    (recording.accesses.take(), result)
}

/// Steps through it as the search does, each step on memory, and gives the steps.
fn stepped(heap: &Heap, scenario: Scenario) -> (Vec<Access>, usize) {
    let (mut steps, mut log) = (vec![], vec![]);
    loop {
        match replay(&log, |memory| run(scenario, &ring(memory, CAPACITY, 3, 48))) {
            Reached::End(result) => return (steps, result),
            Reached::Step(access) => {
                log.push(perform(heap, access));
                steps.push(access);
            }
        }
    }
}

fn perform(heap: &Heap, access: Access) -> u64 {
    match access {
        Access::Load(word, order) => heap.load(word, real(order)),
        Access::Store(word, value, order) => {
            heap.store(word, value, real(order));
            0
        }
        Access::CompareExchange(word, current, new) => {
            heap.compare_exchange(word, current, new).unwrap_or_else(|found| found)
        }
        Access::FetchOr(word, bits) => {
            heap.fetch_or(word, bits);
            0
        }
        Access::FetchAnd(word, bits) => {
            heap.fetch_and(word, bits);
            0
        }
        Access::Fence(order) => {
            heap.fence(real(order));
            0
        }
        Access::Barrier => heap.barrier().into(),
        Access::AskReached => heap.is_reached_by_barriers().into(),
        Access::Notify(word, sleepers) => {
            heap.notify(word, sleepers);
            0
        }
        Access::Call(call) => unreachable!("{call:?}: no ring asks for it"),
    }
}

fn real(order: Order) -> Ordering {
    match order {
        Order::Relaxed => Ordering::Relaxed,
        Order::Acquire => Ordering::Acquire,
        Order::Release => Ordering::Release,
        Order::SeqCst => Ordering::SeqCst,
    }
}

/// An access in words: header words and payload by what they are.
fn written(access: &Access) -> String {
    match access {
        Access::Load(Word::Data(at), order) => format!("load data {at} {order:?}"),
        Access::Load(word, order) => format!("load {word:?} {order:?}"),
        Access::Store(Word::Data(at), value, order) => {
            let what = match value {
                0 => "zero",
                0x6161_6161_6161_6161 => "payload",
                value if value >> 28 & 0xf == 2 => "padding",
                _ => "header",
            };
            format!("store data {at} {what} {order:?}")
        }
        Access::Store(word, _, order) => format!("store {word:?} {order:?}"),
        Access::CompareExchange(word, ..) => format!("compare-exchange {word:?} SeqCst"),
        Access::FetchOr(word, bits) => format!("set {bits:#x} in {word:?}"),
        Access::FetchAnd(word, bits) => format!("keep {bits:#x} of {word:?}"),
        Access::Fence(order) => format!("fence {order:?}"),
        Access::Barrier => "barrier".to_owned(),
        Access::AskReached => "ask whether barriers reach this process".to_owned(),
        Access::Notify(word, sleepers) => format!("notify {word:?} {sleepers:?}"),
        Access::Call(call) => format!("{call:?}"),
    }
}

/// Asserts that the code, on memory and stepped, makes exactly the accesses of `protocol` in a ring
/// that starts at `base` and holds what `before` sent.
pub(super) fn assert_steps(base: u64, before: &[Scenario], scenario: Scenario, protocol: &str) {
    let prepared = || {
        let heap = Heap::new(CAPACITY, base);
        for scenario in before {
            run(*scenario, &ring(&heap, CAPACITY, 3, 48));
        }
        heap
    };
    let (recorded, result) = recorded(&prepared(), scenario);
    let (stepped, same_result) = stepped(&prepared(), scenario);
    assert_eq!(recorded, stepped, "the search explores something else than the code does");
    assert_eq!(result, same_result);
    let protocol: Vec<_> =
        protocol.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let found: Vec<_> = recorded.iter().map(written).collect();
    assert_eq!(found, protocol, "the protocol as written down is another");
    println!("{} accesses", recorded.len());
    assert!(!recorded.is_empty() && result > 0);
}

/// The zero behind it, payload, header; then what others may read at leisure.
#[test]
fn a_send_stores_the_zero_behind_it_then_its_payload_then_the_header() {
    let attach = "load Tail Acquire
        load data 0 Acquire
        load Head Acquire
        ask whether barriers reach this process";
    let first = "store data 16 zero Relaxed
        store data 8 payload Relaxed
        store data 0 header Release
        load RxWake Acquire
        store Tail Release
        load SentMsgs Relaxed
        store SentMsgs Relaxed
        load SentBytes Relaxed
        store SentBytes Relaxed";
    let second = "store data 32 zero Relaxed
        store data 24 payload Relaxed
        store data 16 header Release
        load RxWake Acquire
        store Tail Release
        load SentMsgs Relaxed
        store SentMsgs Relaxed
        load SentBytes Relaxed
        store SentBytes Relaxed";
    let protocol = [attach, first, second].join("\n");
    assert_steps(0, &[], Scenario::SendTwo, &protocol);
}

/// Only where the space last seen does not suffice is the consumer's position loaded: the stores that
/// follow must stay behind that load.
#[test]
fn a_producer_short_of_room_acquires_what_the_consumer_freed() {
    let heap = Heap::new(CAPACITY, 0);
    let (accesses, sent) = recorded(&heap, Scenario::SendUntilFull);
    let heads: Vec<_> = accesses.iter().filter(|access| is_load_of_head(access)).collect();
    println!("{sent} sent, {heads:?}");
    assert_eq!(heads.len(), 2, "once at attach, once when the ring looked full");
    assert!(heads.iter().all(|access| matches!(access, Access::Load(_, Order::Acquire))));
}

fn is_load_of_head(access: &Access) -> bool {
    matches!(access, Access::Load(Word::Head, _))
}

#[test]
fn a_record_that_does_not_fit_is_written_whole_before_its_padding_publishes_it() {
    let protocol = "load Tail Acquire
        load data 248 Acquire
        load Head Acquire
        ask whether barriers reach this process
        store data 272 zero Relaxed
        store data 264 payload Relaxed
        store data 256 header Relaxed
        store data 248 padding Release
        load RxWake Acquire
        store Tail Release
        load SentMsgs Relaxed
        store SentMsgs Relaxed
        load SentBytes Relaxed
        store SentBytes Relaxed";
    assert_steps(CAPACITY - 8, &[], Scenario::Send, protocol);
}

#[test]
fn a_receive_loads_one_header_copies_and_then_frees() {
    let protocol = "load Head Relaxed
        load Tail Relaxed
        load ReceivedMsgs Relaxed
        load ReceivedBytes Relaxed
        load Skipped Relaxed
        load data 0 Acquire
        load data 8 Relaxed
        store Head Release
        store ReceivedMsgs Relaxed
        store ReceivedBytes Relaxed";
    assert_steps(0, &[Scenario::Send], Scenario::Receive, protocol);
}

#[test]
fn a_send_under_the_lock_keeps_every_shared_word_inside_it() {
    let protocol = "compare-exchange Lock SeqCst
        load Tail Relaxed
        load HeadCache Relaxed
        store data 16 zero Relaxed
        store data 8 payload Relaxed
        store data 0 header Release
        load SentMsgs Relaxed
        store SentMsgs Relaxed
        load SentBytes Relaxed
        store SentBytes Relaxed
        store Tail Release
        store HeadCache Relaxed
        store Lock Release
        load RxWake SeqCst";
    assert_steps(0, &[], Scenario::SendLocked, protocol);
}
