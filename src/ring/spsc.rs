//! The producer of an SPSC ring: a window of its own, no lock.

use std::sync::atomic::Ordering::{Release, SeqCst};
use std::sync::atomic::compiler_fence;

use super::doorbell::{Wakes, notify_consumer};
use super::{Memory, Ring, SendFast, Sent, Window, Word};
use crate::error::Damage;

/// The one producer of a ring.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SpscProducer {
    /// Private: the control block has a copy of `tail` for tools and successors.
    pub(crate) window: Window,
    /// Whether the consumer's barriers reach this process, so that it need not fence for each message.
    relies_on_barriers: bool,
}

impl SpscProducer {
    /// Takes the producer's end over from its last owner, which may have died in the middle of anything.
    ///
    /// # Errors
    /// If a header or a position is impossible.
    pub(crate) fn attach<M: Memory>(ring: &Ring<M>) -> Result<Self, Damage> {
        let window = Window::take_over(ring)?;
        Ok(Self { window, relies_on_barriers: ring.memory.is_reached_by_barriers() })
    }

    /// Runs `step`, a verb of the window, and returns how many messages it published.
    ///
    /// # Errors
    /// Those of `step`.
    #[inline(always)]
    pub(crate) fn produce<M: Memory, E>(
        &mut self,
        ring: &Ring<M>,
        wakes: &Wakes,
        step: impl FnOnce(&mut Window, &Ring<M>) -> Result<Sent, E>,
    ) -> Result<usize, E> {
        let sent = step(&mut self.window, ring)?;
        self.finish(ring, wakes, sent);
        Ok(sent.count)
    }

    /// What follows publishing: notify the consumer, then update the control block for tools and successors.
    #[inline(always)]
    fn finish<M: Memory>(&mut self, ring: &Ring<M>, wakes: &Wakes, sent: Sent) {
        notify_consumer(ring, &mut self.relies_on_barriers, wakes);
        ring.memory.store(Word::Tail, self.window.tail, Release);
        compiler_fence(SeqCst); // before anything else is written, see `Window::take_over`
        ring.add(Word::SentMsgs, sent.count as u64);
        ring.add(Word::SentBytes, sent.payload_len as u64);
    }
}

impl<M: Memory> SendFast<M> for SpscProducer {
    #[inline(always)]
    fn send_fast(
        &mut self,
        ring: &Ring<M>,
        wakes: &Wakes,
        payload: &[u8],
        _count: impl FnOnce(Sent),
    ) -> bool {
        let Some(sent) = self.window.send_fast(ring, payload) else { return false };
        self.finish(ring, wakes, sent);
        true
    }
}
