//! Descriptors through a socket, between processes, with nothing around them.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Release};

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::eventfd::DESCRIPTORS_MAX;
use super::shared::Shared;
use crate::kernel::socket;
use crate::system::{Failure, HandingSystem, Meeting, relax};

/// The receiver asks the socket again and again.
#[derive(Debug)]
pub struct Rights;

/// A line tells the receiver that the packet is there, as it tells the other side's answer; then it
/// asks once.
#[derive(Debug)]
pub struct RightsTold;

/// Either end of the latter.
#[derive(Debug)]
pub struct ToldEnd {
    socket: OwnedFd,
    /// The number of the last message that was sent.
    line: Shared,
    /// The last that was taken.
    taken: u64,
}

/// Sends the number, and copies of the descriptors.
fn pass(socket: &OwnedFd, number: u64, ones: &[OwnedFd]) -> Result<(), Failure> {
    let mut descriptors = [socket.as_fd(); DESCRIPTORS_MAX];
    descriptors.iter_mut().zip(ones).for_each(|(place, one)| *place = one.as_fd());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let rights = SendAncillaryMessage::ScmRights(&descriptors[..ones.len()]);
    if !ones.is_empty() && !ancillary.push(rights) {
        return Err("too many descriptors".into());
    }
    sendmsg(socket, &[IoSlice::new(&number.to_le_bytes())], &mut ancillary, SendFlags::empty())?;
    Ok(())
}

/// What there is now.
fn take(socket: &OwnedFd) -> Result<(u64, Vec<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let (mut number, flags) = ([0; 8], RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT);
    recvmsg(socket, &mut [IoSliceMut::new(&mut number)], &mut ancillary, flags)?;
    let mut ones = Vec::with_capacity(DESCRIPTORS_MAX);
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            ones.extend(rights);
        }
    }
    Ok((u64::from_le_bytes(number), ones))
}

impl HandingSystem for Rights {
    const NAME: &'static str = "scm-rights";
    type One = OwnedFd;
    type Giver = OwnedFd;
    type Taker = OwnedFd;

    fn giver(meeting: &Meeting) -> Result<OwnedFd, Failure> {
        socket::connect(meeting)
    }

    fn taker(meeting: &Meeting) -> Result<OwnedFd, Failure> {
        socket::accept(meeting)
    }

    fn copy(one: &OwnedFd) -> Result<OwnedFd, Failure> {
        Ok(fcntl_dupfd_cloexec(one, 0)?)
    }

    fn give(socket: &mut OwnedFd, number: u64, ones: Vec<OwnedFd>) -> Result<(), Failure> {
        pass(socket, number, &ones)
    }

    fn take(socket: &mut OwnedFd) -> Result<(u64, Vec<OwnedFd>), Failure> {
        loop {
            match take(socket) {
                Err(Errno::AGAIN) => relax(),
                taken => return Ok(taken?),
            }
        }
    }
}

impl ToldEnd {
    fn new(socket: OwnedFd, meeting: &Meeting) -> Result<Self, Failure> {
        Ok(Self { socket, line: Shared::open(meeting, "line", 4096)?, taken: 0 })
    }
}

impl HandingSystem for RightsTold {
    const NAME: &'static str = "scm-rights-told";
    type One = OwnedFd;
    type Giver = ToldEnd;
    type Taker = ToldEnd;

    fn giver(meeting: &Meeting) -> Result<ToldEnd, Failure> {
        ToldEnd::new(socket::connect(meeting)?, meeting)
    }

    fn taker(meeting: &Meeting) -> Result<ToldEnd, Failure> {
        ToldEnd::new(socket::accept(meeting)?, meeting)
    }

    fn copy(one: &OwnedFd) -> Result<OwnedFd, Failure> {
        Rights::copy(one)
    }

    fn give(end: &mut ToldEnd, number: u64, ones: Vec<OwnedFd>) -> Result<(), Failure> {
        pass(&end.socket, number, &ones)?;
        end.line.word(0).store(number, Release);
        Ok(())
    }

    fn take(end: &mut ToldEnd) -> Result<(u64, Vec<OwnedFd>), Failure> {
        end.taken += 1;
        while end.line.word(0).load(Acquire) != end.taken {
            relax();
        }
        Ok(take(&end.socket)?)
    }
}
