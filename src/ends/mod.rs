//! The ends of rings: sending, receiving, and what can go wrong.

mod drain;
mod errors;
mod lanes;
mod message;
mod readiness;
mod receiver;
mod receiving;
mod record_ref;
mod reservation;
mod sender;
mod sending;
mod split;
mod topology;
mod wait_any;

pub use crate::endpoint::Peers;
pub use drain::DrainFlow;
pub(crate) use errors::NotSent;
pub use errors::{
    RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};
pub(crate) use lanes::{AllLanes, Lanes};
pub use message::MessagePacket;
pub use readiness::{Pollable, Readiness};
pub use receiver::{Iter, Receiver};
pub(crate) use receiving::Receiving;
pub use record_ref::RecordRef;
pub(crate) use record_ref::{BorrowedWhile, buffer};
pub use reservation::Reservation;
pub use sender::Sender;
pub(crate) use sending::{Sending, Shared, check_handles, not_sent};
pub use topology::{Mpsc, Spsc, Topology};
pub use wait_any::{Waitable, wait_any};

/// The sender of a ring with one producer.
pub type SpscSender = Sender<Spsc>;
/// The receiver of a ring with one producer.
pub type SpscReceiver = Receiver<Spsc>;
/// A producer of a ring with many; its clones share its endpoint, or have a lane each, see
/// [`MpscOrder`](crate::options::MpscOrder).
pub type MpscProducer = Sender<Mpsc>;
/// The consumer of a ring with many producers.
pub type MpscConsumer = Receiver<Mpsc>;
