//! disruptor with an event poller: items are written and looked at in place. Its processors' threads
//! are not used, so that both sides are the harness's threads.
//!
//! One producer and several are different types in it, and so they are here.

use ::disruptor::{
    BusySpin, EventPoller, MultiProducer, MultiProducerBarrier, Polling, Producer,
    SingleConsumerBarrier, SingleProducer, SingleProducerBarrier, build_multi_producer,
    build_single_producer,
};
use tombolo_benches::Registry;
use tombolo_benches::system::{Failure, Look, Meeting, Receive, ThreadSystem, Transmit, Waiting};

use crate::item::{self, Item, Of};
use crate::wait;

/// Adds it for each size of item.
pub(super) fn register(registry: Registry) -> Registry {
    let registry = item::add_each_size!(registry, threads, Single);
    let registry = registry.threads::<Single<item::Lines<65536>>>();
    item::add_each_size!(registry, threads, Multi)
}

struct Single<I>(Of<I>);

impl<I: Item> ThreadSystem for Single<I> {
    const NAME: &'static str = "disruptor";
    const PRODUCERS_MAX: usize = 64;
    const BATCHES: bool = true;
    const LENDS: bool = true;
    type Sender = Sender<SingleProducer<I, SingleConsumerBarrier>, I>;
    type Receiver = Receiver<I, SingleProducerBarrier>;

    fn takes(meeting: &Meeting) -> bool {
        is_for::<I>(meeting) && meeting.producers == 1
    }

    fn ends(meeting: &Meeting) -> Result<(Vec<Self::Sender>, Self::Receiver), Failure> {
        let builder = build_single_producer(item::count_in(meeting), I::zeros, BusySpin);
        let (poller, builder) = builder.new_event_poller();
        Ok((vec![Sender(builder.build(), Of::default())], Receiver(poller)))
    }
}

struct Multi<I>(Of<I>);

impl<I: Item> ThreadSystem for Multi<I> {
    const NAME: &'static str = "disruptor";
    const PRODUCERS_MAX: usize = 64;
    const BATCHES: bool = true;
    const LENDS: bool = true;
    type Sender = Sender<MultiProducer<I, SingleConsumerBarrier>, I>;
    type Receiver = Receiver<I, MultiProducerBarrier>;

    fn takes(meeting: &Meeting) -> bool {
        is_for::<I>(meeting) && meeting.producers > 1
    }

    fn ends(meeting: &Meeting) -> Result<(Vec<Self::Sender>, Self::Receiver), Failure> {
        let builder = build_multi_producer(item::count_in(meeting), I::zeros, BusySpin);
        let (poller, builder) = builder.new_event_poller();
        let producer = builder.build();
        let senders = (0..meeting.producers).map(|_| Sender(producer.clone(), Of::default()));
        Ok((senders.collect(), Receiver(poller)))
    }
}

fn is_for<I: Item>(meeting: &Meeting) -> bool {
    meeting.size == I::SIZE && meeting.waiting == Waiting::Busy
}

struct Sender<P, I>(P, Of<I>);

impl<P: Producer<I>, I: Item> Transmit for Sender<P, I> {
    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let write = |item: &mut I| item.bytes_mut().copy_from_slice(payload);
        wait::for_room(|| self.0.try_publish(write).ok());
        Ok(())
    }

    fn send_batch(&mut self, payloads: &[&[u8]]) -> Result<(), Failure> {
        wait::for_room(|| {
            let published = self.0.try_batch_publish(payloads.len(), |items| {
                for (item, payload) in items.zip(payloads) {
                    item.bytes_mut().copy_from_slice(payload);
                }
            });
            published.ok()
        });
        Ok(())
    }

    #[inline]
    fn lend(&mut self, _size: usize, number: u64) -> Result<(), Failure> {
        let write = |item: &mut I| item.bytes_mut()[..8].copy_from_slice(&number.to_ne_bytes());
        wait::for_room(|| self.0.try_publish(write).ok());
        Ok(())
    }
}

struct Receiver<I, B>(EventPoller<I, B>);

/// Looking at what is there, up to a limit. The trait that the two barriers share has no public name.
trait Take {
    fn take(&mut self, limit: usize, look: &mut impl Look) -> Result<usize, Polling>;
}

macro_rules! take_behind {
    ($barrier:ty) => {
        impl<I: Item> Take for Receiver<I, $barrier> {
            #[inline]
            fn take(&mut self, limit: usize, look: &mut impl Look) -> Result<usize, Polling> {
                let mut taken = self.0.take(limit as u64)?;
                let count = (&mut taken).len();
                (&mut taken).for_each(|item| look.at_slice(item.bytes()));
                Ok(count)
            }
        }
    };
}

take_behind!(SingleProducerBarrier);
take_behind!(MultiProducerBarrier);

impl<I, B> Receive for Receiver<I, B>
where
    Self: Take,
{
    #[inline]
    fn receive(&mut self, look: &mut impl Look) -> Result<(), Failure> {
        self.receive_batch(1, look)?;
        Ok(())
    }

    #[inline]
    fn receive_batch(&mut self, limit: usize, look: &mut impl Look) -> Result<usize, Failure> {
        wait::for_message(|| match self.take(limit, look) {
            Ok(count) => Some(Ok(count)),
            Err(Polling::NoEvents) => None,
            Err(Polling::Shutdown) => Some(Err("the senders are gone".into())),
        })
    }
}
