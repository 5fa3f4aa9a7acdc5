//! All orders of what processes do that have copies of one handle, each of which takes the end in. The threads stand
//! for processes, and run the real code that moves the slots on.

use std::mem::offset_of;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::Acquire;
use std::sync::{Arc, Mutex};

use tombolo_abi::{Slot, SlotState};

use super::orders::{Covered, Scene, Search};
use crate::crash::turns;
use crate::endpoint::{Attached, OwnedSlot, Seat, slot_u32};
use crate::error::Error;
use crate::mutex::lock;
use crate::region::{EventsRegion, OpenOptions, Region};

/// What a process does with its copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    /// Takes the end in, and keeps it.
    Keep,
    /// Takes it in, and fails behind that: the end is passed on again.
    Fail,
    /// Takes it in, and passes it on.
    PassOn,
}

const OWNS: &str = "owns it";
const LETS_GO: &str = "lets go of it";

/// An end that was passed on.
struct PassedOn {
    region: Arc<Region>,
    seats: [Seat; 2],
    description: OwnedFd,
    jobs: &'static [Job],
    kept: Mutex<Vec<OwnedSlot>>,
    log: Mutex<Vec<(usize, &'static str)>>,
}

impl PassedOn {
    fn new(jobs: &'static [Job]) -> Self {
        let options = OpenOptions::new().of_channel().unwrap();
        let region = EventsRegion::anonymous(options).unwrap().shared().clone();
        let (sending, receiving) = Attached::attach_in_new(&region).unwrap();
        let seats = [sending.slot.seat(), receiving.slot.seat()];
        let description = sending.slot.copy_lock().unwrap();
        sending.slot.pass_on();
        let (kept, log) = Default::default();
        Self { region, seats, description, jobs, kept, log }
    }

    fn note(&self, index: usize, what: &'static str) {
        lock(&self.log).push((index, what));
    }

    /// The words of both slots at `offset`.
    fn words(&self, offset: usize) -> [u32; 2] {
        self.seats.map(|seat| slot_u32(&self.region, seat.slot, offset).load(Acquire))
    }

    fn take_in(&self, index: usize, job: Job) {
        let lock_of = self.description.as_fd();
        let took_in = OwnedSlot::adopt(&self.region, &self.seats, lock_of, |slots| {
            self.note(index, OWNS);
            turns::pass("next");
            if job != Job::Fail {
                return Ok(slots);
            }
            self.note(index, LETS_GO);
            Err(Error::ForkedChild)
        });
        match took_in {
            Ok(slots) if job == Job::PassOn => {
                self.note(index, LETS_GO);
                slots[0].pass_on();
            }
            Ok(slots) => lock(&self.kept).extend(slots),
            Err(Error::ForkedChild) if job == Job::Fail => {}
            Err(Error::Busy { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}

impl Scene for PassedOn {
    fn thread_count(&self) -> usize {
        self.jobs.len()
    }

    fn act(&self, index: usize) {
        turns::as_process(|| {
            turns::pass("next");
            self.take_in(index, self.jobs[index]);
        });
    }

    fn state(&self) -> String {
        let words =
            [offset_of!(Slot, state), offset_of!(Slot, incarnation), offset_of!(Slot, seqlock)]
                .map(|offset| self.words(offset));
        format!("{words:?} {:?} {:?}", lock(&self.log), lock(&self.kept).len())
    }

    fn check(&self) -> Result<(), String> {
        let kept = lock(&self.kept);
        let wanted = if kept.is_empty() { SlotState::InTransit } else { SlotState::Attached };
        let log = lock(&self.log).clone();
        let mut owner = None;
        for (index, what) in &log {
            owner = match owner {
                None => Some(index),
                Some(_) if *what == LETS_GO => None,
                Some(_) => return Err("two at once own the end".to_owned()),
            };
        }
        let owned = kept.iter().map(|slot| slot.identity().incarnation).collect::<Vec<_>>();
        if !owned.is_empty() && owned != self.words(offset_of!(Slot, incarnation)) {
            return Err(format!("{owned:?} was followed by another owner"));
        }
        let states = self.words(offset_of!(Slot, state));
        if states != [wanted as u32; 2] {
            return Err(format!("the slots say {states:?}"));
        }
        if log.is_empty() { Err("none got it".to_owned()) } else { Ok(()) }
    }

    fn end(&self) {}
}

fn search(jobs: &'static [Job]) -> Search<impl Fn() -> PassedOn> {
    Search::new(move || PassedOn::new(jobs))
}

#[test]
fn in_no_order_do_two_processes_own_an_end_that_was_passed_on_or_say_so_of_it_differently() {
    use Job::{Fail, Keep, PassOn};
    for jobs in [&[Keep, Keep][..], &[Keep, Fail], &[Fail, Fail], &[Keep, PassOn]] {
        let covered = search(jobs).run().unwrap_or_else(|wrong| panic!("{jobs:?}: {wrong}"));
        println!("{jobs:?}: {covered:?}");
        let Covered { states, orders, ends, .. } = covered;
        assert!(states > 0 && orders > 1 && ends > 0, "nothing was searched");
    }
}

#[test]
fn without_the_claim_two_processes_own_it() {
    let wrong = search(&[Job::Keep, Job::Keep]).without("the claim of an end").run();
    let wrong = wrong.expect_err("nothing was found wrong");
    println!("{wrong}");
    assert!(wrong.starts_with("two at once own the end"), "{wrong}");
}
