//! Taking many messages at once.

use std::mem::ManuallyDrop;
use std::ops::ControlFlow;

use tombolo_abi::RECORD_HEADER_LEN;

use crate::carrier::Intake;
use crate::deadline::Deadline;
use crate::endpoint::Attached;
use crate::ends::{BorrowedWhile, Receiver, Receiving, RecordRef, Topology};
use crate::error::Error;
use crate::ring::{Consumer, Front, Run, Wakes};

/// Most messages that `take` sees before they are freed.
const RUN_MAX: u32 = 32;
/// Bytes of the ring after which they are freed; at most an eighth of the ring.
const RUN_BYTES: u64 = 4096;

/// What a closure of [`Receiver::drain`] may return: `()` takes every message; with `ControlFlow<()>`,
/// `Break` ends the drain and leaves the message in the ring.
pub trait DrainFlow: sealed::Sealed {}

impl DrainFlow for () {}
impl DrainFlow for ControlFlow<()> {}
impl DrainFlow for Never {}

/// The type `!` of a closure that never returns, by a name that is stable.
type Never = <fn() -> ! as sealed::Returns>::Type;

/// Closes [`DrainFlow`] and hides what it takes.
mod sealed {
    use super::{ControlFlow, Never};

    /// What a closure decided about its message.
    pub trait Sealed {
        /// Whether the drain ends and leaves the message.
        fn leaves(&self) -> bool;
    }

    impl Sealed for () {
        #[inline(always)]
        fn leaves(&self) -> bool {
            false
        }
    }

    impl Sealed for ControlFlow<()> {
        #[inline(always)]
        fn leaves(&self) -> bool {
            self.is_break()
        }
    }

    impl Sealed for Never {
        fn leaves(&self) -> bool {
            *self
        }
    }

    /// Names what a function returns.
    pub trait Returns {
        /// That.
        type Type;
    }

    impl<T> Returns for fn() -> T {
        type Type = T;
    }
}

impl<K: Topology> Receiver<K> {
    /// Calls `take` with up to `limit` messages that are there now, one after the other, and returns how many
    /// were taken. A message is taken when `take` returns, and handles that `take` did not ask for are
    /// closed. If `take` panics, its message stays in the ring.
    ///
    /// `take` returns `()` or a [`ControlFlow`]: `Break` ends the drain and leaves the message with its
    /// handles, as [`RecordRef::keep`] does. Only [`RecordRef::handles`] reports handles that are lost.
    ///
    /// Up to 32 messages are freed at once: so many may be delivered again if this process is killed, and a
    /// sender may wait for space of up to 4 KiB, or one message, while `take` runs.
    ///
    /// # Errors
    /// [`Error::Poisoned`] and the like. An empty ring is no error but returns 0, also if the sender is
    /// disconnected: the next receive reports that.
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
    ///
    /// use std::ops::ControlFlow::{Break, Continue};
    /// tx.send_batch(&[b"short", b"too long"])?;
    /// let taken = rx.drain(9, |record| if record.len() > 5 { Break(()) } else { Continue(()) })?;
    /// assert_eq!((taken, rx.recv()?.data), (1, b"too long".to_vec()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias("try_iter", "recvmmsg"))]
    #[inline]
    pub fn drain<F: DrainFlow>(
        &mut self,
        limit: usize,
        mut take: impl FnMut(&RecordRef<'_>) -> F,
    ) -> Result<usize, Error> {
        let mut count = 0;
        while count < limit {
            let (taken, is_left) = self.drain_run(limit - count, &mut take);
            count += taken;
            if is_left {
                break;
            }
            if taken > 0 {
                continue;
            }
            let front = match self.front_slow() {
                Ok(Some(front)) => front,
                Ok(None) => break,
                Err(error) if count == 0 => return Err(error),
                Err(_) => break, // the next call reports it
            };
            let mut record = self.borrow(front)?.held(); // a panic of `take` leaves it
            if take(&record).leaves() {
                break;
            }
            record.free();
            count += 1;
        }
        self.receiving_until(Deadline::PAST)?.end.check_whole()?;
        Ok(count)
    }

    /// Fast path: calls `take` with a run of plain messages. Returns how many were taken, and whether `take`
    /// left the one behind them.
    #[inline(always)]
    fn drain_run<F: DrainFlow>(
        &mut self,
        limit: usize,
        take: &mut impl FnMut(&RecordRef<'_>) -> F,
    ) -> (usize, bool) {
        let Some(receiving) = &mut self.receiving else { return (0, false) };
        let Receiving { end, consumer, intake, wakes, bell, .. } = receiving;
        if !end.is_sound() {
            return (0, false);
        }
        let mut is_left = false;
        let limit = limit.min(bell.records_left().min(RUN_MAX) as usize) as u64;
        let rules = end.ring.rules;
        let len_max = RUN_BYTES.min(end.ring.freed_step());
        let mut borrowed = Borrowed { end, run: consumer.run(), consumer, wakes };
        while borrowed.run.count() < limit && borrowed.run.len() < len_max && borrowed.is_ours() {
            let Some((front, len)) = borrowed.run.front(&end.ring.memory, &rules) else { break };
            if take(&borrowed.record(front, intake)).leaves() {
                is_left = true;
                break;
            }
            borrowed.run.pass(&rules, RECORD_HEADER_LEN, len);
        }
        let count = borrowed.run.count();
        drop(borrowed); // frees them
        // One that is left counts: otherwise a lane whose message is left each time would never end its
        // quantum.
        bell.note_records(count as u32 + u32::from(is_left));
        (count as usize, is_left)
    }
}

/// Messages that were taken and not freed yet. Dropping it frees them, also in a panic.
struct Borrowed<'a> {
    end: &'a Attached,
    consumer: &'a mut Consumer,
    wakes: &'a Wakes,
    run: Run,
}

impl Borrowed<'_> {
    /// Whether the mapping is still this process's: `take` may have forked.
    #[inline(always)]
    fn is_ours(&self) -> bool {
        self.end.ring.memory.is_ours()
    }

