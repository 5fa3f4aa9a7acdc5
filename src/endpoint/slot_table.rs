//! What the slot table and the lock bytes say about endpoints, whoever asks.

use std::mem::offset_of;
use std::ops::Range;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use tombolo_abi::{LOCK_SLOTS, LockWord, Slot, SlotState};

use crate::Error;
use crate::os::ofd;
use crate::region::Region;

/// The process id that `owner` wrote, 0 where its slot has moved on to somebody else.
pub(super) fn pid_of_owner(region: &Region, owner: LockWord) -> u32 {
    let pid = pid_of(region, owner.slot);
    let incarnation = slot_u32(region, owner.slot, offset_of!(Slot, incarnation)).load(Acquire);
    if incarnation == owner.incarnation { pid } else { 0 }
}

/// The process id that the owner of `slot` wrote, 0 where there is none.
pub(super) fn pid_of(region: &Region, slot: u16) -> u32 {
    let state = slot_u32(region, slot, offset_of!(Slot, state)).load(Acquire);
    if state == SlotState::Free as u32 {
        return 0;
    }
    slot_u32(region, slot, offset_of!(Slot, pid)).load(Relaxed)
}

/// The sum of the incarnations of `slots`: differs whenever one of them got a new owner.
pub(super) fn incarnations(region: &Region, slots: Range<u16>) -> u64 {
    slots
        .map(|slot| slot_u32(region, slot, offset_of!(Slot, incarnation)).load(Acquire))
        .fold(0, |sum, incarnation| sum.wrapping_add(incarnation.into()))
}

/// Whether anybody, this process included, holds a byte of `slots`.
pub(super) fn byte_is_held(region: &Region, slots: Range<u16>) -> Result<bool, Error> {
    ofd::is_locked(region.plain(), byte(slots))
        .map_err(|source| region.io_error("look at the locks of", source))
}

/// The lock bytes of `slots`.
pub(super) fn byte(slots: Range<u16>) -> Range<u64> {
    LOCK_SLOTS + u64::from(slots.start)..LOCK_SLOTS + u64::from(slots.end)
}

/// The 32-bit word at `offset` bytes of `slot`.
pub(super) fn slot_u32(region: &Region, slot: u16, offset: usize) -> &AtomicU32 {
    region.mapping().word_u32(slot_offset(region, slot, offset))
}

/// Where the byte at `offset` of `slot` lies in the region.
pub(super) fn slot_offset(region: &Region, slot: u16, offset: usize) -> u64 {
    let header = region.header();
    header.slot_offset + u64::from(slot) * u64::from(header.slot_len) + offset as u64
}
