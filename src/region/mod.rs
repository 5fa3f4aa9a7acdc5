//! `EventsRegion`: opening, creating, replacing and mapping regions.
//!
//! The life of a region:
//!
//! ```text
//!  file without a name:   written whole, then named by linkat ---+
//!                                                                v
//!  empty file:            Initializing --- filled in place --> Ready --- replaced --> Retired
//!                            |      ^                            |
//!                            +------+                            v
//!                     creator died: the next                  Poisoned
//!                     process starts over
//! ```
//!
//! Processes join a `Ready` region only. Those that have joined go on in a `Retired` one; its name leads to
//! a newer region. `Poisoned` is damaged beyond use; this version refuses it and never stores it.

mod anonymous;
mod contents;
mod create;
mod description;
mod init_lock;
mod joined;
mod name;
mod open;
mod options;
mod place;
mod plan;
mod refusal;
mod rendezvous;
mod replace;
mod request;
mod rings;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use tombolo_abi::{LayoutError, SharedLayout};

pub use self::options::{
    CreatePolicy, FileSystemPolicy, MpscOrder, OpenOptions, OwnerPolicy, Prefault,
};

pub(crate) use self::init_lock::InitLock;
pub(crate) use self::joined::Region;
use self::open::Opening;
pub(crate) use self::place::Place;
use self::rendezvous::Rendezvous;
pub use self::rings::{RingDescription, RingOptions};
use crate::error::Error;

/// One file with rings in it, mapped by all processes that talk through it.
///
/// The first process creates the region; the rest join. An opener waits for a region that is being
/// created, takes over at once from a creator that died, and replaces a region left by an earlier boot.
/// In memory (tmpfs) a file that is there is of this boot, whatever boot id a container shows;
/// elsewhere one of an earlier boot has another boot id and is older than the machine's start, by the clock.
/// A file that is not a region is never written to.
///
/// The region stays mapped until this value and all ends made from it are dropped; the file stays
/// for the next to join.
///
/// # Cost
/// Opening: some 50 system calls and one copy of header and directory, once. Afterwards nothing.
///
/// # Source
/// Creator and joiner as in shared-memory event rings with an `initialized` word; publishing a
/// complete file by `linkat`, and judging liveness by locks instead of time, are this crate's.
///
/// # Examples
/// ```no_run
/// use tombolo::EventsRegion;
/// let region = EventsRegion::open("demo")?; // creates it or joins it
/// println!("{}", if region.is_creator() { "created" } else { "joined" });
/// # Ok::<(), tombolo::Error>(())
/// ```
#[derive(Debug)]
pub struct EventsRegion {
    region: Arc<Region>,
}

impl EventsRegion {
    /// Opens or creates the region `name` in the default directory: `$TOMBOLO_DIR`, which must exist, else
    /// `/dev/shm/tombolo-<euid>`, which is made with mode 0700 if it is missing.
    ///
    /// Names are 1 to 128 of `A-Z a-z 0-9 . _ -` without a leading dot; the file is
    /// `name.tombolo`.
    ///
    /// # Errors
    /// [`Error::InvalidName`], and those of [`Self::open_path`].
    #[doc(alias("connect", "shm_open", "mmap"))]
    pub fn open(name: &str) -> Result<Self, Error> {
        Self::open_with(name, OpenOptions::new())
    }

    /// As [`Self::open`], with options.
    ///
    /// # Errors
    /// [`Error::InvalidName`], and those of [`Self::open_path_with`].
    pub fn open_with(name: &str, options: OpenOptions) -> Result<Self, Error> {
        options.check()?;
        Self::at(name::place(name)?, options)
    }

    /// Opens or creates the region in the file `path`.
    ///
    /// No symbolic link is followed on the way, in no component. The directory is held open from
    /// then on, so a later change of the working directory doesn't matter.
    ///
    /// # Errors
    /// As [`Self::open_path_with`] with default options.
    pub fn open_path(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_path_with(path, OpenOptions::new())
    }

