//! What a receiver has once it owns its endpoint, and which message is next.

use std::sync::Arc;

use tombolo_abi::Role;

use super::Deadline;
use super::attached::Attached;
use super::bell::{Bell, OneRing, Sleep};
use super::discipline::Discipline;
use super::errors::TryRecvError;
use super::intake::Intake;
use super::lanes::{AllLanes, Lanes};
use super::peer::Peer;
use super::spin::Spin;
use crate::Error;
use crate::region::Region;
use crate::ring::{Consumer, Front, Nothing, Wakes};

/// What a receiver has once it owns its endpoint.
#[derive(Debug)]
pub struct Claimed {
    pub(super) end: Attached,
    pub(super) consumer: Consumer,
    /// `None` where the ring's messages carry no handles.
    pub(super) intake: Option<Intake>,
    pub(super) wakes: Wakes,
    peer: Peer,
    pub(super) bell: Bell,
    /// Where it is of a group of lanes: `end` and `consumer` are those of the current one.
    pub(super) lanes: Option<Box<Lanes>>,
    /// When [`wait_any`](super::wait_any) last named this receiver, as a count of all it named.
    pub(super) named: u64,
}

impl Claimed {
    /// Claims the receiving endpoint of ring `index`.
    #[cold]
    pub(super) fn claim(
        region: &Arc<Region>,
        index: u32,
        spin: Spin,
        deadline: Deadline,
    ) -> Result<Self, Error> {
        region.check_ours()?;
        let end = Attached::claim(region, index, Role::Receiver, deadline)?;
        let mut consumer = Consumer::attach(&end.ring).map_err(|damage| end.damaged(damage))?;
        let bell = Bell::attach(&end, spin)?;
        let intake = Intake::open(&end)?;
        let (wakes, peer) = <_>::default();
        let lanes = match end.group.of_lanes {
            true => Some(Box::new(Lanes::attach(&end, &mut consumer, &wakes)?)),
            false => None,
        };
        Ok(Self { end, consumer, intake, wakes, peer, bell, lanes, named: 0 })
    }

    /// The next message where nothing stands in the way, as `Receiver::take_at_once`.
    #[inline(always)]
    pub(super) fn front_at_once<K: Discipline>(&mut self) -> Result<Option<Front>, Nothing> {
        let Self { end, consumer, peer, bell, lanes, .. } = self;
        if !end.is_sound() {
            return Ok(None);
        }
        match consumer.front_at_once(&end.ring) {
            Err(Nothing) if K::MAY_HAVE_LANES && lanes.is_some() => Ok(None), // in this lane
            Err(Nothing) if end.has_departures(peer.known()) || !end.is_whole() => Ok(None),
            Ok(Some(_)) if bell.is_time_to_look_around() => Ok(None),
            found => found,
        }
    }

    pub(super) fn front(&mut self) -> Result<Option<Front>, Error> {
        if self.lanes.is_some() {
            return self.front_of_lanes();
        }
        let Self { end, consumer, wakes, bell, .. } = self;
        match consumer.front(&end.ring, wakes) {
            Ok(Some(front)) => {
                if bell.look_around(end) || wakes.is_due() {
                    end.settle(wakes);
                }
                Ok(Some(front))
            }
            Ok(None) => Ok(None),
            Err(damage) => Err(end.damaged_at(damage, consumer.head())),
        }
    }

