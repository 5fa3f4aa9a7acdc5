//! Receiving bytes and handles into buffers of one's own, made of what the library offers.

use tombolo::TryRecvError;
use tombolo::ends::Topology;
use tombolo::{Deadline, Error, Handle, Receiver, RecordRef, RecvError, RecvTimeoutError};

/// How many bytes and handles a message had.
pub(crate) type Parts = (usize, usize);
type Places<'a> = &'a mut [Option<Handle>];

/// Takes a message, or discards it if it does not fit.
fn take_or_discard(
    record: RecordRef<'_>,
    bytes: &mut [u8],
    handles: Places<'_>,
) -> Result<Parts, Error> {
    let (needed, needed_handles) = (record.len(), record.handle_count());
    let (available, available_handles) = (bytes.len(), handles.len());
    if needed <= available && needed_handles <= available_handles {
        return record.take_parts(bytes, handles);
    }
    drop(record);
    Err(Error::BuffersTooSmall { needed, available, needed_handles, available_handles })
}

/// Each way to receive, with the buffers as arguments.
pub(crate) trait ReceiveParts {
    fn recv_parts(&mut self, bytes: &mut [u8], handles: Places<'_>) -> Result<Parts, RecvError>;

    fn recv_parts_timeout(
        &mut self,
        bytes: &mut [u8],
        handles: Places<'_>,
        deadline: impl Into<Deadline>,
    ) -> Result<Parts, RecvTimeoutError>;

    fn try_recv_parts(
        &mut self,
        bytes: &mut [u8],
        handles: Places<'_>,
    ) -> Result<Parts, TryRecvError>;

    fn try_recv_parts_or_discard(
        &mut self,
        bytes: &mut [u8],
        handles: Places<'_>,
    ) -> Result<Parts, TryRecvError>;
}

impl<K: Topology> ReceiveParts for Receiver<K> {
    fn recv_parts(&mut self, bytes: &mut [u8], handles: Places<'_>) -> Result<Parts, RecvError> {
        Ok(self.recv_ref()?.take_parts(bytes, handles)?)
    }

    fn recv_parts_timeout(
        &mut self,
        bytes: &mut [u8],
        handles: Places<'_>,
        deadline: impl Into<Deadline>,
    ) -> Result<Parts, RecvTimeoutError> {
        Ok(self.recv_ref_timeout(deadline)?.take_parts(bytes, handles)?)
    }

    fn try_recv_parts(
        &mut self,
        bytes: &mut [u8],
        handles: Places<'_>,
    ) -> Result<Parts, TryRecvError> {
        Ok(self.try_recv_ref()?.take_parts(bytes, handles)?)
    }

    fn try_recv_parts_or_discard(
        &mut self,
        bytes: &mut [u8],
        handles: Places<'_>,
    ) -> Result<Parts, TryRecvError> {
        Ok(take_or_discard(self.try_recv_ref()?, bytes, handles)?)
    }
}
