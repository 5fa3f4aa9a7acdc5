//! A private, checked copy of what a region says about itself, and how far its creation has come.

use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use tombolo_abi::{
    HEADER_LEN, Header, LayoutError, MAGIC, RegionState, RingControl, RingEntry, RingKind,
    check_directory, check_writable, parse_entries, parse_header,
};

use super::options::{MpscOrder, OpenOptions};
use super::refusal;
use super::rings::{RingDescription, RingOptions, listed};
use crate::error::Error;
use crate::os::boot::{self, MadeIn};
use crate::os::file;

pub(crate) const STATE_OFFSET: u64 = offset_of!(Header, state) as u64;

/// Rings of messages.
const OF_MESSAGES: [RingKind; 3] = [RingKind::Spsc, RingKind::Mpsc, RingKind::Lane];

/// The state of the region in the file, by its first bytes; `Empty` if it holds nothing at all. A file that has
/// bytes, but not the magic number first, is another program's: an error, and it is never written to.
pub(crate) fn state_in(file: BorrowedFd<'_>, path: &Path) -> Result<RegionState, Error> {
    let mut bytes = [0; HEADER_LEN];
    let bytes = read_start(file, path, &mut bytes)?;
    if bytes.is_empty() {
        return Ok(RegionState::Empty);
    }
    if bytes.len() < HEADER_LEN || !bytes.starts_with(&MAGIC) {
        let error = parse_header(bytes).err();
        let reason = error.unwrap_or(LayoutError::BadMagic { found: [0; 8] });
        return Err(layout(path, reason));
    }
    let header: Header = bytemuck::pod_read_unaligned(bytes);
    state_of(path, header.state)
}

/// The state that the word `found` stands for.
pub(crate) fn state_of(path: &Path, found: u32) -> Result<RegionState, Error> {
    RegionState::from_word(found).ok_or_else(|| {
        let (found, limit) = (found.into(), RegionState::Poisoned as u64);
        let reason =
            LayoutError::Field { field: "state", ring: None, found, wanted: "at most", limit };
        layout(path, reason)
    })
}

/// Header and directory, copied once and checked; nothing else of the file's immutable part is
/// ever read again.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    pub(crate) header: Header,
    pub(crate) entries: Vec<RingEntry>,
}

impl Description {
    /// Reads and checks the description in `file`, whatever its state.
    pub(crate) fn read(file: BorrowedFd<'_>, path: &Path) -> Result<Self, Error> {
        let mut bytes = [0; HEADER_LEN];
        let bytes = read_start(file, path, &mut bytes)?;
        let header = parse_header(bytes).map_err(|reason| layout(path, reason))?;
        let stat = rustix::fs::fstat(file).map_err(|error| refusal::io("stat", path, error))?;
        let file_len = stat.st_size as u64;
        // At most 1024 entries of at most a page each, by `parse_header`.
        let mut directory = vec![0; header.ring_count as usize * header.entry_len as usize];
        let found_len = file::read_at(file, &mut directory, header.directory_offset)
            .map_err(|error| refusal::io("read", path, error))?;
        if found_len < directory.len() {
            let (path, claimed_len) = (path.to_owned(), header.total_len);
            return Err(Error::RegionTooSmall { path, found_len: file_len, claimed_len });
        }
        let page_len = rustix::param::page_size() as u32;
        check_directory(&header, &directory, file_len, page_len)
            .and_then(|()| check_writable(&header))
            .map_err(|reason| layout(path, reason))?;
        let entries = parse_entries(&header, &directory).collect();
        Ok(Self { header, entries })
    }

