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
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use std::time::Duration;

use rustix::io::Errno;
use tombolo_abi::{LockWord, RegionState, Role, Slot, SlotState, next_incarnation, slot_flags};

use crate::backoff::Backoff;
use crate::crash::{crash_point, test_point};
use crate::endpoint::{
    Interrupts, Pulse, Until, byte, byte_is_held, is_seen_as, pid_of, slot_offset, slot_u32,
};
use crate::error::Error;
use crate::mem::LockMapping;
use crate::os::descriptor::Descriptor;
use crate::os::process::ProcessId;
use crate::os::{fork, ofd};
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

/// An attached slot. Dropping it detaches the endpoint.
#[derive(Debug)]
pub(crate) struct OwnedSlot {
    region: Arc<Region>,
    slot: u16,
    incarnation: u32,
    lock: Option<Lock>,
    /// Notifies peers when this process exits.
    pulse: Option<Pulse>,
    owner: fork::Owner,
    /// One of [`Kept`], and [`INTERRUPTIBLE`].
    kept: AtomicU8,
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

/// What to attach to.
pub(crate) struct Wanted<'a> {
    /// As what.
    pub(crate) role: Role,
    /// Any one of these slots.
    pub(crate) slots: Range<u16>,
    /// The ring that a slot belongs to.
    pub(crate) ring_of: &'a dyn Fn(u16) -> u32,
    /// Whether a slot without an owner can be taken. Checked before and after taking its byte.
    pub(crate) is_fit: &'a dyn Fn(u16) -> Result<bool, Error>,
}

impl OwnedSlot {
    /// Attaches to one of the slots wanted, waiting `until` then, but at least 100 ms, and no longer than
    /// that if there is no deadline.
    ///
    /// # Errors
    /// [`Error::Busy`] if all are held, [`Error::LaneNotEmpty`] if one is not and has messages
    /// that are still to be received, [`Error::Replaced`] if the region is no longer the
    /// one to use, and what the system calls say.
    pub(crate) fn attach(
        region: &Arc<Region>,
        wanted: &Wanted<'_>,
        until: Until<'_>,
    ) -> Result<Self, Error> {
        let until = attach_until(until);
        let mut backoff = Backoff::new();
        loop {
            let attaching = InitLock::try_shared(region)?;
            if attaching.is_some()
                && let Some(mut slot) = Self::try_candidates(region, wanted)?
            {
                slot.announce(wanted)?;
                return Ok(slot);
            }
            let is_replaced = attaching.is_none();
            drop(attaching); // a call that only waits holds up no replacer
            if until.is_over() || !backoff.wait(until.deadline) {
                return Err(if is_replaced { region.replacing() } else { busy(region, wanted)? });
            }
        }
    }

    fn try_candidates(region: &Arc<Region>, wanted: &Wanted<'_>) -> Result<Option<Self>, Error> {
        for slot in wanted.slots.clone() {
            if byte_is_held(region, slot..slot + 1)? || !(wanted.is_fit)(slot)? {
                continue;
            }
            if let Some(attached) = Self::try_attach(region, slot)?
                && (wanted.is_fit)(slot)?
            {
                return Ok(Some(attached)); // else another attached and detached meanwhile
            }
        }
        Ok(None)
    }

    /// Takes the byte of `slot` and makes everything that its earlier owner left behind stale.
    fn try_attach(region: &Arc<Region>, slot: u16) -> Result<Option<Self>, Error> {
        let io = |source| region.io_error("attach to an endpoint of", source);
        let no_forks = fork::hold_off().map_err(|error| io(error.into()))?;
        let description = region.reopen()?;
        let mapping = LockMapping::new(&description).map_err(io)?;
        let Some(incarnation) = lock_and_renew(region, slot, &description)? else {
            return Ok(None);
        };
        crash_point!("attach.locked");
        let (owner, lock) = (fork::Owner::current().map_err(io)?, Some(Lock::Mapping(mapping)));
        let kept = AtomicU8::new(Kept::Surely as u8);
        let region_too = region.clone();
        let mut attached =
            Self { region: region_too, slot, incarnation, lock, pulse: None, owner, kept };
        drop(description);
        drop(no_forks);
        let is_kept = match byte_is_held(region, slot..slot + 1) {
            Ok(is_held) => is_held || attached.keep_by_descriptor()?,
            Err(error) => {
                attached.lock = None; // the slot's owner is not known now: leave it alone
                return Err(error);
            }
        };
        Ok(is_kept.then_some(attached))
    }

