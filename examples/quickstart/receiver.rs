//! The other process: takes lines, acknowledges them.

use std::fs;
use std::os::unix::process::parent_id;
use std::path::Path;

use tombolo::options::CreatePolicy;
use tombolo::{EventsRegion, OpenOptions, RecvError};

use crate::Failure;
use crate::tally::Tally;

/// Takes lines until their sender is gone, and acknowledges each `ack_every`-th.
///
/// Where the process that started this one was killed, this one removes the region's directory in
/// its place.
pub(crate) fn run(path: &Path, ack_every: u64, parent: u32) -> Result<(), Failure> {
    let outcome = receive(path, ack_every, parent);
    if parent_id() == parent {
        return outcome;
    }
    if let Some(directory) = path.parent() {
        let _ = fs::remove_dir_all(directory); // gone already where the sender was not killed
    }
    Ok(())
}

fn receive(path: &Path, ack_every: u64, parent: u32) -> Result<(), Failure> {
    let options = OpenOptions::new().policy(CreatePolicy::OpenExisting);
    let mut region = EventsRegion::open_path_with(path, options)?;
    let (_, mut lines) = region.split_spsc()?;
    let (mut acks, _) = region.split_mpsc()?;
    lines.attach()?;
    if parent_id() != parent {
        return Ok(()); // nobody will ever come whose departure could end this
    }
    let mut tally = Tally::default();
    acks.send(&tally.ack().to_bytes())?; // of nothing: ready
    let mut buffer = vec![0; lines.max_message()];
    loop {
        match lines.recv_into(&mut buffer) {
            Ok(len) => tally.add(&buffer[..len]),
            Err(RecvError::Disconnected) => return Ok(()), // the sender is gone, the ring is empty
            Err(error) => return Err(error.into()),
        }
        let ack = tally.ack();
        if ack.lines.is_multiple_of(ack_every) {
            acks.send(&ack.to_bytes())?;
        }
    }
}
