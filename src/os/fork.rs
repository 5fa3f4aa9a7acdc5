//! Telling a forked child from the process that made a handle, and keeping forks out of moments in
//! which a child would take along what it must not have.
#![allow(unsafe_code)]

use std::io;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
use rustix::thread::gettid;

use super::descriptor_table;
use super::signals::Blocked;
#[cfg(test)]
use crate::crash::turns;

const PAGE_LEN: usize = 4096;

/// The process that made something.
///
/// A word on a page that the kernel hands to a forked child zeroed holds the number of the present
/// process; a child that makes handles of its own takes the next number. So a value made before a
/// fork never compares equal after it, at the cost of one load and no system call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    cookie: &'static AtomicU64,
    number: u64,
}

impl Owner {
    /// The present process.
    pub(crate) fn current() -> io::Result<Self> {
        /// The last number taken; a child starts from its parent's.
        static LAST: AtomicU64 = AtomicU64::new(0);

        let cookie = cookie()?;
        let next = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let had = cookie.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed);
        Ok(Self { cookie, number: had.map_or_else(|number| number, |_| next) })
    }

    /// Whether this code runs in that process, and not in a forked child of it.
    #[inline]
    pub(crate) fn is_here(self) -> bool {
        self.cookie.load(Ordering::Relaxed) == self.number
    }

    /// Different from its parents' and children's; never 0.
    pub(super) fn number(self) -> u64 {
        self.number
    }
}

/// The number of the present process, 0 if it has none yet. May be called by signal handlers.
pub(crate) fn present() -> u64 {
    COOKIE.get().map_or(0, |cookie| cookie.load(Ordering::Relaxed))
}

static COOKIE: OnceLock<&'static AtomicU64> = OnceLock::new();

/// The word on the page that forking zeroes.
fn cookie() -> io::Result<&'static AtomicU64> {
    if let Some(cookie) = COOKIE.get() {
        return Ok(cookie);
    }
    let made = new_cookie()?;
    Ok(COOKIE.get_or_init(|| made)) // a page more if two threads come first at once
}

fn new_cookie() -> io::Result<&'static AtomicU64> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no other.
    let page = unsafe { mmap_anonymous(null_mut(), PAGE_LEN, access, MapFlags::PRIVATE) }?;
    // SAFETY: the range is exactly the page just mapped, which holds nothing yet.
    unsafe { madvise(page, PAGE_LEN, Advice::LinuxWipeOnFork) }?;
    // SAFETY: page-aligned, readable, writable, zero-filled, never unmapped, and used only through
    // this reference.
    Ok(unsafe { AtomicU64::from_ptr(page.cast()) })
}

/// The thread that keeps others from forking, or that forks: its process in the upper half, itself in
/// the lower; 0 if there is none. A child that finds another process here inherited the word and
/// takes it.
static HOLDER: AtomicU64 = AtomicU64::new(0);
/// How many times more than once the holder has taken it. The holder's.
static NESTED: AtomicU32 = AtomicU32::new(0);

/// Keeps other threads of this process from forking, and signal handlers off this one, while it
/// lives.
pub(crate) struct NoForks {
    _signals: Blocked,
    /// Of a thread that stands for a process: no other knows of it.
    #[cfg(test)]
    is_of_another_process: bool,
}

/// Holds off forks.
///
/// Between opening a description that is to hold a lock and marking its mapping as not inherited, a
/// fork would give the child a share in the lock that could not be taken back. Signals are blocked
/// for the same time: a handler that forked on this very thread would wait for itself, and one that
/// ran between locking and renewing an incarnation could keep the two apart as long as it likes.
///
/// Children made by a bare `clone` system call pass this by.
pub(crate) fn hold_off() -> Result<NoForks, Errno> {
    register()?;
    let signals = Blocked::new();
    #[cfg(test)]
    if turns::is_process() {
        return Ok(NoForks { _signals: signals, is_of_another_process: true });
    }
    lock();
    Ok(NoForks {
        _signals: signals,
        #[cfg(test)]
        is_of_another_process: false,
    })
}

/// Has the functions below called around each fork.
///
/// Twice, if two threads come first at once, which does no harm: holds nest. None waits for the other, as
/// a child that is forked meanwhile would wait for ever.
fn register() -> Result<(), Errno> {
    static IS_REGISTERED: AtomicBool = AtomicBool::new(false);
    if IS_REGISTERED.load(Ordering::Acquire) {
        return Ok(());
    }
    // SAFETY: the three functions have the type asked for and live as long as the program.
    match unsafe { libc::pthread_atfork(Some(lock), Some(unlock), Some(reset)) } {
        0 => {
            IS_REGISTERED.store(true, Ordering::Release);
            Ok(())
        }
        error => Err(Errno::from_raw_os_error(error)),
    }
}

impl Drop for NoForks {
    fn drop(&mut self) {
        #[cfg(test)]
        if self.is_of_another_process {
            return;
        }
        unlock();
    }
}

/// The process's half of [`HOLDER`].
const PROCESS: u64 = !(u32::MAX as u64);

/// What stands in [`HOLDER`] if this thread has it.
fn this_thread() -> u64 {
    let thread = gettid().as_raw_nonzero().get().unsigned_abs();
    u64::from(std::process::id()) << 32 | u64::from(thread)
}