    /// Whether the region has what the caller asked for.
    pub(crate) fn check(&self, path: &Path, asked: &OpenOptions) -> Result<(), Error> {
        let refuse = |field, found, wanted, limit| {
            Err(layout(path, LayoutError::Field { field, ring: None, found, wanted, limit }))
        };
        let (found, limit) = (self.header.total_len, asked.max_total_len.unwrap_or(u64::MAX));
        if found > limit {
            return refuse("total_len", found, "at most", limit);
        }
        let (found, wanted) = (self.header.caps_required, asked.required_caps);
        if wanted & !found != 0 {
            return refuse("caps_required", found, "all capability bits of", wanted);
        }
        if asked.is_channel {
            self.check_channel().map_err(|reason| layout(path, reason))?; // before its rings are compared
        }
        let at_least = [
            ("spsc_capacity", self.spsc_capacity(), asked.spsc_capacity),
            ("mpsc_capacity", self.mpsc_capacity(), asked.mpsc_capacity),
            ("max_message", self.max_message(), asked.max_message.map(u64::from)),
            ("max_handles", self.max_handles(), asked.max_handles.map(u64::from)),
            ("producers", self.producers(), asked.producers.map(u64::from)),
        ];
        for (option, (ring, found), wanted) in at_least {
            if let Some(wanted) = wanted
                && found < wanted
            {
                let entry = ring.and_then(|ring| self.entries.get(ring as usize));
                let (ring, kind) = (None, entry.and_then(RingEntry::ring_kind));
                return Err(layout(
                    path,
                    LayoutError::OptionTooSmall { option, ring, kind, found, wanted },
                ));
            }
        }
        for (ring, asked) in (0..).zip(&asked.rings) {
            self.check_ring(ring, asked).map_err(|reason| layout(path, reason))?;
        }
        match asked.order {
            Some(wanted) if self.order() != Some(wanted) => {
                let (option, found) = ("mpsc_order", self.order().map_or("none", MpscOrder::name));
                let wanted = wanted.name();
                Err(layout(path, LayoutError::Option { option, found, wanted }))
            }
            _ => Ok(()),
        }
    }

    /// The number of ring `ring` of the list, or of its first lane.
    ///
    /// # Errors
    /// [`LayoutError::OtherRing`] if there is none, or if its kind, which should be `wanted`, is none that is
    /// `meant`.
    pub(crate) fn listed_ring(
        &self,
        ring: u32,
        wanted: RingKind,
        meant: impl Fn(RingKind) -> bool,
    ) -> Result<u32, LayoutError> {
        let first = listed(&self.entries).nth(ring as usize);
        let kind = |first| self.entries.get(first as usize).and_then(RingEntry::ring_kind);
        let found = first.and_then(kind);
        match first {
            Some(first) if found.is_some_and(meant) => Ok(first),
            _ => Err(LayoutError::OtherRing { ring: Some(ring), found, wanted }),
        }
    }

    /// Whether this is a channel: two SPSC rings, of which each carries the replies to the other.
    pub(crate) fn is_channel(&self) -> bool {
        matches!(&self.entries[..], [one, other]
            if one.is_half_of_channel(1) && other.is_half_of_channel(0))
    }

    /// Checks that [it is](Self::is_channel).
    ///
    /// # Errors
    /// [`LayoutError::NoChannel`].
    pub(crate) fn check_channel(&self) -> Result<(), LayoutError> {
        if self.is_channel() {
            return Ok(());
        }
        Err(LayoutError::NoChannel)
    }

    /// What each ring of the list is like.
    pub(crate) fn rings(&self) -> impl Iterator<Item = RingDescription> {
        listed(&self.entries).map(|first| RingDescription::of(&self.entries, first))
    }

    /// Whether ring `ring` of the list is as it was asked for.
    fn check_ring(&self, ring: u32, asked: &RingOptions) -> Result<(), LayoutError> {
        let first = self.listed_ring(ring, asked.kind, |kind| kind == asked.kind)?;
        let found = RingDescription::of(&self.entries, first);
        let at_least = [
            ("capacity", found.capacity, asked.capacity),
            ("max_message", found.max_message.into(), asked.max_message.map(u64::from)),
            ("max_handles", found.max_handles.into(), asked.max_handles.map(u64::from)),
            ("producers", found.producers.into(), asked.producers.map(u64::from)),
        ];
        for (option, found, wanted) in at_least {
            if let Some(wanted) = wanted
                && found < wanted
            {
                let (ring, kind) = (Some(ring), Some(asked.kind));
                return Err(LayoutError::OptionTooSmall { option, ring, kind, found, wanted });
            }
        }
        Ok(())
    }

    /// The smallest capacity of a ring with one producer, with that ring; 0 if there is none.
    pub(crate) fn spsc_capacity(&self) -> (Option<u32>, u64) {
        self.least(&[RingKind::Spsc], |entry| entry.capacity)
    }

    /// As [`Self::spsc_capacity`], of rings with many producers and of lanes.
    pub(crate) fn mpsc_capacity(&self) -> (Option<u32>, u64) {
        self.least(&[RingKind::Mpsc, RingKind::Lane], |entry| entry.capacity)
    }

    /// The length of a message that each ring takes.
    pub(crate) fn max_message(&self) -> (Option<u32>, u64) {
        self.least(&OF_MESSAGES, |entry| entry.max_message.into())
    }

    /// The count of handles that a message may carry on each ring.
    pub(crate) fn max_handles(&self) -> (Option<u32>, u64) {
        self.least(&OF_MESSAGES, |entry| entry.max_handles.into())
    }

