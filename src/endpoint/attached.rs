//! An attached endpoint, with its ring.

use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, fence};

use tombolo_abi::{LayoutError, RingControl, RingEntry, RingKind, Role, Slot};

use crate::endpoint::{
    Byte, Group, Meeting, OwnedSlot, Seat, Until, Wanted, Watch, attaches, byte_is_held,
    incarnations,
};
use crate::error::{Damage, Error};
use crate::mem::RingSpan;
use crate::os::futex;
use crate::region::Region;
use crate::ring::doorbell::{Polled, poll};
use crate::ring::{Memory, Ring, Wakes, Word};

/// An owned slot and the ring that it belongs to.
#[derive(Debug)]
pub(crate) struct Attached {
    /// The slot.
    pub(crate) slot: OwnedSlot,
    /// As what.
    pub(crate) role: Role,
    /// The ring, mapped.
    pub(crate) ring: Ring<RingSpan>,
    /// Its index in the directory.
    pub(crate) index: u32,
    /// Its directory entry, from the private copy; a receiver's of lanes is that of the first.
    pub(crate) entry: RingEntry,
    /// The rings that share the consumer.
    pub(crate) group: Group,
    /// The peers that it has met on the other side.
    pub(crate) meeting: Meeting,
    /// Counts the exits of peers.
    pub(crate) watch: Watch,
}

impl Attached {
    /// Attaches to an endpoint of ring `index`, which is the first of its group. A producer of lanes takes
    /// a lane that is free and empty.
    pub(crate) fn attach(
        region: &Arc<Region>,
        index: u32,
        role: Role,
        until: Until<'_>,
    ) -> Result<Self, Error> {
        let group = Group::of(region, index)?;
        let rx_slot = region.entry(index)?.rx_slot;
        let (rx_slots, tx_slots) = (rx_slot..rx_slot + 1, group.tx_slots.clone());
        let slots = match role {
            Role::Receiver => rx_slots,
            Role::Sender => tx_slots,
        };
        let ring_of = |slot| group.ring_of(slot);
        let is_lane = group.of_lanes && role == Role::Sender;
        let is_channel = region.description().is_channel();
        let is_fit = |slot, byte| match () {
            () if is_lane => is_empty(region, ring_of(slot), index),
            () if is_channel => never_had_owner(region, slot, byte),
            () => Ok(true),
        };
        let seats_of = |slot| vec![Seat { slot, role, ring: ring_of(slot) }];
        let wanted =
            Wanted { slots, seats_of: &seats_of, is_fit: &is_fit, may_be_passed_on: false };
        let slot = OwnedSlot::attach(region, &wanted, until)?.swap_remove(0);
        let index = ring_of(slot.identity().slot);
        if is_lane {
            let entry = region.entry(index)?;
            region.populate_lane(&entry, entry.capacity)?;
        }
        let others = group.others(&region.entry(index)?, role);
        let meeting = Meeting::new(&slot, others)?;
        Self::at(region, slot, role, (index, group, meeting))
    }

    /// Attaches to one side of a channel, whichever has never had an owner: as the sender of one of its rings and
    /// as the receiver of the other, in this order.
    pub(crate) fn attach_to_either(
        region: &Arc<Region>,
        until: Until<'_>,
    ) -> Result<(Self, Self), Error> {
        Self::of_channel(region, |wanted| OwnedSlot::attach(region, wanted, until))
    }

    /// As [`Self::attach_to_either`], of a region that no other process can have yet.
    pub(crate) fn attach_in_new(region: &Arc<Region>) -> Result<(Self, Self), Error> {
        Self::of_channel(region, |wanted| OwnedSlot::attach_in_new(region, wanted))
    }

