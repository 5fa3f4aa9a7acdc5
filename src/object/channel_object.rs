//! A channel's end as an object.

use std::sync::Arc;

use super::channel::Channel;
use super::end_object::CHANNEL;
use super::kernel_object::{KernelObject, SignalCallback};
use super::object_error::{ObjectError, WaitError};
use super::peer_end::PeerEnd;
use super::signal::Signal;
use crate::deadline::Deadline;
use crate::handle::KoID;

/// An end of a channel as an object.
///
/// * **Signals.** [`READABLE`](Signal::READABLE) says that there is a message; a reply to a call is none.
///   [`WRITABLE`](Signal::WRITABLE) goes when a write is refused for want of space, and comes back once an eighth of the
///   ring is free, or what the message takes if that is more. When the other end is closed, `WRITABLE` goes and
///   [`PEER_CLOSED`](Signal::PEER_CLOSED) comes in one step. The user signals of an end lie in the channel's memory: both
///   ends change them, and they stay when the other end is closed, and travel with an end that is
///   [released](Channel::release). An end that was closed or released has [`HANDLE_CLOSED`](Signal::HANDLE_CLOSED)
///   alone; one that is damaged is `READABLE`, as a read tells what is wrong.
/// * **Callbacks** are called without a lock, and may do everything with either end. A call of this end that changes its
///   signals has called them before it returns, unless another thread is calling them: then that thread does so again.
///   What the other end does is told by the thread `tombolo-ready`. Changes that follow each other fast may be told as
///   one. When the end is closed they are told `HANDLE_CLOSED`, and dropped.
/// * **Waiting.** A thread that waits for signals other than `WRITABLE` sleeps like one that reads.
/// * **The peer** is what this end knows of the other: it has an id, a name and signals, and no callbacks or waits.
///   Whether the other end was refused space is not seen from here: its `WRITABLE` says that this end is open.
impl KernelObject for Channel {
    fn id(&self) -> KoID {
        self.object.id
    }

    fn related_koid(&self) -> KoID {
        if self.object.has_peer_gone() { 0 } else { self.object.peer_id }
    }

    fn type_name(&self) -> &'static str {
        CHANNEL
    }

    fn name(&self) -> String {
        self.object.name()
    }

    fn set_name(&self, name: &str) -> Result<(), ObjectError> {
        self.object.set_name(name)
    }

    fn signal(&self) -> Signal {
        self.object.observe()
    }

    fn signal_change(&self, clear: Signal, set: Signal) -> Result<(), ObjectError> {
        self.object.signal_change(clear, set)
    }

    fn signal_peer(&self, clear: Signal, set: Signal) -> Result<(), ObjectError> {
        self.object.signal_peer(clear, set)
    }

    fn add_signal_callback(&self, callback: SignalCallback) -> Result<(), ObjectError> {
        self.object.add_callback(callback)
    }

    fn wait_one(&self, signals: Signal, deadline: Deadline) -> Result<Signal, WaitError> {
        self.object.wait_one(signals, deadline)
    }

    fn peer(&self) -> Result<Arc<dyn KernelObject>, ObjectError> {
        let seen = self.object.observe();
        if seen.contains(Signal::HANDLE_CLOSED) {
            return Err(ObjectError::Closed);
        }
        if seen.contains(Signal::PEER_CLOSED) {
            return Err(ObjectError::PeerClosed);
        }
        Ok(Arc::new(PeerEnd(self.object.clone())))
    }
}
