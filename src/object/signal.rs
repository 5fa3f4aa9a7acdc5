//! What an object shows of its state: a set of bits.

use std::ops::{BitAndAssign, BitXor, BitXorAssign, Not, SubAssign};

use crate::bit_set::bit_set;

/// What an object shows of its state, to be waited for.
///
/// | signal | of a [`Channel`](crate::Channel) |
/// |---|---|
/// | `READABLE` | there is a message to read |
/// | `WRITABLE` | the other end is open, and no write was refused for want of space that is still missing |
/// | `PEER_CLOSED` | the other end is closed |
/// | `USER_0` to `USER_7` | what programs agree on; set and cleared by either end |
/// | `HANDLE_CLOSED` | this end was closed or released |
///
/// # Source
/// Zircon's signals, with its names and bits, as far as zCore's objects have them; `USER_0` is `ZX_USER_SIGNAL_0`.
///
/// # Examples
/// ```
/// use tombolo::Signal;
/// let seen = Signal::READABLE | Signal::USER_7;
/// assert!(seen.intersects(Signal::READABLE | Signal::PEER_CLOSED));
/// assert_eq!((seen - Signal::READABLE).bits(), 1 << 31);
/// assert_eq!(format!("{seen:?}"), "Signal(READABLE | USER_7)");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Signal(u32);

bit_set! { Signal {
    /// There is something to read.
    #[doc(alias("ZX_CHANNEL_READABLE", "OBJECT_READABLE"))]
    READABLE = 0;
    /// Writing makes sense.
    #[doc(alias("ZX_CHANNEL_WRITABLE", "OBJECT_WRITABLE"))]
    WRITABLE = 1;
    /// The other end is closed.
    #[doc(alias("ZX_CHANNEL_PEER_CLOSED", "OBJECT_PEER_CLOSED"))]
    PEER_CLOSED = 2;
    /// It has been signaled. Not of channels.
    #[doc(alias("ZX_EVENT_SIGNALED", "OBJECT_SIGNALED"))]
    SIGNALED = 3;
    /// The handle that is waited at was closed or moved.
    #[doc(alias("ZX_SIGNAL_HANDLE_CLOSED", "OBJECT_HANDLE_CLOSED"))]
    HANDLE_CLOSED = 23;
    /// For programs to agree on.
    #[doc(alias("USER_SIGNAL_0", "ZX_USER_SIGNAL_0"))]
    USER_0 = 24;
    /// For programs to agree on.
    #[doc(alias("USER_SIGNAL_1", "ZX_USER_SIGNAL_1"))]
    USER_1 = 25;
    /// For programs to agree on.
    #[doc(alias("USER_SIGNAL_2", "ZX_USER_SIGNAL_2"))]
    USER_2 = 26;
    /// For programs to agree on.
    #[doc(alias("USER_SIGNAL_3", "ZX_USER_SIGNAL_3"))]
    USER_3 = 27;
    /// For programs to agree on.
    #[doc(alias("USER_SIGNAL_4", "ZX_USER_SIGNAL_4"))]
    USER_4 = 28;
    /// For programs to agree on.
    #[doc(alias("USER_SIGNAL_5", "ZX_USER_SIGNAL_5"))]
    USER_5 = 29;
    /// For programs to agree on.
    #[doc(alias("USER_SIGNAL_6", "ZX_USER_SIGNAL_6"))]
    USER_6 = 30;
    /// For programs to agree on.
    #[doc(alias("USER_SIGNAL_7", "ZX_USER_SIGNAL_7"))]
    USER_7 = 31;
} }

impl Signal {
    /// All that programs agree on among themselves.
    #[doc(alias("USER_SIGNAL_ALL", "ZX_USER_SIGNAL_ALL"))]
    pub const USER_ALL: Self = Self(0xff << 24);

    /// All signals that have a name here.
    #[must_use]
    pub const fn all() -> Self {
        Self::NAMED
    }

    /// Those of these bits that have a name here.
    #[must_use]
    pub const fn from_bits_truncate(bits: u32) -> Self {
        Self(bits & Self::all().0)
    }

    /// Those of programs in the word of a slot, of which the rest counts changes.
    pub(super) const fn of_slot(word: u32) -> Self {
        Self(word & Self::USER_ALL.0)
    }

    /// Whether any of `others` is among these.
    #[must_use]
    pub const fn intersects(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }
}

impl BitAndAssign for Signal {
    fn bitand_assign(&mut self, others: Self) {
        *self = *self & others;
    }
}

impl BitXor for Signal {
    type Output = Self;

    fn bitxor(self, others: Self) -> Self {
        Self(self.0 ^ others.0)
    }
}

impl BitXorAssign for Signal {
    fn bitxor_assign(&mut self, others: Self) {
        *self = *self ^ others;
    }
}

impl SubAssign for Signal {
    fn sub_assign(&mut self, others: Self) {
        *self = *self - others;
    }
}

/// All that have a name here, without these.
impl Not for Signal {
    type Output = Self;

    fn not(self) -> Self {
        Self::all() - self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_signals_have_names_and_no_other_bit_is_one() {
        let named = Signal::NAMES.iter().fold(Signal::empty(), |all, (_, one)| all | *one);
        assert_eq!(named, Signal::all());
        let bits = (0..32).filter(|bit| Signal::from_bits(1 << bit).is_some()).count();
        assert_eq!((bits, Signal::NAMES.len()), (13, 13));
        assert_eq!(Signal::from_bits_truncate(u32::MAX), Signal::all());
        assert_eq!(Signal::from_bits(u32::MAX), None);
        assert_eq!(Signal::USER_0 | (!Signal::USER_0 & Signal::USER_ALL), Signal::USER_ALL);
    }

    #[test]
    fn sets_are_added_taken_away_turned_round_and_compared() {
        let (read, peer) = (Signal::READABLE, Signal::PEER_CLOSED);
        let mut both = read;
        both |= peer;
        assert!(both.contains(read) && both.intersects(peer) && !read.contains(both));
        assert!(!read.intersects(peer) && !read.intersects(Signal::empty()));
        both ^= read | Signal::WRITABLE;
        assert_eq!(both, peer | Signal::WRITABLE);
        both &= Signal::WRITABLE;
        assert_eq!((both, !both & Signal::WRITABLE), (Signal::WRITABLE, Signal::empty()));
        both -= Signal::WRITABLE;
        assert!(both.is_empty() && both == Signal::default());
        assert_eq!(!Signal::all(), Signal::empty());
        assert_eq!(Signal::empty().to_string(), "none");
    }
}
