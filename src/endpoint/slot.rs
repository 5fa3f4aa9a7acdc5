//! Owning an endpoint: its lock byte, and the slot that shows other processes the owner.
//!
//! The process that holds lock byte `64 + n` owns slot `n`; the kernel frees the byte when that process has
//! exited, from any cause. The lock belongs to a file description of its own, kept by a mapping and not by a
//! descriptor, so that nothing else in the process can drop it by accident.
//!
//! The life of a slot:
//!
//! ```text
//!  state       lock byte   the next step
//!
//!  Free        free        take the byte, renew the incarnation
//!    |
//!  Attaching   held        fill the slot in, start the pulse
//!    |
//!  Attached    held        (send, receive)
//!    |
//!  Detaching   held        stop the pulse
//!    |
//!  Free        held        free the byte
//!
//!  any other   free        the owner died: the next one begins as from Free
//! ```
//!
//! A new incarnation makes all that an earlier owner left behind stale, so no state has to be repaired.

use std::mem::offset_of;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use std::time::Duration;

use rustix::io::Errno;
use tombolo_abi::{LockWord, Role, Slot};

use crate::backoff::Backoff;
use crate::crash::test_point;
use crate::endpoint::ownership::{Ownership, Seat, all};
use crate::endpoint::{
    Interrupts, Until, byte, byte_is_held, is_seen_as, pid_of, slot_offset, slot_u32,
};
use crate::error::Error;
use crate::os::ofd;
use crate::region::{InitLock, Region};
use crate::ring::Sent;

/// The shortest time for which an attach tries to get a held byte: a holder that was reaped may still
/// hold it for a moment.
const ATTACH_MIN: Duration = Duration::from_millis(100);

/// The bound of an attach in a call that would wait `until` then. A call that would wait for ever gets an
/// error if there is another owner. One that would not wait takes no interrupt: that is for the next call
/// that would.
pub(crate) fn attach_until(until: Until<'_>) -> Until<'_> {
    let is_to_block = !until.deadline.has_passed();
    let interrupts = if is_to_block { until.interrupts } else { Interrupts::never() };
    let until = Until { interrupts, ..until };
    let remaining = until.deadline.remaining();
    let remaining = remaining.map_or(ATTACH_MIN, |remaining| remaining.max(ATTACH_MIN));
    Until { deadline: remaining.into(), ..until }
}

/// An attached slot. Dropping the last of those that were attached together detaches them all.
#[derive(Debug)]
pub(crate) struct OwnedSlot {
    region: Arc<Region>,
    seat: Seat,
    incarnation: u32,
    /// One of [`Kept`], and [`INTERRUPTIBLE`].
    kept: AtomicU8,
    ownership: Arc<Ownership>,
}

/// Whether the lock is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kept {
    /// Nothing in this process can drop it.
    Surely,
    /// Anything in the process may close its descriptor, so the kernel is asked each time.
    Perhaps,
    /// The kernel was seen not to show it. For good: another process may own the slot.
    Lost,
}

/// Beside [`Kept`]: some handle on this endpoint has an interrupter.
const INTERRUPTIBLE: u8 = 1 << 7;

/// What to attach to.
pub(crate) struct Wanted<'a> {
    /// Any one of these slots.
    pub(crate) slots: Range<u16>,
    /// What is attached together with one of them, itself first; nothing if it is none of those after all.
    pub(crate) seats_of: &'a dyn Fn(u16) -> Vec<Seat>,
    /// Whether a slot without another owner can be taken. Asked before and after taking its byte.
    pub(crate) is_fit: &'a dyn Fn(u16, Byte) -> Result<bool, Error>,
    /// Whether the description that holds the locks is kept open, to be passed on with them.
    pub(crate) may_be_passed_on: bool,
}

/// The lock byte of a slot that is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Byte {
    Free,
    Ours,
}

impl OwnedSlot {
    /// Attaches to one of the slots wanted and what belongs to it, waiting `until` then, but at least 100 ms, and
    /// no longer than that if there is no deadline. Gives them in the order of [`Wanted::seats_of`].
    ///
    /// # Errors
    /// [`Error::Busy`] if all are held, [`Error::LaneNotEmpty`] if one is not and has messages
    /// that are still to be received, [`Error::Replaced`] if the region is no longer the
    /// one to use, and what the system calls say.
    pub(crate) fn attach(
        region: &Arc<Region>,
        wanted: &Wanted<'_>,
        until: Until<'_>,
    ) -> Result<Vec<Self>, Error> {
        let until = attach_until(until);
        let mut backoff = Backoff::new();
        loop {
            let attaching = InitLock::try_shared(region)?;
            if attaching.is_some()
                && let Some(attached) = Self::try_attach(region, wanted)?
            {
                return Ok(attached);
            }
            let is_replaced = attaching.is_none();
            drop(attaching); // a call that only waits holds up no replacer
            if until.is_over() || !backoff.wait(until.deadline) {
                return Err(if is_replaced { region.replacing() } else { busy(region, wanted)? });
            }
        }
    }

