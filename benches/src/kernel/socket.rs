//! A Unix socket of packets.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, listen,
    recv, send, socket_with,
};

use crate::system::{Failure, Look, Meeting, ProcessSystem, Receive, Transmit, Waiting, relax};

/// `SOCK_SEQPACKET`. Busy-poll is calls that don't block.
#[derive(Debug)]
pub struct Seqpacket;

/// One end.
#[derive(Debug)]
pub struct SocketEnd {
    socket: OwnedFd,
    room: Vec<u8>,
    is_busy: bool,
}

impl SocketEnd {
    fn new(socket: OwnedFd, meeting: &Meeting) -> Self {
        let is_busy = meeting.waiting == Waiting::Busy;
        Self { socket, room: vec![0; meeting.size], is_busy }
    }
}

impl Transmit for SocketEnd {
    fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let flags = if self.is_busy { SendFlags::DONTWAIT } else { SendFlags::empty() };
        loop {
            match send(&self.socket, payload, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN) => relax(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Receive for SocketEnd {
    fn receive(&mut self, look: &mut impl Look) -> Result<(), Failure> {
        let flags = if self.is_busy { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
        loop {
            match recv(&self.socket, &mut self.room[..], flags) {
                Ok((0, _)) => return Err("the other end is closed".into()),
                Ok((len, _)) => {
                    look.at_slice(&self.room[..len]);
                    return Ok(());
                }
                Err(Errno::AGAIN) => relax(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl ProcessSystem for Seqpacket {
    const NAME: &'static str = "uds-seqpacket";
    const PRODUCERS_MAX: usize = 1;
    type Sender = SocketEnd;
    type Receiver = SocketEnd;

    fn sender(meeting: &Meeting) -> Result<SocketEnd, Failure> {
        Ok(SocketEnd::new(connect(meeting)?, meeting))
    }

    fn receiver(meeting: &Meeting) -> Result<SocketEnd, Failure> {
        Ok(SocketEnd::new(accept(meeting)?, meeting))
    }
}

fn path(meeting: &Meeting) -> PathBuf {
    meeting.directory.join(format!("{}.socket", meeting.name))
}

fn new_socket() -> Result<OwnedFd, Failure> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// The receiving side of a socket at the meeting.
pub(crate) fn accept(meeting: &Meeting) -> Result<OwnedFd, Failure> {
    let listener = new_socket()?;
    bind(&listener, &SocketAddrUnix::new(path(meeting))?)?;
    listen(&listener, 1)?;
    Ok(rustix::net::accept(&listener)?)
}

/// The sending side, once the other one listens.
pub(crate) fn connect(meeting: &Meeting) -> Result<OwnedFd, Failure> {
    let address = SocketAddrUnix::new(path(meeting))?;
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let socket = new_socket()?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok(socket),
            Err(Errno::NOENT | Errno::CONNREFUSED) if Instant::now() < deadline => {
                sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error.into()),
        }
    }
}
