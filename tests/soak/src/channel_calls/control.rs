//! How long it takes to wake as many threads without the library: what the machine has to do with it.

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{OUTSTANDING, STACK_LEN};
use crate::Failure;
use crate::mutex::lock;

/// How long after a wake of all threads that wait at a condition the last of them goes on.
pub(super) fn wake_all() -> Result<Duration, Failure> {
    let (state, woken) = (Mutex::new((0, None::<Instant>)), Condvar::new());
    let longest = Mutex::new(Duration::ZERO);
    thread::scope(|scope| -> Result<(), Failure> {
        for _ in 0..OUTSTANDING {
            let waiter = thread::Builder::new().stack_size(STACK_LEN);
            let spawned = waiter.spawn_scoped(scope, || {
                let mut guard = lock(&state);
                guard.0 += 1;
                while guard.1.is_none() {
                    guard = woken.wait(guard).unwrap_or_else(PoisonError::into_inner);
                }
                let time = guard.1.map_or(Duration::ZERO, |start| start.elapsed());
                let mut longest = lock(&longest);
                *longest = time.max(*longest);
            });
            if let Err(error) = spawned {
                lock(&state).1 = Some(Instant::now());
                woken.notify_all();
                return Err(error.into());
            }
        }
        while lock(&state).0 < OUTSTANDING {
            thread::sleep(Duration::from_millis(1));
        }
        lock(&state).1 = Some(Instant::now());
        woken.notify_all();
        Ok(())
    })?;
    let longest = *lock(&longest);
    Ok(longest)
}
