//! `Handle`: an owned descriptor with type, rights and id.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use rustix::fs::OFlags;
use rustix::io::{Errno, FdFlags};

use super::koid::{self, KoID};
use super::stat::Stat;
use crate::error::HandleError;
use crate::handle_type::HandleType;
use crate::rights::Rights;

/// A descriptor that is owned, with its type, what may be done with it, and an id.
///
/// Anything that is a descriptor becomes one: a `File`, a socket, the end of a pipe, an `OwnedFd`.
/// Dropping it closes the descriptor.
///
/// Every handle's descriptor is close-on-exec. One that is handed in without the mark gets it in
/// [`Self::new`] and keeps it, also after [`Self::into_fd`]. What another thread starts between the
/// descriptor's opening and that call inherits it all the same: open it close-on-exec.
///
/// Type and rights are read when they are first needed, then kept.
///
/// **The rights bind this library's operations only.** The kernel knows the mode that the descriptor
/// was opened with, and nothing else: a handle without [`Rights::WRITE`] on a file that was opened
/// for writing still writes, through [`AsFd`] here and in any process that it comes to. And a process
/// that shares the description, by a duplicate or an inherited descriptor, shares its position, its flags
/// and its locks.
///
/// **The sender of a message chooses its handles**, and what the receiver does with one is done to the
/// sender's file. Reading, asking for the type, and closing may wait for a server of the sender's if that is
/// a file system in user space or on a network: leave such handles to a thread that may wait. If the file has
/// a name or is memory, opening `/proc/self/fd/N` makes a description of the receiver's own. And memory or a
/// file that the sender can still shrink ends a process that has it mapped by `SIGBUS`: map a memfd only if
/// `fcntl(F_GET_SEALS)` has `F_SEAL_SHRINK`, and copy from anything else by `pread`. This library maps no
/// received file, except regions that it is asked to open.
///
/// # Cost
/// One system call to make, and one more for a descriptor without the mark. Finding type and rights takes
/// two to some ten, once; sending takes one of them; duplicates share what is known. For a regular file that
/// reads eight bytes at its beginning; on a file system in user space that waits for its server.
///
/// # Source
/// Zircon's handles: rights, `duplicate`, `replace`. Types are those of Linux's descriptors.
///
/// # Examples
/// ```
/// use std::fs::File;
/// use tombolo::{Handle, HandleType, Rights};
/// let handle = Handle::new(File::open("/proc/self/exe")?);
/// assert_eq!(handle.handle_type(), HandleType::File);
/// assert!(handle.rights().contains(Rights::READ) && !handle.rights().contains(Rights::WRITE));
/// let only_to_send = handle.duplicate(Rights::TRANSFER)?;
/// assert_eq!(only_to_send.id(), handle.id());
/// assert!(only_to_send.duplicate(Rights::SAME_RIGHTS).is_err());
/// let file = File::from(handle.into_fd());
/// assert!(file.metadata()?.is_file());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Handle {
    fd: OwnedFd,
    /// Of an end of a channel, what else it consists of.
    rest: Vec<OwnedFd>,
    id: KoID,
    /// The file that it leads to, once that was read.
    file: OnceLock<Stat>,
    /// What the descriptor is, once that was read.
    facts: OnceLock<Facts>,
    granted: Granted,
    /// Whether it passed the checks of a list of dispositions: then it may be sent with any rights.
    is_disposed: bool,
}

/// The rights of a handle, as far as they are known without a system call.
#[derive(Clone, Copy, Debug)]
enum Granted {
    /// Those of a new handle.
    OfNew,
    /// Those of a new handle that are among these: it came in a message.
    AtMost(Rights),
    /// These.
    Exactly(Rights),
}

impl Granted {
    /// The rights on a descriptor with these `facts`.
    fn of(self, facts: Facts) -> Rights {
        match self {
            Self::OfNew => facts.rights,
            Self::AtMost(rights) => facts.rights.intersection(rights),
            Self::Exactly(rights) => rights,
        }
    }
}

/// What follows from the descriptor, and never changes.
#[derive(Clone, Copy, Debug)]
struct Facts {
    kind: HandleType,
    /// The rights of a new handle.
    rights: Rights,
}

