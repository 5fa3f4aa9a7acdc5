//! Where senders come in: a listener with a name beside the region's file, or the rendezvous of a
//! region without a name.

use std::mem::offset_of;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::Acquire;

use rustix::fs::Mode;
use rustix::io::Errno;
use tombolo_abi::{Slot, slot_flags};

use crate::os::socket;
use crate::region::Region;
use crate::region::slot_table::slot_u32;

/// More connections than a rendezvous holds. Others may put them in as fast as they are taken out.
const WAITING_MAX: u32 = 4096;

/// The consumer's side of it.
#[derive(Debug)]
pub(super) enum Door {
    Listener(OwnedFd),
    Rendezvous,
    /// The region came as a descriptor, without a directory and without a rendezvous.
    None,
}

impl Door {
    /// Opens the door of ring `ring`, or of the lanes of which that is the first.
    pub(super) fn open(region: &Region, ring: u32) -> Result<Self, Errno> {
        if region.rendezvous(ring).is_some() {
            return Ok(Self::Rendezvous);
        }
        let Some(place) = region.place() else { return Ok(Self::None) };
        let mode = Mode::from_raw_mode(rustix::fs::fstat(region.plain())?.st_mode & 0o777);
        socket::listen(place.dir(), &name(region, ring), mode).map(Self::Listener)
    }

    /// The next connection; `None` where nobody waits.
    pub(super) fn accept(&self, region: &Region, ring: u32) -> Result<Option<OwnedFd>, Errno> {
        match (self, region.rendezvous(ring)) {
            (Self::Listener(listener), _) => socket::accept(listener.as_fd()),
            (Self::Rendezvous, Some(rendezvous)) => rendezvous.take_out(),
            _ => Ok(None),
        }
    }

    /// Closes it: whoever waits is turned away, and a name is removed.
    pub(super) fn close(&mut self, region: &Region, ring: u32) {
        match (std::mem::replace(self, Self::None), region.place()) {
            (Self::Listener(listener), Some(place)) => {
                let _ = socket::remove(place.dir(), &name(region, ring));
                socket::stop_listening(listener);
            }
            (Self::Rendezvous, _) => {
                let next = |_| matches!(Self::Rendezvous.accept(region, ring), Ok(Some(_)));
                let _ = (0..WAITING_MAX).all(next);
            }
            _ => {}
        }
    }
}

/// Why there is no connection.
pub(super) enum NotConnected {
    /// There is no door to find.
    NoDoor,
    Refused(Errno),
}

/// Connects to the `consumer` of ring `ring`, or of the lanes of which that is the first. The caller has
/// asked the kernel whether it lives: a rendezvous takes connections also if no process comes for them.
pub(super) fn connect(
    region: &Region,
    ring: u32,
    consumer: Option<Consumer>,
) -> Result<OwnedFd, NotConnected> {
    let connection = match (region.rendezvous(ring), region.place()) {
        (None, None) => return Err(NotConnected::NoDoor),
        _ if consumer.is_none() => Err(Errno::CONNREFUSED),
        (Some(rendezvous), _) => rendezvous.enter(),
        (None, Some(place)) => socket::connect(place.dir(), &name(region, ring)),
    };
    connection.map_err(NotConnected::Refused)
}

/// The consumer of ring `ring` that takes connections, if there is one, by what tells it from the next.
/// It may be gone.
pub(super) fn consumer(region: &Region, ring: u32) -> Option<u32> {
    let slot = region.entries()[ring as usize].rx_slot;
    let word = |offset| slot_u32(region, slot, offset).load(Acquire); // it says so last
    let (filled, flags) = (word(offset_of!(Slot, seqlock)), word(offset_of!(Slot, flags)));
    (flags & slot_flags::HAS_SOCKET != 0).then_some(filled)
}

/// The name at which the consumer listens, in the region's directory.
fn name(region: &Region, ring: u32) -> String {
    region.socket_name(ring, 0)
}
