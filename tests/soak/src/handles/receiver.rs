//! Receives, notes, and frees, until it is killed or told to stop.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tombolo::ends::Topology;
use tombolo::options::Disconnect;
use tombolo::{Error, Receiver, RecordRef, RecvTimeoutError};
use tombolo_abi::RingKind;

use super::content::Content;
use super::ledger::{Entry, What};
use super::{Arguments, soon};
use crate::{Failure, Rng};

pub(super) const NAME: &str = "handles.receiver";

/// How long it waits before it asks whether to stop.
const A_WHILE: Duration = Duration::from_millis(100);

pub(super) fn receive(arguments: &[String]) -> Result<(), Failure> {
    let arguments = Arguments::parse(arguments)?;
    let mut region = arguments.region()?;
    match arguments.kind {
        RingKind::Mpsc | RingKind::Lane => run(&mut region.split_mpsc()?.1, arguments),
        _ => run(&mut region.split_spsc()?.1, arguments),
    }
}

fn run<K: Topology>(rx: &mut Receiver<K>, arguments: Arguments) -> Result<(), Failure> {
    let Arguments { directory, life, mut rng, .. } = arguments;
    let notes = File::options().append(true).create(true).open(directory.join("received"))?;
    soon(|| rx.attach())?;
    rx.set_disconnect(Disconnect::Never); // killed senders come back
    let before = open_count()?;
    loop {
        match rx.recv_ref_timeout(A_WHILE) {
            Ok(record) => take(record, &notes, life, &mut rng)?,
            Err(RecvTimeoutError::Timeout) if directory.join("stop").exists() => break,
            Err(RecvTimeoutError::Timeout) => {}
            Err(error) => return Err(error.into()),
        }
        if rng.below(400) == 0 {
            thread::sleep(Duration::from_micros(rng.below(5000))); // so that some wait in the ring
        }
    }
    // The senders are gone, and what they left was closed with their connections.
    match open_count()? {
        after if after == before => Ok(()),
        after => Err(format!("{after} descriptors are open, and were {before}").into()),
    }
}

fn take(
    record: RecordRef<'_>,
    mut notes: &File,
    receiver: u64,
    rng: &mut Rng,
) -> Result<(), Failure> {
    let content = Content::from_bytes(&record.to_vec()?)?;
    let mut note = |what| {
        let handles = content.count() as u64;
        let (sender, number) = (content.life, content.number);
        notes.write_all(&Entry { sender, number, receiver, handles, what }.to_bytes())
    };
    if record.handle_count() != content.count() {
        return Err(format!("{} handles stated with {content:?}", record.handle_count()).into());
    }
    if content.count() > 0 && rng.percent(1) {
        let room = rng.below(content.count() as u64) as usize;
        match limited(room, || record.handles())? {
            Err(Error::TooManyFiles { .. }) => note(What::WithoutDescriptors)?,
            Err(Error::HandlesLost { .. }) => {}
            Ok(handles) => content.check(handles)?, // closing what was over had made room
            other => return Err(format!("with {room} descriptors: {other:?}").into()),
        }
    }
    match record.handles() {
        Ok(handles) => {
            content.check(handles)?;
            note(What::Whole)?;
        }
        Err(Error::HandlesLost { data, count, .. }) => {
            if Content::from_bytes(&data)? != content || count != content.count() {
                return Err(format!("{content:?} was told to be another").into());
            }
            note(What::Lost)?;
        }
        Err(error) => return Err(format!("{content:?}: {error}").into()),
    }
    Ok(()) // dropping the record frees it, and not before it was noted
}

pub(super) fn open_count() -> Result<usize, Failure> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}

/// Lets the process have no more than `room` descriptors more, as long as `body` runs.
fn limited<T>(room: usize, body: impl FnOnce() -> T) -> Result<T, Failure> {
    let before = getrlimit(Resource::Nofile);
    let is_open = |number: &u64| Path::new(&format!("/proc/self/fd/{number}")).exists();
    let current = (0u64..).filter(|number| !is_open(number)).nth(room);
    setrlimit(Resource::Nofile, Rlimit { current, maximum: before.maximum })?;
    let result = body();
    setrlimit(Resource::Nofile, before)?;
    Ok(result)
}
