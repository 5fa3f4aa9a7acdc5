//! What keeps messages from getting through a region in which nothing is damaged: an endpoint that is
//! stopped, dead or missing while another depends on it.
//!
//! Two readings must agree on the endpoint's owner, its process, and the words of the ring that matter. Other
//! words may move in between: senders that retry keep the counters of a full ring moving.

use std::ops::Range;

use tombolo_abi::{
    Header, LockWord, RECORD_HEADER_LEN, Record, RingControl, RingKind, SlotState, wake,
};

use super::endpoint::{EndpointView, Liveness, SlotTable, is_held};
use super::file::RegionFile;
use super::process::Process;
use super::ring::RingView;
use super::walk::{RingPlace, is_before};

/// An endpoint that keeps messages from getting through.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stuck {
    /// The rings that it keeps from moving: one, or several lanes of one receiver.
    pub rings: Vec<u32>,
    /// What is wrong with it.
    pub reason: StuckReason,
    /// The endpoint's slot; for [`StuckReason::ReceiverMissing`], the slot that no process owns.
    pub slot: u32,
    /// Whether one of the rings is full: a sender that is alive waits for space, or there is less than a
    /// message of the longest length takes.
    pub is_full: bool,
    /// Whether a sender that is alive waits for space in one of the rings, or gave up and nothing was freed
    /// since.
    pub sender_waits: bool,
}

/// Why messages don't get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StuckReason {
    /// The receiver's process is stopped, and something is unread or a sender waits.
    ReceiverStopped,
    /// The receiver is dead and the ring is full.
    ReceiverDead,
    /// A sender waits for space, and no process receives.
    ReceiverMissing,
    /// A sender whose process is stopped holds the ring's lock, and another endpoint is alive. A dead
    /// holder keeps no sender waiting: the next one takes the lock over.
    HolderStopped,
    /// The sender's process is stopped between publishing a message and waking the receiver, which sleeps.
    SenderStopped,
}

/// Everything that the first reading found, and the file for the second one.
pub(super) struct Scene<'a> {
    pub(super) file: &'a RegionFile,
    pub(super) header: &'a Header,
    pub(super) rings: &'a [RingView],
    /// In the order of their slots.
    pub(super) endpoints: &'a [EndpointView],
}

/// A ring as both readings found it.
#[derive(Clone, Copy)]
struct Seen<'a> {
    ring: &'a RingView,
    place: RingPlace,
    first: RingControl,
    second: RingControl,
}

