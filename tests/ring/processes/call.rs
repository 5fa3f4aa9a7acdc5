//! What processes ask for beside the words of a ring.

use super::super::super::Word;
use super::bridge::Crossing;
use super::memory::LANES;

/// Asked of the kernel or of the slot table, or of the search itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) enum Call {
    /// Loads a slot's incarnation, Acquire.
    Incarnation(u16),
    /// Stores it, Release.
    SetIncarnation(u16, u32),
    /// Takes a slot's lock byte as soon as it is free.
    TakeByte(u16),
    /// Takes a slot's lock byte if it is free: 1, else 0.
    TryByte(u16),
    /// Gives it back.
    DropByte(u16),
    /// Looks whether somebody holds a slot's lock byte: 1, else 0.
    Probe(u16),
    /// Sleeps on a word while it is what is expected: 0 where it is not, [`WOKEN`], [`TIMED_OUT`].
    Wait(Word, u32, Ends),
    /// Loads how many deaths the process has seen.
    Epoch,
    /// Anything below this number.
    Choose(u64),
    /// Polls until the lock word is another, or its holder no longer looks alive.
    UntilLock(u64),
    /// Polls until something may lie at this position.
    UntilRecord(u64),
    /// Polls until something may lie at the heads of the active lanes, given as bits, or in the summary
    /// of others, or until more have died.
    UntilLanes { heads: [u64; LANES], active: u8, epoch: u64 },
    /// Polls until so much may be free behind a tail.
    UntilRoom(u64, u64),
    /// Of what an end and the thread that sleeps in its place share.
    Bridge(Crossing),
}

/// How a sleep ends but by being woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) enum Ends {
    Never,
    /// After a time in which everything that was stored before it arrives.
    Soon,
    /// Whenever it likes.
    Whenever,
}

/// Ended by a notification.
pub(super) const WOKEN: u64 = 1;
/// Ended by itself.
pub(super) const TIMED_OUT: u64 = 2;
