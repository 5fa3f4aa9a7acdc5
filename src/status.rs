//! Zircon's numbers for what can go wrong.

use std::fmt;

/// What went wrong, as a number of Zircon's: for programs that are written with numbers, and for what crosses to
/// another process. Every error of this library has one, by its `status()`; its text says more.
///
/// | status | number | errors |
/// |---|---|---|
/// | [`OK`](Self::OK) | 0 | |
/// | [`INTERNAL`](Self::INTERNAL) | -1 | `Error::Misaligned`, `Error::ProtocolViolation` |
/// | [`NOT_SUPPORTED`](Self::NOT_SUPPORTED) | -2 | `Error::UnsupportedFileSystem`, `Error::HandlesNotCarried`, `Error::Unsupported`, `LayoutError::ForeignEndian`, `LayoutError::UnsupportedMajor`, `LayoutError::UnknownCapability`, `HandleError::ThroughItself`, `TableError::ReadOptions`, `ObjectError::NotSupported` |
/// | [`NO_RESOURCES`](Self::NO_RESOURCES) | -3 | `Error::NoSpace`, `Error::TooManyFiles`, `HandleError::Descriptor` |
/// | [`NO_MEMORY`](Self::NO_MEMORY) | -4 | |
/// | [`CALL_FAILED`](Self::CALL_FAILED) | -5 | |
/// | [`INTERRUPTED_RETRY`](Self::INTERRUPTED_RETRY) | -6 | |
/// | [`INVALID_ARGS`](Self::INVALID_ARGS) | -10 | `Error::InvalidName`, `Error::InvalidPath`, `Error::InvalidOption`, `Error::WrongDescriptor`, `LayoutError::OptionTooSmall`, `LayoutError::Option`, `LayoutError::NoChannel`, `HandleError::InvalidOperation`, `HandleError::InvalidRights`, `ChannelError::TooShortForCall`, `TableError::WriteOptions`, `ObjectError::InvalidSignals` |
/// | [`BAD_HANDLE`](Self::BAD_HANDLE) | -11 | `Error::LockLost`, `Error::ForkedChild`, `HandleError::BadHandle`, `HandleError::AlreadyMoved`, `ChannelError::Closed`, `ObjectError::Closed` |
/// | [`WRONG_TYPE`](Self::WRONG_TYPE) | -12 | `Error::WrongFileType`, `LayoutError::BadMagic`, `LayoutError::OtherRing`, `HandleError::WrongType`, `HandleError::NoDescriptor`, `ObjectError::WrongType` |
/// | [`OUT_OF_RANGE`](Self::OUT_OF_RANGE) | -14 | `Error::FileSizeLimit`, `Error::MessageTooLong`, `Error::WaitCount`, `DispositionError::TooManyHandles`, `ChannelError::TooLong`, `ChannelError::TooManyParts` |
/// | [`BUFFER_TOO_SMALL`](Self::BUFFER_TOO_SMALL) | -15 | `Error::BufferTooSmall`, `Error::BuffersTooSmall`, `ChannelError::BufferTooSmall` |
/// | [`BAD_STATE`](Self::BAD_STATE) | -20 | `Error::RegionTooSmall`, `Error::UnclearBoot`, `Error::Copied`, `Error::Replaced`, `Error::RegionPoisoned`, `Error::Poisoned`, `Damage::Record`, `Damage::Position`, `Damage::LockOwner`, `Damage::Marked`, `LayoutError::Truncated`, `LayoutError::Checksum`, `LayoutError::TooSmall`, `LayoutError::Field`, `LayoutError::OutOfBounds`, `LayoutError::Overlap`, `LayoutError::SharedSlot` |
/// | [`TIMED_OUT`](Self::TIMED_OUT) | -21 | `Error::Stalled`, `LayoutError::NotReady`, `SendTimeoutError::Timeout`, `SendTimeoutError::NoReceiver`, `RecvTimeoutError::Timeout`, `ChannelError::TimedOut`, `ObjectError::TimedOut` |
/// | [`SHOULD_WAIT`](Self::SHOULD_WAIT) | -22 | `Error::Busy`, `Error::LaneNotEmpty`, `TrySendError::Full`, `TrySendError::NoReceiver`, `TrySendError::Contended`, `TryRecvError::Empty`, `ChannelError::ShouldWait` |
/// | [`CANCELED`](Self::CANCELED) | -23 | `Error::HandlesLost`, `SendError::Interrupted`, `SendTimeoutError::Interrupted`, `RecvError::Interrupted`, `RecvTimeoutError::Interrupted`, `ChannelError::Canceled`, `ObjectError::Canceled` |
/// | [`PEER_CLOSED`](Self::PEER_CLOSED) | -24 | `SendError::Disconnected`, `SendTimeoutError::Disconnected`, `TrySendError::Disconnected`, `RecvError::Disconnected`, `RecvTimeoutError::Disconnected`, `TryRecvError::Disconnected`, `ChannelError::PeerClosed`, `ObjectError::PeerClosed` |
/// | [`NOT_FOUND`](Self::NOT_FOUND) | -25 | `Error::NotFound`, `LayoutError::OtherRing` |
/// | [`ALREADY_EXISTS`](Self::ALREADY_EXISTS) | -26 | `Error::InUse`, `ChannelError::TxidInUse` |
/// | [`ACCESS_DENIED`](Self::ACCESS_DENIED) | -30 | `Error::UnsafePath`, `Error::Permission`, `HandleError::AccessDenied`, `ChannelError::AccessDenied`, `ObjectError::AccessDenied` |
/// | [`STOP`](Self::STOP) | -60 | |
///
/// `LayoutError::OtherRing` is [`NOT_FOUND`](Self::NOT_FOUND) if there is no such ring at all. `Error::Io` has the
/// number of what the kernel said, [`INTERNAL`](Self::INTERNAL) if that has none here. `Error::Layout`,
/// `Error::Handles`, `DispositionError::Handle`, `DispositionError::Channel`, `ChannelError::Handles`, `Failed` of
/// sending, receiving, channels and objects, and `TableError::Handle`, `TableError::NotOpened` and `TableError::Channel` have that
/// of their source; `HandleError::NotReleased` says which. New errors may be added.
///
/// # Source
/// `zx_status_t`; `CALL_FAILED` is Magenta's.
///
/// # Examples
/// ```
/// use tombolo::object::{HandleTable, Status};
/// use tombolo::{EventsRegion, OpenOptions};
/// let unknown = HandleTable::new().remove(3).unwrap_err();
/// assert_eq!(unknown.status(), Status::BAD_HANDLE);
/// let mut region = EventsRegion::anonymous(OpenOptions::new())?;
/// let empty = region.split_spsc()?.1.try_recv().unwrap_err();
/// assert_eq!((empty.status().number(), empty.status().to_string()), (-22, "SHOULD_WAIT".to_owned()));
/// # Ok::<(), tombolo::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(i32);

