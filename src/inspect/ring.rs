//! Rings: geometry, positions, counters, and how much lies in them.

use tombolo_abi::{Header, RingControl, RingEntry, RingKind, RingState};

use super::endpoint::SlotTable;
use super::file::RegionFile;
use super::lock::LockView;
use super::problem::{Place, Problem};
use super::records::{Records, RecordsEnd};
use super::walk::{Positions, RingPlace};

/// A ring as found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RingView {
    /// Its number.
    pub ring: u32,
    /// Its directory entry.
    pub entry: RingEntry,
    /// Its control block; `None` for plain memory, and where the file doesn't hold it.
    pub control: Option<RingControl>,
    /// How much lies in it; `None` where that cannot be told.
    pub depth: Option<Depth>,
    /// Who holds its lock.
    pub lock: Option<LockView>,
    /// Whether its positions stayed the same while it was looked at.
    pub is_consistent: bool,
    pub(super) problems: Vec<Problem>,
    /// Of a lane, the state of its group.
    pub(super) group_state: Option<u32>,
}

/// What lies in a ring, published and not yet freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Depth {
    /// Bytes from head to the end of the last published record.
    pub len: u64,
    /// Messages among them; `None` where they were too many or too fast to count.
    pub msgs: Option<u64>,
}

impl RingView {
    /// Its state, where v1 knows it; of a lane, its group's.
    #[must_use]
    pub fn state(&self) -> Option<RingState> {
        RingState::from_word(self.group_state.unwrap_or(self.control?.state))
    }

    /// Looks at a ring, counting at most `budget` records, which shrinks by those counted.
    pub(super) fn read(
        file: &RegionFile,
        header: &Header,
        (ring, entry): (u32, RingEntry),
        budget: &mut u64,
    ) -> Self {
        let mut view = Self {
            ring,
            entry,
            control: None,
            depth: None,
            lock: None,
            is_consistent: true,
            problems: Vec::new(),
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
        view.judge_state(&place);
        view.count(file, place, budget);
        let after: Option<RingControl> = file.value_at(entry.control_offset);
        view.is_consistent = positions(&view.control) == positions(&after);
        view
    }

    fn judge_state(&mut self, place: &RingPlace) {
        let Some(control) = self.control else { return };
        let control_place = Place::Control(self.ring);
        let found = match self.state() {
            None => Problem::new("ring_state", control_place, "state", control.state, "0 to 3"),
            Some(RingState::Poisoned) => {
                let found = format!("POISONED, reason {}", control.reason);
                let wanted = "OPEN; somebody found damage in it, recreate the region";
                Problem::new("ring_poisoned", control_place, "state", found, wanted)
            }
            Some(_) => return,
        };
        self.problems.push(found.at(place.word_offset("state")));
    }

    fn count(&mut self, file: &RegionFile, place: RingPlace, budget: &mut u64) {
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
        let walked = records.position().wrapping_sub(records.head());
        self.depth = match records.end() {
            Some(RecordsEnd::Uncommitted) => Some(Depth { len: walked, msgs: Some(msgs) }),
            _ => Positions::sample(file, &place).ok().map(|at| at.depth()),
        };
    }
}

impl Positions {
    /// Tail may lag the last published record: never below 0.
    fn depth(self) -> Depth {
        let len = self.tail.wrapping_sub(self.head) as i64;
        Depth { len: len.max(0) as u64, msgs: None }
    }
}

fn positions(control: &Option<RingControl>) -> Option<(u64, u64)> {
    control.as_ref().map(|control| (control.head, control.tail))
}
