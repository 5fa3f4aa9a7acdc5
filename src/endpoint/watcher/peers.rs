//! What is known of the owners of a range of slots.

use std::mem::offset_of;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Acquire};
use std::time::{Duration, Instant};

use rustix::thread::futex::OWNER_DIED;
use tombolo_abi::{Slot, SlotState};

use crate::endpoint::slot_u32;
use crate::os::futex;
use crate::region::Region;

/// Polls of the byte of a peer that seems to have exited, before that is left to the tick: a core dump may
/// take minutes, and a word may lie.
const PROBES_MAX: u32 = 20;
/// The first pause between two of them, and the longest.
const PROBE_PAUSE: Duration = Duration::from_micros(100);
const PROBE_PAUSE_MAX: Duration = Duration::from_millis(10);

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
    /// No owner, or one that has exited, which was reported.
    #[default]
    Exited,
    /// Not known to be anything else.
    Alive,
    /// Its word or its slot says that it has exited; its byte did not when last polled.
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
    /// Poll its byte, and report that by [`Peers::note_exit`] or [`Peers::still_held`].
    Probe,
    /// Not before then.
    ProbeAt(Instant),
}

impl Peers {
    pub(super) fn new(slots: Range<u16>) -> Self {
        let known = slots.clone().map(|_| Known::default()).collect();
        Self { slots, known }
    }

