//! What an end does that waits at a descriptor or for a task's waker: it arms, and its arming *stands*
//! while a thread of the process sleeps in its place.
//!
//! One rule holds all together: **the descriptor is readable if nothing stands, and only then**, but for
//! moments within a call. A receiver that finds its ring empty lets an arming stand, and a notification
//! ends it. So *receive until empty, then wait* misses nothing, whether the wait is for a level or an edge.
//!
//! The thread goes by the word and by what stands, never by having been woken: between two of its sleeps
//! nothing wakes it. It sleeps on the word that it loaded under the lock.
//!
//! ```text
//!  the end                            the thread, again and again
//!
//!  arms: stores a word, fence         under the lock:
//!  polls: still nothing                 loads the word
//!  under the lock:                      if an arming stands, and the word is another:
//!    unless one stood before,             nothing stands any more,
//!      clears the descriptor              writes the descriptor
//!    lets the arming stand            runs the waker
//!    loads the word                   sleeps while the word is what it loaded
//!    if that is another:
//!      nothing stands any more,
//!      writes the descriptor
//! ```
//!
//! If the word was changed by a notification when the end loads it, the end finds that. If not, the thread
//! does: it either loads the word after that, and the arming stands already; or it has loaded it before, and
//! the kernel refuses the sleep or ends it. No notification is lost with the clearing of the descriptor:
//! the one that it tells of has ended the arming before.

use std::mem::{forget, replace};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::{AcqRel, Acquire, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::Waker;
use std::time::Instant;

use rustix::io::Errno;
use tombolo_abi::Role;

use crate::crash::test_point;
use crate::endpoint::{Attached, Until, map_ring};
use crate::mutex::lock;
use crate::os::eventfd::EventFd;
use crate::os::fork;
use crate::os::futex::{self, Moment, Sleeping};
use crate::region::Region;
use crate::ring::doorbell::{Arming, Polled, has_come, poll};
use crate::ring::{Memory, Ring, Word};
use crate::wait::SLEEP_MAX;

/// Between one end of a ring and who waits for it elsewhere. Keeps no region alive.
#[derive(Debug)]
pub(crate) struct Bridge {
    owner: fork::Owner,
    region: Weak<Region>,
    role: Role,
    /// Offset of the wake word.
    doorbell: u64,
    /// The end's ring, and all that share its consumer.
    ring: u32,
    group: Range<u32>,
    peer_exits: Arc<AtomicU32>,
    descriptor: EventFd,
    state: Mutex<State>,
    /// Counts armings that stood and were ended. Blocked calls of the end sleep on it.
    ends: AtomicU32,
    /// Whether any ever has.
    is_slept_on: AtomicBool,
    /// Changed to make the thread look.
    kick: Arc<AtomicU32>,
}

#[derive(Debug, Default)]
struct State {
    standing: Option<Standing>,
    waker: Option<Waker>,
}

/// An arming that stands, and what ends it beside the word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) arming: Arming,
    /// The end is to look by itself then.
    pub(crate) due: Option<Instant>,
    /// Peer exits that the end knows of; `None` if it hasn't asked.
    pub(crate) peer_exits: Option<u32>,
}

/// What the thread found at a bridge.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// The word to sleep on.
    pub(super) word: Option<Sleeping>,
    /// Whether an arming stands.
    pub(super) stands: bool,
    pub(super) due: Option<Instant>,
    /// Whether an arming was ended, and the task to be woken for that.
    pub(super) has_ended: bool,
    pub(super) waker: Option<Waker>,
}

impl Bridge {
    /// At which nothing stands yet.
    pub(super) fn new(end: &Attached, kick: Arc<AtomicU32>) -> Result<Self, Errno> {
        let owner = fork::Owner::current().map_err(|error| Errno::from_io_error(&error));
        Ok(Self {
            owner: owner.map_err(|errno| errno.unwrap_or(Errno::NOMEM))?,
            region: Arc::downgrade(end.slot.region()),
            role: end.role,
            doorbell: end.doorbell(),
            ring: if end.role == Role::Sender { end.index } else { end.group.rings.start },
            group: end.group.rings.clone(),
            peer_exits: end.watch.counter(),
            descriptor: EventFd::readable()?,
            state: Mutex::default(),
            ends: AtomicU32::new(0),
            is_slept_on: AtomicBool::new(false),
            kick,
        })
    }