    /// Takes the byte again and keeps it by an open descriptor, for a file system on which closing
    /// the first one dropped the lock although a mapping remained. `false` if another process was
    /// faster.
    fn keep_by_descriptor(&mut self) -> Result<bool, Error> {
        self.lock = None;
        let io = |error: Errno| self.region.io_error("attach to an endpoint of", error.into());
        let no_forks = fork::hold_off().map_err(io)?;
        let description = self.region.reopen()?;
        let description = Descriptor::private(description, &no_forks).map_err(io)?;
        let Some(incarnation) = lock_and_renew(&self.region, self.slot, &description)? else {
            return Ok(false);
        };
        test_point!("attach.locked-again");
        self.incarnation = incarnation;
        self.lock = Some(Lock::Descriptor(description));
        *self.kept.get_mut() = Kept::Perhaps as u8;
        Ok(true)
    }

    /// Fills the slot in and notifies the other side.
    fn announce(&mut self, wanted: &Wanted<'_>) -> Result<(), Error> {
        self.check_held()?;
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
        // First what a dead predecessor's watchers would take for ours.
        self.word_u32(offset_of!(Slot, liveness)).store(0, Release);
        self.set_state(SlotState::Attaching);
        self.fill(wanted);
        self.pulse = Some(Pulse::start(&self.region, self.slot)?);
        crash_point!("attach.filled");
        let attaches = self.word_u64(offset_of!(Slot, attaches)); // the owner's
        attaches.store(attaches.load(Relaxed).wrapping_add(1), Release);
        self.set_state(SlotState::Attached);
        self.region.announce_membership();
        Ok(())
    }

    fn fill(&self, wanted: &Wanted<'_>) {
        let identity = ProcessId::current();
        let seqlock = self.word_u32(offset_of!(Slot, seqlock));
        let odd = seqlock.load(Relaxed) | 1; // ours; odd already if a predecessor died here
        seqlock.store(odd, Relaxed);
        std::sync::atomic::fence(Release); // readers that see a new field see the odd count
        let by_descriptor = matches!(self.lock, Some(Lock::Descriptor(_)));
        let flags = if by_descriptor { slot_flags::LOCK_BY_FD } else { 0 };
        for (offset, value) in [
            (offset_of!(Slot, pid), identity.pid),
            (offset_of!(Slot, role), wanted.role as u32),
            (offset_of!(Slot, ring), (wanted.ring_of)(self.slot)),
            (offset_of!(Slot, flags), flags),
        ] {
            self.word_u32(offset).store(value, Relaxed);
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
            self.word_u64(offset).store(value, Relaxed);
        }
        test_point!("attach.filling");
        seqlock.store(odd.wrapping_add(1), Release);
    }

    /// The region that the slot belongs to.
    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// The slot and incarnation, as an MPSC lock word names them.
    pub(crate) fn identity(&self) -> LockWord {
        LockWord { slot: self.slot, incarnation: self.incarnation }
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
        Err(Error::LockLost { slot: self.slot })
    }

    fn set_state(&self, state: SlotState) {
        self.word_u32(offset_of!(Slot, state)).store(state as u32, Release);
    }

    fn word_u32(&self, offset: usize) -> &AtomicU32 {
        slot_u32(&self.region, self.slot, offset)
    }

    fn word_u64(&self, offset: usize) -> &AtomicU64 {
        self.region.mapping().word_u64(slot_offset(&self.region, self.slot, offset))
    }
}

