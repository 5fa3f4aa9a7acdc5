//! Any sequence of operations on a ring gives what a `VecDeque` gives.

use std::cell::RefCell;
use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::prelude::*;
use tombolo_abi::{LockWord, Record};

use super::super::{
    Consumer, LaneProducer, Locked, Memory, Nothing, Refusal, Ring, SpscProducer, Wakes, Window,
    Word,
};
use super::super::{transfer, try_lock};
use super::heap::Heap;
use super::{ring, send_step};

/// What can be done to a ring.
#[derive(Clone, Debug)]
enum Step {
    Send(u32),
    Batch(Vec<u32>),
    /// Claim, write, and commit the first bytes.
    Commit(u32, u32),
    /// Claim, write, and drop it.
    Drop(u32),
    Receive,
    /// Go over up to so many messages, and free them all at once.
    Drain(u8),
    /// Go over them and die.
    DrainAndDie(u8),
    /// Look at the next message and leave it.
    Peek,
    /// The producer dies between two operations, or within a write: a successor takes over.
    ReplaceProducer(Option<u32>),
    ReplaceConsumer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flavour {
    Spsc,
    Mpsc,
    Lane,
}

/// The ring under test beside its model.
struct Pair<'a> {
    flavour: Flavour,
    ring: Ring<&'a Heap>,
    producer: SpscProducer,
    lane: LaneProducer,
    consumer: Consumer,
    wakes: Wakes,
    model: VecDeque<Vec<u8>>,
    next: u8,
    seen: Seen,
}

/// What a run exercised.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    sent: u64,
    received: u64,
    drained: u64,
    full: u64,
    paddings: u64,
    wraps: u64,
    takeovers: u64,
    zero_stores: u64,
}

const ME: LockWord = LockWord { slot: 3, incarnation: 1 };
const DEAD: LockWord = LockWord { slot: 4, incarnation: 7 };

fn lock<'a>(ring: &'a Ring<&'a Heap>, me: LockWord, wakes: &'a Wakes) -> Locked<'a, &'a Heap> {
    try_lock(ring, me, wakes).unwrap_or_else(|held| panic!("{held:?}"))
}

impl<'a> Pair<'a> {
    fn new(flavour: Flavour, heap: &'a Heap, shape: Shape) -> Self {
        let ring = ring(heap, shape.capacity, shape.align_shift, shape.max_message());
        Self {
            flavour,
            producer: SpscProducer::attach(&ring).unwrap(),
            lane: LaneProducer::attach(&ring, 77).unwrap(),
            consumer: Consumer::attach(&ring).unwrap(),
            wakes: Wakes::default(),
            ring,
            model: VecDeque::new(),
            next: 0,
            seen: Seen::default(),
        }
    }

    /// A payload that looks like record headers, and differs from every other one.
    fn payload(&mut self, len: u32) -> Vec<u8> {
        self.next = self.next.wrapping_add(1);
        let word = self.ring.rules.encode(&Record::data(0), self.next.into()).to_le_bytes();
        (0..len as usize).map(|i| word[i % 8] ^ self.next | 1).collect()
    }

    fn used(&self) -> u64 {
        let tail =
            Memory::load(&self.ring.memory, Word::Tail, std::sync::atomic::Ordering::Relaxed);
        tail.wrapping_sub(self.consumer.head())
    }

    /// Whether messages of these lengths fit by the space rule.
    fn fits(&self, lens: &[u32]) -> usize {
        let capacity = self.ring.rules.capacity;
        let mut end = self.consumer.head().wrapping_add(self.used());
        lens.iter()
            .take_while(|len| {
                end = Window::place_at(&self.ring, end, &Record::data(**len)).end;
                end.wrapping_add(8).wrapping_sub(self.consumer.head()) <= capacity
            })
            .count()
    }

