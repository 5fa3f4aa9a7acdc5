//! Where senders come in: a listener with a name beside the region's file, or the rendezvous of a
//! region without a name.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::Mode;
use rustix::io::Errno;

use crate::os::socket;
use crate::region::slot_table::byte_is_held;
use crate::region::{Region, socket_name};

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
                while let Ok(Some(_)) = Self::Rendezvous.accept(region, ring) {}
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

/// Connects to the consumer of ring `ring`, or of the lanes of which that is the first.
pub(super) fn connect(region: &Region, ring: u32) -> Result<OwnedFd, NotConnected> {
    let connection = match (region.rendezvous(ring), region.place()) {
        (Some(rendezvous), _) if is_owned(region, ring) => rendezvous.enter(),
        (Some(_), _) => Err(Errno::CONNREFUSED), // it would wait for a consumer for ever
        (None, Some(place)) => socket::connect(place.dir(), &name(region, ring)),
        (None, None) => return Err(NotConnected::NoDoor),
    };
    connection.map_err(NotConnected::Refused)
}

/// Whether ring `ring` has a consumer. Who cannot be asked after is taken to be there.
fn is_owned(region: &Region, ring: u32) -> bool {
    let slot = region.entries()[ring as usize].rx_slot;
    byte_is_held(region, slot..slot + 1).unwrap_or(true)
}

/// The name at which the consumer listens, in the region's directory.
fn name(region: &Region, ring: u32) -> String {
    socket_name(region.header(), ring)
}
