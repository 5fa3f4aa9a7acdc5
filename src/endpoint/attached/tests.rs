//! Unit tests of an attached endpoint.
#![cfg(test)]

use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::thread::futex::OWNER_DIED;
use tombolo_abi::{LOCK_INIT, LayoutError, SlotState, slot_flags, wake};

use super::*;
use crate::crash::visits;
use crate::endpoint::{Interrupts, byte_is_held, slot_offset, slot_u32, tell_of_exits};
use crate::ends::Sending;
use crate::options::{CreatePolicy, MpscOrder};
use crate::os::{ofd, staged};
use crate::{Deadline, EventsRegion, OpenOptions, TryRecvError};

const DAMAGE: Damage = Damage::Marked { code: 1 };

#[test]
fn damage_wakes_the_blocked_producers_of_all_lanes() {
    let options = OpenOptions::new().mpsc_capacity(4096).producers(3);
    let region = EventsRegion::anonymous(options.mpsc_order(MpscOrder::PerProducer));
    let (mut tx, _) = region.unwrap().split_mpsc().unwrap();
    tx.attach().unwrap();
    let end = tx.attached_end().unwrap();
    let region = end.slot.region();
    let lanes = end.group.rings.clone().map(|lane| map_ring(region, lane, end.index).unwrap());
    let lanes: Vec<_> = lanes.collect();
    assert_eq!(lanes.len(), 3);
    for lane in &lanes {
        lane.memory.store(Word::TxWake, wake::ARMED_FUTEX.into(), Relaxed);
    }
    let _ = end.damaged(DAMAGE);
    for lane in &lanes {
        assert_eq!(lane.memory.load(Word::TxWake, Relaxed), 0);
    }
}

/// The region of a channel that no other process has.
fn of_a_channel() -> Arc<Region> {
    let options = OpenOptions::new().of_channel().unwrap();
    EventsRegion::anonymous(options).unwrap().shared().clone()
}

#[test]
fn each_side_of_a_channel_sends_where_the_other_receives_and_has_one_owner_ever() {
    let region = of_a_channel();
    let sides = [(); 2].map(|()| Attached::attach_in_new(&region).unwrap());
    let [one, other] = sides.each_ref().map(|(tx, rx)| (tx.index, rx.index));
    assert_eq!((one, other), ((0, 1), (1, 0)));
    assert!(matches!(Attached::attach_in_new(&region), Err(Error::Busy { .. })));
    drop(sides);
    let refused = Attached::attach_in_new(&region);
    assert!(matches!(refused, Err(Error::LaneNotEmpty { .. })), "{refused:?}");
}

#[test]
fn a_slot_has_had_an_owner_once_one_told_of_itself_or_died_before_it_could() {
    let region = of_a_channel();
    let slot = region.entries()[0].tx_slot_first;
    assert!(never_had_owner(&region, slot, Byte::Free).unwrap());
    let there = region.clone();
    let visit = visits::at("attach.filling", move || {
        // It is about to be found held.
        assert!(never_had_owner(&there, slot, Byte::Free).unwrap());
    });
    let side = Attached::attach_in_new(&region).unwrap();
    drop(visit);
    assert!(!never_had_owner(&region, slot, Byte::Free).unwrap());
    drop(side);
    // Another has been there, and had gone when the byte was taken.
    assert!(!never_had_owner(&region, slot, Byte::Ours).unwrap());

    let region = of_a_channel();
    slot_u32(&region, slot, offset_of!(Slot, incarnation)).store(1, Relaxed);
    assert!(!never_had_owner(&region, slot, Byte::Free).unwrap());
}

#[test]
fn one_ring_of_a_channel_has_one_owner_ever_of_each_end_too() {
    let region = of_a_channel();
    drop([(); 2].map(|()| Attached::attach_in_new(&region).unwrap()));
    let until = Until { deadline: Deadline::PAST, interrupts: Interrupts::never() };
    for role in [Role::Sender, Role::Receiver] {
        let refused = Attached::attach(&region, 0, role, until).map(drop);
        assert!(matches!(refused, Err(Error::LaneNotEmpty { .. })), "{refused:?}");
    }
}

