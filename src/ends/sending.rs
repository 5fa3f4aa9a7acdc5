//! What a sender has once it owns its endpoint, and how it sends then.

use std::mem::offset_of;
use std::sync::atomic::Ordering::Acquire;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tombolo_abi::{LockWord, RecordExt, Slot, slot_flags};

use crate::carrier::{HandOver, Outgoing, Unsent};
use crate::endpoint::{Attached, Disconnect, Peer, Until, byte_is_held};
use crate::ends::{MessagePacket, NotSent, Topology};
use crate::error::Error;
use crate::handle::{Handle, Through, check_moved};
use crate::mem::RingSpan;
use crate::mutex::lock;
use crate::region::Region;
use crate::ring::carry::{Carried, NotCarried, Recount, Spot};
use crate::ring::doorbell::{Arming, arm_for_space, has_come, is_comfortable};
use crate::ring::{Refusal, Ring, Sent, SpaceWanted, Wakes, Window};
use crate::wait::{Bridge, Spin, Standby, Standing, sleep_for_space};

/// Polls for which a spinning sender waits for more space than its message needs: 10 to 50 microseconds, or
/// as long as it spins.
const PATIENCE: u32 = 1024;

/// Times that space comes just when a send is about to say that there is none, before it says so.
const LAST_ATTEMPTS: u32 = 8;
/// When those that wait elsewhere are told to send again, if nothing notifies of what it waits for: a holder
/// of the lock that goes on, and a receiver that comes.
const RETRY: Duration = Duration::from_millis(1);
const RETRY_PEER: Duration = Duration::from_millis(100);

/// What clones share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) end: Arc<Attached>,
    /// The connection for handles, which clones use one after the other. Locked before the ring's lock.
    pub(crate) outgoing: Arc<Mutex<Outgoing>>,
}

/// What a sender has once it owns its endpoint.
#[derive(Debug)]
pub(crate) struct Sending<K: Topology> {
    pub(crate) end: Arc<Attached>,
    pub(crate) outgoing: Arc<Mutex<Outgoing>>,
    pub(crate) producer: K::Producer,
    pub(crate) wakes: Wakes,
    pub(crate) peer: Peer,
    pub(crate) recount: Recount,
    pub(crate) spin: Spin,
    /// What waits for this sender elsewhere: then a send arms before it says that there is no space.
    pub(crate) standby: Option<Standby>,
}

/// Why an attempt failed.
struct Refused {
    reason: NotSent,
    /// Whether no process would end that.
    is_disconnected: bool,
}

impl<E: Into<NotSent>> From<E> for Refused {
    fn from(reason: E) -> Self {
        Self { reason: reason.into(), is_disconnected: false }
    }
}

impl<K: Topology> Sending<K> {
    /// Takes over the ring at `end`, which may have other senders in this process.
    ///
    /// # Errors
    /// If the ring is damaged.
    pub(crate) fn new(
        Shared { end, outgoing }: Shared,
        disconnect: Disconnect,
        spin: Spin,
    ) -> Result<Self, Error> {
        let producer = K::attach(&end)?;
        let (wakes, mut peer): (_, Peer) = <_>::default();
        peer.set_rule(disconnect);
        let (recount, standby) = (Recount::default(), None);
        Ok(Self { end, outgoing, producer, wakes, peer, recount, spin, standby })
    }

    /// Where others wait for this sender from now on.
    pub(crate) fn bridge(&mut self) -> Result<Arc<Bridge>, Error> {
        let standby = match &mut self.standby {
            Some(standby) => standby,
            none => none.insert(Standby::new(&self.end)?),
        };
        Ok(standby.bridge.clone())
    }

