//! Calls by number.

use super::channel::Channel;
use super::channel_error::{CallError, CallPhase, ChannelError};
use super::disposition::TableDisposition;
use super::looking::TXID_LEN;
use super::message_bytes::MessageBytes;
use super::table::{HandleTable, HandleValue, TableHandleInfo};
use super::table_channel::{Wanted, moves};
use super::table_error::{TableCallError, TableError};
use crate::deadline::Deadline;
use crate::ends::MessagePacket;
use crate::handle::Rights;

/// What is sent by [`HandleTable::channel_call`], and the buffers for the reply.
///
/// # Source
/// `zx_channel_call_args_t`.
#[derive(Debug)]
pub struct CallArgs<'a> {
    /// The bytes of the request.
    pub bytes: MessageBytes<'a>,
    /// The numbers of the handles that go with it.
    pub handles: &'a [HandleValue],
    /// The buffer for the bytes of the reply.
    pub reply_bytes: &'a mut [u8],
    /// The buffer for the numbers of its handles.
    pub reply_handles: &'a mut [HandleValue],
}

/// As [`CallArgs`], for [`HandleTable::channel_call_etc`].
///
/// # Source
/// `zx_channel_call_etc_args_t`.
#[derive(Debug)]
pub struct CallEtcArgs<'a> {
    /// The bytes of the request.
    pub bytes: MessageBytes<'a>,
    /// What becomes of the handles that go with it.
    pub handles: &'a mut [TableDisposition],
    /// The buffer for the bytes of the reply.
    pub reply_bytes: &'a mut [u8],
    /// The buffer for its handles, with what is known of them.
    pub reply_handles: &'a mut [Option<TableHandleInfo>],
}

