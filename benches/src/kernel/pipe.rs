//! A named pipe.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};

use rustix::fs::{CWD, Mode, OFlags, fcntl_getfl, fcntl_setfl, mkfifoat};
use rustix::pipe::fcntl_setpipe_size;

use crate::system::{Failure, Look, Meeting, ProcessSystem, Receive, Transmit, Waiting, relax};

/// A pipe of 1 MiB. Busy-poll is a pipe that doesn't block.
#[derive(Debug)]
pub struct Pipe;

/// Bytes that a pipe takes whole, so that several may write.
const ATOMIC_MAX: usize = 4096;

/// One end.
#[derive(Debug)]
pub struct PipeEnd {
    file: File,
    room: Vec<u8>,
}

impl PipeEnd {
    fn new(file: File, meeting: &Meeting) -> Result<Self, Failure> {
        fcntl_setpipe_size(&file, 1 << 20)?;
        if meeting.waiting == Waiting::Busy {
            fcntl_setfl(&file, fcntl_getfl(&file)? | OFlags::NONBLOCK)?;
        }
        Ok(Self { file, room: vec![0; meeting.size] })
    }
}

impl Transmit for PipeEnd {
    fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let mut rest = payload;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(len) => rest = &rest[len..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => relax(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Receive for PipeEnd {
    fn receive(&mut self, look: &mut impl Look) -> Result<(), Failure> {
        let mut filled = 0;
        while filled < self.room.len() {
            match self.file.read(&mut self.room[filled..]) {
                Ok(0) => return Err("the other end is closed".into()),
                Ok(len) => filled += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => relax(),
                Err(error) => return Err(error.into()),
            }
        }
        look.at_slice(&self.room);
        Ok(())
    }
}

impl ProcessSystem for Pipe {
    const NAME: &'static str = "pipe";
    const PRODUCERS_MAX: usize = 4;
    type Sender = PipeEnd;
    type Receiver = PipeEnd;

    fn takes(meeting: &Meeting) -> bool {
        meeting.producers == 1 || meeting.size <= ATOMIC_MAX
    }

    fn prepare(meeting: &Meeting) -> Result<(), Failure> {
        Ok(mkfifoat(CWD, meeting.directory.join(meeting.name), Mode::RUSR | Mode::WUSR)?)
    }

    fn sender(meeting: &Meeting) -> Result<PipeEnd, Failure> {
        let path = meeting.directory.join(meeting.name);
        PipeEnd::new(OpenOptions::new().write(true).open(path)?, meeting)
    }

    fn receiver(meeting: &Meeting) -> Result<PipeEnd, Failure> {
        PipeEnd::new(File::open(meeting.directory.join(meeting.name))?, meeting)
    }
}
