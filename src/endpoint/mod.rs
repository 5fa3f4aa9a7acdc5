//! The ends of rings: owning one, sending, receiving, and what can go wrong.

mod attached;
mod backoff;
mod bell;
mod claim;
mod claimed;
mod deadline;
mod discipline;
mod drain;
mod errors;
mod group;
mod intake;
mod interrupt;
mod iter;
mod lanes;
mod message;
mod packets;
mod parts;
mod peer;
mod receiver;
mod record_ref;
mod sender;
mod sleep;
mod slot;
mod spin;
mod split;
mod wait_any;

pub use claim::Claim;
pub use deadline::Deadline;
pub use discipline::{Discipline, Mpsc, Spsc};
pub use drain::DrainFlow;
pub use errors::{
    RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};
pub use interrupt::Interrupter;
pub use iter::Iter;
pub use message::MessagePacket;
pub use peer::{Disconnect, Peers};
pub use receiver::Receiver;
pub use record_ref::RecordRef;
pub use sender::Sender;
pub use wait_any::{Waitable, wait_any};

/// The sender of a ring with one producer.
pub type SpscSender = Sender<Spsc>;
/// The receiver of a ring with one producer.
pub type SpscReceiver = Receiver<Spsc>;
/// A producer of a ring with many; its clones share its endpoint, or have a lane each, see
/// [`MpscOrder`](crate::MpscOrder).
pub type MpscProducer = Sender<Mpsc>;
/// The consumer of a ring with many producers.
pub type MpscConsumer = Receiver<Mpsc>;