    /// How many producers there may be at a time, of the first ring of many, or lanes; with that ring if it is one.
    pub(crate) fn producers(&self) -> (Option<u32>, u64) {
        let Some(ring) = self.of_many() else { return (None, 0) };
        let first = ring.numbers.start;
        ((ring.kind == RingKind::Mpsc).then_some(first), ring.producers.into())
    }

    /// In which order the messages of many producers come out; `None` without a ring of many.
    pub(crate) fn order(&self) -> Option<MpscOrder> {
        let is_lane = self.of_many()?.kind == RingKind::Lane;
        Some(if is_lane { MpscOrder::PerProducer } else { MpscOrder::Total })
    }

    /// The first ring with many producers.
    fn of_many(&self) -> Option<RingDescription> {
        self.rings().find(|ring| matches!(ring.kind, RingKind::Mpsc | RingKind::Lane))
    }

    fn least(&self, kinds: &[RingKind], value: impl Fn(&RingEntry) -> u64) -> (Option<u32>, u64) {
        let is_meant = |entry: &RingEntry| entry.ring_kind().is_some_and(|it| kinds.contains(&it));
        let rings = (0..).zip(&self.entries).filter(|(_, entry)| is_meant(entry));
        let least = rings.map(|(ring, entry)| (ring, value(entry))).min_by_key(|(_, value)| *value);
        least.map_or((None, 0), |(ring, value)| (Some(ring), value))
    }

    /// Whether an earlier boot made the region in `file`: no process of then lives, and its pages may be half
    /// written. If an endpoint is owned it was this boot. An error if that is unclear and something unread.
    pub(crate) fn is_of_earlier_boot(
        &self,
        file: BorrowedFd<'_>,
        path: &Path,
        is_owned: impl Fn() -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        let made_in = boot::judge(file, self.header.boot_id, self.header.created_unix_ns);
        match made_in.map_err(|error| refusal::io("stat the file system of", path, error))? {
            MadeIn::ThisBoot => Ok(false),
            _ if is_owned()? => Ok(false),
            MadeIn::EarlierBoot => Ok(true),
            MadeIn::Unclear { began_unix_ns } => {
                match self.check_nothing_unread(file, path, began_unix_ns) {
                    // Asked again: it may be the message of an owner that has just come.
                    Err(_) if is_owned()? => Ok(false),
                    unread => unread.map(|()| false),
                }
            }
        }
    }

    /// An error if a ring has a message, in a region of which it is unclear which boot made it: this one, and
    /// the message is good, or an earlier one, and its pages may be half written.
    fn check_nothing_unread(
        &self,
        file: BorrowedFd<'_>,
        path: &Path,
        began_unix_ns: u64,
    ) -> Result<(), Error> {
        for (ring, entry) in (0..).zip(&self.entries) {
            if entry.ring_kind().is_some_and(|kind| OF_MESSAGES.contains(&kind))
                && is_unread(file, entry).map_err(|error| refusal::io("read", path, error))?
            {
                let boots = [self.header.boot_id, boot::boot_id()];
                let [found, here] = boots.map(boot::uuid_text);
                let after_start = self.header.created_unix_ns.saturating_sub(began_unix_ns);
                let after_start = Duration::from_nanos(after_start);
                let path = path.to_owned();
                return Err(Error::UnclearBoot { path, ring, found, here, after_start });
            }
        }
        Ok(())
    }
}

/// Whether a ring has a message that was not received. A sender that was killed may have left `tail` behind
/// its last record.
fn is_unread(file: BorrowedFd<'_>, ring: &RingEntry) -> Result<bool, Errno> {
    let word = |offset: u64| {
        let mut bytes = [0; 8];
        // What the file has not got is as good as zero: joining finds it too short.
        file::read_at(file, &mut bytes, offset).map(|_| u64::from_le_bytes(bytes))
    };
    let head = word(ring.control_offset + offset_of!(RingControl, head) as u64)?;
    let tail = word(ring.control_offset + offset_of!(RingControl, tail) as u64)?;
    let at_head = ring.data_offset + (head & (ring.capacity - 1) & !7);
    Ok(head != tail || word(at_head)? != 0)
}

/// `reason` as the region's error; a short file has a variant of its own.
pub(crate) fn layout(path: &Path, reason: LayoutError) -> Error {
    let path = path.to_owned();
    match reason {
        LayoutError::TooSmall { found_len, claimed_len } => {
            Error::RegionTooSmall { path, found_len, claimed_len }
        }
        reason => Error::Layout { path, reason },
    }
}