#[test]
fn it_is_told_to_the_ends_that_watch_that_slot_of_that_region_and_to_no_others() {
    let regions = [of_a_channel(), of_a_channel()];
    let sides = regions.each_ref().map(|region| {
        let side = || Attached::attach_in_new(region).unwrap();
        [side(), side()]
    });
    let [[(tx, rx), (_, their_rx)], [(other_tx, other_rx), _]] = &sides;
    let exits = || [tx, rx, other_tx, other_rx].map(|end| end.watch.peer_exits());
    let before = exits();
    tell_of_exits(&regions[0], &[their_rx.slot.identity().slot]);
    let told = exits().iter().zip(before).map(|(now, before)| now - before).collect::<Vec<_>>();
    assert_eq!(told, [1, 0, 0, 0]);
}

#[test]
fn an_exit_within_a_region_that_is_this_processs_alone_is_told_before_it_is_over() {
    let region = of_a_channel();
    let (tx, rx) = Attached::attach_in_new(&region).unwrap();
    let (their_tx, their_rx) = Attached::attach_in_new(&region).unwrap();
    let exits = || [&tx, &rx].map(|end| end.watch.peer_exits());
    let before = exits();
    drop(their_tx);
    assert_eq!(exits(), before, "the side is given up as a whole");
    drop(their_rx);
    assert!(exits().iter().zip(before).all(|(now, before)| *now != before));
    let seen = tx.meeting.poll(&tx.slot).unwrap();
    assert!(!seen.is_any_alive && seen.incarnations == 1);
}

#[test]
fn a_receiver_that_is_to_look_does_not_sleep() {
    let region = of_a_channel();
    let (_tx, rx) = Attached::attach_in_new(&region).unwrap();
    let known = Some(rx.counted());
    rx.rx_wake().store(wake::ARMED_FUTEX, Relaxed);
    assert!(!rx.has_peer_exits(known));
    rx.wake_own();
    assert!(rx.has_peer_exits(known));
    assert_eq!(rx.rx_wake().load(Relaxed) & wake::ARMED_FUTEX, 0);
}

#[test]
fn a_forked_child_which_lacks_the_mapping_wakes_none() {
    let region = of_a_channel();
    let (_tx, rx) = Attached::attach_in_new(&region).unwrap();
    let before = rx.watch.peer_exits();
    assert!(staged::in_child(|| {
        rx.wake_own();
        rx.watch.peer_exits() == before
    }));
}

#[test]
fn who_finds_a_ring_damaged_when_it_attaches_owns_no_end_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let options = OpenOptions::new().spsc_capacity(4096).mpsc_capacity(4096);
    let open = || EventsRegion::open_path_with(&path, options.clone()).unwrap();
    let ((mut tx, mut rx), (mut early, _)) =
        (open().split_spsc().unwrap(), open().split_spsc().unwrap());
    early.attach().unwrap();
    let _ = early.attached_end().unwrap().damaged(DAMAGE);
    drop(early);
    assert!(matches!(tx.attach(), Err(Error::Poisoned { .. })));
    assert!(matches!(rx.attach(), Err(Error::Poisoned { .. })));
    let anew = options.clone().policy(CreatePolicy::CreateNew);
    assert!(EventsRegion::open_path_with(&path, anew).unwrap().is_creator(), "an end is owned");
}

#[test]
fn an_error_says_the_position_that_is_wrong() {
    let options = OpenOptions::new().spsc_capacity(4096);
    let (mut tx, _) = EventsRegion::anonymous(options).unwrap().split_spsc().unwrap();
    tx.attach().unwrap();
    let damage = Damage::Position { word: "head", found: 7, against: "tail", other: 5 };
    let error = tx.attached_end().unwrap().damaged(damage);
    assert!(matches!(error, Error::Poisoned { position: 7, .. }), "{error:?}");
}

/// Both ends of a ring, attached.
fn pair() -> (crate::SpscSender, crate::SpscReceiver) {
    let options = OpenOptions::new().spsc_capacity(4096);
    let (mut tx, mut rx) = EventsRegion::anonymous(options).unwrap().split_spsc().unwrap();
    tx.attach().unwrap();
    rx.attach().unwrap();
    (tx, rx)
}

#[test]
fn nothing_is_attached_while_the_region_may_be_replaced() {
    let options = OpenOptions::new().spsc_capacity(4096);
    let mut region = EventsRegion::anonymous(options).unwrap();
    let (_, mut rx) = region.split_spsc().unwrap();
    let replacer = region.shared().reopen().unwrap();
    let init = LOCK_INIT..LOCK_INIT + 1;
    assert!(ofd::try_lock(replacer.as_fd(), init, ofd::Mode::Exclusive).unwrap());
    let attached = rx.attach();
    let Err(Error::Layout { reason, .. }) = attached else { panic!("{attached:?}") };
    assert!(matches!(reason, LayoutError::NotReady { .. }));
    drop(replacer);
    rx.attach().unwrap();
}

