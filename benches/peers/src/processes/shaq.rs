//! shaq's ring for one producer: items of one size in a file, written and looked at in place.
//!
//! Of its own accord it looks some two thousand times and then sleeps. It leaves a file in the
//! directory that the harness removes.

use std::num::NonZeroUsize;
use std::time::Duration;

use ::shaq::spsc::{Consumer, Producer, minimum_file_size};
use tombolo_benches::Registry;
use tombolo_benches::system::{Failure, Look, Meeting, ProcessSystem, Receive, Transmit, Waiting};

use crate::item::{self, Item, Of};
use crate::{meet, wait};

/// How long a message may take to come.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Adds it for each size of item.
pub(super) fn register(registry: Registry) -> Registry {
    item::add_each_size!(registry, processes, Shaq).processes::<Shaq<item::Lines<65536>>>()
}

struct Shaq<I>(Of<I>);

impl<I: Item> ProcessSystem for Shaq<I> {
    const NAME: &'static str = "shaq";
    const PRODUCERS_MAX: usize = 64;
    const BATCHES: bool = true;
    const LENDS: bool = true;
    type Sender = Sender<I>;
    type Receiver = Receiver<I>;

    fn takes(meeting: &Meeting) -> bool {
        meeting.size == I::SIZE && meeting.waiting != Waiting::Sleep && meeting.producers == 1
    }

    fn sender(meeting: &Meeting) -> Result<Sender<I>, Failure> {
        let file = meet::open(meeting)?;
        // SAFETY: there is one sender, and the receiver holds items of the same type.
        Ok(Sender(unsafe { Producer::join(&file) }?))
    }

    fn receiver(meeting: &Meeting) -> Result<Receiver<I>, Failure> {
        let size = minimum_file_size::<I>(item::count_in(meeting));
        let consumer = meet::publish(meeting, |file| {
            // SAFETY: the file is new, and nobody else finds it before this is done.
            Ok(unsafe { Consumer::create(file, size) }?)
        })?;
        Ok(Receiver { consumer, waiting: meeting.waiting })
    }
}

struct Sender<I>(Producer<I>);

impl<I: Item> Transmit for Sender<I> {
    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        wait::for_room(|| {
            let mut batch = self.0.write_batch();
            // SAFETY: the slot is written before the batch is dropped.
            let slot = unsafe { batch.try_as_mut() }?;
            I::write_to(slot, payload);
            Some(())
        });
        Ok(())
    }

    fn send_batch(&mut self, payloads: &[&[u8]]) -> Result<(), Failure> {
        let mut rest = payloads.iter();
        while rest.len() > 0 {
            wait::for_room(|| {
                let mut batch = self.0.write_batch();
                let mut written = None;
                while let Some(payload) = rest.as_slice().first() {
                    // SAFETY: the slot is written at once.
                    let Some(slot) = (unsafe { batch.try_as_mut() }) else { break };
                    I::write_to(slot, payload);
                    rest.next();
                    written = Some(());
                }
                written
            });
        }
        Ok(())
    }

    #[inline]
    fn lend(&mut self, _size: usize, number: u64) -> Result<(), Failure> {
        wait::for_room(|| {
            let mut batch = self.0.write_batch();
            // SAFETY: what is not written here are bytes of a mapping, which hold something.
            let slot = unsafe { batch.try_as_mut() }?;
            I::number(slot, number);
            Some(())
        });
        Ok(())
    }
}

struct Receiver<I> {
    consumer: Consumer<I>,
    waiting: Waiting,
}

impl<I: Item> Receive for Receiver<I> {
    #[inline]
    fn receive(&mut self, look: &mut impl Look) -> Result<(), Failure> {
        self.receive_batch(1, look)?;
        Ok(())
    }

    #[inline]
    fn receive_batch(&mut self, limit: usize, look: &mut impl Look) -> Result<usize, Failure> {
        let limit = NonZeroUsize::new(limit).ok_or("a batch of none")?;
        let mut show = |batch: ::shaq::spsc::ReadBatch<'_, I>| {
            let (first, second) = batch.as_slices();
            first.iter().chain(second).for_each(|item| look.at_slice(item.bytes()));
            batch.len()
        };
        if self.waiting != Waiting::SpinSleep {
            return Ok(wait::for_message(|| {
                self.consumer.try_reserve_read_batch(limit).map(&mut show)
            }));
        }
        // Its waiting takes the time before it looks.
        if let Some(count) = self.consumer.try_reserve_read_batch(limit).map(&mut show) {
            return Ok(count);
        }
        Ok(show(self.consumer.reserve_read_batch_timeout(limit, PATIENCE)?))
    }
}
