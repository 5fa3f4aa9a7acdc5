//! One fault, or one signal, on its way through handlers that may call each other.
//!
//! A handler must not touch thread-locals: those of a loaded library are made, with memory, when they
//! are touched first. So what a thread is in the midst of stands in a table, by the thread's id.

use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use rustix::thread::gettid;

/// More threads than ever are in such handlers at once.
const PLACES: usize = 128;

/// Something that a thread is in the midst of. The thread's own, but for taking a place.
struct Place {
    /// 0 if the place is free.
    thread: AtomicU32,
    /// The address at which the kernel put the thread's registers: handlers pass it on.
    context: AtomicUsize,
    /// The innermost call's place on the stack.
    frame: AtomicUsize,
    /// The lowest level that it came to.
    lowest: AtomicUsize,
    /// Whether a call within another found nothing that would do anything about it.
    is_declined: AtomicBool,
}

static TABLE: [Place; PLACES] = [const {
    Place {
        thread: AtomicU32::new(0),
        context: AtomicUsize::new(0),
        frame: AtomicUsize::new(0),
        lowest: AtomicUsize::new(0),
        is_declined: AtomicBool::new(false),
    }
}; PLACES];

/// A call of our handler. Dropping it is its end.
pub(super) struct Delivery {
    place: &'static Place,
    /// The frame of the call around this one; `None` if there is none.
    around: Option<usize>,
    level: Option<usize>,
}

impl Delivery {
    /// Begins a call at `level` for what has its registers at `context`, or goes on with one.
    pub(super) fn enter(context: usize, level: usize) -> Self {
        let here = 0u8;
        let frame = std::ptr::from_ref(std::hint::black_box(&here)).addr();
        let place = place_of(own_thread(), context);
        let outer = place.frame.swap(frame, Relaxed);
        // A call within another lies deeper in the stack. One that doesn't is a new one: the last was
        // left by a jump.
        let around = (frame < outer).then_some(outer);
        let lowest = around.map(|_| place.lowest.load(Relaxed));
        let level = match lowest {
            None => Some(level),
            Some(lowest) if level < lowest => Some(level),
            Some(0) => None,
            Some(_) => Some(0), // in a ring
        };
        place.lowest.store(level.unwrap_or(0), Relaxed);
        if around.is_none() {
            place.is_declined.store(false, Relaxed);
        }
        Self { place, around, level }
    }

    /// Whether no other call of our handler is under way for the same.
    pub(super) fn is_outermost(&self) -> bool {
        self.around.is_none()
    }

    /// Notes that nothing was done about it.
    pub(super) fn decline(&self) {
        self.place.is_declined.store(true, Relaxed);
    }

    /// Whether a call within this one, which is around all others, has noted that.
    pub(super) fn was_declined(&self) -> bool {
        self.is_outermost() && self.place.is_declined.load(Relaxed)
    }

    /// The level to pass on from; `None` if all was done that can be.
    pub(super) fn level(&self) -> Option<usize> {
        self.level
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        match self.around {
            Some(frame) => self.place.frame.store(frame, Relaxed),
            None => {
                self.place.frame.store(0, Relaxed);
                self.place.thread.store(0, Release);
            }
        }
    }
}

fn own_thread() -> u32 {
    gettid().as_raw_nonzero().get().unsigned_abs()
}

/// The place for what `thread` has at `context`. One that calls left by a jump keep theirs, until it is
/// needed.
fn place_of(thread: u32, context: usize) -> &'static Place {
    let is_own = |place: &&Place| place.thread.load(Acquire) == thread;
    let is_it = |place: &&Place| is_own(place) && place.context.load(Relaxed) == context;
    let take = |place: &&Place| place.thread.compare_exchange(0, thread, Acquire, Relaxed).is_ok();
    if let Some(place) = TABLE.iter().find(is_it) {
        return place;
    }
    let place = TABLE.iter().find(take).or_else(|| TABLE.iter().find(is_own));
    let place = place.unwrap_or(&TABLE[thread as usize % PLACES]);
    place.thread.store(thread, Relaxed);
    place.context.store(context, Relaxed);
    place.frame.store(0, Relaxed);
    place
}

/// Whether this thread has asked the same about the same address just before.
pub(super) fn is_repeated(address: usize) -> bool {
    /// The last address of each thread: its upper half is the thread's.
    static ASKED: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];

    let thread = own_thread();
    // The lowest bits of pages' numbers and those within a page, as far as they fit.
    let asked = u64::from(thread) << 32 | u64::from(address as u32);
    let is_own = |place: &&AtomicU64| place.load(Relaxed) >> 32 == u64::from(thread);
    let take = |place: &&AtomicU64| place.compare_exchange(0, asked, Relaxed, Relaxed).is_ok();
    if let Some(place) = ASKED.iter().find(is_own) {
        return place.swap(asked, Relaxed) == asked;
    }
    if ASKED.iter().find(take).is_none() {
        ASKED[thread as usize % PLACES].store(asked, Relaxed); // of a thread that may have ended
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Enters at `level`, deeper in the stack for each `depth`.
    #[inline(never)]
    fn enter_at(depth: u32, level: usize, run: &mut dyn FnMut(Delivery)) {
        let filler = std::hint::black_box([depth; 64]);
        if depth == 0 {
            run(Delivery::enter(0x1000, level));
        } else {
            enter_at(depth - 1, level, run);
        }
        std::hint::black_box(filler);
    }

    #[test]
    fn a_call_within_another_goes_further_down_and_in_a_ring_to_the_first_and_no_further() {
        for _ in 0..2 {
            enter_at(0, 3, &mut |outer| {
                assert!(outer.is_outermost());
                assert_eq!(outer.level(), Some(3));
                for (level, expected) in [(1, Some(1)), (1, Some(0)), (3, None), (0, None)] {
                    enter_at(1, level, &mut |inner| {
                        assert!(!inner.is_outermost());
                        assert_eq!(inner.level(), expected);
                    });
                }
            });
        }
    }

    #[test]
    fn a_call_that_was_left_by_a_jump_is_forgotten_by_the_next() {
        for _ in 0..3 {
            enter_at(1, 0, &mut |call| {
                assert!(call.is_outermost());
                assert_eq!(call.level(), Some(0));
                std::mem::forget(call);
            });
        }
    }

    #[test]
    fn a_table_that_is_full_still_has_a_place() {
        for context in 0..2 * PLACES {
            std::mem::forget(Delivery::enter(context << 12, 0));
        }
        let call = Delivery::enter(1, 0);
        assert!(call.is_outermost());
        assert_eq!(call.level(), Some(0));
        let others = std::thread::spawn(|| Delivery::enter(1, 0).is_outermost());
        assert!(others.join().unwrap());
    }

    #[test]
    fn an_address_that_is_asked_about_twice_in_a_row_is_a_repetition() {
        assert!(!is_repeated(0x1000));
        assert!(is_repeated(0x1000));
        assert!(!is_repeated(0x2000));
        assert!(!is_repeated(0x1000));
        let others = std::thread::spawn(|| is_repeated(0x1000));
        assert!(!others.join().unwrap());
        assert!(is_repeated(0x1000));
    }
}
