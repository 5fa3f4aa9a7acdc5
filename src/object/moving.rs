//! An end of a channel as a handle: on its way to another process, or in a table.
//!
//! ```text
//!  Channel ---release---> Handle ---in a message---> Handle ---from_handle---> Channel
//!  threads wait, a        one description that holds the end's lock bytes, and its sockets;
//!  mapping               the kernel's while it is on the way
//! ```
//!
//! **The lock bytes belong to the description**, so who has it has the end: the other end sees an open channel as
//! long as any process, or the queue of a socket, holds the description, and a closed one when the last has let go of
//! it. Messages that were not read stay in the region, and the packets of their handles in the sockets.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use tombolo_abi::Role;

use super::channel::{Channel, Sockets};
use super::channel_error::{ChannelError, NotAdopted};
use super::inbox::GivenUp;
use crate::crash::crash_point;
use crate::endpoint::{Attached, OwnedSlot, Seat};
use crate::error::{Error, HandleError};
use crate::handle::{Handle, HandleType, Rights};
use crate::os::descriptor::Descriptor;
use crate::os::{fork, socket};
use crate::region::{EventsRegion, OpenOptions, Region};

impl Channel {
    /// Takes the end out of this value, as a handle to be sent or kept. Messages that were not read go with it.
    /// Calls and waits of other threads on this value end with [`ChannelError::Canceled`], and all that come later
    /// with [`ChannelError::Closed`]; for the other end nothing happens.
    ///
    /// A handle that is dropped, also by a process that dies with it or in a message that is never read, closes the
    /// end. A forked child has a copy of its descriptors, and keeps the end open until it ends or executes another
    /// program.
    ///
    /// # Errors
    /// [`ChannelError::Closed`]; [`ChannelError::AccessDenied`] without [`Rights::TRANSFER`];
    /// [`ChannelError::Failed`], and then the end is still here: with [`Error::HandlesNotCarried`] if the other end,
    /// of a channel that was opened by name, has not come yet, or is closed.
    ///
    /// # Examples
    /// ```
    /// use tombolo::{Channel, MessagePacket};
    /// let (ours, theirs) = Channel::create()?;
    /// let (inner, passed_on) = Channel::create()?;
    /// inner.write(b"not read yet")?;
    /// ours.write(MessagePacket::from(b"take it").handle(passed_on.release()?))?;
    /// let handle = theirs.read()?.handles.remove(0); // in another process, mostly
    /// let passed_on = Channel::from_handle(handle)?;
    /// assert_eq!(passed_on.read()?.data, b"not read yet");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias("into_handle", "transfer", "zx_channel_write"))]
    pub fn release(&self) -> Result<Handle, ChannelError> {
        self.require(Rights::TRANSFER)?;
        self.release_with(self.rights())
    }

    /// As [`Self::release`], with `rights`, whichever those of this value are.
    pub(super) fn release_with(&self, rights: Rights) -> Result<Handle, ChannelError> {
        let (given_up, sending) = self.outbox.give_up(|end| {
            let lock = end.slot.copy_lock()?;
            crash_point!("release.after-lock");
            let GivenUp { sockets, woken, end } = self.inbox.give_up()?;
            self.outbox.wake_later(woken);
            Ok((lock, sockets, end))
        })?;
        let (lock, sockets, receiving) = given_up;
        crash_point!("release.before-pass-on");
        [sending, receiving].iter().for_each(|end| end.slot.pass_on()); // together, but for damage
        crash_point!("release.after-pass-on");
        Ok(Handle::endpoint(lock, sockets, self.id()).with(rights))
    }

    /// The end of a channel that `handle` is, in this process.
    ///
    /// # Errors
    /// [`NotAdopted`] with the handle: [`HandleError::WrongType`] (`WRONG_TYPE`) if it is no end of a channel, or not
    /// all of one; [`Error::Layout`] and the like if the region behind it is not what it should be;
    /// [`Error::Io`] if the process can have no more descriptors.
    #[expect(clippy::result_large_err, reason = "the error gives the handle back")]
    pub fn from_handle(handle: Handle) -> Result<Self, NotAdopted> {
        match Self::adopt(&handle) {
            Ok(channel) => Ok(channel),
            Err(error) => Err(NotAdopted { error, handle }),
        }
    }

