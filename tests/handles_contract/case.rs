//! What the tests share: files whose descriptors are counted, and short names.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use tombolo::handle::{DispositionError, HandleError, HandleOp};
use tombolo::object::{HandleTable, HandleValue, TableDisposition};
use tombolo::{EventsRegion, Handle, HandleType, Rights};
use tombolo_abi::LOCK_SLOTS;

use super::support::Dir;

/// A table, and a directory for the files whose descriptors are counted.
pub(crate) struct Case {
    pub(crate) table: HandleTable,
    pub(crate) dir: Dir,
}

impl Case {
    /// A handle on a file of the case, for reading and writing.
    pub(crate) fn handle(&self) -> Handle {
        let options = File::options().read(true).write(true).create(true).to_owned();
        Handle::new(options.open(self.dir.file("file")).unwrap())
    }

    /// One in the table.
    pub(crate) fn number(&self) -> HandleValue {
        self.table.insert(self.handle())
    }

    /// One in the table, with these rights.
    pub(crate) fn with(&self, rights: Rights) -> HandleValue {
        self.table.insert(self.handle().replace(rights).unwrap())
    }

    /// A number that was given once and names nothing now.
    pub(crate) fn closed(&self) -> HandleValue {
        let number = self.number();
        self.table.close(number).unwrap();
        number
    }

    pub(crate) fn open_count(&self) -> usize {
        self.dir.open_fds()
    }

    pub(crate) fn resolve(
        &self,
        list: &mut [TableDisposition],
    ) -> Result<Vec<Handle>, DispositionError> {
        self.table.resolve_all(list, &[])
    }

    pub(crate) fn try_resolve(
        &self,
        list: &mut [TableDisposition],
    ) -> Result<Vec<Handle>, DispositionError> {
        self.table.try_resolve_all(list, &[])
    }
}

/// Runs a test, and sees that it leaves nothing open once table and results are gone.
pub(crate) fn counted(test: impl FnOnce(&Case)) {
    let case = Case { table: HandleTable::new(), dir: Dir::new() };
    assert_eq!(case.open_count(), 0, "before");
    test(&case);
    drop(case.table);
    assert_eq!(case.dir.open_fds(), 0, "after");
}

pub(crate) fn moving(number: HandleValue) -> TableDisposition {
    TableDisposition::new(HandleOp::Move, number)
}

pub(crate) fn duplicating(number: HandleValue) -> TableDisposition {
    TableDisposition::new(HandleOp::Duplicate, number)
}

pub(crate) fn wants(rights: Rights, disposition: TableDisposition) -> TableDisposition {
    TableDisposition { rights, ..disposition }
}

pub(crate) fn expects(handle_type: HandleType, disposition: TableDisposition) -> TableDisposition {
    TableDisposition { handle_type: Some(handle_type), ..disposition }
}

pub(crate) fn bad(number: HandleValue) -> HandleError {
    HandleError::BadHandle { number }
}

/// The refusal of the only disposition in a list, by the form that consumes.
pub(crate) fn refusal(case: &Case, disposition: TableDisposition) -> HandleError {
    let mut list = [disposition];
    let error = case.resolve(&mut list).unwrap_err();
    let source = list[0].result.clone().unwrap_err();
    assert_eq!(error, DispositionError::Handle { index: 0, source: source.clone() });
    source
}

/// A descriptor of the region that owns the endpoint of `slot`.
pub(crate) fn endpoint(region: &EventsRegion, slot: i64) -> OwnedFd {
    let fd = region.to_fd().unwrap();
    let (l_type, l_whence) = (libc::F_WRLCK as i16, libc::SEEK_SET as i16);
    let l_start = LOCK_SLOTS as i64 + slot;
    let lock = libc::flock { l_type, l_whence, l_start, l_len: 1, l_pid: 0 };
    // SAFETY: `lock` is a `flock` and lives across the call, and the descriptor is borrowed for it.
    assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &lock) }, 0);
    fd
}