impl Scene<'_> {
    /// All endpoints that keep messages from getting through, in the order of their rings.
    pub(super) fn stuck(&self) -> Vec<Stuck> {
        let mut found: Vec<Stuck> = Vec::new();
        for seen in self.rings.iter().filter_map(|ring| Seen::of(self.header, ring)) {
            let suspects = [self.holder(&seen), self.receiver(&seen), self.sender(&seen)];
            for stuck in suspects.into_iter().flatten() {
                // The lanes of a group lie side by side and have one receiver.
                let of_before =
                    |other: &&mut Stuck| (other.reason, other.slot) == (stuck.reason, stuck.slot);
                match found.iter_mut().rev().take(3).find(of_before) {
                    Some(other) => other.merge(stuck),
                    None => found.push(stuck),
                }
            }
        }
        found.retain(|stuck| self.is_still_so(stuck));
        found
    }

    fn holder(&self, seen: &Seen<'_>) -> Option<Stuck> {
        let entry = &seen.ring.entry;
        let lock = seen.ring.lock.filter(|lock| lock.liveness == Liveness::Alive)?;
        let word = LockWord { slot: lock.slot, incarnation: lock.incarnation }.to_word();
        let has_moved = [seen.first.lock, seen.second.lock] != [word; 2];
        let holder = self.endpoint(lock.slot)?;
        if has_moved || holder.fields.incarnation != lock.incarnation || !is_stopped(holder) {
            return None;
        }
        let rx_slot = entry.rx_slot..entry.rx_slot.saturating_add(1);
        let is_other = |endpoint: &EndpointView| endpoint.slot != holder.slot;
        let is_other_alive =
            self.alive(entry.tx_slots()).any(is_other) || self.alive(rx_slot).any(is_other);
        is_other_alive.then(|| self.because(StuckReason::HolderStopped, holder.slot, seen))
    }

    fn receiver(&self, seen: &Seen<'_>) -> Option<Stuck> {
        if seen.first.head != seen.second.head {
            return None; // it receives
        }
        let slot = seen.ring.entry.rx_slot;
        let receiver = self.endpoint(slot);
        let (sender_waits, is_full) = (self.sender_waits(seen), self.is_full(seen));
        let reason = match receiver.map_or(Liveness::Left, |receiver| receiver.liveness) {
            Liveness::Alive if receiver.is_some_and(is_stopped) => {
                (seen.has_unread() || sender_waits).then_some(StuckReason::ReceiverStopped)
            }
            Liveness::Dead => is_full.then_some(StuckReason::ReceiverDead),
            Liveness::Left => (is_full && sender_waits).then_some(StuckReason::ReceiverMissing),
            _ => None,
        };
        Some(self.because(reason?, slot.into(), seen))
    }

    fn sender(&self, seen: &Seen<'_>) -> Option<Stuck> {
        let entry = &seen.ring.entry;
        if entry.ring_kind() == Some(RingKind::Mpsc) {
            return None; // the lock shows which sender is in the middle of a send
        }
        let sender = self.endpoint(entry.tx_slot_first)?;
        let receiver = self.endpoint(entry.rx_slot)?;
        let is_in_send = seen.first.tail == seen.second.tail
            && is_before(seen.first.tail, seen.end())
            && seen.first.head == seen.second.head;
        let is_stuck = is_in_send
            && is_stopped(sender)
            && receiver.liveness == Liveness::Alive
            && seen.has_unread()
            && self.receiver_sleeps(seen);
        is_stuck.then(|| self.because(StuckReason::SenderStopped, sender.slot, seen))
    }

    fn because(&self, reason: StuckReason, slot: u32, seen: &Seen<'_>) -> Stuck {
        let (is_full, sender_waits) = (self.is_full(seen), self.sender_waits(seen));
        Stuck { rings: vec![seen.ring.ring], reason, slot, is_full, sender_waits }
    }

    /// Whether a sender that is alive waits for space: one that died, or gave up, may have left the word
    /// armed, and so what is armed counts only if there is a message that would not fit.
    fn sender_waits(&self, seen: &Seen<'_>) -> bool {
        let is_armed = [seen.first.tx_wake, seen.second.tx_wake].into_iter().all(is_armed);
        is_armed && self.alive(seen.ring.entry.tx_slots()).next().is_some()
    }

    /// Whether the ring is full: a sender waits and the longest message doesn't fit, or there is less space
    /// than that message takes, even without padding.
    fn is_full(&self, seen: &Seen<'_>) -> bool {
        let (free, longest) =
            (seen.place.rules.capacity.saturating_sub(seen.depth_len()), seen.longest_len());
        free < longest || self.sender_waits(seen) && free < longest + seen.padding_len(longest)
    }

    /// Whether the receiver is armed: of a lane, the word is that of its group's first.
    fn receiver_sleeps(&self, seen: &Seen<'_>) -> bool {
        let entry = &seen.ring.entry;
        let is_first = |ring: &&RingView| {
            ring.entry.ring_kind() == Some(RingKind::Lane) && ring.entry.group == entry.group
        };
        let first = match entry.ring_kind() {
            Some(RingKind::Lane) => self.rings.iter().find(is_first),
            _ => Some(seen.ring),
        };
        let words = first.and_then(|ring| ring.control.zip(ring.control_again));
        words.is_some_and(|(first, second)| {
            first.rx_wake == second.rx_wake && is_armed(first.rx_wake)
        })
    }

    /// Reads the endpoint once more.
    fn is_still_so(&self, stuck: &Stuck) -> bool {
        let held = is_held(self.file, stuck.slot);
        if stuck.reason == StuckReason::ReceiverMissing {
            return held == Some(false);
        }
        let index = self.endpoints.binary_search_by_key(&stuck.slot, |endpoint| endpoint.slot);
        let Some(endpoint) = index.ok().and_then(|index| self.endpoints.get(index)) else {
            return false;
        };
        let fields = &endpoint.fields;
        let owner = SlotTable::new(self.header).owner(self.file, stuck.slot);
        let is_same = owner == Some((fields.incarnation, fields.pid)) && !endpoint.torn;
        let process = || Process::find(fields.pid, fields.start_ticks, fields.pid_namespace);
        is_same
            && match stuck.reason {
                StuckReason::ReceiverDead => held == Some(false),
                _ => held == Some(true) && process().is_stopped(),
            }
    }

    fn endpoint(&self, slot: u16) -> Option<&EndpointView> {
        let slot = u32::from(slot);
        let index = self.endpoints.binary_search_by_key(&slot, |endpoint| endpoint.slot).ok()?;
        self.endpoints.get(index)
    }

    /// Those of the endpoints in `slots` that are alive.
    fn alive(&self, slots: Range<u16>) -> impl Iterator<Item = &EndpointView> {
        let from = self.endpoints.partition_point(|one| one.slot < slots.start.into());
        let of_slots =
            self.endpoints[from..].iter().take_while(move |one| one.slot < slots.end.into());
        of_slots.filter(|one| one.liveness == Liveness::Alive)
    }
}

impl<'a> Seen<'a> {
    fn of(header: &Header, ring: &'a RingView) -> Option<Self> {
        let (first, second) = (ring.control?, ring.control_again?);
        let place = RingPlace::new(header, ring.ring, &ring.entry)?;
        Some(Self { ring, place, first, second })
    }

    fn depth_len(&self) -> u64 {
        self.ring.depth.map_or(0, |depth| depth.len)
    }

    /// Behind the last published record.
    fn end(&self) -> u64 {
        self.first.head.wrapping_add(self.depth_len())
    }

    /// Whether a message was published and not received: padding is none.
    fn has_unread(&self) -> bool {
        self.ring.depth.is_some_and(|depth| depth.msgs.unwrap_or(depth.len) > 0)
    }

    /// What the longest message takes, with the zero word behind it.
    fn longest_len(&self) -> u64 {
        let entry = &self.ring.entry;
        let record = Record { ext: entry.max_handles > 0, ..Record::data(entry.max_message) };
        self.place.rules.record_len(&record).saturating_add(RECORD_HEADER_LEN)
    }

    /// The padding before a record that takes `len` bytes with the zero word behind it.
    fn padding_len(&self, len: u64) -> u64 {
        let to_end = self.place.rules.len_to_end(self.end());
        if len.saturating_sub(RECORD_HEADER_LEN) > to_end { to_end } else { 0 }
    }
}

impl Stuck {
    fn merge(&mut self, other: Self) {
        self.rings.extend(other.rings);
        self.is_full |= other.is_full;
        self.sender_waits |= other.sender_waits;
    }
}

fn is_armed(word: u32) -> bool {
    word & (wake::ARMED_FUTEX | wake::ARMED_FD) != 0
}

/// Whether its owner is alive and stopped. The end of a channel that is on its way has none.
fn is_stopped(endpoint: &EndpointView) -> bool {
    endpoint.liveness == Liveness::Alive
        && endpoint.state() != Some(SlotState::InTransit)
        && endpoint.process.is_stopped()
}
