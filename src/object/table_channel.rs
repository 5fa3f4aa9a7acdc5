//! Writing to channels and reading from them by number.

use std::sync::Arc;

use super::channel::Channel;
use super::channel_error::{ChannelError, NotWritten};
use super::disposition::TableDisposition;
use super::entry::Entry;
use super::message_bytes::MessageBytes;
use super::table::{HandleTable, HandleValue, TableHandleInfo};
use super::table_error::TableError;
use crate::ends::MessagePacket;
use crate::handle::{Handle, HandleOp, Rights, Subject};

/// The option of a write or a call whose bytes are [parts](MessageBytes::Parts). The type of the bytes says it as well.
///
/// # Source
/// `ZX_CHANNEL_WRITE_USE_IOVEC`.
pub const WRITE_USE_IOVEC: u32 = 1;

/// The option of a read by which a message that doesn't fit into the buffers is discarded.
///
/// # Source
/// `ZX_CHANNEL_READ_MAY_DISCARD`.
pub const READ_MAY_DISCARD: u32 = 1;

impl HandleTable {
    /// Makes a channel, as [`Channel::create`], and returns the numbers of both ends.
    ///
    /// # Errors
    /// Those of [`Channel::create`], as [`TableError::Channel`].
    ///
    /// # Source
    /// `zx_channel_create`, of which no option was ever defined.
    #[doc(alias = "zx_channel_create")]
    pub fn channel_create(&self) -> Result<(HandleValue, HandleValue), TableError> {
        let (one, other) = Channel::create()?;
        let (one, other) = (Entry::from(one), Entry::from(other));
        let mut inside = self.lock();
        Ok((inside.insert(one), inside.insert(other)))
    }