impl HandleTable {
    /// Writes a request to the channel `number` and waits for the reply, until `deadline`, as [`Channel::call`] does.
    /// Returns how many bytes and handles the reply has: they are in the buffers. The handles of the request leave the
    /// table in any case.
    ///
    /// If another thread closes or moves the number while this call waits, it ends with `CANCELED`. A deadline that
    /// has passed still sends the request, if there is space.
    ///
    /// A reply that doesn't fit is not lost, see below: dropping the error discards it.
    ///
    /// # Errors
    /// [`TableCallError`] with the phase. In the write phase, in this order:
    ///
    /// 1. [`TableError::WriteOptions`] (`INVALID_ARGS`): `options` other than
    ///    [`WRITE_USE_IOVEC`](crate::object::WRITE_USE_IOVEC);
    /// 2. those of [`Self::get_channel`], with [`Rights::READ`] and [`Rights::WRITE`] (`BAD_HANDLE`, `WRONG_TYPE`,
    ///    `ACCESS_DENIED`);
    /// 3. [`ChannelError::TooManyParts`](crate::object::ChannelError::TooManyParts) and its like (`OUT_OF_RANGE`);
    /// 4. [`ChannelError::TooShortForCall`](crate::object::ChannelError::TooShortForCall) (`INVALID_ARGS`): fewer
    ///    than 4 bytes;
    /// 5. a handle that is refused, as in [`Self::channel_write`];
    /// 6. `PEER_CLOSED`; `TIMED_OUT` or `CANCELED` while it waits for space.
    ///
    /// In the read phase `TIMED_OUT`, `CANCELED`, `PEER_CLOSED`; `BUFFER_TOO_SMALL` with the sizes that are needed,
    /// and with the [reply](TableCallError::reply).
    ///
    /// # Source
    /// `zx_channel_call`, which drops a reply that doesn't fit. The phase is Magenta's.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use tombolo::object::{CallArgs, HandleTable};
    /// let table = HandleTable::new();
    /// let (client, server) = table.channel_create()?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| {
    ///         let end = table.get_channel(server, tombolo::Rights::IO).unwrap();
    ///         let request = end.read_timeout(Duration::from_secs(10)).unwrap();
    ///         table.channel_write(server, 0, &request.data, &[]).unwrap(); // says it again
    ///     });
    ///     let mut reply = [0; 64];
    ///     let args = CallArgs {
    ///         bytes: b"\0\0\0\0ping".into(), // four bytes for the transaction id
    ///         handles: &[],
    ///         reply_bytes: &mut reply,
    ///         reply_handles: &mut [],
    ///     };
    ///     let (len, _) = table.channel_call(client, 0, Duration::from_secs(10), args)?;
    ///     assert_eq!(&reply[4..len], b"ping");
    ///     Ok::<(), Box<dyn std::error::Error>>(())
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "zx_channel_call")]
    pub fn channel_call(
        &self,
        number: HandleValue,
        options: u32,
        deadline: impl Into<Deadline>,
        args: CallArgs<'_>,
    ) -> Result<(usize, usize), TableCallError> {
        let CallArgs { bytes, handles, reply_bytes, reply_handles } = args;
        let wanted = of_call(number, options);
        let reply = self.call(wanted, deadline.into(), bytes, &mut moves(handles))?;
        let reply = fit(reply, reply_bytes, reply_handles.len())?;
        Ok((reply.data.len(), self.number_all(reply.handles, reply_handles)))
    }

    /// As [`Self::channel_call`], with handles as [`Self::channel_write_etc`] takes them and
    /// [`Self::channel_read_etc`] gives them.
    ///
    /// # Errors
    /// As [`Self::channel_call`].
    ///
    /// # Source
    /// `zx_channel_call_etc`.
    #[doc(alias = "zx_channel_call_etc")]
    pub fn channel_call_etc(
        &self,
        number: HandleValue,
        options: u32,
        deadline: impl Into<Deadline>,
        args: CallEtcArgs<'_>,
    ) -> Result<(usize, usize), TableCallError> {
        let CallEtcArgs { bytes, handles, reply_bytes, reply_handles } = args;
        let reply = self.call(of_call(number, options), deadline.into(), bytes, handles)?;
        let reply = fit(reply, reply_bytes, reply_handles.len())?;
        Ok((reply.data.len(), self.number_all_etc(reply.handles, reply_handles)))
    }

    /// As [`Self::channel_call`], with the transaction id that the first four bytes of the request are. If the
    /// request is not written, all handles are in the table, under the numbers that they had, as
    /// [`Self::channel_try_write`] says.
    ///
    /// # Errors
    /// As [`Self::channel_call`]; `ALREADY_EXISTS` if another call that waits has the id.
    ///
    /// # Source
    /// Magenta's `mx_channel_call`.
    #[doc(alias = "mx_channel_call")]
    pub fn channel_call_with_txid(
        &self,
        number: HandleValue,
        options: u32,
        deadline: impl Into<Deadline>,
        args: CallArgs<'_>,
    ) -> Result<(usize, usize), TableCallError> {
        let CallArgs { bytes, handles, reply_bytes, reply_handles } = args;
        let deadline = deadline.into();
        let prepared = self.prepare(of_call(number, options), bytes, &mut moves(handles));
        let (channel, request) = prepared.map_err(TableCallError::not_written)?;
        let reply = channel.call_with_txid(request, deadline).map_err(|error| {
            let CallError { phase, error, message } = error;
            if let Some(message) = message {
                self.put_back_unsent(handles, message);
            }
            TableCallError { phase, error: error.into(), reply: None }
        })?;
        let reply = fit(reply, reply_bytes, reply_handles.len())?;
        Ok((reply.data.len(), self.number_all(reply.handles, reply_handles)))
    }

    /// The reply to a request whose handles leave the table in any case.
    fn call(
        &self,
        wanted: Wanted,
        deadline: Deadline,
        bytes: MessageBytes<'_>,
        list: &mut [TableDisposition],
    ) -> Result<MessagePacket, TableCallError> {
        let prepared = self.prepare(wanted, bytes, list).map_err(TableCallError::not_written);
        let reply = prepared.and_then(|(channel, request)| {
            Channel::call(&channel, request, deadline).map_err(TableCallError::from)
        });
        if reply.is_err() {
            self.close_moved(list);
        }
        reply
    }
}

fn of_call(number: HandleValue, options: u32) -> Wanted {
    Wanted { number, options, rights: Rights::READ | Rights::WRITE, len_min: TXID_LEN }
}

/// Copies the bytes of a reply to the buffer, if that takes them and the other one so many handles.
fn fit(
    reply: MessagePacket,
    bytes: &mut [u8],
    handle_space: usize,
) -> Result<MessagePacket, TableCallError> {
    let needed = (reply.data.len(), reply.handles.len());
    if let Err(error) = ChannelError::check_fit(needed, (bytes.len(), handle_space), false) {
        let (phase, error) = (CallPhase::Read, TableError::from(error));
        return Err(TableCallError { phase, error, reply: Some(Box::new(reply)) });
    }
    bytes[..reply.data.len()].copy_from_slice(&reply.data);
    Ok(reply)
}
