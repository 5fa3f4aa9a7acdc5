//! The one trait between the algorithms and the words that they share.

use std::sync::atomic::Ordering;

use tombolo_abi::RingControl;

/// Words of a group's summary.
const SUMMARY_WORDS: usize = 8;

/// A shared word of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Word {
    /// `lock`: whoever holds it, see [`super::mpsc`].
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
    /// `state`, 32 bits: stored by whoever finds damage.
    State,
    /// `reason`, 32 bits: stored with it.
    Reason,
    /// A word of `summary`: changed by producers and by the consumer, see [`super::summary`].
    Summary(u8),
    /// The word of the data area at a position.
    Data(u64),
}

/// Where in a control block a word lies, and how wide it is.
pub(crate) enum Location {
    /// 64 bits at this offset of the control block.
    Control64(usize),
    /// 32 bits at this offset of the control block.
    Control32(usize),
    /// 64 bits at this offset of the control block of the group's first lane; of the ring's own where
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

/// Whom to wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sleepers {
    /// The one that can be there.
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

    /// Replaces `current` by `new`, SeqCst where it succeeds, Relaxed where it doesn't, and gives
    /// what was found.
    fn compare_exchange(&self, word: Word, current: u64, new: u64) -> Result<u64, u64>;

    /// Sets bits of a 64-bit word, SeqCst.
    fn fetch_or(&self, word: Word, bits: u64);

    /// Keeps only these bits of a 64-bit word, SeqCst.
    fn fetch_and(&self, word: Word, bits: u64);

    /// A fence between the accesses before it and those after it.
    fn fence(&self, order: Ordering);

    /// Makes every process that relies on barriers execute a fence, wherever it is; `false` where
    /// the kernel did not.
    fn barrier(&self) -> bool;

    /// Whether [`Self::barrier`], called by anybody from now on, reaches this process.
    fn is_reached_by_barriers(&self) -> bool;

    /// Clears `ARMED_FUTEX` in a wake word and wakes who sleeps on it, in one step that cannot be
    /// cut in two.
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
