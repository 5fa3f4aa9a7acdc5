//! The words of a ring in a mapping.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::memory::{Location, Memory, Sleepers, Word};
use crate::mem::{RingSpan, copy};
use crate::os::{futex, membarrier};

impl Memory for RingSpan {
    #[inline]
    fn load(&self, word: Word, order: Ordering) -> u64 {
        match word.location() {
            Location::Control64(offset) => self.control_u64(offset).load(order),
            Location::Control32(offset) => self.control_u32(offset).load(order).into(),
            Location::Group64(offset) => self.group_u64(offset).load(order),
            Location::Group32(offset) => self.group_u32(offset).load(order).into(),
            Location::Data(position) => self.data_word(position).load(order),
        }
    }

    #[inline]
    fn store(&self, word: Word, value: u64, order: Ordering) {
        match word.location() {
            Location::Control64(offset) => self.control_u64(offset).store(value, order),
            Location::Control32(offset) => self.control_u32(offset).store(value as u32, order),
            Location::Group64(offset) => self.group_u64(offset).store(value, order),
            Location::Group32(offset) => self.group_u32(offset).store(value as u32, order),
            Location::Data(position) => self.data_word(position).store(value, order),
        }
    }

    #[inline]
    fn compare_exchange(&self, word: Word, current: u64, new: u64) -> Result<u64, u64> {
        let (success, failure) = (Ordering::SeqCst, Ordering::Relaxed);
        let long = |word: &AtomicU64| word.compare_exchange(current, new, success, failure);
        let short = |word: &AtomicU32| {
            word.compare_exchange(current as u32, new as u32, success, failure)
                .map(u64::from)
                .map_err(u64::from)
        };
        match word.location() {
            Location::Control64(offset) => long(self.control_u64(offset)),
            Location::Control32(offset) => short(self.control_u32(offset)),
            Location::Group64(offset) => long(self.group_u64(offset)),
            Location::Group32(offset) => short(self.group_u32(offset)),
            Location::Data(position) => long(self.data_word(position)),
        }
    }

    #[inline]
    fn fetch_or(&self, word: Word, bits: u64) {
        if let Some(word) = long(self, word) {
            word.fetch_or(bits, Ordering::SeqCst);
        }
    }

    #[inline]
    fn fetch_and(&self, word: Word, bits: u64) {
        if let Some(word) = long(self, word) {
            word.fetch_and(bits, Ordering::SeqCst);
        }
    }

    #[inline]
    fn fence(&self, order: Ordering) {
        fence(order);
    }

    fn barrier(&self) -> bool {
        membarrier::everywhere()
    }

    fn is_reached_by_barriers(&self) -> bool {
        membarrier::is_registered()
    }

    #[cold]
    fn notify(&self, word: Word, sleepers: Sleepers) {
        let count = match sleepers {
            Sleepers::One => 1,
            Sleepers::All => i32::MAX as u32,
        };
        match word.location() {
            Location::Control32(offset) => futex::disarm_and_wake(self.control_u32(offset), count),
            Location::Group32(offset) => futex::disarm_and_wake(self.group_u32(offset), count),
            Location::Control64(_) | Location::Group64(_) | Location::Data(_) => {}
        }
    }

    #[inline(always)]
    fn copy_in(&self, position: u64, bytes: &[u8]) {
        copy::copy_in(self.words(position, bytes.len()), bytes);
    }

    #[inline(always)]
    fn copy_out(&self, position: u64, bytes: &mut [u8]) {
        copy::copy_out(self.words(position, bytes.len()), bytes);
    }
}

/// A word of 64 bits; `None` for one of 32.
#[inline]
fn long(span: &RingSpan, word: Word) -> Option<&AtomicU64> {
    match word.location() {
        Location::Control64(offset) => Some(span.control_u64(offset)),
        Location::Group64(offset) => Some(span.group_u64(offset)),
        Location::Data(position) => Some(span.data_word(position)),
        Location::Control32(_) | Location::Group32(_) => None,
    }
}
