//! What a receiver has once it owns its endpoint, and which message is next.

use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;
use std::time::Duration;

use tombolo_abi::Role;

use crate::carrier::Intake;
use crate::endpoint::{Attached, Peer, Until};
use crate::ends::{AllLanes, Lanes, TryRecvError};
use crate::error::Error;
use crate::os::futex::Sleeping;
use crate::region::Region;
use crate::ring::{Consumer, Front, Wakes};
use crate::wait::{Bell, Bridge, OneRing, SLEEP_MAX, Sleep, Spin, Standby, Turn, Waited};

/// Times that something comes just when a receive is about to say that there is nothing, before it says so.
const LAST_POLLS: u32 = 8;

/// What a receiver has once it owns its endpoint.
#[derive(Debug)]
pub(crate) struct Receiving {
    pub(crate) end: Attached,
    pub(crate) consumer: Consumer,
    /// `None` if the ring's messages carry no handles.
    pub(crate) intake: Option<Intake>,
    pub(crate) wakes: Wakes,
    pub(crate) peer: Peer,
    pub(crate) bell: Bell,
    /// The lanes of a group; `end` and `consumer` belong to the current one.
    pub(crate) lanes: Option<Box<Lanes>>,
    /// When `wait_any` last named this receiver: its count of all receivers named.
    pub(crate) named: u64,
    /// What waits for this receiver elsewhere: then a receive arms before it says that there is nothing.
    standby: Option<Standby>,
}

impl Receiving {
    #[cold]
    pub(crate) fn attach(
        region: &Arc<Region>,
        index: u32,
        spin: Spin,
        until: Until<'_>,
    ) -> Result<Self, Error> {
        region.check_ours()?;
        let end = Attached::attach(region, index, Role::Receiver, until)?;
        let mut consumer = Consumer::attach(&end.ring).map_err(|damage| end.damaged(damage))?;
        let bell = Bell::attach(&end, spin)?;
        let intake = Intake::open(&end)?;
        let (wakes, peer) = <_>::default();
        let lanes = match end.group.of_lanes {
            true => Some(Box::new(Lanes::attach(&end, &mut consumer, &wakes)?)),
            false => None,
        };
        let (named, standby) = (0, None);
        Ok(Self { end, consumer, intake, wakes, peer, bell, lanes, named, standby })
    }

    /// Where others wait for this receiver from now on.
    pub(crate) fn bridge(&mut self) -> Result<Arc<Bridge>, Error> {
        self.end.check_usable()?;
        let standby = match &mut self.standby {
            Some(standby) => standby,
            none => none.insert(Standby::new(&self.end)?),
        };
        self.peer.stay_slow(); // each receive that finds nothing is to arm
        Ok(standby.bridge.clone())
    }

    /// Whether others wait for this receiver.
    pub(crate) fn has_bridge(&self) -> bool {
        self.standby.is_some()
    }

    pub(crate) fn front(&mut self) -> Result<Option<Front>, Error> {
        if self.lanes.is_some() {
            return self.front_of_lanes();
        }
        let Self { end, consumer, wakes, bell, .. } = self;
        match consumer.front(&end.ring, wakes) {
            Ok(Some(front)) => {
                if bell.count_record(end) || wakes.is_due() {
                    end.settle(wakes);
                }
                Ok(Some(front))
            }
            Ok(None) => Ok(None),
            Err(damage) => Err(end.damaged_at(damage, consumer.head())),
        }
    }

    /// As [`Self::front`], of the current lane until its quantum is over, then of the next lane that has a
    /// message.
    fn front_of_lanes(&mut self) -> Result<Option<Front>, Error> {
        let Self { end, consumer, wakes, bell, lanes: Some(lanes), .. } = self else {
            return Ok(None); // never: asked if there are lanes
        };
        let mut is_over = bell.count_record(end) || wakes.is_due();
        if is_over {
            end.settle_now_and_then(wakes);
        }
        for _ in 0..=lanes.count() {
            let front = consumer.front(&end.ring, wakes);
            let front = front.map_err(|damage| end.damaged_at(damage, consumer.head()))?;
            if front.is_some() && !is_over {
                return Ok(front);
            }
            if front.is_some() {
                lanes.note_left(); // its record brings the consumer back
            }
            bell.begin_quantum(end);
            lanes.note_peer_exits(end);
            let Some(next) = lanes.next(end, consumer.head(), bell.all_fence()) else {
                return Ok(front);
            };
            lanes.switch_to(next, end, consumer);
            is_over = false;
        }
        Ok(None) // a flood of padding
    }

