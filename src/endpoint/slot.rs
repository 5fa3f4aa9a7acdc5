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
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};
use std::time::Duration;

use rustix::io::Errno;
use tombolo_abi::{LockWord, RegionState, Role, Slot, SlotState, next_incarnation, slot_flags};

use crate::backoff::Backoff;
use crate::crash::{crash_point, test_point};
use crate::endpoint::{
    Interrupts, Pulse, Until, byte, byte_is_held, first_unseen, is_seen_as, pid_of, slot_offset,
    slot_u32, tell_of_exits,
};
use crate::error::Error;
use crate::mem::LockMapping;
use crate::os::descriptor::Descriptor;
use crate::os::process::ProcessId;
use crate::os::{file_system, fork, ofd};
use crate::region::{InitLock, Region};
use crate::ring::Sent;

/// The shortest time for which an attach tries to get a held byte: a holder that was reaped may still
/// hold it for a moment.
const ATTACH_MIN: Duration = Duration::from_millis(100);

/// The bound of an attach in a call that would wait `until` then. A call that would wait for ever gets an
/// error if there is another owner. One that would not wait takes no interrupt: that is for the next call
/// that would.
pub(crate) fn attach_until(until: Until<'_>) -> Until<'_> {
    static NONE: Interrupts = Interrupts::none();
    let is_to_block = !until.deadline.has_passed();
    let until = Until { interrupts: if is_to_block { until.interrupts } else { &NONE }, ..until };
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

/// Slots that were attached together. One file description holds their locks, and they are given up together: the
/// kernel frees the bytes of all when the last mapping of it goes.
#[derive(Debug)]
struct Ownership {
    region: Arc<Region>,
    owned: Vec<Owned>,
    lock: Option<Lock>,
    /// The description, open, if it may be passed on.
    description: Option<Descriptor>,
    /// Notifies peers when this process exits.
    pulse: Option<Pulse>,
    owner: fork::Owner,
    /// Whether a copy of the description was passed on, and the locks with it.
    is_passed_on: AtomicBool,
}

/// One of them.
#[derive(Debug)]
struct Owned {
    seat: Seat,
    incarnation: u32,
    /// Whether the kernel was seen not to show its lock.
    is_lost: AtomicBool,
}

/// What keeps the locked description.
#[derive(Debug)]
enum Lock {
    /// A mapping: the rule.
    Mapping(#[expect(dead_code, reason = "held for its drop")] LockMapping),
    /// A descriptor, on file systems with mappings that keep another description.
    Descriptor(Descriptor),
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

/// A slot, and as what it is attached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    pub(crate) slot: u16,
    pub(crate) role: Role,
    /// The ring that it belongs to.
    pub(crate) ring: u32,
}

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
            if ownership.are_still_fit(wanted)? {
                ownership.announce()?;
                return Ok(Some(ownership.into_slots()));
            } // else another attached and detached meanwhile
        }
        Ok(None)
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

    /// Attaches to slots that an owner has [passed on](Self::pass_on) with `description`, in the order of `seats`.
    /// It stays the caller's, too.
    ///
    /// # Errors
    /// [`Error::LockLost`] if `description` does not hold their bytes; as [`Self::attach`].
    pub(crate) fn adopt(
        region: &Arc<Region>,
        seats: &[Seat],
        description: BorrowedFd<'_>,
    ) -> Result<Vec<Self>, Error> {
        let attaching = InitLock::try_shared(region)?; // against a process that replaces it
        if attaching.is_none() {
            return Err(region.replacing());
        }
        Ok(Ownership::adopt(region, seats, description)?.into_slots())
    }

    /// A copy of the description that holds the locks of this slot and of those that were attached with it. Whoever
    /// has it owns them, too.
    pub(crate) fn copy_lock(&self) -> Result<OwnedFd, Error> {
        self.check_held()?;
        let io = |error: Errno| self.region.io_error("pass on an endpoint of", error.into());
        let description = self.ownership.description().ok_or_else(|| io(Errno::BADF))?;
        description.stat().map_err(io)?; // else it is another's by now
        self.region.note_shared();
        rustix::io::fcntl_dupfd_cloexec(description, 0).map_err(io)
    }

    /// Gives up `slots`, which were attached together, without freeing their bytes: those are held by a
    /// [copy](Self::copy_lock) of their description, wherever it goes.
    pub(crate) fn pass_on(slots: impl Iterator<Item = Self>) {
        for slot in slots {
            slot.ownership.is_passed_on.store(true, Relaxed);
            slot.word_u32(offset_of!(Slot, state)).store(SlotState::InTransit as u32, Release);
        }
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

impl Ownership {
    /// Takes the bytes of `seats`, all or none, and makes everything that earlier owners left behind stale. `None`
    /// if another process has one of them.
    fn try_new(
        region: &Arc<Region>,
        seats: &[Seat],
        may_be_passed_on: bool,
    ) -> Result<Option<Self>, Error> {
        let io = |source| region.io_error("attach to an endpoint of", source);
        let no_forks = fork::hold_off().map_err(|error| io(error.into()))?;
        let description = region.reopen()?;
        let mapping = LockMapping::new(&description).map_err(io)?;
        let Some(owned) = lock_and_renew(region, seats, &description)? else {
            return Ok(None);
        };
        crash_point!("attach.locked");
        let owner = fork::Owner::current().map_err(io)?;
        let (lock, description) = if may_be_passed_on {
            keep_open(description, mapping, &no_forks).map_err(|error| io(error.into()))?
        } else {
            drop(description); // before it is asked whether the mapping keeps the locks
            (Lock::Mapping(mapping), None)
        };
        drop(no_forks);
        let (region_too, lock) = (region.clone(), Some(lock));
        let (pulse, is_passed_on) = (None, AtomicBool::new(false));
        let mut ownership =
            Self { region: region_too, owned, lock, description, pulse, owner, is_passed_on };
        let is_held = |seat: &Seat| byte_is_held(region, seat.slot..seat.slot + 1);
        let is_kept = match all(seats, is_held) {
            Ok(are_held) => are_held || ownership.keep_by_descriptor()?,
            Err(error) => {
                ownership.lock = None; // whose the slots are is not known now: leave them alone
                return Err(error);
            }
        };
        Ok(is_kept.then_some(ownership))
    }

    /// Takes the bytes again and keeps them by an open descriptor, for a file system on which closing
    /// the first one dropped the locks although a mapping remained. `false` if another process was
    /// faster.
    fn keep_by_descriptor(&mut self) -> Result<bool, Error> {
        self.lock = None;
        let io = |error: Errno| self.region.io_error("attach to an endpoint of", error.into());
        let no_forks = fork::hold_off().map_err(io)?;
        let description = self.region.reopen()?;
        let description = Descriptor::private(description, &no_forks).map_err(io)?;
        let seats: Vec<_> = self.owned.iter().map(|owned| owned.seat).collect();
        let Some(owned) = lock_and_renew(&self.region, &seats, &description)? else {
            return Ok(false);
        };
        test_point!("attach.locked-again");
        self.owned = owned;
        self.description = None; // it is the lock
        self.lock = Some(Lock::Descriptor(description));
        Ok(true)
    }

    /// Takes over from an owner that has passed `description` on, which holds the bytes of `seats`.
    fn adopt(
        region: &Arc<Region>,
        seats: &[Seat],
        description: BorrowedFd<'_>,
    ) -> Result<Self, Error> {
        let io = |source| region.io_error("take over an endpoint of", source);
        let no_forks = fork::hold_off().map_err(|error| io(error.into()))?;
        let description = rustix::io::fcntl_dupfd_cloexec(description, 0);
        let description = description.map_err(|error| io(error.into()))?;
        let mapping = LockMapping::new(&description).map_err(io)?;
        // Its own locks are no obstacle.
        let Some(owned) = lock_and_renew(region, seats, &description)? else {
            let slot = seats.first().map_or(0, |seat| seat.slot);
            return Err(Error::LockLost { slot });
        };
        let owner = fork::Owner::current().map_err(io)?;
        let kept = keep_open(description, mapping, &no_forks);
        let (lock, description) = kept.map_err(|error| io(error.into()))?;
        let (region, lock) = (region.clone(), Some(lock));
        let (pulse, is_passed_on) = (None, AtomicBool::new(false));
        let mut ownership = Self { region, owned, lock, description, pulse, owner, is_passed_on };
        ownership.announce()?;
        Ok(ownership)
    }

    /// The description that holds the locks, if it is open.
    fn description(&self) -> Option<&Descriptor> {
        match &self.lock {
            Some(Lock::Descriptor(description)) => Some(description),
            _ => self.description.as_ref(),
        }
    }

    fn are_still_fit(&self, wanted: &Wanted<'_>) -> Result<bool, Error> {
        all(&self.owned, |owned| (wanted.is_fit)(owned.seat.slot, Byte::Ours))
    }

    /// Fills the slots in and notifies the other side.
    fn announce(&mut self) -> Result<(), Error> {
        self.check_seen()?;
        let state = RegionState::from_word(self.region.state());
        if self.region.mapping().is_cut() {
            return Err(self.region.cut_error());
        }
        match state {
            Some(RegionState::Ready) => {}
            Some(RegionState::Retired) => {
                return Err(Error::Replaced { path: self.region.path().to_owned() });
            }
            _ => return Err(Error::RegionPoisoned { path: self.region.path().to_owned() }),
        }
        let slots: Vec<_> = self.owned.iter().map(|owned| owned.seat.slot).collect();
        for owned in &self.owned {
            // First what a dead predecessor's watchers would take for ours.
            self.word_u32(owned.seat.slot, offset_of!(Slot, liveness)).store(0, Release);
            self.set_state(owned.seat.slot, SlotState::Attaching);
            self.fill(owned.seat);
        }
        self.pulse = Some(Pulse::start(&self.region, &slots)?);
        crash_point!("attach.filled");
        for slot in slots {
            let attaches = self.word_u64(slot, offset_of!(Slot, attaches)); // the owner's
            attaches.store(attaches.load(Relaxed).wrapping_add(1), Release);
            self.set_state(slot, SlotState::Attached);
        }
        self.region.announce_membership();
        Ok(())
    }

    fn fill(&self, Seat { slot, role, ring }: Seat) {
        let identity = ProcessId::current();
        let seqlock = self.word_u32(slot, offset_of!(Slot, seqlock));
        let odd = seqlock.load(Relaxed) | 1; // ours; odd already if a predecessor died here
        seqlock.store(odd, Relaxed);
        std::sync::atomic::fence(Release); // readers that see a new field see the odd count
        let by_descriptor = matches!(self.lock, Some(Lock::Descriptor(_)));
        let flags = if by_descriptor { slot_flags::LOCK_BY_FD } else { 0 };
        for (offset, value) in [
            (offset_of!(Slot, pid), identity.pid),
            (offset_of!(Slot, role), role as u32),
            (offset_of!(Slot, ring), ring),
            (offset_of!(Slot, flags), flags),
        ] {
            self.word_u32(slot, offset).store(value, Relaxed);
        }
        for (offset, value) in [
            (offset_of!(Slot, start_ticks), identity.start_ticks),
            (offset_of!(Slot, pid_namespace), identity.pid_namespace),
            (offset_of!(Slot, attach_ns), unix_ns()),
            (offset_of!(Slot, msgs), 0),
            (offset_of!(Slot, bytes), 0),
            (offset_of!(Slot, full_waits), 0),
            (offset_of!(Slot, wakes_sent), 0),
            (offset_of!(Slot, wakes_elided), 0),
            (offset_of!(Slot, sleeps), 0),
            (offset_of!(Slot, woken_by_death), 0),
            (offset_of!(Slot, lock_breaks), 0),
            (offset_of!(Slot, aborts), 0),
        ] {
            self.word_u64(slot, offset).store(value, Relaxed);
        }
        test_point!("attach.filling");
        seqlock.store(odd.wrapping_add(1), Release);
    }

    fn into_slots(self) -> Vec<OwnedSlot> {
        let kept = match self.lock {
            Some(Lock::Descriptor(_)) => Kept::Perhaps,
            _ => Kept::Surely,
        };
        let ownership = Arc::new(self);
        let slot = |owned: &Owned| OwnedSlot {
            region: ownership.region.clone(),
            seat: owned.seat,
            incarnation: owned.incarnation,
            kept: AtomicU8::new(kept as u8),
            ownership: ownership.clone(),
        };
        ownership.owned.iter().map(slot).collect()
    }

    /// An error unless the kernel shows all bytes as held, and no slot names a later owner.
    fn check_seen(&self) -> Result<(), Error> {
        let owners = self.owned.iter().map(Owned::identity);
        let Some(LockWord { slot, .. }) = first_unseen(&self.region, owners)? else {
            return Ok(());
        };
        if self.region.mapping().is_cut() {
            return Err(self.region.cut_error()); // what the slot says is not the slot's
        }
        self.note_lost(slot);
        Err(Error::LockLost { slot })
    }

    fn note_lost(&self, slot: u16) {
        let of_slot = self.owned.iter().filter(|owned| owned.seat.slot == slot);
        of_slot.for_each(|owned| owned.is_lost.store(true, Relaxed));
    }

    /// Whether the slot is still this owner's, whatever it says. A lock that is kept by a descriptor is looked at
    /// once more.
    fn is_ours(&self, owned: &Owned) -> bool {
        let is_kept = match &self.lock {
            Some(Lock::Mapping(_)) => true,
            Some(Lock::Descriptor(_)) => {
                is_seen_as(&self.region, owned.identity()).is_ok_and(|is_seen| is_seen)
            }
            None => false,
        };
        is_kept && !owned.is_lost.load(Relaxed)
    }

    fn set_state(&self, slot: u16, state: SlotState) {
        self.word_u32(slot, offset_of!(Slot, state)).store(state as u32, Release);
    }

    fn word_u32(&self, slot: u16, offset: usize) -> &AtomicU32 {
        slot_u32(&self.region, slot, offset)
    }

    fn word_u64(&self, slot: u16, offset: usize) -> &AtomicU64 {
        self.region.mapping().word_u64(slot_offset(&self.region, slot, offset))
    }
}

impl Owned {
    fn identity(&self) -> LockWord {
        LockWord { slot: self.seat.slot, incarnation: self.incarnation }
    }
}

impl Drop for Ownership {
    fn drop(&mut self) {
        if !self.owner.is_here() || self.lock.is_none() {
            return; // in a forked child, or never attached: nothing here is ours
        }
        let ours = self.owned.iter().filter(|owned| self.is_ours(owned));
        let slots: Vec<_> = ours.map(|owned| owned.seat.slot).collect();
        if slots.is_empty() {
            return; // the slots may be others'
        }
        if *self.is_passed_on.get_mut() {
            return; // the locks go with the description, to whoever has that
        }
        slots.iter().for_each(|slot| self.set_state(*slot, SlotState::Detaching));
        crash_point!("detach.detaching");
        self.region.announce_membership();
        self.pulse = None;
        slots.iter().for_each(|slot| self.set_state(*slot, SlotState::Free));
        if let Some(description) = self.description()
            && description.is_ours()
        {
            // Closing it, which follows, would do but for children just being forked.
            for slot in &slots {
                let _ = ofd::unlock(description.as_fd(), byte(*slot..*slot + 1));
            }
        }
        (self.lock, self.description) = (None, None);
        test_point!("detach.freed");
        self.region.announce_membership(); // now the bytes are free
        if self.region.is_alone() {
            tell_of_exits(&self.region, &slots);
        }
    }
}

/// Keeps `description` open, and what keeps its locks: on a file system of which it isn't known that the mapping
/// does, that is the descriptor. It shows only once that is closed.
fn keep_open(
    description: OwnedFd,
    mapping: LockMapping,
    no_forks: &fork::NoForks,
) -> Result<(Lock, Option<Descriptor>), Errno> {
    let is_known = file_system::is_known(file_system::magic(description.as_fd())?);
    let description = Descriptor::private(description, no_forks)?;
    Ok(if is_known {
        (Lock::Mapping(mapping), Some(description))
    } else {
        (Lock::Descriptor(description), None)
    })
}

/// Whether `is_so` of all, or its first error.
fn all<T>(items: &[T], mut is_so: impl FnMut(&T) -> Result<bool, Error>) -> Result<bool, Error> {
    for item in items {
        if !is_so(item)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether nobody holds the bytes of `seats`, and they can be taken.
fn are_fit(region: &Region, seats: &[Seat], wanted: &Wanted<'_>) -> Result<bool, Error> {
    all(seats, |Seat { slot, .. }| {
        Ok(!byte_is_held(region, *slot..slot + 1)? && (wanted.is_fit)(*slot, Byte::Free)?)
    })
}

/// Takes the bytes of `seats` on `description` and at once moves their incarnations on, which makes earlier
/// owners dead by definition. `None` if another process holds one of the bytes; then none is taken once the
/// description is closed, and no slot has changed. The caller holds off forks and signals.
fn lock_and_renew(
    region: &Region,
    seats: &[Seat],
    description: impl AsFd,
) -> Result<Option<Vec<Owned>>, Error> {
    let words: Vec<_> = seats
        .iter()
        .map(|seat| slot_u32(region, seat.slot, offset_of!(Slot, incarnation)))
        .collect();
    let mut owned = Vec::with_capacity(seats.len());
    for seat in seats {
        let byte = byte(seat.slot..seat.slot + 1);
        let locked = ofd::try_lock(description.as_fd(), byte, ofd::Mode::Exclusive);
        if !locked.map_err(|source| region.io_error("lock an endpoint of", source))? {
            return Ok(None);
        }
        owned.push(Owned { seat: *seat, incarnation: 0, is_lost: AtomicBool::new(false) });
    }
    for (owned, word) in owned.iter_mut().zip(words) {
        owned.incarnation = next_incarnation(word.load(Relaxed)); // ours from here on
        word.store(owned.incarnation, Release);
    }
    Ok(Some(owned))
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
        None => ("sender", 0), // never: somebody asked for one
    };
    Ok(Error::Busy { ring, role, pid, places: wanted.slots.len() })
}

fn unix_ns() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;
    use std::fs::File;
    use std::os::fd::{AsRawFd, RawFd};
    use std::rc::Rc;
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::crash::visits;
    use crate::os::signals::blocked;
    use crate::os::staged::{self, Bystander, Call, usurp};
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

    fn seat(slot: u16) -> Seat {
        Seat { slot, role: Role::Sender, ring: 0 }
    }

    #[test]
    fn a_byte_that_is_held_is_not_taken_and_its_owner_stays_in_the_slot() {
        let region = region();
        let _theirs = own(&region, 0);
        let incarnation = || word(&region, offset_of!(Slot, incarnation)).load(Relaxed);
        let before = incarnation();
        assert!(Ownership::try_new(region.shared(), &[seat(0)], false).unwrap().is_none());
        assert_eq!(incarnation(), before);
    }

    /// An endpoint that is kept by a descriptor, and the number of that.
    fn own_by_descriptor(region: &EventsRegion) -> (Ownership, RawFd) {
        let ours = Ownership::try_new(region.shared(), &[seat(0)], false);
        let mut ours = ours.unwrap().unwrap();
        assert!(ours.keep_by_descriptor().unwrap());
        let Some(Lock::Descriptor(description)) = &ours.lock else { panic!("{:?}", ours.lock) };
        let number = description.as_fd().as_raw_fd();
        (ours, number)
    }

    #[test]
    fn a_byte_that_is_kept_by_a_descriptor_is_let_go_of_though_a_child_has_that_too() {
        let region = region();
        let (ours, _) = own_by_descriptor(&region);
        let _child = Bystander::new();
        drop(ours);
        own(&region, 0);
    }

    #[test]
    fn what_has_the_number_of_that_descriptor_by_now_keeps_its_locks() {
        let region = region();
        let (ours, number) = own_by_descriptor(&region);
        let _child = Bystander::new(); // has the byte
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        let other = open();
        assert!(ofd::try_lock(other.as_fd(), byte(0..1), ofd::Mode::Exclusive).unwrap());
        usurp(number, &other);
        drop(ours);
        assert!(ofd::is_locked(open().as_fd(), byte(0..1)).unwrap());
    }

    #[test]
    fn a_slot_of_which_the_kernel_does_not_say_whose_it_is_is_left_alone() {
        let region = region();
        let state = word(&region, offset_of!(Slot, state));
        state.store(SlotState::Attached as u32, Relaxed);
        let look = Call::with(libc::SYS_fcntl, 1, libc::F_OFD_GETLK);
        let attached = staged::refusing(look, Errno::NOLCK, || {
            Ownership::try_new(region.shared(), &[seat(0)], false).map(drop)
        });
        let Some(attached) = attached else { return eprintln!("skipped: no filters") };
        assert!(matches!(attached, Err(Error::Io { .. })), "{attached:?}");
        assert_eq!(state.load(Relaxed), SlotState::Attached as u32);
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

    #[test]
    fn a_lock_that_is_taken_again_is_renewed_with_no_handler_and_no_fork_between() {
        let Some(before) = blocked() else { return eprintln!("skipped: no /proc") };
        let region = region();
        let seats = [seat(0), seat(3)];
        let mut ours = Ownership::try_new(region.shared(), &seats, false).unwrap().unwrap();
        let identities =
            |ours: &Ownership| ours.owned.iter().map(Owned::identity).collect::<Vec<_>>();
        let earlier = identities(&ours);
        let (meanwhile, (done, held_off)) = (Rc::new(Cell::new(0)), mpsc::channel());
        let (found, (early, begun)) = (meanwhile.clone(), mpsc::channel());
        let visit = visits::at("attach.locked-again", move || {
            found.set(blocked().unwrap());
            // What a fork does first.
            thread::spawn(move || done.send(fork::hold_off().map(drop).is_ok()));
            early.send(held_off.recv_timeout(Duration::from_millis(200)).is_ok()).unwrap();
        });
        assert!(ours.keep_by_descriptor().unwrap());
        drop(visit);
        assert!(!begun.recv().unwrap(), "a fork would have come between");
        for signal in [libc::SIGTERM, libc::SIGALRM, libc::SIGCHLD] {
            assert_eq!(meanwhile.get() >> (signal - 1) & 1, 1, "signal {signal}");
        }
        assert_eq!(blocked(), Some(before));
        let both = identities(&ours).into_iter().zip(earlier);
        both.for_each(|(now, earlier)| assert_ne!(now, earlier));
        for slot in ours.into_slots() {
            assert!(slot.check_held().is_ok() && !slot.is_surely_kept());
        }
        own(&region, 0);
        own(&region, 3);
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
