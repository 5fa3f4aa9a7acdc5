//! The words of a ring and their places, and the trait through which the algorithms reach them.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use tombolo_abi::{RecordRules, RingControl, RingEntry, RingState};

use crate::error::Damage;
use crate::mem::{RingSpan, copy};
use crate::os::{futex, membarrier};

/// Words of a group's summary.
const SUMMARY_WORDS: usize = 8;

/// A shared word of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Word {
    /// `lock`: of its holder, see [`super::mpsc`].
    Lock,
    /// `tail`: the producer's.
    Tail,
    /// `head_cache`: of an MPSC ring, under the lock.
    HeadCache,
    /// `sent_msgs`: the producer's.
    SentMsgs,
    /// `sent_bytes`: the producer's.
    SentBytes,
    /// `full_events`: the producer's.
    FullEvents,
    /// `lock_breaks`: of an MPSC ring, under the lock.
    LockBreaks,
    /// `handles_sent`: the producer's.
    HandlesSent,
    /// `head`: the consumer's.
    Head,
    /// `received_msgs`: the consumer's.
    ReceivedMsgs,
    /// `received_bytes`: the consumer's.
    ReceivedBytes,
    /// `handles_taken`: the consumer's.
    HandlesTaken,
    /// `skipped`: the consumer's.
    Skipped,
    /// `consumer_id`: the consumer's.
    ConsumerId,
    /// `rx_wake`, 32 bits: the consumer's, see [`super::doorbell`].
    RxWake,
    /// `tx_wake`, 32 bits: the blocked producers', see [`super::doorbell`].
    TxWake,
    /// `state`, 32 bits: stored by the process that finds damage.
    State,
    /// `reason`, 32 bits: stored with it.
    Reason,
    /// A word of `summary`: changed by producers and by the consumer, see [`super::summary`].
    Summary(u8),
    /// The word of the data area at a position.
    Data(u64),
}

/// A word's place and width.
pub(crate) enum Location {
    /// 64 bits at this offset of the control block.
    Control64(usize),
    /// 32 bits at this offset of the control block.
    Control32(usize),
    /// 64 bits at this offset of the control block of the group's first lane; of the ring's own if
    /// it is no lane.
    Group64(usize),
    /// 32 bits there.
    Group32(usize),
    /// 64 bits of the data area, at this position.
    Data(u64),
}

impl Word {
    #[inline]
    pub(crate) const fn location(self) -> Location {
        use std::mem::offset_of;
        match self {
            Self::Lock => Location::Control64(offset_of!(RingControl, lock)),
            Self::Tail => Location::Control64(offset_of!(RingControl, tail)),
            Self::HeadCache => Location::Control64(offset_of!(RingControl, head_cache)),
            Self::SentMsgs => Location::Control64(offset_of!(RingControl, sent_msgs)),
            Self::SentBytes => Location::Control64(offset_of!(RingControl, sent_bytes)),
            Self::FullEvents => Location::Control64(offset_of!(RingControl, full_events)),
            Self::HandlesSent => Location::Control64(offset_of!(RingControl, handles_sent)),
            Self::HandlesTaken => Location::Control64(offset_of!(RingControl, handles_taken)),
            Self::Head => Location::Control64(offset_of!(RingControl, head)),
            Self::ReceivedMsgs => Location::Control64(offset_of!(RingControl, received_msgs)),
            Self::ReceivedBytes => Location::Control64(offset_of!(RingControl, received_bytes)),
            Self::Skipped => Location::Control64(offset_of!(RingControl, skipped)),
            Self::LockBreaks => Location::Control64(offset_of!(RingControl, lock_breaks)),
            Self::ConsumerId => Location::Group64(offset_of!(RingControl, consumer_id)),
            Self::RxWake => Location::Group32(offset_of!(RingControl, rx_wake)),
            Self::TxWake => Location::Control32(offset_of!(RingControl, tx_wake)),
            Self::State => Location::Group32(offset_of!(RingControl, state)),
            Self::Reason => Location::Group32(offset_of!(RingControl, reason)),
            Self::Summary(word) => {
                let offset = offset_of!(RingControl, summary) + 8 * (word as usize % SUMMARY_WORDS);
                Location::Group64(offset)
            }
            Self::Data(position) => Location::Data(position),
        }
    }
}

/// Which sleepers to wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sleepers {
    /// The only one that there can be.
    One,
    /// All of them.
    All,
}

