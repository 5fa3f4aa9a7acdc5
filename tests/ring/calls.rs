//! Requests: by the fast path they are what the slow one makes of them, or nothing is stored.

use tombolo_abi::RecordExt;

use super::super::{Memory, Word};
use super::heap::Heap;
use super::recording::{Access, Order, Recording};
use super::{Ring, Window, ring};
use std::sync::atomic::Ordering::Relaxed;

const CAPACITY: u64 = 256;
const EXT: RecordExt = RecordExt { txid: 0x8000_0001, slot: 5, incarnation_low: 9 };

/// What a request leaves of a window at `base + offset` with so much behind it that is not free: the accesses made,
/// the window, and all words of the data area; `None` in the place of the window if it was refused.
fn left_by(
    send: impl FnOnce(&mut Window, &Ring<&Recording<&Heap>>) -> bool,
    (base, used): (u64, u64),
) -> (Vec<Access>, Option<Window>, Vec<u64>) {
    let heap = Heap::new(CAPACITY, base);
    let recording = Recording::new(&heap);
    let ring = ring(&recording, CAPACITY, 3, 128);
    let head = base.wrapping_sub(used);
    ring.memory.store(Word::Head, head, Relaxed);
    let mut window = Window { tail: base, head };
    recording.accesses.borrow_mut().clear();
    let sent = send(&mut window, &ring).then_some(window);
    let accesses = recording.accesses.take();
    let words = (0..CAPACITY).step_by(8);
    (accesses, sent, words.map(|at| (&heap).load(Word::Data(at), Relaxed)).collect())
}

#[test]
fn by_the_fast_path_a_request_is_what_the_slow_one_makes_of_it_or_nothing_is_stored() {
    let (mut fast_count, mut refused_count) = (0, 0);
    for base in (0..CAPACITY).step_by(8).map(|offset| offset.wrapping_sub(CAPACITY / 2)) {
        for (used, len) in
            (0..=CAPACITY).step_by(8).flat_map(|used| [4, 8, 9, 40].map(|len| (used, len)))
        {
            let payload: Vec<u8> = (1..=len).collect();
            let slow =
                left_by(|window, ring| window.send_call(ring, &payload, EXT).is_ok(), (base, used));
            let fast = left_by(
                |window, ring| window.call_fast(ring, &payload, EXT).is_some(),
                (base, used),
            );
            if fast.1.is_some() {
                assert_eq!((&fast.1, &fast.2), (&slow.1, &slow.2), "{base:#x}, {used}, {len}");
                fast_count += 1;
            } else {
                let has_stored = fast.0.iter().any(|access| matches!(access, Access::Store(..)));
                assert!(!has_stored, "{:?}", fast.0);
                refused_count += 1;
            }
            for (accesses, sent, _) in [slow, fast] {
                if sent.is_some() {
                    publishes_last(&accesses, base);
                }
            }
        }
    }
    println!("{fast_count} requests by the fast path, {refused_count} refused by it");
    assert!(fast_count > 0 && refused_count > 0);
}

/// The first word, of the record or of the padding before it, is stored last and releases the others.
fn publishes_last(accesses: &[Access], tail: u64) {
    let stores = accesses.iter().filter_map(|access| match access {
        Access::Store(Word::Data(position), value, order) if *value != 0 => {
            Some((*position, *order))
        }
        _ => None,
    });
    let stores: Vec<_> = stores.collect();
    assert_eq!(stores.last(), Some(&(tail, Order::Release)), "{stores:x?}");
    assert!(stores.len() > 2, "no word for whom it is");
}