    fn of_channel(
        region: &Arc<Region>,
        attach: impl FnOnce(&Wanted<'_>) -> Result<Vec<OwnedSlot>, Error>,
    ) -> Result<(Self, Self), Error> {
        let entries = region.entries();
        let seats_of = |slot| {
            let of_sender = (0..).zip(entries).find(|(_, entry)| entry.tx_slots().contains(&slot));
            let Some((ring, RingEntry { peer_ring, .. })) = of_sender else { return Vec::new() };
            let Some(peer) = entries.get(*peer_ring as usize) else { return Vec::new() };
            let receiver = Seat { slot: peer.rx_slot, role: Role::Receiver, ring: *peer_ring };
            vec![Seat { slot, role: Role::Sender, ring }, receiver]
        };
        let is_fit = |slot, byte| never_had_owner(region, slot, byte);
        let all = entries.iter().flat_map(RingEntry::tx_slots);
        let slots = all.clone().min().unwrap_or(0)..all.max().map_or(0, |slot| slot + 1);
        let wanted = Wanted { slots, seats_of: &seats_of, is_fit: &is_fit, may_be_passed_on: true };
        let attached = attach(&wanted)?;
        let mut ends = attached.into_iter().map(|slot| Self::of_channel_at(region, slot));
        let none = || {
            region.layout_error(LayoutError::OtherRing {
                ring: None,
                found: None,
                wanted: RingKind::Spsc,
            })
        };
        let (sender, receiver) = (ends.next(), ends.next());
        Ok((sender.ok_or_else(none)??, receiver.ok_or_else(none)??))
    }

    /// The end of ring `index`, of `group`, that `slot` is.
    fn at(
        region: &Arc<Region>,
        slot: OwnedSlot,
        role: Role,
        (index, group, meeting): (u32, Group, Meeting),
    ) -> Result<Self, Error> {
        let entry = region.entry(index)?;
        let others = group.others(&entry, role);
        let watch = Watch::start(region, slot.identity(), others, doorbell(&entry, role))?;
        let ring = map_ring(region, index, group.rings.start)?;
        let end = Self { slot, role, ring, index, entry, group, meeting, watch };
        end.check_usable()?;
        Ok(end)
    }

    /// The end of a channel's ring that `slot` is.
    pub(crate) fn of_channel_at(region: &Arc<Region>, slot: OwnedSlot) -> Result<Self, Error> {
        let seat = slot.seat();
        let group = Group::of(region, seat.ring)?;
        let others = group.others(&region.entry(seat.ring)?, seat.role);
        // Any owner that the other side ever had counts, met or not.
        let meeting = Meeting::before_any(&slot, others);
        Self::at(region, slot, seat.role, (seat.ring, group, meeting))
    }

    /// Whether this is an end of a lane.
    pub(crate) fn is_lane(&self) -> bool {
        self.entry.ring_kind() == Some(RingKind::Lane)
    }

    /// An error in a forked child, which doesn't have the mapping, if the endpoint was lost, or
    /// if the ring is poisoned.
    #[inline]
    pub(crate) fn check_usable(&self) -> Result<(), Error> {
        if self.is_sound() { Ok(()) } else { self.what_is_wrong() }
    }

    /// Whether there is nothing wrong: four loads of words that don't change.
    #[inline]
    pub(crate) fn is_sound(&self) -> bool {
        let memory = &self.ring.memory;
        memory.is_ours() && !memory.is_cut() && self.slot.is_surely_kept() && self.ring.is_open()
    }

    #[cold]
    fn what_is_wrong(&self) -> Result<(), Error> {
        if !self.ring.memory.is_ours() {
            return Err(Error::ForkedChild);
        }
        self.check_whole()?;
        self.slot.check_kept()?;
        let (ring, position) = (self.index, 0);
        self.ring.check_open().map_err(|reason| Error::Poisoned { ring, position, reason })
    }

    /// An error if the file was cut short under the mapping: what was read or written since may
    /// not have been the region. Asked after each operation, before it says that it succeeded.
    #[inline]
    pub(crate) fn check_whole(&self) -> Result<(), Error> {
        if self.is_whole() { Ok(()) } else { Err(self.slot.region().cut_error()) }
    }

    /// As [`Self::check_whole`].
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        !self.ring.memory.is_cut()
    }

    /// Marks the ring as poisoned and gives the error that says so.
    #[cold]
    pub(crate) fn damaged_at(&self, damage: Damage, position: u64) -> Error {
        self.damaged_in(self.index, damage, position)
    }

    /// As [`Self::damaged_at`], of any ring of the group.
    #[cold]
    pub(crate) fn damaged_in(&self, ring: u32, damage: Damage, position: u64) -> Error {
        if let Err(cut) = self.check_whole() {
            return cut; // the damage is ours alone
        }
        self.ring.poison(damage);
        self.group.wake_producers(self.slot.region()); // those of other lanes, too
        Error::Poisoned { ring, position, reason: damage }
    }

    /// As [`Self::damaged_at`], if no position is at hand.
    #[cold]
    pub(crate) fn damaged(&self, damage: Damage) -> Error {
        self.damaged_at(damage, position_of(damage))
    }

    /// Peer exits that the watcher has counted, in the lower half, and slots of the region that changed
    /// hands, in the upper: whatever happens to a peer, one of them counts it.
    #[inline]
    pub(crate) fn counted(&self) -> u64 {
        let changes = self.slot.region().membership().load(Acquire); // edge `handover`
        u64::from(changes) << 32 | u64::from(self.watch.peer_exits())
    }

    /// Whether anything was counted since `known`.
    #[inline]
    pub(crate) fn has_changed(&self, known: Option<u64>) -> bool {
        Some(self.counted()) != known
    }

    /// Whether peers have exited since `known` was counted. Check behind the fence of arming: edge
    /// `peer_exit`. A slot that changed hands wakes the watcher, which counts what follows from it.
    pub(crate) fn has_peer_exits(&self, known: Option<u64>) -> bool {
        Some(self.watch.peer_exits()) != known.map(|known| known as u32)
    }

    /// Whether nothing but what was armed for is to be told to an end that has armed. As [`Self::has_peer_exits`].
    pub(crate) fn may_sleep(&self, known: Option<u64>) -> bool {
        !self.has_peer_exits(known) && self.ring.is_open()
    }

    /// Has the thread that sleeps at this receiver's doorbell, or is about to, look once more: as if a peer had
    /// exited.
    pub(crate) fn wake_own(&self) {
        if self.ring.memory.is_ours() {
            self.watch.note();
            fence(SeqCst); // edge `peer_exit`: the count, the wake word
            futex::disarm_and_wake(self.rx_wake(), i32::MAX as u32);
        }
    }

