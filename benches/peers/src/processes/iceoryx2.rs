//! iceoryx2's publish-subscribe with loaned slices of bytes. Nothing is overwritten: a publisher
//! waits for a subscriber that is full.
//!
//! It has no waiting of its own for messages. Busy waiting asks the subscriber again and again;
//! sleeping adds an event service beside it, which is notified of each message.

use std::mem::MaybeUninit;

use ::iceoryx2::node::Node;
use ::iceoryx2::port::listener::Listener;
use ::iceoryx2::port::notifier::Notifier;
use ::iceoryx2::port::publisher::Publisher;
use ::iceoryx2::port::subscriber::Subscriber;
use ::iceoryx2::prelude::*;
use ::iceoryx2::service::port_factory::{event, publish_subscribe};
use tombolo_benches::Registry;
use tombolo_benches::system::{Failure, Look, Meeting, ProcessSystem, Receive, Transmit, Waiting};

use super::iceoryx2_node::{self, node, service_name};
use crate::{item, wait};

type Bytes = publish_subscribe::PortFactory<ipc::Service, [u8], ()>;
type Events = event::PortFactory<ipc::Service>;

/// The most samples under way. More of them, or fewer, made no difference.
const SAMPLES_MAX: usize = 256;

/// Adds it.
pub(super) fn register(registry: Registry) -> Registry {
    registry.processes::<Iceoryx2>()
}

struct Iceoryx2;

impl ProcessSystem for Iceoryx2 {
    const NAME: &'static str = "iceoryx2";
    const PRODUCERS_MAX: usize = 16;
    const LENDS: bool = true;
    type Sender = Sender;
    type Receiver = Receiver;

    fn takes(meeting: &Meeting) -> bool {
        meeting.waiting != Waiting::SpinSleep
    }

    fn sender(meeting: &Meeting) -> Result<Sender, Failure> {
        let node = node(meeting)?;
        let service = wait::for_peer("the service", || open(&node, meeting).ok())?;
        let publisher = service
            .publisher_builder()
            .initial_max_slice_len(meeting.size)
            .max_loaned_samples(1)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()?;
        wait::for_peer("the subscriber", || {
            (service.dynamic_config().number_of_subscribers() > 0).then_some(())
        })?;
        let notifier = match meeting.waiting {
            Waiting::Sleep => Some(notifier(&node, meeting)?),
            _ => None,
        };
        Ok(Sender { publisher, notifier, _node: node })
    }

    fn receiver(meeting: &Meeting) -> Result<Receiver, Failure> {
        let node = node(meeting)?;
        let listener = match meeting.waiting {
            Waiting::Sleep => Some(events(&node, meeting)?.listener_builder().create()?),
            _ => None,
        };
        let subscriber = create(&node, meeting)?.subscriber_builder().create()?;
        Ok(Receiver { subscriber, listener, _node: node })
    }

    fn prepare(_meeting: &Meeting) -> Result<(), Failure> {
        iceoryx2_node::remove_memory_of_the_dead();
        Ok(())
    }

    fn clean_up(meeting: &Meeting) {
        iceoryx2_node::remove_memory_of(meeting);
    }
}

fn create(node: &Node<ipc::Service>, meeting: &Meeting) -> Result<Bytes, Failure> {
    let builder = node.service_builder(&service_name(meeting)?).publish_subscribe::<[u8]>();
    let service = builder
        .payload_alignment(Alignment::new(64).ok_or("64 is an alignment")?)
        .enable_safe_overflow(false)
        .history_size(0)
        .max_publishers(meeting.producers)
        .max_subscribers(1)
        .subscriber_max_borrowed_samples(1)
        .subscriber_max_buffer_size(item::count_in(meeting).min(SAMPLES_MAX))
        .create()?;
    Ok(service)
}

fn open(node: &Node<ipc::Service>, meeting: &Meeting) -> Result<Bytes, Failure> {
    let builder = node.service_builder(&service_name(meeting)?).publish_subscribe::<[u8]>();
    Ok(builder.payload_alignment(Alignment::new(64).ok_or("64 is an alignment")?).open()?)
}

fn events(node: &Node<ipc::Service>, meeting: &Meeting) -> Result<Events, Failure> {
    Ok(node.service_builder(&service_name(meeting)?).event().open_or_create()?)
}

/// Comes when there is a subscriber already, and so a listener.
fn notifier(
    node: &Node<ipc::Service>,
    meeting: &Meeting,
) -> Result<Notifier<ipc::Service>, Failure> {
    Ok(events(node, meeting)?.notifier_builder().create()?)
}

struct Sender {
    publisher: Publisher<ipc::Service, [u8], ()>,
    notifier: Option<Notifier<ipc::Service>>,
    _node: Node<ipc::Service>,
}

impl Sender {
    #[inline]
    fn notify(&self) -> Result<(), Failure> {
        if let Some(notifier) = &self.notifier {
            notifier.notify()?;
        }
        Ok(())
    }
}

impl Transmit for Sender {
    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let sample = self.publisher.loan_slice_uninit(payload.len())?;
        sample.write_from_slice(payload).send()?;
        self.notify()
    }

    #[inline]
    fn lend(&mut self, size: usize, number: u64) -> Result<(), Failure> {
        let mut sample = self.publisher.loan_slice_uninit(size)?;
        sample.payload_mut()[..8].copy_from_slice(&number.to_ne_bytes().map(MaybeUninit::new));
        // SAFETY: what was not written here are bytes of a mapping, which hold something.
        unsafe { sample.assume_init() }.send()?;
        self.notify()
    }
}

struct Receiver {
    subscriber: Subscriber<ipc::Service, [u8], ()>,
    listener: Option<Listener<ipc::Service>>,
    _node: Node<ipc::Service>,
}

impl Receive for Receiver {
    #[inline]
    fn receive(&mut self, look: &mut impl Look) -> Result<(), Failure> {
        let sample = match &self.listener {
            None => wait::for_message(|| self.subscriber.receive().transpose())?,
            Some(listener) => loop {
                if let Some(sample) = self.subscriber.receive()? {
                    break sample;
                }
                listener.blocking_wait(|_| {})?;
            },
        };
        look.at_slice(sample.payload());
        Ok(())
    }
}