/// The shared words of a ring and copies of payload, as the algorithms use them.
pub(crate) trait Memory {
    /// Loads a word; 32-bit words are zero-extended.
    fn load(&self, word: Word, order: Ordering) -> u64;

    /// Stores a word; 32-bit words take the low half.
    fn store(&self, word: Word, value: u64, order: Ordering);

    /// Replaces `current` by `new`, SeqCst if it succeeds, Relaxed if it doesn't, and returns
    /// what was found.
    fn compare_exchange(&self, word: Word, current: u64, new: u64) -> Result<u64, u64>;

    /// Sets bits of a 64-bit word, SeqCst.
    fn fetch_or(&self, word: Word, bits: u64);

    /// Keeps only these bits of a 64-bit word, SeqCst.
    fn fetch_and(&self, word: Word, bits: u64);

    /// A fence between the accesses before it and those after it.
    fn fence(&self, order: Ordering);

    /// Makes every process that relies on barriers execute a fence; `false` if the kernel did not.
    fn barrier(&self) -> bool;

    /// Whether every later [`Self::barrier`] of any process reaches this one.
    fn is_reached_by_barriers(&self) -> bool;

    /// Clears `ARMED_FUTEX` in a wake word and wakes its sleepers, in one system call: a process that is
    /// killed has done both or neither.
    fn notify(&self, word: Word, sleepers: Sleepers);

    /// Copies `bytes` to `position`, a multiple of 8, and zeros to the end of the last word. The
    /// range does not wrap.
    fn copy_in(&self, position: u64, bytes: &[u8]) {
        for (index, chunk) in (0u64..).zip(bytes.chunks(8)) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let position = position.wrapping_add(index * 8);
            self.store(Word::Data(position), u64::from_le_bytes(word), Ordering::Relaxed);
        }
    }

    /// Copies from `position`, a multiple of 8, to `bytes`. The range does not wrap.
    fn copy_out(&self, position: u64, bytes: &mut [u8]) {
        for (index, chunk) in (0u64..).zip(bytes.chunks_mut(8)) {
            let position = position.wrapping_add(index * 8);
            let word = self.load(Word::Data(position), Ordering::Relaxed).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

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

/// A ring: its memory, and the part of its directory entry that the algorithms need, from the
/// private copy made at attach.
#[derive(Clone, Debug)]
pub(crate) struct Ring<M> {
    /// The shared words.
    pub(crate) memory: M,
    /// What records may be.
    pub(crate) rules: RecordRules,
}

impl<M: Memory> Ring<M> {
    pub(crate) fn new(memory: M, entry: &RingEntry, key: u64) -> Self {
        Self { memory, rules: RecordRules::of(entry, key) }
    }

    /// Whether the ring is not marked as poisoned. One load of a line that no process writes.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.memory.load(Word::State, Acquire) != RingState::Poisoned as u64
    }

    /// Fails if the ring is marked as poisoned.
    pub(crate) fn check_open(&self) -> Result<(), Damage> {
        if self.is_open() { Ok(()) } else { Err(self.marked()) }
    }

    #[cold]
    fn marked(&self) -> Damage {
        let code = self.memory.load(Word::Reason, Relaxed);
        Damage::Marked { code: code as u32 }
    }

    /// Marks the ring as poisoned for all processes and wakes all sleepers. Keeps an earlier mark's reason.
    #[cold]
    pub(crate) fn poison(&self, damage: Damage) {
        if self.check_open().is_ok() {
            self.memory.store(Word::Reason, damage.code().into(), Relaxed);
            self.memory.store(Word::State, RingState::Poisoned as u64, Release);
            // Edge `poison`: `state`, wake words. A sleeper that checks the mark behind its arming sees it,
            // or else is armed and is woken here.
            self.memory.fence(SeqCst);
            for doorbell in [Word::RxWake, Word::TxWake] {
                self.memory.notify(doorbell, Sleepers::All);
            }
        }
    }

    /// Adds to a counter of the calling side: its own, or under the lock (edge `lock`).
    #[inline]
    pub(super) fn add(&self, counter: Word, amount: u64) {
        let before = self.memory.load(counter, Relaxed);
        self.memory.store(counter, before.wrapping_add(amount), Relaxed);
    }

    /// Bytes to free between two checks for blocked producers.
    #[inline]
    pub(crate) fn freed_step(&self) -> u64 {
        self.rules.capacity / 8
    }

    pub(super) fn is_aligned(&self, position: u64) -> bool {
        position & (self.rules.align - 1) == 0
    }
}