    /// Counts a sleep that is about to begin.
    pub(crate) fn count_sleep(&self) {
        if self.role == Role::Receiver {
            self.count_control(offset_of!(RingControl, sleeps));
        }
        self.slot.count(offset_of!(Slot, sleeps));
    }

    /// Counts a sleep that a peer's exit since `known` has ended; `false` if none has.
    pub(crate) fn count_peer_exit(&self, known: Option<u64>) -> bool {
        let by_peer_exit = self.has_peer_exits(known);
        if by_peer_exit {
            self.slot.count(offset_of!(Slot, woken_by_death));
        }
        by_peer_exit
    }

    /// Counts a wake-up of the consumer that found nothing.
    pub(crate) fn count_spurious(&self) {
        self.count_control(offset_of!(RingControl, spurious));
    }

    /// Stores what `wakes` has counted, now and then.
    #[inline]
    pub(crate) fn settle_now_and_then(&self, wakes: &Wakes) {
        if wakes.is_due() {
            self.settle(wakes);
        }
    }

    /// Stores what `wakes` has counted.
    #[cold]
    pub(crate) fn settle(&self, wakes: &Wakes) {
        if self.ring.memory.is_ours() && self.slot.check_kept().is_ok() {
            let (sent, elided) = wakes.take();
            self.slot.add(offset_of!(Slot, wakes_sent), sent.into());
            self.slot.add(offset_of!(Slot, wakes_elided), elided.into());
        }
    }

    fn count_control(&self, offset: usize) {
        self.ring.memory.group_u64(offset).fetch_add(1, Relaxed);
    }

    /// Offset of the word that it sleeps on.
    pub(crate) fn doorbell(&self) -> u64 {
        doorbell(&self.entry, self.role)
    }

    pub(crate) fn rx_wake(&self) -> &AtomicU32 {
        self.ring.memory.group_u32(offset_of!(RingControl, rx_wake))
    }

    pub(crate) fn tx_wake(&self) -> &AtomicU32 {
        self.ring.memory.control_u32(offset_of!(RingControl, tx_wake))
    }
}

fn doorbell(entry: &RingEntry, role: Role) -> u64 {
    let word = match role {
        Role::Receiver => offset_of!(RingControl, rx_wake),
        Role::Sender => offset_of!(RingControl, tx_wake),
    };
    entry.control_offset + word as u64
}

/// The position that `damage` itself has, else 0.
pub(crate) fn position_of(damage: Damage) -> u64 {
    match damage {
        Damage::Position { found, .. } => found,
        _ => 0,
    }
}

/// Ring `index`, mapped, in the group that begins with ring `first`.
pub(crate) fn map_ring(region: &Region, index: u32, first: u32) -> Result<Ring<RingSpan>, Error> {
    let (entry, first) = (region.entry(index)?, region.entry(first)?);
    let RingEntry { control_offset, data_offset, capacity, .. } = entry;
    let controls = (control_offset, first.control_offset);
    let span = RingSpan::new(region.mapping().clone(), controls, data_offset, capacity);
    let span = span.ok_or_else(|| {
        let (field, ring, found) = ("data_offset", Some(index), data_offset);
        let (wanted, limit) = ("a data area inside a mapping of", region.mapping().len());
        region.layout_error(LayoutError::Field { field, ring, found, wanted, limit })
    })?;
    Ok(Ring::new(span, &entry, region.header().key))
}

/// Whether `slot` has had no owner that told of itself, but for one that has it now.
fn never_had_owner(region: &Region, slot: u16, byte: Byte) -> Result<bool, Error> {
    let slots = slot..slot + 1;
    let is_fresh = byte == Byte::Ours
        || incarnations(region, slots.clone()) == 0
        || byte_is_held(region, slots.clone())?;
    Ok(is_fresh && attaches(region, slots) == 0)
}

/// Whether a lane without an owner holds no record that is still to be received.
fn is_empty(region: &Region, index: u32, first: u32) -> Result<bool, Error> {
    let ring = map_ring(region, index, first)?;
    let head = ring.memory.load(Word::Head, Acquire); // edge `free`
    Ok(poll(&ring, head) == Polled::Nothing)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    use rustix::thread::futex::OWNER_DIED;
    use tombolo_abi::{LOCK_INIT, LayoutError, SlotState, slot_flags, wake};

    use super::*;
    use crate::crash::visits;
    use crate::endpoint::{byte_is_held, slot_offset, slot_u32, tell_of_exits};
    use crate::ends::Sending;
    use crate::options::{CreatePolicy, MpscOrder};
    use crate::os::{ofd, staged};
    use crate::{EventsRegion, OpenOptions, TryRecvError};

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
        let count =
            |offset| region.mapping().word_u64(slot_offset(region, slot, offset)).load(Relaxed);
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
        let (mut tx, _) =
            EventsRegion::open_path_with(&path, options).unwrap().split_spsc().unwrap();
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
}
