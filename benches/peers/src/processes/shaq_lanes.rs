//! shaq's broadcast with one consumer, for several producers: a lane for each, and nothing is lost.
//!
//! Its ring for several producers has them publish in the order in which they reserved room, and
//! whoever waits for its turn spins. Where producers share a processor, as they do here, that is
//! below a thousand messages a second: it is left out.
//!
//! It waits, and leaves a file, as the ring for one producer does.

use std::num::NonZeroUsize;

use ::shaq::broadcast::{BroadcastConfig, Consumer, Producer, ProducerId, ReadBatch};
use tombolo_benches::Registry;
use tombolo_benches::system::{Failure, Look, Meeting, ProcessSystem, Receive, Transmit, Waiting};

use super::shaq::PATIENCE;
use crate::item::{self, Item, Of};
use crate::{meet, wait};

/// Adds it for each size of item.
pub(super) fn register(registry: Registry) -> Registry {
    item::add_each_size!(registry, processes, Shaq).processes::<Shaq<item::Lines<65536>>>()
}

struct Shaq<I>(Of<I>);

impl<I: Item> ProcessSystem for Shaq<I> {
    const NAME: &'static str = "shaq";
    const PRODUCERS_MAX: usize = 64;
    const BATCHES: bool = true;
    type Sender = Sender<I>;
    type Receiver = Receiver<I>;

    fn takes(meeting: &Meeting) -> bool {
        meeting.size == I::SIZE && meeting.waiting != Waiting::Sleep && meeting.producers > 1
    }

    fn sender(meeting: &Meeting) -> Result<Sender<I>, Failure> {
        let file = meet::open(meeting)?;
        let id = ProducerId::new(std::process::id().into());
        // SAFETY: all who join hold items of the same type.
        Ok(Sender(unsafe { Producer::join(&file, id) }?))
    }

    fn receiver(meeting: &Meeting) -> Result<Receiver<I>, Failure> {
        let config = BroadcastConfig {
            capacity: item::count_in(meeting) / meeting.producers,
            producer_slots: meeting.producers,
            consumer_slots: 1,
        };
        let consumer = meet::publish(meeting, |file| {
            // SAFETY: the file is new, and nobody else finds it before this is done.
            Ok(unsafe { Consumer::create(file, config) }?)
        })?;
        Ok(Receiver { consumer, waiting: meeting.waiting })
    }
}

struct Sender<I: Item>(Producer<I>);

impl<I: Item> Transmit for Sender<I> {
    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        wait::for_room(|| {
            // SAFETY: the slot is written before the guard is dropped.
            let mut guard = unsafe { self.0.try_reserve_write() }?;
            I::write_to(guard.as_mut(), payload);
            Some(())
        });
        Ok(())
    }

    fn send_batch(&mut self, payloads: &[&[u8]]) -> Result<(), Failure> {
        let Some(count) = NonZeroUsize::new(payloads.len()) else { return Ok(()) };
        wait::for_room(|| {
            // SAFETY: every slot is written before the batch is dropped.
            let mut batch = unsafe { self.0.try_reserve_write_batch(count) }?;
            for (index, payload) in payloads.iter().enumerate() {
                // SAFETY: the batch has a slot for each of the payloads.
                I::write_to(unsafe { batch.as_mut(index) }, payload);
            }
            Some(())
        });
        Ok(())
    }
}

struct Receiver<I: Item> {
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
        let mut show = |batch: ReadBatch<'_, I>| {
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
