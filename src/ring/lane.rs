//! The producer of a lane: an SPSC producer that also sets its lane's bit in the group's summary.

use super::{Memory, Ring, SendFast, Sent, SpscProducer, SummaryBit, Wakes, Window};
use crate::error::Damage;

/// The one producer of a lane.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LaneProducer {
    pub(super) producer: SpscProducer,
    pub(super) bit: SummaryBit,
}

impl LaneProducer {
    /// Takes lane `index` of a group over, as [`SpscProducer::attach`].
    ///
    /// # Errors
    /// If a header or a position is impossible.
    pub(crate) fn attach<M: Memory>(ring: &Ring<M>, index: u16) -> Result<Self, Damage> {
        Ok(Self { producer: SpscProducer::attach(ring)?, bit: SummaryBit::of(index) })
    }

    /// Runs `step` as [`SpscProducer::produce`] does, then sets the lane's bit.
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
        let count = self.producer.produce(ring, wakes, step)?;
        self.bit.set(ring);
        Ok(count)
    }
}

impl<M: Memory> SendFast<M> for LaneProducer {
    #[inline(always)]
    fn send_fast(
        &mut self,
        ring: &Ring<M>,
        wakes: &Wakes,
        payload: &[u8],
        count: impl FnOnce(Sent),
    ) -> bool {
        let sent = self.producer.send_fast(ring, wakes, payload, count);
        if sent {
            self.bit.set(ring);
        }
        sent
    }
}
