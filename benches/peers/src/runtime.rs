//! A runtime of tokio for peers that are asynchronous.

use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;
use tombolo_benches::system::{Failure, Meeting, Waiting};

/// A runtime on the thread that calls, as each side has one processor.
pub(crate) fn new() -> Result<Runtime, Failure> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Makes busy waiting of a runtime that would sleep: a task that never ends keeps it asking the
/// kernel again and again. Comes last, as a peer may leave its meeting to threads of its own, which
/// a process that is always busy gives no processor to.
pub(crate) fn wait_as(meeting: &Meeting, runtime: &Runtime) {
    if meeting.waiting == Waiting::Busy {
        runtime.spawn(async {
            loop {
                yield_now().await;
            }
        });
    }
}