    /// As [`Self::attach`], of a region that no other process can have yet: none replaces it meanwhile, and
    /// there is nothing to wait for.
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub(crate) fn attach_in_new(
        region: &Arc<Region>,
        wanted: &Wanted<'_>,
    ) -> Result<Vec<Self>, Error> {
        match Self::try_attach(region, wanted)? {
            Some(attached) => Ok(attached),
            None => Err(busy(region, wanted)?),
        }
    }

    fn try_attach(region: &Arc<Region>, wanted: &Wanted<'_>) -> Result<Option<Vec<Self>>, Error> {
        for slot in wanted.slots.clone() {
            let seats = (wanted.seats_of)(slot);
            if seats.is_empty() || !are_fit(region, &seats, wanted)? {
                continue;
            }
            let ownership = Ownership::try_new(region, &seats, wanted.may_be_passed_on)?;
            let Some(mut ownership) = ownership else { continue };
            if are_still_fit(&ownership, wanted)? {
                ownership.announce()?;
                return Ok(Some(Self::all_of(&Arc::new(ownership))));
            } // else another attached and detached meanwhile
        }
        Ok(None)
    }

    /// The slots that `ownership` is of, in its order.
    pub(super) fn all_of(ownership: &Arc<Ownership>) -> Vec<Self> {
        let kept = if ownership.is_kept_by_descriptor() { Kept::Perhaps } else { Kept::Surely };
        let slot = |(seat, incarnation)| Self {
            region: ownership.region().clone(),
            seat,
            incarnation,
            kept: AtomicU8::new(kept as u8),
            ownership: ownership.clone(),
        };
        ownership.seats().map(slot).collect()
    }

    /// Whether `description` holds the byte of `seat`.
    pub(crate) fn is_held_by(
        region: &Region,
        seat: &Seat,
        description: impl AsFd,
    ) -> Result<bool, Error> {
        let slots = seat.slot..seat.slot + 1;
        let by_another = ofd::is_locked(description.as_fd(), byte(slots.clone()))
            .map_err(|source| region.io_error("look at the locks of", source))?;
        Ok(byte_is_held(region, slots)? && !by_another)
    }

