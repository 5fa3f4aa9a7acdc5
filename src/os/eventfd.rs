//! A descriptor that is readable or not, as one side says and others wait for.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, ReadWriteFlags, preadv2, read, write};

use super::descriptor::Descriptor;
use super::fork;

/// An eventfd of which no forked child keeps a copy.
///
/// Neither call waits: the descriptor is non-blocking, and a read says so once more, as the owner of the
/// description could have changed that. Both leave a number alone that is another file's by now.
#[derive(Debug)]
pub(crate) struct EventFd(Descriptor);

impl EventFd {
    /// One that is readable.
    pub(crate) fn readable() -> Result<Self, Errno> {
        let no_forks = fork::hold_off()?;
        let fd = eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Descriptor::private(fd, &no_forks).map(Self)
    }

    /// Makes it readable, which is an edge for those that wait for one, also if it was readable.
    pub(crate) fn set(&self) {
        if self.0.is_ours() {
            // Fails if the count is at its limit: then it is readable.
            let _ = write(&self.0, &1u64.to_ne_bytes());
        }
    }

    /// Makes it not readable.
    pub(crate) fn clear(&self) {
        if !self.0.is_ours() {
            return;
        }
        let mut count = [0; 8];
        let whole = &mut [IoSliceMut::new(&mut count)];
        let cleared = preadv2(&self.0, whole, u64::MAX, ReadWriteFlags::NOWAIT);
        if matches!(cleared, Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)) {
            let _ = read(&self.0, &mut count); // a kernel that can't promise it for an eventfd
        }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::os::staged::{self, Call, usurp};

    fn is_readable(fd: &EventFd) -> bool {
        poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn it_is_readable_from_the_start_and_again_after_each_set_until_it_is_cleared() {
        let fd = EventFd::readable().unwrap();
        for _ in 0..2 {
            assert!(is_readable(&fd));
            fd.clear();
            assert!(!is_readable(&fd));
            fd.clear(); // waits for nothing
            fd.set();
            fd.set();
        }
    }

    #[test]
    fn clearing_waits_for_nothing_though_the_description_says_so_by_now() {
        let fd = EventFd::readable().unwrap();
        let flags = rustix::fs::fcntl_getfl(&fd).unwrap();
        rustix::fs::fcntl_setfl(&fd, flags - rustix::fs::OFlags::NONBLOCK).unwrap();
        fd.clear();
        fd.clear();
        assert!(!is_readable(&fd));
    }

    #[test]
    fn a_kernel_without_reads_that_never_wait_is_borne() {
        for errno in [Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL] {
            let cleared = staged::refusing(Call::any(libc::SYS_preadv2), errno, || {
                let fd = EventFd::readable().unwrap();
                fd.clear();
                is_readable(&fd)
            });
            let Some(is_readable) = cleared else { return eprintln!("skipped: no filters") };
            assert!(!is_readable);
        }
    }

    /// Some file that is no eventfd: of those all have one inode.
    #[test]
    fn what_another_has_under_its_number_stays_as_it_is() {
        let (mut theirs, mut other) = UnixStream::pair().unwrap();
        let usurped = || {
            let fd = EventFd::readable().unwrap();
            usurp(fd.as_fd().as_raw_fd(), &theirs);
            fd
        };
        theirs.set_nonblocking(true).unwrap();
        other.set_nonblocking(true).unwrap();
        other.write_all(b"a strang").unwrap(); // as long as a count
        usurped().clear();
        usurped().set();
        assert_eq!(other.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        theirs.read_exact(&mut [0; 8]).unwrap();
    }

    #[test]
    fn no_program_inherits_it_and_no_call_on_it_waits() {
        let fd = EventFd::readable().unwrap();
        assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        let flags = rustix::fs::fcntl_getfl(&fd).unwrap();
        assert!(flags.contains(rustix::fs::OFlags::NONBLOCK));
    }

    #[test]
    fn a_forked_child_has_no_copy() {
        let fd = EventFd::readable().unwrap();
        assert!(staged::in_child(|| {
            fd.clear(); // of what replaced it
            true
        }));
        assert!(is_readable(&fd));
    }
}