    /// Whether the other side is disconnected. If a peer has come or gone, a scan of all lanes is due.
    fn is_disconnected(&mut self) -> Result<bool, Error> {
        let Self { end, consumer, peer, lanes, .. } = self;
        let has_taken = lanes.as_ref().is_some_and(|lanes| lanes.has_taken());
        if has_taken || consumer.has_taken() {
            end.meeting.note(); // a message that was taken had a sender
        }
        let asked = peer.asked();
        let is_disconnected = peer.is_disconnected(end)?;
        if peer.asked() != asked {
            lanes.iter_mut().for_each(|lanes| lanes.scan_soon());
        }
        Ok(is_disconnected)
    }

    fn is_scan_due(&self) -> bool {
        self.lanes.as_ref().is_some_and(|lanes| lanes.is_scan_due())
    }

    /// The outcome of a receive that found the ring empty, after one more poll. If others wait for this
    /// receiver, an arming stands behind it, or they have been told to come again.
    pub(crate) fn empty(&mut self) -> Result<Front, TryRecvError> {
        let mut outcome = TryRecvError::Empty;
        for _ in 0..LAST_POLLS {
            outcome = match self.last_poll()? {
                (Some(front), _) => return Ok(front),
                (None, true) => TryRecvError::Disconnected,
                (None, false) => TryRecvError::Empty,
            };
            if self.stands_by()? {
                return Err(outcome);
            }
            if let Some(front) = self.front()? {
                return Ok(front);
            }
        }
        self.standby.iter().for_each(|standby| standby.bridge.renew());
        Err(outcome)
    }

    /// Arms, if others wait for this receiver, polls once more and lets the arming stand. `false` if there
    /// may be something.
    fn stands_by(&mut self) -> Result<bool, Error> {
        let Some(standby) = &self.standby else { return Ok(true) };
        let bridge = standby.bridge.clone();
        if bridge.stands_in(self.end.rx_wake().load(Acquire)) {
            return Ok(true);
        }
        self.bell.note_time_out(); // if the last arming stood for so long
        let armed = self.arm_bell()?;
        Ok(self.bell.stand(&self.end, &bridge, armed, self.peer.asked()))
    }

    /// Arms and polls once more. Gives how to sleep, or `None` if there may be something.
    fn arm_bell(&mut self) -> Result<Option<Sleep>, Error> {
        let Self { end, consumer, wakes, peer, bell, lanes, .. } = self;
        end.settle(wakes);
        let head = consumer.head();
        let sleep = match lanes {
            None => bell.arm(end, &mut OneRing { head }),
            Some(lanes) => bell.arm(end, &mut AllLanes { lanes, head }),
        };
        Ok(sleep?.filter(|_| end.may_sleep(peer.asked())))
    }

    /// Polls an empty ring once more if a sender has exited, because what it sent is delivered first. Returns
    /// the message, if there is one, and whether the other side is disconnected. If there is none, closes
    /// the connections of senders that have exited.
    pub(crate) fn last_poll(&mut self) -> Result<(Option<Front>, bool), Error> {
        let departed = self.intake.as_mut().map(|intake| intake.departed(&self.end));
        let departed = departed.unwrap_or_default();
        if let (Some(lanes), false) = (&mut self.lanes, departed.is_empty()) {
            lanes.scan_soon(); // they may have died before they set their lane's bit
        }
        let is_disconnected = self.is_disconnected()?;
        let is_to_poll = is_disconnected || !departed.is_empty() || self.is_scan_due();
        if is_to_poll && let Some(front) = self.front()? {
            if !departed.is_empty() {
                self.peer.ask_again();
            }
            return Ok((Some(front), is_disconnected));
        }
        self.end.check_whole()?; // bytes that are missing look like an empty ring
        if let Some(intake) = &mut self.intake {
            intake.forget(&departed);
        }
        Ok((None, is_disconnected))
    }