impl Handle {
    /// Takes the descriptor. It gets an id of its own, also if another handle leads to the same
    /// file.
    ///
    /// # Examples
    /// ```
    /// use std::os::unix::net::UnixStream;
    /// use tombolo::{Handle, HandleType};
    /// let (ours, theirs) = UnixStream::pair()?;
    /// let (ours, theirs) = (Handle::new(ours), Handle::new(theirs));
    /// assert_eq!(theirs.handle_type(), HandleType::Socket);
    /// assert_ne!(ours.id(), theirs.id());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn new(fd: impl Into<OwnedFd>) -> Self {
        let fd = fd.into();
        close_on_exec(&fd);
        Self::with_id(fd, koid::next(), Granted::OfNew)
    }

    /// A second handle to the same object, with `rights` or [`Rights::SAME_RIGHTS`]. It shares the
    /// open file description, and so the position in a file.
    ///
    /// # Errors
    /// - [`HandleError::AccessDenied`] (`ACCESS_DENIED`): without [`Rights::DUPLICATE`], which ends
    ///   of channels never have;
    /// - [`HandleError::InvalidRights`] (`INVALID_ARGS`): rights that this handle does not have;
    /// - [`HandleError::Descriptor`]: the process may not have another descriptor.
    ///
    /// # Source
    /// `zx_handle_duplicate`.
    ///
    /// # Examples
    /// ```
    /// use tombolo::{Handle, Rights};
    /// use tombolo::handle::HandleError;
    /// let (end, _) = std::io::pipe()?;
    /// let end = Handle::new(end); // may be read from, not written to
    /// let refused = end.duplicate(Rights::WRITE);
    /// assert!(matches!(refused, Err(HandleError::InvalidRights { .. })));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn duplicate(&self, rights: Rights) -> Result<Self, HandleError> {
        self.require(Rights::DUPLICATE)?;
        self.grants(rights)?;
        self.copy(rights)
    }

    /// The same handle with `rights` or [`Rights::SAME_RIGHTS`]. On failure it is closed.
    ///
    /// # Errors
    /// [`HandleError::InvalidRights`] (`INVALID_ARGS`): rights that this handle does not have.
    ///
    /// # Source
    /// `zx_handle_replace`, which invalidates its source also on failure.
    ///
    /// # Examples
    /// ```
    /// use std::fs::File;
    /// use tombolo::{Handle, Rights};
    /// let handle = Handle::new(File::open("/")?).replace(Rights::TRANSFER | Rights::READ)?;
    /// assert_eq!(handle.rights(), Rights::TRANSFER | Rights::READ);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn replace(self, rights: Rights) -> Result<Self, HandleError> {
        self.grants(rights)?;
        Ok(self.with(rights))
    }

    /// The descriptor, which stays close-on-exec. Type, rights and id are lost, and what else belongs to an end of
    /// a channel: for that there is [`Channel::from_handle`](crate::Channel::from_handle).
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// What it leads to.
    #[must_use]
    pub fn handle_type(&self) -> HandleType {
        self.facts().kind
    }

    /// What may be done with it.
    #[must_use]
    pub fn rights(&self) -> Rights {
        match self.granted {
            Granted::Exactly(rights) => rights,
            Granted::AtMost(rights) if Rights::ALWAYS.contains(rights) => rights,
            granted => granted.of(self.facts()),
        }
    }

    /// The id of its object. See [`KoID`] for what that promises.
    #[must_use]
    pub fn id(&self) -> KoID {
        self.id
    }

    /// An end of a channel, on the descriptors that it consists of, the one with its locks first.
    pub(crate) fn endpoint(lock: OwnedFd, rest: Vec<OwnedFd>, id: KoID) -> Self {
        Self { rest, ..Self::with_id(lock, id, Granted::OfNew) }
    }

    /// The descriptors that it consists of.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(&self.fd).chain(&self.rest).map(AsFd::as_fd)
    }

    /// As [`Self::descriptors`], for the caller to keep.
    pub(crate) fn into_descriptors(self) -> (OwnedFd, Vec<OwnedFd>) {
        (self.fd, self.rest)
    }

    /// Its rights as they travel: [`Rights::SAME_RIGHTS`] for those of any new handle.
    pub(crate) fn rights_to_carry(&self) -> u32 {
        match self.granted {
            Granted::OfNew => Rights::SAME_RIGHTS.bits(),
            Granted::AtMost(rights) | Granted::Exactly(rights) => rights.bits(),
        }
    }

    /// Handles that came in a message, on descriptors that are close-on-exec. Each consists of so many of them
    /// as it says, and has the rights in its `bits` that a new handle would have.
    pub(crate) fn carried(
        fds: Vec<OwnedFd>,
        all: impl ExactSizeIterator<Item = (usize, u32)>,
    ) -> Vec<Self> {
        // No system call on these descriptors: the peer chose them, and one might block.
        let ids = koid::several(all.len())..;
        let mut fds = fds.into_iter();
        let handles = all.zip(ids).filter_map(|((count, bits), id)| {
            let granted = match bits {
                bits if bits == Rights::SAME_RIGHTS.bits() => Granted::OfNew,
                bits => Granted::AtMost(Rights::known(bits)),
            };
            let fd = fds.next()?;
            let rest = fds.by_ref().take(count.saturating_sub(1)).collect();
            Some(Self { rest, ..Self::with_id(fd, id, granted) })
        });
        handles.collect()
    }

    /// Closes handles that were sent.
    pub(crate) fn close_all(handles: Vec<Self>) {
        if !handles.is_empty() {
            let all = handles.into_iter().map(Self::into_descriptors);
            crate::os::close::all(all.flat_map(|(fd, rest)| std::iter::once(fd).chain(rest)));
        }
    }

    fn with_id(fd: OwnedFd, id: KoID, granted: Granted) -> Self {
        let (file, facts) = (OnceLock::new(), OnceLock::new());
        Self { fd, rest: Vec::new(), id, file, facts, granted, is_disposed: false }
    }

    /// Marks a handle that a list of dispositions resolved to: it may be sent, also if the list took the
    /// right to send it.
    pub(crate) fn disposed(self) -> Self {
        Self { is_disposed: true, ..self }
    }

    pub(super) fn check_sendable(&self) -> Result<(), HandleError> {
        if self.is_disposed { Ok(()) } else { self.require(Rights::TRANSFER) }
    }

    /// The file that it leads to. Read once, as it never changes.
    pub(super) fn file(&self) -> Result<Stat, Errno> {
        if let Some(file) = self.file.get() {
            return Ok(*file);
        }
        let found = Stat::of(self.fd.as_fd())?;
        Ok(*self.file.get_or_init(|| found))
    }

    /// Refuses if one of `wanted` is missing. Doesn't read the type if every new handle has them.
    pub(crate) fn require(&self, wanted: Rights) -> Result<(), HandleError> {
        let surely = match self.granted {
            Granted::OfNew => Rights::ALWAYS,
            Granted::AtMost(rights) => Rights::ALWAYS.intersection(rights),
            Granted::Exactly(rights) => rights,
        };
        if surely.contains(wanted) {
            return Ok(());
        }
        require(self.rights(), wanted)
    }

    /// Refuses if `wanted` are neither `SAME_RIGHTS` nor among its rights.
    pub(super) fn grants(&self, wanted: Rights) -> Result<(), HandleError> {
        if wanted == Rights::SAME_RIGHTS { Ok(()) } else { grants(self.rights(), wanted) }
    }

    /// A handle with a descriptor of its own on the same description. The caller has checked `rights`.
    pub(crate) fn copy(&self, rights: Rights) -> Result<Self, HandleError> {
        let copy = |fd| {
            rustix::io::fcntl_dupfd_cloexec(fd, 0)
                .map_err(|error| refused("duplicate a descriptor", error))
        };
        let fd = copy(&self.fd)?;
        let rest = self.rest.iter().map(copy).collect::<Result<_, _>>()?;
        let (id, granted) = (self.id, self.granted);
        let (file, facts) = (self.file.clone(), self.facts.clone());
        let copy = Self { fd, rest, id, file, facts, granted, is_disposed: false };
        Ok(copy.with(rights))
    }

    /// This handle with `rights`. The caller has checked them.
    pub(crate) fn with(mut self, rights: Rights) -> Self {
        self.is_disposed = false;
        if rights != Rights::SAME_RIGHTS {
            self.granted = Granted::Exactly(rights);
        }
        self
    }

    fn facts(&self) -> Facts {
        *self.facts.get_or_init(|| {
            let flags = rustix::fs::fcntl_getfl(&self.fd).unwrap_or(OFlags::PATH);
            let kind = HandleType::of(self.fd.as_fd(), flags, self.file().ok());
            Facts { kind, rights: Rights::of_new(kind, flags) }
        })
    }
}