    /// Whether this process made it. A child must touch nothing of it but the descriptor's number.
    pub(crate) fn is_ours(&self) -> bool {
        self.owner.is_here()
    }

    /// Whether a consumer's arming stands that is still in its word, which was loaded just now: then what
    /// comes next is notified of.
    pub(crate) fn stands_in(&self, word: u32) -> bool {
        let arming = self.lock().standing.map(|standing| standing.arming);
        arming == Some(Arming::Record(word))
    }

    /// Lets an arming stand, behind which nothing was found; `false` if it was notified already, and has
    /// ended.
    pub(crate) fn stand<M: Memory>(
        &self,
        ring: &Ring<M>,
        word: &AtomicU32,
        standing: Standing,
    ) -> bool {
        let (stands, ended) = self.try_to_stand(ring, word, standing);
        wake(ended);
        stands
    }

    /// As [`Self::stand`], and has `waker` woken when the arming is ended, however soon that is; not if it ends here.
    pub(crate) fn stand_for<M: Memory>(
        &self,
        ring: &Ring<M>,
        word: &AtomicU32,
        standing: Standing,
        waker: Waker,
    ) -> bool {
        let before = self.lock().waker.replace(waker); // before it stands: nothing takes it till then
        drop(before);
        self.try_to_stand(ring, word, standing).0
    }

    /// Lets an arming stand; gives whether it does, and else whom to wake.
    fn try_to_stand<M: Memory>(
        &self,
        ring: &Ring<M>,
        word: &AtomicU32,
        standing: Standing,
    ) -> (bool, Option<Waker>) {
        let mut state = self.lock();
        if state.standing.replace(standing).is_none() {
            self.descriptor.clear();
        }
        if self.is_over(ring, word.load(SeqCst), &standing) {
            return (false, self.end_standing(state).1);
        }
        drop(state);
        if standing.due.is_some() {
            self.kick();
        }
        test_point!("bridge.stood");
        (true, None)
    }

    /// Ends what stands, if anything does: the end found something by itself.
    pub(crate) fn end(&self) {
        wake(self.end_standing(self.lock()).1);
    }

    /// As [`Self::end`], and an edge for those that wait for one though nothing stood.
    pub(crate) fn renew(&self) {
        let state = self.lock();
        if state.standing.is_none() {
            self.descriptor.set();
        }
        wake(self.end_standing(state).1);
    }

    /// Ends what stands under the lock. Gives whether anything did, and whom to wake once there is no lock.
    fn end_standing(&self, mut state: MutexGuard<'_, State>) -> (bool, Option<Waker>) {
        if state.standing.take().is_none() {
            return (false, None);
        }
        self.descriptor.set();
        self.ends.fetch_add(1, SeqCst);
        let waker = state.waker.take();
        drop(state);
        self.wake_sleepers();
        (true, waker)
    }

    /// Ends the sleeps on [`Self::ends`], whatever stands.
    pub(crate) fn end_sleeps(&self) {
        self.ends.fetch_add(1, SeqCst);
        self.wake_sleepers();
    }

    fn wake_sleepers(&self) {
        if self.is_slept_on.load(SeqCst) {
            futex::wake_all(&self.ends);
        }
    }

    /// What a look of the thread finds and does.
    pub(super) fn look(&self, now: Instant, is_tick: bool) -> Look {
        let Some(region) = self.region.upgrade() else { return Look::default() };
        let word = region.mapping().word_u32(self.doorbell);
        let state = self.lock();
        let found = word.load(Acquire);
        let is_cut = region.mapping().is_cut();
        let word = (!is_cut).then(|| Sleeping::on(word, found));
        let Some(standing) = state.standing else { return Look { word, ..Look::default() } };
        let is_due = standing.due.is_some_and(|due| due <= now);
        let is_over = is_cut
            || is_due
            || map_ring(&region, self.ring, self.group.start).map_or(true, |ring| {
                self.is_over(&ring, found, &standing)
                    || is_tick && self.is_anything_there(&region, &ring, &standing)
            });
        if is_over {
            let (has_ended, waker) = self.end_standing(state);
            return Look { word, has_ended, waker, ..Look::default() };
        }
        Look { word, stands: true, due: standing.due, ..Look::default() }
    }

