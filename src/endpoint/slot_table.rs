//! What the slot table and the lock bytes say about endpoints.

use std::mem::offset_of;
use std::ops::Range;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use tombolo_abi::{LOCK_SLOTS, LockWord, Slot, SlotState};

use crate::error::Error;
use crate::os::ofd;
use crate::os::process::pid_here;
use crate::region::Region;

/// As [`pid_of`], 0 also if the slot has moved on from `owner`.
pub(crate) fn pid_of_owner(region: &Region, owner: LockWord) -> u32 {
    let pid = pid_of(region, owner.slot);
    let incarnation = slot_u32(region, owner.slot, offset_of!(Slot, incarnation)).load(Acquire);
    if incarnation == owner.incarnation { pid } else { 0 }
}

/// The process id of the owner of `slot`, 0 if there is none or it means nothing in this pid namespace.
pub(crate) fn pid_of(region: &Region, slot: u16) -> u32 {
    let state = slot_u32(region, slot, offset_of!(Slot, state)).load(Acquire);
    if state == SlotState::Free as u32 {
        return 0;
    }
    let pid = slot_u32(region, slot, offset_of!(Slot, pid)).load(Relaxed);
    let namespace = slot_offset(region, slot, offset_of!(Slot, pid_namespace));
    pid_here(pid, region.mapping().word_u64(namespace).load(Relaxed))
}

/// The sum of the incarnations of `slots`: differs whenever one of them got a new owner.
pub(crate) fn incarnations(region: &Region, slots: Range<u16>) -> u64 {
    slots
        .map(|slot| slot_u32(region, slot, offset_of!(Slot, incarnation)).load(Acquire))
        .fold(0, |sum, incarnation| sum.wrapping_add(incarnation.into()))
}

/// How often an endpoint was attached in `slots`, in the region's life.
pub(crate) fn attaches(region: &Region, slots: Range<u16>) -> u64 {
    let counts = slots.map(|slot| {
        let offset = slot_offset(region, slot, offset_of!(Slot, attaches));
        region.mapping().word_u64(offset).load(Acquire)
    });
    counts.fold(0, u64::wrapping_add)
}

/// How many bytes of `slots` are held. Asks only about halves in which one is.
pub(crate) fn count_held(region: &Region, slots: Range<u16>) -> Result<usize, Error> {
    if slots.is_empty() || !byte_is_held(region, slots.clone())? {
        return Ok(0);
    }
    if slots.len() == 1 {
        return Ok(1);
    }
    let middle = slots.start + slots.len() as u16 / 2;
    Ok(count_held(region, slots.start..middle)? + count_held(region, middle..slots.end)?)
}

/// Whether a process, be it this one, holds a byte of `slots`.
pub(crate) fn byte_is_held(region: &Region, slots: Range<u16>) -> Result<bool, Error> {
    ofd::is_locked(region.plain(), byte(slots))
        .map_err(|source| region.io_error("look at the locks of", source))
}

/// Whether the kernel shows `owner`, an endpoint of this process, as what it is: its byte held, the
/// descriptor asked certainly the region's, and no later owner in the slot.
///
/// That another byte is free is believed only if this is true before and after: a descriptor that was
/// closed and its number used again would answer for another file.
pub(crate) fn is_seen_as(region: &Region, owner: LockWord) -> Result<bool, Error> {
    first_unseen(region, [owner]).map(|unseen| unseen.is_none())
}

/// The first of `owners`, endpoints of this process, of which [`is_seen_as`] is not true.
pub(crate) fn first_unseen(
    region: &Region,
    owners: impl IntoIterator<Item = LockWord>,
) -> Result<Option<LockWord>, Error> {
    let mut is_plain_ours = None; // of all, if it is of the first
    for owner in owners {
        let incarnation = slot_u32(region, owner.slot, offset_of!(Slot, incarnation)).load(Acquire);
        let is_seen = incarnation == owner.incarnation
            && *is_plain_ours.get_or_insert_with(|| region.check_plain_is_ours())
            && byte_is_held(region, owner.slot..owner.slot + 1)?;
        if !is_seen {
            return Ok(Some(owner));
        }
    }
    Ok(None)
}

/// The lock bytes of `slots`.
pub(crate) fn byte(slots: Range<u16>) -> Range<u64> {
    LOCK_SLOTS + u64::from(slots.start)..LOCK_SLOTS + u64::from(slots.end)
}

/// The 32-bit word at `offset` bytes of `slot`.
pub(crate) fn slot_u32(region: &Region, slot: u16, offset: usize) -> &AtomicU32 {
    region.mapping().word_u32(slot_offset(region, slot, offset))
}

