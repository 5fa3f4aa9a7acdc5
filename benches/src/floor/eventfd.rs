//! An eventfd whose value is the message.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::kernel::socket;
use crate::system::{Failure, Look, Meeting, ProcessSystem, Receive, Transmit};

/// The receiver makes it and hands it to the sender.
#[derive(Debug)]
pub struct EventfdWake;

/// Either end.
#[derive(Debug)]
pub struct EventfdEnd(OwnedFd);

impl Transmit for EventfdEnd {
    fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        write(&self.0, payload)?;
        Ok(())
    }
}

impl Receive for EventfdEnd {
    fn receive(&mut self, look: &mut impl Look) -> Result<(), Failure> {
        let mut value = [0; 8];
        read(&self.0, &mut value)?;
        look.at_slice(&value);
        Ok(())
    }
}

impl ProcessSystem for EventfdWake {
    const NAME: &'static str = "eventfd-wake";
    const PRODUCERS_MAX: usize = 1;
    type Sender = EventfdEnd;
    type Receiver = EventfdEnd;

    fn takes(meeting: &Meeting) -> bool {
        meeting.size == 8
    }

    fn sender(meeting: &Meeting) -> Result<EventfdEnd, Failure> {
        let socket = socket::connect(meeting)?;
        take(&socket)?.pop().map(EventfdEnd).ok_or_else(|| "no descriptor came".into())
    }

    fn receiver(meeting: &Meeting) -> Result<EventfdEnd, Failure> {
        let made = eventfd(0, EventfdFlags::CLOEXEC)?;
        let socket = socket::accept(meeting)?;
        pass(&socket, &[made.as_fd()])?;
        Ok(EventfdEnd(made))
    }
}

/// The most descriptors of one message here.
pub(super) const DESCRIPTORS_MAX: usize = 16;

/// Sends one byte, and copies of the descriptors.
pub(super) fn pass(
    socket: &OwnedFd,
    descriptors: &[std::os::fd::BorrowedFd],
) -> Result<(), Failure> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err("too many descriptors".into());
    }
    sendmsg(socket, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::empty())?;
    Ok(())
}

/// Receives what `pass` sent.
pub(super) fn take(socket: &OwnedFd) -> Result<Vec<OwnedFd>, Failure> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let rights = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    Ok(rights.flatten().collect())
}
