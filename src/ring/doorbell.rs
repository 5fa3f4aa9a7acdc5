//! Arming and notifying: how each side of a ring learns that the other sleeps.
//!
//! A sleeper stores that it is armed, *then* polls the ring, and sleeps on exactly the word that it
//! stored. The other side changes the ring, *then* loads the word. One of the two sees the other if
//! neither load overtakes the store before it, which takes a full fence on both sides.
//!
//! **`rx_wake`** is the consumer's. The producer of an SPSC ring would pay its fence for each message,
//! so it pays none while the consumer polls: the word's flags are 0 then. [`RxDoorbell::arm`] says what
//! the consumer does before it sleeps. A producer that barriers don't reach always fences. Producers of an
//! MPSC ring need no fence, see [`poll_locked`].
//!
//! **`tx_wake`** is shared by all blocked producers. The consumer loads it whenever it has freed an eighth
//! of the ring, and when it finds the ring empty: rarely, so it always fences.
//!
//! Both words count armings, so that a sleep on one arming never outlives it because of a later one.
//! A notification clears the armed bit and wakes in one system call: a process that is killed has done
//! both or neither.
//!
//! | edge | one side | other side | carries |
//! |---|---|---|---|
//! | `wake` | producer: record header, fence, load `rx_wake` | consumer: `rx_wake`, fence, load header | one of the two sees the other |
//! | `signal` | either side: the consumer's signals, fence, load `rx_wake` | consumer: `rx_wake`, fence, load its signals | one of the two sees the other |
//! | `space` | consumer: `head`, fence, load `tx_wake` | producer: `tx_wake`, fence, load `head` | one of the two sees the other |
//!
//! Sources: a fence on one side traded for a barrier on the other is known as an asymmetric or
//! biased Dekker; polling the lock before the header is the order of crossbeam's array queue, whose
//! receivers load the tail.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, compiler_fence};

use tombolo_abi::{LockWord, wake};

use super::memory::Sleepers;
use super::{Memory, Ring, Word};
use crate::crash::left_out;

/// The space that a refused message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SpaceWanted {
    /// The producer's position when it was refused.
    pub(crate) tail: u64,
    /// Free bytes that the message takes, with its padding and the zero word behind it.
    pub(crate) needed: u64,
    /// Free bytes worth a wake-up: at least an eighth of the ring.
    pub(crate) comfortable: u64,
}

/// Bits of a wake word's count of armings.
const COUNT: u32 = !(wake::COUNT_ONE - 1);

/// How often one end of a ring checked whether the other sleeps. Private, and stored from time to time.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    /// Checks that found a sleeper and notified it.
    sent: AtomicU32,
    /// Checks that found none; [`URGENT`] is set if another check did.
    elided: AtomicU32,
}

/// Checks without a sleeper that are counted in private before they are stored.
const ELIDED_MAX: u32 = 1024;
/// Makes the count reach [`ELIDED_MAX`] at once.
const URGENT: u32 = 1 << 31;

impl Wakes {
    /// Whether to store the counts: now and then, and at once after a wake-up.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.elided.load(Relaxed) >= ELIDED_MAX // ours, as all accesses here
    }

    /// Takes the counts, sent and elided, which start from 0 again.
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

/// As [`notify_consumer`], with a fence. Returns whether the next call may go without.
#[cold]
fn notify_consumer_fenced<M: Memory>(ring: &Ring<M>, wakes: &Wakes) -> bool {
    ring.memory.fence(SeqCst); // edge `wake`: record header, `rx_wake`
    let may_rely_on_barriers = ring.memory.is_reached_by_barriers();
    let word = ring.memory.load(Word::RxWake, Relaxed);
    notify_armed(ring, Word::RxWake, word, Sleepers::One, wakes);
    may_rely_on_barriers
}

/// Notifies the consumer, if it sleeps, of a change of its signals, which any process may have made.
pub(crate) fn notify_of_signals<M: Memory>(ring: &Ring<M>) {
    ring.memory.fence(SeqCst); // edge `signal`: the signals, `rx_wake`
    if left_out!("the wake for signals") {
        return;
    }
    let word = ring.memory.load(Word::RxWake, Relaxed);
    notify_armed(ring, Word::RxWake, word, Sleepers::One, &Wakes::default());
}

