//! Descriptors through a socket, within one process.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::eventfd::{pass, take};
use crate::system::{Failure, Meeting, SoloSystem};

/// So many descriptors in a message: sent, received and closed.
#[derive(Debug)]
pub struct PassDescriptors<const COUNT: usize> {
    ends: (OwnedFd, OwnedFd),
    file: File,
}

impl<const COUNT: usize> SoloSystem for PassDescriptors<COUNT> {
    const NAME: &'static str = if COUNT == 1 { "scm-rights-1" } else { "scm-rights-16" };

    fn start(_meeting: &Meeting) -> Result<Self, Failure> {
        const { assert!(COUNT == 1 || COUNT == 16) };
        let flags = SocketFlags::CLOEXEC;
        let ends = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok(Self { ends, file: File::open("/dev/null")? })
    }

    fn once(&mut self) -> Result<Duration, Failure> {
        let descriptors = [self.file.as_fd(); COUNT];
        let start = Instant::now();
        pass(&self.ends.0, &descriptors)?;
        let count = take(&self.ends.1)?.len();
        let took = start.elapsed();
        if count == COUNT { Ok(took) } else { Err("descriptors were lost".into()) }
    }
}
