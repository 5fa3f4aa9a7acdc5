//! The producer of a lane: that of an SPSC ring, which also tells the group's consumer where to look.

use super::{Memory, Refusal, Ring, SpscProducer, SummaryBit, Wakes};
use crate::error::Damage;

/// The one producer of a lane.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LaneProducer {
    pub(super) producer: SpscProducer,
    pub(super) bit: SummaryBit,
}

impl LaneProducer {
    /// Takes lane `index` of its group over, as [`SpscProducer::attach`].
    ///
    /// # Errors
    /// Where a header or a position is impossible.
    pub(crate) fn attach<M: Memory>(ring: &Ring<M>, index: u16) -> Result<Self, Damage> {
        Ok(Self { producer: SpscProducer::attach(ring)?, bit: SummaryBit::of(index) })
    }

    /// Sends one record where nothing stands in the way, as [`SpscProducer::send_at_once`].
    #[inline(always)]
    pub(crate) fn send_at_once<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        payload: &[u8],
        wakes: &Wakes,
    ) -> bool {
        let sent = self.producer.send_at_once(ring, payload, wakes);
        if sent {
            self.bit.tell(ring);
        }
        sent
    }

    /// Sends one record.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn try_send<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        payload: &[u8],
        wakes: &Wakes,
    ) -> Result<(), Refusal> {
        self.producer.try_send(ring, payload, wakes)?;
        self.bit.tell(ring);
        Ok(())
    }

    /// Sends as many of `payloads` as there is room for, visible all at once. Gives how many.
    ///
    /// # Errors
    /// [`Refusal`], where there is no room for the first.
    pub(crate) fn try_send_batch<M: Memory>(
        &mut self,
        ring: &Ring<M>,
        payloads: &[&[u8]],
        wakes: &Wakes,
    ) -> Result<usize, Refusal> {
        let count = self.producer.try_send_batch(ring, payloads, wakes)?;
        self.bit.tell(ring);
        Ok(count)
    }
}