/// The offset in the region of the byte at `offset` of `slot`.
pub(crate) fn slot_offset(region: &Region, slot: u16, offset: usize) -> u64 {
    let header = region.header();
    header.slot_offset + u64::from(slot) * u64::from(header.slot_len) + offset as u64
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use tombolo_abi::SlotState;

    use super::*;
    use crate::endpoint::slot::tests::{own, region, try_own, word};
    use crate::os::staged::usurp;
    use crate::{EventsRegion, OpenOptions};

    #[test]
    fn a_slot_tells_of_the_owner_that_it_has_and_of_no_other() {
        let mut region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let (mut tx, _) = region.split_spsc().unwrap();
        tx.attach().unwrap();
        let region = region.shared().clone();
        let incarnation = slot_u32(&region, 1, offset_of!(Slot, incarnation)).load(Relaxed);
        let owner = LockWord { slot: 1, incarnation };
        let earlier = LockWord { slot: 1, incarnation: incarnation - 1 };
        let own = std::process::id();
        assert_eq!([owner, earlier].map(|one| pid_of_owner(&region, one)), [own, 0]);
        assert_eq!(pid_of(&region, 1), own);
        let is_seen = |one| is_seen_as(&region, one).unwrap();
        assert_eq!([owner, earlier].map(is_seen), [true, false]);
        drop(tx);
        assert_eq!((pid_of(&region, 1), is_seen(owner)), (0, false));
    }

    #[test]
    fn owners_are_counted_among_the_slots_that_are_asked_about() {
        let mut region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let region_too = region.shared().clone();
        let counts =
            || [0..0, 0..1, 1..2, 0..2, 0..67, 2..67].map(|slots| count(&region_too, slots));
        let (mut tx, mut rx) = region.split_spsc().unwrap();
        assert_eq!(counts(), [0, 0, 0, 0, 0, 0]);
        tx.attach().unwrap();
        assert_eq!(counts(), [0, 0, 1, 1, 1, 0]);
        rx.attach().unwrap();
        assert_eq!(counts(), [0, 1, 1, 2, 2, 0]);
    }

    fn count(region: &Region, slots: Range<u16>) -> usize {
        count_held(region, slots).unwrap()
    }

    #[test]
    fn a_slot_that_does_not_fit_is_left_as_it_is_and_one_that_stops_fitting_is_given_back() {
        let region = region();
        let incarnation = || word(&region, offset_of!(Slot, incarnation)).load(Relaxed);
        let before = incarnation();
        let attached = try_own(&region, 0..1, &|_| Ok(false));
        assert!(matches!(attached, Err(Error::LaneNotEmpty { .. })), "{attached:?}");
        assert_eq!(incarnation(), before);
        let fits = Cell::new(true); // until it was looked at
        let attached = try_own(&region, 0..1, &|_| Ok(fits.replace(false)));
        assert!(matches!(attached, Err(Error::LaneNotEmpty { .. })), "{attached:?}");
        assert_ne!(incarnation(), before);
        own(&region, 0);
    }

    #[test]
    fn a_slot_that_is_free_again_when_that_is_explained_is_no_lane_with_messages() {
        let region = region();
        let fits = Cell::new(true); // before it is taken, not behind that, and so on
        let attached = try_own(&region, 0..1, &|_| Ok(fits.replace(!fits.get())));
        assert!(matches!(attached, Err(Error::Busy { pid: 0, .. })), "{attached:?}");
    }

    #[test]
    fn the_first_owner_of_all_the_slots_that_are_held_is_named() {
        let region = region();
        let _theirs = [own(&region, 0), own(&region, 1)];
        word(&region, offset_of!(Slot, pid)).store(1, Relaxed);
        let attached = try_own(&region, 0..2, &|_| Ok(true));
        assert!(matches!(attached, Err(Error::Busy { pid: 1, .. })), "{attached:?}");
    }

    #[test]
    fn a_lock_that_cannot_be_seen_announces_no_owner() {
        let region = region();
        let number = region.shared().plain().as_raw_fd();
        let looks = Cell::new(0);
        let attached = try_own(&region, 0..1, &|_| {
            looks.set(looks.get() + 1);
            if looks.get() == 2 {
                usurp(number, File::open("/proc/self/exe").unwrap()); // it has been taken just before
            }
            Ok(true)
        });
        assert!(matches!(attached, Err(Error::LockLost { slot: 0 })), "{attached:?}");
        assert_eq!(word(&region, offset_of!(Slot, state)).load(Relaxed), SlotState::Free as u32);
    }
}
