//! The lock word of an MPSC ring.

use tombolo_abi::{LockWord, RingEntry, RingKind};

use super::endpoint::{Liveness, SlotTable, is_held};
use super::file::RegionFile;
use super::problem::{Place, Problem};
use super::walk::RingPlace;

/// Attempts to read the lock word before its holder counts as unknown.
const TRIES: usize = 4;

/// The holder of an MPSC ring's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockView {
    /// The holder's slot.
    pub slot: u16,
    /// The holder's incarnation.
    pub incarnation: u32,
    /// The process id in that slot, or 0.
    pub pid: u32,
    /// Whether the holder is alive. [`Liveness::Unknown`] also if the lock kept changing hands.
    pub liveness: Liveness,
}

impl LockView {
    /// The holder, and what is wrong with it. A live holder may be between any two instructions, so a result
    /// counts only if the word is the same after it as before.
    pub(super) fn read(
        file: &RegionFile,
        place: &RingPlace,
        entry: &RingEntry,
        slots: &SlotTable,
    ) -> (Option<Self>, Option<Problem>) {
        if entry.ring_kind() != Some(RingKind::Mpsc) {
            return (None, None);
        }
        let mut view = None;
        for _ in 0..TRIES {
            let Some(word) = place.word(file, "lock") else { return (None, None) };
            view = holder(file, slots, word);
            if place.word(file, "lock") == Some(word) {
                return (view, problem(place, entry, word, view));
            }
        }
        (view.map(|view| Self { liveness: Liveness::Unknown, ..view }), None)
    }
}

fn holder(file: &RegionFile, slots: &SlotTable, word: u64) -> Option<LockView> {
    let LockWord { slot, incarnation } = LockWord::from_word(word)?;
    let held = is_held(file, slot.into());
    let owner = slots.owner(file, slot.into());
    let liveness = match (held, owner) {
        _ if file.is_copy => Liveness::Unknown,
        (_, Some((present, _))) if present != incarnation => Liveness::Dead,
        (Some(true), _) => Liveness::Alive,
        (Some(false), _) => Liveness::Dead,
        (None, _) => Liveness::Unknown,
    };
    let pid = owner.filter(|(present, _)| *present == incarnation).map_or(0, |(_, pid)| pid);
    Some(LockView { slot, incarnation, pid, liveness })
}

fn problem(
    place: &RingPlace,
    entry: &RingEntry,
    word: u64,
    view: Option<LockView>,
) -> Option<Problem> {
    let wrong = |code, found: String, wanted: &str| {
        let problem = Problem::new(code, Place::Control(place.ring), "lock", found, wanted);
        Some(problem.at(place.word_offset("lock")))
    };
    match view {
        None if word == LockWord::FREE => None,
        None => wrong("lock", format!("{word:#x}"), "0, or a holder with bit 63"),
        Some(view) if !entry.tx_slots().contains(&view.slot) => {
            let producers = entry.tx_slots();
            let wanted =
                format!("one of the producers' slots {}..{}", producers.start, producers.end);
            wrong("lock", format!("held by slot {}", view.slot), &wanted)
        }
        Some(_) => None,
    }
}