/// Also what a forking thread does just before. Takes no memory and no other lock. The holder may
/// take it again: a handler of the fork under way may attach an endpoint, or a signal's handler fork.
extern "C" fn lock() {
    let own = this_thread();
    let pid = own & PROCESS;
    for round in 0u32.. {
        let holder = HOLDER.load(Ordering::Relaxed);
        if holder == own {
            NESTED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let is_free = holder & PROCESS != pid;
        let take = || HOLDER.compare_exchange(holder, own, Ordering::Acquire, Ordering::Relaxed);
        if is_free && take().is_ok() {
            NESTED.store(0, Ordering::Relaxed); // else what an earlier process left
            return;
        }
        // Held for some ten system calls at the most, perhaps by a thread of lower priority.
        if round < 64 {
            std::thread::yield_now();
        } else {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

/// Also what the parent's side of a fork does just after.
extern "C" fn unlock() {
    let nested = NESTED.load(Ordering::Relaxed);
    if nested > 0 {
        NESTED.store(nested - 1, Ordering::Relaxed);
    } else {
        HOLDER.store(0, Ordering::Release);
    }
}

/// What the child's side of a fork does just after: it has one thread, which holds off no fork.
extern "C" fn reset() {
    descriptor_table::disown_inherited(present());
    HOLDER.store(0, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::staged::{self, Call, Forked};

    #[test]
    fn an_owner_is_here_until_a_child_asks() {
        let owner = Owner::current().unwrap();
        assert!(owner.is_here());
        // SAFETY: the child only compares numbers and leaves by `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let here = owner.is_here();
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(i32::from(here)) };
        }
        let mut status = 0;
        // SAFETY: `status` is a valid place for the child's status.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(status, 0, "the child took itself for its parent");
        assert!(owner.is_here());
    }

    #[test]
    fn a_process_has_one_word_that_tells_it_from_its_children() {
        let first = Owner::current().unwrap();
        let mapping = Call::any(libc::SYS_mmap);
        let second = staged::refusing(mapping, Errno::NOMEM, || Owner::current().unwrap());
        let Some(second) = second else { return eprintln!("skipped: no filters") };
        assert!(std::ptr::eq(first.cookie, second.cookie) && first.number == second.number);
    }

    #[test]
    fn a_fork_is_held_off_no_more_often_for_having_been_held_off_before() {
        (0..50).for_each(|_| drop(hold_off().unwrap()));
        // How often the fork took it more than once: if threads came first at once.
        assert!(staged::in_child(|| NESTED.load(Ordering::Relaxed) < 50));
    }

    /// It may have a higher priority than the holder, and the processor.
    #[test]
    fn a_thread_that_waits_for_the_holder_sleeps() {
        let held = hold_off().unwrap();
        let waiting = std::thread::spawn(|| {
            drop(hold_off().unwrap());
            let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
            let sleeps =
                status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sleeps?.trim().parse::<u32>().ok()
        });
        std::thread::sleep(Duration::from_millis(400));
        drop(held);
        let Some(sleeps) = waiting.join().unwrap() else { return eprintln!("skipped: no /proc") };
        assert!(sleeps > 10, "it slept {sleeps} times in 400 ms");
    }

    #[test]
    fn a_process_may_fork_after_forks_were_held_off() {
        drop(hold_off().unwrap());
        // SAFETY: the child leaves at once by `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(0) };
        }
        let mut status = 1;
        // SAFETY: `status` is a valid place for the child's status.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(status, 0);
        drop(hold_off().unwrap());
    }

    #[test]
    fn the_holder_may_hold_off_forks_again_and_fork_itself() {
        let held = hold_off().unwrap();
        drop(hold_off().unwrap());
        assert_eq!(HOLDER.load(Ordering::Relaxed), this_thread(), "the outer hold is over");
        // SAFETY: the child leaves at once by `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let is_free = || HOLDER.load(Ordering::Relaxed) == 0;
            let was_free = is_free();
            drop(hold_off());
            let is_free = was_free && is_free();
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(i32::from(!is_free)) };
        }
        let mut status = 1;
        // SAFETY: `status` is a valid place for the child's status.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(status, 0, "the child inherited the hold");
        drop(held);
        std::thread::spawn(|| drop(hold_off().unwrap())).join().unwrap();
    }

    #[test]
    fn a_fork_waits_while_an_endpoint_is_attached_so_that_the_child_has_no_share_in_its_lock() {
        let mut region = crate::EventsRegion::anonymous(crate::OpenOptions::new()).unwrap();
        let (mut tx, _) = region.split_spsc().unwrap();
        let (mut successor, _) = region.split_spsc().unwrap();
        let (done, forked) = std::sync::mpsc::channel();
        let (early, begun) = std::sync::mpsc::channel();
        let visit = crate::crash::visits::at("attach.locked", move || {
            std::thread::spawn(move || done.send(Forked::fork(|| true)));
            // Time enough for a fork that nothing holds off; else it comes after the attach.
            early
                .send(forked.recv_timeout(Duration::from_millis(200)).map_err(|_| forked))
                .unwrap();
        });
        tx.attach().unwrap();
        drop(visit);
        let _bystander = begun.recv().unwrap().or_else(|forked| forked.recv()).unwrap();
        drop(tx);
        successor.attach().unwrap(); // the child lives
    }
}