/// The constants, and their names.
macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        impl Status {
            $($(#[$doc])* pub const $name: Self = Self($number);)*
        }

        const NAMES: &[(Status, &str)] = &[$((Status::$name, stringify!($name))),*];
    };
}

statuses! {
    /// Nothing went wrong.
    OK = 0;
    /// Something went wrong that has no number of its own.
    INTERNAL = -1;
    /// It cannot be done here, or not with this.
    NOT_SUPPORTED = -2;
    /// There is no more of something that the system has little of.
    NO_RESOURCES = -3;
    /// There is no more memory.
    NO_MEMORY = -4;
    /// A call's message was sent, and its reply failed.
    CALL_FAILED = -5;
    /// A signal interrupted it: retry.
    INTERRUPTED_RETRY = -6;
    /// An argument is one that it cannot be.
    INVALID_ARGS = -10;
    /// A handle names nothing, or nothing any more.
    BAD_HANDLE = -11;
    /// A thing is of another type than the one wanted.
    WRONG_TYPE = -12;
    /// A number is above or below what it may be.
    OUT_OF_RANGE = -14;
    /// The caller's buffer cannot hold it.
    BUFFER_TOO_SMALL = -15;
    /// A thing is in a state in which this cannot be done.
    BAD_STATE = -20;
    /// It was not so until the deadline.
    TIMED_OUT = -21;
    /// It is not so yet: wait, and retry.
    SHOULD_WAIT = -22;
    /// It was ended before it was done.
    CANCELED = -23;
    /// The other side is gone.
    PEER_CLOSED = -24;
    /// What was asked for is not there.
    NOT_FOUND = -25;
    /// What was to be made is there.
    ALREADY_EXISTS = -26;
    /// It is not allowed.
    ACCESS_DENIED = -30;
    /// What calls back need not call again.
    STOP = -60;
}

impl Status {
    /// The status with this number, which may be one without a name here.
    #[must_use]
    pub const fn from_number(number: i32) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }
}

/// The name, or the number if it has none here.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(status, _)| status == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
