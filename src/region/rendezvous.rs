//! How senders and the consumer of a ring find each other in a region without a name.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use tombolo_abi::RingEntry;

use super::refusal;
use super::rings::listed;
use crate::error::Error;
use crate::os::descriptor::Descriptor;
use crate::os::{fork, socket};

/// What is no connection and skipped in one poll.
const JUNK_MAX: u32 = 1024;

/// Two connected sockets that all processes with the region share. Senders put their connections in
/// at one, the consumer takes them out at the other; nothing goes the other way.
#[derive(Debug)]
pub(crate) struct Rendezvous {
    /// The ring, or the first of a group of lanes.
    pub(super) ring: u32,
    entrance: Descriptor,
    exit: Descriptor,
}

impl Rendezvous {
    /// One for each ring of a new region whose messages may carry handles.
    pub(super) fn of_all(entries: &[RingEntry]) -> Result<Vec<Self>, Errno> {
        let new = |ring| {
            let (entrance, exit) = socket::pair()?;
            socket::stop_receiving(entrance.as_fd())?;
            Self::new(ring, entrance, exit)
        };
        rings(entries).map(new).collect()
    }

    /// Those that came with a region as descriptors, in the order of [`Self::descriptors`].
    ///
    /// # Errors
    /// [`Error::WrongDescriptor`], numbering them from 1: before them comes the file's.
    pub(super) fn passed(
        path: &Path,
        entries: &[RingEntry],
        sockets: Vec<OwnedFd>,
    ) -> Result<Vec<Self>, Error> {
        let wrong = |index, found, wanted| {
            let path = path.to_owned();
            Err(Error::WrongDescriptor { path, index, found, wanted })
        };
        let (found, wanted) = (sockets.len(), 2 * rings(entries).count());
        if let Some(other) = sockets.iter().position(|one| !socket::is_of_packets(one.as_fd())) {
            return wrong(1 + other, "something else", "a socket of packets");
        }
        if found > wanted {
            return wrong(1 + wanted, "one too many", "none");
        }
        if found < wanted {
            return wrong(1 + found, "missing", "a socket of packets");
        }
        let is_entrance = |one: &OwnedFd| socket::receives_nothing(one.as_fd());
        let is_out_of_place = |(index, one)| is_entrance(one) != (index % 2 == 0);
        if let Some(other) = sockets.iter().enumerate().position(is_out_of_place) {
            return wrong(1 + other, "the other socket of a ring", "them in their order");
        }
        let mut sockets = sockets.into_iter();
        let pairs = std::iter::from_fn(|| Some((sockets.next()?, sockets.next()?)));
        let of_ring = |(ring, (entrance, exit))| Self::new(ring, entrance, exit);
        let all: Result<_, _> = rings(entries).zip(pairs).map(of_ring).collect();
        all.map_err(|error| refusal::io("keep the sockets of", path, error))
    }

    /// A forked child has them, too: they can be passed on from there, and each is shared anyway.
    fn new(ring: u32, entrance: OwnedFd, exit: OwnedFd) -> Result<Self, Errno> {
        let (entrance, exit) = (Descriptor::shared(entrance)?, Descriptor::shared(exit)?);
        Ok(Self { ring, entrance, exit })
    }

    /// Copies of both sockets, to be passed on.
    pub(super) fn copies(&self) -> io::Result<[OwnedFd; 2]> {
        let copy = |one: &Descriptor| {
            one.stat()?; // else it is another's by now
            one.as_fd().try_clone_to_owned()
        };
        Ok([copy(&self.entrance)?, copy(&self.exit)?])
    }

    /// Both sockets, to distinguish them from others.
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.entrance.as_fd(), self.exit.as_fd()]
    }

    /// A new connection: one end is returned, the other put in for the consumer to take out.
    pub(crate) fn enter(&self) -> Result<Descriptor, Errno> {
        let no_forks = fork::hold_off()?; // until theirs is closed here
        let (ours, theirs) = socket::pair()?;
        socket::send(&self.entrance, &[0], &[theirs.as_fd()])?;
        Descriptor::private(ours, &no_forks)
    }

    /// Takes a connection out; `None` if there is none. What is not one is dropped.
    pub(crate) fn take_out(&self) -> Result<Option<Descriptor>, Errno> {
        for _ in 0..JUNK_MAX {
            let mut found; // closed when forks go on: another's files may take any time for that
            let no_forks = fork::hold_off()?;
            found = match socket::peek(self.exit.as_fd(), &mut [0; 1]) {
                Err(Errno::AGAIN) => return Ok(None),
                found => found?,
            };
            if found.is_cut && found.descriptors.is_empty() {
                return Err(Errno::MFILE); // it stays; of more than one there would be some
            }
            socket::drop_first(&self.exit)?;
            if !found.is_cut
                && found.descriptors.len() == 1
                && let Some(one) =
                    found.descriptors.pop_if(|one| socket::is_of_packets(one.as_fd()))
            {
                return Descriptor::private(one, &no_forks).map(Some);
            }
        }
        Ok(None)
    }
}

