//! Unit tests of slots that are attached together.
#![cfg(test)]

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tombolo_abi::Header;

use super::*;
use crate::EventsRegion;
use crate::crash::visits;
use crate::endpoint::OwnedSlot;
use crate::endpoint::slot::tests::{own, region, seat, word};
use crate::os::signals::blocked;
use crate::os::staged::{self, Bystander, Call, usurp};

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
    let Some(Lock::Descriptor(description)) = &ours.held_mut().lock else { panic!() };
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

/// Slot 0 as its owner has passed it on, and the description that holds its byte.
fn passed_on(region: &EventsRegion) -> (Ownership, OwnedFd) {
    let ours = Ownership::try_new(region.shared(), &[seat(0)], true);
    let mut ours = ours.unwrap().unwrap();
    ours.announce().unwrap();
    let lock = ours.copy_description().unwrap();
    ours.pass_on();
    (ours, lock)
}

fn adopt(region: &EventsRegion, lock: &OwnedFd) -> Result<Ownership, Error> {
    Ownership::adopt(region.shared(), &[seat(0)], lock.as_fd())
}

fn set_region_state(region: &EventsRegion, state: RegionState) {
    let word = region.shared().mapping().word_u32(offset_of!(Header, state) as u64);
    word.store(state as u32, Relaxed);
}

fn state(region: &EventsRegion) -> u32 {
    word(region, offset_of!(Slot, state)).load(Relaxed)
}

#[test]
fn only_what_was_passed_on_counts_so_and_its_owner_before_does_nothing_to_it_any_more() {
    let region = region();
    let first = Ownership::try_new(region.shared(), &[seat(0)], true).unwrap().unwrap();
    assert!(!first.is_passed_on());
    drop(first);
    let (before, lock) = passed_on(&region);
    assert_eq!(state(&region), SlotState::InTransit as u32);
    assert!(before.is_passed_on());
    assert!(before.held().pulse.is_none(), "the next owner links its own");
    let next = adopt(&region, &lock).unwrap();
    next.keep();
    before.pass_on();
    assert_eq!(state(&region), SlotState::Attached as u32);
    drop(before);
    assert_eq!(state(&region), SlotState::Attached as u32);
    drop(next);
    assert_eq!(state(&region), SlotState::Free as u32);
}

#[test]
fn what_may_be_passed_on_is_kept_by_a_mapping_all_the_same_if_that_is_known_to_hold_locks() {
    let region = region(); // in memory
    let mut ours = Ownership::try_new(region.shared(), &[seat(0)], true).unwrap().unwrap();
    assert!(!ours.is_kept_by_descriptor());
    drop(ours.held_mut().description.take());
    assert!(byte_is_held(region.shared(), 0..1).unwrap());
}

#[test]
fn one_process_takes_a_slot_over_from_the_first_moment_on() {
    let region = Rc::new(region());
    let (_before, lock) = passed_on(&region);
    let (there, copy) = (region.clone(), lock.try_clone().unwrap());
    let visit = visits::at("adopt.claimed", move || {
        let refused = adopt(&there, &copy).map(drop);
        assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    });
    adopt(&region, &lock).unwrap().keep();
    drop(visit);
}

#[test]
fn a_slot_that_cannot_be_taken_over_now_can_be_later() {
    let region = region();
    let (_before, lock) = passed_on(&region);
    set_region_state(&region, RegionState::Retired);
    let refused = adopt(&region, &lock).map(drop);
    assert!(matches!(refused, Err(Error::Replaced { .. })), "{refused:?}");
    assert_eq!(state(&region), SlotState::InTransit as u32);
    set_region_state(&region, RegionState::Ready);
    adopt(&region, &lock).unwrap().keep();
}

#[test]
fn a_slot_is_taken_over_with_the_description_that_has_its_byte_alone() {
    let region = region();
    let (_before, lock) = passed_on(&region);
    let other = region.shared().reopen().unwrap();
    let refused = adopt(&region, &other).map(drop);
    assert!(matches!(refused, Err(Error::LockLost { slot: 0 })), "{refused:?}");
    assert_eq!(state(&region), SlotState::InTransit as u32);
    adopt(&region, &lock).unwrap().keep();
}

