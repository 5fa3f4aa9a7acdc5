//! The slot of an endpoint.

use crate::table::stored;

stored! {
    "An endpoint's slot. The holder of lock byte `64 + n` owns slot `n`; everything in the slot is a \
     hint about the owner, the lock is the truth."
    pub struct Slot [256] {
        0x00 pub state: u32, "atomic: 0 FREE, 1 ATTACHING, 2 ATTACHED, 3 IN_TRANSIT, 4 DETACHING";
        0x04 pub incarnation: u32, "atomic: 1 to 0x7fffffff, then 1 again; one more at each attach, 0 before the first";
        0x08 pub pid: u32, "the owner's process id in its own namespace";
        0x0C pub liveness: u32, "robust futex word: the kernel marks it when the owner's watcher dies";
        0x10 pub start_ticks: u64, "the owner's start time (field 22 of its stat)";
        0x18 pub pid_namespace: u64, "inode of the owner's pid namespace";
        0x20 pub role: u32, "1 receiver, 2 sender";
        0x24 pub ring: u32, "index of the ring in the directory";
        0x28 pub flags: u32, "bit 0 MEMBARRIER_OK, 1 HAS_SOCKET, 2 HAS_EVENTFD, 3 FENCES_ALWAYS, 4 ROBUST_LIVENESS, 5 LOCK_BY_FD";
        0x2C pub seqlock: u32, "atomic: odd while the owner writes pid to attach_ns; odd for ever if it died there";
        0x30 pub attach_ns: u64, "wall clock at attach, Unix ns";
        0x38 pub socket_number: u64, "random part of the name at which the consumer listens for handles; 0: none; 1 to 4095: none, and the error number that says why";
        0x40 pub robust_node: [u64; 2], "robust list node; written by the owner, read by its kernel only";
        0x50 pub koid: u64, "id of the channel end on this slot, or 0";
        0x58 pub signals: u32, "atomic, of a channel's receiver: bits 24 to 31 the end's user signals, bits 0 to 23 count their changes; changed by compare-and-swap";
        0x5C pub name_seq: u32, "atomic, of a channel's receiver: odd while the owner writes name; odd for ever if it died there";
        0x60 pub name: [u8; 32], "words of 8 bytes, of a channel's receiver: the end's name, up to 31 bytes of UTF-8, zeros behind it";
        0x80 pub msgs: u64, "MPSC producer, under the ring's lock: messages sent since this attach; of other endpoints the ring's counters tell";
        0x88 pub bytes: u64, "payload bytes of them";
        0x90 pub wakes_sent: u64, "times that the owner notified a sleeper, which takes a system call";
        0x98 pub wakes_elided: u64, "times that it checked and no process slept; stored from time to time";
        0xA0 pub full_waits: u64, "sends that waited for space";
        0xA8 pub aborts: u64, "claims given up";
        0xB0 pub lock_breaks: u64, "locks taken over from a dead holder";
        0xB8 pub handles: u64, "handles sent or received";
        0xC0 pub sleeps: u64, "times that the owner slept until it was notified, or for a while";
        0xC8 pub woken_by_death: u64, "of those, ended because the other side's process died";
        0xD0 pub attaches: u64, "how often an owner has attached, this one included; counted by the owner";
        0xD8 reserved_d8: [u8; 40], "zero";
    }
}

/// Values of `Slot::state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SlotState {
    /// Without an owner.
    Free = 0,
    /// Its owner is filling it in.
    Attaching = 1,
    /// In use.
    Attached = 2,
    /// On its way to another process inside a message.
    InTransit = 3,
    /// Its owner is leaving.
    Detaching = 4,
}

impl SlotState {
    /// The state stored as `word`.
    #[must_use]
    pub fn from_word(word: u32) -> Option<Self> {
        [Self::Free, Self::Attaching, Self::Attached, Self::InTransit, Self::Detaching]
            .into_iter()
            .find(|state| *state as u32 == word)
    }
}

/// Values of `Slot::role`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Role {
    /// Takes messages.
    Receiver = 1,
    /// Gives messages.
    Sender = 2,
}

impl Role {
    /// The role stored as `word`.
    #[must_use]
    pub fn from_word(word: u32) -> Option<Self> {
        [Self::Receiver, Self::Sender].into_iter().find(|role| *role as u32 == word)
    }
}

/// Bits of `Slot::flags`.
pub mod slot_flags {
    /// The owner is registered for membarrier.
    pub const MEMBARRIER_OK: u32 = 1 << 0;
    /// The owner listens for handles, or has connected to send some.
    pub const HAS_SOCKET: u32 = 1 << 1;
    /// The owner has handed out an eventfd.
    pub const HAS_EVENTFD: u32 = 1 << 2;
    /// The owner fences after every publish.
    pub const FENCES_ALWAYS: u32 = 1 << 3;
    /// `Slot::liveness` is on the owner's robust list.
    pub const ROBUST_LIVENESS: u32 = 1 << 4;
    /// The owner holds its lock byte by an open descriptor, not by a mapping.
    pub const LOCK_BY_FD: u32 = 1 << 5;
}

/// Parts of `Slot::signals`.
pub mod end_signals {
    /// The user signals, where Zircon has their bits.
    pub const USER: u32 = 0xff << 24;
    /// Counts changes.
    pub const COUNT: u32 = !USER;

    /// The word behind `word` if `clear` is taken from its user signals and then `set` added; the same if that changes
    /// nothing.
    ///
    /// # Examples
    /// ```
    /// use tombolo_abi::end_signals::changed;
    /// assert_eq!(changed(0x0100_0007, 1 << 24, 1 << 31), 0x8000_0008);
    /// assert_eq!(changed(0x01ff_ffff, 0, 1 << 25), 0x0300_0000, "the count wraps");
    /// assert_eq!(changed(0x0100_0007, 0xff, 1 << 24), 0x0100_0007);
    /// ```
    #[must_use]
    pub const fn changed(word: u32, clear: u32, set: u32) -> u32 {
        let user = (word & !clear | set) & USER;
        if user == word & USER { word } else { user | word.wrapping_add(1) & COUNT }
    }
}

/// The most bytes of `Slot::name` that are the name.
pub const NAME_LEN_MAX: usize = 31;

/// The bytes of a stored name: up to the first zero. They are UTF-8 if its writer was honest.
///
/// # Examples
/// ```
/// let mut name = [0; 32];
/// name[..5].copy_from_slice(b"a\xffb\0c");
/// assert_eq!(tombolo_abi::name_bytes(&name), b"a\xffb");
/// assert_eq!(tombolo_abi::name_bytes(&[b'x'; 32]), [b'x'; 31]);
/// ```
#[must_use]
pub fn name_bytes(name: &[u8; 32]) -> &[u8] {
    let name = name.get(..NAME_LEN_MAX).unwrap_or(name);
    name.split(|byte| *byte == 0).next().unwrap_or(name)
}

/// The largest incarnation.
const INCARNATION_MAX: u32 = 0x7fff_ffff;

/// The incarnation after `incarnation`: 31 bits, never 0.
///
/// # Examples
/// ```
/// assert_eq!(tombolo_abi::next_incarnation(0), 1);
/// assert_eq!(tombolo_abi::next_incarnation(0x7fff_ffff), 1);
/// ```
#[must_use]
pub fn next_incarnation(incarnation: u32) -> u32 {
    if incarnation >= INCARNATION_MAX { 1 } else { incarnation + 1 }
}