impl Drop for OwnedSlot {
    fn drop(&mut self) {
        if !self.owner.is_here() || self.lock.is_none() {
            return; // in a forked child, or never attached: nothing here is ours
        }
        if self.check_kept().is_err() {
            return; // the slot may be another's
        }
        self.set_state(SlotState::Detaching);
        crash_point!("detach.detaching");
        self.region.announce_membership();
        self.pulse = None;
        self.set_state(SlotState::Free);
        if let Some(Lock::Descriptor(description)) = &self.lock
            && description.is_ours()
        {
            // Closing it, which follows, would do but for children just being forked.
            let _ = ofd::unlock(description.as_fd(), byte(self.slot..self.slot + 1));
        }
        self.lock = None;
        test_point!("detach.freed");
        self.region.announce_membership(); // now the byte is free
    }
}

/// Takes the byte of `slot` on `description` and at once moves its incarnation on, which makes the
/// earlier owner dead by definition. `None` if another process holds the byte. The caller holds off
/// forks and signals.
fn lock_and_renew(
    region: &Region,
    slot: u16,
    description: impl AsFd,
) -> Result<Option<u32>, Error> {
    let word = slot_u32(region, slot, offset_of!(Slot, incarnation));
    let locked = ofd::try_lock(description.as_fd(), byte(slot..slot + 1), ofd::Mode::Exclusive);
    if !locked.map_err(|source| region.io_error("lock an endpoint of", source))? {
        return Ok(None);
    }
    let incarnation = next_incarnation(word.load(Relaxed)); // ours from here on
    word.store(incarnation, Release);
    Ok(Some(incarnation))
}

/// Why none of the slots wanted could be taken; a slot without an owner explains more than a held one.
fn busy(region: &Region, wanted: &Wanted<'_>) -> Result<Error, Error> {
    let mut pid = 0;
    for slot in wanted.slots.clone() {
        if byte_is_held(region, slot..slot + 1)? {
            pid = if pid == 0 { pid_of(region, slot) } else { pid };
        } else if !(wanted.is_fit)(slot)? {
            let lanes = wanted.slots.len();
            return Ok(Error::LaneNotEmpty { ring: (wanted.ring_of)(slot), lanes });
        }
    }
    let role = match wanted.role {
        Role::Receiver => "receiver",
        Role::Sender => "sender",
    };
    let (ring, places) = ((wanted.ring_of)(wanted.slots.start), wanted.slots.len());
    Ok(Error::Busy { ring, role, pid, places })
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
        let wanted = Wanted { role: Role::Sender, slots, ring_of: &|_| 0, is_fit };
        OwnedSlot::attach(region.shared(), &wanted, until)
    }

    pub(in crate::endpoint) fn region() -> EventsRegion {
        EventsRegion::anonymous(OpenOptions::new()).unwrap()
    }

    /// A word of slot 0.
    pub(in crate::endpoint) fn word(region: &EventsRegion, offset: usize) -> &AtomicU32 {
        slot_u32(region.shared(), 0, offset)
    }

    #[test]
    fn a_byte_that_is_held_is_not_taken_and_its_owner_stays_in_the_slot() {
        let region = region();
        let _theirs = own(&region, 0);
        let incarnation = || word(&region, offset_of!(Slot, incarnation)).load(Relaxed);
        let before = incarnation();
        assert!(OwnedSlot::try_attach(region.shared(), 0).unwrap().is_none());
        assert_eq!(incarnation(), before);
    }

    /// An endpoint that is kept by a descriptor, and the number of that.
    fn own_by_descriptor(region: &EventsRegion) -> (OwnedSlot, RawFd) {
        let mut ours = own(region, 0);
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
            OwnedSlot::try_attach(region.shared(), 0).map(drop)
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
        let mut ours = own(&region, 0);
        let earlier = ours.identity();
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
        assert_ne!(ours.identity(), earlier);
        assert!(ours.check_held().is_ok() && !ours.is_surely_kept());
        drop(ours);
        own(&region, 0);
    }
}