#[test]
fn a_slot_that_was_taken_over_and_not_kept_is_not_given_up() {
    let region = region();
    let (_before, lock) = passed_on(&region);
    drop(adopt(&region, &lock).unwrap());
    assert_ne!(state(&region), SlotState::Free as u32);
    assert!(byte_is_held(region.shared(), 0..1).unwrap());
}

#[test]
fn what_has_the_number_of_a_description_by_now_is_not_passed_on() {
    let region = region();
    let ours = Ownership::try_new(region.shared(), &[seat(0)], true).unwrap().unwrap();
    let number = ours.held().description().unwrap().as_fd().as_raw_fd();
    usurp(number, File::open("/proc/self/exe").unwrap());
    assert_eq!(ours.copy_description().unwrap_err(), Errno::BADF);
}

#[test]
fn a_slot_that_is_given_up_is_off_the_robust_list_before_another_can_have_it() {
    let region = Rc::new(region());
    let mut ours = Ownership::try_new(region.shared(), &[seat(0)], false).unwrap().unwrap();
    ours.announce().unwrap();
    let liveness = || word(&region, offset_of!(Slot, liveness)).load(Relaxed);
    if liveness() == 0 {
        return eprintln!("skipped: the kernel refuses robust lists");
    }
    let there = region.clone();
    let visit = visits::at("detach.without-pulse", move || {
        assert!(byte_is_held(there.shared(), 0..1).unwrap());
        assert_eq!(word(&there, offset_of!(Slot, liveness)).load(Relaxed), 0);
    });
    drop(ours);
    drop(visit);
}

#[test]
fn a_slot_that_is_another_owners_before_it_is_announced_stays_as_it_is() {
    let region = region();
    let mut ours = Ownership::try_new(region.shared(), &[seat(0)], false).unwrap().unwrap();
    word(&region, offset_of!(Slot, incarnation)).fetch_add(1, Relaxed);
    word(&region, offset_of!(Slot, state)).store(SlotState::Attached as u32, Relaxed);
    assert!(matches!(ours.announce(), Err(Error::LockLost { slot: 0 })));
    let membership = region.shared().membership().load(Relaxed);
    drop(ours);
    assert_eq!(state(&region), SlotState::Attached as u32);
    assert_eq!(region.shared().membership().load(Relaxed), membership, "and is announced to none");
}

#[test]
fn so_does_one_whose_byte_was_kept_by_a_descriptor_only() {
    let region = region();
    let (ours, _) = own_by_descriptor(&region);
    word(&region, offset_of!(Slot, incarnation)).fetch_add(1, Relaxed);
    word(&region, offset_of!(Slot, state)).store(SlotState::Attached as u32, Relaxed);
    drop(ours);
    assert_eq!(state(&region), SlotState::Attached as u32);
}

#[test]
fn a_slot_in_a_file_that_was_cut_before_it_is_announced_is_not_called_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let region = EventsRegion::open_path(&path).unwrap();
    let mut ours = Ownership::try_new(region.shared(), &[seat(0)], false).unwrap().unwrap();
    File::options().write(true).open(path).unwrap().set_len(0).unwrap();
    let found = ours.announce();
    assert!(matches!(found, Err(Error::RegionTooSmall { .. })), "{found:?}");
}

#[test]
fn a_lock_that_is_taken_again_is_renewed_with_no_handler_and_no_fork_between() {
    let Some(before) = blocked() else { return eprintln!("skipped: no /proc") };
    let region = region();
    let seats = [seat(0), seat(3)];
    let mut ours = Ownership::try_new(region.shared(), &seats, false).unwrap().unwrap();
    let identities = |ours: &Ownership| ours.owned.iter().map(Owned::identity).collect::<Vec<_>>();
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
    for slot in OwnedSlot::all_of(&Arc::new(ours)) {
        assert!(slot.check_kept().is_ok() && !slot.is_surely_kept());
    }
    own(&region, 0);
    own(&region, 3);
}