    /// Whether what was armed for may have come. Behind the fence of arming, or the notification.
    fn is_over<M: Memory>(&self, ring: &Ring<M>, word: u32, standing: &Standing) -> bool {
        let peer_exits = self.peer_exits.load(Acquire); // edge `peer_exit`
        let has_peer_exits = standing.peer_exits.is_some_and(|known| known != peer_exits);
        standing.arming.is_over(ring, word) || has_peer_exits || !ring.is_open() // edge `poison`
    }

    /// Whether there is something, though no process may have notified of it: one that was killed in
    /// between, say, of which the watcher has not learned.
    fn is_anything_there<M: Memory>(
        &self,
        region: &Region,
        ring: &Ring<M>,
        standing: &Standing,
    ) -> bool {
        if let Arming::Space(wanted) = &standing.arming {
            return has_come(ring, wanted);
        }
        let has_record = |index| {
            map_ring(region, index, self.group.start).map_or(true, |ring| {
                // The consumer's own place, though others can write it: then it looks once for nothing.
                let head = ring.memory.load(Word::Head, Acquire);
                poll(&ring, head) == Polled::Something
            })
        };
        self.role == Role::Receiver && self.group.clone().any(has_record)
    }

    /// How often an arming was ended, to sleep on with [`Self::sleep`] if none is ended in between.
    pub(crate) fn ends(&self) -> u32 {
        self.is_slept_on.store(true, SeqCst); // before it is known what stands
        self.ends.load(SeqCst)
    }

    /// Sleeps until the arming that stands is ended, if none was since the count was `seen`.
    pub(crate) fn sleep(&self, seen: u32, until: Until<'_>) {
        let moment = Moment::within(until.deadline, SLEEP_MAX);
        until.interrupts.sleep(&self.ends, seen, moment);
    }

    /// As [`Self::sleep`], to sleep among others.
    pub(crate) fn sleeping(&self, seen: u32) -> Sleeping {
        Sleeping::on(&self.ends, seen)
    }

    /// Has `waker` woken when the arming that stands is ended, in the place of an earlier one; `false` if
    /// nothing stands.
    pub(crate) fn wait(&self, waker: &Waker) -> bool {
        let is_known = |state: &State| state.waker.as_ref().is_some_and(|it| it.will_wake(waker));
        {
            let state = self.lock();
            if state.standing.is_none() || is_known(&state) {
                return state.standing.is_some();
            }
        }
        let mut waker = Some(waker.clone()); // what is not ours runs without the lock, also dropping
        let mut state = self.lock();
        let stands = state.standing.is_some();
        if stands {
            waker = replace(&mut state.waker, waker);
        }
        drop(state);
        drop(waker);
        stands
    }

    pub(super) fn kick(&self) {
        self.kick.fetch_add(1, AcqRel);
        futex::wake_all(&self.kick);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// What others wait for elsewhere.
pub(crate) trait Ready: std::fmt::Debug + Send + Sync {
    /// Readable while it is ready.
    fn descriptor(&self) -> BorrowedFd<'_>;

    /// Has `waker` woken when it is ready; `false` if it is.
    fn when_ready(self: Arc<Self>, waker: &Waker) -> bool;
}

impl Ready for Bridge {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    fn when_ready(self: Arc<Self>, waker: &Waker) -> bool {
        self.is_ours() && self.wait(waker)
    }
}

impl AsFd for Bridge {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Wakes a task.
pub(crate) fn wake(waker: Option<Waker>) {
    run_foreign(|| waker.map(Waker::wake));
}

/// Runs what is not ours, which must end neither a call nor the thread: `None` if it panics.
pub(crate) fn run_foreign<T>(run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(done) => Some(done),
        Err(panic) => {
            forget(panic); // dropping it could panic, too
            None
        }
    }
}