    /// Waits until there may be something to do.
    pub(crate) fn wait(&mut self, until: Until<'_>) -> Result<(), Error> {
        if let Some(bridge) = self.standby.as_ref().map(|standby| standby.bridge.clone()) {
            // A notification wakes one sleeper of the word: the thread that sleeps there for others.
            let seen = bridge.ends();
            if self.stands_by()? {
                bridge.sleep(seen, until);
            }
            return Ok(());
        }
        let Self { end, consumer, wakes, peer, bell, lanes, .. } = self;
        let (head, known) = (consumer.head(), peer.asked());
        match lanes {
            None => bell.wait(end, &mut OneRing { head }, wakes, known, until),
            Some(lanes) => bell.wait(end, &mut AllLanes { lanes, head }, wakes, known, until),
        }
    }
}

impl Waited for Receiving {
    fn is_ready(&mut self) -> bool {
        let usable = self.end.check_usable().and_then(|()| self.front());
        match usable
            .and_then(|front| front.map_or_else(|| self.last_poll(), |it| Ok((Some(it), false))))
        {
            Ok((None, _)) => self.peer.is_to_be_named(),
            Ok((Some(_), _)) | Err(_) => true,
        }
    }

    fn arm(&mut self) -> Option<(Sleeping, Duration)> {
        if let Some(bridge) = self.standby.as_ref().map(|standby| standby.bridge.clone()) {
            let seen = bridge.ends();
            return self.stands_by().ok()?.then(|| (bridge.sleeping(seen), SLEEP_MAX));
        }
        let Sleep { word, limit } = self.arm_bell().ok()??; // the next receive reports an error
        Some((Sleeping::on(self.end.rx_wake(), word), limit))
    }

    fn disarm(&mut self) {
        if self.standby.is_none() {
            self.bell.disarm(&self.end);
        }
    }

    fn count_sleep(&self) {
        self.end.count_sleep();
    }

    fn count_peer_exit(&self) {
        self.end.count_peer_exit(self.peer.asked());
    }

    fn note_timeout(&mut self) {
        self.bell.note_time_out();
    }

    fn note_named(&mut self, count: u64) {
        self.named = count;
        // With a message in the ring it was named for that: a disconnect is still to be reported.
        if matches!(self.front(), Ok(None)) {
            self.peer.note_named();
        }
    }