impl<T: Into<OwnedFd>> From<T> for Handle {
    /// From a `File`, a socket, an `OwnedFd`. The only way back is [`Handle::into_fd`], by name: a handle
    /// converted to a descriptor and back would have all its rights again.
    fn from(fd: T) -> Self {
        Self::new(fd)
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Handle {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl fmt::Debug for Handle {
    /// Shows what is known, without a system call.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = self.facts.get();
        let rights = match self.granted {
            Granted::Exactly(rights) => Some(rights),
            granted => facts.map(|facts| granted.of(*facts)),
        };
        f.debug_struct("Handle")
            .field("fd", &self.fd.as_raw_fd())
            .field("id", &self.id)
            .field("type", &facts.map(|facts| facts.kind))
            .field("rights", &rights)
            .finish()
    }
}

/// Refuses if one of `wanted` is not among `held`.
pub(super) fn require(held: Rights, wanted: Rights) -> Result<(), HandleError> {
    let missing = wanted - held;
    if missing.is_empty() { Ok(()) } else { Err(HandleError::AccessDenied { held, missing }) }
}

/// Refuses if `wanted` are neither `SAME_RIGHTS` nor among `held`.
pub(super) fn grants(held: Rights, wanted: Rights) -> Result<(), HandleError> {
    if wanted == Rights::SAME_RIGHTS || held.contains(wanted) {
        return Ok(());
    }
    Err(HandleError::InvalidRights { held, wanted })
}

pub(super) fn refused(action: &'static str, error: Errno) -> HandleError {
    HandleError::Descriptor { action, errno: error.raw_os_error() }
}

/// Marks the descriptor if it is not marked yet. Neither call can fail on an open descriptor.
fn close_on_exec(fd: &OwnedFd) {
    let flags = rustix::io::fcntl_getfd(fd).unwrap_or(FdFlags::empty());
    if !flags.contains(FdFlags::CLOEXEC) {
        let _ = rustix::io::fcntl_setfd(fd, flags | FdFlags::CLOEXEC);
    }
}