    pub(crate) fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        lock(&self.outgoing)
    }

    /// Waits until there may be space for `wanted`, or something else to do.
    pub(crate) fn wait_for_space(&mut self, wanted: &SpaceWanted, until: Until<'_>) {
        let Self { end, wakes, peer, spin, .. } = self;
        let known = peer.asked();
        let mut patience = PATIENCE;
        let is_over = || {
            patience = patience.saturating_sub(1);
            // Space for one message at a time would make both sides poll each other all the time.
            let has_space = if patience > 0 { is_comfortable } else { has_come };
            has_space(&end.ring, wanted) || end.has_changed(known) || until.interrupts.is_pending()
        };
        if !spin.until(until.deadline, is_over) && !has_come(&end.ring, wanted) {
            end.settle(wakes);
            sleep_for_space(end, wanted, known, until);
            if has_come(&end.ring, wanted) {
                spin.note_end_of_sleep();
            }
        }
    }

    /// Sends from `payloads` by `step`, a verb of the window, and returns how many messages it sent.
    pub(crate) fn produce(
        &mut self,
        payloads: &[&[u8]],
        mut step: impl FnMut(&mut Window, &Ring<RingSpan>) -> Result<Sent, Refusal>,
    ) -> Result<usize, NotSent> {
        // No message is longer than the OR of all lengths, so mostly one check does.
        let bits = payloads.iter().fold(0, |bits, payload| bits | payload.len());
        if self.check_len(bits).is_err() {
            payloads.iter().try_for_each(|payload| self.check_len(payload.len()))?;
        }
        self.attempt(|Self { end, producer, wakes, .. }| {
            K::produce(end, producer, wakes, payloads, |window, ring| {
                step(window, ring).map_err(|refusal| NotSent::of(end, refusal))
            })
        })
    }

    /// Runs `attempt`. Fails with *disconnected* instead of *full*, *no receiver* or *crowded* if the receiver
    /// is disconnected: no process would end that.
    #[inline]
    pub(crate) fn attempt<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<T, NotSent>,
    ) -> Result<T, NotSent> {
        let mut result = self.attempt_once(&mut attempt);
        if result.is_err() && self.standby.is_some() {
            result = self.attempt_standing_by(result, &mut attempt);
        }
        let refused = match result {
            Ok(done) => return Ok(done),
            Err(refused) => refused,
        };
        Err(if refused.is_disconnected { NotSent::Disconnected } else { refused.reason })
    }

    /// Attempts again until it succeeds or an arming stands behind what `result` says.
    #[cold]
    fn attempt_standing_by<T>(
        &mut self,
        mut result: Result<T, Refused>,
        attempt: &mut impl FnMut(&mut Self) -> Result<T, NotSent>,
    ) -> Result<T, Refused> {
        for _ in 0..LAST_ATTEMPTS {
            match &result {
                Err(refused) if !self.stands_by(&refused.reason) => {}
                _ => return result,
            }
            result = self.attempt_once(attempt);
        }
        if result.is_err() {
            self.standby.iter().for_each(|standby| standby.bridge.renew());
        }
        result
    }

    /// Arms for what `reason` waits for, if others wait for this sender, and lets the arming stand. `false`
    /// if another attempt may succeed.
    fn stands_by(&self, reason: &NotSent) -> bool {
        let Self { end, peer, standby: Some(Standby { bridge, .. }), .. } = self else {
            return true;
        };
        let (arming, after) = match reason {
            NotSent::Full(wanted) => {
                if arm_for_space(&end.ring, wanted).is_none() {
                    bridge.end();
                    return false;
                }
                (Arming::Space(*wanted), None)
            }
            NotSent::NoReceiver { .. } => (Arming::Time, Some(RETRY_PEER)),
            NotSent::Contended { .. } | NotSent::Crowded => (Arming::Time, Some(RETRY)),
            NotSent::Disconnected | NotSent::Interrupted | NotSent::Failed(_) => return true,
        };
        let due = after.map(|after| Instant::now() + after);
        let peer_exits = peer.asked().map(|asked| asked as u32);
        let standing = Standing { arming, due, peer_exits };
        let stands = bridge.stand(&end.ring, end.tx_wake(), standing);
        if stands {
            end.count_sleep();
        }
        stands
    }

    /// Lets an arming stand for that space, if others wait for this sender. `false` if there is as much by now.
    pub(crate) fn stand_for_space(&self, wanted: &SpaceWanted) -> bool {
        self.stands_by(&NotSent::Full(*wanted))
    }

    #[inline]
    fn attempt_once<T>(
        &mut self,
        attempt: &mut impl FnMut(&mut Self) -> Result<T, NotSent>,
    ) -> Result<T, Refused> {
        let must_wait = |result: &Result<T, NotSent>| {
            matches!(result, Err(NotSent::Full(_) | NotSent::NoReceiver { .. } | NotSent::Crowded))
        };
        let mut result = attempt(self);
        if must_wait(&result) {
            self.end.check_whole()?; // bytes that are missing may look like a full ring
            if self.peer.is_disconnected(&self.end)? {
                result = attempt(self); // with the space that the receiver freed at last
                if must_wait(&result) {
                    return result.map_err(|reason| Refused { reason, is_disconnected: true });
                }
            }
        }
        let done = result?;
        self.end.settle_now_and_then(&self.wakes);
        self.end.check_whole()?;
        Ok(done)
    }

    #[inline]
    pub(crate) fn check_len(&self, found: usize) -> Result<(), Error> {
        let (ring, limit) = (self.end.index, self.end.entry.max_message);
        if found > limit as usize {
            return Err(Error::MessageTooLong { ring, found, limit });
        }
        Ok(())
    }

    /// Sends a request without handles, to which the reply has this transaction id.
    pub(crate) fn call(&mut self, payload: &[u8], txid: u32) -> Result<(), NotSent> {
        let ext = self.ext(txid);
        self.produce(&[payload], |window, ring| window.send_call(ring, payload, ext)).map(drop)
    }

    /// The extension word of this sender's records.
    pub(crate) fn ext(&self, txid: u32) -> RecordExt {
        let LockWord { slot, incarnation } = self.end.slot.identity();
        RecordExt { txid, slot, incarnation_low: incarnation as u16 }
    }

    /// Sends a message with handles, as a request if there is a `txid`.
    #[cold]
    pub(crate) fn carry(
        &mut self,
        packet: &MessagePacket,
        txid: Option<u32>,
    ) -> Result<(), NotSent> {
        self.check_len(packet.data.len())?;
        // Loaded before connecting: a receiver that begins to listen after that changes it.
        let seen = self.end.slot.region().membership().load(Acquire);
        self.attempt(|sending| {
            let was_connected = sending.outgoing().is_connected();
            match sending.carry_once(packet, txid, seen) {
                // The connection was broken: once more over a new one.
                Err(NotSent::NoReceiver { .. }) if was_connected => {
                    sending.carry_once(packet, txid, seen)
                }
                sent => sent,
            }
        })?;
        self.end.slot.add(offset_of!(Slot, handles), packet.handles.len() as u64);
        Ok(())
    }

    fn carry_once(
        &mut self,
        packet: &MessagePacket,
        txid: Option<u32>,
        seen: u32,
    ) -> Result<(), NotSent> {
        let ext = self.ext(txid.unwrap_or(0));
        let Self { end, outgoing, producer, wakes, recount, .. } = self;
        let (region, ring, sender) = (&**end.slot.region(), end.index, end.slot.identity());
        let not_sent = |unsent| not_sent(unsent, seen);
        let mut outgoing = lock(outgoing); // clones send one after the other, before they take the lock
        if !outgoing.is_connected() {
            check_receiver(end).map_err(not_sent)?;
        }
        outgoing.connect(region, end.group.rings.start).map_err(not_sent)?;
        end.slot.flag(slot_flags::HAS_SOCKET);
        let handle_count = packet.handles.len() as u8; // 64 at the most
        let (payload, is_call) = (&*packet.data, txid.is_some());
        let carried = Carried { payload, handle_count, ext, is_call };
        let transfer = |Spot { tail, position }| {
            check_receiver(end)?;
            let handles = &packet.handles[..];
            outgoing.hand_over(&HandOver { region, ring, sender, tail, position, handles })
        };
        K::produce(end, producer, wakes, &[&packet.data], |window, ring| {
            window.send_carried(ring, &carried, recount, transfer).map_err(|error| match error {
                NotCarried::Refused(refusal) => NotSent::of(end, refusal),
                NotCarried::NotTransferred(unsent) => not_sent(unsent),
            })
        })?;
        Ok(())
    }
}

