//! Waiting, where a crate leaves it to its user.

use std::hint::spin_loop;
use std::thread::yield_now;
use std::time::{Duration, Instant};

use tombolo_benches::system::{Failure, relax};

/// Looks before a sender that has no room gives its processor away.
const LOOKS: u32 = 64;

/// Tries until there is room. Who is full has time: it gives its processor away, so that whoever
/// makes room, be it a receiver or a driver, is not kept from it.
#[inline]
pub(crate) fn for_room<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let mut looks = 0;
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        looks += 1;
        if looks < LOOKS {
            spin_loop();
        } else {
            yield_now();
        }
    }
}

/// Looks for a message until there is one.
#[inline]
pub(crate) fn for_message<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        relax();
    }
}

/// Waits until the other side has come: for the time before anything is measured.
pub(crate) fn for_peer<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, Failure> {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if started.elapsed() > Duration::from_secs(10) {
            return Err(format!("waited 10 s for {what}").into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