/// Notifies the consumer of an MPSC ring, if it sleeps, of what was published under the lock that was just
/// freed.
#[inline]
pub(super) fn notify_consumer_unlocked<M: Memory>(ring: &Ring<M>, wakes: &Wakes) {
    // Edge `wake`: taking the lock was the fence, and this load cannot come before it.
    let word = ring.memory.load(Word::RxWake, SeqCst);
    notify_armed(ring, Word::RxWake, word, Sleepers::One, wakes);
}

/// Notifies all blocked producers of freed space.
pub(super) fn notify_producers<M: Memory>(ring: &Ring<M>, wakes: &Wakes) {
    ring.memory.fence(SeqCst); // edge `space`: `head`, `tx_wake`
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
    /// Asked to, but a producer that has not seen the request may still be about to load the word.
    Requested,
    /// All do: the request has been followed by a barrier of this consumer's own.
    On,
    /// Asked to, but the kernel refuses barriers: only time makes sure that all do.
    Refused,
    /// All do, for good: they take a lock, or the request was long ago.
    Always,
}

/// An arming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Armed {
    /// The word to sleep on.
    pub(crate) word: u32,
    pub(crate) trust: Trust,
}

/// How far a sleep may rely on being notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// Without limit.
    Full,
    /// For a millisecond: a message published before the request for fences may not be visible yet.
    Short,
}

/// An arming behind which nothing was found, and which stands while its end does something else: another
/// thread of the process sleeps in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Arming {
    /// A consumer's, that stored this word.
    Record(u32),
    /// A producer's, that waits for this space.
    Space(SpaceWanted),
    /// Of an end that waits for what no word tells.
    Time,
}

impl Arming {
    /// Whether it was notified, going by what is there: a thread that was not asleep is woken by nothing.
    /// `word` is the wake word, loaded since this arming stands.
    pub(crate) fn is_over<M: Memory>(&self, ring: &Ring<M>, word: u32) -> bool {
        match self {
            Self::Record(armed) => word != *armed, // alone on its word
            // Others arm this word, too, also since it was notified. Then the notification was for space
            // that can be seen here, because it came after `head`; or others have taken that already.
            Self::Space(wanted) => word & wake::ARMED_FUTEX == 0 || has_come(ring, wanted),
            Self::Time => false,
        }
    }
}

/// What a consumer finds in its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Polled {
    /// There is a record, or what should be one.
    Something,
    /// There is none. Behind an arming: the producer of the next one will see the arming.
    Nothing,
    /// There is none yet, but a producer holds the lock and may have loaded the wake word before the arming.
    LockedBy(LockWord),
}

impl RxDoorbell {
    /// Attaches as the consumer `id` and clears a dead predecessor's arming. Armings are counted from
    /// `count`, best a random number. `fences` is `Requested`, or `Always` if producers take a lock.
    pub(crate) fn attach<M: Memory>(
        ring: &Ring<M>,
        id: LockWord,
        count: u32,
        fences: Fences,
    ) -> Self {
        let doorbell = Self { count: count & COUNT, fences };
        let id = u64::from(id.incarnation) << 32 | u64::from(id.slot);
        ring.memory.store(Word::ConsumerId, id, Relaxed); // ours: no other process writes it
        doorbell.disarm(ring);
        doorbell
    }

    /// Arms. Poll the ring before sleeping.
    pub(crate) fn arm<M: Memory>(&mut self, ring: &Ring<M>) -> Armed {
        if self.needs_barrier() {
            self.fences = Fences::Requested;
            self.disarm(ring); // stores the request
            // A producer that loaded 0 before this barrier has executed a fence now, behind its message.
            // One that loads later sees the request.
            self.fences = if ring.memory.barrier() { Fences::On } else { Fences::Refused };
        }
        let trust = if self.fences == Fences::Refused { Trust::Short } else { Trust::Full };
        self.count = self.count.wrapping_add(wake::COUNT_ONE);
        let word = self.idle_word() | wake::ARMED_FUTEX;
        ring.memory.store(Word::RxWake, word.into(), Relaxed); // ours
        ring.memory.fence(SeqCst); // edge `wake`: `rx_wake`, record header or lock
        Armed { word, trust }
    }

