//! Unit tests of slots that are attached together.
#![cfg(test)]

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

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