    /// As [`Self::open_path`], with options.
    ///
    /// # Errors
    /// - [`Error::Layout`]: not a region, damaged, of another version, with less than the options
    ///   ask for, another order or other rings, or not initialized by the end of the join timeout;
    /// - [`Error::RegionTooSmall`]: the file is shorter than its header says;
    /// - [`Error::NotFound`], [`Error::InUse`]: by [`CreatePolicy`];
    /// - [`Error::RegionPoisoned`]: marked as damaged;
    /// - [`Error::Copied`]: a copy of a region's file made since the last start of the machine; a file that
    ///   was renamed is none;
    /// - [`Error::InvalidOption`], [`Error::InvalidPath`], [`Error::UnsafePath`],
    ///   [`Error::WrongFileType`], [`Error::Permission`], [`Error::UnsupportedFileSystem`]: refused
    ///   with nothing created or changed;
    /// - [`Error::NoSpace`]: after most of a second, as other openers may just be giving space back. To replace
    ///   a region, also one of an earlier boot, takes space for both;
    /// - [`Error::FileSizeLimit`]: like [`Error::NoSpace`], with nothing left behind;
    /// - [`Error::UnclearBoot`]: a message of which it is unclear if it was sent before the machine started;
    /// - [`Error::Misaligned`], [`Error::Unsupported`], [`Error::Io`]: the kernel's refusals.
    ///
    /// # Examples
    /// ```no_run
    /// use tombolo::{EventsRegion, OpenOptions};
    /// use tombolo::options::CreatePolicy;
    /// let options = OpenOptions::new().policy(CreatePolicy::OpenExisting);
    /// let region = EventsRegion::open_path_with("/run/user/1000/demo", options)?;
    /// assert!(region.is_current()?);
    /// # Ok::<(), tombolo::Error>(())
    /// ```
    pub fn open_path_with(path: impl AsRef<Path>, options: OpenOptions) -> Result<Self, Error> {
        options.check()?;
        Self::at(Place::of_path(path.as_ref())?, options)
    }

    /// Makes a region without a name, in memory that is sealed against shrinking and growing.
    ///
    /// Another process joins it by a descriptor from [`Self::to_fd`], or, if messages carry handles, by
    /// those from [`Self::to_fds`]; it goes when the last one closes it.
    ///
    /// # Errors
    /// [`Error::InvalidOption`], [`Error::FileSizeLimit`], [`Error::NoSpace`], [`Error::Io`].
    ///
    /// # Cost
    /// Some 30 system calls, two sockets for each ring that carries handles, and all its memory. To make many, set
    /// [`Prefault::OnDemand`]: memory then comes with the messages, and making a region takes less than twice as
    /// long as the four calls that a bare file in memory takes.
    ///
    /// # Examples
    /// ```
    /// use tombolo::{EventsRegion, OpenOptions};
    /// let ours = EventsRegion::anonymous(OpenOptions::new())?;
    /// let theirs = EventsRegion::from_fd(ours.to_fd()?, OpenOptions::new())?;
    /// assert_eq!(ours.uuid(), theirs.uuid());
    /// # Ok::<(), tombolo::Error>(())
    /// ```
    #[doc(alias = "memfd_create")]
    pub fn anonymous(options: OpenOptions) -> Result<Self, Error> {
        anonymous::create(&options).map(Self::from_region)
    }

    /// Joins the region that `fd` is open on: an anonymous one, or a file with exactly one name.
    ///
    /// The file is opened afresh through `/proc/self/fd`, and `fd` is closed.
    ///
    /// # Errors
    /// Those of joining by path, and [`Error::UnsafePath`] for a file in memory without the seals,
    /// [`Error::Replaced`] if another region has taken the name, [`Error::Io`] without `/proc`.
    pub fn from_fd(fd: OwnedFd, options: OpenOptions) -> Result<Self, Error> {
        Self::from_fds([fd], options)
    }

