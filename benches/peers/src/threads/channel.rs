//! crossbeam-channel, bounded. It spins and yields for a while of its own accord and then sleeps;
//! busy waiting is `try_send` and `try_recv`.

use crossbeam_channel::{TrySendError, bounded};
use tombolo_benches::Registry;
use tombolo_benches::system::{Failure, Look, Meeting, Receive, ThreadSystem, Transmit, Waiting};

use crate::item::{self, Item, Of};
use crate::wait;

/// Adds it for each size of item.
pub(super) fn register(registry: Registry) -> Registry {
    item::add_each_size!(registry, threads, Channel)
}

struct Channel<I>(Of<I>);

impl<I: Item> ThreadSystem for Channel<I> {
    const NAME: &'static str = "crossbeam";
    const PRODUCERS_MAX: usize = 64;
    type Sender = Sender<I>;
    type Receiver = Receiver<I>;

    fn takes(meeting: &Meeting) -> bool {
        meeting.size == I::SIZE && meeting.waiting != Waiting::Sleep
    }

    fn ends(meeting: &Meeting) -> Result<(Vec<Sender<I>>, Receiver<I>), Failure> {
        let (sender, receiver) = bounded(item::count_in(meeting));
        let waiting = meeting.waiting;
        let senders = vec![Sender { sender, waiting }; meeting.producers];
        Ok((senders, Receiver { receiver, waiting }))
    }
}

#[derive(Clone)]
struct Sender<I> {
    sender: crossbeam_channel::Sender<I>,
    waiting: Waiting,
}

impl<I: Item> Transmit for Sender<I> {
    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let item = I::copy_of(payload);
        if self.waiting == Waiting::SpinSleep {
            return self.sender.send(item).map_err(|_| "the receiver is gone".into());
        }
        wait::for_room(|| match self.sender.try_send(item) {
            Ok(()) => Some(Ok(())),
            Err(TrySendError::Full(_)) => None,
            Err(TrySendError::Disconnected(_)) => Some(Err("the receiver is gone".into())),
        })
    }
}

struct Receiver<I> {
    receiver: crossbeam_channel::Receiver<I>,
    waiting: Waiting,
}

impl<I: Item> Receive for Receiver<I> {
    #[inline]
    fn receive(&mut self, look: &mut impl Look) -> Result<(), Failure> {
        let item = if self.waiting == Waiting::SpinSleep {
            self.receiver.recv()?
        } else {
            wait::for_message(|| self.receiver.try_recv().ok())
        };
        look.at_slice(item.bytes());
        Ok(())
    }
}