    /// Attaches to slots that an owner has [passed on](Self::pass_on) with `description`, and lets `make` make
    /// something of them, in the order of `seats`. If it fails, they are passed on again: `description` stays the
    /// caller's in any case, and their owner.
    ///
    /// # Errors
    /// [`Error::LockLost`] if `description` does not hold their bytes; as [`Self::attach`]; those of `make`.
    pub(crate) fn adopt<T>(
        region: &Arc<Region>,
        seats: &[Seat],
        description: BorrowedFd<'_>,
        make: impl FnOnce(Vec<Self>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let attaching = InitLock::try_shared(region)?; // against a process that replaces it
        if attaching.is_none() {
            return Err(region.replacing());
        }
        let ownership = Arc::new(Ownership::adopt(region, seats, description)?);
        drop(attaching);
        let made = make(Self::all_of(&ownership));
        match &made {
            Ok(_) => ownership.keep(),
            Err(_) => ownership.give_back(),
        }
        made
    }

    /// A copy of the description that holds the locks of this slot and of those that were attached with it: its
    /// owner owns them, too.
    pub(crate) fn copy_lock(&self) -> Result<OwnedFd, Error> {
        self.check_held()?;
        let io = |error: Errno| self.region.io_error("pass on an endpoint of", error.into());
        self.region.note_shared();
        self.ownership.copy_description().map_err(io)
    }

    /// Gives up this slot and those that were attached with it without freeing their bytes: those are held by a
    /// [copy](Self::copy_lock) of their description, wherever it goes. Threads that still have one of them do no harm.
    pub(crate) fn pass_on(&self) {
        self.ownership.pass_on();
    }

    /// Whether they were passed on, or are not taken over for good yet: then nothing of theirs is to be ended here.
    pub(crate) fn is_passed_on(&self) -> bool {
        self.ownership.is_passed_on()
    }

    /// The region that the slot belongs to.
    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// The slot, and as what it is attached.
    pub(crate) fn seat(&self) -> Seat {
        self.seat
    }

    /// The slot and incarnation, as an MPSC lock word names them.
    pub(crate) fn identity(&self) -> LockWord {
        LockWord { slot: self.seat.slot, incarnation: self.incarnation }
    }

    /// Sets bits in this endpoint's flags.
    pub(crate) fn flag(&self, flags: u32) {
        self.word_u32(offset_of!(Slot, flags)).fetch_or(flags, Relaxed); // the watcher sets others
    }

    /// Adds one to one of this endpoint's counters, given by its offset in the slot.
    pub(crate) fn count(&self, offset: usize) {
        self.add(offset, 1);
    }

    /// Adds to one of this endpoint's counters.
    pub(crate) fn add(&self, offset: usize, amount: u64) {
        self.word_u64(offset).fetch_add(amount, Relaxed); // clones may count at once
    }

    /// Counts messages sent. The caller holds the ring's lock, so clones don't count at the same time.
    #[inline]
    pub(crate) fn count_sent(&self, Sent { count, payload_len }: Sent) {
        for (offset, amount) in
            [(offset_of!(Slot, msgs), count), (offset_of!(Slot, bytes), payload_len)]
        {
            let word = self.word_u64(offset);
            word.store(word.load(Relaxed).wrapping_add(amount as u64), Relaxed);
        }
    }

    /// Whether any of `slots` is held.
    ///
    /// `false` only if the descriptor asked is certainly the region's, before and after: a descriptor
    /// that was closed and its number used again would answer for another file.
    ///
    /// # Errors
    /// [`Error::LockLost`] if the kernel doesn't show this endpoint's own lock.
    pub(crate) fn is_any_held(&self, slots: Range<u16>) -> Result<bool, Error> {
        self.check_held()?;
        test_point!("slot.before-look");
        let held = byte_is_held(&self.region, slots)?;
        if !held {
            self.check_held()?;
        }
        Ok(held)
    }

    /// Whether the owner of `slot` in `incarnation` lives.
    ///
    /// # Errors
    /// As [`Self::is_any_held`].
    pub(crate) fn is_alive(&self, other: LockWord) -> Result<bool, Error> {
        if other == self.identity() {
            return Ok(true); // this endpoint or a clone of it
        }
        let incarnation = slot_u32(&self.region, other.slot, offset_of!(Slot, incarnation));
        if incarnation.load(Acquire) != other.incarnation {
            return Ok(false); // the slot has moved on, and only the dead are followed
        }
        self.is_any_held(other.slot..other.slot + 1)
    }

    /// An error once the lock was seen to be lost. A lock that is kept by a descriptor, which
    /// anything in the process may close, is checked each time.
    #[inline]
    pub(crate) fn check_kept(&self) -> Result<(), Error> {
        let kept = self.kept.load(Relaxed) & !INTERRUPTIBLE;
        if kept == Kept::Surely as u8 { Ok(()) } else { self.check_held() }
    }

    /// Whether calls may take the fast path: there is nothing to ask the kernel, and no interrupter.
    #[inline]
    pub(crate) fn is_surely_kept(&self) -> bool {
        self.kept.load(Relaxed) == Kept::Surely as u8
    }

    fn is_lost(&self) -> bool {
        self.kept.load(Relaxed) & !INTERRUPTIBLE == Kept::Lost as u8
    }

    /// Keeps calls off the fast path from now on: there is an interrupter that they must check for.
    pub(crate) fn note_interrupter(&self) {
        self.kept.fetch_or(INTERRUPTIBLE, Relaxed);
    }

    /// An error unless the kernel shows this endpoint's own byte as held, and the slot names no later
    /// owner. Once lost, it stays lost.
    #[cold]
    fn check_held(&self) -> Result<(), Error> {
        if !self.is_lost() && is_seen_as(&self.region, self.identity())? {
            return Ok(());
        }
        if self.region.mapping().is_cut() {
            return Err(self.region.cut_error()); // what the slot says is not the slot's
        }
        self.kept.store(Kept::Lost as u8, Relaxed);
        self.ownership.note_lost(self.seat.slot);
        Err(Error::LockLost { slot: self.seat.slot })
    }

    fn word_u32(&self, offset: usize) -> &AtomicU32 {
        slot_u32(&self.region, self.seat.slot, offset)
    }

    fn word_u64(&self, offset: usize) -> &AtomicU64 {
        self.region.mapping().word_u64(slot_offset(&self.region, self.seat.slot, offset))
    }
}

/// Whether the bytes of `seats` are free, and can be taken.
fn are_fit(region: &Region, seats: &[Seat], wanted: &Wanted<'_>) -> Result<bool, Error> {
    all(seats, |Seat { slot, .. }| {
        Ok(!byte_is_held(region, *slot..slot + 1)? && (wanted.is_fit)(*slot, Byte::Free)?)
    })
}

fn are_still_fit(ownership: &Ownership, wanted: &Wanted<'_>) -> Result<bool, Error> {
    let seats: Vec<_> = ownership.seats().collect();
    all(&seats, |(seat, _)| (wanted.is_fit)(seat.slot, Byte::Ours))
}

/// Why none of the slots wanted could be taken; a slot without an owner explains more than a held one.
fn busy(region: &Region, wanted: &Wanted<'_>) -> Result<Error, Error> {
    let (mut pid, mut first) = (0, None);
    for slot in wanted.slots.clone() {
        let seats = (wanted.seats_of)(slot);
        let Some(seat) = seats.first() else { continue };
        first = first.or(Some(*seat));
        for seat in &seats {
            if byte_is_held(region, seat.slot..seat.slot + 1)? {
                pid = if pid == 0 { pid_of(region, seat.slot) } else { pid };
            } else if !(wanted.is_fit)(seat.slot, Byte::Free)? {
                let lanes = wanted.slots.len();
                return Ok(Error::LaneNotEmpty { ring: seat.ring, lanes });
            }
        }
    }
    let (role, ring) = match first {
        Some(Seat { role: Role::Receiver, ring, .. }) => ("receiver", ring),
        Some(Seat { role: Role::Sender, ring, .. }) => ("sender", ring),
        None => ("sender", 0), // never: one was asked for
    };
    Ok(Error::Busy { ring, role, pid, places: wanted.slots.len() })
}

#[cfg(test)]
pub(super) mod tests {