    fn batch(&mut self, lens: &[u32]) {
        let payloads: Vec<_> = lens.iter().map(|len| self.payload(*len)).collect();
        let slices: Vec<_> = payloads.iter().map(Vec::as_slice).collect();
        let expected = self.fits(lens);
        let start = self.consumer.head().wrapping_add(self.used());
        let Self { ring, producer, lane, wakes, .. } = self;
        let step = |window: &mut Window, ring: &Ring<_>| match &slices[..] {
            [one] => send_step(one)(window, ring),
            _ => window.send_batch(ring, &slices),
        };
        let sent = match self.flavour {
            Flavour::Spsc => producer.produce(ring, wakes, step),
            Flavour::Lane => lane.produce(ring, wakes, step),
            Flavour::Mpsc => lock(ring, ME, wakes).produce(step).map(|sent| sent.count),
        };
        let sent = match sent {
            Err(Refusal::Full(_)) => 0,
            sent => sent.unwrap(),
        };
        assert_eq!(sent, expected, "the space rule and the ring differ");
        self.seen.sent += sent as u64;
        self.seen.full += u64::from(sent < lens.len());
        let end = self.consumer.head().wrapping_add(self.used());
        self.seen.wraps +=
            u64::from(start / self.ring.rules.capacity != end / self.ring.rules.capacity);
        self.model.extend(payloads.into_iter().take(sent));
    }

    /// Claims, writes payload all over the claim, and commits `commit` bytes of it, if any.
    fn claim(&mut self, len: u32, commit: Option<u32>) {
        let payload = self.payload(len);
        let window = &mut self.producer.window;
        let reserved = match window.reserve(&self.ring, len) {
            Err(Refusal::Full(_)) => return assert_eq!(self.fits(&[len]), 0),
            reserved => reserved.unwrap(),
        };
        let position = window.payload_position(&self.ring, reserved);
        self.ring.memory.copy_in(position, &payload);
        if let Some(commit) = commit {
            let step = |window: &mut Window, ring: &Ring<_>| {
                Ok::<_, Refusal>(window.commit(ring, reserved, commit as usize))
            };
            assert_eq!(self.producer.produce(&self.ring, &self.wakes, step), Ok(1));
            self.model.push_back(payload[..commit.min(len) as usize].to_vec());
            self.seen.sent += 1;
        }
    }

    fn front(&mut self) -> Option<Vec<u8>> {
        let at_once = self.consumer.front_fast(&self.ring);
        let before = self.consumer.head();
        let front = self.consumer.front(&self.ring, &self.wakes).unwrap();
        match at_once {
            Ok(Some(found)) => assert_eq!(front, Some(found)),
            Ok(None) => assert!(front.is_none() || self.consumer.head() != before),
            Err(Nothing) => assert_eq!(front, None),
        }
        let front = front?;
        let mut bytes = vec![0xaa; front.payload_len()];
        self.consumer.copy_out(&self.ring, front, &mut bytes);
        assert_eq!(Some(&bytes), self.model.front());
        Some(bytes)
    }

    fn receive(&mut self) {
        let before = self.consumer.head();
        if self.front().is_none() {
            return assert!(self.model.is_empty(), "a message is missing");
        }
        let front = self.consumer.front(&self.ring, &self.wakes).unwrap().unwrap();
        self.seen.paddings += u64::from(self.consumer.head() != before);
        self.consumer.free(&self.ring, front, &self.wakes);
        self.model.pop_front();
        self.seen.received += 1;
    }

    /// Goes over up to `limit` plain messages, and frees them unless it dies.
    fn drain(&mut self, limit: u8, dies: bool) {
        let Self { ring, consumer, model, wakes, seen, .. } = self;
        let mut run = consumer.run();
        while run.count() < limit.into()
            && let Some((front, len)) = run.front(&ring.memory, &ring.rules)
        {
            let mut bytes = vec![0xaa; len as usize];
            ring.memory.copy_out(run.head().wrapping_add(front.payload_offset()), &mut bytes);
            assert_eq!(Some(&bytes), model.get(run.count() as usize));
            run.pass(&ring.rules, front.payload_offset(), len);
        }
        if dies {
            return self.replace_consumer();
        }
        if run.count() > 0 {
            consumer.free_run(ring, &run, wakes);
        }
        model.drain(..run.count() as usize);
        seen.received += run.count();
        seen.drained += run.count();
    }

