//! Arming and notifying: how either side of a ring learns that the other sleeps.
//!
//! A sleeper stores that it is armed, *then* looks at the ring, and sleeps on exactly the word that
//! it stored. The other side changes the ring, *then* looks at the word. One of the two sees the
//! other if neither look overtakes the store before it, which takes a full fence on both sides.
//!
//! **`rx_wake`**, the consumer's. The producer of an SPSC ring would pay its fence for each message,
//! so it pays none while the consumer polls: the word's flags are 0 then. To sleep, the consumer
//! first requests fences, and executes a barrier in all processes that rely on it. Whoever had seen
//! 0 before that has executed a fence now, behind its message; whoever looks later sees the request.
//! A producer that barriers don't reach fences always. Producers of an MPSC ring need no fence: they
//! take the lock by a full fence before they publish, and the consumer looks at the lock before it
//! looks at the ring.
//!
//! **`tx_wake`**, shared by all producers that are blocked. The consumer looks at it whenever it has
//! freed an eighth of the ring, and when it finds the ring empty: rarely, so it always fences.
//!
//! Both words count armings, so that a sleep on one arming never outlives it because of a later one.
//! Notifying clears the armed bit and wakes in one system call: a process that is killed has done
//! both or neither.
//!
//! | edge | one side | other side | carries |
//! |---|---|---|---|
//! | `wake` | producer: record header, fence, load `rx_wake` | consumer: `rx_wake`, fence, load header | one of the two sees the other |
//! | `room` | consumer: `head`, fence, load `tx_wake` | producer: `tx_wake`, fence, load `head` | one of the two sees the other |
//!
//! Sources: a fence on one side traded for a barrier on the other is known as an asymmetric or
//! biased Dekker; the order of looking at lock and header is that of crossbeam's array queue, whose
//! receivers look at the tail.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, compiler_fence};

use tombolo_abi::{LockWord, wake};

use super::memory::Sleepers;
use super::{Memory, Ring, Word};

/// What a message that found no room waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SpaceWanted {
    /// Where it would have gone.
    pub(crate) tail: u64,
    /// Free bytes that it takes, padding and the zero word behind it included.
    pub(crate) needed: u64,
    /// Free bytes worth being woken for: at least an eighth of the ring.
    pub(crate) comfortable: u64,
}

/// Bits of a wake word's count of armings.
const COUNT: u32 = !(wake::COUNT_ONE - 1);

/// How often one end of a ring looked whether the other sleeps. Private, and stored from time to time.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    /// Somebody slept and was notified.
    sent: AtomicU32,
    /// Nobody slept; [`URGENT`] if somebody did.
    elided: AtomicU32,
}

/// Wake-ups not needed that are counted in private before they are stored.
const ELIDED_MAX: u32 = 1024;
/// The bit that makes the count of those as much as that at once.
const URGENT: u32 = 1 << 31;