    use std::fs::File;
    use std::os::fd::AsRawFd;

    use tombolo_abi::SlotState;

    use super::*;
    use crate::crash::visits;

    use crate::os::staged::usurp;
    use crate::{Deadline, EventsRegion, OpenOptions};

    pub(in crate::endpoint) fn own(region: &EventsRegion, slot: u16) -> OwnedSlot {
        try_own(region, slot..slot + 1, &|_| Ok(true)).unwrap()
    }

    pub(in crate::endpoint) fn try_own(
        region: &EventsRegion,
        slots: Range<u16>,
        is_fit: &dyn Fn(u16) -> Result<bool, Error>,
    ) -> Result<OwnedSlot, Error> {
        let interrupts = Interrupts::default();
        let until = Until { deadline: Deadline::PAST, interrupts: &interrupts };
        let wanted = Wanted {
            slots,
            seats_of: &|slot| vec![seat(slot)],
            is_fit: &|slot, _| is_fit(slot),
            may_be_passed_on: false,
        };
        Ok(OwnedSlot::attach(region.shared(), &wanted, until)?.swap_remove(0))
    }

    pub(in crate::endpoint) fn region() -> EventsRegion {
        EventsRegion::anonymous(OpenOptions::new()).unwrap()
    }

    /// A word of slot 0.
    pub(in crate::endpoint) fn word(region: &EventsRegion, offset: usize) -> &AtomicU32 {
        slot_u32(region.shared(), 0, offset)
    }

    pub(in crate::endpoint) fn seat(slot: u16) -> Seat {
        Seat { slot, role: Role::Sender, ring: 0 }
    }

    #[test]
    fn no_peer_is_called_gone_if_the_number_stood_for_another_file_during_the_look() {
        let region = region();
        let (ours, _theirs) = (own(&region, 0), own(&region, 1));
        assert!(ours.is_any_held(1..2).unwrap());
        let (number, other) =
            (region.shared().plain().as_raw_fd(), File::open("/proc/self/exe").unwrap());
        let visit = visits::at("slot.before-look", move || usurp(number, &other));
        let found = ours.is_any_held(1..2);
        drop(visit);
        assert!(matches!(found, Err(Error::LockLost { slot: 0 })), "{found:?}");
    }

    /// Slot 0, which may be passed on.
    fn own_to_pass_on(region: &EventsRegion) -> OwnedSlot {
        let wanted = Wanted {
            slots: 0..1,
            seats_of: &|slot| vec![seat(slot)],
            is_fit: &|_, _| Ok(true),
            may_be_passed_on: true,
        };
        OwnedSlot::attach_in_new(region.shared(), &wanted).unwrap().swap_remove(0)
    }