    /// The end that `handle` is: with descriptors of its own, so that those of `handle` are to be closed.
    pub(super) fn adopt(handle: &Handle) -> Result<Self, ChannelError> {
        let wrong = || {
            let found = handle.handle_type();
            HandleError::WrongType { found, wanted: HandleType::Channel }
        };
        let mut parts = handle.descriptors();
        let (Some(lock), sockets) = (parts.next(), parts.collect::<Vec<_>>()) else {
            return Err(wrong().into());
        };
        if sockets.is_empty() || !sockets.iter().all(|one| socket::is_of_packets(*one)) {
            return Err(wrong().into());
        }
        let failed = |error: Errno| {
            let (action, path) = ("copy a descriptor of", "an end of a channel".into());
            ChannelError::from(Error::Io { action, path, source: error.into() })
        };
        let options = OpenOptions::new();
        let region = EventsRegion::from_fd(copy(lock).map_err(failed)?, options)?;
        let region = region.shared().clone();
        let seats = seats_of(&region, lock)?.ok_or_else(wrong)?;
        let no_forks = fork::hold_off().map_err(failed)?;
        let keep = |fd: OwnedFd| Descriptor::private(fd, &no_forks);
        let into: Result<Vec<_>, _> = sockets.iter().map(|one| keep(copy(*one)?)).collect();
        // What comes over the last one is new: to that this end sends.
        let out = sockets.last().map(|one| keep(copy(*one)?)).transpose().map_err(failed)?;
        let (into, out) = (into.map_err(failed)?, out.ok_or_else(wrong)?);
        drop(no_forks);
        crash_point!("adopt.before-slots");
        let adopted = OwnedSlot::adopt(&region, &seats, lock, |slots| {
            crash_point!("adopt.after-slots");
            let ends = slots.into_iter().map(|slot| Attached::of_channel_at(&region, slot));
            let mut ends = ends.collect::<Result<Vec<_>, _>>()?.into_iter();
            let (Some(sending), Some(receiving)) = (ends.next(), ends.next()) else {
                return Ok(None); // never: there are two seats
            };
            let sockets = Some(Sockets { out, into });
            Self::at(&region, (sending, receiving), sockets, handle.rights()).map(Some)
        });
        Ok(adopted?.ok_or_else(wrong)?)
    }
}

/// The two seats of the end of a channel of which `lock` holds the bytes: the sending one first.
fn seats_of(region: &Region, lock: BorrowedFd<'_>) -> Result<Option<[Seat; 2]>, Error> {
    region.description().check_channel().map_err(|reason| region.layout_error(reason))?;
    for (ring, peer_ring) in [(0, 1), (1, 0)] {
        let sender = Seat { slot: region.entry(ring)?.tx_slot_first, role: Role::Sender, ring };
        let slot = region.entry(peer_ring)?.rx_slot;
        let receiver = Seat { slot, role: Role::Receiver, ring: peer_ring };
        if OwnedSlot::is_held_by(region, &sender, lock)?
            && OwnedSlot::is_held_by(region, &receiver, lock)?
        {
            return Ok(Some([sender, receiver]));
        }
    }
    Ok(None)
}

