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
//! Two processes that answer each other share a [`Channel`]: see [Channels](#channels).
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
//! | wait for several receivers, or channels | | [`wait_any`] | |
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
//! # Channels
//!
//! A [`Channel`] is one of two ends, which both read and write, and call each other. A region with two rings lies
//! between them. Both may be in one process, by [`Channel::create`], or each in its own, by [`Channel::open`]: the
//! first to open a name has one end, the next the other, a third is told [`Error::Busy`].
//!
//! ```
//! use std::{thread, time::Duration};
//! use tombolo::{Channel, object::ChannelError};
//!
//! let (client, server) = Channel::create()?;
//! let serving = thread::spawn(move || -> Result<(), ChannelError> {
//!     for _ in 0..2 {
//!         let mut message = server.read_timeout(Duration::from_secs(10))?;
//!         let answer = message.data[4..].to_ascii_uppercase();
//!         message.data.splice(4.., answer); // the first four bytes say which call it answers
//!         server.write(message)?;
//!     }
//!     server.close_with_reason(0, "two are enough");
//!     Ok(())
//! });
//! for name in ["ada", "grace"] {
//!     let request = [b"\0\0\0\0", name.as_bytes()].concat(); // four bytes for the transaction id
//!     let reply = client.call(request, Duration::from_secs(10))?;
//!     assert_eq!(&reply.data[4..], name.to_uppercase().as_bytes());
//! }
//! serving.join().unwrap()?;
//! assert!(matches!(client.read(), Err(ChannelError::PeerClosed)));
//! assert_eq!(client.close_reason()?.unwrap().text, "two are enough");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | to | waiting | up to a time | not waiting | as a future, or in a poller |
//! |---|---|---|---|---|
//! | write; the handles are gone in any case | [`write`](Channel::write) | | | |
//! | write; a failure gives the message back | | [`write_timeout`](Channel::write_timeout) | [`try_write`](Channel::try_write) | [`writable`](Channel::writable) |
//! | write parts, or handles by dispositions | [`write_vectored`](Channel::write_vectored), [`write_etc`](Channel::write_etc) | | | |
//! | read | | [`read_timeout`](Channel::read_timeout) | [`read`](Channel::read), [`read_etc`](Channel::read_etc) | [`readable`](Channel::readable) |
//! | read into your buffers | | | [`read_into`](Channel::read_into), [`read_parts`](Channel::read_parts), [`read_or_discard`](Channel::read_or_discard) | |
//! | read only what you want | | | [`check_and_read`](Channel::check_and_read) | |
//! | send a request and get the reply | | [`call`](Channel::call), [`call_etc`](Channel::call_etc) | | [`call_async`](Channel::call_async) |
//! | wait for several channels and receivers | | [`wait_any`] | | |
//! | close | | | [`close`](Channel::close), [`close_with_reason`](Channel::close_with_reason) | |
//! | send an end away, and take it in | | | [`release`](Channel::release), [`from_handle`](Channel::from_handle) | |
//!
//! Messages have up to 65,536 bytes and 64 handles, or what [`Channel::create_with`] sets. Errors are
//! [`ChannelError`](object::ChannelError), those of calls [`CallError`](object::CallError).
//!
//! * **Threads.** Any number may use an end at once, by reference: an end is not cloned. The reply to a call goes to the
//!   thread that called, past messages that lie before it, which stay for [`read`](Channel::read).
//! * **Ending.** When an end is closed, dropped, or its process dies, the other reads what was written before, and
//!   then gets [`PeerClosed`](object::ChannelError::PeerClosed), for good: the next to open the name makes another
//!   channel. [`close_reason`](Channel::close_reason) tells why, if that was said.
//! * **Moving an end.** [`release`](Channel::release) makes a [`Handle`] of an end whose other end is open, to
//!   be sent in a message, with all that was not read. Where it arrives, [`from_handle`](Channel::from_handle)
//!   makes it an end again. The other end notices nothing, unless the handle is dropped: then it is closed.
//!   `examples/hand_over_endpoint.rs` is a whole program.
//! * **Tasks and pollers.** [`call_async`](Channel::call_async) is a future for any runtime; the [`Readiness`] of
//!   [`readable`](Channel::readable) and [`writable`](Channel::writable) is a descriptor for a poller, and wakes tasks.
//!   Each is for *call until there is nothing to do, then wait*.
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
//! [`object::HandleTable`] numbers handles as Zircon does, and writes to channels, reads from them and calls by
//! number; the `status()` of each error is [a number](object::Status) of Zircon's.
#![deny(unsafe_code)]

mod backoff;
mod bit_set;
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
mod mutex;
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
pub use object::{Channel, Signal};
pub use region::{EventsRegion, OpenOptions};
pub use tombolo_abi::{LayoutError, SharedLayout};

/// The programs in the README and beside it compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/guarantees.md")]
struct Readme;