    /// Borrows the record `front`. It is freed with the others, once it is passed.
    #[inline(always)]
    fn record<'b>(
        &'b mut self,
        front: Front,
        intake: &'b Option<Intake>,
    ) -> ManuallyDrop<RecordRef<'b>> {
        let start = self.run.head().wrapping_add(RECORD_HEADER_LEN);
        let borrowed = BorrowedWhile::Calm; // it is never dropped
        RecordRef::new(self.end, self.consumer, self.wakes, intake, (start, front), borrowed).held()
    }
}

impl Drop for Borrowed<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let Self { end, consumer, wakes, run } = self;
        // The mapping may be another process's by now. The endpoint is ours still: only the kernel's word
        // makes it lost, and nothing asks for that during a run.
        if run.len() > 0 && end.ring.memory.is_ours() {
            consumer.free_run(&end.ring, run, wakes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;
    use std::sync::atomic::Ordering::Relaxed;

    use tombolo_abi::RingControl;

    use super::*;
    use crate::error::Damage;
    use crate::{EventsRegion, OpenOptions, SpscReceiver};

    /// A region in whose first ring there are so many messages of `len` bytes, and its receiver.
    fn filled(capacity: u64, len: usize, count: usize) -> (EventsRegion, SpscReceiver) {
        let options = OpenOptions::new().spsc_capacity(capacity);
        let mut region = EventsRegion::anonymous(options).unwrap();
        let (mut tx, mut rx) = region.split_spsc().unwrap();
        rx.attach().unwrap();
        (0..count).for_each(|_| tx.try_send(&vec![0; len]).unwrap());
        (region, rx)
    }

    /// Up to which of them the ring had been freed when each of the messages was handed out.
    fn freed(capacity: u64, len: usize, count: usize) -> Vec<usize> {
        let (region, mut rx) = filled(capacity, len, count);
        let region = region.shared();
        let at = region.entries()[0].control_offset + offset_of!(RingControl, head) as u64;
        let head = || region.mapping().word_u64(at).load(Relaxed) as usize;
        let record_len = len + RECORD_HEADER_LEN as usize;
        let mut freed = Vec::new();
        let taken = rx.drain(usize::MAX, |_| freed.push(head() / record_len)).unwrap();
        assert_eq!((taken, head()), (count, count * record_len));
        freed
    }

    #[test]
    fn so_many_messages_and_bytes_are_freed_at_once_and_no_more_than_an_eighth_of_the_ring() {
        let in_steps_of = |step| (0..40).map(|index| index / step * step).collect::<Vec<_>>();
        assert_eq!(freed(1 << 16, 8, 40), in_steps_of(RUN_MAX as usize));
        assert_eq!(freed(1 << 16, 1016, 40), in_steps_of(4), "4 KiB");
        assert_eq!(freed(1 << 13, 120, 40), in_steps_of(8), "an eighth");
    }

    #[test]
    fn a_drain_says_what_is_wrong_with_the_first_message_and_where() {
        let (region, mut rx) = filled(1 << 12, 8, 2);
        let region = region.shared();
        let word = region.mapping().word_u64(region.entries()[0].data_offset + 16);
        word.store(u64::MAX, Relaxed);
        assert_eq!(rx.drain(1, |_| {}).unwrap(), 1);
        let damaged = rx.drain(usize::MAX, |_| {});
        let is_found = |reason| !matches!(reason, Damage::Marked { .. });
        assert!(
            matches!(damaged, Err(Error::Poisoned { position: 16, reason, .. }) if is_found(reason)),
            "{damaged:?}"
        );
    }

    #[test]
    fn nothing_is_handed_out_from_a_ring_that_is_poisoned() {
        let (_region, mut rx) = filled(1 << 12, 8, 2);
        rx.receiving.as_ref().unwrap().end.ring.poison(Damage::LockOwner { slot: 0 });
        let drained = rx.drain(usize::MAX, |_| panic!("it is handed out"));
        assert!(matches!(drained, Err(Error::Poisoned { .. })), "{drained:?}");
    }
}
