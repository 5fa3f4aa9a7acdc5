//! rtrb by value: a ring of items, one pushed and popped at a time, or a chunk of them as a batch.

use ::rtrb::{Consumer, Producer, PushError, RingBuffer};
use tombolo_benches::Registry;
use tombolo_benches::system::{Failure, Look, Meeting, Receive, ThreadSystem, Transmit, Waiting};

use crate::item::{self, Item, Of};
use crate::wait;

/// Adds it for each size of item.
pub(super) fn register(registry: Registry) -> Registry {
    item::add_each_size!(registry, threads, Rtrb)
}

struct Rtrb<I>(Of<I>);

impl<I: Item> ThreadSystem for Rtrb<I> {
    const NAME: &'static str = "rtrb";
    const PRODUCERS_MAX: usize = 1;
    const BATCHES: bool = true;
    type Sender = Sender<I>;
    type Receiver = Receiver<I>;

    fn takes(meeting: &Meeting) -> bool {
        meeting.size == I::SIZE && meeting.waiting == Waiting::Busy
    }

    fn ends(meeting: &Meeting) -> Result<(Vec<Sender<I>>, Receiver<I>), Failure> {
        let (producer, consumer) = RingBuffer::new(item::count_in(meeting));
        Ok((vec![Sender(producer)], Receiver(consumer)))
    }
}

struct Sender<I>(Producer<I>);

impl<I: Item> Transmit for Sender<I> {
    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let mut item = I::copy_of(payload);
        wait::for_room(|| match self.0.push(item) {
            Ok(()) => Some(()),
            Err(PushError::Full(back)) => {
                item = back;
                None
            }
        });
        Ok(())
    }

    fn send_batch(&mut self, payloads: &[&[u8]]) -> Result<(), Failure> {
        let mut rest = payloads.iter();
        while rest.len() > 0 {
            wait::for_room(|| {
                let count = self.0.slots().min(rest.len());
                let chunk = self.0.write_chunk_uninit(count).ok()?;
                let items = rest.by_ref().take(count).map(|payload| I::copy_of(payload));
                (chunk.fill_from_iter(items) > 0).then_some(())
            });
        }
        Ok(())
    }
}

struct Receiver<I>(Consumer<I>);

impl<I: Item> Receive for Receiver<I> {
    #[inline]
    fn receive(&mut self, look: &mut impl Look) -> Result<(), Failure> {
        let item = wait::for_message(|| self.0.pop().ok());
        look.at_slice(item.bytes());
        Ok(())
    }

    fn receive_batch(&mut self, limit: usize, look: &mut impl Look) -> Result<usize, Failure> {
        Ok(wait::for_message(|| {
            let count = self.0.slots().min(limit);
            let chunk = self.0.read_chunk(count).ok()?;
            let (first, second) = chunk.as_slices();
            first.iter().chain(second).for_each(|item| look.at_slice(item.bytes()));
            chunk.commit_all();
            (count > 0).then_some(count)
        }))
    }
}