    fn replace_consumer(&mut self) {
        self.consumer = Consumer::attach(&self.ring).unwrap();
        self.seen.takeovers += 1;
    }

    fn replace_producer(&mut self, half_written: Option<u32>) {
        match self.flavour {
            Flavour::Mpsc => self.replace_holder(half_written.unwrap_or(0)),
            Flavour::Lane => {
                if let Some(len) = half_written {
                    let payload = self.payload(len);
                    let window = &mut self.lane.producer.window;
                    if let Ok(reserved) = window.reserve(&self.ring, len) {
                        let position = window.payload_position(&self.ring, reserved);
                        self.ring.memory.copy_in(position, &payload);
                    }
                }
                self.lane = LaneProducer::attach(&self.ring, 77).unwrap();
            }
            Flavour::Spsc => {
                if let Some(len) = half_written {
                    self.claim(len, None);
                }
                self.producer = SpscProducer::attach(&self.ring).unwrap();
            }
        }
        self.seen.takeovers += 1;
    }

    /// A holder of the lock dies with `len` bytes of payload written and not published.
    fn replace_holder(&mut self, len: u32) {
        let payload = self.payload(len);
        std::mem::forget(lock(&self.ring, DEAD, &self.wakes));
        let window = Window::load(&self.ring).unwrap();
        let start = window.tail.wrapping_add(8);
        let capacity = self.ring.rules.capacity;
        let free = capacity - window.tail.wrapping_sub(self.consumer.head()) - 8;
        let len = free.min(capacity - start % capacity).min(payload.len() as u64);
        self.ring.memory.copy_in(start, &payload[..len as usize]);
        let taken = transfer(&self.ring, DEAD, ME, &self.wakes).unwrap();
        drop(taken.expect("nobody else was there"));
    }

    fn step(&mut self, step: &Step) {
        let limit = self.ring.rules.max_message;
        match (step, self.flavour) {
            (Step::Send(len), _) => self.batch(&[*len.min(&limit)]),
            (Step::Batch(lens), _) => {
                self.batch(&lens.iter().map(|len| *len.min(&limit)).collect::<Vec<_>>());
            }
            (Step::Commit(len, commit), Flavour::Spsc) => {
                self.claim(*len.min(&limit), Some(*commit));
            }
            (Step::Drop(len), Flavour::Spsc) => self.claim(*len.min(&limit), None),
            (Step::Commit(..) | Step::Drop(_), Flavour::Mpsc | Flavour::Lane)
            | (Step::Receive, _) => self.receive(),
            (Step::Peek, _) => drop(self.front()),
            (Step::ReplaceProducer(len), _) => {
                self.replace_producer(len.map(|len| len.min(limit)));
            }
            (Step::Drain(limit), _) => self.drain(*limit, false),
            (Step::DrainAndDie(limit), _) => self.drain(*limit, true),
            (Step::ReplaceConsumer, _) => self.replace_consumer(),
        }
        self.check_invariants();
    }

    /// The word at the tail is 0.
    fn check_invariants(&self) {
        use std::sync::atomic::Ordering::Relaxed;
        let window = match self.flavour {
            Flavour::Spsc => self.producer.window,
            Flavour::Lane => self.lane.producer.window,
            Flavour::Mpsc => Window::load(&self.ring).unwrap(),
        };
        let word = |position| self.ring.memory.load(Word::Data(position), Relaxed);
        assert_eq!(word(window.tail), 0, "the word at the tail");
    }
}

/// A tiny ring.
#[derive(Clone, Copy, Debug)]
struct Shape {
    capacity: u64,
    align_shift: u8,
    base: u64,
}

