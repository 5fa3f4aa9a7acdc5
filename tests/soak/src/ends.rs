//! The ends of any ring, where a run does the same with all.

use std::path::Path;
use std::str::FromStr;

use tombolo::options::{Disconnect, MpscOrder};
use tombolo::{
    EventsRegion, MpscConsumer, MpscProducer, OpenOptions, Readiness, RecvError, SendError,
    SpscReceiver, SpscSender, TryRecvError, TrySendError,
};
use tombolo_abi::RingKind;

use crate::Failure;

/// All kinds of ring.
pub(crate) const KINDS: [RingKind; 3] = [RingKind::Spsc, RingKind::Mpsc, RingKind::Lane];
/// Lanes in a region that has any.
const LANES: u16 = 4;

/// Bytes of a small ring.
pub(crate) const SMALL: u64 = 4096;

/// Bytes of a message whose record is an eighth of a small ring: a blocked sender is notified of the
/// room of each.
pub(crate) const EIGHTH_LEN: usize = 504;

/// Makes a region at `path` that has a ring of `kind`.
pub(crate) fn create(path: &Path, kind: RingKind) -> Result<(), Failure> {
    EventsRegion::open_path_with(path, options_for(kind))?;
    Ok(())
}

/// The same with small rings.
pub(crate) fn create_small(path: &Path, kind: RingKind) -> Result<(), Failure> {
    let options = options_for(kind).spsc_capacity(SMALL).mpsc_capacity(SMALL);
    EventsRegion::open_path_with(path, options)?;
    Ok(())
}

fn options_for(kind: RingKind) -> OpenOptions {
    match kind {
        RingKind::Lane => OpenOptions::new().mpsc_order(MpscOrder::PerProducer).producers(LANES),
        _ => OpenOptions::new(),
    }
}

/// A side of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Its receiver or consumer.
    Receiving,
    /// Its sender, or its first producer.
    Sending,
}

/// One end of one of a region's rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) kind: RingKind,
    pub(crate) side: Side,
}

impl End {
    /// All of them.
    pub(crate) const ALL: [Self; 6] = [
        Self { kind: RingKind::Spsc, side: Side::Receiving },
        Self { kind: RingKind::Spsc, side: Side::Sending },
        Self { kind: RingKind::Mpsc, side: Side::Receiving },
        Self { kind: RingKind::Mpsc, side: Side::Sending },
        Self { kind: RingKind::Lane, side: Side::Receiving },
        Self { kind: RingKind::Lane, side: Side::Sending },
    ];

    /// What people and children call it.
    pub(crate) fn name(self) -> &'static str {
        match (self.kind, self.side) {
            (RingKind::Mpsc, Side::Receiving) => "mpsc-consumer",
            (RingKind::Mpsc, Side::Sending) => "mpsc-producer",
            (RingKind::Lane, Side::Receiving) => "lanes-consumer",
            (RingKind::Lane, Side::Sending) => "lane-producer",
            (_, Side::Receiving) => "spsc-receiver",
            (_, Side::Sending) => "spsc-sender",
        }
    }

    /// The other end of the same ring.
    pub(crate) fn other(self) -> Self {
        let side = match self.side {
            Side::Receiving => Side::Sending,
            Side::Sending => Side::Receiving,
        };
        Self { side, ..self }
    }
}

impl FromStr for End {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|end| end.name() == name).ok_or(())
    }
}

/// A sender of any ring.
#[derive(Debug)]
pub(crate) enum AnySender {
    Spsc(SpscSender),
    Mpsc(MpscProducer),
}

impl AnySender {
    /// Claims the sending end of the ring of `kind`.
    pub(crate) fn claim(region: &mut EventsRegion, kind: RingKind) -> Result<Self, Failure> {
        let mut sender = match kind {
            RingKind::Mpsc | RingKind::Lane => Self::Mpsc(region.split_mpsc()?.0),
            _ => Self::Spsc(region.split_spsc()?.0),
        };
        match &mut sender {
            Self::Spsc(sender) => sender.attach()?,
            Self::Mpsc(sender) => sender.attach()?,
        }
        Ok(sender)
    }

    pub(crate) fn set_disconnect(&mut self, disconnect: Disconnect) {
        match self {
            Self::Spsc(sender) => sender.set_disconnect(disconnect),
            Self::Mpsc(sender) => sender.set_disconnect(disconnect),
        }
    }

    pub(crate) fn readiness(&mut self) -> Result<Readiness, Failure> {
        Ok(match self {
            Self::Spsc(sender) => Readiness::of(sender)?,
            Self::Mpsc(sender) => Readiness::of(sender)?,
        })
    }

    #[inline]
    pub(crate) fn send(&mut self, message: &[u8]) -> Result<(), SendError> {
        match self {
            Self::Spsc(sender) => sender.send(message),
            Self::Mpsc(sender) => sender.send(message),
        }
    }

    #[inline]
    pub(crate) fn try_send(&mut self, message: &[u8]) -> Result<(), TrySendError> {
        match self {
            Self::Spsc(sender) => sender.try_send(message),
            Self::Mpsc(sender) => sender.try_send(message),
        }
    }

    /// Sends `message` until the ring is full, and gives how often that was.
    pub(crate) fn fill(&mut self, message: &[u8]) -> Result<u64, Failure> {
        let mut count = 0;
        loop {
            match self.try_send(message) {
                Ok(()) => count += 1,
                Err(TrySendError::Full(())) => return Ok(count),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A receiver of any ring.
#[derive(Debug)]
pub(crate) enum AnyReceiver {
    Spsc(SpscReceiver),
    Mpsc(MpscConsumer),
}

impl AnyReceiver {
    /// Claims the receiving end of the ring of `kind`.
    pub(crate) fn claim(region: &mut EventsRegion, kind: RingKind) -> Result<Self, Failure> {
        let mut receiver = match kind {
            RingKind::Mpsc | RingKind::Lane => Self::Mpsc(region.split_mpsc()?.1),
            _ => Self::Spsc(region.split_spsc()?.1),
        };
        match &mut receiver {
            Self::Spsc(receiver) => receiver.attach()?,
            Self::Mpsc(receiver) => receiver.attach()?,
        }
        Ok(receiver)
    }

    pub(crate) fn set_disconnect(&mut self, disconnect: Disconnect) {
        match self {
            Self::Spsc(receiver) => receiver.set_disconnect(disconnect),
            Self::Mpsc(receiver) => receiver.set_disconnect(disconnect),
        }
    }

    pub(crate) fn readiness(&mut self) -> Result<Readiness, Failure> {
        Ok(match self {
            Self::Spsc(receiver) => Readiness::of(receiver)?,
            Self::Mpsc(receiver) => Readiness::of(receiver)?,
        })
    }

    #[inline]
    pub(crate) fn recv_into(&mut self, room: &mut [u8]) -> Result<usize, RecvError> {
        match self {
            Self::Spsc(receiver) => receiver.recv_into(room),
            Self::Mpsc(receiver) => receiver.recv_into(room),
        }
    }

    #[inline]
    pub(crate) fn try_recv_into(&mut self, room: &mut [u8]) -> Result<usize, TryRecvError> {
        match self {
            Self::Spsc(receiver) => receiver.try_recv_into(room),
            Self::Mpsc(receiver) => receiver.try_recv_into(room),
        }
    }
}
