//! Message channels between Linux processes, in one memory-mapped file.
//!
//! ```no_run
//! use tombolo::EventsRegion;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut region = EventsRegion::open("demo")?; // creates it or joins it
//!     let (mut tx, mut rx) = region.split_spsc()?; // use the end you need
//!     if std::env::args().nth(1).as_deref() == Some("send") {
//!         tx.send(b"hello")?; // waits while the ring is full
//!     } else {
//!         println!("{}", String::from_utf8_lossy(&rx.recv()?.data)); // waits for a message
//!     }
//!     Ok(())
//! }
//! ```
//!
//! Run it twice, once with the argument `send`; either process may start first. An [`EventsRegion`] is
//! the file. The first process that opens it creates it, and the rest join. By default it holds two rings of
//! messages, which are byte strings up to a limit:
//!
//! * [`EventsRegion::split_spsc`]: [`SpscSender`] and [`SpscReceiver`], one process at each end;
//! * [`EventsRegion::split_mpsc`]: [`MpscProducer`]s in many processes and one [`MpscConsumer`], in one
//!   order for all producers or in each producer's own: see [`MpscOrder`](options::MpscOrder).
//!
//! [`OpenOptions::ring`] lists other rings, each with limits of its own, and
//! [`EventsRegion::spsc_sender`] and its neighbours give the ends of each: two directions, say, or a pair of
//! rings for each worker of a host.
//!
//! An end attaches to its endpoint at first use, and an endpoint has one owner at a time; the kernel
//! knows who that is and whether it lives. Once a send has returned `Ok`, the message is in the region and
//! will be received, in order and once, whatever happens to the sender. Only what a receiver had not freed
//! when it died is delivered again.
//!
//! # Which call
//!
//! | to | waiting | up to a time | not waiting |
//! |---|---|---|---|
//! | send bytes | [`send`](Sender::send) | [`send_timeout`](Sender::send_timeout) | [`try_send`](Sender::try_send) |
//! | send bytes and handles | [`send_packet`](Sender::send_packet) | [`send_packet_timeout`](Sender::send_packet_timeout) | [`try_send_packet`](Sender::try_send_packet) |
//! | send many messages | [`send_batch`](Sender::send_batch) | [`send_batch_timeout`](Sender::send_batch_timeout) | [`try_send_batch`](Sender::try_send_batch) |
//! | build a message in place (one sender) | [`reserve`](Sender::reserve) | [`reserve_timeout`](Sender::reserve_timeout) | [`try_reserve`](Sender::try_reserve) |
//! | receive bytes and handles, or iterate | [`recv`](Receiver::recv) | [`recv_timeout`](Receiver::recv_timeout) | [`try_recv`](Receiver::try_recv) |
//! | receive into your buffer | [`recv_into`](Receiver::recv_into) | [`recv_into_timeout`](Receiver::recv_into_timeout) | [`try_recv_into`](Receiver::try_recv_into) |
//! | read a message in place, free it afterwards | [`recv_ref`](Receiver::recv_ref) | [`recv_ref_timeout`](Receiver::recv_ref_timeout) | [`try_recv_ref`](Receiver::try_recv_ref) |
//! | receive bytes and handles into your buffers | [`recv_ref`](Receiver::recv_ref), then [`take_parts`](RecordRef::take_parts) | | |
//! | take many messages | | | [`drain`](Receiver::drain) |
//! | wait for several receivers | | [`wait_any`] | |
//! | wait for the other side | | [`wait_for_peer`](Receiver::wait_for_peer) | [`peers`](Receiver::peers) |
//! | own an endpoint before first use | | | [`attach`](Receiver::attach) |
//!
//! A time is a `Duration`, an `Instant` or a [`Deadline`]. Errors of regions are [`Error`], grouped by what
//! to do about them; those of sending and receiving have the shapes of `std::sync::mpsc`. [`inspect`] decodes
//! any region, intact or damaged, without disturbing it. What a region is like is chosen by
//! [`OpenOptions`] when it is created.
//!
//! # Ending
//!
//! *Disconnected* is a condition: no process at the other end is alive, and one counts as having been
//! there, by the [`Disconnect`](options::Disconnect) of this end. Every call reports it for as long as it is
//! true, and it ends when a process attaches.
//!
//! | what happened | the receiver | a sender |
//! |---|---|---|
//! | the last sender was dropped or killed | gets all that was sent, then *disconnected*; an iterator ends | |
//! | the receiver was dropped or killed | | sends while there is space, then *disconnected*; with handles at once |
//! | no peer has come yet | waits | sends, then waits |
//! | this end was restarted after its peers had gone | takes what is there, then *disconnected*; on an empty ring it waits, unless [`Disconnect::Ever`](options::Disconnect::Ever) is set | waits once the ring is full, unless [`Disconnect::Ever`](options::Disconnect::Ever) is set |
//! | [`Disconnect::Never`](options::Disconnect::Never) is set | waits | waits once the ring is full |
//! | an [`Interrupter`] was used, as in a handler of Ctrl-C | *interrupted*, with nothing taken; an iterator ends | *interrupted*, with the message given back |
//!
//! [`Receiver::peers`] reports how many are alive and how many ever came: `alive == 0 && ever >= 8` ends a
//! collector of eight writers. [`Receiver::wait_for_peer`] waits for one.
//!
//! A receiver that ends by Ctrl-C, after it has taken all that was sent before:
//!
//! ```no_run
//! # use tombolo::{SpscReceiver, TryRecvError, options::Disconnect};
//! # fn serve(mut rx: SpscReceiver) -> Result<(), Box<dyn std::error::Error>> {
//! # let take = |_| {};
//! rx.set_disconnect(Disconnect::Never); // senders come and go
//! let interrupter = rx.interrupter(); // for the handler of Ctrl-C: `interrupter.interrupt()`
//! rx.iter().try_for_each(|message| message.map(take))?; // until it is interrupted
//! loop {
//!     match rx.try_recv() {
//!         Ok(message) => take(message),
//!         Err(TryRecvError::Empty) => return Ok(()), // what is sent from here on stays in the region
//!         Err(error) => return Err(error.into()),
//!     }
//! }
//! # }
//! ```
//!
//! `examples/collector.rs` is a whole program, which also waits for its senders to end.
//!
//! # Handles
//!
//! A [`Handle`] is an owned descriptor with a type, [`Rights`] and an id. A [`MessagePacket`] takes up to 64
//! of them along, in a region created with [`OpenOptions::max_handles`]:
//! [`send_packet`](Sender::send_packet) moves them, [`recv`](Receiver::recv) and
//! [`RecordRef::take_parts`] give them out, and [`RecordRef::handles`] shows those of a message in place. All
//! rings carry them, SPSC, MPSC and lanes. A message borrowed by [`recv_ref`](Receiver::recv_ref) gives its
//! handles out by [`RecordRef::take`], which frees it; [`RecordRef::handles`] returns further descriptors, and
//! the message keeps its own until it is dropped.
//!
//! * Bytes and handles arrive together, or the error says that they did not. A message never has the
//!   handles of another one.
//! * Once a send has returned `Ok`, the kernel keeps the handles, whatever happens to the sender. Sending
//!   them waits for a receiver.
//! * If a receiver goes, the handles that it has not taken are closed. Its successor gets the bytes, with
//!   [`Error::HandlesLost`]. A sender that must not lose them keeps a duplicate until the receiver answers.
//! * Descriptors that do not fit into the process stay in their message: [`Error::TooManyFiles`].
//!
//! A [`HandleDisposition`](handle::HandleDisposition) says what becomes of a handle when it is sent.
//! [`object::HandleTable`] numbers handles as Zircon does, and the `status()` of each error is
//! [a number](object::Status) of Zircon's.
#![deny(unsafe_code)]

mod backoff;
mod carrier;
#[doc(hidden)]
pub mod crash;
mod deadline;
mod endpoint;
pub mod ends;
mod error;
pub mod handle;
mod handle_type;
pub mod inspect;
mod mem;
pub mod object;
pub mod options;
mod os;
mod region;
mod rights;
mod ring;
mod status;
mod wait;

pub use deadline::Deadline;
pub use endpoint::Interrupter;
pub use ends::{
    MessagePacket, MpscConsumer, MpscProducer, Readiness, Receiver, RecordRef, RecvError,
    RecvTimeoutError, Reservation, SendError, SendTimeoutError, Sender, SpscReceiver, SpscSender,
    TryRecvError, TrySendError, wait_any,
};
pub use error::{Damage, Error};
pub use handle::{Handle, HandleType, KoID, Rights};
pub use object::Channel;
pub use region::{EventsRegion, OpenOptions};
pub use tombolo_abi::{LayoutError, SharedLayout};

/// The programs in the README and beside it compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/guarantees.md")]
struct Readme;