    /// As [`Self::front`], of all lanes: that of the current one while its turn lasts, else of the next.
    fn front_of_lanes(&mut self) -> Result<Option<Front>, Error> {
        let Self { end, consumer, wakes, bell, lanes: Some(lanes), .. } = self else {
            return Ok(None); // never: asked where there are lanes
        };
        let mut is_over = bell.look_around(end) || wakes.is_due();
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
                lanes.note_left();
            }
            bell.begin_turn(end);
            lanes.note_departures(end);
            let Some(next) = lanes.next(end, consumer.head(), bell.all_fence()) else {
                return Ok(front);
            };
            lanes.turn_to(next, end, consumer);
            is_over = false;
        }
        Ok(None) // a flood of padding
    }

    /// A departure that is to be told.
    fn departure(&mut self) -> Result<Option<u64>, Error> {
        let Self { end, consumer, peer, lanes, .. } = self;
        let has_taken = lanes.as_ref().is_some_and(|lanes| lanes.has_taken());
        if has_taken || consumer.has_taken() {
            end.meeting.note();
        }
        let known = peer.known();
        let departure = peer.departure(end)?;
        if departure.is_some() || peer.known() != known {
            lanes.iter_mut().for_each(|lanes| lanes.scan_soon());
        }
        Ok(departure)
    }

    /// Whether a departure asks for a look at all lanes.
    fn is_scan_due(&self) -> bool {
        self.lanes.as_ref().is_some_and(|lanes| lanes.is_scan_due())
    }

    /// What to say of an empty ring.
    pub(super) fn empty(&mut self) -> Result<Front, TryRecvError> {
        match self.last_look()? {
            (Some(front), _) => Ok(front),
            (None, Some(departure)) => {
                self.peer.tell(departure);
                Err(TryRecvError::Disconnected)
            }
            (None, None) => Err(TryRecvError::Empty),
        }
    }

    /// Looks at an empty ring once more where a sender is gone, as what it sent before is delivered
    /// first; gives what there is, and a departure that is to be told. Where there is nothing, the
    /// connections of the departed are closed.
    fn last_look(&mut self) -> Result<(Option<Front>, Option<u64>), Error> {
        self.end.check_whole()?; // bytes that are missing look like an empty ring
        let departed = self.intake.as_mut().map(|intake| intake.departed(&self.end));
        let departed = departed.unwrap_or_default();
        if let (Some(lanes), false) = (&mut self.lanes, departed.is_empty()) {
            lanes.scan_soon(); // what they left may be in a lane that the summary doesn't tell of
        }
        let departure = self.departure()?;
        let is_to_look = departure.is_some() || !departed.is_empty() || self.is_scan_due();
        if is_to_look && let Some(front) = self.front()? {
            if !departed.is_empty() {
                self.peer.ask_again();
            }
            return Ok((Some(front), departure));
        }
        self.end.check_whole()?;
        if let Some(intake) = &mut self.intake {
            intake.forget(&departed);
        }
        Ok((None, departure))
    }

    /// As [`Self::last_look`], where there may be handles that nobody comes for any more. A departure is
    /// told by the next receive.
    pub(super) fn front_behind_departed(&mut self) -> Result<Option<Front>, Error> {
        match self.intake {
            Some(_) => self.last_look().map(|(front, _)| front),
            None => Ok(None),
        }
    }

    /// Waits until there may be something to do.
    pub(super) fn wait(&mut self, deadline: Deadline) -> Result<(), Error> {
        let Self { end, consumer, wakes, peer, bell, lanes, .. } = self;
        let (head, known) = (consumer.head(), peer.known());
        match lanes {
            None => bell.wait(end, &mut OneRing { head }, wakes, known, deadline),
            Some(lanes) => bell.wait(end, &mut AllLanes { lanes, head }, wakes, known, deadline),
        }
    }

    /// Whether receiving would not wait: there is a message, a departure to tell, or an error.
    pub(super) fn is_ready(&mut self) -> bool {
        let usable = self.end.check_usable().and_then(|()| self.front());
        match usable {
            Ok(None) => !matches!(self.last_look(), Ok((None, None))),
            Ok(Some(_)) | Err(_) => true,
        }
    }

    /// Arms for a sleep on several receivers; `None` where this one is no reason to sleep. Disarm
    /// afterwards, either way.
    pub(super) fn arm(&mut self) -> Option<Sleep> {
        let Self { end, consumer, wakes, peer, bell, lanes, .. } = self;
        end.settle(wakes);
        let head = consumer.head();
        let sleep = match lanes {
            None => bell.arm(end, &mut OneRing { head }),
            Some(lanes) => bell.arm(end, &mut AllLanes { lanes, head }),
        };
        let sleep = sleep.ok()?; // an error is told by the next receive
        sleep.filter(|_| !end.has_departures(peer.known()) && end.ring.is_open())
    }

    /// Disarms after a sleep, or after none.
    pub(super) fn disarm(&mut self) {
        self.bell.disarm(&self.end);
    }

    /// Counts it where the sleep was ended by a departure.
    pub(super) fn count_departure(&self) {
        self.end.count_departure(self.peer.known());
    }
}

/// In the process that claimed it.
impl Drop for Claimed {
    fn drop(&mut self) {
        self.end.settle(&self.wakes);
        let is_ours = self.end.ring.memory.is_ours() && self.end.slot.check_kept().is_ok();
        if let (Some(intake), true) = (&mut self.intake, is_ours) {
            intake.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::thread::yield_now;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::carrier::HandOver;
    use crate::{EventsRegion, Handle, MpscConsumer, MpscProducer, OpenOptions};

    fn open(path: &std::path::Path) -> (MpscProducer, MpscConsumer) {
        let options = OpenOptions::new().max_handles(1).producers(2);
        EventsRegion::open_path_with(path, options).unwrap().split_mpsc().unwrap()
    }

    /// Hands a handle over for a record that does not follow.
    fn leave_an_orphan(tx: &mut MpscProducer, handle: Handle) {
        tx.claim().unwrap();
        let end = tx.claimed_end().unwrap();
        let (region, ring) = (&**end.slot.region(), end.index);
        let mut outgoing = end.outgoing();
        outgoing.connect(region, ring).unwrap();
        let (sender, handles) = (end.slot.identity(), &[handle][..]);
        outgoing
            .hand_over(&HandOver { region, ring, sender, tail: 0, position: 0, handles })
            .unwrap();
    }

    #[test]
    fn the_departed_are_looked_after_though_a_message_came_at_the_last_moment() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r");
        let ((mut tx, mut rx), (mut gone, _)) = (open(&path), open(&path));
        rx.claim().unwrap();
        tx.claim().unwrap();
        let (mut witness, orphan) = std::io::pipe().unwrap();
        leave_an_orphan(&mut gone, Handle::new(orphan));
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
        drop(gone);
        let claimed = rx.claimed_until(Deadline::PAST).unwrap();
        let (start, limit) = (Instant::now(), Duration::from_secs(5));
        while !claimed.end.has_departures(claimed.peer.known()) {
            assert!(start.elapsed() < limit, "nobody noticed the departure");
            yield_now();
        }
        tx.send(b"at the last moment").unwrap();
        assert!(matches!(claimed.last_look(), Ok((Some(_), None))));
        assert!(claimed.end.has_departures(claimed.peer.known()), "the departed are forgotten");
        assert_eq!(rx.try_recv().unwrap().data, b"at the last moment");
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
        let closing = std::thread::spawn(move || witness.read(&mut [0]).unwrap());
        while !closing.is_finished() {
            assert!(start.elapsed() < limit, "the orphan is still open");
            yield_now();
        }
        assert_eq!(closing.join().unwrap(), 0);
    }
}
