//! The producers of an MPSC ring: one window for all, in the control block, under a lock.
//!
//! The lock word names its holder by slot and incarnation, so a producer that finds it held can ask the
//! kernel whether the holder lives. It is held only while a message is copied; the consumer never
//! takes it.
//!
//! A dead holder's lock is transferred from its name to the next holder's, never through 0, so that no
//! third producer comes in between. What the dead holder had published is passed over, what it had not is
//! overwritten. A process that dies while it does that is followed in the same way.

use std::hint;
use std::sync::atomic::Ordering::Release;

use tombolo_abi::LockWord;

use super::doorbell::{Wakes, notify_consumer_unlocked};
use super::{Memory, Ring, SendFast, Sent, Window, Word};
use crate::crash::crash_point;
use crate::error::Damage;

/// Why the lock was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    By(LockWord),
    /// What the lock guards is impossible; the lock was freed.
    Damaged(Damage),
}

/// The lock, held. Dropping it stores the window, frees the lock and notifies the consumer, also after a
/// send that failed half way.
pub(crate) struct Locked<'a, M: Memory> {
    pub(super) ring: &'a Ring<M>,
    pub(super) window: Window,
    wakes: &'a Wakes,
    pending: Pending,
}

/// Whether the consumer may still have to be notified of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    None,
    /// Of one published under this lock, or by a dead holder that did not come to notifying.
    Some,
}

/// One of the producers: the name under which it takes the lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedProducer {
    pub(crate) me: LockWord,
}

impl<M: Memory> SendFast<M> for SharedProducer {
    #[inline(always)]
    fn send_fast(
        &mut self,
        ring: &Ring<M>,
        wakes: &Wakes,
        payload: &[u8],
        count: impl FnOnce(Sent),
    ) -> bool {
        touch(payload);
        let Ok(mut locked) = try_lock(ring, self.me, wakes) else { return false };
        let Some(sent) = locked.window.send_fast(ring, payload) else { return false };
        locked.finish(sent);
        count(sent);
        true
    }
}

/// A payload longer than this may lie on pages that are not there yet.
const TOUCH_MIN: usize = 4096;

/// Reads a byte of each page of a long payload, so that page faults happen before the lock is taken and
/// don't stall other producers.
#[inline]
pub(crate) fn touch(payload: &[u8]) {
    if payload.len() > TOUCH_MIN {
        payload.iter().step_by(TOUCH_MIN).chain(payload.last()).for_each(|byte| {
            hint::black_box(*byte);
        });
    }
}

/// Takes the lock for `me` if it is free.
///
/// # Errors
/// [`Held`], with the holder.
#[inline]
pub(crate) fn try_lock<'a, M: Memory>(
    ring: &'a Ring<M>,
    me: LockWord,
    wakes: &'a Wakes,
) -> Result<Locked<'a, M>, Held> {
    // edge `lock`
    match ring.memory.compare_exchange(Word::Lock, LockWord::FREE, me.to_word()) {
        Err(found) => Err(LockWord::from_word(found)
            .map_or_else(|| Held::Damaged(Damage::LockOwner { slot: found as u16 }), Held::By)),
        Ok(_) => match Window::load(ring) {
            Ok(window) => Ok(Locked { ring, window, wakes, pending: Pending::None }),
            Err(damage) => Err(Held::Damaged(give_back(ring, damage))),
        },
    }
}

/// Takes the lock over from `dead`, which is dead by the kernel's word, for `me`, whose own lock byte is
/// held and whose incarnation is stored. Returns `None` if another producer was faster.
///
/// # Errors
/// If what the dead holder left is impossible; the lock was freed.
#[cold]
pub(crate) fn transfer<'a, M: Memory>(
    ring: &'a Ring<M>,
    dead: LockWord,
    me: LockWord,
    wakes: &'a Wakes,
) -> Result<Option<Locked<'a, M>>, Damage> {
    if ring.memory.compare_exchange(Word::Lock, dead.to_word(), me.to_word()).is_err() {
        return Ok(None); // edge `lock`, as in `try_lock`
    }
    crash_point!("transfer.before-roll");
    let window = Window::take_over(ring).map_err(|damage| give_back(ring, damage))?;
    crash_point!("transfer.after-roll");
    let locked = Locked { ring, window, wakes, pending: Pending::Some };
    ring.add(Word::LockBreaks, 1);
    Ok(Some(locked))
}

#[cold]
fn give_back<M: Memory>(ring: &Ring<M>, damage: Damage) -> Damage {
    ring.memory.store(Word::Lock, LockWord::FREE, Release);
    damage
}

impl<M: Memory> Locked<'_, M> {
    /// Runs `step`, a verb of the window, under the lock and returns what it published.
    ///
    /// # Errors
    /// Those of `step`.
    #[inline(always)]
    pub(crate) fn produce<E>(
        &mut self,
        step: impl FnOnce(&mut Window, &Ring<M>) -> Result<Sent, E>,
    ) -> Result<Sent, E> {
        let sent = step(&mut self.window, self.ring)?;
        self.finish(sent);
        Ok(sent)
    }

    #[inline(always)]
    fn finish(&mut self, sent: Sent) {
        self.pending = Pending::Some;
        self.ring.add(Word::SentMsgs, sent.count as u64);
        self.ring.add(Word::SentBytes, sent.payload_len as u64);
    }
}

impl<M: Memory> Drop for Locked<'_, M> {
    #[inline]
    fn drop(&mut self) {
        self.window.store(self.ring);
        self.ring.memory.store(Word::Lock, LockWord::FREE, Release); // edge `lock`
        if self.pending == Pending::Some {
            notify_consumer_unlocked(self.ring, self.wakes);
        }
    }
}