    /// Writes `bytes` with `handles` to the channel `number`, waiting while there is no space. The handles leave the
    /// table in any case: on failure they are closed.
    ///
    /// An end of a channel may be among them, but neither of this channel's own: then it is closed. Calls and waits
    /// of other threads at such an end are canceled.
    ///
    /// # Errors
    /// In this order:
    ///
    /// 1. [`TableError::WriteOptions`] (`INVALID_ARGS`): `options` other than [`WRITE_USE_IOVEC`];
    /// 2. those of [`Self::get_channel`], with [`Rights::WRITE`] (`BAD_HANDLE`, `WRONG_TYPE`, `ACCESS_DENIED`);
    /// 3. [`ChannelError::TooManyParts`], [`ChannelError::TooLong`], [`ChannelError::Handles`] (`OUT_OF_RANGE`);
    /// 4. [`ChannelError::Handles`] with the first handle that is refused, each by the steps of
    ///    [`HandleDisposition`](crate::handle::HandleDisposition); a number that was in the list before is a
    ///    `BAD_HANDLE`;
    /// 5. [`ChannelError::Closed`] (`BAD_HANDLE`) if another thread has moved or closed it meanwhile;
    /// 6. [`ChannelError::PeerClosed`] (`PEER_CLOSED`); [`ChannelError::Canceled`] (`CANCELED`) if another thread
    ///    moves or closes it while this call waits for space.
    ///
    /// # Cost
    /// A lock and a copy of the bytes more than [`Channel::write`].
    ///
    /// # Source
    /// `zx_channel_write`, which never waits, as its queue has no bound.
    ///
    /// # Examples
    /// ```
    /// use std::fs::File;
    /// use tombolo::object::{HandleTable, Status};
    /// use tombolo::Handle;
    /// let table = HandleTable::new();
    /// let (ours, theirs) = table.channel_create()?;
    /// let root = table.insert(Handle::new(File::open("/")?));
    /// table.close(theirs)?;
    /// let refused = table.channel_write(ours, 0, b"a directory", &[root]).unwrap_err();
    /// assert_eq!(refused.status(), Status::PEER_CLOSED);
    /// assert!(!table.contains(root)); // `channel_try_write` would have kept it
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "zx_channel_write")]
    pub fn channel_write<'a>(
        &self,
        number: HandleValue,
        options: u32,
        bytes: impl Into<MessageBytes<'a>>,
        handles: &[HandleValue],
    ) -> Result<(), TableError> {
        self.channel_write_etc(number, options, bytes, &mut moves(handles))
    }

    /// As [`Self::channel_write`], with the handles of `list`, each moved or duplicated as its disposition says. On
    /// failure those that were to be moved are closed, and those that were to be duplicated stay.
    ///
    /// All of the list are checked, also after one was refused, and each that was refused has its `result` written.
    /// If something is wrong that is checked before, none is, and no `result` is written.
    ///
    /// # Errors
    /// As [`Self::channel_write`].
    ///
    /// # Source
    /// `zx_channel_write_etc`.
    ///
    /// # Examples
    /// ```
    /// use std::fs::File;
    /// use tombolo::handle::HandleOp;
    /// use tombolo::object::{HandleTable, TableDisposition};
    /// use tombolo::{Handle, Rights};
    /// let table = HandleTable::new();
    /// let (ours, theirs) = table.channel_create()?;
    /// let root = table.insert(Handle::new(File::open("/")?));
    /// let weaker = TableDisposition { rights: Rights::READ, ..TableDisposition::new(HandleOp::Duplicate, root) };
    /// table.channel_write_etc(ours, 0, b"to look at", &mut [weaker])?;
    /// let mut infos = [None; 4];
    /// table.channel_read_etc(theirs, 0, &mut [0; 16], &mut infos)?;
    /// assert_eq!(infos[0].unwrap().rights, Rights::READ);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "zx_channel_write_etc")]
    pub fn channel_write_etc<'a>(
        &self,
        number: HandleValue,
        options: u32,
        bytes: impl Into<MessageBytes<'a>>,
        list: &mut [TableDisposition],
    ) -> Result<(), TableError> {
        let wanted = Wanted { number, options, rights: Rights::WRITE, len_min: 0 };
        let prepared = self.prepare(wanted, bytes.into(), list);
        let written = prepared.and_then(|(channel, message)| Ok(channel.write(message)?));
        if written.is_err() {
            self.close_moved(list);
        }
        written
    }

    /// Writes `bytes` with `handles` to the channel `number` if there is space now. On failure all handles are in the
    /// table, under the numbers that they had.
    ///
    /// Nothing happens to them before all are checked. Then they are taken out, and put back if the channel refuses
    /// the message: an end of a channel among them comes back as one that is to be opened by its next use, and calls
    /// at it are canceled, whichever way it goes.
    ///
    /// # Errors
    /// As [`Self::channel_write`]; [`ChannelError::ShouldWait`] (`SHOULD_WAIT`) if there is no space.
    ///
    /// # Source
    /// Magenta's `mx_channel_write`: all handles are with the caller still, or all are in the channel. The order of
    /// the checks is Zircon's, and a number that was in the list before is a `BAD_HANDLE`, not an `INVALID_ARGS`.
    ///
    /// # Examples
    /// ```
    /// use std::fs::File;
    /// use tombolo::object::HandleTable;
    /// use tombolo::Handle;
    /// let table = HandleTable::new();
    /// let (ours, theirs) = table.channel_create()?;
    /// let root = table.insert(Handle::new(File::open("/")?));
    /// table.close(theirs)?;
    /// table.channel_try_write(ours, 0, b"a directory", &[root]).unwrap_err();
    /// assert!(table.contains(root));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "mx_channel_write")]
    pub fn channel_try_write<'a>(
        &self,
        number: HandleValue,
        options: u32,
        bytes: impl Into<MessageBytes<'a>>,
        handles: &[HandleValue],
    ) -> Result<(), TableError> {
        let wanted = Wanted { number, options, rights: Rights::WRITE, len_min: 0 };
        let (channel, message) = self.prepare(wanted, bytes.into(), &mut moves(handles))?;
        channel.try_write(message).map_err(|NotWritten { error, message }| {
            self.put_back_unsent(handles, message);
            error.into()
        })
    }

    /// Reads the next message of the channel `number` into the caller's buffers, and returns how many bytes and
    /// handles it has: the first so many of `handles` are their numbers. Never waits.
    ///
    /// A message that doesn't fit is still there, and empty buffers probe for what the next one needs. With
    /// [`READ_MAY_DISCARD`] it is gone, and its handles are closed.
    ///
    /// # Errors
    /// In this order:
    ///
    /// 1. those of [`Self::get_channel`], with [`Rights::READ`] (`BAD_HANDLE`, `WRONG_TYPE`, `ACCESS_DENIED`);
    /// 2. [`TableError::ReadOptions`] (`NOT_SUPPORTED`): `options` other than [`READ_MAY_DISCARD`];
    /// 3. [`ChannelError::ShouldWait`] (`SHOULD_WAIT`) if there is no message, [`ChannelError::PeerClosed`]
    ///    (`PEER_CLOSED`) if there will be none;
    /// 4. [`ChannelError::BufferTooSmall`] (`BUFFER_TOO_SMALL`) with the sizes that are needed.
    ///
    /// # Source
    /// `zx_channel_read`.
    ///
    /// # Examples
    /// ```
    /// use tombolo::object::{ChannelError, HandleTable, TableError};
    /// let table = HandleTable::new();
    /// let (ours, theirs) = table.channel_create()?;
    /// table.channel_write(ours, 0, b"four", &[])?;
    /// let Err(TableError::Channel { source: ChannelError::BufferTooSmall { needed, needed_handles, .. } }) =
    ///     table.channel_read(theirs, 0, &mut [], &mut []) else { panic!() };
    /// let (mut bytes, mut handles) = (vec![0; needed], vec![0; needed_handles]);
    /// assert_eq!(table.channel_read(theirs, 0, &mut bytes, &mut handles)?, (4, 0));
    /// # Ok::<(), TableError>(())
    /// ```
    #[doc(alias = "zx_channel_read")]
    pub fn channel_read(
        &self,
        number: HandleValue,
        options: u32,
        bytes: &mut [u8],
        handles: &mut [HandleValue],
    ) -> Result<(usize, usize), TableError> {
        let (len, read) = self.read(number, options, bytes, handles.len())?;
        Ok((len, self.number_all(read, handles)))
    }

    /// As [`Self::channel_read`], with type, rights and id of each handle.
    ///
    /// # Errors
    /// As [`Self::channel_read`].
    ///
    /// # Cost
    /// What finding the types takes, see [`Handle`]: their sender chose the handles.
    ///
    /// # Source
    /// `zx_channel_read_etc`.
    #[doc(alias = "zx_channel_read_etc")]
    pub fn channel_read_etc(
        &self,
        number: HandleValue,
        options: u32,
        bytes: &mut [u8],
        handles: &mut [Option<TableHandleInfo>],
    ) -> Result<(usize, usize), TableError> {
        let (len, read) = self.read(number, options, bytes, handles.len())?;
        Ok((len, self.number_all_etc(read, handles)))
    }

    fn read(
        &self,
        number: HandleValue,
        options: u32,
        bytes: &mut [u8],
        handle_space: usize,
    ) -> Result<(usize, Vec<Handle>), TableError> {
        let channel = self.get_channel(number, Rights::READ)?;
        let is_discarded = match options {
            0 => false,
            READ_MAY_DISCARD => true,
            found => return Err(TableError::ReadOptions { found }),
        };
        let read: Result<_, ChannelError> = channel.inbox.read(|message| {
            let (needed, needed_handles) = (message.len(), message.handle_count());
            let space = (bytes.len(), handle_space);
            if let Err(error) =
                ChannelError::check_fit((needed, needed_handles), space, is_discarded)
            {
                if is_discarded {
                    drop(message); // takes it
                } else {
                    message.keep();
                }
                return Err(error);
            }
            let mut handles: Vec<_> = (0..needed_handles).map(|_| None).collect();
            let (len, _) = message.take_parts(bytes, &mut handles)?;
            Ok((len, handles.into_iter().flatten().collect()))
        });
        Ok(read?)
    }
}

