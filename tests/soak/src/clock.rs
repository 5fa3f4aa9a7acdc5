//! Time that all processes of a run measure alike, and waiting by it.

use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::Failure;
use crate::sending::PATIENCE;

/// Nanoseconds of a clock that all processes share and nobody sets.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Looks five times a millisecond until `is_so`.
///
/// # Errors
/// What a look says, and where `what` does not come for long.
pub(crate) fn until(
    what: &str,
    mut is_so: impl FnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        if Instant::now() > deadline {
            return Err(format!("in {PATIENCE:?} it never came that {what}").into());
        }
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}
