//! Whether a handle was closed, wherever it went.

use std::io::{PipeReader, Read};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tombolo::Handle;

/// The writing end of a pipe, and what tells when it is closed everywhere.
pub(crate) fn witness() -> (Handle, PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    (Handle::new(writer), reader)
}

/// Whether the other end is closed everywhere, or comes to that within so long.
pub(crate) fn is_closed(witness: &mut PipeReader, within: Duration) -> bool {
    let (start, now) = (Instant::now(), Timespec { tv_sec: 0, tv_nsec: 0 });
    loop {
        let mut events = [PollFd::new(&*witness, PollFlags::IN)];
        poll(&mut events, Some(&now)).unwrap();
        if events[0].revents().contains(PollFlags::HUP) {
            return witness.read(&mut [0]).unwrap() == 0;
        }
        if start.elapsed() >= within {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
}
