//! Receiving bytes and handles into rooms of one's own.

use crate::deadline::Deadline;
use crate::ends::errors::{RecvError, RecvTimeoutError, TryRecvError};
use crate::ends::receiver::Receiver;
use crate::ends::topology::Discipline;
use crate::handle::Handle;

impl<K: Discipline> Receiver<K> {
    /// Takes the next message, waiting for it: its bytes into `room`, its handles into the first places
    /// of `handles`. Gives how many there were of each.
    ///
    /// # Errors
    /// As [`Self::recv`]; [`HandleRoomTooSmall`](crate::Error::HandleRoomTooSmall) with what is needed if
    /// either does not fit, and then the message stays with its handles.
    ///
    /// # Source
    /// `zx_channel_read`.
    ///
    /// # Examples
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("demo.tombolo");
    /// use std::fs::File;
    /// use tombolo::{EventsRegion, MessagePacket, OpenOptions};
    /// let mut region = EventsRegion::open_path_with(path, OpenOptions::new().max_handles(8))?;
    /// let (mut tx, mut rx) = region.split_spsc()?;
    /// rx.claim()?;
    /// tx.send_packet(MessagePacket::from(b"here").handle(File::open("/proc/self/exe")?))?;
    /// let (mut bytes, mut handles) = ([0; 64], [None, None]);
    /// assert!(rx.recv_parts(&mut bytes, &mut []).is_err()); // no room for the handle: it stays
    /// assert_eq!(rx.recv_parts(&mut bytes, &mut handles)?, (4, 1));
    /// assert!(handles[0].is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_parts(
        &mut self,
        room: &mut [u8],
        handles: &mut [Option<Handle>],
    ) -> Result<(usize, usize), RecvError> {
        Ok(self.recv_parts_deadline(room, handles, Deadline::NEVER)?)
    }

    /// As [`Self::recv_parts`], waiting until `deadline`.
    ///
    /// # Errors
    /// As [`Self::recv_deadline`] and [`Self::recv_parts`].
    pub fn recv_parts_deadline(
        &mut self,
        room: &mut [u8],
        handles: &mut [Option<Handle>],
        deadline: impl Into<Deadline>,
    ) -> Result<(usize, usize), RecvTimeoutError> {
        let record = self.recv_ref_deadline(deadline)?;
        record.take_parts(room, handles).map_err(RecvTimeoutError::from)
    }

    /// As [`Self::recv_parts`], if there is a message now.
    ///
    /// # Errors
    /// As [`Self::try_recv`] and [`Self::recv_parts`].
    pub fn try_recv_parts(
        &mut self,
        room: &mut [u8],
        handles: &mut [Option<Handle>],
    ) -> Result<(usize, usize), TryRecvError> {
        let record = self.try_recv_ref()?;
        record.take_parts(room, handles).map_err(TryRecvError::from)
    }

    /// As [`Self::try_recv_parts`], but a message that does not fit is dropped and its handles are
    /// closed. The error says how large it was.
    ///
    /// # Errors
    /// As [`Self::try_recv_parts`]; after [`HandleRoomTooSmall`](crate::Error::HandleRoomTooSmall) that
    /// message is gone, and no other.
    ///
    /// # Source
    /// `ZX_CHANNEL_READ_MAY_DISCARD`.
    pub fn try_recv_parts_or_discard(
        &mut self,
        room: &mut [u8],
        handles: &mut [Option<Handle>],
    ) -> Result<(usize, usize), TryRecvError> {
        let record = self.try_recv_ref()?;
        record.take_parts_or_discard(room, handles).map_err(TryRecvError::from)
    }
}