impl<K: Topology> Drop for Sending<K> {
    fn drop(&mut self) {
        self.standby = None; // before the endpoint is another's
        self.end.settle(&self.wakes);
    }
}

/// Checks handles that are to be sent on ring `ring` of `region`, before anything else happens.
pub(crate) fn check_handles(
    region: &Region,
    ring: u32,
    outgoing: Option<&Outgoing>,
    handles: &[Handle],
) -> Result<(), Error> {
    let limit = region.entry(ring)?.max_handles;
    if limit == 0 {
        let reason = "it was made without them; see max_handles of OpenOptions or RingOptions";
        return Err(Error::HandlesNotCarried { ring, reason });
    }
    let checked = match outgoing.and_then(Outgoing::through) {
        Some(through) => check_moved(handles, limit, through),
        None => {
            let own = std::iter::once(region.plain());
            Through::of(own.chain(region.rendezvous_sockets()))
                .and_then(|through| check_moved(handles, limit, &through))
        }
    };
    checked.map_err(|source| Error::Handles { source })
}

pub(crate) fn not_sent(unsent: Unsent, seen: u32) -> NotSent {
    match unsent {
        Unsent::NoReceiver => NotSent::NoReceiver { seen },
        Unsent::Crowded => NotSent::Crowded,
        Unsent::Failed(error) => NotSent::Failed(error),
    }
}