    /// Checks the owner of `slot` and gives what is to be done. An owner with a successor has exited, and
    /// `on_exit` is called.
    pub(super) fn check<'a>(
        &mut self,
        region: &'a Region,
        slot: u16,
        now: Instant,
        on_exit: &mut impl FnMut(),
    ) -> Step<'a> {
        let word = |offset| slot_u32(region, slot, offset);
        let incarnation = word(offset_of!(Slot, incarnation)).load(Acquire);
        let liveness = word(offset_of!(Slot, liveness));
        let mark = liveness.load(Acquire);
        let state = word(offset_of!(Slot, state)).load(Acquire);
        let has_left = [SlotState::Free as u32, SlotState::Detaching as u32].contains(&state);
        let known = self.of(slot);
        if incarnation != known.incarnation {
            if !matches!(known.phase, Phase::Exited) {
                on_exit();
            }
            *known = Known { incarnation, phase: Phase::Alive };
        }
        if matches!(known.phase, Phase::Exited) {
            return Step::Nothing;
        }
        if mark & OWNER_DIED == 0 && !has_left {
            // Also if it seemed otherwise before: a slot shows its last owner's words for a moment
            // after the next one has attached.
            known.phase = Phase::Alive;
            return if mark == 0 { Step::Uncovered } else { Step::Wait(liveness, mark) };
        }
        match known.phase {
            Phase::Alive => {
                if mark & OWNER_DIED != 0 {
                    futex::wake_all(liveness); // the kernel woke one of the sleepers
                }
                Step::Probe
            }
            Phase::Going { next, .. } if next > now => Step::ProbeAt(next),
            Phase::Going { .. } => Step::Probe,
            Phase::Lingering | Phase::Exited => Step::Uncovered,
        }
    }

    pub(super) fn note_exit(&mut self, slot: u16) {
        self.of(slot).phase = Phase::Exited;
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
        let next = now + (PROBE_PAUSE * (1 << (probes - 1))).min(PROBE_PAUSE_MAX);
        known.phase = Phase::Going { probes, next };
        Some(next)
    }

    /// Whether a peer is not known to have exited.
    pub(super) fn is_any_left(&self) -> bool {
        self.known.iter().any(|known| !matches!(known.phase, Phase::Exited))
    }

    /// The slots of peers that the kernel may report nothing of.
    pub(super) fn uncovered(&self, region: &Region) -> Vec<u16> {
        let is_uncovered = |slot: &u16| match self.known[usize::from(slot - self.slots.start)].phase
        {
            Phase::Exited | Phase::Going { .. } => false,
            Phase::Lingering => true,
            Phase::Alive => slot_u32(region, *slot, offset_of!(Slot, liveness)).load(Acquire) == 0,
        };
        self.slots.clone().filter(is_uncovered).collect()
    }

    pub(super) fn note_all_exited(&mut self) {
        self.known.iter_mut().for_each(|known| known.phase = Phase::Exited);
    }

    fn of(&mut self, slot: u16) -> &mut Known {
        &mut self.known[usize::from(slot - self.slots.start)]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::os::futex::{Moment, Woken};
    use crate::{EventsRegion, OpenOptions};

    const MARK: u32 = 0x8000_1234;

    fn step_of(peers: &mut Peers, region: &Region, now: Instant) -> &'static str {
        match peers.check(region, 1, now, &mut || ()) {
            Step::Nothing => "nothing",
            Step::Wait(_, MARK) => "wait",
            Step::Wait(..) => "wait for another",
            Step::Uncovered => "uncovered",
            Step::Probe => "probe",
            Step::ProbeAt(_) => "probe later",
        }
    }

    #[test]
    fn the_byte_of_one_that_lingers_is_asked_after_ever_more_seldom_and_then_by_the_tick() {
        let (mut peers, now) = (Peers::new(1..2), Instant::now());
        let pauses: Vec<_> = std::iter::from_fn(|| peers.still_held(1, now)).collect();
        let pauses: Vec<_> = pauses.into_iter().map(|next| next - now).collect();
        assert_eq!(pauses.len(), PROBES_MAX as usize);
        assert_eq!(pauses[..3], [PROBE_PAUSE, 2 * PROBE_PAUSE, 4 * PROBE_PAUSE]);
        assert!(pauses[7..].iter().all(|pause| *pause == PROBE_PAUSE_MAX));
    }

    #[test]
    fn an_owner_that_has_a_successor_is_gone_unless_that_was_known() {
        let region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let region = region.shared();
        let (mut peers, now, mut count) = (Peers::new(1..2), Instant::now(), 0);
        slot_u32(region, 1, offset_of!(Slot, state)).store(SlotState::Attached as u32, Relaxed);
        let mut look_at = |peers: &mut Peers, incarnation| {
            slot_u32(region, 1, offset_of!(Slot, incarnation)).store(incarnation, Relaxed);
            peers.check(region, 1, now, &mut || count += 1);
            count
        };
        assert_eq!(look_at(&mut peers, 1), 0, "there was none before");
        assert_eq!(look_at(&mut peers, 2), 1);
        peers.note_exit(1);
        assert_eq!(look_at(&mut peers, 3), 1, "it is told twice");
    }

    #[test]
    fn one_that_has_a_word_is_left_to_that() {
        let region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let region = region.shared();
        let (mut peers, now) = (Peers::new(1..2), Instant::now());
        let set = |offset, value| slot_u32(region, 1, offset).store(value, Relaxed);
        set(offset_of!(Slot, incarnation), 1);
        set(offset_of!(Slot, state), SlotState::Attached as u32);
        for (liveness, step, uncovered) in [(MARK, "wait", vec![]), (0, "uncovered", vec![1])] {
            set(offset_of!(Slot, liveness), liveness);
            assert_eq!(step_of(&mut peers, region, now), step);
            assert_eq!(peers.uncovered(region), uncovered);
        }
    }

    /// What ended another's sleep on the word of a peer that has exited by its `liveness` and `state`.
    fn sleeper_beside(liveness: u32, state: SlotState) -> Woken {
        let region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let region = region.shared();
        let word = |offset| slot_u32(region, 1, offset);
        word(offset_of!(Slot, incarnation)).store(1, Relaxed);
        word(offset_of!(Slot, liveness)).store(liveness, Relaxed);
        word(offset_of!(Slot, state)).store(state as u32, Relaxed);
        std::thread::scope(|scope| {
            let until = Moment::after(Duration::from_millis(1500));
            let liveness_word = word(offset_of!(Slot, liveness));
            let sleeper = scope.spawn(move || futex::wait(liveness_word, liveness, until));
            std::thread::sleep(Duration::from_millis(100)); // until it sleeps
            assert_eq!(step_of(&mut Peers::new(1..2), region, Instant::now()), "probe");
            sleeper.join().unwrap()
        })
    }

    #[test]
    fn all_who_sleep_on_the_word_of_one_that_died_are_woken_and_no_others() {
        assert_eq!(sleeper_beside(MARK | OWNER_DIED, SlotState::Attached), Woken::Perhaps);
        assert_eq!(sleeper_beside(MARK, SlotState::Free), Woken::TimedOut);
    }

    /// A new owner has the byte and the incarnation before it has written the rest of its slot.
    #[test]
    fn an_owner_is_not_taken_for_gone_for_good_because_of_its_predecessors_words() {
        let region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let region = region.shared();
        let set = |offset, value| slot_u32(region, 1, offset).store(value, Relaxed);
        let attached = SlotState::Attached as u32;
        for (died, state) in [(MARK | OWNER_DIED, attached), (0, SlotState::Free as u32)] {
            let (mut peers, now) = (Peers::new(1..2), Instant::now());
            set(offset_of!(Slot, incarnation), 2);
            set(offset_of!(Slot, liveness), died);
            set(offset_of!(Slot, state), state);
            assert_eq!(step_of(&mut peers, region, now), "probe");
            while peers.still_held(1, now).is_some() {
                assert_eq!(step_of(&mut peers, region, now), "probe later");
            }
            assert_eq!(step_of(&mut peers, region, now), "uncovered");
            assert_eq!(peers.uncovered(region), [1]);
            set(offset_of!(Slot, liveness), MARK);
            set(offset_of!(Slot, state), attached);
            assert_eq!(step_of(&mut peers, region, now), "wait");
            set(offset_of!(Slot, liveness), MARK | OWNER_DIED);
            assert_eq!(step_of(&mut peers, region, now), "probe");
            peers.note_exit(1);
            assert_eq!(step_of(&mut peers, region, now), "nothing");
        }
    }
}
