//! Zeroing by lines, as mapped words do it, beside zeroing by words.

use std::sync::atomic::Ordering::Relaxed;

use super::super::{Memory, Word};
use crate::mem::RingSpan;
use crate::{EventsRegion, OpenOptions};

const CAPACITY: u64 = 4096;

#[test]
fn zeroing_by_lines_leaves_what_zeroing_by_words_does() {
    let options = OpenOptions::new().spsc_capacity(CAPACITY).max_message(64);
    let region = EventsRegion::anonymous(options).unwrap();
    let entry = region.shared().entries()[0];
    let mapping = region.shared().mapping().clone();
    let span = RingSpan::new(
        mapping,
        (entry.control_offset, entry.control_offset),
        entry.data_offset,
        CAPACITY,
    )
    .unwrap();
    let mut ranges = 0;
    for from in (CAPACITY - 256..CAPACITY + 64).step_by(8) {
        for len in (0..400).step_by(8) {
            let words = (0..CAPACITY).step_by(8);
            words.clone().for_each(|at| span.store(Word::Data(at), u64::MAX, Relaxed));
            span.zero(from, from + len);
            for at in words {
                let is_inside = at.wrapping_sub(from) % CAPACITY < len;
                let found = span.load(Word::Data(at), Relaxed);
                assert_eq!(found == 0, is_inside, "{at} of {from} and {len} bytes");
            }
            ranges += 1;
        }
    }
    println!("{ranges} ranges");
}
