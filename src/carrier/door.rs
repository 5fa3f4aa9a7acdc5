//! The acceptor, through which senders connect: a listener with a name beside the region's file, or the
//! rendezvous of a region without a name.

use std::mem::offset_of;
use std::sync::atomic::Ordering::{Acquire, Release};

use rustix::io::Errno;
use tombolo_abi::{LockWord, Slot, slot_flags};

use super::listener::{Listener, Said, said};
use crate::endpoint::slot_u32;
use crate::os::descriptor::Descriptor;
use crate::os::socket;
use crate::region::Region;

/// More connections than a rendezvous holds. Others may put them in as fast as they are taken out.
const WAITING_MAX: u32 = 4096;

/// The consumer's side of it.
#[derive(Debug)]
pub(super) enum Door {
    Listener(Listener),
    Rendezvous,
    /// Closed; or the region came as a descriptor, without a directory and without a rendezvous.
    None,
}

impl Door {
    /// Opens the acceptor of ring `ring`, or of the lanes of which that is the first, as `owner`.
    pub(super) fn open(region: &Region, ring: u32, owner: LockWord) -> Self {
        let door = match (region.rendezvous(ring), region.place()) {
            (Some(_), _) => Self::Rendezvous,
            (None, Some(place)) => Self::Listener(Listener::open(region, place, ring, owner)),
            (None, None) => Self::None,
        };
        match &door {
            Self::Listener(listener) if !listener.is_named() => {}
            Self::Listener(_) | Self::Rendezvous => announce(region, owner.slot),
            Self::None => {}
        }
        door
    }

    /// Sees to it that senders find it. To be repeated each second if [`Self::needs_care`].
    pub(super) fn look_after(&mut self, region: &Region) {
        if let (Self::Listener(listener), Some(place)) = (&mut *self, region.place())
            && listener.look_after(region, place)
        {
            announce(region, listener.slot());
        }
    }

    /// Whether senders may cease to find it.
    pub(super) fn needs_care(&self) -> bool {
        matches!(self, Self::Listener(_))
    }

    /// The next connection; `None` if no sender waits.
    pub(super) fn accept(&self, region: &Region, ring: u32) -> Result<Option<Descriptor>, Errno> {
        let accepted = match (self, region.rendezvous(ring)) {
            (Self::Listener(listener), _) => listener.accept(),
            (Self::Rendezvous, Some(rendezvous)) => rendezvous.take_out(),
            _ => Ok(None),
        };
        match accepted {
            // Closed by other code, and perhaps another file's number: what waited there is lost.
            Err(Errno::NOTCONN | Errno::BADF | Errno::NOTSOCK | Errno::INVAL) => Ok(None),
            accepted => accepted,
        }
    }

    /// Closes it: senders that wait are turned away, and a name is removed.
    pub(super) fn close(&mut self, region: &Region, ring: u32) {
        match (std::mem::replace(self, Self::None), region.place()) {
            (Self::Listener(listener), Some(place)) => listener.close(region, place),
            (Self::Rendezvous, _) => {
                let next = |_| matches!(Self::Rendezvous.accept(region, ring), Ok(Some(_)));
                let _ = (0..WAITING_MAX).all(next);
            }
            _ => {}
        }
    }
}

/// Says in the consumer's slot that it takes connections, and wakes senders that wait for one.
fn announce(region: &Region, slot: u16) {
    let flags = slot_u32(region, slot, offset_of!(Slot, flags));
    flags.fetch_or(slot_flags::HAS_SOCKET, Release); // the watcher sets others
    region.announce_membership();
}

/// Why there is no connection.
pub(super) enum NotConnected {
    /// There is no acceptor to find.
    NoDoor,
    /// The consumer could open none, because of an error of the kernel's.
    NotOpened(i32),
    Refused(Errno),
}

/// Connects to the `consumer` of ring `ring`, or of the lanes of which that is the first. The caller has
/// asked the kernel whether it lives: a rendezvous takes connections also if no process comes for them.
pub(super) fn connect(
    region: &Region,
    ring: u32,
    consumer: Option<u32>,
) -> Result<Descriptor, NotConnected> {
    let refused = NotConnected::Refused(Errno::CONNREFUSED);
    let connection = match (region.rendezvous(ring), region.place()) {
        (None, None) => return Err(NotConnected::NoDoor),
        (Some(_), _) if consumer.is_none() => return Err(refused),
        (Some(rendezvous), _) => rendezvous.enter(),
        (None, Some(place)) => match said(region, slot_of(region, ring)) {
            Said::Failed(error) => return Err(NotConnected::NotOpened(error)),
            Said::Number(number) if consumer.is_some() => {
                let name = region.socket_name(ring, number);
                place.dir_of_ours().and_then(|dir| socket::connect(dir, &name))
            }
            Said::Number(_) | Said::Nothing => return Err(refused),
        },
    };
    connection.map_err(NotConnected::Refused)
}

/// The consumer of ring `ring` that takes connections, if there is one, by its slot's count of changes,
/// which the next consumer's differs from. It may have exited.
pub(super) fn consumer(region: &Region, ring: u32) -> Option<u32> {
    let word = |offset| slot_u32(region, slot_of(region, ring), offset).load(Acquire); // it says so last
    let (filled, flags) = (word(offset_of!(Slot, seqlock)), word(offset_of!(Slot, flags)));
    (flags & slot_flags::HAS_SOCKET != 0).then_some(filled)
}

/// The slot of the consumer of ring `ring`.
fn slot_of(region: &Region, ring: u32) -> u16 {
    region.entries()[ring as usize].rx_slot
}

#[cfg(test)]
mod tests {
    use super::super::connection::tests::region;
    use super::*;
    use crate::options::MpscOrder;
    use crate::{EventsRegion, OpenOptions};

    fn owner(region: &Region, ring: u32) -> LockWord {
        LockWord { slot: slot_of(region, ring), incarnation: 1 }
    }

    fn named(path: &std::path::Path) -> EventsRegion {
        EventsRegion::open_path_with(path, OpenOptions::new().max_handles(8)).unwrap()
    }

    #[test]
    fn opening_wakes_the_senders_that_wait_for_a_receiver() {
        let region = region(MpscOrder::Total);
        let region = region.shared();
        let before = region.membership().load(Acquire);
        let _door = Door::open(region, 1, owner(region, 1));
        assert_ne!(region.membership().load(Acquire), before);
        assert!(consumer(region, 1).is_some());
    }

    #[test]
    fn a_receiver_without_a_name_does_not_say_that_it_takes_connections() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r");
        let region = named(&path);
        std::fs::remove_file(path).unwrap();
        directory.close().unwrap(); // no name can be made in what is removed
        let region = region.shared();
        let _door = Door::open(region, 0, owner(region, 0));
        assert_eq!(consumer(region, 0), None);
        let Err(NotConnected::NotOpened(_)) = connect(region, 0, None) else {
            panic!("connected, or it is not told why not")
        };
    }

    #[test]
    fn no_sender_connects_before_the_receiver_says_that_it_takes_connections() {
        let directory = tempfile::tempdir().unwrap();
        let region = named(&directory.path().join("r"));
        let region = region.shared();
        let place = region.place().unwrap();
        let _listener = Listener::open(region, place, 0, owner(region, 0));
        let refused = connect(region, 0, consumer(region, 0));
        assert!(matches!(refused, Err(NotConnected::Refused(Errno::CONNREFUSED))));
        announce(region, slot_of(region, 0));
        assert!(connect(region, 0, consumer(region, 0)).is_ok());
    }
}