/// Fails if no process owns the receiving endpoint. The socket alone doesn't show that: a forked child of a
/// killed receiver may still have it, and would keep what is sent to it.
fn check_receiver(end: &Attached) -> Result<(), Unsent> {
    let region = end.slot.region();
    let slot = region.entries()[end.group.rings.start as usize].rx_slot;
    let is_held = match byte_is_held(region, slot..slot + 1) {
        Ok(false) => end.slot.is_any_held(slot..slot + 1), // the slow way of asking decides
        found => found,
    };
    match is_held {
        Ok(true) => Ok(()),
        Ok(false) => Err(Unsent::NoReceiver),
        Err(error) => Err(Unsent::Failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::sync::atomic::Ordering::Release;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::endpoint::slot_offset;
    use crate::options::Disconnect;
    use crate::os::staged;
    use crate::{
        Deadline, EventsRegion, Handle, MpscProducer, OpenOptions, SendError, SendTimeoutError,
        SpscReceiver, SpscSender, TrySendError,
    };

    fn pair() -> (SpscSender, SpscReceiver) {
        let options = OpenOptions::new().spsc_capacity(4096).max_message(1000).max_handles(1);
        let (tx, mut rx) = EventsRegion::anonymous(options).unwrap().split_spsc().unwrap();
        rx.attach().unwrap();
        (tx, rx)
    }

    fn packet(len: usize) -> MessagePacket {
        let handle = Handle::new(File::open("/proc/self/exe").unwrap());
        MessagePacket { data: vec![1; len], handles: vec![handle] }
    }

    /// A counter in a slot of the region of `end`.
    fn counter(end: &Attached, slot: u16, offset: usize) -> u64 {
        let region = end.slot.region();
        region.mapping().word_u64(slot_offset(region, slot, offset)).load(Acquire)
    }

    #[test]
    fn a_message_may_be_as_long_as_the_ring_takes_and_no_longer() {
        let (mut tx, _rx) = pair();
        tx.try_send(&[1; 1000]).unwrap(); // on the slow path, as it attaches
        let too_long = tx.try_send(&[1; 1001]);
        let is_so = |error: &Error| matches!(error, Error::MessageTooLong { found: 1001, .. });
        assert!(matches!(too_long, Err(TrySendError::Failed { source, .. }) if is_so(&source)));
        // Together they have bits of a longer one.
        assert_eq!(tx.try_send_batch(&[&[1; 1000], &[1; 7]]).unwrap(), 2);
        let too_long = tx.send_packet(packet(1001));
        assert!(matches!(too_long, Err(SendError::Failed { source, .. }) if is_so(&source)));
    }

    #[test]
    fn a_batch_of_nothing_needs_no_endpoint() {
        let mut region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let (mut owner, _) = region.split_spsc().unwrap();
        owner.attach().unwrap();
        let (mut tx, _) = region.split_spsc().unwrap();
        assert_eq!(tx.try_send_batch(&[]).unwrap(), 0);
    }

    #[test]
    fn handles_are_counted_on_both_sides_and_a_sender_of_some_says_that_it_has_a_socket() {
        let (mut tx, mut rx) = pair();
        (0..2).for_each(|_| tx.send_packet(packet(8)).unwrap());
        let end = tx.attached_end().unwrap();
        let sender = end.slot.identity().slot;
        let receiver = rx.receiving.as_ref().unwrap().end.slot.identity().slot;
        let handles = |slot| counter(end, slot, offset_of!(Slot, handles));
        assert_eq!((handles(sender), handles(receiver)), (2, 0));
        (0..2).for_each(|_| drop(rx.recv().unwrap()));
        assert_eq!((handles(sender), handles(receiver)), (2, 2));
        let flags = counter(end, sender, offset_of!(Slot, flags) & !7);
        let shift = 8 * (offset_of!(Slot, flags) & 7);
        assert_ne!((flags >> shift) as u32 & slot_flags::HAS_SOCKET, 0);
    }

    #[test]
    fn what_a_sender_has_counted_is_stored_now_and_then_and_when_it_goes() {
        let elided =
            |end: &Attached| counter(end, end.slot.identity().slot, offset_of!(Slot, wakes_elided));
        let send_one = |tx: &mut SpscSender| tx.try_send(b"one").unwrap();
        let send_two = |tx: &mut SpscSender| assert_eq!(tx.try_send_batch(&[b"1"]).unwrap(), 1);
        for send in [send_one as fn(&mut SpscSender), send_two] {
            let (mut tx, mut rx) = pair();
            let mut send_many = |tx: &mut SpscSender, count: u32| {
                (0..count).for_each(|_| {
                    send(tx);
                    rx.try_recv().unwrap();
                });
            };
            send_many(&mut tx, 100);
            assert_eq!(elided(tx.attached_end().unwrap()), 0);
            send_many(&mut tx, 2000);
            let stored = elided(tx.attached_end().unwrap());
            assert!((1000..2100).contains(&stored), "{stored}");
            let (shared, slot) = {
                let end = tx.attached_end().unwrap();
                (end.slot.region().clone(), end.slot.identity().slot)
            };
            drop(tx);
            let at = slot_offset(&shared, slot, offset_of!(Slot, wakes_elided));
            assert!(shared.mapping().word_u64(at).load(Acquire) > stored);
        }
    }

    #[test]
    fn what_is_set_before_an_end_is_attached_holds_and_so_does_what_is_set_later() {
        let options = OpenOptions::new().spsc_capacity(4096);
        let mut region = EventsRegion::anonymous(options).unwrap();
        let (mut tx, mut gone) = region.split_spsc().unwrap();
        gone.attach().unwrap();
        drop(gone);
        tx.set_disconnect(Disconnect::Ever);
        let short = Duration::from_micros(1);
        tx.set_spin_max(short);
        let fill = |tx: &mut SpscSender| loop {
            if let Err(error) = tx.try_send(&[0; 400]) {
                return error;
            }
        };
        assert!(matches!(fill(&mut tx), TrySendError::Disconnected(_)));
        let is_of = |tx: &SpscSender, max| {
            let spin = &tx.usable_sending().unwrap().spin;
            format!("{spin:?}").contains(&format!("max: {max:?}"))
        };
        assert!(is_of(&tx, short));
        tx.set_spin_max(2 * short);
        assert!(is_of(&tx, 2 * short));
        tx.set_disconnect(Disconnect::Never);
        assert!(matches!(fill(&mut tx), TrySendError::Full(_)));
    }

    #[test]
    fn an_interrupt_comes_before_a_message_also_at_an_end_that_was_attached_before() {
        let (mut tx, _rx) = pair();
        tx.attach().unwrap();
        tx.interrupter().interrupt();
        assert!(matches!(tx.send(b"not yet"), Err(SendError::Interrupted(_))));
        tx.send(b"now").unwrap();
    }

    #[test]
    fn who_waits_for_a_peer_attaches() {
        let (mut tx, _rx) = pair();
        tx.wait_for_peer(Deadline::PAST).unwrap();
        assert!(tx.attached_end().is_some());
    }

    #[test]
    fn a_child_attaches_to_no_ring_that_it_has_not_got() {
        let (mut tx, _rx) = pair();
        assert!(staged::in_child(|| matches!(tx.attach(), Err(Error::ForkedChild))));
    }

    /// Another thread of the parent's may have had the connection's lock, which no thread of the child frees.
    #[test]
    fn a_child_that_checks_handles_does_not_wait_for_a_lock_of_its_parents() {
        let (mut tx, _rx) = pair();
        tx.attach().unwrap();
        let outgoing = tx.usable_sending().unwrap().outgoing.clone();
        let _held = lock(&outgoing);
        assert!(staged::in_child(|| {
            let (done, is_done) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                let sent = tx.try_send_packet(packet(8));
                let source = sent.map_err(|error| match error {
                    TrySendError::Failed { source, .. } => Some(source),
                    _ => None,
                });
                done.send(matches!(source, Err(Some(Error::ForkedChild))))
            });
            is_done.recv_timeout(Duration::from_secs(5)) == Ok(true)
        }));
    }

    #[test]
    fn what_a_sender_has_counted_is_stored_before_it_sleeps() {
        let (mut tx, _rx) = pair();
        (0..4).for_each(|_| tx.try_send(&[0; 900]).unwrap());
        let elided = |tx: &SpscSender| {
            let end = tx.attached_end().unwrap();
            counter(end, end.slot.identity().slot, offset_of!(Slot, wakes_elided))
        };
        assert_eq!(elided(&tx), 0);
        let sent = tx.send_timeout(&[0; 1000], Duration::from_millis(10));
        assert!(matches!(sent, Err(SendTimeoutError::Timeout(_))), "{sent:?}");
        assert!(elided(&tx) > 0);
    }

    /// What becomes of a call of which each attempt ends so.
    fn always(
        tx: &mut SpscSender,
        deadline: Deadline,
        mut ended: impl FnMut() -> NotSent,
    ) -> (NotSent, u32) {
        let mut attempts = 0;
        let outcome = tx.until(deadline, |_| {
            attempts += 1;
            Err::<(), _>(ended())
        });
        (outcome.unwrap_err(), attempts)
    }

    #[test]
    fn a_call_counts_once_that_it_waits_for_space() {
        let (mut tx, _rx) = pair();
        let wanted = SpaceWanted { tail: 0, needed: 8, comfortable: 8 }; // which there is
        let mut left = 4;
        tx.until(Duration::from_secs(10).into(), |_| {
            left -= 1;
            if left > 0 { Err(NotSent::Full(wanted)) } else { Ok(()) }
        })
        .unwrap();
        let end = tx.attached_end().unwrap();
        assert_eq!(counter(end, end.slot.identity().slot, offset_of!(Slot, full_waits)), 1);
    }

    #[test]
    fn who_waits_for_a_receiver_of_handles_sleeps_until_an_end_changes_hands() {
        let (mut tx, _rx) = pair();
        tx.attach().unwrap();
        let region = tx.attached_end().unwrap().slot.region().clone();
        let seen = || NotSent::NoReceiver { seen: region.membership().load(Acquire) };
        let (_, attempts) = always(&mut tx, Duration::from_millis(50).into(), seen);
        assert!(attempts < 20, "{attempts}");
    }

    #[test]
    fn an_interrupt_ends_a_wait_for_a_holder_also_if_it_is_over() {
        let (mut tx, _rx) = pair();
        let interrupter = tx.interrupter();
        let interrupted = || {
            interrupter.interrupt();
            NotSent::Crowded
        };
        let (outcome, attempts) = always(&mut tx, Deadline::PAST, interrupted);
        assert!(matches!(outcome, NotSent::Interrupted), "{outcome:?}");
        assert_eq!(attempts, 1);
    }

    const LONG: Duration = Duration::from_secs(20);

    /// Calls `test` with the clone of a producer that is attaching meanwhile, and what ends the wait of both.
    fn beside_one_that_attaches(test: impl FnOnce(MpscProducer, MpscProducer)) {
        let options = OpenOptions::new().mpsc_capacity(4096).producers(1);
        let mut region = EventsRegion::anonymous(options).unwrap();
        let ((mut owner, _), (mut first, _)) =
            (region.split_mpsc().unwrap(), region.split_mpsc().unwrap());
        owner.attach().unwrap();
        let clone = first.clone();
        let first = std::thread::spawn(move || first.send_timeout(b"first", LONG).map(|()| first));
        std::thread::sleep(Duration::from_millis(50)); // until it has begun
        test(clone, owner);
        drop(first.join().unwrap().unwrap());
    }

    #[test]
    fn a_clone_waits_for_one_that_is_attaching() {
        beside_one_that_attaches(|mut clone, owner| {
            let waiting = std::thread::spawn(move || clone.send_timeout(b"second", LONG));
            std::thread::sleep(Duration::from_millis(50));
            drop(owner);
            waiting.join().unwrap().unwrap();
        });
    }

    #[test]
    fn it_sleeps_meanwhile_and_is_told_who_has_the_end() {
        beside_one_that_attaches(|mut clone, _owner| {
            let before = staged::sleeps();
            let sent = clone.send_timeout(b"second", Duration::from_millis(200));
            assert!(before.is_none_or(|before| staged::sleeps().unwrap() > before + 2));
            let Err(SendTimeoutError::Failed { source, .. }) = sent else { panic!("{sent:?}") };
            assert!(matches!(source, Error::Busy { .. }), "{source}");
        });
    }

    #[test]
    fn an_interrupt_ends_that_wait() {
        beside_one_that_attaches(|mut clone, _owner| {
            clone.interrupter().interrupt();
            let start = Instant::now();
            let sent = clone.send_timeout(b"second", LONG);
            assert!(matches!(sent, Err(SendTimeoutError::Interrupted(_))), "{sent:?}");
            assert!(start.elapsed() < LONG / 2);
        });
    }

    #[test]
    fn who_finds_no_receiver_any_more_tries_once_more_with_the_space_that_it_left() {
        let (mut tx, rx) = pair();
        tx.attach().unwrap();
        drop(rx);
        let full =
            || Err::<u32, _>(NotSent::Full(SpaceWanted { tail: 0, needed: 8, comfortable: 8 }));
        let sending = tx.usable().unwrap();
        let mut attempts = 0;
        let outcome = sending.attempt(|_| {
            attempts += 1;
            if attempts == 1 { full() } else { Ok(attempts) }
        });
        assert!(matches!(outcome, Ok(2)), "{outcome:?}");
        assert!(matches!(sending.attempt(|_| full()), Err(NotSent::Disconnected)));
        let mut found = vec![Err::<u32, _>(NotSent::Interrupted), full()];
        let outcome = sending.attempt(|_| found.pop().unwrap());
        assert!(matches!(outcome, Err(NotSent::Interrupted)), "{outcome:?}");
    }

    #[test]
    fn who_needs_no_space_of_a_receiver_that_is_gone_tries_once() {
        let (mut tx, rx) = pair();
        tx.attach().unwrap();
        drop(rx);
        let sending = tx.usable().unwrap();
        for found in [Ok(7), Err(NotSent::Interrupted)] {
            let is_sent = found.is_ok();
            let mut found = Some(found);
            let outcome = sending.attempt(|_| found.take().expect("a second attempt"));
            let is_so = matches!(outcome, Ok(7) if is_sent)
                || matches!(outcome, Err(NotSent::Interrupted) if !is_sent);
            assert!(is_so, "{outcome:?}");
        }
    }

    #[test]
    fn a_ring_whose_words_were_cut_off_is_not_called_full() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r");
        let options = OpenOptions::new().spsc_capacity(4096);
        let mut region = EventsRegion::open_path_with(&path, options).unwrap();
        let (mut tx, mut rx) = region.split_spsc().unwrap();
        for len in [1000, 1000, 1000, 200] {
            tx.try_send(&vec![0; len]).unwrap();
            rx.try_recv().unwrap();
        }
        std::fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
        let sent = tx.try_send_batch(&[&[0; 1000]]); // the head seems to be where it was at first
        let Err(TrySendError::Failed { source, .. }) = sent else { panic!("{sent:?}") };
        assert!(matches!(source, Error::RegionTooSmall { .. }), "{source}");
    }

    /// All but the data is there still: nothing has changed since the other side was asked after.
    #[test]
    fn whatever_is_found_in_a_ring_that_is_cut_off_meanwhile_the_sender_says_that_it_was() {
        let full = NotSent::Full(SpaceWanted { tail: 0, needed: 8, comfortable: 8 });
        for found in [Err(full), Ok(())] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("r");
            let options = OpenOptions::new().spsc_capacity(4096);
            let mut region = EventsRegion::open_path_with(&path, options).unwrap();
            let (mut tx, mut rx) = region.split_spsc().unwrap();
            rx.attach().unwrap();
            tx.attach().unwrap();
            let file = File::options().write(true).open(path).unwrap();
            let sending = tx.usable().unwrap();
            assert!(!sending.peer.is_disconnected(&sending.end).unwrap());
            let mut found = Some(found);
            let sent = sending.attempt(|Sending { end, .. }| {
                let at = end.entry.data_offset;
                file.set_len(at).unwrap();
                end.slot.region().mapping().word_u64(at).load(Acquire); // which notices
                assert!(!end.is_whole());
                found.take().unwrap()
            });
            let Err(NotSent::Failed(error)) = sent else { panic!("{sent:?}") };
            assert!(matches!(error, Error::RegionTooSmall { .. }), "{error}");
            assert!(!sending.end.has_changed(sending.peer.asked()));
        }
    }

    #[test]
    fn what_a_receiver_that_is_gone_could_not_open_is_not_asked_after() {
        let options = OpenOptions::new().spsc_capacity(4096).max_handles(1);
        let directory = tempfile::tempdir().unwrap();
        let region = EventsRegion::open_path_with(directory.path().join("r"), options);
        let (mut tx, _) = region.unwrap().split_spsc().unwrap();
        tx.attach().unwrap();
        let end = tx.attached_end().unwrap();
        let (region, slot) = (end.slot.region(), end.group.rings.start as usize);
        let slot = region.entries()[slot].rx_slot;
        let said = slot_offset(region, slot, offset_of!(Slot, socket_number));
        region.mapping().word_u64(said).store(libc::EACCES as u64, Release);
        let sent = tx.try_send_packet(packet(8));
        assert!(matches!(sent, Err(TrySendError::NoReceiver(_))), "{sent:?}");
    }

    #[test]
    fn who_cannot_ask_after_a_receiver_does_not_say_that_there_is_none() {
        let (mut tx, _rx) = pair();
        tx.send_packet(packet(8)).unwrap();
        let sending = tx.usable().unwrap();
        // It asks after the receiver only then again, when something has changed.
        assert!(!sending.peer.is_disconnected(&sending.end).unwrap());
        let number = sending.end.slot.region().plain().as_raw_fd();
        staged::usurp(number, File::open("/proc/self/exe").unwrap());
        let sent = tx.try_send_packet(packet(8));
        let Err(TrySendError::Failed { source, .. }) = sent else { panic!("{sent:?}") };
        assert!(matches!(source, Error::LockLost { .. }), "{source}");
    }
}
