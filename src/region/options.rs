//! How a region is opened, and what it is like if it has to be created.

use std::time::Duration;

use tombolo_abi::{
    HANDLE_COUNT_MAX, RING_COUNT_MAX, RingKind, SLOT_COUNT_MAX, TOTAL_LEN_MAX, caps,
};

use super::plan::Plan;
use super::rings::RingOptions;
use crate::error::Error;

/// What to do if there is a region already, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreatePolicy {
    /// Join the region, or create it if there is none.
    #[default]
    OpenOrCreate,
    /// Create a new region. An existing region is replaced if no process owns an endpoint of it; its
    /// unread messages are lost, also to processes that have it open without an endpoint. Fails with
    /// [`Error::InUse`] otherwise. The new one is made before the old one goes: it needs space for both.
    CreateNew,
    /// Join the region; if there is none, [`Error::NotFound`].
    OpenExisting,
}

/// Who may own the file of a region, and who may be able to write to it.
///
/// A process that can write to the file can break the region for all its users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OwnerPolicy {
    /// Only this process's effective user.
    #[default]
    SameUser,
    /// Any user, if the file belongs to a group of this process; that group may write.
    Group,
    /// Any user, and all may write.
    Any,
}

/// Whether opening a region also faults its pages in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Prefault {
    /// While opening, if the file has the pages: the first messages pay no page faults. A lane's pages
    /// come when its producer attaches; its consumer takes the first 1 MiB with the first message from
    /// there, and the rest when it is first used.
    #[default]
    AtOpen,
    /// Each page when it is first used. The file of a region with a name has all its pages nevertheless, so that
    /// none is refused later. One without a name takes memory page by page, as a process's own memory does, unless
    /// the kernel keeps to what it has promised (`vm.overcommit_memory` 2): making a large one costs no more than a
    /// small one.
    OnDemand,
}

/// On which file systems a region may lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileSystemPolicy {
    /// tmpfs, ext4, xfs, btrfs and f2fs, whose locks and mappings are known to behave.
    #[default]
    Known,
    /// Any. On a network file system peers may not see each other's locks. On a stacked one an
    /// endpoint is kept by an open descriptor: what closes descriptors wholesale loses it, and a
    /// forked child keeps its dead parent's endpoints until it ends or execs.
    Any,
}

/// In which order the messages of many producers come out.
///
/// The creator of the region decides. A joiner that sets no order takes what is there, and uses it by
/// the same types.
///
/// | | [`Total`](Self::Total) | [`PerProducer`](Self::PerProducer) |
/// |---|---|---|
/// | order | one for all: a send that returned before another one began comes first | each producer's own; two producers' messages may come in either order, also if one of them had received the other's answer |
/// | made of | one ring, its space shared under a lock | a ring for each producer, a *lane*; the consumer goes from one to the next |
/// | cost of a send | a lock, and its cache line | that of the ring with one producer |
/// | a producer that is stopped inside a send | holds up the others | holds up no other |
/// | memory | one data area | one for each of [`OpenOptions::producers`] |
/// | clones of a producer | share its endpoint | each attaches to a lane of its own at first use |
///
/// Choose `Total` if a message may depend on another producer's, `PerProducer` for clients that
/// know nothing of each other, and wherever one of them must not be able to slow down the rest.
///
/// Of lanes, this is good to know:
///
/// * A producer's messages stay in order from when it attaches until it is dropped. One that is dropped
///   and attaches again, or starts again after a crash, may get another lane, and what it sends there may
///   come before what it had sent on the first.
/// * The lane of a producer that was dropped or killed has no next owner until its messages have been
///   received. So give the region more [`OpenOptions::producers`] than there are processes that send, or
///   repeat [`Sender::attach`](crate::Sender::attach) while it fails with [`Error::LaneNotEmpty`].
/// * Producers that come and go are one side: when all that have attached are gone, the consumer is
///   disconnected, and [`Receiver::iter`](crate::Receiver::iter) ends. Attach all clones of a producer
///   before the first of them may be dropped.
/// * Positions repeat between lanes: a message is known by [`RecordRef::ring`](crate::RecordRef::ring)
///   and [`RecordRef::position`](crate::RecordRef::position) together.
/// * A message that stays, by [`RecordRef::keep`](crate::RecordRef::keep) or
///   [`Error::BufferTooSmall`], may not be the next one: another lane may come first.
/// * Damage in one lane closes all lanes of its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MpscOrder {
    /// One order for all producers.
    #[default]
    Total,
    /// Each producer's messages in its own order.
    PerProducer,
}