impl Wakes {
    /// Whether it is time to store them: now and then, and at once after a wake-up.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.elided.load(Relaxed) >= ELIDED_MAX // ours, as all accesses here
    }

    /// Wake-ups sent and not needed, to be stored elsewhere: they start from 0 again.
    pub(crate) fn take(&self) -> (u32, u32) {
        let taken = (self.sent.load(Relaxed), self.elided.load(Relaxed) & !URGENT);
        self.sent.store(0, Relaxed);
        self.elided.store(0, Relaxed);
        taken
    }

    fn send(&self) {
        self.sent.store(self.sent.load(Relaxed).wrapping_add(1), Relaxed);
        self.elided.store(self.elided.load(Relaxed) | URGENT, Relaxed);
    }

    #[inline]
    fn elide(&self) {
        self.elided.store(self.elided.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

/// Notifies the consumer of an SPSC ring of what was just published, if it sleeps.
/// `relies_on_barriers` is the producer's: whether it may go without a fence.
#[inline(always)]
pub(crate) fn notify_consumer<M: Memory>(
    ring: &Ring<M>,
    relies_on_barriers: &mut bool,
    wakes: &Wakes,
) {
    compiler_fence(SeqCst); // the load stays behind the publishing store, here and in the machine code
    // Acquired for edge `relax` of `super::summary`.
    if *relies_on_barriers && ring.memory.load(Word::RxWake, Acquire) & FLAGS == 0 {
        wakes.elide(); // the consumer polls; edge `wake` is its barrier's business
        return;
    }
    *relies_on_barriers = notify_consumer_fenced(ring, wakes);
}

/// As [`notify_consumer`], if it takes a fence. Gives whether the next time may go without.
#[cold]
fn notify_consumer_fenced<M: Memory>(ring: &Ring<M>, wakes: &Wakes) -> bool {
    ring.memory.fence(SeqCst); // edge `wake`: record header, `rx_wake`
    let may_rely_on_barriers = ring.memory.is_reached_by_barriers();
    let word = ring.memory.load(Word::RxWake, Relaxed);
    notify_armed(ring, Word::RxWake, word, Sleepers::One, wakes);
    may_rely_on_barriers
}

/// Notifies the consumer of an MPSC ring of what was published under the lock just given back, if
/// it sleeps.
#[inline]
pub(super) fn notify_consumer_unlocked<M: Memory>(ring: &Ring<M>, wakes: &Wakes) {
    // Edge `wake`: taking the lock was the fence, and this load cannot come before it.
    let word = ring.memory.load(Word::RxWake, SeqCst);
    notify_armed(ring, Word::RxWake, word, Sleepers::One, wakes);
}

/// Notifies all blocked producers of room.
pub(super) fn notify_producers<M: Memory>(ring: &Ring<M>, wakes: &Wakes) {
    ring.memory.fence(SeqCst); // edge `room`: `head`, `tx_wake`
    let word = ring.memory.load(Word::TxWake, Relaxed);
    notify_armed(ring, Word::TxWake, word, Sleepers::All, wakes);
}

/// Flags of a wake word, as loaded.
const FLAGS: u64 = wake::FLAGS as u64;

#[inline]
fn notify_armed<M: Memory>(
    ring: &Ring<M>,
    doorbell: Word,
    word: u64,
    sleepers: Sleepers,
    wakes: &Wakes,
) {
    if word & u64::from(wake::ARMED_FUTEX) == 0 {
        wakes.elide();
    } else {
        wakes.send();
        ring.memory.notify(doorbell, sleepers);
    }
}

/// The consumer's part of `rx_wake`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RxDoorbell {
    /// Armings so far, in the word's place for them.
    count: u32,
    /// What producers are to do, and whether that is known to have reached all of them.
    fences: Fences,
}

/// Whether producers fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fences {
    /// Not asked to.
    Off,
    /// Asked to, but a producer that has not seen that may still be on its way to look.
    Requested,
    /// All do: the request has been followed by a barrier of this consumer's own.
    On,
    /// Asked to, but the kernel refuses barriers: only time tells that all do.
    Refused,
    /// All do, for good: they take a lock, or the request was long ago.
    Always,
}

/// An arming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Armed {
    /// The word to sleep on.
    pub(crate) word: u32,
    /// How far a sleep may be trusted.
    pub(crate) trust: Trust,
}

/// How far a sleep may be trusted to be ended by a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// Until it comes.
    Full,
    /// For a millisecond: a message published before the request for fences may not be visible yet.
    Short,
}

/// What a consumer about to sleep finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Polled {
    /// There is a record, or what should be one.
    Something,
    /// There is none, and whoever publishes one will see the arming.
    Nothing,
    /// There is none yet, but the lock is held by somebody who may have looked before the arming.
    LockedBy(LockWord),
}

impl RxDoorbell {
    /// Attaches as the consumer `id`. A dead predecessor's arming goes; `count` is where armings
    /// are counted from, best a random number. `fences` is `Requested`, or `Always` if producers
    /// take a lock.
    pub(crate) fn attach<M: Memory>(
        ring: &Ring<M>,
        id: LockWord,
        count: u32,
        fences: Fences,
    ) -> Self {
        let doorbell = Self { count: count & COUNT, fences };
        let id = u64::from(id.incarnation) << 32 | u64::from(id.slot);
        ring.memory.store(Word::ConsumerId, id, Relaxed); // ours: nobody else writes it
        doorbell.disarm(ring);
        doorbell
    }

    /// Arms. Poll the ring before sleeping.
    pub(crate) fn arm<M: Memory>(&mut self, ring: &Ring<M>) -> Armed {
        if self.needs_barrier() {
            self.fences = Fences::Requested;
            self.disarm(ring);
            self.fences = if ring.memory.barrier() { Fences::On } else { Fences::Refused };
        }
        let trust = if self.fences == Fences::Refused { Trust::Short } else { Trust::Full };
        self.count = self.count.wrapping_add(wake::COUNT_ONE);
        let word = self.idle_word() | wake::ARMED_FUTEX;
        ring.memory.store(Word::RxWake, word.into(), Relaxed); // ours
        ring.memory.fence(SeqCst); // edge `wake`: `rx_wake`, record header or lock
        Armed { word, trust }
    }

    /// Back from a sleep, or from an arming that found something.
    pub(crate) fn disarm<M: Memory>(&self, ring: &Ring<M>) {
        ring.memory.store(Word::RxWake, self.idle_word().into(), Relaxed); // ours
    }

