//! The ends of a region's two rings, of which a process of a test attaches one.

use tombolo::{EventsRegion, MpscConsumer, MpscProducer, SpscReceiver, SpscSender};

/// All four ends. An end attaches at first use, so other processes may have the others.
pub(crate) struct Ends {
    pub(crate) tx: SpscSender,
    pub(crate) rx: SpscReceiver,
    pub(crate) producer: MpscProducer,
    pub(crate) consumer: MpscConsumer,
}

impl Ends {
    pub(crate) fn of(region: &mut EventsRegion) -> Self {
        let ((tx, rx), (producer, consumer)) =
            (region.split_spsc().unwrap(), region.split_mpsc().unwrap());
        Self { tx, rx, producer, consumer }
    }

    /// Attaches the end that is named like `role`.
    pub(crate) fn attach(&mut self, role: &str) {
        match role {
            "sender" => self.tx.attach().unwrap(),
            "receiver" => self.rx.attach().unwrap(),
            "producer" => self.producer.attach().unwrap(),
            "consumer" => self.consumer.attach().unwrap(),
            other => panic!("no such role: {other}"),
        }
    }
}
