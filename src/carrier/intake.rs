//! The handles of a receiver's messages.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use tombolo_abi::LockWord;

use super::{Incoming, NotFetched, Wanted};
use crate::endpoint::{Attached, Group, Upkeep};
use crate::error::Error;
use crate::handle::Handle;
use crate::mutex::{lock, try_lock};
use crate::os::descriptor::Descriptor;

/// The handle receiver of a ring.
#[derive(Debug)]
pub(crate) struct Intake {
    incoming: Arc<Mutex<Incoming>>,
    /// The watcher's count of peer exits up to which connections of exited senders were closed.
    known: Option<u32>,
    /// Keeps the acceptor maintained by the watcher.
    _upkeep: Option<Upkeep>,
}

impl Intake {
    /// Listens, if messages of the ring may carry handles.
    pub(crate) fn open(end: &Attached) -> Result<Option<Self>, Error> {
        let region = end.slot.region();
        let Group { rings, tx_slots, .. } = &end.group;
        let entries = &region.entries()[rings.start as usize..rings.end as usize];
        if entries.iter().all(|entry| entry.max_handles == 0) {
            return Ok(None);
        }
        let owner = end.slot.identity();
        let incoming = Incoming::listen(region, rings.clone(), tx_slots.len(), owner);
        let needs_care = incoming.door.needs_care();
        let incoming = Arc::new(Mutex::new(incoming));
        let to_look_after = Arc::downgrade(&incoming);
        let look_after = move || {
            // The receiver may hold it for long while it closes what others sent. The watcher has more to do:
            // it comes again.
            if let Some(incoming) = to_look_after.upgrade()
                && let Some(mut incoming) = try_lock(&incoming)
            {
                let Incoming { door, region, .. } = &mut *incoming;
                door.look_after(region);
            }
        };
        let upkeep = needs_care.then(|| Upkeep::start(region, look_after)).transpose()?;
        Ok(Some(Self { incoming, known: None, _upkeep: upkeep }))
    }

    /// Receives over `sockets`, which came with the end `end` of a channel.
    pub(crate) fn given(end: &Attached, sockets: Vec<Descriptor>) -> Self {
        let incoming = Arc::new(Mutex::new(Incoming::given(end, sockets)));
        Self { incoming, known: None, _upkeep: None }
    }

    /// Receives over `socket`, too, which leads to the other end of the channel.
    pub(crate) fn add_given(&self, end: &Attached, socket: Descriptor) {
        lock(&self.incoming).add_given(end, socket);
    }

    /// A copy of the socket to the other end of the channel, once that has come.
    ///
    /// # Errors
    /// [`Error::TooManyFiles`].
    pub(crate) fn peers_socket(&self, end: &Attached) -> Result<Option<Descriptor>, Error> {
        lock(&self.incoming).peers_socket().map_err(|error| match error {
            NotFetched::TooManyFiles(source) => Error::TooManyFiles { ring: end.index, source },
            NotFetched::Lost | NotFetched::Violation(_) => Error::TooManyFiles {
                ring: end.index,
                source: Errno::MFILE.into(), // never: nothing was asked for
            },
        })
    }

    /// Stops listening, and leaves what has come as it is.
    pub(crate) fn close_door(&self) {
        lock(&self.incoming).close_door();
    }

    /// What another process needs to go on in the place of this one, if the sockets came with the end.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn sockets_to_pass_on(&self) -> Result<Vec<OwnedFd>, Errno> {
        lock(&self.incoming).sockets_to_pass_on()
    }

    /// Descriptors of our own on the handles of a record, which keeps them.
    ///
    /// # Errors
    /// [`Error::TooManyFiles`], [`Error::HandlesLost`] without the bytes, [`Error::ProtocolViolation`].
    pub(crate) fn fetch(&self, wanted: &Wanted) -> Result<Vec<Handle>, Error> {
        lock(&self.incoming).fetch(wanted).map_err(|error| not_fetched(error, wanted))
    }

    /// As [`Self::fetch`], of a record that is taken before those from `head` on.
    ///
    /// # Errors
    /// As [`Self::fetch`].
    pub(crate) fn fetch_out_of_turn(
        &self,
        wanted: &Wanted,
        head: u64,
    ) -> Result<Vec<Handle>, Error> {
        let fetched = lock(&self.incoming).fetch_out_of_turn(wanted, head);
        fetched.map_err(|error| not_fetched(error, wanted))
    }

    /// Closes the handles that were kept of records before `head`, which the ring has passed; gives whether any are kept
    /// still.
    pub(crate) fn close_kept_before(&self, head: u64) -> bool {
        lock(&self.incoming).close_kept_before(head)
    }

    /// Closes all handles that have come. For the receiver of a ring that is empty, and whose sender has gone for good:
    /// it had handed them over for messages that never came to be.
    pub(crate) fn clear(&self) {
        lock(&self.incoming).clear();
    }

    /// Closes what belongs to a record that was freed.
    pub(crate) fn take(&self, wanted: &Wanted) {
        lock(&self.incoming).take(wanted);
    }

    /// Senders that have exited and still have a connection. After the ring was seen empty,
    /// [`Self::forget`] them.
    pub(crate) fn departed(&mut self, end: &Attached) -> Vec<LockWord> {
        let count = end.watch.peer_exits();
        if self.known == Some(count) {
            return Vec::new();
        }
        let mut incoming = lock(&self.incoming);
        let are_all_in = incoming.accept_all().is_ok();
        let departed = incoming.departed(|sender| {
            // A sender that cannot be checked counts as alive.
            end.slot.is_alive(sender).is_ok_and(|is_alive| !is_alive)
        });
        if departed.is_empty() && are_all_in {
            self.known = Some(count);
        }
        departed
    }

    /// Closes the connections of these senders, with what is left in them: handles of messages that
    /// never came to be.
    pub(crate) fn forget(&mut self, departed: &[LockWord]) {
        if !departed.is_empty() {
            lock(&self.incoming).forget(departed);
        }
    }

    /// Stops listening.
    pub(crate) fn close(&mut self) {
        lock(&self.incoming).close();
    }
}

fn not_fetched(error: NotFetched, wanted: &Wanted) -> Error {
    let Wanted { ring, ext, position, count } = *wanted;
    match error {
        NotFetched::TooManyFiles(source) => Error::TooManyFiles { ring, source },
        NotFetched::Lost => {
            Error::HandlesLost { ring, position, count: count.into(), data: Vec::new() }
        }
        NotFetched::Violation(reason) => {
            Error::ProtocolViolation { ring, slot: ext.slot, position, reason }
        }
    }
}
