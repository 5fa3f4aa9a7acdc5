//! A ring's control block, its lock word and its wake words.

use crate::table::stored;

stored! {
    "A ring's control block. Each group of words that one side writes has 128 bytes of its own."
    pub struct RingControl [1024] {
        0x000 pub lock: u64, "MPSC, atomic: 0 free, else bit 63 LOCKED, bits 32 to 62 the holder's incarnation, bits 16 to 31 zero, bits 0 to 15 its slot";
        0x008 pub tail: u64, "producer: position after the last record; may lag by one record, or by one batch";
        0x010 reserved_010: u64, "zero";
        0x018 pub head_cache: u64, "MPSC producers, under the lock: head as last seen";
        0x020 pub sent_msgs: u64, "producer: messages published";
        0x028 pub sent_bytes: u64, "producer: payload bytes published";
        0x030 pub full_events: u64, "producer: times that a send found no space";
        0x038 pub lock_breaks: u64, "MPSC producers, under the lock: locks taken over from a dead holder";
        0x040 pub handles_sent: u64, "producer: handles sent";
        0x048 pub close: u64, "producer, of a channel, stored before it detaches: 0 no reason, else bit 63, bits 32 to 39 bytes of close_text, bits 0 to 31 its user's code";
        0x050 pub close_text: [u8; 112], "producer, of a channel, before close: why it closed, UTF-8";
        0x0c0 reserved_0c0: [u8; 64], "zero";
        0x100 pub head: u64, "consumer: position of the first record not yet freed; stored once a message, or once for a run of them";
        0x108 pub received_msgs: u64, "consumer: messages freed";
        0x110 pub received_bytes: u64, "consumer: payload bytes of them";
        0x118 pub sleeps: u64, "consumer: times that it slept";
        0x120 pub spurious: u64, "consumer: wake-ups that found nothing";
        0x128 pub handles_taken: u64, "consumer: handles taken";
        0x130 pub consumer_id: u64, "consumer: its incarnation << 32 | its slot; stored before it first arms";
        0x138 pub skipped: u64, "consumer: records of kinds it doesn't know, passed over";
        0x140 pub calls: u64, "consumer, of a channel: calls that wait for a reply on this ring";
        0x148 reserved_148: [u8; 184], "zero";
        0x200 pub rx_wake: u32, "atomic, futex: the consumer's wake word";
        0x204 reserved_204: [u8; 124], "zero";
        0x280 pub tx_wake: u32, "atomic, futex: the blocked producers' wake word";
        0x284 reserved_284: [u8; 124], "zero";
        0x300 pub state: u32, "atomic: 0 OPEN, 1 TX_CLOSED, 2 RX_CLOSED, 3 POISONED; left once, never returned to";
        0x304 pub reason: u32, "with POISONED: why";
        0x308 reserved_308: [u8; 120], "zero";
        0x380 pub summary: [u64; 8], "LANE, atomic, in the first lane of a group: one bit for each lane with something in it";
        0x3C0 reserved_3c0: [u8; 64], "zero";
    }
}

/// Values of `RingControl::state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RingState {
    /// In use.
    Open = 0,
    /// The sending side has closed for good (channels and sessions only).
    TxClosed = 1,
    /// The receiving side has closed for good (channels and sessions only).
    RxClosed = 2,
    /// Damaged: no process sends or receives any more.
    Poisoned = 3,
}

impl RingState {
    /// The state stored as `word`.
    #[must_use]
    pub fn from_word(word: u32) -> Option<Self> {
        [Self::Open, Self::TxClosed, Self::RxClosed, Self::Poisoned]
            .into_iter()
            .find(|state| *state as u32 == word)
    }
}

/// The holder of an MPSC ring's lock, as stored in the lock word.
///
/// # Examples
/// ```
/// use tombolo_abi::LockWord;
/// let holder = LockWord { slot: 3, incarnation: 7 };
/// assert_eq!(LockWord::from_word(holder.to_word()), Some(holder));
/// assert_eq!(LockWord::from_word(LockWord::FREE), None);
/// assert_eq!(LockWord::from_word(1), None); // but not free either: damaged
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockWord {
    /// The holder's slot.
    pub slot: u16,
    /// The holder's incarnation, 31 bits.
    pub incarnation: u32,
}

impl LockWord {
    /// The lock word without a holder.
    pub const FREE: u64 = 0;
    const LOCKED: u64 = 1 << 63;
    const RESERVED: u64 = 0xffff_0000;

    /// The lock word that this holder stores.
    #[must_use]
    #[inline]
    pub const fn to_word(self) -> u64 {
        Self::LOCKED | ((self.incarnation as u64 & 0x7fff_ffff) << 32) | self.slot as u64
    }

    /// The holder named by `word`, or `None` if it names none: [`LockWord::FREE`], or a word
    /// that no honest producer stores. The latter can never be taken, so it is damage.
    #[must_use]
    pub const fn from_word(word: u64) -> Option<Self> {
        if word & Self::LOCKED == 0 || word & Self::RESERVED != 0 {
            return None;
        }
        Some(Self { slot: word as u16, incarnation: (word >> 32) as u32 & 0x7fff_ffff })
    }
}

/// Why an end of a channel was closed, as stored in `RingControl::close`.
///
/// # Examples
/// ```
/// use tombolo_abi::CloseWord;
/// let word = CloseWord { code: 7, text_len: 12 };
/// assert_eq!(CloseWord::from_word(word.to_word()), Some(word));
/// assert_eq!(CloseWord::from_word(0), None);
/// // Whatever stands there, the text ends with its bytes.
/// assert_eq!(CloseWord::from_word(u64::MAX).unwrap().text_len, 112);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseWord {
    /// Its user's code.
    pub code: u32,
    /// Bytes of `RingControl::close_text` that are the text.
    pub text_len: u8,
}

impl CloseWord {
    /// The most bytes of a text.
    pub const TEXT_MAX: u8 = 112;
    const IS_THERE: u64 = 1 << 63;

    /// The word that the end which closes stores.
    #[must_use]
    pub const fn to_word(self) -> u64 {
        Self::IS_THERE | (self.text_len as u64) << 32 | self.code as u64
    }

    /// The reason in `word`, or `None` if none was given.
    #[must_use]
    pub const fn from_word(word: u64) -> Option<Self> {
        if word & Self::IS_THERE == 0 {
            return None;
        }
        let text_len = (word >> 32) as u8;
        let text_len = if text_len > Self::TEXT_MAX { Self::TEXT_MAX } else { text_len };
        Some(Self { code: word as u32, text_len })
    }
}

/// Bits of the wake words.
pub mod wake {
    /// A process sleeps on the word's futex.
    pub const ARMED_FUTEX: u32 = 1 << 0;
    /// The other side must fence between publishing and reading this word.
    pub const FENCE_REQ: u32 = 1 << 1;
    /// A process waits for an eventfd.
    pub const ARMED_FD: u32 = 1 << 2;
    /// The eventfd has been written.
    pub const NOTIFIED: u32 = 1 << 3;
    /// All flags.
    pub const FLAGS: u32 = 0xf;
    /// One arming, in the count that distinguishes one arming from the next.
    pub const COUNT_ONE: u32 = 1 << 8;
}