impl MpscOrder {
    /// As an error names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Total => "Total",
            Self::PerProducer => "PerProducer",
        }
    }
}

/// Options of [`EventsRegion::open_with`](crate::EventsRegion::open_with) and its relatives.
///
/// The creator of a region decides what it is like. A joiner requires what it has *set*, and takes the
/// rest as it is: capacities, the longest message, handles and producers are minima,
/// [`Self::max_total_len`] is a maximum, the order must be that of the region. A mismatch fails with
/// [`Error::Layout`], which names the option, what was found and what was wanted.
/// [`EventsRegion::max_handles`](crate::EventsRegion::max_handles) and its neighbours report what a joined
/// region has.
///
/// # Examples
/// ```
/// use tombolo::{EventsRegion, OpenOptions};
/// let options = OpenOptions::new().spsc_capacity(1 << 16).max_message(4096).producers(8);
/// let region = EventsRegion::anonymous(options)?;
/// assert!(region.is_creator());
/// # Ok::<(), tombolo::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct OpenOptions {
    // What a joiner asks of a region: at least this, at most this length, exactly this order. `None` if it takes
    // what there is.
    pub(super) spsc_capacity: Option<u64>,
    pub(super) mpsc_capacity: Option<u64>,
    pub(super) max_message: Option<u32>,
    pub(super) max_handles: Option<u16>,
    pub(super) producers: Option<u16>,
    pub(super) order: Option<MpscOrder>,
    /// What the region is to hold instead of the two rings that the fields above speak of; none if it is these.
    pub(super) rings: Vec<RingOptions>,
    /// Whether the listed rings are the two directions of a channel.
    pub(super) is_channel: bool,
    pub(super) max_total_len: Option<u64>,
    pub(super) required_caps: u64,
    pub(crate) policy: CreatePolicy,
    mode: Option<u32>,
    pub(crate) owner: OwnerPolicy,
    join_timeout: Option<Duration>,
    pub(crate) prefault: Prefault,
    pub(crate) file_system: FileSystemPolicy,
}

