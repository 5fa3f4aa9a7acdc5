//! The handles of a receiver's messages.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tombolo_abi::{LockWord, slot_flags};

use super::attached::Attached;
use super::group::Group;
use crate::carrier::{Incoming, NotFetched, Wanted};
use crate::error::Error;
use crate::handle::Handle;

/// Where the handles of a ring come in.
#[derive(Debug)]
pub(super) struct Intake {
    incoming: Mutex<Incoming>,
    /// The watcher's count of departures up to which connections of the departed were closed.
    known: Option<u32>,
}

impl Intake {
    /// Listens, where messages of the ring may carry handles.
    pub(super) fn open(end: &Attached) -> Result<Option<Self>, Error> {
        let region = end.slot.region();
        let Group { rings, tx_slots, .. } = &end.group;
        let entries = &region.entries()[rings.start as usize..rings.end as usize];
        if entries.iter().all(|entry| entry.max_handles == 0) {
            return Ok(None);
        }
        let incoming = Incoming::listen(region, rings.clone(), tx_slots.len())?;
        if incoming.has_door() {
            end.slot.flag(slot_flags::HAS_SOCKET);
            region.announce_membership(); // who waits to connect looks again
        }
        Ok(Some(Self { incoming: incoming.into(), known: None }))
    }

    /// Descriptors of our own on the handles of a record, which keeps them.
    ///
    /// # Errors
    /// [`Error::TooManyFiles`], [`Error::HandlesLost`] without the bytes, [`Error::ProtocolViolation`].
    pub(super) fn fetch(&self, wanted: &Wanted) -> Result<Vec<Handle>, Error> {
        let Wanted { ring, ext, position, count } = *wanted;
        self.lock().fetch(wanted).map_err(|error| match error {
            NotFetched::TooManyFiles(source) => Error::TooManyFiles { ring, source },
            NotFetched::Lost => {
                Error::HandlesLost { ring, position, count: count.into(), data: Vec::new() }
            }
            NotFetched::Violation(reason) => {
                Error::ProtocolViolation { ring, slot: ext.slot, position, reason }
            }
        })
    }

    /// Closes what belongs to a record that was freed.
    pub(super) fn take(&self, wanted: &Wanted) {
        self.lock().take(wanted);
    }

    /// Senders who are gone and have a connection still. Once the ring was seen empty after that,
    /// [`Self::forget`] them.
    pub(super) fn departed(&mut self, end: &Attached) -> Vec<LockWord> {
        let count = end.watch.departures();
        if self.known == Some(count) {
            return Vec::new();
        }
        let are_all_in = self.own().accept_all().is_ok();
        let departed = self.own().departed(|sender| {
            // Who cannot be asked after is taken to live.
            end.slot.is_alive(sender).is_ok_and(|is_alive| !is_alive)
        });
        if departed.is_empty() && are_all_in {
            self.known = Some(count);
        }
        departed
    }

    /// Closes the connections of these senders, with what is left in them: handles of messages that
    /// never came to be.
    pub(super) fn forget(&mut self, departed: &[LockWord]) {
        if !departed.is_empty() {
            self.own().forget(departed);
        }
    }

    /// A lent record may be shared between threads; nobody waits here for long.
    fn lock(&self) -> MutexGuard<'_, Incoming> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own(&mut self) -> &mut Incoming {
        self.incoming.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops listening.
    pub(super) fn close(&mut self) {
        self.own().close();
    }
}
