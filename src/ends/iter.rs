//! Messages as an iterator.

use crate::ends::errors::RecvError;
use crate::ends::message::MessagePacket;
use crate::ends::receiver::Receiver;
use crate::ends::topology::Topology;
use crate::error::Error;

/// Messages as they come, see [`Receiver::iter`].
#[derive(Debug)]
pub struct Iter<'a, K: Topology> {
    receiver: &'a mut Receiver<K>,
    is_over: bool,
}

impl<'a, K: Topology> Iter<'a, K> {
    pub(crate) fn new(receiver: &'a mut Receiver<K>) -> Self {
        Self { receiver, is_over: false }
    }
}

impl<K: Topology> Iterator for Iter<'_, K> {
    type Item = Result<MessagePacket, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        match self.receiver.recv() {
            Ok(message) => Some(Ok(message)),
            Err(RecvError::Disconnected | RecvError::Interrupted) => None,
            Err(RecvError::Failed { source }) => {
                // The message of these was taken: what comes behind it is in order.
                let goes_on =
                    matches!(source, Error::HandlesLost { .. } | Error::ProtocolViolation { .. });
                self.is_over = !goes_on;
                Some(Err(source))
            }
        }
    }
}

impl<'a, K: Topology> IntoIterator for &'a mut Receiver<K> {
    type Item = Result<MessagePacket, Error>;
    type IntoIter = Iter<'a, K>;

    fn into_iter(self) -> Iter<'a, K> {
        self.iter()
    }
}
