//! The producers of an MPSC ring: one window for all, in the control block, under a lock.
//!
//! The lock word names its holder by slot and incarnation, so whoever finds it held can ask the
//! kernel whether the holder lives. It is held only while a message is copied; the consumer never
//! takes it.

use std::sync::atomic::Ordering::{Relaxed, Release};

use tombolo_abi::{LockWord, Record};

use super::{Memory, Ring, Window, Word};
use crate::error::Damage;

/// Why the lock was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// Somebody holds it.
    By(LockWord),
    /// What it guards is impossible; it was given back.
    Damaged(Damage),
}

/// The lock, held. Dropping it stores the window and frees the lock, wherever sending stopped.
pub(crate) struct Locked<'a, M: Memory> {
    ring: &'a Ring<M>,
    window: Window,
}

/// Takes the lock for `me` if nobody holds it.
///
/// # Errors
/// [`Held`], with the holder.
#[inline]
pub(crate) fn try_lock<M: Memory>(ring: &Ring<M>, me: LockWord) -> Result<Locked<'_, M>, Held> {
    // edge `lock`
    match ring.memory.compare_exchange(Word::Lock, LockWord::FREE, me.to_word()) {
        Err(found) => Err(LockWord::from_word(found)
            .map_or_else(|| Held::Damaged(Damage::LockOwner { slot: found as u16 }), Held::By)),
        Ok(_) => Window::load(ring).map(|window| Locked { ring, window }).map_err(|damage| {
            ring.memory.store(Word::Lock, LockWord::FREE, Release);
            Held::Damaged(damage)
        }),
    }
}

impl<M: Memory> Locked<'_, M> {
    /// Sends one record, or gives `false` where there is no room.
    ///
    /// # Errors
    /// Where the consumer's position is impossible.
    #[inline]
    pub(crate) fn try_send(&mut self, payload: &[u8]) -> Result<bool, Damage> {
        if !self.window.send(self.ring, &Record::data(payload.len() as u32), payload)? {
            self.add(Word::FullEvents, 1);
            return Ok(false);
        }
        self.finish(1, payload.len());
        Ok(true)
    }

    /// Sends as many of `payloads` as there is room for, visible all at once. Gives how many.
    ///
    /// # Errors
    /// Where the consumer's position is impossible.
    pub(crate) fn try_send_batch(&mut self, payloads: &[&[u8]]) -> Result<usize, Damage> {
        let count = self.window.send_batch(self.ring, payloads)?;
        if count == 0 {
            self.add(Word::FullEvents, 1);
            return Ok(0);
        }
        self.finish(count, payloads[..count].iter().map(|payload| payload.len()).sum());
        Ok(count)
    }

    /// What follows publishing. It stays under the lock: the window is everybody's.
    #[inline]
    fn finish(&mut self, count: usize, payload_len: usize) {
        self.add(Word::SentMsgs, count as u64);
        self.add(Word::SentBytes, payload_len as u64);
        self.window.look_ahead(self.ring);
    }

    #[inline]
    fn add(&self, counter: Word, amount: u64) {
        let before = self.ring.memory.load(counter, Relaxed); // edge `lock`
        self.ring.memory.store(counter, before.wrapping_add(amount), Relaxed);
    }
}

impl<M: Memory> Drop for Locked<'_, M> {
    #[inline]
    fn drop(&mut self) {
        self.window.store(self.ring);
        self.ring.memory.store(Word::Lock, LockWord::FREE, Release); // edge `lock`
    }
}
