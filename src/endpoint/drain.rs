//! Taking many messages at once.

use std::mem::ManuallyDrop;

use tombolo_abi::RECORD_HEADER_LEN;

use super::attached::Attached;
use super::claimed::Claimed;
use super::discipline::Discipline;
use super::intake::Intake;
use super::record_ref::LentWhile;
use super::{Deadline, Receiver, RecordRef};
use crate::Error;
use crate::mem::Payload;
use crate::ring::{Consumer, Front, Run, Wakes};

/// Most messages that are handed out before they are freed.
const RUN_MAX: u32 = 32;
/// How many bytes of the ring they may take, but for the last one; no more than an eighth of the ring.
const RUN_BYTES: u64 = 4096;

impl<K: Discipline> Receiver<K> {
    /// Hands up to `limit` messages that are there now to `take`, one after the other, and gives
    /// how many. Each is taken when `take` returns, and handles that it did not ask for are closed. A
    /// panic of `take` leaves the one that it was given.
    ///
    /// Room is freed for up to 32 messages at once: so many may come again where this process is killed,
    /// and a sender may wait for room of up to 4 KiB, or one message, while `take` runs.
    ///
    /// # Errors
    /// [`Error::Poisoned`] and the like. An empty ring is no error, it gives 0, also where its
    /// sender is gone: the next receive says so.
    ///
    /// # Cost
    /// No copy and no allocation, no system call while no sender sleeps; less for each message than
    /// [`Self::recv_ref`].
    ///
    /// # Examples
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("demo.tombolo");
    /// let mut region = tombolo::EventsRegion::open_path(path)?;
    /// let (mut tx, mut rx) = region.split_spsc()?;
    /// tx.send_batch(&[b"a", b"b", b"c"])?;
    /// let mut bytes = 0;
    /// assert_eq!(rx.drain(2, |record| bytes += record.len())?, 2);
    /// assert_eq!(rx.drain(usize::MAX, |record| bytes += record.len())?, 1);
    /// assert_eq!(bytes, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn drain(
        &mut self,
        limit: usize,
        mut take: impl FnMut(&RecordRef<'_>),
    ) -> Result<usize, Error> {
        let mut count = 0;
        while count < limit {
            let taken = self.drain_run(limit - count, &mut take);
            if taken > 0 {
                count += taken;
                continue;
            }
            let front = match self.front_carefully() {
                Ok(Some(front)) => front,
                Ok(None) => break,
                Err(error) if count == 0 => return Err(error),
                Err(_) => break, // told by the next call
            };
            let mut record = self.lend(front)?.held(); // a panic of `take` leaves it
            take(&record);
            record.free();
            count += 1;
        }
        self.claimed_until(Deadline::PAST)?.end.check_whole()?;
        Ok(count)
    }

    /// Hands out a run of plain messages where nothing stands in the way, and gives how many.
    #[inline(always)]
    fn drain_run(&mut self, limit: usize, take: &mut impl FnMut(&RecordRef<'_>)) -> usize {
        let Some(claimed) = &mut self.claimed else { return 0 };
        let Claimed { end, consumer, intake, wakes, bell, .. } = claimed;
        if !end.is_sound() {
            return 0;
        }
        let limit = limit.min(bell.records_left().min(RUN_MAX) as usize) as u64;
        let rules = end.ring.rules;
        let len_max = RUN_BYTES.min(end.ring.freed_step());
        let mut lent = Lent { end, run: consumer.run(), consumer, wakes };
        while lent.run.count() < limit && lent.run.len() < len_max && lent.is_ours() {
            let Some((front, len)) = lent.run.front(&end.ring.memory, &rules) else { break };
            take(&lent.record(front, len, intake));
            lent.run.pass(&rules, RECORD_HEADER_LEN, len);
        }
        let count = lent.run.count();
        drop(lent);
        bell.note_records(count as u32);
        count as usize
    }
}

/// Messages that were taken and not freed yet. Dropping it frees them, in a panic too.
struct Lent<'a> {
    end: &'a Attached,
    consumer: &'a mut Consumer,
    wakes: &'a Wakes,
    run: Run,
}

impl Lent<'_> {
    /// Whether this is no forked child, which doesn't have the mapping: the user's code may do anything.
    #[inline(always)]
    fn is_ours(&self) -> bool {
        self.end.ring.memory.is_ours()
    }

    /// Lends the record `front` for a look. It is freed with the others, once it is passed.
    #[inline(always)]
    fn record<'b>(
        &'b mut self,
        front: Front,
        len: u32,
        intake: &'b Option<Intake>,
    ) -> ManuallyDrop<RecordRef<'b>> {
        let position = self.run.head().wrapping_add(RECORD_HEADER_LEN);
        let payload = Payload::new(&self.end.ring.memory, position, len as usize);
        ManuallyDrop::new(RecordRef::new(
            self.end,
            self.consumer,
            self.wakes,
            intake,
            front,
            payload,
            LentWhile::Calm, // it is never dropped
        ))
    }
}

impl Drop for Lent<'_> {
    /// Leaves alone what is another's by now, the mapping or the endpoint.
    #[inline(always)]
    fn drop(&mut self) {
        let Self { end, consumer, wakes, run } = self;
        if run.len() > 0 && end.ring.memory.is_ours() && end.slot.check_kept().is_ok() {
            consumer.free_run(&end.ring, run, wakes);
        }
    }
}
