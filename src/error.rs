//! The region's error.

mod handles;
mod status;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tombolo_abi::{LayoutError, RecordError};

pub use self::handles::{DispositionError, HandleError};

/// Why a region could not be opened, or an end of a ring not be used.
///
/// Each variant says which group it belongs to, and its text what to do if that is known. New variants may
/// be added.
///
/// | group | what it means | variants |
/// |---|---|---|
/// | *retry* | the call is right and may succeed later | [`NotFound`](Self::NotFound), [`InUse`](Self::InUse), [`Busy`](Self::Busy), [`LaneNotEmpty`](Self::LaneNotEmpty), [`Stalled`](Self::Stalled), [`NoSpace`](Self::NoSpace), [`TooManyFiles`](Self::TooManyFiles) |
/// | *fix the call* | it fails again until its arguments, the options or the file's surroundings change | [`InvalidName`](Self::InvalidName), [`InvalidPath`](Self::InvalidPath), [`InvalidOption`](Self::InvalidOption), [`WrongFileType`](Self::WrongFileType), [`UnsafePath`](Self::UnsafePath), [`Permission`](Self::Permission), [`UnsupportedFileSystem`](Self::UnsupportedFileSystem), [`FileSizeLimit`](Self::FileSizeLimit), [`Copied`](Self::Copied), [`UnclearBoot`](Self::UnclearBoot), [`WrongDescriptor`](Self::WrongDescriptor), [`ForkedChild`](Self::ForkedChild), [`MessageTooLong`](Self::MessageTooLong), [`BufferTooSmall`](Self::BufferTooSmall), [`BuffersTooSmall`](Self::BuffersTooSmall), [`HandlesNotCarried`](Self::HandlesNotCarried), [`WaitCount`](Self::WaitCount) |
/// | *over* | this value is finished: open the region again, if it can be had at all | [`Replaced`](Self::Replaced), [`RegionPoisoned`](Self::RegionPoisoned), [`LockLost`](Self::LockLost), [`Misaligned`](Self::Misaligned), [`Unsupported`](Self::Unsupported); of one message [`HandlesLost`](Self::HandlesLost) |
/// | *damage* | the file is not what it should be | [`RegionTooSmall`](Self::RegionTooSmall), [`Poisoned`](Self::Poisoned), [`ProtocolViolation`](Self::ProtocolViolation) |
/// | one of several | as the source or the reason says | [`Io`](Self::Io), [`Layout`](Self::Layout), [`Handles`](Self::Handles) |
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// *Retry* or *fix the call*, as the source says: the file system or the kernel refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// *Over*: the mapping's base is not at a multiple of the layout's alignment.
    #[error("mapped at {address:#x}, which is no multiple of {align}")]
    Misaligned {
        /// The address at which the region was mapped.
        address: usize,
        /// The alignment that the layout asks for, in bytes.
        align: usize,
    },
    /// *Damage*: the file is shorter than its header says.
    #[error(
        "{} has {found_len} bytes, its header says {claimed_len}: truncated; close all users and \
         remove it", path.display()
    )]
    RegionTooSmall {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        found_len: u64,
        /// The bytes that the header says.
        claimed_len: u64,
    },
    /// *Damage* or *fix the call*: uninitialized, or not a region that this build with these options can
    /// use.
    #[error("{}: {reason}", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// What is wrong, with what was found and what was wanted.
        reason: LayoutError,
    },
    /// *Fix the call*: not a name of a region.
    #[error(
        "{name:?} is no region name ({reason}); use 1 to 128 of A-Z a-z 0-9 . _ - and no leading \
         dot, or open it by path"
    )]
    InvalidName {
        /// The name given, cut to 128 characters.
        name: String,
        /// What it breaks.
        reason: &'static str,
    },
    /// *Fix the call*: a path that cannot name a region.
    #[error("{}: {reason}", path.display())]
    InvalidPath {
        /// The path given.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// *Fix the call*: creation options that no region can have.
    #[error("option {option}{} is {found}, wanted {wanted}", of_ring(*.ring))]
    InvalidOption {
        /// The option.
        option: &'static str,
        /// The ring, by its place in the list, if the option is one of a
        /// [listed ring](crate::OpenOptions::ring).
        ring: Option<u32>,
        /// Its value.
        found: u64,
        /// What it may be.
        wanted: &'static str,
    },
    /// *Fix the call*: something that is not a regular file.
    #[error("{} is a {found}, not a regular file; it was left as it is", path.display())]
    WrongFileType {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// *Fix the call*: it is unclear if this boot of the machine made the region, and a message in it has not been
    /// received. If an earlier boot made it, the last writes may be missing.
    #[error(
        "{} has a message in ring {ring}, but was it made since this machine started? It has boot id {found}, \
         here it is {here}, but by the clock it was made {after_start:.0?} after the start, within 10 s; open it in a \
         container that shows boot id {found}, or replace it with CreatePolicy::CreateNew, which loses what \
         is in it",
        path.display()
    )]
    UnclearBoot {
        /// The file.
        path: PathBuf,
        /// The ring.
        ring: u32,
        /// The boot id of the region's creator, as `/proc` shows it.
        found: String,
        /// The boot id that this process is shown.
        here: String,
        /// Time from the machine's start to the region's creation, by the wall clock.
        after_start: Duration,
    },
    /// *Fix the call*: descriptors that are not those of one region, in their order.
    #[error(
        "descriptor {index} for {} is {found}, wanted {wanted}; pass all that to_fds returned, in their order",
        path.display()
    )]
    WrongDescriptor {
        /// The region.
        path: PathBuf,
        /// Its index in the list.
        index: usize,
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// *Fix the call*: a path that another user could redirect.
    #[error("{}: {reason}", path.display())]
    UnsafePath {
        /// The path.
        path: PathBuf,
        /// Why it is not used.
        reason: &'static str,
    },
    /// *Fix the call*: the file's owner or mode is not one that the options allow.
    #[error(
        "{} is owned by uid {owner} with mode {mode:04o}, this process runs as uid {euid}: {hint}",
        path.display()
    )]
    Permission {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its mode bits.
        mode: u32,
        /// The effective user of this process.
        euid: u32,
        /// What to do.
        hint: &'static str,
    },
    /// *Fix the call*: a file system without reliable locks and shared mappings.
    #[error(
        "{} lies on {name} (magic {magic:#x}), which has no reliable locks and shared mappings; \
         use tmpfs, ext4, xfs, btrfs or f2fs, or allow it with OpenOptions::file_system",
        path.display()
    )]
    UnsupportedFileSystem {
        /// The path.
        path: PathBuf,
        /// The file system's name, if it is known.
        name: &'static str,
        /// Its magic number.
        magic: u64,
    },
    /// *Fix the call*: a copy of a region's file. A copy does not show which processes have the region open.
    #[error(
        "{} is a copy of a region's file (inode {found}, the region's has {wanted}); open that file, or \
         make a new region in place of the copy with CreatePolicy::CreateNew",
        path.display()
    )]
    Copied {
        /// The copy.
        path: PathBuf,
        /// Its inode number.
        found: u64,
        /// The inode number of the file in which the region was made.
        wanted: u64,
    },
    /// *Retry*: no space for the region; nothing was left behind. *Over* if the region is in use: then there
    /// is no space for a page of it that its creator has not reserved.
    #[error(
        "no space for {wanted_len} bytes at {}: {source}; free space or ask for smaller rings",
        path.display()
    )]
    NoSpace {
        /// The file or directory.
        path: PathBuf,
        /// Bytes of the region.
        wanted_len: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// *Fix the call*: the region would exceed the process's limit on file size.
    #[error(
        "a region of {wanted_len} bytes exceeds this process's file size limit of {limit} \
         (RLIMIT_FSIZE); raise it with ulimit -f or ask for smaller rings"
    )]
    FileSizeLimit {
        /// Bytes of the region.
        wanted_len: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// *Retry*: an existing region was to be opened, and there is none.
    #[error("no region at {}; start its creator first, or allow creating it", path.display())]
    NotFound {
        /// The path that was tried.
        path: PathBuf,
    },
    /// *Retry*: a new region was to be created, and the present one is in use.
    #[error(
        "{} is in use{}; close its users first, or join it", path.display(), by_pid(*.pid)
    )]
    InUse {
        /// The file.
        path: PathBuf,
        /// One of its users; 0 if it has no pid in this PID namespace, or none is known.
        pid: u32,
    },
    /// *Over*: a newer region has replaced this one.
    #[error("{} was replaced by a newer region; open it again", path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// *Over*: the region is marked as poisoned.
    #[error("{} is marked as poisoned; close all users and remove it", path.display())]
    RegionPoisoned {
        /// The file.
        path: PathBuf,
    },
    /// *Damage*: a ring holds what no honest peer writes; it is closed for all processes.
    #[error("ring {ring} is poisoned at position {position}: {reason}; recreate the region")]
    Poisoned {
        /// The ring.
        ring: u32,
        /// The position at which the damage was found, in bytes, as
        /// [`RecordRef::position`](crate::RecordRef::position).
        position: u64,
        /// What was found.
        reason: Damage,
    },
    /// *Retry*: another process, or another end in this one, owns the endpoint.
    #[error("{}", busy(*ring, role, *pid, *places))]
    Busy {
        /// The ring; of lanes the first.
        ring: u32,
        /// `"sender"`, `"receiver"`, or `"channel"` for both ends of one.
        role: &'static str,
        /// The owner, or one of them; 0 if it has no pid in this PID namespace, or is just leaving.
        pid: u32,
        /// Endpoints that would have done, all of them owned: one, or the region's
        /// [`OpenOptions::producers`](crate::OpenOptions::producers).
        places: usize,
    },
    /// *Retry*: no lane could be had. At least one has no owner, but the last one's messages have not been
    /// received yet.
    #[error("{}", lane_not_empty(*ring, *lanes))]
    LaneNotEmpty {
        /// The first such lane.
        ring: u32,
        /// All lanes.
        lanes: usize,
    },
    /// *Retry*: live processes held an MPSC ring's lock until the deadline.
    #[error(
        "timed out; the lock of ring {ring} is held{} (slot {slot}), which is alive; check whether it is \
         stopped", by_pid(*.pid)
    )]
    Stalled {
        /// The ring.
        ring: u32,
        /// The holder's slot.
        slot: u16,
        /// The holder; 0 if it has no pid in this PID namespace.
        pid: u32,
    },
    /// *Over*: the kernel no longer shows this process as the owner of its endpoint.
    #[error("the lock of slot {slot} was lost; drop this handle and open the region again")]
    LockLost {
        /// The slot.
        slot: u16,
    },
    /// *Fix the call*: used in a forked child; handles belong to the process that made them.
    #[error("handles don't cross fork; open the region again in the child")]
    ForkedChild,
    /// *Fix the call*: longer than the ring allows; nothing was written.
    #[error(
        "message of {found} bytes, ring {ring} takes at most {limit}; split it or recreate \
             the region with a larger max_message"
    )]
    MessageTooLong {
        /// The ring.
        ring: u32,
        /// Bytes of the message.
        found: usize,
        /// The ring's limit.
        limit: u32,
    },
    /// *Fix the call*: the caller's buffer cannot hold the next message, which stays in the ring.
    #[error(
        "the next message has {needed} bytes, the buffer takes {available}; it stays in the ring"
    )]
    BufferTooSmall {
        /// Bytes of the message.
        needed: usize,
        /// Bytes of the buffer.
        available: usize,
    },
    /// *Fix the call*: the caller's buffers cannot hold the next message and its handles, which stay in the ring.
    #[error(
        "the next message has {needed} bytes and {needed_handles} handles, the buffers take {available} \
         and {available_handles}; it stays in the ring"
    )]
    BuffersTooSmall {
        /// Bytes of the message.
        needed: usize,
        /// Length of the buffer for bytes.
        available: usize,
        /// Handles of the message.
        needed_handles: usize,
        /// Length of the buffer for handles.
        available_handles: usize,
    },
    /// *Retry*: this process or the system may have no more descriptors open. The message stays in the ring
    /// with its handles. To go on without it, drop the record that [`recv_ref`](crate::Receiver::recv_ref)
    /// returns.
    #[error("no descriptors are left for the handles on ring {ring}: {source}; close some")]
    TooManyFiles {
        /// The ring.
        ring: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// *Over*, for this message: its handles went to a receiver that has exited. Here are its bytes; ask its
    /// sender for the handles again. Receiving it has taken it, and so has a
    /// [`take`](crate::RecordRef::take) of a [`RecordRef`](crate::RecordRef). If
    /// [`RecordRef::handles`](crate::RecordRef::handles) reports this, the message stays until the record is
    /// dropped.
    #[error(
        "the {} of the message at position {position} on ring {ring} went to an earlier receiver; this error \
         has its {}: ask its sender to send it again",
        counted(*count, "handle"), counted(data.len(), "byte")
    )]
    HandlesLost {
        /// The ring.
        ring: u32,
        /// The message's position, as [`RecordRef::position`](crate::RecordRef::position).
        position: u64,
        /// Handles that it had.
        count: usize,
        /// Its bytes.
        data: Vec<u8>,
    },
    /// *Damage*: a sender broke the protocol for handles. Its message was skipped.
    #[error("slot {slot} broke the protocol of ring {ring} at position {position}: {reason}")]
    ProtocolViolation {
        /// The ring.
        ring: u32,
        /// The sender's slot as the record names it.
        slot: u16,
        /// The record's position, as [`RecordRef::position`](crate::RecordRef::position).
        position: u64,
        /// What it did.
        reason: &'static str,
    },
    /// *Fix the call* or *retry*, as its source says: handles that no message takes along.
    #[error("{source}")]
    Handles {
        /// What is wrong with which of them.
        source: DispositionError,
    },
    /// *Fix the call*: the messages of this ring carry no handles.
    #[error("ring {ring} carries no handles: {reason}")]
    HandlesNotCarried {
        /// The ring.
        ring: u32,
        /// Why.
        reason: &'static str,
    },
    /// *Fix the call*: too many receivers to wait for at once, or none.
    #[error("{found} receivers and interrupters to wait for at once; pass 1 to {limit}")]
    WaitCount {
        /// Receivers given; one that has an interrupter counts twice.
        found: usize,
        /// The most that the kernel waits for at once.
        limit: usize,
    },
    /// *Over*: the kernel, or a filter in front of it, lacks something that is required.
    #[error("{what} is not available here: {source}")]
    Unsupported {
        /// What is missing.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

fn of_ring(ring: Option<u32>) -> String {
    ring.map_or(String::new(), |ring| format!(" of ring {ring}"))
}

/// The role in [`Error::Busy`] of both ends of a channel.
pub(crate) const CHANNEL: &str = "channel";

fn busy(ring: u32, role: &str, pid: u32, places: usize) -> String {
    let by_pid = by_pid(pid);
    match places {
        _ if role == CHANNEL => {
            format!("both ends of the channel are owned, one{by_pid}; close one first")
        }
        0 | 1 => format!("the {role} of ring {ring} is owned{by_pid}; close it there first"),
        _ => format!(
            "all {places} places for producers, from ring {ring} on, are taken, one{by_pid}; close one \
             first, or recreate the region with a larger OpenOptions::producers"
        ),
    }
}

fn lane_not_empty(ring: u32, lanes: usize) -> String {
    let unread = format!("lane {ring} has unread messages of its last sender");
    let retry = "retry once the receiver has taken them";
    let larger = "or recreate the region with a larger OpenOptions::producers";
    match lanes {
        0 | 1 => format!("{unread}; {retry}, {larger}"),
        _ => format!("none of {lanes} lanes is free: {unread}; {retry}, {larger}"),
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

pub(crate) fn by_pid(pid: u32) -> String {
    match pid {
        0 => {
            " by a process that has no pid here (in another PID namespace), or that is just leaving"
                .to_owned()
        }
        pid => format!(" by pid {pid}"),
    }
}

/// What no honest peer writes into a ring, and was found there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// A malformed record header.
    #[error("{0}")]
    Record(#[from] RecordError),
    /// Positions that contradict each other.
    #[error("{word} is {found:#x} while {against} is {other:#x}")]
    Position {
        /// The word that is wrong.
        word: &'static str,
        /// Its value.
        found: u64,
        /// What it was compared with.
        against: &'static str,
        /// The value of that.
        other: u64,
    },
    /// A lock word that names a slot which is no producer's.
    #[error("the lock names slot {slot}, which is no producer's")]
    LockOwner {
        /// The slot named.
        slot: u16,
    },
    /// Another process marked the ring before.
    #[error("marked by another process, reason {code}")]
    Marked {
        /// The reason stored with the mark.
        code: u32,
    },
}

impl Damage {
    /// The number stored with the mark.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::Record(error) => error.code(),
            Self::Position { .. } => 32,
            Self::LockOwner { .. } => 33,
            Self::Marked { code } => *code,
        }
    }
}