fn copy(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, 0)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::atomic::Ordering::{Relaxed, Release};

    use tombolo_abi::{LockWord, RingState};

    use super::*;
    use crate::MessagePacket;
    use crate::carrier::Outgoing;
    use crate::crash::visits;
    use crate::os::staged::{self, Call};
    use crate::ring::{Memory, Word};

    fn write_to_peer_of(end: &Channel) {
        end.write(MessagePacket::from(b"with a handle").handle(File::open("/").unwrap())).unwrap();
    }

    /// Both ways, with handles; `near` is what was given back.
    fn assert_living(near: Handle, far: &Channel) {
        assert!(matches!(far.read(), Err(ChannelError::ShouldWait)));
        let near = Channel::from_handle(near).unwrap();
        assert_eq!(near.read().unwrap().handles.len(), 1, "that was there before");
        for (from, to) in [(&near, far), (far, &near)] {
            write_to_peer_of(from);
            assert_eq!(to.read().unwrap().handles.len(), 1);
        }
        drop(near);
        assert!(matches!(far.read(), Err(ChannelError::PeerClosed)));
    }

    #[test]
    fn an_end_that_cannot_be_taken_in_is_given_back_open_however_late_that_is_found() {
        let (near, far) = Channel::create().unwrap();
        write_to_peer_of(&far);
        let handle = near.release().unwrap();
        // The bell's random number: both slots were adopted.
        let draw = Call::any(libc::SYS_getrandom);
        let refused = || Channel::from_handle(handle).unwrap_err().handle;
        let Some(near) = staged::refusing(draw, Errno::NOSYS, refused) else {
            return eprintln!("skipped: no filters");
        };
        assert_living(near, &far);
    }

    /// The receiving half has its sockets then.
    #[test]
    fn so_is_one_of_which_one_half_was_taken_in() {
        let (near, far) = Channel::create().unwrap();
        write_to_peer_of(&far);
        let tail = far.inbox.with_end(|end| end.ring.memory.load(Word::Tail, Relaxed)).unwrap();
        let handle = near.release().unwrap();
        let far = std::rc::Rc::new(far);
        let other = far.clone();
        let visit = visits::at("channel.half-attached", move || {
            other.inbox.with_end(|end| end.ring.memory.store(Word::Tail, tail + 1, Release));
        });
        let refused = Channel::from_handle(handle).unwrap_err();
        drop(visit);
        println!("{}", refused.error);
        far.inbox.with_end(|end| {
            end.ring.memory.store(Word::Tail, tail, Release);
            end.ring.memory.store(Word::State, RingState::Open as u64, Release);
        });
        assert_living(refused.handle, &far);
    }

    #[test]
    fn an_end_that_a_thread_has_not_left_yet_is_released_at_once_and_stays_open() {
        let (near, far) = Channel::create().unwrap();
        far.write(b"before").unwrap();
        let sending = near.outbox.end();
        let handle = near.inbox.with_end(|_| near.release().unwrap()).unwrap();
        let moved = Channel::from_handle(handle).unwrap();
        assert_eq!(moved.read().unwrap().data, b"before");
        drop(sending);
        moved.write(b"after").unwrap();
        assert_eq!(far.read().unwrap().data, b"after");
        drop(near);
        assert!(matches!(far.read(), Err(ChannelError::ShouldWait)));
        drop(moved);
        assert!(matches!(far.read(), Err(ChannelError::PeerClosed)));
    }

    /// A forked child has a copy of each descriptor.
    #[test]
    fn an_end_that_one_process_has_taken_in_is_no_other_processes() {
        let (near, far) = Channel::create().unwrap();
        let handle = near.release().unwrap();
        let copies: Vec<_> =
            handle.descriptors().map(|one| one.try_clone_to_owned().unwrap()).collect();
        let mut copies = copies.into_iter();
        let copy = Handle::endpoint(copies.next().unwrap(), copies.collect(), near.id());
        let near = Channel::from_handle(handle).unwrap();
        assert!(staged::in_child(|| {
            let refused = Channel::from_handle(copy).unwrap_err();
            let ChannelError::Failed { source } = refused.error else { return false };
            matches!(*source, Error::Busy { pid, .. } if pid != std::process::id())
        }));
        far.write(b"to near").unwrap();
        assert_eq!(near.read().unwrap().data, b"to near");
        near.write(b"to far").unwrap();
        assert_eq!(far.read().unwrap().data, b"to far");
    }

    /// A copy of the description would keep the end open though its next owner was killed.
    #[test]
    fn what_a_thread_that_has_not_left_an_end_still_has_does_not_keep_it_open() {
        let (near, far) = Channel::create().unwrap();
        let _sending = near.outbox.end();
        near.inbox.with_end(|_| {
            drop(near.release().unwrap()); // as the kernel closes it: it detaches nothing
            let read = far.read_timeout(std::time::Duration::from_secs(20));
            assert!(matches!(read, Err(ChannelError::PeerClosed)), "{read:?}");
        });
    }

    /// Of a process that had no descriptor left to keep it by, and comes again later.
    #[test]
    fn a_connection_of_the_other_end_that_is_over_is_not_passed_on() {
        let directory = tempfile::tempdir().unwrap();
        let near = Channel::open_path(directory.path().join("channel")).unwrap();
        let region = near.inbox.with_end(|end| end.slot.region().clone()).unwrap();
        let sender = LockWord { slot: region.entry(1).unwrap().tx_slot_first, incarnation: 1 };
        drop(Outgoing::default().meet(&region, 1, sender).unwrap());
        let refused = near.release().unwrap_err();
        let ChannelError::Failed { source } = refused else { panic!("{refused:?}") };
        assert!(matches!(*source, Error::HandlesNotCarried { .. }), "{source}");
        let far = Channel::open_path(directory.path().join("channel")).unwrap();
        write_to_peer_of(&far);
        assert_living(near.release().unwrap(), &far);
    }

    #[test]
    fn an_end_of_which_the_file_is_cut_short_meanwhile_is_not_said_to_be_another_processes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("channel");
        let (near, _far) = (Channel::open_path(&path).unwrap(), Channel::open_path(&path).unwrap());
        let handle = near.release().unwrap();
        let visit = visits::at("adopt.to-claim", move || {
            File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        });
        let refused = Channel::from_handle(handle).unwrap_err();
        drop(visit);
        let ChannelError::Failed { source } = refused.error else { panic!("{refused:?}") };
        assert!(matches!(*source, Error::RegionTooSmall { .. }), "{source}");
    }
}
