//! Rings: geometry, positions, counters, and how full they are.

use tombolo_abi::{Header, LockWord, RingControl, RingEntry, RingKind, RingState};

use super::endpoint::SlotTable;
use super::file::RegionFile;
use super::lock::LockView;
use super::problem::{Place, Problem};
use super::records::{Records, RecordsEnd};
use super::walk::{Positions, RingPlace, is_before};

/// A ring as found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RingView {
    /// Its number in the directory, by which errors speak of it.
    pub ring: u32,
    /// Its index in [`EventsRegion::rings`](crate::EventsRegion::rings), by which its ends are had; of a lane, that
    /// of its group. `None` for a lane whose group has no first one.
    pub listed: Option<u32>,
    /// Its directory entry.
    pub entry: RingEntry,
    /// Its control block; `None` for plain memory, and if the file doesn't hold it.
    pub control: Option<RingControl>,
    /// How full it is; `None` if that is unknown.
    pub depth: Option<Depth>,
    /// The holder of its lock.
    pub lock: Option<LockView>,
    /// Whether its words changed while the region was read. Those that did not are of one moment.
    pub has_moved: bool,
    /// Whether tail or a counter doesn't include yet what was published last: its sender is in the middle of
    /// a send, or died there.
    pub is_behind: bool,
    pub(super) problems: Vec<Problem>,
    /// The control block at the second reading.
    pub(super) control_again: Option<RingControl>,
    /// Of a lane, the state of its group.
    pub(super) group_state: Option<u32>,
}

/// What is in a ring, published and not yet freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Depth {
    /// Bytes from head to the end of the last published record.
    pub len: u64,
    /// Messages among them; `None` if they were too many or too fast to count.
    pub msgs: Option<u64>,
}

impl RingView {
    /// Its state, if v1 knows it; for a lane, its group's.
    #[must_use]
    pub fn state(&self) -> Option<RingState> {
        RingState::from_word(self.group_state.unwrap_or(self.control?.state))
    }

    /// Whether all that is shown of it is of one moment.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        !self.has_moved && !self.is_behind
    }

    /// Reads a ring. Counts at most `budget` records and subtracts them from it.
    pub(super) fn read(
        file: &RegionFile,
        header: &Header,
        (ring, entry): (u32, RingEntry),
        budget: &mut u64,
    ) -> Self {
        let mut view = Self {
            ring,
            entry,
            listed: None,
            control: None,
            depth: None,
            lock: None,
            has_moved: false,
            is_behind: false,
            problems: Vec::new(),
            control_again: None,
            group_state: None,
        };
        if entry.ring_kind() == Some(RingKind::Memory) {
            return view;
        }
        view.control = file.value_at(entry.control_offset);
        let Some(place) = RingPlace::new(header, ring, &entry) else { return view };
        let (lock, problem) = LockView::read(file, &place, &entry, &SlotTable::new(header));
        view.lock = lock;
        view.problems.extend(problem);
        view.check_state(&place);
        let end = view.count(file, place, budget);
        view.is_behind = view.control.as_ref().is_some_and(|control| is_behind(control, end));
        let holder = |control: &RingControl| LockWord::from_word(control.lock);
        let of_lock = |lock: LockView| LockWord { slot: lock.slot, incarnation: lock.incarnation };
        view.has_moved = view.lock.map(of_lock) != view.control.as_ref().and_then(holder);
        view
    }

    /// Reads the control block once more, after all else of the region. Each of its words only grows, or
    /// changes together with one that does, so a word that is the same has been so all the time.
    pub(super) fn read_again(&mut self, file: &RegionFile) {
        let Some(control) = self.control else { return };
        let again: Option<RingControl> = file.value_at(self.entry.control_offset);
        self.has_moved |= again != Some(control);
        self.control_again = again;
    }

    fn check_state(&mut self, place: &RingPlace) {
        let Some(control) = self.control else { return };
        let control_place = Place::Control(self.ring);
        let found = match self.state() {
            None => Problem::new("ring_state", control_place, "state", control.state, "0 to 3"),
            Some(RingState::Poisoned) => {
                let found = format!("POISONED, reason {}", control.reason);
                let wanted = "OPEN; a process found damage in it, recreate the region";
                Problem::new("ring_poisoned", control_place, "state", found, wanted)
            }
            Some(_) => return,
        };
        self.problems.push(found.at(place.word_offset("state")));
    }

    /// Notes whether its senders count more messages and bytes, `sent`, than its control block.
    pub(super) fn compare_with_senders(&mut self, sent: impl Iterator<Item = (u64, u64)>) {
        let Some(control) = &self.control else { return };
        let add = |sum: (u64, u64), one: (u64, u64)| {
            (sum.0.wrapping_add(one.0), sum.1.wrapping_add(one.1))
        };
        let (msgs, bytes) = sent.fold((0, 0), add);
        self.is_behind |=
            is_before(control.sent_msgs, msgs) || is_before(control.sent_bytes, bytes);
    }

    /// Counts what is in it. Returns the position behind the last published record if it came to that.
    fn count(&mut self, file: &RegionFile, place: RingPlace, budget: &mut u64) -> Option<u64> {
        let mut records = Records::new(file, place, *budget, 0);
        let mut msgs = 0;
        for record in records.by_ref() {
            match record {
                Ok(view) => {
                    *budget = budget.saturating_sub(1);
                    msgs += u64::from(!view.record.kind.is_skipped());
                }
                Err(problem) => self.problems.push(problem),
            }
        }
        if records.end() == Some(RecordsEnd::Uncommitted) {
            let len = records.position().wrapping_sub(records.head());
            self.depth = Some(Depth { len, msgs: Some(msgs) });
            return Some(records.position());
        }
        self.depth = Positions::sample(file, &place).ok().map(|at| at.depth());
        None
    }
}

impl Positions {
    /// Tail may lag the last published record: never below 0.
    fn depth(self) -> Depth {
        let len = self.tail.wrapping_sub(self.head) as i64;
        Depth { len: len.max(0) as u64, msgs: None }
    }
}

/// Whether a word of the producers is behind `end`, to which records are published, or behind the consumer's
/// word that follows it.
fn is_behind(control: &RingControl, end: Option<u64>) -> bool {
    let pairs = [
        (control.tail, control.head),
        (control.tail, end.unwrap_or(control.tail)),
        (control.sent_msgs, control.received_msgs),
        (control.sent_bytes, control.received_bytes),
        (control.handles_sent, control.handles_taken),
    ];
    pairs.into_iter().any(|(leader, follower)| is_before(leader, follower))
}