/// The file's first bytes, as many as there are and fit into `bytes`.
fn read_start<'a>(
    file: BorrowedFd<'_>,
    path: &Path,
    bytes: &'a mut [u8],
) -> Result<&'a [u8], Error> {
    let len = file::read_at(file, bytes, 0).map_err(|error| refusal::io("read", path, error))?;
    Ok(&bytes[..len])
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs::File;
    use std::os::fd::{AsFd, OwnedFd};
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::os::file_system;
    use crate::{EventsRegion, OpenOptions};

    #[test]
    fn a_ring_is_unread_if_its_tail_or_a_record_says_so() {
        let region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let region = region.shared();
        let ring = &region.entries()[0];
        let word = |offset| region.mapping().word_u64(offset);
        let tail = word(ring.control_offset + offset_of!(RingControl, tail) as u64);
        let record = word(ring.data_offset);
        for (at_tail, at_head, expected) in [(0, 0, false), (64, 0, true), (0, 1, true)] {
            tail.store(at_tail, Relaxed);
            record.store(at_head, Relaxed);
            assert_eq!(is_unread(region.plain(), ring), Ok(expected));
        }
    }

    /// Whether a region with one ring of `kind`, in which there is something, is of an earlier boot, if another
    /// boot's id says so and nothing else; and how often it was asked whether it is owned, which it is from the
    /// question `owned_from` on. `None` if this program lies in memory.
    fn judged(kind: RingKind, owned_from: u32) -> Option<(Result<bool, Error>, u32)> {
        let file = File::open("/proc/self/exe").unwrap(); // the ring's words are those it begins with
        if file_system::is_memory(file_system::magic(file.as_fd()).unwrap()) {
            eprintln!("skipped: this program lies in memory");
            return None;
        }
        let (mut header, mut entry): (Header, RingEntry) =
            (bytemuck::Zeroable::zeroed(), bytemuck::Zeroable::zeroed());
        (header.boot_id, header.created_unix_ns) = ([7; 16], u64::MAX);
        (entry.kind, entry.capacity) = (kind as u32, 8);
        let description = Description { header, entries: vec![entry] };
        let asked = Cell::new(0);
        let is_owned = || Ok(asked.replace(asked.get() + 1) >= owned_from);
        let judged = description.is_of_earlier_boot(file.as_fd(), Path::new("name"), is_owned);
        Some((judged, asked.get()))
    }

    #[test]
    fn what_is_unread_counts_only_if_it_is_in_a_ring_of_messages_and_no_owner_has_come() {
        for (kind, owned_from, expected) in [
            (RingKind::Spsc, 0, (Ok(()), 1)),
            (RingKind::Spsc, 1, (Ok(()), 2)),
            (RingKind::Spsc, 2, (Err(()), 2)),
            (RingKind::Memory, 2, (Ok(()), 1)),
        ] {
            let Some((judged, asked)) = judged(kind, owned_from) else { return };
            assert!(!matches!(judged, Ok(true)));
            assert_eq!((judged.map(drop).map_err(drop), asked), expected, "{kind:?}, {owned_from}");
        }
    }

    /// A file in memory with these bytes.
    fn file_of(bytes: &[u8]) -> OwnedFd {
        let file = rustix::fs::memfd_create(c"m", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        file::write_at(file.as_fd(), bytes, 0).unwrap();
        file
    }

    #[test]
    fn what_limits_the_producers_is_named_if_it_is_one_ring() {
        let producers = |order| {
            let options = OpenOptions::new().producers(3).mpsc_order(order);
            EventsRegion::anonymous(options).unwrap().shared().description().producers()
        };
        assert_eq!(producers(MpscOrder::Total), (Some(1), 3));
        assert_eq!(producers(MpscOrder::PerProducer), (None, 3));
    }

    #[test]
    fn a_file_that_ends_within_its_description_is_too_short() {
        let path = Path::new("name");
        let region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let directory = region.shared().header().directory_offset as usize;
        let mut bytes = vec![0; directory + 8];
        file::read_at(region.shared().plain(), &mut bytes, 0).unwrap();
        let short = file_of(&bytes);
        assert_eq!(state_in(short.as_fd(), path).unwrap(), RegionState::Ready);
        let read = Description::read(short.as_fd(), path);
        assert!(matches!(read, Err(Error::RegionTooSmall { .. })), "{read:?}");
        for len in [8, HEADER_LEN - 1] {
            assert!(state_in(file_of(&bytes[..len]).as_fd(), path).is_err(), "{len}");
        }
        let reason = LayoutError::TooSmall { found_len: 1, claimed_len: 2 };
        let error = layout(path, reason);
        assert!(matches!(error, Error::RegionTooSmall { found_len: 1, claimed_len: 2, .. }));
    }
}