    /// To be called after a sleep, and after an arming that found something.
    pub(crate) fn disarm<M: Memory>(&self, ring: &Ring<M>) {
        ring.memory.store(Word::RxWake, self.idle_word().into(), Relaxed); // ours
    }

    /// Whether the next arming executes a barrier.
    pub(crate) fn needs_barrier(&self) -> bool {
        matches!(self.fences, Fences::Off | Fences::Requested)
    }

    /// Whether every producer fences between publishing and loading the word, and has since it was asked to.
    pub(crate) fn all_fence(&self) -> bool {
        matches!(self.fences, Fences::On | Fences::Always)
    }

    /// Notes that a sleep with [`Trust::Short`] lasted all of its time.
    pub(crate) fn slept_out(&mut self) {
        // What was published before the request for fences is visible by now. No other end of a sleep
        // makes sure of that, and neither does a message found while arming.
        if self.fences == Fences::Refused {
            self.fences = Fences::Always;
        }
    }

    /// Whether producers were asked to fence and may be released from it.
    pub(crate) fn can_relax(&self) -> bool {
        matches!(self.fences, Fences::Requested | Fences::On)
    }

    /// Releases producers from fencing until the next arming.
    pub(crate) fn relax<M: Memory>(&mut self, ring: &Ring<M>) {
        self.fences = Fences::Off;
        // Ours; being seen late costs fences only. Edge `relax` of `super::summary`.
        ring.memory.store(Word::RxWake, 0, Release);
    }

    fn idle_word(&self) -> u32 {
        self.count | wake::FENCE_REQ
    }
}

/// Polls an SPSC ring.
pub(crate) fn poll<M: Memory>(ring: &Ring<M>, head: u64) -> Polled {
    if ring.memory.load(Word::Data(head), Acquire) == 0 {
        Polled::Nothing
    } else {
        Polled::Something
    }
}

/// Polls an MPSC ring behind an arming.
pub(crate) fn poll_locked<M: Memory>(ring: &Ring<M>, head: u64) -> Polled {
    // The lock first. A producer takes it by a full fence before it publishes: a holder found here may
    // have missed the arming, a later one sees it. With the header first, a producer could take the lock,
    // publish and free the lock between the two loads.
    let holder = LockWord::from_word(ring.memory.load(Word::Lock, Acquire)); // edge `wake`, `lock`
    match (poll(ring, head), holder) {
        (Polled::Nothing, Some(holder)) => Polled::LockedBy(holder),
        (found, _) => found,
    }
}

/// Polls past a live holder of the lock; `None` if the kernel refuses the barrier. Not for a holder that
/// barriers don't reach: behind that one only short sleeps are safe.
pub(crate) fn poll_past_holder<M: Memory>(ring: &Ring<M>, head: u64) -> Option<Polled> {
    // Behind the barrier the holder has either published visibly or will see the arming.
    ring.memory.barrier().then(|| poll(ring, head))
}

/// Arms `tx_wake` for a refused producer and returns the word to sleep on; `None` if there is space by now.
pub(crate) fn arm_for_space<M: Memory>(ring: &Ring<M>, wanted: &SpaceWanted) -> Option<u32> {
    let word = count_arming(ring)?;
    ring.memory.fence(SeqCst); // edge `space`: `tx_wake`, `head`
    (!is_free(ring, wanted.tail, wanted.comfortable)).then_some(word)
}

/// Attempts to arm while other producers do.
const ARM_ATTEMPTS: u32 = 64;

/// Returns `None` if others keep changing the word: then there is something to poll for.
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

/// Whether the refused message has space now.
pub(crate) fn has_come<M: Memory>(ring: &Ring<M>, wanted: &SpaceWanted) -> bool {
    is_free(ring, wanted.tail, wanted.needed)
}

/// Whether there is so much space that waiting for more is of no use.
pub(crate) fn is_comfortable<M: Memory>(ring: &Ring<M>, wanted: &SpaceWanted) -> bool {
    is_free(ring, wanted.tail, wanted.comfortable)
}

fn is_free<M: Memory>(ring: &Ring<M>, tail: u64, len: u64) -> bool {
    let head = ring.memory.load(Word::Head, Acquire); // edge `free`
    // Signed: if other producers have sent since, head may be beyond this tail.
    tail.wrapping_sub(head) as i64 <= ring.rules.capacity.wrapping_sub(len) as i64
}
