//! Slots that are attached together: the description that holds their lock bytes, and what their owner stores in them.

use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use tombolo_abi::{LockWord, RegionState, Role, Slot, SlotState, next_incarnation, slot_flags};

use crate::crash::{crash_point, left_out, test_point};
use crate::endpoint::{
    EndWords, Pulse, byte, byte_is_held, first_unseen, is_seen_as, pid_of, slot_offset, slot_u32,
    tell_of_exits,
};
use crate::error::Error;
use crate::mem::LockMapping;
use crate::mutex::lock;
use crate::os::descriptor::Descriptor;
use crate::os::process::ProcessId;
use crate::os::{file_system, fork, ofd};
use crate::region::Region;

/// A slot, and as what it is attached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    pub(crate) slot: u16,
    pub(crate) role: Role,
    /// The ring that it belongs to.
    pub(crate) ring: u32,
}

/// Slots that were attached together. One file description holds their locks, and they are given up together: the
/// kernel frees the bytes of all when the last mapping of it goes.
#[derive(Debug)]
pub(super) struct Ownership {
    region: Arc<Region>,
    owned: Vec<Owned>,
    /// Emptied when a copy of the description is passed on, whatever still has the slots.
    held: Mutex<Held>,
    owner: fork::Owner,
    /// Whether a copy of the description was passed on, and the locks with it.
    is_passed_on: AtomicBool,
}

/// What makes a process the owner, and tells others of its exit.
#[derive(Debug, Default)]
struct Held {
    lock: Option<Lock>,
    /// The description, open, if it may be passed on.
    description: Option<Descriptor>,
    /// Notifies peers when this process exits.
    pulse: Option<Pulse>,
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

impl Ownership {
    /// Takes the bytes of `seats`, all or none, and makes everything that earlier owners left behind stale. `None`
    /// if another process has one of them.
    pub(super) fn try_new(
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
        let held = Mutex::new(Held { lock: Some(lock), description, pulse: None });
        let (region_too, is_passed_on) = (region.clone(), AtomicBool::new(false));
        let mut ownership = Self { region: region_too, owned, held, owner, is_passed_on };
        let is_held = |seat: &Seat| byte_is_held(region, seat.slot..seat.slot + 1);
        let is_kept = match all(seats, is_held) {
            Ok(are_held) => are_held || ownership.keep_by_descriptor()?,
            Err(error) => {
                ownership.held_mut().lock = None; // whose the slots are is not known now: leave them alone
                return Err(error);
            }
        };
        Ok(is_kept.then_some(ownership))
    }

    /// Takes the bytes again and keeps them by an open descriptor, for a file system on which closing
    /// the first one dropped the locks although a mapping remained. `false` if another process was
    /// faster.
    pub(super) fn keep_by_descriptor(&mut self) -> Result<bool, Error> {
        self.held_mut().lock = None;
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
        let held = self.held_mut();
        held.description = None; // it is the lock
        held.lock = Some(Lock::Descriptor(description));
        Ok(true)
    }

    /// Takes over from an owner that has passed `description` on, which holds the bytes of `seats`. Until the caller
    /// [keeps](Self::keep) them the slots count as passed on: dropping this leaves them so.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process, which had a copy of the description too, was faster.
    pub(super) fn adopt(
        region: &Arc<Region>,
        seats: &[Seat],
        description: BorrowedFd<'_>,
    ) -> Result<Self, Error> {
        let io = |source| region.io_error("take over an endpoint of", source);
        let no_forks = fork::hold_off().map_err(|error| io(error.into()))?;
        let description = rustix::io::fcntl_dupfd_cloexec(description, 0);
        let description = description.map_err(|error| io(error.into()))?;
        let mapping = LockMapping::new(&description).map_err(io)?;
        let owner = fork::Owner::current().map_err(io)?;
        let claim = seats.first().map(|first| Claim::new(region, first)).transpose()?;
        // Its own locks are no obstacle.
        let Some(owned) = lock_and_renew(region, seats, &description)? else {
            let slot = seats.first().map_or(0, |seat| seat.slot);
            return Err(Error::LockLost { slot });
        };
        let kept = keep_open(description, mapping, &no_forks);
        let (lock, description) = kept.map_err(|error| io(error.into()))?;
        let held = Mutex::new(Held { lock: Some(lock), description, pulse: None });
        let (region, is_passed_on) = (region.clone(), AtomicBool::new(true));
        let mut ownership = Self { region, owned, held, owner, is_passed_on };
        if let Some(claim) = claim {
            claim.keep();
        }
        test_point!("adopt.claimed");
        match ownership.announce() {
            Ok(()) => Ok(ownership),
            Err(error) => {
                ownership.give_back();
                Err(error)
            }
        }
    }

    /// Has dropping it give up the slots that were taken over.
    pub(super) fn keep(&self) {
        self.is_passed_on.store(false, Relaxed);
    }

    pub(super) fn is_passed_on(&self) -> bool {
        self.is_passed_on.load(Relaxed)
    }

    /// A copy of the description that holds the locks, if it is open.
    ///
    /// # Errors
    /// What the kernel says; [`Errno::BADF`] if it is not open, or its number is another's by now.
    pub(super) fn copy_description(&self) -> Result<OwnedFd, Errno> {
        let held = self.held();
        let description = held.description().ok_or(Errno::BADF)?;
        description.stat()?;
        rustix::io::fcntl_dupfd_cloexec(description, 0)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }

    fn held_mut(&mut self) -> &mut Held {
        self.held.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// What it owns, each with its incarnation.
    pub(super) fn seats(&self) -> impl Iterator<Item = (Seat, u32)> {
        self.owned.iter().map(|owned| (owned.seat, owned.incarnation))
    }

    /// Whether only a descriptor keeps the locks, which anything in the process may close.
    pub(super) fn is_kept_by_descriptor(&self) -> bool {
        matches!(self.held().lock, Some(Lock::Descriptor(_)))
    }

    /// Gives the slots up, and leaves their bytes to the one who has a copy of the description.
    pub(super) fn pass_on(&self) {
        self.is_passed_on.store(true, Relaxed);
        self.give_back();
    }

    /// As [`Self::pass_on`], of slots that count as passed on already. Has nothing to give the second time.
    pub(super) fn give_back(&self) {
        let mut held = self.held();
        held.pulse = None; // before the next owner links its own
        // The first one last: it is what the next owner claims, see `Claim`.
        for owned in self.owned.iter().rev().filter(|owned| self.is_ours(&held, owned)) {
            self.set_state(owned.seat.slot, SlotState::InTransit);
            crash_point!("release.slot-passed-on");
        }
        (held.lock, held.description) = (None, None);
    }

    /// Fills the slots in and notifies the other side.
    pub(super) fn announce(&mut self) -> Result<(), Error> {
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
            if !self.is_passed_on() {
                let attaches = self.word_u64(owned.seat.slot, offset_of!(Slot, attaches));
                EndWords::new(&self.region, owned.seat.slot).reset(attaches.load(Relaxed) != 0);
            }
        }
        self.held_mut().pulse = Some(Pulse::start(&self.region, &slots)?);
        crash_point!("attach.filled");
        for slot in slots {
            let attaches = self.word_u64(slot, offset_of!(Slot, attaches)); // the owner's
            attaches.store(attaches.load(Relaxed).wrapping_add(1), Release);
            self.set_state(slot, SlotState::Attached);
            crash_point!("attach.slot-attached");
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
        let flags = if self.is_kept_by_descriptor() { slot_flags::LOCK_BY_FD } else { 0 };
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

    pub(super) fn note_lost(&self, slot: u16) {
        let of_slot = self.owned.iter().filter(|owned| owned.seat.slot == slot);
        of_slot.for_each(|owned| owned.is_lost.store(true, Relaxed));
    }

    /// Whether the slot is still this owner's, whatever it says. A lock that is kept by a descriptor is looked at
    /// once more.
    fn is_ours(&self, held: &Held, owned: &Owned) -> bool {
        let is_kept = match &held.lock {
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

impl Held {
    /// The description that holds the locks, if it is open.
    fn description(&self) -> Option<&Descriptor> {
        match &self.lock {
            Some(Lock::Descriptor(description)) => Some(description),
            _ => self.description.as_ref(),
        }
    }
}

impl Owned {
    fn identity(&self) -> LockWord {
        LockWord { slot: self.seat.slot, incarnation: self.incarnation }
    }
}

impl Drop for Ownership {
    fn drop(&mut self) {
        if !self.owner.is_here() || *self.is_passed_on.get_mut() {
            return; // in a forked child, or the locks went with the description: nothing here is ours
        }
        let mut held = std::mem::take(self.held_mut());
        let ours = self.owned.iter().filter(|owned| self.is_ours(&held, owned));
        let slots: Vec<_> = ours.map(|owned| owned.seat.slot).collect();
        if slots.is_empty() {
            return; // never attached, or the slots may be others'
        }
        slots.iter().for_each(|slot| self.set_state(*slot, SlotState::Detaching));
        crash_point!("detach.detaching");
        self.region.announce_membership();
        held.pulse = None;
        crash_point!("detach.without-pulse");
        slots.iter().for_each(|slot| self.set_state(*slot, SlotState::Free));
        if let Some(description) = held.description()
            && description.is_ours()
        {
            // Closing it, which follows, would do but for children just being forked.
            for slot in &slots {
                let _ = ofd::unlock(description.as_fd(), byte(*slot..*slot + 1));
            }
        }
        drop(held);
        crash_point!("detach.freed");
        self.region.announce_membership(); // now the bytes are free
        if self.region.is_alone() {
            tell_of_exits(&self.region, &slots);
        }
    }
}

/// The right to take slots over that were passed on together. All that have a copy of their description hold their bytes,
/// so the first slot's state decides: one process alone moves it on.
struct Claim<'a> {
    state: &'a AtomicU32,
}

impl<'a> Claim<'a> {
    fn new(region: &'a Region, first: &Seat) -> Result<Self, Error> {
        let Seat { slot, ring, .. } = *first;
        let state = slot_u32(region, slot, offset_of!(Slot, state));
        let (passed_on, taken) = (SlotState::InTransit as u32, SlotState::Attaching as u32);
        test_point!("adopt.to-claim");
        if left_out!("the claim of an end") {
            state.store(taken, Release);
            return Ok(Self { state });
        }
        match state.compare_exchange(passed_on, taken, AcqRel, Acquire) {
            Ok(_) => Ok(Self { state }),
            Err(_) if region.mapping().is_cut() => Err(region.cut_error()), // no state of a slot
            Err(_) => {
                Err(Error::Busy { ring, role: "sender", pid: pid_of(region, slot), places: 1 })
            }
        }
    }

    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.state.store(SlotState::InTransit as u32, Release);
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
        crash_point!("attach.slot-renewed");
    }
    Ok(Some(owned))
}

/// Whether `is_so` of all, or its first error.
pub(super) fn all<T>(
    items: &[T],
    mut is_so: impl FnMut(&T) -> Result<bool, Error>,
) -> Result<bool, Error> {
    for item in items {
        if !is_so(item)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn unix_ns() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
