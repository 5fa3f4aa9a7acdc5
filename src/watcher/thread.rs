//! The thread itself: starting it, and what it does for ever.

use std::io;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Acquire;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use tombolo_abi::slot_flags;

use super::scan::{Found, TICK_UNCOVERED};
use super::{Coverage, Start, Table, Task, Watcher};
use crate::mem::RobustList;
use crate::os::futex::{self, Moment, Sleeping, Woken};
use crate::os::{fork, membarrier, process};

/// Wake-ups in a row that led to nothing, before the thread takes a rest. Peers can wake it at will.
const FRUITLESS_MAX: u32 = 64;
/// That rest.
const REST: Duration = Duration::from_millis(1);

/// Starts the thread and waits until it has its robust list. Called with forks held off, so with
/// signals blocked, as they then are in the thread.
pub(super) fn start() -> io::Result<Arc<Watcher>> {
    let watcher = Arc::new(Watcher {
        owner: fork::Owner::current()?,
        table: Mutex::default(),
        started: Condvar::new(),
        kick: AtomicU32::new(0),
        child: OnceLock::new(),
    });
    if process::thread_count() == Some(1) {
        watcher.register(); // as fast as any call, and nothing needs a fence for each message at first
    }
    let builder = Builder::new().name("tombolo-watch".to_owned()).stack_size(128 << 10);
    let threads_own = watcher.clone();
    builder.spawn(move || threads_own.run())?;
    let is_pending = |table: &mut Table| matches!(table.start, Start::Pending);
    let waited = watcher.started.wait_while(watcher.lock(), is_pending);
    drop(waited.unwrap_or_else(PoisonError::into_inner));
    Ok(watcher)
}

impl Watcher {
    fn run(&self) {
        self.lock().start = Start::Done(RobustList::install().ok());
        self.started.notify_all();
        if self.lock().barrier_flag == 0 {
            self.register();
        }
        let mut fruitless = 0;
        loop {
            let kick = self.kick.load(Acquire);
            let mut found = self.lock().scan(Instant::now());
            found.due.drain(..).for_each(|Task(task)| task());
            fruitless = if found.has_news { 0 } else { fruitless + 1 };
            if self.sleep(kick, found) == Woken::TimedOut {
                fruitless = 0;
            }
            if fruitless > FRUITLESS_MAX {
                futex::wait(&self.kick, kick, Moment::after(REST));
                fruitless = 0;
            }
        }
    }

    /// Sleeps until something is to be looked at.
    fn sleep(&self, kick: u32, found: Found) -> Woken {
        let Found { mut words, next, .. } = found;
        let wait = next.saturating_duration_since(Instant::now());
        let until = Moment::after(wait);
        words.push(Sleeping::on(&self.kick, kick));
        match futex::wait_any(&words, until) {
            Ok(woken) => woken,
            Err(error) => {
                if error.raw_os_error() != Some(libc::EFAULT) {
                    self.lock().coverage = Coverage::ByTick; // there is no such call here
                }
                futex::wait(&self.kick, kick, Moment::after(wait.min(TICK_UNCOVERED)))
            }
        }
    }

    /// Lets the process be reached by barriers. Takes 10 to 20 ms in a process with more threads than
    /// one, so then it is done where nobody waits for it. One that is killed meanwhile dies so much
    /// later.
    fn register(&self) {
        let flag = match membarrier::register() {
            Ok(()) => slot_flags::MEMBARRIER_OK,
            Err(_) => slot_flags::FENCES_ALWAYS,
        };
        let mut table = self.lock();
        table.barrier_flag = flag;
        table.lives.iter().for_each(|life| life.flag(flag));
    }
}