    /// As [`Self::from_fd`], with all descriptors that [`Self::to_fds`] gave, in their order: then the
    /// messages of a region without a name carry handles between the processes that have them.
    ///
    /// # Errors
    /// As [`Self::from_fd`]; [`Error::WrongDescriptor`].
    ///
    /// # Examples
    /// ```
    /// use tombolo::{EventsRegion, MessagePacket, OpenOptions};
    /// let mut ours = EventsRegion::anonymous(OpenOptions::new().max_handles(4))?;
    /// let mut theirs = EventsRegion::from_fds(ours.to_fds()?, OpenOptions::new())?;
    /// let (_, mut rx) = theirs.split_spsc()?;
    /// rx.attach()?;
    /// let (mut tx, _) = ours.split_spsc()?;
    /// let file = std::fs::File::open("/proc/self/exe")?;
    /// tx.send_packet(MessagePacket::from(b"read this").handle(file))?;
    /// assert_eq!(rx.recv()?.handles.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_fds(
        fds: impl IntoIterator<Item = OwnedFd>,
        options: OpenOptions,
    ) -> Result<Self, Error> {
        options.check_lists()?;
        let mut fds = fds.into_iter();
        let Some(file) = fds.next() else {
            let (path, found, wanted) = ("no descriptor".into(), "missing", "a region's file");
            return Err(Error::WrongDescriptor { path, index: 0, found, wanted });
        };
        let mut region = anonymous::join(file, &options)?;
        let sockets: Vec<_> = fds.collect();
        if !sockets.is_empty() {
            region.rendezvous = Rendezvous::passed(region.path(), region.entries(), sockets)?;
        }
        if options.asks_for_handles() && !region.can_meet() {
            let path = region.path().to_owned();
            let (option, wanted) = ("max_handles", "the sockets that to_fds gave beside it");
            let found = "0 in a region that came as one descriptor";
            let reason = LayoutError::Option { option, found, wanted };
            return Err(Error::Layout { path, reason });
        }
        Ok(Self::from_region(region))
    }

    fn at(place: Place, options: OpenOptions) -> Result<Self, Error> {
        Opening::new(place, options).run().map(Self::from_region)
    }

    /// What the ends of rings share.
    pub(crate) fn shared(&self) -> &Arc<Region> {
        &self.region
    }

    fn from_region(region: Region) -> Self {
        Self { region: Arc::new(region) }
    }

    /// A new descriptor of the region's file, to hand to another process for [`Self::from_fd`]. It
    /// shares nothing with those of this region.
    ///
    /// # Errors
    /// [`Error::Replaced`], [`Error::Io`].
    pub fn to_fd(&self) -> Result<OwnedFd, Error> {
        self.region.note_shared();
        self.region.reopen()
    }

    /// All that another process needs for [`Self::from_fds`]: what [`Self::to_fd`] gives and, of a region
    /// without a name, two sockets for each ring whose messages may carry handles, or for all its lanes
    /// together. All processes that have the region share them: senders and receiver meet there.
    ///
    /// # Errors
    /// As [`Self::to_fd`].
    pub fn to_fds(&self) -> Result<Vec<OwnedFd>, Error> {
        let mut fds = vec![self.to_fd()?];
        for rendezvous in &self.region.rendezvous {
            fds.extend(
                rendezvous
                    .copies()
                    .map_err(|error| self.region.io_error("copy a socket of", error))?,
            );
        }
        Ok(fds)
    }

    /// The header page, as mapped.
    ///
    /// Valid as long as the region lives. Others write to it at any time: read it with atomic or
    /// volatile loads, never through a reference.
    #[must_use]
    pub fn as_ptr(&self) -> *mut SharedLayout {
        self.region.mapping().base().cast()
    }

    /// Whether this value's opening created the region.
    #[must_use]
    pub fn is_creator(&self) -> bool {
        self.region.creator
    }

    /// The path that the region was opened by, or `None` if it came without one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.region.place().map(Place::path)
    }

    /// The region's random id: the same through every path and in every process.
    #[must_use]
    pub fn uuid(&self) -> [u8; 16] {
        self.region.header().region_uuid
    }

    /// 1 for the first region at its path, one more for each that replaced another. It starts again
    /// at 1 if another process creates a region in the moment in which the old one has lost its name:
    /// [`Self::uuid`] distinguishes regions for certain.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.region.header().generation
    }

    /// Bytes of the region.
    #[must_use]
    pub fn total_len(&self) -> u64 {
        self.region.header().total_len
    }

    /// What the region's rings are like, in the order in which its creator listed them: at index `i` that of
    /// [`Self::spsc_sender`]`(i)` and its neighbours.
    #[must_use]
    pub fn rings(&self) -> Vec<RingDescription> {
        self.region.rings().collect()
    }

    /// Bytes of the SPSC ring's data area, of several the smallest; 0 if there is no such ring.
    #[must_use]
    pub fn spsc_capacity(&self) -> u64 {
        self.region.description().spsc_capacity().1
    }

    /// Bytes of the MPSC ring's data area, or of each lane's, of several the smallest; 0 if there are none.
    #[must_use]
    pub fn mpsc_capacity(&self) -> u64 {
        self.region.description().mpsc_capacity().1
    }

    /// The longest message in bytes that each ring takes.
    #[must_use]
    pub fn max_message(&self) -> u32 {
        self.region.description().max_message().1 as u32
    }

    /// The most handles of a message that each ring takes; 0 if messages of one carry bytes only, as those of a
    /// region that came as one descriptor do.
    ///
    /// # Examples
    /// ```
    /// use tombolo::{EventsRegion, OpenOptions};
    /// use tombolo::options::MpscOrder;
    /// let theirs = EventsRegion::anonymous(OpenOptions::new().max_handles(4).producers(8))?;
    /// // Not set, so not asked for: whatever the region has.
    /// let ours = EventsRegion::from_fds(theirs.to_fds()?, OpenOptions::new())?;
    /// assert_eq!((ours.max_handles(), ours.producers()), (4, 8));
    /// assert_eq!(ours.mpsc_order(), Some(MpscOrder::Total));
    /// // Set, so asked for: an error if the region has less.
    /// let joined = EventsRegion::from_fds(theirs.to_fds()?, OpenOptions::new().max_handles(5));
    /// assert!(joined.is_err_and(|error| error.to_string().contains("max_handles")));
    /// # Ok::<(), tombolo::Error>(())
    /// ```
    #[must_use]
    pub fn max_handles(&self) -> u16 {
        self.region.max_handles()
    }

    /// How many processes may send on the first MPSC ring at the same time, or how many lanes its first group
    /// has.
    #[must_use]
    pub fn producers(&self) -> u16 {
        self.region.description().producers().1 as u16
    }

    /// In which order the messages of the first ring for many producers come out; `None` if the region has none.
    #[must_use]
    pub fn mpsc_order(&self) -> Option<MpscOrder> {
        self.region.description().order()
    }

    /// Whether the region's name still leads to this region. `false` once it was replaced, or its file
    /// renamed or removed; attached processes can go on. A region without a name is always current.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn is_current(&self) -> Result<bool, Error> {
        self.region.is_current()
    }

    /// Whether this process survives it now if the region's file is cut short: operations then fail with
    /// [`Error::RegionTooSmall`]. That is the work of a handler of SIGBUS, which passes on to the handler
    /// that was there before what is not its own. Each opening of a region installs it on top again, if
    /// another handler has taken its place.
    ///
    /// `false` if another handler is on top, as it may not pass faults on; if the
    /// calling thread blocks SIGBUS, as its faults then end the process; and in a forked child, which does
    /// not have the region.
    ///
    /// # Cost
    /// Two system calls.
    ///
    /// # Examples
    /// ```
    /// use tombolo::{EventsRegion, OpenOptions};
    /// let region = EventsRegion::anonymous(OpenOptions::new())?;
    /// assert!(region.is_guarded());
    /// # Ok::<(), tombolo::Error>(())
    /// ```
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        self.region.mapping().is_guarded()
    }
}