impl OpenOptions {
    /// Join or create; two rings of 1 MiB, messages of up to 65536 bytes, 64 producers, mode 0600,
    /// a file of this user only, 5 seconds to wait for a creator.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a ring to those that the region holds, which are numbered from 0 on in the order of these calls;
    /// [`EventsRegion::spsc_sender`](crate::EventsRegion::spsc_sender) and its neighbours give their ends.
    ///
    /// A region of which no ring is listed has two: an SPSC ring and then an MPSC ring, as the other options
    /// say. Those options are not for listed rings: each has its own.
    ///
    /// A joiner that lists rings requires them: ring by ring of the kind listed, and of what it has set at least
    /// as much. The region may hold more behind them. A joiner that lists none takes what is there.
    ///
    /// At most 1024 rings, a lane counting as one, with 8192 ends, of which each ring has one for its receiver and
    /// one for each producer, and 2^46 bytes.
    ///
    /// # Examples
    /// ```
    /// use tombolo::options::RingOptions;
    /// use tombolo::{EventsRegion, OpenOptions};
    /// // Two directions, and no ring for many producers.
    /// let ring = || RingOptions::spsc().capacity(1 << 16);
    /// let region = EventsRegion::anonymous(OpenOptions::new().ring(ring()).ring(ring()))?;
    /// let (mut ask, mut answer) = (region.spsc_sender(0)?, region.spsc_sender(1)?);
    /// ask.send(b"how many?")?;
    /// assert_eq!(region.spsc_receiver(0)?.recv()?.data, b"how many?");
    /// answer.send(b"two")?;
    /// assert_eq!(region.spsc_receiver(1)?.recv()?.data, b"two");
    /// assert!(region.mpsc_producer(0).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ring(mut self, ring: RingOptions) -> Self {
        self.rings.push(ring);
        self
    }

    /// Bytes of the SPSC ring's data area: a power of two from 4096 to 2^40. Default 1 MiB.
    pub fn spsc_capacity(self, bytes: u64) -> Self {
        Self { spsc_capacity: Some(bytes), ..self }
    }

    /// Bytes of the MPSC ring's data area: a power of two from 4096 to 2^40. Default 1 MiB. With
    /// [`MpscOrder::PerProducer`], of each lane's data area, by default 256 KiB.
    pub fn mpsc_capacity(self, bytes: u64) -> Self {
        Self { mpsc_capacity: Some(bytes), ..self }
    }

    /// The longest message in bytes, at most 2^28 - 8. With its header it takes at most a quarter
    /// of each ring, so that it always finds space in the end. Default 65536, or what fits: 65520 with
    /// lanes of 256 KiB.
    pub fn max_message(self, bytes: u32) -> Self {
        Self { max_message: Some(bytes), ..self }
    }

    /// The most handles of one message, at most 64. Default 0: messages carry bytes only.
    ///
    /// With more, a receiver listens on a socket from when it attaches until it is dropped, under a name in
    /// the region's directory: attaching fails with [`Error::Io`] if it cannot write there. In a region
    /// without a name, senders find it by sockets that travel with the region, see
    /// [`EventsRegion::to_fds`](crate::EventsRegion::to_fds). The receiver accepts connections of the users
    /// that may use the region, as the kernel names them: this one, the file's owner, root, and its group
    /// or all if the file's mode lets them write.
    pub fn max_handles(self, count: u16) -> Self {
        Self { max_handles: Some(count), ..self }
    }

    /// Processes that may send on the MPSC ring at the same time, 1 to 8189. Default 64. With
    /// [`MpscOrder::PerProducer`] the number of lanes, 1 to 512: each takes its capacity of the file,
    /// and a clone of a producer takes one too.
    pub fn producers(self, count: u16) -> Self {
        Self { producers: Some(count), ..self }
    }

    /// In which order the messages of many producers come out. Default: [`MpscOrder::Total`].
    ///
    /// # Examples
    /// ```
    /// use tombolo::{EventsRegion, OpenOptions};
    /// use tombolo::options::MpscOrder;
    /// let options = OpenOptions::new().mpsc_order(MpscOrder::PerProducer).producers(8);
    /// let mut region = EventsRegion::anonymous(options)?;
    /// let (mut first, mut consumer) = region.split_mpsc()?;
    /// let mut second = first.clone(); // has a lane of its own
    /// first.send(b"one")?;
    /// second.send(b"two")?;
    /// let mut got = [consumer.recv()?.data, consumer.recv()?.data];
    /// got.sort();
    /// assert_eq!(got, [b"one", b"two"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mpsc_order(self, order: MpscOrder) -> Self {
        Self { order: Some(order), ..self }
    }

    /// The longest region in bytes that is joined or made. Default: no limit but the layout's, 2^46.
    ///
    /// A region takes as much memory or disk as its file has been given, and pages of a sparse file come
    /// when they are first used. So what joining costs is bounded by what its creator has paid; this bounds
    /// what it may cost later, if the creator is not to be trusted with that.
    ///
    /// # Examples
    /// ```
    /// use tombolo::{EventsRegion, OpenOptions};
    /// let theirs = EventsRegion::anonymous(OpenOptions::new())?; // two rings of 1 MiB
    /// let joined = EventsRegion::from_fd(theirs.to_fd()?, OpenOptions::new().max_total_len(1 << 20));
    /// assert!(joined.is_err_and(|error| error.to_string().contains("total_len")));
    /// # Ok::<(), tombolo::Error>(())
    /// ```
    pub fn max_total_len(self, bytes: u64) -> Self {
        Self { max_total_len: Some(bytes), ..self }
    }

    /// Capability bits that the region must have, as in the layout's `caps_required`. A creator
    /// sets them.
    pub fn require(self, capabilities: u64) -> Self {
        Self { required_caps: self.required_caps | capabilities, ..self }
    }

    /// Whether to create, to join, or either. Default: either.
    pub fn policy(self, policy: CreatePolicy) -> Self {
        Self { policy, ..self }
    }

    /// Mode bits of a new file, whatever the umask; at least 0600. An existing file that the group
    /// or others may write to is refused unless these bits, or [`Self::owner`], allow it.
    /// Default 0600.
    pub fn mode(self, bits: u32) -> Self {
        Self { mode: Some(bits), ..self }
    }

    /// Who may own an existing file. Default: the same user only.
    pub fn owner(self, owner: OwnerPolicy) -> Self {
        Self { owner, ..self }
    }

    /// How long to wait for another process that is creating or replacing the region. One that
    /// died is not waited for. Default 5 seconds.
    pub fn join_timeout(self, timeout: Duration) -> Self {
        Self { join_timeout: Some(timeout), ..self }
    }

    /// When pages are faulted in. Default: at open.
    pub fn prefault(self, prefault: Prefault) -> Self {
        Self { prefault, ..self }
    }

    /// Which file systems are allowed. Default: those known to work.
    pub fn file_system(self, file_system: FileSystemPolicy) -> Self {
        Self { file_system, ..self }
    }

    /// The options of a channel: [`Self::spsc_capacity`], [`Self::max_message`] and [`Self::max_handles`] are those
    /// of each direction.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for what a channel doesn't have.
    pub(crate) fn of_channel(mut self) -> Result<Self, Error> {
        let wanted = "not set: a channel has two SPSC rings, and no other";
        for (option, set) in [
            ("ring", (!self.rings.is_empty()).then_some(self.rings.len() as u64)),
            ("mpsc_capacity", self.mpsc_capacity),
            ("producers", self.producers.map(u64::from)),
            ("mpsc_order", self.order.map(|order| order as u64)),
        ] {
            refuse_unless(set.is_none(), option, set.unwrap_or(0), wanted)?;
        }
        let mut ring = RingOptions { capacity: self.spsc_capacity.take(), ..RingOptions::spsc() };
        ring.max_message = self.max_message.take();
        ring.max_handles = self.max_handles.take();
        self.rings = vec![ring.clone(), ring];
        self.is_channel = true;
        Ok(self)
    }

    /// Whether a region of `total_len` bytes may be made.
    pub(crate) fn check_total_len(&self, total_len: u64) -> Result<(), Error> {
        let max = self.max_total_len.unwrap_or(u64::MAX);
        let wanted = "at least the length of a region with these rings";
        refuse_unless(total_len <= max, "max_total_len", max, wanted)
    }

    /// The layout of a region created with these options, which have been checked.
    pub(crate) fn plan(&self) -> Plan {
        let page_len = rustix::param::page_size() as u32;
        let mut plan = Plan::of(&self.new_rings(), self.new_caps(), page_len);
        if self.is_channel {
            plan.pair();
        }
        plan
    }

    /// The rings of a region created with these options.
    fn new_rings(&self) -> Vec<RingOptions> {
        if !self.rings.is_empty() {
            let mut rings = self.rings.clone();
            if self.is_channel {
                let unset = rings.iter_mut().filter(|ring| ring.max_handles.is_none());
                unset.for_each(|ring| ring.max_handles = Some(HANDLE_COUNT_MAX));
            }
            return rings;
        }
        let mut spsc = RingOptions { capacity: self.spsc_capacity, ..RingOptions::spsc() };
        let kind = match self.order.unwrap_or_default() {
            MpscOrder::Total => RingKind::Mpsc,
            MpscOrder::PerProducer => RingKind::Lane,
        };
        let mut mpsc = RingOptions { capacity: self.mpsc_capacity, ..RingOptions::of(kind) };
        mpsc.producers = self.producers;
        let fits_both = spsc.new_max_message().min(mpsc.new_max_message());
        for ring in [&mut spsc, &mut mpsc] {
            ring.max_message = Some(self.max_message.unwrap_or(fits_both));
            ring.max_handles = self.max_handles;
        }
        vec![spsc, mpsc]
    }

    pub(crate) fn new_mode(&self) -> u32 {
        self.mode.unwrap_or(0o600)
    }

    /// The capabilities of a region created with these options.
    pub(crate) fn new_caps(&self) -> u64 {
        let rings = self.new_rings();
        let has_handles = rings.iter().any(|ring| ring.new_max_handles() > 0);
        let handles = if has_handles { caps::EXT | caps::HANDLES } else { 0 };
        let has_lanes = rings.iter().any(RingOptions::is_of_lanes);
        let lanes = if has_lanes { caps::LANES } else { 0 };
        self.required_caps | handles | lanes
    }

    /// How long to wait for others.
    pub(crate) fn patience(&self) -> Duration {
        self.join_timeout.unwrap_or(Duration::from_secs(5))
    }

    /// Group and other write bits that an existing file may have.
    pub(crate) fn write_bits_allowed(&self) -> u32 {
        let by_owner = match self.owner {
            OwnerPolicy::SameUser => 0,
            OwnerPolicy::Group => 0o020,
            OwnerPolicy::Any => 0o022,
        };
        self.new_mode() | by_owner
    }

    /// Whether a region may be created with these options. A caller that only joins may ask for
    /// any minima.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.check_lists()?;
        if self.policy == CreatePolicy::OpenExisting {
            return Ok(());
        }
        let is_listed = !self.rings.is_empty();
        let rings = self.new_rings();
        for (index, ring) in (0..).zip(&rings) {
            ring.check(is_listed.then_some(index))?;
        }
        check_sum(&rings)?;
        let mode = self.new_mode();
        let mode_is_legal = mode & !0o777 == 0 && mode & 0o600 == 0o600;
        refuse_unless(mode_is_legal, "mode", mode, "permission bits with at least 0600")?;
        self.check_caps()?;
        let (total_len, wanted) =
            (self.plan().total_len(), "rings that take at most 2^46 bytes together");
        refuse_unless(total_len <= TOTAL_LEN_MAX, "ring", total_len, wanted)
    }

    /// Whether a joiner is to have a ring whose messages carry handles.
    pub(crate) fn asks_for_handles(&self) -> bool {
        let of_rings = self.rings.iter().map(|ring| ring.max_handles);
        of_rings.chain([self.max_handles]).any(|asked| asked.unwrap_or(0) > 0)
    }

    /// Whether listed rings are all that is said of rings.
    pub(crate) fn check_lists(&self) -> Result<(), Error> {
        if self.rings.is_empty() {
            return Ok(());
        }
        for (option, set) in [
            ("spsc_capacity", self.spsc_capacity),
            ("mpsc_capacity", self.mpsc_capacity),
            ("max_message", self.max_message.map(u64::from)),
            ("max_handles", self.max_handles.map(u64::from)),
            ("producers", self.producers.map(u64::from)),
            ("mpsc_order", self.order.map(|order| order as u64)),
        ] {
            let wanted = "not set beside OpenOptions::ring: listed rings have options of their own";
            refuse_unless(set.is_none(), option, set.unwrap_or(0), wanted)?;
        }
        Ok(())
    }

    fn check_caps(&self) -> Result<(), Error> {
        let caps = self.required_caps;
        let can_set = caps & !(caps::EXT | caps::HANDLES | caps::LANES) == 0;
        let wanted = "of EXT (1), HANDLES (2) and LANES (16), to create a region";
        refuse_unless(can_set, "require", caps, wanted)?;
        let rings = self.new_rings();
        let lacks = |bit, has: fn(&RingOptions) -> bool| caps & bit != 0 && !rings.iter().any(has);
        let lacks_lanes = lacks(caps::LANES, RingOptions::is_of_lanes);
        refuse_unless(!lacks_lanes, "require", caps, "an order per producer beside LANES (16)")?;
        let lacks_handles = lacks(caps::HANDLES, |ring| ring.new_max_handles() > 0);
        refuse_unless(!lacks_handles, "require", caps, "max_handles above 0 beside HANDLES (2)")
    }
}

/// Whether one region can hold all of `rings`, each of which is legal.
fn check_sum(rings: &[RingOptions]) -> Result<(), Error> {
    let numbers = |ring: &RingOptions| {
        if ring.is_of_lanes() { u64::from(ring.new_producers()) } else { 1 }
    };
    let count: u64 = rings.iter().map(numbers).sum();
    let wanted = "at most 1024 rings in a region, a lane counting as one";
    refuse_unless(count <= RING_COUNT_MAX.into(), "ring", count, wanted)?;
    let ends = |ring: &RingOptions| 1 + u64::from(ring.new_producers());
    let count: u64 = rings.iter().map(ends).sum();
    let wanted = "at most 8192 ends in a region: of each ring its receiver and its producers";
    refuse_unless(count <= SLOT_COUNT_MAX.into(), "ring", count, wanted)
}

fn refuse_unless(
    legal: bool,
    option: &'static str,
    found: impl Into<u64>,
    wanted: &'static str,
) -> Result<(), Error> {
    let (ring, found) = (None, found.into());
    if legal { Ok(()) } else { Err(Error::InvalidOption { option, ring, found, wanted }) }
}

#[cfg(test)]
mod tests;