#[test]
fn who_waits_for_an_end_sleeps_in_between() {
    let options = OpenOptions::new().spsc_capacity(4096);
    let mut region = EventsRegion::anonymous(options).unwrap();
    let ((_, mut rx), (_, mut other)) =
        (region.split_spsc().unwrap(), region.split_spsc().unwrap());
    rx.attach().unwrap();
    let before = staged::sleeps();
    let attached = other.receiving_until(Duration::from_millis(200).into()).map(drop);
    assert!(matches!(attached, Err(Error::Busy { .. })), "{attached:?}");
    assert!(before.is_none_or(|before| staged::sleeps().unwrap() > before + 2));
}

#[test]
fn one_of_many_senders_counts_what_it_has_sent() {
    let options = OpenOptions::new().mpsc_capacity(4096);
    let (mut tx, _) = EventsRegion::anonymous(options).unwrap().split_mpsc().unwrap();
    tx.send(b"three").unwrap();
    tx.send_batch(&[b"messages", b"in all"]).unwrap();
    let end = tx.attached_end().unwrap();
    let (region, slot) = (end.slot.region(), end.slot.identity().slot);
    let count = |offset| region.mapping().word_u64(slot_offset(region, slot, offset)).load(Relaxed);
    assert_eq!([count(offset_of!(Slot, msgs)), count(offset_of!(Slot, bytes))], [3, 19]);
}

#[test]
fn a_slot_says_that_it_is_being_filled_in_and_keeps_nothing_of_its_owner_before() {
    let options = OpenOptions::new().spsc_capacity(4096).mode(0o660);
    let mut region = EventsRegion::anonymous(options).unwrap();
    let (_, mut rx) = region.split_spsc().unwrap();
    let (shared, slot) = (region.shared().clone(), region.shared().entries()[0].rx_slot);
    let word = move |offset| slot_u32(&shared, slot, offset).load(Relaxed);
    let liveness = slot_u32(region.shared(), slot, offset_of!(Slot, liveness));
    liveness.store(OWNER_DIED, Relaxed);
    let meanwhile = word.clone();
    let visit = visits::at("attach.filling", move || {
        assert_eq!(meanwhile(offset_of!(Slot, seqlock)) % 2, 1);
        assert_eq!(meanwhile(offset_of!(Slot, state)), SlotState::Attaching as u32);
    });
    rx.attach().unwrap();
    drop(visit);
    assert_eq!(word(offset_of!(Slot, seqlock)) % 2, 0);
    assert_eq!(word(offset_of!(Slot, state)), SlotState::Attached as u32);
    assert_eq!(word(offset_of!(Slot, flags)) & slot_flags::LOCK_BY_FD, 0);
    assert_eq!(liveness.load(Relaxed), 0);
}

/// The region and the slot of an attached sender.
fn place(tx: &crate::SpscSender) -> (Arc<Region>, u16) {
    let slot = &tx.attached_end().unwrap().slot;
    (slot.region().clone(), slot.identity().slot)
}

#[test]
fn an_end_is_announced_when_it_is_about_to_be_left_and_again_when_another_may_have_it() {
    let (tx, _rx) = pair();
    let (region, slot) = place(&tx);
    let (there, before) = (region.clone(), region.membership().load(Relaxed));
    let visit = visits::at("detach.freed", move || {
        let word = |offset| slot_u32(&there, slot, offset).load(Relaxed);
        assert_eq!(word(offset_of!(Slot, state)), SlotState::Free as u32);
        assert_eq!(word(offset_of!(Slot, liveness)), 0, "on the list of this process still");
        assert!(!byte_is_held(&there, slot..slot + 1).unwrap());
        assert_eq!(there.membership().load(Relaxed), before + 1);
    });
    drop(tx);
    drop(visit);
    assert_eq!(region.membership().load(Relaxed), before + 2);
}

#[test]
fn a_slot_says_that_it_is_being_left() {
    let (tx, _rx) = pair();
    let (region, slot) = place(&tx);
    let visit = visits::at("detach.detaching", move || {
        let state = slot_u32(&region, slot, offset_of!(Slot, state)).load(Relaxed);
        assert_eq!(state, SlotState::Detaching as u32);
    });
    drop(tx);
    drop(visit);
}

