//! Channels between Linux processes, in one memory-mapped file.
#![deny(unsafe_code)]

#[doc(hidden)]
pub mod crash;
mod endpoint;
mod error;
pub mod inspect;
mod mem;
mod os;
mod region;
mod ring;

pub use endpoint::{
    Claim, Deadline, Discipline, Iter, MessagePacket, Mpsc, MpscConsumer, MpscProducer, Receiver,
    RecordRef, RecvError, RecvTimeoutError, SendError, SendTimeoutError, Sender, Spsc,
    SpscReceiver, SpscSender, TryRecvError, TrySendError,
};
pub use error::{Damage, Error};
pub use mem::Payload;
pub use region::{
    CreatePolicy, EventsRegion, FileSystemPolicy, OpenOptions, OwnerPolicy, Prefault,
};
pub use tombolo_abi::{LayoutError, SharedLayout};
