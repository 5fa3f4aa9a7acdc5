//! What a kernel does seldom, or an older one always, for the unit tests: system calls that fail, and
//! signals that interrupt.
#![allow(unsafe_code)]
#![cfg(test)]

use std::fs;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::Once;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI32, AtomicU32};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{gettid, set_no_new_privs};

/// A system call, and what bits of which argument must be for it to be meant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    number: libc::c_long,
    place: u32,
    mask: u32,
    value: u32,
}

impl Call {
    pub(crate) fn any(number: libc::c_long) -> Self {
        Self { number, place: 0, mask: 0, value: 0 }
    }

    /// Calls with the argument `value` at `place`.
    pub(crate) fn with(number: libc::c_long, place: u32, value: i32) -> Self {
        Self { number, place, mask: u32::MAX, value: value.cast_unsigned() }
    }

    /// Calls with these flags in the argument at `place`.
    pub(crate) fn with_flags(number: libc::c_long, place: u32, flags: u32) -> Self {
        Self { number, place, mask: flags, value: flags }
    }
}

/// Calls `body` on a thread of its own, in which `call` fails with `errno`, and in all that it starts.
/// `None` if the kernel takes no filters.
pub(crate) fn refusing<T: Send>(
    call: Call,
    errno: Errno,
    body: impl FnOnce() -> T + Send,
) -> Option<T> {
    thread::scope(|scope| {
        let refused = scope.spawn(move || answer(call, errno.raw_os_error()).then(body));
        joined(refused)
    })
}

/// As [`refusing`], but `call` does nothing and says 0.
pub(crate) fn skipping<T: Send>(call: Call, body: impl FnOnce() -> T + Send) -> Option<T> {
    thread::scope(|scope| joined(scope.spawn(move || answer(call, 0).then(body))))
}

/// Whether `body` says so in a forked child.
pub(crate) fn in_child(body: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child is for tests, which know that it has this thread only; it leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: ends the child if it hangs.
        unsafe { libc::alarm(60) };
        let is_so = catch_unwind(AssertUnwindSafe(body)).unwrap_or(false);
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(i32::from(!is_so)) };
    }
    let mut status = -1;
    // SAFETY: `status` is a valid place for the child's status.
    unsafe { libc::waitpid(child, &mut status, 0) };
    status == 0
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Has the call fail, or do nothing, in this thread for ever; gives whether that is so.
pub(crate) fn answer(call: Call, errno: i32) -> bool {
    const ALLOW: libc::sock_filter = ends(libc::SECCOMP_RET_ALLOW);
    let load = |offset| one(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0);
    let differs = |value, skip| one(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, skip);
    let refuse = ends(libc::SECCOMP_RET_ERRNO | errno.unsigned_abs());
    // The call's number lies at offset 0, its arguments from 16 on, each with the lower half first.
    let mut program = [
        load(0),
        differs(call.number as u32, 4),
        load(16 + 8 * call.place),
        one(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, call.mask, 0),
        differs(call.value, 1),
        refuse,
        ALLOW,
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    if set_no_new_privs(true).is_err() {
        return false;
    }
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the kernel reads `len` instructions at `filter`, which `program` holds until the end of this
    // function, and copies them.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter) };
    set == 0
}

const fn one(code: u32, k: u32, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf, k }
}

const fn ends(verdict: u32) -> libc::sock_filter {
    one(libc::BPF_RET | libc::BPF_K, verdict, 0)
}

/// Puts another file in the place of `number`, as closing it and opening that would.
pub(crate) fn usurp(number: RawFd, other: impl AsFd) {
    // SAFETY: the number belongs to what is under test, which is to bear that.
    assert_eq!(unsafe { libc::dup2(other.as_fd().as_raw_fd(), number) }, number);
}

/// The number that the next descriptor gets.
pub(crate) fn lowest_free() -> u64 {
    rustix::io::dup(std::io::stderr()).unwrap().as_raw_fd() as u64
}