#[test]
fn an_end_that_was_lost_once_stays_lost_and_is_left_as_it_is() {
    let (tx, _rx) = pair();
    let (region, slot) = place(&tx);
    let end = tx.attached_end().unwrap();
    let incarnation = slot_u32(&region, slot, offset_of!(Slot, incarnation));
    incarnation.fetch_add(1, Relaxed);
    assert!(matches!(end.slot.is_any_held(0..1), Err(Error::LockLost { .. })));
    incarnation.fetch_sub(1, Relaxed);
    assert!(matches!(end.slot.is_any_held(0..1), Err(Error::LockLost { .. })));
    drop(tx);
    let state = slot_u32(&region, slot, offset_of!(Slot, state)).load(Relaxed);
    assert_eq!(state, SlotState::Attached as u32);
}

#[test]
fn an_end_in_a_file_that_was_cut_is_not_called_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let options = OpenOptions::new().spsc_capacity(4096);
    let (mut tx, _) = EventsRegion::open_path_with(&path, options).unwrap().split_spsc().unwrap();
    tx.attach().unwrap();
    let end = tx.attached_end().unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
    let found = end.slot.is_any_held(0..1);
    assert!(matches!(found, Err(Error::RegionTooSmall { .. })), "{found:?}");
}

#[test]
fn a_ring_counts_its_receivers_sleeps_and_not_its_senders() {
    let (tx, rx) = pair();
    let (tx, rx) = (tx.attached_end().unwrap(), &rx.receiving.as_ref().unwrap().end);
    let sleeps = || rx.ring.memory.group_u64(offset_of!(RingControl, sleeps)).load(Relaxed);
    tx.count_sleep();
    assert_eq!(sleeps(), 0);
    rx.count_sleep();
    assert_eq!(sleeps(), 1);
}

#[test]
fn what_was_counted_is_not_added_to_what_a_successor_counts() {
    let (mut tx, rx) = pair();
    tx.send(b"a message").unwrap();
    let Sending { end, wakes, .. } = tx.usable_sending().unwrap();
    let (region, slot) = (end.slot.region(), end.slot.identity().slot);
    let counted = || {
        let words = [offset_of!(Slot, wakes_sent), offset_of!(Slot, wakes_elided)];
        let at = words.map(|offset| slot_offset(region, slot, offset));
        at.map(|at| region.mapping().word_u64(at).load(Relaxed))
    };
    slot_u32(region, slot, offset_of!(Slot, incarnation)).fetch_add(1, Relaxed);
    assert!(matches!(end.slot.is_any_held(0..1), Err(Error::LockLost { .. })));
    assert_eq!(counted(), [0, 0]);
    end.settle(wakes);
    assert_eq!(counted(), [0, 0]);
    drop(rx);
}

/// A receiver that found nothing, in a file that was truncated since.
fn of_a_cut_file(test: impl FnOnce(&mut crate::SpscReceiver)) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let options = OpenOptions::new().spsc_capacity(4096).mpsc_capacity(4096).producers(1);
    let mut region = EventsRegion::open_path_with(&path, options).unwrap();
    let (_tx, mut rx) = region.split_spsc().unwrap();
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    let data = region.shared().entries()[0].data_offset;
    std::fs::File::options().write(true).open(path).unwrap().set_len(data).unwrap();
    test(&mut rx);
}

#[test]
fn an_empty_ring_whose_data_was_cut_off_is_not_said_to_be_empty_even_once() {
    of_a_cut_file(|rx| {
        let received = rx.try_recv();
        let Err(TryRecvError::Failed { source }) = received else { panic!("{received:?}") };
        assert!(matches!(source, Error::RegionTooSmall { .. }), "{source}");
    });
}

#[test]
fn what_is_wrong_with_a_file_that_was_cut_is_that_and_marks_no_damage() {
    of_a_cut_file(|rx| {
        let end = &rx.receiving.as_ref().unwrap().end;
        end.ring.memory.load(Word::Data(0), Relaxed); // finds out
        assert!(matches!(end.damaged(DAMAGE), Error::RegionTooSmall { .. }));
        assert!(end.ring.is_open());
    });
}

#[test]
fn a_last_look_at_a_ring_that_was_found_cut_off_says_so() {
    of_a_cut_file(|rx| {
        let receiving = rx.receiving.as_mut().unwrap();
        assert!(matches!(receiving.front(), Ok(None))); // zeros
        assert!(matches!(receiving.last_poll(), Err(Error::RegionTooSmall { .. })));
    });
}