/// What a message is for, and what it has to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// The channel to which it goes.
    pub(super) number: HandleValue,
    pub(super) options: u32,
    /// The rights to the channel.
    pub(super) rights: Rights,
    /// The fewest bytes.
    pub(super) len_min: usize,
}

impl HandleTable {
    /// Checks all of a message in the order of Zircon's checks, and takes its handles out of the table last. On
    /// failure they are there still.
    pub(super) fn prepare(
        &self,
        wanted: Wanted,
        bytes: MessageBytes<'_>,
        list: &mut [TableDisposition],
    ) -> Result<(Arc<Channel>, MessagePacket), TableError> {
        let Wanted { number, options, rights, len_min } = wanted;
        let known = if let MessageBytes::Parts(_) = bytes { WRITE_USE_IOVEC } else { 0 };
        if options & !known != 0 {
            return Err(TableError::WriteOptions { found: options });
        }
        let channel = self.get_channel(number, rights)?;
        let len = bytes.check(&channel, list.len())?;
        if len < len_min {
            return Err(ChannelError::TooShortForCall { found: len }.into());
        }
        let data = bytes.gather(len);
        if list.is_empty() {
            return Ok((channel, data.into())); // without a look at the channel's files
        }
        let handles = self.try_resolve_all(list, &channel.own_files())?;
        Ok((channel, MessagePacket { data, handles }))
    }

    /// Puts the handles of a message that was not sent back, under the numbers that they had.
    pub(super) fn put_back_unsent(&self, numbers: &[HandleValue], message: MessagePacket) {
        self.put_back(numbers, message.handles.into_iter().map(Entry::from));
    }

    /// Adds handles that were read, and returns how many they are.
    pub(super) fn number_all(&self, read: Vec<Handle>, numbers: &mut [HandleValue]) -> usize {
        let count = read.len();
        if count != 0 {
            self.insert_all(read.into_iter().map(Entry::from), |at, number| numbers[at] = number);
        }
        count
    }

    /// As [`Self::number_all`], with what is known of each.
    pub(super) fn number_all_etc(
        &self,
        read: Vec<Handle>,
        infos: &mut [Option<TableHandleInfo>],
    ) -> usize {
        let count = read.len();
        for (handle, place) in read.iter().zip(&mut *infos) {
            let subject = Subject::from(handle); // may read it: without the lock
            let (handle_type, rights, id) = (subject.handle_type(), subject.rights(), handle.id());
            *place = Some(TableHandleInfo { handle: 0, handle_type, rights, id });
        }
        if count != 0 {
            self.insert_all(read.into_iter().map(Entry::from), |at, number| {
                if let Some(info) = &mut infos[at] {
                    info.handle = number;
                }
            });
        }
        count
    }
}

/// The list that moves all of these.
pub(super) fn moves(handles: &[HandleValue]) -> Vec<TableDisposition> {
    handles.iter().map(|number| TableDisposition::new(HandleOp::Move, *number)).collect()
}
