//! crossbeam's `ArrayQueue`: a bounded queue of items for many on both sides, which never waits.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use tombolo_benches::Registry;
use tombolo_benches::system::{Failure, Look, Meeting, Receive, ThreadSystem, Transmit, Waiting};

use crate::item::{self, Item, Of};
use crate::wait;

/// Adds it for each size of item.
pub(super) fn register(registry: Registry) -> Registry {
    item::add_each_size!(registry, threads, Queue)
}

struct Queue<I>(Of<I>);

impl<I: Item> ThreadSystem for Queue<I> {
    const NAME: &'static str = "crossbeam-queue";
    const PRODUCERS_MAX: usize = 64;
    type Sender = End<I>;
    type Receiver = End<I>;

    fn takes(meeting: &Meeting) -> bool {
        meeting.size == I::SIZE && meeting.waiting == Waiting::Busy
    }

    fn ends(meeting: &Meeting) -> Result<(Vec<End<I>>, End<I>), Failure> {
        let queue = Arc::new(ArrayQueue::new(item::count_in(meeting)));
        let senders = (0..meeting.producers).map(|_| End(Arc::clone(&queue))).collect();
        Ok((senders, End(queue)))
    }
}

struct End<I>(Arc<ArrayQueue<I>>);

impl<I: Item> Transmit for End<I> {
    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let item = I::copy_of(payload);
        wait::for_room(|| self.0.push(item).ok());
        Ok(())
    }
}

impl<I: Item> Receive for End<I> {
    #[inline]
    fn receive(&mut self, look: &mut impl Look) -> Result<(), Failure> {
        let item = wait::for_message(|| self.0.pop());
        look.at_slice(item.bytes());
        Ok(())
    }
}
