//! Locks of this process.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks it. A thread that panicked with it makes the run fail by itself.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