/// Rings that have a rendezvous: of lanes, the first.
fn rings(entries: &[RingEntry]) -> impl Iterator<Item = u32> {
    listed(entries).filter(|ring| entries[*ring as usize].max_handles > 0)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use tombolo_abi::RingKind;

    use super::*;
    use crate::os::staged::{self, limit_descriptors, lowest_free};
    use crate::region::MpscOrder;
    use crate::{EventsRegion, OpenOptions};

    fn nameless() -> EventsRegion {
        EventsRegion::anonymous(OpenOptions::new().max_handles(1)).unwrap()
    }

    #[test]
    fn each_ring_that_carries_handles_has_two_sockets_and_lanes_have_them_together() {
        let count = |options| EventsRegion::anonymous(options).unwrap().to_fds().unwrap().len();
        let lanes = || OpenOptions::new().mpsc_order(MpscOrder::PerProducer).producers(3);
        assert_eq!(count(OpenOptions::new()), 1);
        assert_eq!(count(OpenOptions::new().max_handles(1)), 1 + 2 * 2);
        assert_eq!(count(lanes()), 1);
        assert_eq!(count(lanes().max_handles(1)), 1 + 2 * 2);
    }

    #[test]
    fn a_number_that_means_nothing_makes_no_ring_a_later_lane() {
        let entry = |kind: RingKind, lane_index| {
            let mut entry: RingEntry = bytemuck::Zeroable::zeroed();
            entry.kind = kind as u32;
            entry.lane_index = lane_index;
            entry.max_handles = 1;
            entry
        };
        let entries = [(RingKind::Spsc, 5), (RingKind::Lane, 1), (RingKind::Lane, 0)];
        let entries = entries.map(|(kind, lane)| entry(kind, lane));
        assert_eq!(rings(&entries).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn too_few_and_too_many_sockets_are_refused() {
        let region = nameless();
        let refused = |fds| match EventsRegion::from_fds(fds, OpenOptions::new()) {
            Err(Error::WrongDescriptor { index, found, .. }) => (index, found),
            joined => panic!("{joined:?}"),
        };
        let mut fds = region.to_fds().unwrap();
        fds.pop();
        assert_eq!(refused(fds), (4, "missing"));
        let mut fds = region.to_fds().unwrap();
        fds.push(region.to_fds().unwrap().pop().unwrap());
        assert_eq!(refused(fds), (5, "one too many"));
    }

    /// Puts sockets in at the side for connections.
    fn put_in(rendezvous: &Rendezvous, count: usize) {
        let (one, other) = socket::pair().unwrap();
        let both = [one.as_fd(), other.as_fd()];
        socket::send(&rendezvous.entrance, &[0], &both[..count]).unwrap();
    }

    #[test]
    fn one_socket_is_a_connection_and_more_are_none() {
        let region = nameless();
        let rendezvous = region.shared().rendezvous(0).unwrap();
        put_in(rendezvous, 2);
        assert!(rendezvous.take_out().unwrap().is_none());
        put_in(rendezvous, 2);
        put_in(rendezvous, 1);
        assert!(rendezvous.take_out().unwrap().is_some());
    }

    #[test]
    fn at_the_limit_of_descriptors_a_connection_stays_and_no_part_is_taken_for_one() {
        let region = nameless();
        let rendezvous = region.shared().rendezvous(0).unwrap();
        put_in(rendezvous, 2);
        assert!(staged::in_child(|| {
            limit_descriptors(lowest_free() + 1);
            rendezvous.take_out().unwrap().is_none()
        }));
        put_in(rendezvous, 1);
        assert!(staged::in_child(|| {
            let lowest = lowest_free();
            limit_descriptors(lowest);
            let refused = rendezvous.take_out().err() == Some(Errno::MFILE);
            limit_descriptors(lowest + 1);
            refused && rendezvous.take_out().unwrap().is_some()
        }));
    }

    #[test]
    fn what_is_no_socket_of_packets_is_refused_wherever_it_stands() {
        let region = nameless();
        for place in 1..5 {
            let mut fds = region.to_fds().unwrap();
            assert_eq!(fds.len(), 5);
            fds[place] = File::open("/proc/self/exe").unwrap().into();
            let joined = EventsRegion::from_fds(fds, OpenOptions::new());
            assert!(
                matches!(
                    joined,
                    Err(Error::WrongDescriptor { index, found: "something else", .. })
                        if index == place
                ),
                "{joined:?}"
            );
        }
    }
}
