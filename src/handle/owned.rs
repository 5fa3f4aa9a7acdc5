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
/// Type and rights are found when they are first asked for, then kept.
///
/// **The rights bind this library's operations only.** The kernel knows the mode that the descriptor
/// was opened with, and nothing else: a handle without [`Rights::WRITE`] on a file that was opened
/// for writing still writes, through [`AsFd`] here and in any process that it comes to. And whoever
/// shares the description by a duplicate or an inherited descriptor shares its position, its flags
/// and its locks.
///
/// **What has come in a message is of its sender's choice**, and whatever is done with it is done to the
/// sender's file. Reading, asking for the type, and closing may wait for a server of the sender's, if
/// that is a file system in user space or on a network: leave such handles to a thread that may wait. A
/// description of one's own, if the file has a name or is memory, comes from opening
/// `/proc/self/fd/N`. And memory or a file that the sender can still shrink ends a process that has it
/// mapped by `SIGBUS`: map a memfd only if `fcntl(F_GET_SEALS)` has `F_SEAL_SHRINK`, and copy from
/// anything else by `pread`. This library maps nothing that has come, but regions that it is asked to
/// open.
///
/// # Cost
/// One system call to make, and one more for a descriptor without the mark. The first question for
/// type or rights takes two to some ten, the first message one of them; duplicates know what is known. A regular file is read from then, eight bytes at its beginning;
/// on a file system in user space that waits for its server.
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
    id: KoID,
    /// Which file it leads to, once somebody has asked.
    file: OnceLock<Stat>,
    /// What the descriptor is, once somebody has asked.
    facts: OnceLock<Facts>,
    granted: Granted,
    /// Whether a list of dispositions has judged it: it may be sent, with whatever rights it has now.
    is_disposed: bool,
}

/// The rights of a handle, as far as they are known without asking the kernel.
#[derive(Clone, Copy, Debug)]
enum Granted {
    /// Those of a new handle.
    OfNew,
    /// Those of a new handle that are among these: it has come in a message.
    AtMost(Rights),
    /// These.
    Exactly(Rights),
}

impl Granted {
    /// The rights, as the descriptor is what `facts` says.
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
    /// - [`HandleError::Descriptor`]: the process has no room for another descriptor.
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

    /// The descriptor, which stays close-on-exec. Type, rights and id are forgotten.
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

    /// Its rights as they travel: [`Rights::SAME_RIGHTS`] for those of any new handle.
    pub(crate) fn rights_to_carry(&self) -> u32 {
        match self.granted {
            Granted::OfNew => Rights::SAME_RIGHTS.bits(),
            Granted::AtMost(rights) | Granted::Exactly(rights) => rights.bits(),
        }
    }

    /// Handles that have come in a message, on descriptors that are close-on-exec. They have the rights
    /// that `bits` say, as far as new handles have them. The descriptors are a peer's choice: nothing is
    /// asked of them here.
    pub(crate) fn carried(fds: Vec<OwnedFd>, bits: impl Iterator<Item = u32>) -> Vec<Self> {
        let ids = koid::several(fds.len())..;
        let granted = bits.map(|bits| match bits {
            bits if bits == Rights::SAME_RIGHTS.bits() => Granted::OfNew,
            bits => Granted::AtMost(Rights::known(bits)),
        });
        let all = fds.into_iter().zip(ids).zip(granted);
        all.map(|((fd, id), granted)| Self::with_id(fd, id, granted)).collect()
    }

    /// Closes what has been sent.
    pub(crate) fn close_all(handles: Vec<Self>) {
        if !handles.is_empty() {
            crate::os::close::all(handles.into_iter().map(Self::into_fd));
        }
    }

    /// A handle of which nothing else is known.
    fn with_id(fd: OwnedFd, id: KoID, granted: Granted) -> Self {
        let (file, facts) = (OnceLock::new(), OnceLock::new());
        Self { fd, id, file, facts, granted, is_disposed: false }
    }

    /// What a list of dispositions made of it. To have given the right to send it away is no reason
    /// not to send it.
    pub(crate) fn disposed(self) -> Self {
        Self { is_disposed: true, ..self }
    }

    /// Refuses if it may not be sent.
    pub(super) fn check_sendable(&self) -> Result<(), HandleError> {
        if self.is_disposed { Ok(()) } else { self.require(Rights::TRANSFER) }
    }

    /// The file that it leads to: looked at once, for it never changes.
    pub(super) fn file(&self) -> Result<Stat, Errno> {
        if let Some(file) = self.file.get() {
            return Ok(*file);
        }
        let found = Stat::of(self.fd.as_fd())?;
        Ok(*self.file.get_or_init(|| found))
    }

    /// Refuses if one of `wanted` is missing. Does not ask for the type if every new handle
    /// has them.
    pub(crate) fn require(&self, wanted: Rights) -> Result<(), HandleError> {
        let surely = match self.granted {
            Granted::OfNew => Rights::ALWAYS,
            Granted::AtMost(rights) => Rights::ALWAYS.intersection(rights),
            Granted::Exactly(rights) => rights,
        };
        if surely.contains(wanted) {
            return Ok(());
        }
        let held = self.rights();
        let missing = wanted - held;
        if missing.is_empty() { Ok(()) } else { Err(HandleError::AccessDenied { held, missing }) }
    }

    /// Refuses another type than `wanted`.
    pub(crate) fn require_type(&self, wanted: Option<HandleType>) -> Result<(), HandleError> {
        match wanted {
            Some(wanted) if wanted != self.handle_type() => {
                Err(HandleError::WrongType { found: self.handle_type(), wanted })
            }
            _ => Ok(()),
        }
    }

    /// Refuses if `wanted` are neither the same rights nor a part of them.
    pub(super) fn grants(&self, wanted: Rights) -> Result<(), HandleError> {
        if wanted == Rights::SAME_RIGHTS || self.rights().contains(wanted) {
            return Ok(());
        }
        Err(HandleError::InvalidRights { held: self.rights(), wanted })
    }

    /// A handle with a descriptor of its own on the same description. What may be had of this one
    /// was checked before.
    pub(crate) fn copy(&self, rights: Rights) -> Result<Self, HandleError> {
        let fd = rustix::io::fcntl_dupfd_cloexec(&self.fd, 0)
            .map_err(|error| refused("duplicate a descriptor", error))?;
        let (id, granted) = (self.id, self.granted);
        let (file, facts) = (self.file.clone(), self.facts.clone());
        let copy = Self { fd, id, file, facts, granted, is_disposed: false };
        Ok(copy.with(rights))
    }

    /// This handle with `rights`, which it grants.
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
    /// From a `File`, a socket, an `OwnedFd`. There is no way back but [`Handle::into_fd`], by name:
    /// a handle that became a descriptor on its way would come out with all its rights again.
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
    /// Asks for nothing that is not known yet.
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

/// What the kernel refused, as this module's error.
pub(super) fn refused(action: &'static str, error: Errno) -> HandleError {
    HandleError::Descriptor { action, errno: error.raw_os_error() }
}

/// Marks the descriptor if it is not marked yet. On a descriptor that is open neither call can
/// fail.
fn close_on_exec(fd: &OwnedFd) {
    let flags = rustix::io::fcntl_getfd(fd).unwrap_or(FdFlags::empty());
    if !flags.contains(FdFlags::CLOEXEC) {
        let _ = rustix::io::fcntl_setfd(fd, flags | FdFlags::CLOEXEC);
    }
}