impl Shape {
    /// The longest message by the layout's rule: 16 more, aligned, is at most a quarter.
    fn max_message(&self) -> u32 {
        (self.capacity / 4 - 16) as u32
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    let sizes = prop_oneof![Just(128), Just(256), Just(512), Just(4096)];
    let aligns = 3..=5u8;
    let bases = prop_oneof![
        Just(0u64),
        Just(u64::MAX - 127),
        Just(u64::MAX - 1023),
        Just(u64::MAX - 8191),
        any::<u64>()
    ];
    (sizes, aligns, bases).prop_map(|(capacity, align_shift, base)| {
        let align_shift = if capacity < 256 { 3 } else { align_shift };
        let base = base & !((1 << align_shift) - 1);
        Shape { capacity, align_shift, base }
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let len = || prop_oneof![0..=16u32, 0..=120u32, 0..=1008u32];
    let step = prop_oneof![
        6 => len().prop_map(Step::Send),
        2 => vec(len(), 0..6).prop_map(Step::Batch),
        2 => (len(), len()).prop_map(|(len, commit)| Step::Commit(len, commit)),
        1 => len().prop_map(Step::Drop),
        8 => Just(Step::Receive),
        2 => (0..9u8).prop_map(Step::Drain),
        1 => (0..9u8).prop_map(Step::DrainAndDie),
        1 => Just(Step::Peek),
        1 => proptest::option::of(len()).prop_map(Step::ReplaceProducer),
        1 => Just(Step::ReplaceConsumer),
    ];
    vec(step, 1..400)
}

fn run(flavour: Flavour, shape: Shape, steps: &[Step]) -> Seen {
    let heap = Heap::new(shape.capacity, shape.base);
    let mut pair = Pair::new(flavour, &heap, shape);
    steps.iter().for_each(|step| pair.step(step));
    while !pair.model.is_empty() {
        pair.step(&Step::Receive);
    }
    assert_eq!(pair.front(), None);
    Seen { zero_stores: heap.zero_stores.get(), ..pair.seen }
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.received += other.received;
        self.drained += other.drained;
        self.full += other.full;
        self.paddings += other.paddings;
        self.wraps += other.wraps;
        self.takeovers += other.takeovers;
        self.zero_stores += other.zero_stores;
    }
}

fn any_sequence(flavour: Flavour) {
    let total = RefCell::new(Seen::default());
    let cases = 400;
    proptest!(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() },
        |(shape in shapes(), steps in steps())| *total.borrow_mut() += run(flavour, shape, &steps));
    let seen = total.into_inner();
    println!("{flavour:?}: {cases} sequences, {seen:?}");
    assert!(seen.sent > 0 && seen.sent == seen.received);
    assert!(
        [seen.drained, seen.full, seen.paddings, seen.wraps, seen.takeovers, seen.zero_stores]
            .iter()
            .all(|count| *count > 0)
    );
}

#[test]
fn any_sequence_on_an_spsc_ring_gives_what_a_queue_gives() {
    any_sequence(Flavour::Spsc);
}

#[test]
fn any_sequence_on_an_mpsc_ring_gives_what_a_queue_gives() {
    any_sequence(Flavour::Mpsc);
}

#[test]
fn any_sequence_on_a_lane_gives_what_a_queue_gives() {
    any_sequence(Flavour::Lane);
}

/// Every length at every place of a small area, so every padding and every exact fit, with the
/// ring as full as it gets.
#[test]
fn every_length_at_every_place_wraps_and_pads_right() {
    let mut total = Seen::default();
    for flavour in [Flavour::Spsc, Flavour::Mpsc, Flavour::Lane] {
        for (capacity, align_shift) in [(128, 3), (256, 3), (256, 4), (512, 5)] {
            for offset in (0..capacity).step_by(1 << align_shift) {
                for base in [offset, 0u64.wrapping_sub(capacity).wrapping_add(offset)] {
                    let shape = Shape { capacity, align_shift, base };
                    for len in 0..=shape.max_message() {
                        let fill = Step::Send(len);
                        let seen = run(
                            flavour,
                            shape,
                            &[
                                fill.clone(),
                                fill.clone(),
                                fill.clone(),
                                fill.clone(),
                                Step::Receive,
                                fill.clone(),
                                Step::Batch(vec![len, 0, len]),
                                Step::Receive,
                                Step::Receive,
                                fill,
                            ],
                        );
                        total += seen;
                    }
                }
            }
        }
    }
    println!("{total:?}");
    assert!(total.paddings > 0 && total.wraps > 0 && total.sent > 0);
}