    fn turn(&mut self) -> Turn<'_> {
        Turn { named: self.named, spin: &mut self.bell.spin }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        let was_armed = self.standby.take().is_some(); // before the endpoint is another's
        self.end.settle(&self.wakes);
        // In a forked child, or after the endpoint was lost, the sockets are another process's.
        let is_ours = self.end.ring.memory.is_ours() && self.end.slot.check_kept().is_ok();
        if was_armed && is_ours {
            self.bell.disarm(&self.end);
        }
        if let (Some(intake), true) = (&mut self.intake, is_ours) {
            intake.close();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Read;
    use std::mem::offset_of;
    use std::sync::atomic::Ordering::Relaxed;
    use std::thread::yield_now;
    use std::time::{Duration, Instant};

    use tombolo_abi::{Slot, wake};

    use super::*;
    use crate::carrier::HandOver;
    use crate::endpoint::{slot_offset, slot_u32};
    use crate::error::Damage;
    use crate::options::{Disconnect, MpscOrder};
    use crate::os::staged;
    use crate::ring::{Memory, Word};
    use crate::{
        Deadline, EventsRegion, Handle, MpscConsumer, MpscProducer, OpenOptions, RecvError,
        SpscReceiver, wait_any,
    };

    fn open(path: &std::path::Path) -> (MpscProducer, MpscConsumer) {
        let options = OpenOptions::new().max_handles(1).producers(2);
        EventsRegion::open_path_with(path, options).unwrap().split_mpsc().unwrap()
    }

    /// Transfers a handle for a record that does not follow.
    pub(in crate::ends) fn leave_an_orphan(tx: &mut MpscProducer, handle: Handle) {
        tx.attach().unwrap();
        let end = tx.attached_end().unwrap();
        let (region, ring) = (&**end.slot.region(), end.index);
        let mut outgoing = tx.usable_sending().unwrap().outgoing();
        outgoing.connect(region, ring).unwrap();
        let (sender, handles) = (end.slot.identity(), &[handle][..]);
        outgoing
            .hand_over(&HandOver { region, ring, sender, tail: 0, position: 0, handles })
            .unwrap();
    }

    #[test]
    fn one_that_is_named_for_a_last_message_is_named_again_for_being_disconnected() {
        let options = OpenOptions::new().spsc_capacity(4096);
        let (mut tx, mut rx) = EventsRegion::anonymous(options).unwrap().split_spsc().unwrap();
        rx.attach().unwrap();
        tx.attach().unwrap();
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
        tx.send(b"the last").unwrap();
        drop(tx);
        // As if the message had come between the poll and the check for a disconnect.
        let receiving = rx.receiving_until(Deadline::PAST).unwrap();
        assert!(matches!(receiving.last_poll(), Ok((Some(_), true))));
        let wait = |rx: &mut SpscReceiver| wait_any(&mut [rx], Deadline::PAST).ok();
        assert_eq!(wait(&mut rx), Some(0), "for the message");
        assert_eq!(rx.try_recv().unwrap().data, b"the last");
        assert_eq!(wait(&mut rx), Some(0), "for being disconnected");
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Disconnected)));
        assert_eq!(wait(&mut rx), None, "once");
    }

    #[test]
    fn one_whose_sender_has_come_again_is_not_named_for_being_disconnected() {
        let options = OpenOptions::new().spsc_capacity(4096);
        let mut region = EventsRegion::anonymous(options).unwrap();
        let (mut tx, mut rx) = region.split_spsc().unwrap();
        rx.attach().unwrap();
        tx.attach().unwrap();
        drop(tx);
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Disconnected)));
        let (mut tx, _) = region.split_spsc().unwrap();
        tx.attach().unwrap();
        assert!(wait_any(&mut [&mut rx], Deadline::PAST).is_err());
    }

    #[test]
    fn the_departed_are_looked_after_though_a_message_came_at_the_last_moment() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r");
        let ((mut tx, mut rx), (mut gone, _)) = (open(&path), open(&path));
        rx.attach().unwrap();
        tx.attach().unwrap();
        let (mut witness, orphan) = std::io::pipe().unwrap();
        leave_an_orphan(&mut gone, Handle::new(orphan));
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
        drop(gone);
        let receiving = rx.receiving_until(Deadline::PAST).unwrap();
        let (start, limit) = (Instant::now(), Duration::from_secs(5));
        while !receiving.end.has_peer_exits(receiving.peer.asked()) {
            assert!(start.elapsed() < limit, "the exit was not noticed");
            yield_now();
        }
        tx.send(b"at the last moment").unwrap();
        assert!(matches!(receiving.last_poll(), Ok((Some(_), false))));
        assert!(receiving.end.has_peer_exits(receiving.peer.asked()), "the departed are forgotten");
        assert_eq!(rx.try_recv().unwrap().data, b"at the last moment");
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
        let closing = std::thread::spawn(move || witness.read(&mut [0]).unwrap());
        while !closing.is_finished() {
            assert!(start.elapsed() < limit, "the orphan is still open");
            yield_now();
        }
        assert_eq!(closing.join().unwrap(), 0);
    }

    fn pair() -> (crate::SpscSender, SpscReceiver) {
        let options = OpenOptions::new().spsc_capacity(4096);
        EventsRegion::anonymous(options).unwrap().split_spsc().unwrap()
    }

    /// Whose spins have paid, so that it looks at the ring before anything else is asked.
    #[test]
    fn a_child_looks_at_no_ring_that_it_has_not_got() {
        let (_tx, mut rx) = pair();
        rx.attach().unwrap();
        rx.receiving.as_mut().unwrap().bell.spin.note_first_look();
        assert!(staged::in_child(|| {
            let received = rx.recv_into(&mut [0; 8]);
            matches!(received, Err(RecvError::Failed { source: Error::ForkedChild, .. }))
        }));
    }

    /// A counter in the slot of an endpoint, which may be gone.
    fn counter(region: &Region, slot: u16, offset: usize) -> u64 {
        region.mapping().word_u64(slot_offset(region, slot, offset)).load(Relaxed)
    }

    #[test]
    fn what_a_receiver_has_counted_is_stored_before_it_sleeps_among_others_and_when_it_goes() {
        for deed in ["sleeps", "goes"] {
            let (mut tx, mut rx) = pair();
            for _ in 0..20 {
                tx.send(&[0; 900]).unwrap();
                rx.recv().unwrap();
            }
            let receiving = rx.receiving_until(Deadline::PAST).unwrap();
            let (region, slot) =
                (receiving.end.slot.region().clone(), receiving.end.slot.identity().slot);
            let elided = || counter(&region, slot, offset_of!(Slot, wakes_elided));
            assert_eq!(elided(), 0);
            if deed == "sleeps" {
                receiving.arm();
                receiving.disarm();
                let word = receiving.end.rx_wake().load(Relaxed);
                assert_eq!(word & wake::ARMED_FUTEX, 0);
            } else {
                drop(rx);
            }
            assert!(elided() > 0, "{deed}");
        }
    }

    #[test]
    fn a_wake_up_of_a_sender_is_counted_at_the_next_message() {
        let (mut tx, mut rx) = pair();
        let _interrupter = rx.interrupter(); // from now on each call takes the slow path
        rx.attach().unwrap();
        while tx.try_send(&[0; 400]).is_ok() {}
        let receiving = rx.receiving_until(Deadline::PAST).unwrap();
        let (region, slot) =
            (receiving.end.slot.region().clone(), receiving.end.slot.identity().slot);
        receiving.end.ring.memory.store(Word::TxWake, wake::ARMED_FUTEX.into(), Relaxed);
        let sent = || counter(&region, slot, offset_of!(Slot, wakes_sent));
        let is_armed = |rx: &mut SpscReceiver| {
            let ring = &rx.receiving_until(Deadline::PAST).unwrap().end.ring;
            ring.memory.load(Word::TxWake, Relaxed) != 0
        };
        while is_armed(&mut rx) {
            rx.recv().unwrap();
        }
        assert_eq!(sent(), 0);
        rx.recv().unwrap();
        assert_eq!(sent(), 1);
    }

    #[test]
    fn a_peer_exit_that_ends_a_wait_for_several_is_counted() {
        let (_tx, mut rx) = pair();
        let receiving = rx.receiving_until(Deadline::PAST).unwrap();
        let (region, slot) =
            (receiving.end.slot.region().clone(), receiving.end.slot.identity().slot);
        let counted = || counter(&region, slot, offset_of!(Slot, woken_by_death));
        receiving.count_peer_exit(); // nothing is known yet
        assert_eq!(counted(), 1);
        receiving.last_poll().unwrap();
        receiving.count_peer_exit();
        assert_eq!(counted(), 1);
    }

    #[test]
    fn a_receiver_of_one_ring_lets_its_sender_go_on_without_fences() {
        let (mut tx, mut rx) = pair();
        let receiving = rx.receiving_until(Deadline::PAST).unwrap();
        receiving.arm();
        receiving.disarm();
        if !receiving.bell.all_fence() {
            return eprintln!("skipped: the kernel refuses barriers");
        }
        std::thread::sleep(Duration::from_millis(20)); // since the barrier
        for _ in 0..600 {
            tx.send(b"one").unwrap();
            rx.try_recv().unwrap();
        }
        assert!(!rx.receiving_until(Deadline::PAST).unwrap().bell.all_fence());
    }

    #[test]
    fn what_is_set_before_an_end_is_attached_holds_and_so_does_what_is_set_later() {
        let options = OpenOptions::new().spsc_capacity(4096);
        let mut region = EventsRegion::anonymous(options).unwrap();
        let (mut gone, mut rx) = region.split_spsc().unwrap();
        gone.attach().unwrap();
        drop(gone);
        rx.set_disconnect(Disconnect::Ever);
        let short = Duration::from_micros(1);
        rx.set_spin_max(short);
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Disconnected)));
        let is_of = |rx: &SpscReceiver, max| {
            let spin = &rx.receiving.as_ref().unwrap().bell.spin;
            format!("{spin:?}").contains(&format!("max: {max:?}"))
        };
        assert!(is_of(&rx, short));
        rx.set_spin_max(2 * short);
        assert!(is_of(&rx, 2 * short));
        rx.set_disconnect(Disconnect::Never);
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    }

    #[test]
    fn an_interrupt_comes_before_a_message_also_at_an_end_that_was_attached_before() {
        let (mut tx, mut rx) = pair();
        rx.attach().unwrap();
        tx.send(b"later").unwrap();
        rx.interrupter().interrupt();
        assert!(matches!(rx.recv_into(&mut [0; 8]), Err(RecvError::Interrupted)));
        assert_eq!(rx.recv().unwrap().data, b"later");
    }

    #[test]
    fn who_waits_for_a_peer_attaches_and_whose_ring_is_damaged_is_told_no_peers() {
        let (mut tx, mut rx) = pair();
        tx.attach().unwrap();
        rx.wait_for_peer(Deadline::PAST).unwrap();
        assert_eq!(rx.peers().unwrap().alive, 1);
        rx.receiving.as_ref().unwrap().end.ring.poison(Damage::Marked { code: 1 });
        assert!(matches!(rx.peers(), Err(Error::Poisoned { .. })));
    }

    #[test]
    fn a_child_attaches_to_no_ring_that_it_has_not_got() {
        let (_tx, mut rx) = pair();
        assert!(staged::in_child(|| matches!(rx.attach(), Err(Error::ForkedChild))));
    }

    #[test]
    fn a_wake_up_of_a_sender_is_counted_in_lanes_too_before_the_turn_is_over() {
        let options = OpenOptions::new().mpsc_capacity(1 << 16).producers(2);
        let options = options.mpsc_order(MpscOrder::PerProducer);
        let mut region = EventsRegion::anonymous(options).unwrap();
        let (mut tx, mut rx) = region.split_mpsc().unwrap();
        rx.attach().unwrap();
        while tx.try_send(&[0; 400]).is_ok() {}
        let end = &rx.receiving.as_ref().unwrap().end;
        let (region, slot) = (end.slot.region().clone(), end.slot.identity().slot);
        end.ring.memory.store(Word::TxWake, wake::ARMED_FUTEX.into(), Relaxed);
        while rx.try_recv().is_ok() {}
        assert_eq!(counter(&region, slot, offset_of!(Slot, wakes_sent)), 1);
    }

    #[test]
    fn a_receiver_that_has_lost_its_end_leaves_the_socket_to_its_successor() {
        let directory = tempfile::tempdir().unwrap();
        let (_tx, mut rx) = open(&directory.path().join("r"));
        rx.attach().unwrap();
        let names = || std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(names(), 2);
        let end = &rx.receiving.as_ref().unwrap().end;
        let (region, slot) = (end.slot.region().clone(), end.slot.identity().slot);
        slot_u32(&region, slot, offset_of!(Slot, incarnation)).fetch_add(1, Relaxed);
        assert!(matches!(end.slot.is_any_held(0..1), Err(Error::LockLost { .. })));
        drop(rx);
        assert_eq!(names(), 2);
    }
}
