//! Tasks that one thread runs.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use crate::Failure;
use crate::mutex::lock;
use crate::sending::PATIENCE;

/// Runs all of `tasks` to their ends.
///
/// # Errors
/// If none of them is woken for long.
pub(super) fn run_all<F: Future<Output = ()>>(
    tasks: impl Iterator<Item = F>,
) -> Result<(), Failure> {
    let queue = Arc::new(Queue { woken: Mutex::default(), thread: thread::current() });
    let tasks = tasks.enumerate().map(|(index, task)| {
        let waker: Waker = Arc::new(Woken { index, queue: queue.clone() }).into();
        (Box::pin(task), waker)
    });
    let mut tasks: Vec<Option<(Pin<Box<F>>, Waker)>> = tasks.map(Some).collect();
    lock(&queue.woken).extend(0..tasks.len());
    let (mut left, mut last) = (tasks.len(), Instant::now());
    while left > 0 {
        let woken = std::mem::take(&mut *lock(&queue.woken));
        for index in &woken {
            let place = &mut tasks[*index];
            let Some((task, waker)) = place else { continue };
            if let Poll::Ready(()) = task.as_mut().poll(&mut Context::from_waker(waker)) {
                *place = None;
                left -= 1;
            }
        }
        if !woken.is_empty() {
            last = Instant::now();
        } else if last.elapsed() > PATIENCE {
            return Err(format!("none of {left} tasks was woken for {PATIENCE:?}").into());
        } else if left > 0 {
            thread::park_timeout(PATIENCE);
        }
    }
    Ok(())
}

struct Queue {
    woken: Mutex<Vec<usize>>,
    thread: Thread,
}

struct Woken {
    index: usize,
    queue: Arc<Queue>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        lock(&self.queue.woken).push(self.index);
        self.queue.thread.unpark();
    }
}
