//! Channels between Linux processes, in one memory-mapped file.
//!
//! An [`EventsRegion`] is that file: whoever opens it first creates it, everybody else joins. It
//! holds two rings of messages, byte strings of any length up to a limit:
//!
//! * [`EventsRegion::split_spsc`]: [`SpscSender`] and [`SpscReceiver`], one process at each end;
//! * [`EventsRegion::split_mpsc`]: [`MpscProducer`]s in many processes, in one order or each in its
//!   own, and the [`MpscConsumer`]. Which of the two, [`OpenOptions::mpsc_order`] says: see
//!   [`MpscOrder`] for when to choose which.
//!
//! Either side may start first, and either may go and come back. An end is claimed at its first
//! use; who owns it, and whether they live, is known to the kernel. Once a send has returned `Ok`,
//! the message is in the region and will be received, in order and once, whatever happens to the
//! sender; only what a receiver had not freed when it died is delivered again.
//!
//! # Which call
//!
//! | to | waiting | until a deadline | not waiting |
//! |---|---|---|---|
//! | send bytes and handles | [`send_packet`](Sender::send_packet) | [`send_packet_timeout`](Sender::send_packet_timeout) | [`try_send_packet`](Sender::try_send_packet) |
//! | send bytes | [`send`](Sender::send) | [`send_timeout`](Sender::send_timeout) | [`try_send`](Sender::try_send) |
//! | send many messages | [`send_batch`](Sender::send_batch) | [`send_batch_timeout`](Sender::send_batch_timeout) | [`try_send_batch`](Sender::try_send_batch) |
//! | build a message in place (one sender) | [`claim_record`](Sender::reserve) | [`claim_record_deadline`](Sender::reserve_timeout) | [`try_claim_record`](Sender::try_reserve) |
//! | receive into a new buffer | [`recv`](Receiver::recv), or iterate | [`recv_timeout`](Receiver::recv_timeout) | [`try_recv`](Receiver::try_recv) |
//! | receive into a buffer of one's own | [`recv_into`](Receiver::recv_into) | [`recv_into_timeout`](Receiver::recv_into_timeout) | [`try_recv_into`](Receiver::try_recv_into) |
//! | receive bytes and handles into rooms of one's own | [`recv_parts`](Receiver::recv_parts) | [`recv_parts_timeout`](Receiver::recv_parts_timeout) | [`try_recv_parts`](Receiver::try_recv_parts) |
//! | look at a message in place, take it afterwards | [`recv_ref`](Receiver::recv_ref) | [`recv_ref_timeout`](Receiver::recv_ref_timeout) | [`try_recv_ref`](Receiver::try_recv_ref) |
//! | take what is there, up to a message of one's choice | | | [`drain`](Receiver::drain) |
//! | wait for several receivers | | [`wait_any`] | |
//!
//! A [`Deadline`] is made from a `Duration` or an `Instant`. Errors of regions are [`Error`]; those
//! of sending and receiving have the shapes of `std::sync::mpsc`. [`inspect`] looks into any
//! region, sound or damaged, without disturbing it.
//!
//! # Ending
//! *Disconnected* is a condition: no process at the other end is alive, and one counts as having been
//! there, by the [`Disconnect`] of this end. Every call says so for as long as it is true, and a process
//! that attaches ends it.
//!
//! | what happened | the receiver | a sender |
//! |---|---|---|
//! | the last sender was dropped or killed | gets all that was sent, then *disconnected*; an iterator ends | |
//! | the receiver was dropped or killed | | sends while there is space, then *disconnected*; with handles at once |
//! | no peer has come yet | waits | sends, then waits |
//! | this end was restarted after its peers had gone | takes what is there, then *disconnected*; on an empty ring it waits, unless [`Disconnect::Ever`] is set | waits once the ring is full, unless [`Disconnect::Ever`] is set |
//! | an [`Interrupter`] was used, as in a handler of Ctrl-C | *interrupted*, with nothing taken; an iterator ends | *interrupted*, with the message given back |
//!
//! [`Receiver::peers`] tells how many are alive and how many ever came: `alive == 0 && ever >= 8` ends a
//! collector of eight writers. [`Receiver::wait_for_peer`] waits for one.
//!
//! # Handles
//! A [`Handle`] is an owned descriptor with a type, [`Rights`] and an id; a [`HandleDisposition`]
//! says what is to become of it when it is sent. [`object::HandleTable`] numbers handles as Zircon
//! does.
//!
//! A [`MessagePacket`] takes up to 64 handles along, in a region made with
//! [`OpenOptions::max_handles`]: [`send_packet`](Sender::send_packet) moves them,
//! [`recv`](Receiver::recv) and [`recv_parts`](Receiver::recv_parts) give them out, and
//! [`RecordRef::handles`] shows those of a message in place.
//!
//! * Bytes and handles arrive together, or the error says that they did not. A message never has
//!   another's handles.
//! * Once a send has returned `Ok`, the kernel keeps the handles, whatever happens to the sender. They
//!   need a receiver that is there: sending waits for one.
//! * Where a receiver goes, the handles that it has not taken are closed. Its successor gets the bytes,
//!   with [`Error::HandlesLost`].
//! * Descriptors that do not fit into the process stay in their message: [`Error::TooManyFiles`].
//!
//! # Examples
//! Two processes, or here two threads: each opens the region and uses its own half.
//! ```
//! # let directory = tempfile::tempdir_in("/dev/shm")?;
//! # let path = directory.path().join("demo.tombolo");
//! use tombolo::EventsRegion;
//! let theirs = path.clone();
//! let other = std::thread::spawn(move || -> Result<(), tombolo::Error> {
//!     let mut region = EventsRegion::open_path(theirs)?; // creates it or joins it
//!     let (mut tx, _) = region.split_spsc()?;
//!     for word in ["one", "two", "three"] {
//!         tx.send(word.as_bytes()).expect("the receiver stays");
//!     }
//!     Ok(())
//! });
//! let mut region = EventsRegion::open_path(path)?;
//! let (_, mut rx) = region.split_spsc()?;
//! let mut words = Vec::new();
//! for message in &mut rx { // ends when the sender is gone and the ring is empty
//!     words.push(message?.data);
//! }
//! assert_eq!(words, [&b"one"[..], b"two", b"three"]);
//! # other.join().expect("no panic")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
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
pub mod inspect;
mod mem;
pub mod object;
pub mod options;
mod os;
mod region;
mod ring;
mod wait;

pub use deadline::Deadline;
pub use endpoint::Interrupter;
pub use ends::{
    MessagePacket, MpscConsumer, MpscProducer, Receiver, RecordRef, RecvError, RecvTimeoutError,
    Reservation, SendError, SendTimeoutError, Sender, SpscReceiver, SpscSender, TryRecvError,
    TrySendError, wait_any,
};
pub use error::{Damage, Error};
pub use handle::{Handle, HandleType, KoID, Rights};
pub use region::{EventsRegion, OpenOptions};
pub use tombolo_abi::{LayoutError, SharedLayout};

/// The programs in the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