/// Has this process take no descriptors from this number on.
pub(crate) fn limit_descriptors(number: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(number);
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Whether the descriptor that this process has on the file goes to no program that it starts.
pub(crate) fn is_closed_by_exec(path: &Path) -> bool {
    let entries = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let is_it = |entry: &PathBuf| fs::read_link(entry).is_ok_and(|target| target == path);
    let number = entries.into_iter().find(is_it).expect("a descriptor on the file");
    let info = Path::new("/proc/self/fdinfo").join(number.file_name().unwrap());
    let info = fs::read_to_string(info).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_CLOEXEC != 0
}

/// How often this thread has given its processor up; `None` without `/proc`.
pub(crate) fn sleeps() -> Option<u64> {
    let status = fs::read_to_string("/proc/thread-self/status").ok()?;
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    count.trim().parse().ok()
}

/// Whether barriers of all processes reach this one; `None` from kernels that don't report it.
pub(crate) fn is_reached_by_barriers() -> Option<bool> {
    const GET_REGISTRATIONS: libc::c_int = 1 << 9;
    // SAFETY: asking takes two numbers and touches no memory.
    let found = unsafe { libc::syscall(libc::SYS_membarrier, GET_REGISTRATIONS, 0) };
    let flag = libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED;
    (found >= 0).then_some(found & libc::c_long::from(flag) != 0)
}

/// A forked child, until this is dropped.
#[derive(Debug)]
pub(crate) struct Forked {
    child: libc::pid_t,
    _leash: PipeWriter,
}

impl Forked {
    /// Forks; the child does `first`, and stays. Fails if that is not true.
    pub(crate) fn fork(first: impl FnOnce() -> bool) -> Self {
        let (leash_end, leash) = pipe().unwrap();
        let (mut news, told) = pipe().unwrap();
        // SAFETY: the child does no more than is asked for below and leaves by `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop((leash, news));
            stay(leash_end, told, first());
        }
        drop(told);
        let mut said = [0];
        news.read_exact(&mut said).unwrap();
        assert_eq!(said, [1], "the child found something else");
        Self { child, _leash: leash }
    }
}

fn stay(mut leash: PipeReader, mut told: PipeWriter, found: bool) -> ! {
    let _ = told.write(&[u8::from(found)]);
    let _ = leash.read(&mut [0]);
    // SAFETY: ends the child without running the parent's exit handlers.
    unsafe { libc::_exit(0) }
}

impl Drop for Forked {
    fn drop(&mut self) {
        end(self.child);
    }
}

/// Ends a child that nothing has waited for.
fn end(child: libc::pid_t) {
    // SAFETY: a child of this process's.
    unsafe { libc::kill(child, libc::SIGKILL) };
    // SAFETY: the status is not wanted.
    unsafe { libc::waitpid(child, null_mut(), 0) };
}

/// A child that has copies of everything, as no handler around `fork` ran: until this is dropped.
pub(crate) struct Bystander(libc::pid_t);

impl Bystander {
    pub(crate) fn new() -> Self {
        // SAFETY: no memory is shared with the child, which does nothing but wait.
        let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
        if child == 0 {
            // SAFETY: ends the child if nothing else does.
            unsafe { libc::alarm(60) };
            loop {
                // SAFETY: sleeps until a signal comes.
                unsafe { libc::pause() };
            }
        }
        assert!(child > 0);
        Self(child as libc::pid_t)
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        end(self.0);
    }
}

/// Has the next process that opens the file wait until this one lets go of it; the kernel asks for that by
/// a signal that is ignored. `false` if the kernel refuses.
pub(crate) fn lease(file: impl AsFd) -> bool {
    const F_SETSIG: libc::c_int = 10; // which `libc` lacks
    let number = file.as_fd().as_raw_fd();
    // SAFETY: sets the number of that signal.
    let is_set = unsafe { libc::fcntl(number, F_SETSIG, libc::SIGURG) } == 0;
    // SAFETY: a lease belongs to the open file and ends with it.
    is_set && unsafe { libc::fcntl(number, libc::F_SETLEASE, libc::F_WRLCK) } == 0
}

/// Signals that [`interrupted`] has sent and that were handled.
static HANDLED: AtomicU32 = AtomicU32::new(0);

/// Calls `body` on a thread that a signal interrupts again and again, and does not restart what it did.
pub(crate) fn interrupted<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    extern "C" fn handle(_: libc::c_int) {
        HANDLED.fetch_add(1, Relaxed);
    }
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let handler = handle as extern "C" fn(libc::c_int);
        // SAFETY: an action of zeros has no flags and blocks no signals.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as libc::sighandler_t;
        // SAFETY: the handler does nothing but count; the old action is not asked for.
        unsafe { libc::sigaction(libc::SIGUSR2, &action, null_mut()) };
    });
    let number = AtomicI32::new(0);
    let before = HANDLED.load(Relaxed);
    let result = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            number.store(gettid().as_raw_nonzero().get(), Relaxed);
            body()
        });
        while !thread.is_finished() {
            thread::sleep(Duration::from_millis(5));
            let (process, number) = (std::process::id(), number.load(Relaxed));
            if number != 0 {
                // SAFETY: a signal to a thread of this process, which handles it, or to none.
                unsafe { libc::syscall(libc::SYS_tgkill, process, number, libc::SIGUSR2) };
            }
        }
        joined(thread)
    });
    assert_ne!(HANDLED.load(Relaxed), before, "it was over before the first signal");
    result
}
