//! shmem-ipc: a ring of items in a memory file, with an event descriptor for each side.
//!
//! Busy waiting is the ring without its descriptors, and looks at the count before it asks for
//! messages, since asking writes to what both sides share. Sleeping is the crate's own blocking.
//! Nothing outlives it but a socket in the directory that the harness removes.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use ::shmem_ipc::sharedring;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tombolo_benches::Registry;
use tombolo_benches::system::{Failure, Look, Meeting, ProcessSystem, Receive, Transmit, Waiting};

use crate::{item, meet, wait};

/// Adds it for each size of item.
pub(super) fn register(registry: Registry) -> Registry {
    registry
        .processes::<ShmemIpc<8>>()
        .processes::<ShmemIpc<64>>()
        .processes::<ShmemIpc<256>>()
        .processes::<ShmemIpc<1024>>()
        .processes::<ShmemIpc<4096>>()
        .processes::<ShmemIpc<65536>>()
}

struct ShmemIpc<const N: usize>;

impl<const N: usize> ProcessSystem for ShmemIpc<N> {
    const NAME: &'static str = "shmem-ipc";
    const PRODUCERS_MAX: usize = 1;
    const BATCHES: bool = true;
    const LENDS: bool = true;
    type Sender = Sender<N>;
    type Receiver = Receiver<N>;

    fn takes(meeting: &Meeting) -> bool {
        meeting.size == N && meeting.waiting != Waiting::SpinSleep
    }

    fn sender(meeting: &Meeting) -> Result<Sender<N>, Failure> {
        let path = meet::path(meeting);
        let stream = wait::for_peer("the receiver", || UnixStream::connect(&path).ok())?;
        let ring = sharedring::Sender::new(item::count_in(meeting))?;
        let descriptors = [
            ring.memfd().as_file().as_fd(),
            ring.empty_signal().as_fd(),
            ring.full_signal().as_fd(),
        ];
        give(&stream, &descriptors)?;
        Ok(Sender { ring, waiting: meeting.waiting })
    }

    fn receiver(meeting: &Meeting) -> Result<Receiver<N>, Failure> {
        let (stream, _) = UnixListener::bind(meet::path(meeting))?.accept()?;
        let [memory, empty, full] = take(&stream)?.map(File::from);
        let ring = sharedring::Receiver::open(item::count_in(meeting), memory, empty, full)?;
        Ok(Receiver { ring, waiting: meeting.waiting })
    }
}

/// Sends descriptors over a socket.
fn give(stream: &UnixStream, descriptors: &[BorrowedFd<'_>; 3]) -> Result<(), Failure> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(descriptors));
    sendmsg(stream, &[IoSlice::new(&[0])], &mut control, SendFlags::empty())?;
    Ok(())
}

/// Receives as many.
fn take(stream: &UnixStream) -> Result<[OwnedFd; 3], Failure> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(stream, &mut [IoSliceMut::new(&mut [0])], &mut control, RecvFlags::empty())?;
    let descriptors = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
        _ => vec![],
    });
    descriptors.collect::<Vec<_>>().try_into().map_err(|_| "three descriptors should come".into())
}

struct Sender<const N: usize> {
    ring: sharedring::Sender<[u8; N]>,
    waiting: Waiting,
}

impl<const N: usize> Sender<N> {
    /// Has room for up to `count` items written, once there is some. Gives how many were.
    #[inline]
    fn write(
        &mut self,
        count: usize,
        mut write: impl FnMut(usize, *mut [u8; N]),
    ) -> Result<usize, Failure> {
        let mut written = 0;
        let fill = |room: *mut [u8; N], room_count: usize| {
            written = count.min(room_count);
            for index in 0..written {
                write(index, room.wrapping_add(index));
            }
            written
        };
        if self.waiting == Waiting::Sleep {
            self.ring.block_until_writable()?;
            self.ring.send_raw(fill)?;
        } else {
            let ring = self.ring.sender_mut();
            wait::for_room(|| match ring.write_count() {
                Ok(0) => None,
                Ok(_) => Some(Ok(())),
                Err(error) => Some(Err(error)),
            })?;
            ring.send(fill)?;
        }
        Ok(written)
    }
}

impl<const N: usize> Transmit for Sender<N> {
    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        self.send_batch(&[payload])
    }

    #[inline]
    fn send_batch(&mut self, payloads: &[&[u8]]) -> Result<(), Failure> {
        let mut rest = payloads;
        while !rest.is_empty() {
            let written = self.write(rest.len(), |index, room| {
                let payload: &[u8; N] =
                    rest[index].try_into().expect("a payload of the ring's size");
                // SAFETY: the crate lends this room for an item, and nobody looks before it is sent.
                unsafe { room.write(*payload) };
            })?;
            rest = &rest[written..];
        }
        Ok(())
    }

    #[inline]
    fn lend(&mut self, _size: usize, number: u64) -> Result<(), Failure> {
        self.write(1, |_, room| {
            // SAFETY: as above, and an item has eight bytes at least.
            unsafe { room.cast::<u64>().write_unaligned(number) };
        })?;
        Ok(())
    }
}

struct Receiver<const N: usize> {
    ring: sharedring::Receiver<[u8; N]>,
    waiting: Waiting,
}

impl<const N: usize> Receive for Receiver<N> {
    #[inline]
    fn receive(&mut self, look: &mut impl Look) -> Result<(), Failure> {
        self.receive_batch(1, look)?;
        Ok(())
    }

    #[inline]
    fn receive_batch(&mut self, limit: usize, look: &mut impl Look) -> Result<usize, Failure> {
        let mut count = 0;
        let show = |items: *const [u8; N], item_count: usize| {
            count = limit.min(item_count);
            // SAFETY: the crate lends that many items, which the sender, who plays by the rules
            // here, does not touch before they are given back.
            let items = unsafe { std::slice::from_raw_parts(items, count) };
            items.iter().for_each(|item| look.at_slice(item));
            count
        };
        if self.waiting == Waiting::Sleep {
            self.ring.block_until_readable()?;
            self.ring.receive_raw(show)?;
        } else {
            let ring = self.ring.receiver_mut();
            wait::for_message(|| match ring.read_count() {
                Ok(0) => None,
                Ok(_) => Some(Ok(())),
                Err(error) => Some(Err(error)),
            })?;
            ring.recv(show)?;
        }
        Ok(count)
    }
}
