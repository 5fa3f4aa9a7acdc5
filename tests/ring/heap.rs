//! A ring's words on the heap, where sanitizers see them, with a guard on every store.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use tombolo_abi::wake;

use super::super::memory::{Location, Sleepers};
use super::super::{Memory, Word};
use crate::mem::copy;

/// Words of one ring in private memory.
#[derive(Debug)]
pub(super) struct Heap {
    control: Vec<AtomicU64>,
    area: Vec<AtomicU64>,
    /// Zeros stored to the data area.
    pub(super) zero_stores: Cell<u64>,
}

impl Heap {
    /// A ring of `capacity` bytes, fresh but for positions that start at `base`.
    pub(super) fn new(capacity: u64, base: u64) -> Self {
        let words = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        let heap = Self {
            control: words(128 + 256),
            area: words(capacity / 8),
            zero_stores: Cell::new(0),
        };
        for word in [Word::Tail, Word::Head, Word::HeadCache] {
            heap.word(word).store(base, Relaxed);
        }
        heap
    }

    fn word(&self, word: Word) -> &AtomicU64 {
        match word.location() {
            Location::Control64(offset) | Location::Group64(offset) => &self.control[offset / 8],
            // Two 32-bit words would share one here: each gets a word behind the control block.
            Location::Control32(offset) | Location::Group32(offset) => {
                &self.control[128 + offset / 4]
            }
            Location::Data(position) => &self.area[self.index(position)],
        }
    }

    fn index(&self, position: u64) -> usize {
        assert!(position.is_multiple_of(8), "unaligned access at {position:#x}");
        (position / 8) as usize % self.area.len()
    }

    /// Every store to the data area lies behind what was published and before what was freed, one
    /// capacity later: it can hit no record that somebody may still read.
    fn guard(&self, position: u64) {
        let tail = self.word(Word::Tail).load(Relaxed);
        let head = self.word(Word::Head).load(Relaxed);
        let capacity = self.area.len() as u64 * 8;
        assert!(position.wrapping_sub(tail) < capacity, "store at {position:#x}, tail {tail:#x}");
        assert!(position.wrapping_sub(head) < capacity, "store at {position:#x}, head {head:#x}");
    }
}

impl Memory for &Heap {
    fn load(&self, word: Word, order: Ordering) -> u64 {
        self.word(word).load(order)
    }

    fn store(&self, word: Word, value: u64, order: Ordering) {
        if let Word::Data(position) = word {
            self.guard(position);
            if value == 0 {
                self.zero_stores.set(self.zero_stores.get() + 1);
            }
        }
        self.word(word).store(value, order);
    }

    fn compare_exchange(&self, word: Word, current: u64, new: u64) -> Result<u64, u64> {
        self.word(word).compare_exchange(current, new, Ordering::SeqCst, Relaxed)
    }

    fn fetch_or(&self, word: Word, bits: u64) {
        self.word(word).fetch_or(bits, Ordering::SeqCst);
    }

    fn fetch_and(&self, word: Word, bits: u64) {
        self.word(word).fetch_and(bits, Ordering::SeqCst);
    }

    fn fence(&self, order: Ordering) {
        fence(order);
    }

    fn barrier(&self) -> bool {
        true
    }

    fn is_reached_by_barriers(&self) -> bool {
        true
    }

    fn notify(&self, word: Word, _: Sleepers) {
        self.word(word).fetch_and(!u64::from(wake::ARMED_FUTEX), Relaxed);
    }

    fn copy_in(&self, position: u64, bytes: &[u8]) {
        if let Some(last) = bytes.len().checked_sub(1) {
            self.guard(position);
            self.guard(position.wrapping_add(last as u64 / 8 * 8));
        }
        let start = self.index(position);
        copy::copy_in(&self.area[start.min(self.area.len())..], bytes);
    }

    fn copy_out(&self, position: u64, bytes: &mut [u8]) {
        copy::copy_out(&self.area[self.index(position)..], bytes);
    }
}
