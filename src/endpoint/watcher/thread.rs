//! The thread itself: starting it, and what it does for ever.

use std::io;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Acquire;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::Builder;
use std::time::Instant;

use tombolo_abi::slot_flags;

use super::scan::{Found, TICK_UNCOVERED};
use super::table::{Coverage, Start, Table, Task, Watcher};
use crate::mem::RobustList;
use crate::os::futex::{self, InVain, Moment, Sleeping, Woken};
use crate::os::{fork, membarrier, process};

/// Starts the thread and waits until it has its robust list. Called with forks held off, so with
/// signals blocked, as they then are in the thread.
pub(super) fn start() -> io::Result<Arc<Watcher>> {
    let watcher = Arc::new(Watcher {
        owner: fork::Owner::current()?,
        table: Mutex::default(),
        started: Condvar::new(),
        kick: AtomicU32::new(0),
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
        let mut in_vain = InVain::default();
        loop {
            let kick = self.kick.load(Acquire);
            let mut found = self.lock().scan(Instant::now());
            found.due.drain(..).for_each(|Task(task)| task());
            self.rest(kick, found, &mut in_vain);
        }
    }

    /// Sleeps until a scan is due, and longer if scans too often found nothing.
    fn rest(&self, kick: u32, found: Found, in_vain: &mut InVain) {
        let has_changes = found.has_changes;
        let woken = self.sleep(kick, found);
        in_vain.rest_if_due(has_changes, woken, &self.kick, kick);
    }

    /// Sleeps until a scan is due.
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

    /// Lets the process be reached by barriers. Takes 10 to 20 ms in a process with more than one thread,
    /// so it is done then when no thread waits for it. A process that is killed meanwhile dies that much
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

#[cfg(test)]
mod tests {
    use std::mem::offset_of;
    use std::time::Duration;

    use rustix::io::Errno;
    use tombolo_abi::Slot;

    use super::super::table::Life;
    use super::*;
    use crate::endpoint::slot_u32;
    use crate::os::staged::{self, Call};
    use crate::{EventsRegion, OpenOptions};

    #[test]
    fn a_word_that_never_lets_it_sleep_makes_it_rest_now_and_then() {
        const RESTS: u32 = 20;
        let (watcher, word) = (watcher(), AtomicU32::new(0));
        let start = Instant::now();
        let mut in_vain = InVain::default();
        for _ in 0..RESTS * (InVain::MAX + 1) {
            let mut found = watcher.lock().scan(start);
            found.words.push(Sleeping::on(&word, 1)); // which it is not
            watcher.rest(7, found, &mut in_vain);
        }
        assert!(start.elapsed() >= RESTS * InVain::REST, "it rested {:?} in all", start.elapsed());
    }

    #[test]
    fn a_process_with_nothing_to_look_after_sleeps() {
        assert!(staged::in_child(|| {
            let no_forks = fork::hold_off().unwrap();
            let _watcher = start().unwrap();
            drop(no_forks);
            let span = Duration::from_millis(500);
            std::thread::sleep(span);
            let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            Duration::new(used.tv_sec as u64, used.tv_nsec as u32) < span / 2
        }));
    }

    /// A watcher without a thread.
    fn watcher() -> Watcher {
        Watcher {
            owner: fork::Owner::current().unwrap(),
            table: Mutex::default(),
            started: Condvar::new(),
            kick: AtomicU32::new(7),
        }
    }

    /// What ended a sleep on nothing but the watcher's own word, if that was `kick` before, and whether the
    /// next scan relies on words.
    fn sleep(kick: u32, wait: Duration) -> (Woken, Coverage) {
        let watcher = watcher();
        let mut found = watcher.lock().scan(Instant::now());
        found.next = Instant::now() + wait;
        let woken = watcher.sleep(kick, found);
        let coverage = watcher.lock().coverage;
        (woken, coverage)
    }

    const SHORT: Duration = Duration::from_millis(10);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_change_of_the_table_before_the_sleep_is_not_slept_over() {
        assert_eq!(sleep(6, LONG).0, Woken::Perhaps);
        assert_eq!(sleep(7, SHORT).0, Woken::TimedOut);
    }

    #[test]
    fn nor_is_one_slept_over_that_comes_while_the_words_of_peers_are_slept_on() {
        let (watcher, word) = (watcher(), AtomicU32::new(0));
        let mut found = watcher.lock().scan(Instant::now());
        found.words.push(Sleeping::on(&word, 0));
        found.next = Instant::now() + 500 * SHORT;
        let woken = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(10 * SHORT); // until the other sleeps
                watcher.kick();
            });
            watcher.sleep(7, found)
        });
        assert_eq!(woken, Woken::Perhaps);
    }

    #[test]
    fn endpoints_that_are_attached_before_it_is_known_whether_barriers_come_say_so_later() {
        let region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let region = region.shared();
        let watcher = watcher();
        for slot in [0, 1] {
            let life = Life { id: 1, region: Arc::downgrade(region), slot };
            watcher.lock().lives.push(life);
        }
        watcher.register();
        let known = watcher.lock().barrier_flag;
        assert!([slot_flags::MEMBARRIER_OK, slot_flags::FENCES_ALWAYS].contains(&known));
        let said = |slot| slot_u32(region, slot, offset_of!(Slot, flags)).load(Acquire);
        assert_eq!([0, 1, 2].map(said), [known, known, 0]);
    }

    #[test]
    fn a_kernel_that_waits_for_one_word_only_leaves_the_rest_to_the_tick() {
        let start = Instant::now();
        for (errno, coverage) in [
            (Errno::NOSYS, Coverage::ByTick),
            (Errno::PERM, Coverage::ByTick),
            (Errno::FAULT, Coverage::ByWords), // of a mapping that was just removed
        ] {
            let call = Call::any(libc::SYS_futex_waitv);
            let slept = staged::refusing(call, errno, || [sleep(6, LONG), sleep(7, LONG)]);
            let Some(slept) = slept else { return eprintln!("skipped: no filters") };
            assert_eq!(slept, [(Woken::Perhaps, coverage), (Woken::TimedOut, coverage)]);
        }
        assert!(start.elapsed() < LONG / 2, "it slept for {:?}", start.elapsed());
    }

    #[test]
    fn a_process_of_one_thread_is_reached_by_barriers_from_the_start() {
        assert!(staged::in_child(|| {
            if process::thread_count() != Some(1) {
                return true; // no /proc
            }
            let no_forks = fork::hold_off().unwrap();
            let watcher = start().unwrap();
            drop(no_forks);
            let flag = watcher.lock().barrier_flag;
            flag != 0
        }));
    }

    #[test]
    fn a_process_of_many_threads_is_reached_by_barriers_soon() {
        let no_forks = fork::hold_off().unwrap();
        let watcher = start().unwrap();
        drop(no_forks);
        let start = Instant::now();
        while watcher.lock().barrier_flag == 0 {
            assert!(start.elapsed() < LONG / 2);
            std::thread::sleep(SHORT);
        }
    }
}
