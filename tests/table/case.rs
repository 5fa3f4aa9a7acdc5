//! What the tests share: a table with a channel in it, and descriptors that are counted.

use std::fmt::Debug;
use std::fs::File;
use std::io::PipeReader;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tombolo::handle::{HandleError, HandleOp};
use tombolo::object::{
    CallPhase, ChannelError, HandleTable, HandleValue, TableCallError, TableDisposition, TableError,
};
use tombolo::{Channel, Handle, Rights};

use super::support::Dir;
use super::support::witness::{is_closed, witness};

/// So long nothing takes that comes to an end at all.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// What is said to happen has happened by then.
pub(crate) const SOON: Duration = Duration::from_secs(2);
/// What is said not to happen is looked at for so long.
pub(crate) const SHORT: Duration = Duration::from_millis(20);

/// A table with both ends of a channel.
pub(crate) struct Case {
    pub(crate) table: HandleTable,
    pub(crate) ours: HandleValue,
    pub(crate) theirs: HandleValue,
    dir: Dir,
}

/// Only one test counts at a time.
static COUNTING: Mutex<()> = Mutex::new(());

/// Runs a test, and sees that it leaves as many descriptors open as there were once its table is gone.
pub(crate) fn counted(test: impl FnOnce(&Case)) {
    let _alone = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    drop(Channel::create().unwrap()); // the first one opens what the process keeps
    let before = open_fds();
    let (table, dir) = (HandleTable::new(), Dir::new());
    let (ours, theirs) = table.channel_create().unwrap();
    let case = Case { table, ours, theirs, dir };
    test(&case);
    drop(case);
    let start = Instant::now();
    while open_fds() != before {
        assert!(start.elapsed() < SOON, "{} descriptors, before {before}", open_fds());
        thread::sleep(Duration::from_millis(1));
    }
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

impl Case {
    /// The number of a file.
    pub(crate) fn file(&self) -> HandleValue {
        let options = File::options().read(true).write(true).create(true).to_owned();
        self.table.insert(Handle::new(options.open(self.dir.file("file")).unwrap()))
    }

    /// The number of a file, with these rights.
    pub(crate) fn with(&self, rights: Rights) -> HandleValue {
        self.table.replace(self.file(), rights).unwrap()
    }

    /// A number that was given once and names nothing now.
    pub(crate) fn closed(&self) -> HandleValue {
        let number = self.file();
        self.table.close(number).unwrap();
        number
    }

    /// The number of a pipe's end, and what tells when that is closed everywhere.
    pub(crate) fn witness(&self) -> (HandleValue, PipeReader) {
        let (handle, reader) = witness();
        (self.table.insert(handle), reader)
    }

    pub(crate) fn rights(&self, number: HandleValue) -> Rights {
        self.table.info(number).unwrap().rights
    }

    /// Writes to our end.
    pub(crate) fn write(&self, bytes: &[u8], handles: &[HandleValue]) -> String {
        status(self.table.channel_write(self.ours, 0, bytes, handles))
    }

    /// What is read from an end.
    pub(crate) fn read(&self, number: HandleValue) -> (Vec<u8>, Vec<HandleValue>) {
        let (mut bytes, mut handles) = (vec![0; 1 << 16], vec![0; 64]);
        let read = self.table.channel_read(number, 0, &mut bytes, &mut handles);
        let (len, count) = read.unwrap();
        bytes.truncate(len);
        handles.truncate(count);
        (bytes, handles)
    }

    /// What an end says that has nothing to read.
    pub(crate) fn unread(&self, number: HandleValue) -> String {
        status(self.table.channel_read(number, 0, &mut [], &mut []))
    }

    /// Sees that the peer of an end is closed, once that is known: of one that was a handle the kernel tells it.
    #[track_caller]
    pub(crate) fn comes_to_peer_closed(&self, number: HandleValue) {
        let end = self.table.get_channel(number, Rights::READ).unwrap();
        assert_eq!(status(end.read_timeout(LONG)), "PEER_CLOSED");
        assert_eq!(self.unread(number), "PEER_CLOSED");
    }

    /// Sees that nothing has come to the other end, and that what is written next does.
    pub(crate) fn nothing_came(&self) {
        assert_eq!(self.unread(self.theirs), "SHOULD_WAIT");
        assert_eq!(self.write(b"next", &[]), "OK");
        assert_eq!(self.read(self.theirs), (b"next".into(), vec![]));
    }

    /// Writes to our end until it is full.
    pub(crate) fn fill(&self) {
        let message = [7; 1 << 16];
        let write = || self.table.channel_try_write(self.ours, 0, &message, &[]);
        assert_eq!(status((0..1000).try_for_each(|_| write())), "SHOULD_WAIT");
        let write = || self.table.channel_try_write(self.ours, 0, b"", &[]);
        assert_eq!(status((0..100_000).try_for_each(|_| write())), "SHOULD_WAIT");
    }
}

/// Sees that all of these are closed everywhere.
#[track_caller]
pub(crate) fn all_are_closed(witnesses: &mut [PipeReader]) {
    for (index, witness) in witnesses.iter_mut().enumerate() {
        assert!(is_closed(witness, SOON), "witness {index} is open");
    }
}

pub(crate) fn moving(number: HandleValue) -> TableDisposition {
    TableDisposition::new(HandleOp::Move, number)
}

pub(crate) fn duplicating(number: HandleValue) -> TableDisposition {
    TableDisposition::new(HandleOp::Duplicate, number)
}

/// Zircon's name for what came of an operation.
pub(crate) fn status<T: Debug>(result: Result<T, impl Failure>) -> String {
    result.err().map_or_else(|| "OK".into(), |error| error.outcome())
}

/// The sizes that a refused read needs.
pub(crate) fn needed(error: &TableError) -> (usize, usize, bool) {
    match error {
        TableError::Channel {
            source: ChannelError::BufferTooSmall { needed, needed_handles, is_discarded, .. },
        } => (*needed, *needed_handles, *is_discarded),
        other => panic!("{other:?}"),
    }
}

/// An error with a name in Zircon.
pub(crate) trait Failure {
    fn outcome(&self) -> String;
}

impl Failure for TableError {
    fn outcome(&self) -> String {
        self.status().to_string()
    }
}

impl Failure for HandleError {
    fn outcome(&self) -> String {
        self.status().to_string()
    }
}

impl Failure for ChannelError {
    fn outcome(&self) -> String {
        self.status().to_string()
    }
}

impl Failure for TableCallError {
    fn outcome(&self) -> String {
        let phase = if self.phase == CallPhase::Write { "write" } else { "read" };
        format!("{} in the {phase} phase", self.status())
    }
}
