//! A mapping whose only use is to keep an open file description, and the locks on it, alive.

use std::io;
use std::os::fd::AsFd;
use std::ptr::{NonNull, null_mut};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use crate::os::fork::Owner;

/// Bytes mapped. A region has at least a header page.
const LEN: usize = 4096;

/// Holds an open file description without an open descriptor: no `close`, `closefrom` or `fork`
/// elsewhere in the process can drop the locks on it. They go when this is dropped or when the
/// process ends.
#[derive(Debug)]
pub(crate) struct LockMapping {
    address: NonNull<core::ffi::c_void>,
    owner: Owner,
}

// SAFETY: the mapping is neither read nor written, only unmapped, by the owner of this value.
unsafe impl Send for LockMapping {}
// SAFETY: `&LockMapping` gives access to nothing.
unsafe impl Sync for LockMapping {}

impl LockMapping {
    /// Maps `file` without any access; a forked child does not get the mapping.
    pub(crate) fn new(file: impl AsFd) -> io::Result<Self> {
        let owner = Owner::current()?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing one, and
        // PROT_NONE makes it unreadable.
        let address =
            unsafe { mmap(null_mut(), LEN, ProtFlags::empty(), MapFlags::SHARED, file, 0) }?;
        let Some(address) = NonNull::new(address) else {
            return Err(io::Error::from(io::ErrorKind::OutOfMemory));
        };
        let mapping = Self { address, owner };
        // SAFETY: the range is exactly the mapping just made; DONTFORK changes nothing for this
        // process.
        unsafe { madvise(address.as_ptr(), LEN, Advice::LinuxDontFork) }?;
        Ok(mapping)
    }
}

impl Drop for LockMapping {
    fn drop(&mut self) {
        if !self.owner.is_here() {
            return; // the child never had it; something else may be at this address
        }
        // SAFETY: the range is exactly the mapping made in `new`, which has no other user.
        // Nothing can be done about a failure, and none is documented for a valid range.
        let _ = unsafe { munmap(self.address.as_ptr(), LEN) };
    }
}