    /// Whether the next arming executes a barrier.
    pub(crate) fn needs_barrier(&self) -> bool {
        matches!(self.fences, Fences::Off | Fences::Requested)
    }

    /// Whether every producer fences between publishing and looking, and has since it was asked to.
    pub(crate) fn all_fence(&self) -> bool {
        matches!(self.fences, Fences::On | Fences::Always)
    }

    /// A sleep that was to be trusted for a short time has lasted all of it. What was published
    /// before the request for fences is visible now. No other end of a sleep says that, and neither
    /// does a message found while arming.
    pub(crate) fn slept_out(&mut self) {
        if self.fences == Fences::Refused {
            self.fences = Fences::Always;
        }
    }

    /// Whether producers were asked to fence, and could be let go on without.
    pub(crate) fn can_relax(&self) -> bool {
        matches!(self.fences, Fences::Requested | Fences::On)
    }

    /// Lets producers go on without fences, until the next arming.
    pub(crate) fn relax<M: Memory>(&mut self, ring: &Ring<M>) {
        self.fences = Fences::Off;
        // Ours; being seen late costs fences only. Edge `relax` of `super::summary`.
        ring.memory.store(Word::RxWake, 0, Release);
    }

    fn idle_word(&self) -> u32 {
        self.count | wake::FENCE_REQ
    }
}

/// Looks at the ring after arming, as the consumer of an SPSC ring.
pub(crate) fn poll<M: Memory>(ring: &Ring<M>, head: u64) -> Polled {
    if ring.memory.load(Word::Data(head), Acquire) == 0 {
        Polled::Nothing
    } else {
        Polled::Something
    }
}

/// Looks at the ring after arming, as the consumer of an MPSC ring: **first at the lock**. A holder
/// that is found may have published without seeing the arming; one that comes later sees it. The
/// other way round, a producer could do all its work between the two looks.
pub(crate) fn poll_locked<M: Memory>(ring: &Ring<M>, head: u64) -> Polled {
    let holder = LockWord::from_word(ring.memory.load(Word::Lock, Acquire)); // edge `wake`, `lock`
    match (poll(ring, head), holder) {
        (Polled::Nothing, Some(holder)) => Polled::LockedBy(holder),
        (found, _) => found,
    }
}

/// Looks past a live holder of the lock: executes a barrier, behind which the holder has either
/// published visibly or will see the arming. `None` if the kernel refuses. Not for a holder that
/// barriers don't reach: behind that one only short sleeps are safe.
pub(crate) fn poll_past_holder<M: Memory>(ring: &Ring<M>, head: u64) -> Option<Polled> {
    ring.memory.barrier().then(|| poll(ring, head))
}

/// Arms `tx_wake` for a producer that found no room, and gives the word to sleep on; `None` if
/// there is room by now.
pub(crate) fn arm_for_space<M: Memory>(ring: &Ring<M>, wanted: &SpaceWanted) -> Option<u32> {
    let word = count_arming(ring)?;
    ring.memory.fence(SeqCst); // edge `room`: `tx_wake`, `head`
    (!is_free(ring, wanted.tail, wanted.comfortable)).then_some(word)
}

/// Attempts to arm while other producers do.
const ARM_ATTEMPTS: u32 = 64;

/// `None` if others change the word again and again: there is something to look at then.
fn count_arming<M: Memory>(ring: &Ring<M>) -> Option<u32> {
    let mut found = ring.memory.load(Word::TxWake, Relaxed) as u32;
    for _ in 0..ARM_ATTEMPTS {
        let count = (found & COUNT).wrapping_add(wake::COUNT_ONE);
        let word = count | found & wake::FLAGS | wake::ARMED_FUTEX;
        match ring.memory.compare_exchange(Word::TxWake, found.into(), word.into()) {
            Ok(_) => return Some(word),
            Err(other) => found = other as u32,
        }
    }
    None
}

/// Whether the message that found no room would find it now.
pub(crate) fn has_come<M: Memory>(ring: &Ring<M>, wanted: &SpaceWanted) -> bool {
    is_free(ring, wanted.tail, wanted.needed)
}

/// Whether it would find so much that waiting for more is of no use.
pub(crate) fn is_comfortable<M: Memory>(ring: &Ring<M>, wanted: &SpaceWanted) -> bool {
    is_free(ring, wanted.tail, wanted.comfortable)
}

fn is_free<M: Memory>(ring: &Ring<M>, tail: u64, len: u64) -> bool {
    let head = ring.memory.load(Word::Head, Acquire); // edge `free`
    // If other producers have gone on since, head may be beyond the tail seen.
    tail.wrapping_sub(head) as i64 <= ring.rules.capacity.wrapping_sub(len) as i64
}