    #[test]
    fn a_description_holds_no_byte_that_none_or_another_holds() {
        let region = region();
        let other = region.shared().reopen().unwrap();
        let is_held_by =
            |one: &OwnedFd| OwnedSlot::is_held_by(region.shared(), &seat(0), one).unwrap();
        assert!(!is_held_by(&other));
        let ours = own_to_pass_on(&region);
        assert!(is_held_by(&ours.copy_lock().unwrap()));
        assert!(!is_held_by(&other));
    }

    #[test]
    fn a_region_is_shared_from_when_a_lock_is_copied_and_a_slot_passed_on_only_when_that_is_said() {
        let of_channel = OpenOptions::new().of_channel().unwrap();
        let region = EventsRegion::anonymous(of_channel).unwrap();
        let ours = own_to_pass_on(&region);
        assert!(region.shared().is_alone() && !ours.is_passed_on());
        let _lock = ours.copy_lock().unwrap();
        assert!(!region.shared().is_alone() && !ours.is_passed_on());
        ours.pass_on();
        assert!(ours.is_passed_on());
    }

    #[test]
    fn a_lock_that_was_lost_is_not_copied() {
        let region = region();
        let ours = own_to_pass_on(&region);
        word(&region, offset_of!(Slot, incarnation)).fetch_add(1, Relaxed);
        let copied = ours.copy_lock().map(drop);
        assert!(matches!(copied, Err(Error::LockLost { slot: 0 })), "{copied:?}");
    }

    fn state(region: &EventsRegion, slot: u16) -> Option<SlotState> {
        let word = slot_u32(region.shared(), slot, offset_of!(Slot, state)).load(Acquire);
        let all = [SlotState::Free, SlotState::Attached, SlotState::Detaching];
        all.into_iter().find(|state| *state as u32 == word)
    }

    fn is_held(region: &EventsRegion, slot: u16) -> bool {
        byte_is_held(region.shared(), slot..slot + 1).unwrap()
    }

    /// Attaches to both slots, or to none.
    fn own_both(region: &EventsRegion, slots: [u16; 2]) -> Result<Vec<OwnedSlot>, Error> {
        let seats_of = |_| slots.map(seat).to_vec();
        let wanted = Wanted {
            slots: slots[0]..slots[0] + 1,
            seats_of: &seats_of,
            is_fit: &|_, _| Ok(true),
            may_be_passed_on: false,
        };
        OwnedSlot::attach_in_new(region.shared(), &wanted)
    }

    #[test]
    fn slots_that_are_attached_together_are_given_up_together_with_the_last() {
        let region = region();
        let mut both = own_both(&region, [1, 2]).unwrap();
        assert_eq!([0, 1, 2, 3].map(|slot| is_held(&region, slot)), [false, true, true, false]);
        drop(both.remove(0));
        for slot in [1, 2] {
            assert!(is_held(&region, slot));
            assert_eq!(state(&region, slot), Some(SlotState::Attached));
        }
        assert!(both[0].check_held().is_ok());
        drop(both);
        for slot in [1, 2] {
            assert!(!is_held(&region, slot));
            assert_eq!(state(&region, slot), Some(SlotState::Free));
        }
    }

    #[test]
    fn if_one_of_two_slots_has_an_owner_the_other_stays_as_it_was() {
        let region = region();
        let incarnation =
            || slot_u32(region.shared(), 1, offset_of!(Slot, incarnation)).load(Acquire);
        let theirs = own(&region, 2);
        assert!(matches!(own_both(&region, [1, 2]), Err(Error::Busy { .. })));
        // Also if that one comes just then.
        let seats = [seat(1), seat(2)];
        assert!(Ownership::try_new(region.shared(), &seats, false).unwrap().is_none());
        assert_eq!((incarnation(), is_held(&region, 1)), (0, false));
        drop(theirs);
        own_both(&region, [1, 2]).unwrap();
        assert_eq!(incarnation(), 1);
    }

    #[test]
    fn a_slot_whose_lock_was_lost_is_left_alone_and_its_neighbour_is_given_up() {
        let region = region();
        let both = own_both(&region, [1, 2]).unwrap();
        // Another owner's, as far as the slot says.
        slot_u32(region.shared(), 1, offset_of!(Slot, incarnation)).fetch_add(1, Relaxed);
        assert!(matches!(both[0].check_held(), Err(Error::LockLost { slot: 1 })));
        assert!(both[1].check_held().is_ok());
        drop(both);
        assert_eq!(state(&region, 1), Some(SlotState::Attached));
        assert_eq!(state(&region, 2), Some(SlotState::Free));
    }
}
