//! What is known of the owners of a range of slots.

use std::mem::offset_of;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Acquire};
use std::time::{Duration, Instant};

use rustix::thread::futex::OWNER_DIED;
use tombolo_abi::{Slot, SlotState};

use crate::os::futex;
use crate::region::Region;
use crate::region::slot_table::slot_u32;

/// Times that the byte of somebody who seems to be gone is asked after, before that is left to the
/// tick: a core dump may take minutes, and a word may lie.
const PROBES_MAX: u32 = 20;
/// The longest pause between two of them.
const PROBE_PAUSE_MAX: u32 = 10;

/// The owners of a range of slots.
#[derive(Debug)]
pub(super) struct Peers {
    pub(super) slots: Range<u16>,
    /// One for each slot.
    known: Vec<Known>,
}

/// What is known of a slot's owner.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    incarnation: u32,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default)]
enum Phase {
    /// Nobody, or gone and told.
    #[default]
    Gone,
    /// Not known to be anything else.
    Alive,
    /// Its word or its slot says that it is gone, its byte did not when last asked.
    Going { probes: u32, next: Instant },
    /// As `Going`, but asked often enough.
    Lingering,
}

/// What is to be done about a slot.
pub(super) enum Step<'a> {
    /// Nothing.
    Nothing,
    /// Wait on its liveness word.
    Wait(&'a AtomicU32, u32),
    /// The kernel will say nothing of its death: ask on the tick.
    Uncovered,
    /// Ask whether its byte is held.
    Probe,
    /// Not before then.
    ProbeAt(Instant),
}

impl Peers {
    pub(super) fn new(slots: Range<u16>) -> Self {
        let known = slots.clone().map(|_| Known::default()).collect();
        Self { slots, known }
    }

    /// Looks at the owner of `slot` and says what is to be done. An owner who has a successor is gone,
    /// which `on_departure` is told.
    pub(super) fn look<'a>(
        &mut self,
        region: &'a Region,
        slot: u16,
        now: Instant,
        on_departure: &mut impl FnMut(),
    ) -> Step<'a> {
        let word = |offset| slot_u32(region, slot, offset);
        let incarnation = word(offset_of!(Slot, incarnation)).load(Acquire);
        let known = self.of(slot);
        if incarnation != known.incarnation {
            if !matches!(known.phase, Phase::Gone) {
                on_departure();
            }
            *known = Known { incarnation, phase: Phase::Alive };
        }
        match known.phase {
            Phase::Gone => Step::Nothing,
            Phase::Lingering => Step::Uncovered,
            Phase::Going { next, .. } if next > now => Step::ProbeAt(next),
            Phase::Going { .. } => Step::Probe,
            Phase::Alive => {
                let state = word(offset_of!(Slot, state)).load(Acquire);
                let liveness = word(offset_of!(Slot, liveness));
                let mark = liveness.load(Acquire);
                let has_left =
                    [SlotState::Free as u32, SlotState::Detaching as u32].contains(&state);
                if mark & OWNER_DIED != 0 {
                    futex::wake_all(liveness); // the kernel woke one of those who sleep here
                } else if !has_left {
                    return if mark == 0 { Step::Uncovered } else { Step::Wait(liveness, mark) };
                }
                known.phase = Phase::Going { probes: 0, next: now };
                Step::Probe
            }
        }
    }

    /// Notes that the owner of `slot` is gone.
    pub(super) fn gone(&mut self, slot: u16) {
        self.of(slot).phase = Phase::Gone;
    }

    /// Notes that the byte of `slot` is still held, and says when to ask again.
    pub(super) fn still_held(&mut self, slot: u16, now: Instant) -> Option<Instant> {
        let known = self.of(slot);
        let probes = match known.phase {
            Phase::Going { probes, .. } => probes + 1,
            _ => 1,
        };
        if probes > PROBES_MAX {
            known.phase = Phase::Lingering;
            return None;
        }
        let next = now + Duration::from_millis(probes.min(PROBE_PAUSE_MAX).into());
        known.phase = Phase::Going { probes, next };
        Some(next)
    }

    /// Whether anybody is not known to be gone.
    pub(super) fn is_anybody_there(&self) -> bool {
        self.known.iter().any(|known| !matches!(known.phase, Phase::Gone))
    }

    /// Notes that all are gone.
    pub(super) fn all_gone(&mut self) {
        self.known.iter_mut().for_each(|known| known.phase = Phase::Gone);
    }

    fn of(&mut self, slot: u16) -> &mut Known {
        &mut self.known[usize::from(slot - self.slots.start)]
    }
}
