//! The other end of a channel, as far as it can be seen and changed from this one.

use std::sync::Arc;

use super::end_object::{CHANNEL, EndObject};
use super::kernel_object::KernelObject;
use super::object_error::ObjectError;
use super::signal::Signal;
use crate::handle::KoID;

/// The other end, which this one leads to. It keeps neither open.
#[derive(Debug)]
pub(super) struct PeerEnd(pub(super) Arc<EndObject>);

impl KernelObject for PeerEnd {
    #[expect(clippy::misnamed_getters, reason = "it is the other end's")]
    fn id(&self) -> KoID {
        self.0.peer_id
    }

    fn related_koid(&self) -> KoID {
        if self.0.has_peer_gone() { 0 } else { self.0.id }
    }

    fn type_name(&self) -> &'static str {
        CHANNEL
    }

    fn name(&self) -> String {
        self.0.peers_name()
    }

    fn set_name(&self, _: &str) -> Result<(), ObjectError> {
        Err(ObjectError::NotSupported { type_name: CHANNEL, what: "name that the other end sets" })
    }

    fn signal(&self) -> Signal {
        self.0.peers_signals()
    }

    fn signal_change(&self, clear: Signal, set: Signal) -> Result<(), ObjectError> {
        self.0.signal_peer(clear, set)
    }

    fn signal_peer(&self, clear: Signal, set: Signal) -> Result<(), ObjectError> {
        self.0.signal_change(clear, set)
    }
}
