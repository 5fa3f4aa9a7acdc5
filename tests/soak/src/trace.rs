//! Stepping another process from system call to system call.
//!
//! A traced process stops at the entry of each call before the kernel has done anything of it, and
//! whoever kills it there knows exactly what it did and what it did not.
//!
//! Only the thread that seized a process may step it. The process dies with that thread.
#![allow(unsafe_code)]

use std::ffi::c_long;
use std::io;
use std::mem::size_of;
use std::ptr::null_mut;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};

use crate::Failure;

/// How long a traced process may take for one call.
const LIMIT: Duration = Duration::from_secs(20);

/// How long to look for a stop without giving the processor away for long.
const BRIEFLY: Duration = Duration::from_micros(200);

/// What tells a stop at a system call from the arrival of a SIGTRAP.
const AT_CALL: i32 = libc::SIGTRAP | 0x80;

/// A process that this thread traces.
#[derive(Debug)]
pub(crate) struct Traced {
    pid: Pid,
    /// The signal to hand over when it goes on; 0 for none.
    signal: i32,
}

impl Traced {
    /// Takes hold of the process `pid`, a child of this one, and stops it. `None` where the system
    /// lets nobody trace.
    pub(crate) fn seize(pid: Pid) -> Result<Option<Self>, Failure> {
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
        let raw = pid.as_raw_nonzero().get();
        // SAFETY: seizing reads no memory of ours: the address is unused and the data are flags.
        let seized = unsafe {
            libc::ptrace(libc::PTRACE_SEIZE, raw, null_mut::<()>(), c_long::from(options))
        };
        match checked(seized) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
            result => result?,
        };
        let mut traced = Self { pid, signal: 0 };
        traced.interrupt()?;
        traced.wait()?;
        Ok(Some(traced))
    }

    /// Lets it go on to the entry of its next system call, and gives the number of that.
    pub(crate) fn next_call(&mut self) -> Result<i64, Failure> {
        loop {
            self.proceed()?;
            if self.wait()? == AT_CALL
                && let Some(call) = self.call_entered()?
            {
                return Ok(call);
            }
        }
    }

    /// Lets it run as if nobody had traced it.
    pub(crate) fn release(self) -> Result<(), Failure> {
        let raw = self.pid.as_raw_nonzero().get();
        // SAFETY: detaching reads no memory of ours: the address is unused, the data a number.
        let result = unsafe {
            libc::ptrace(libc::PTRACE_DETACH, raw, null_mut::<()>(), c_long::from(self.signal))
        };
        checked(result)?;
        Ok(())
    }

    fn interrupt(&self) -> io::Result<()> {
        let raw = self.pid.as_raw_nonzero().get();
        // SAFETY: interrupting uses neither address nor data.
        let result = unsafe {
            libc::ptrace(libc::PTRACE_INTERRUPT, raw, null_mut::<()>(), null_mut::<()>())
        };
        checked(result).map(drop)
    }

    fn proceed(&mut self) -> io::Result<()> {
        let (raw, signal) = (self.pid.as_raw_nonzero().get(), c_long::from(self.signal));
        self.signal = 0;
        // SAFETY: going on reads no memory of ours: the address is unused, the data a number.
        let result = unsafe { libc::ptrace(libc::PTRACE_SYSCALL, raw, null_mut::<()>(), signal) };
        checked(result).map(drop)
    }

    /// Waits until it stops; gives by which signal.
    fn wait(&mut self) -> Result<i32, Failure> {
        let started = Instant::now();
        loop {
            if let Some((_, status)) = waitpid(Some(self.pid), WaitOptions::NOHANG)? {
                return self.stopped_by(status);
            }
            match started.elapsed() {
                waited if waited > LIMIT => {
                    return Err(format!("no system call of {:?} in {LIMIT:?}", self.pid).into());
                }
                waited if waited > BRIEFLY => thread::sleep(BRIEFLY / 4),
                _ => thread::yield_now(),
            }
        }
    }

    fn stopped_by(&mut self, status: WaitStatus) -> Result<i32, Failure> {
        let signal = status
            .stopping_signal()
            .ok_or_else(|| format!("the traced process is gone: {status:?}"))?;
        // What is in the upper half tells an event of tracing from a signal on its way.
        if signal != AT_CALL && status.as_raw() >> 16 == 0 {
            self.signal = signal;
        }
        Ok(signal)
    }

    /// The call that it stands at the entry of; `None` at the exit of one.
    fn call_entered(&self) -> io::Result<Option<i64>> {
        // SAFETY: the structure is made of numbers only, for which zeros are values.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        let raw = self.pid.as_raw_nonzero().get();
        let (request, len) =
            (libc::PTRACE_GET_SYSCALL_INFO, size_of::<libc::ptrace_syscall_info>());
        // SAFETY: the kernel writes at most `len` bytes to `info`, which has as many.
        checked(unsafe { libc::ptrace(request, raw, len, &raw mut info) })?;
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return Ok(None);
        }
        // SAFETY: at an entry the kernel filled in this member, and any bytes are numbers.
        let entry = unsafe { info.u.entry };
        Ok(Some(entry.nr as i64))
    }
}

fn checked(result: c_long) -> io::Result<c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The name of the system call `number`, of those that opening a region makes.
pub(crate) fn name_of(number: i64) -> String {
    let known = NAMES.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| format!("call {number}"), |(_, name)| (*name).to_owned())
}

const NAMES: &[(c_long, &str)] = &[
    (libc::SYS_brk, "brk"),
    (libc::SYS_clock_nanosleep, "clock_nanosleep"),
    (libc::SYS_rt_sigaction, "rt_sigaction"),
    (libc::SYS_close, "close"),
    (libc::SYS_fallocate, "fallocate"),
    (libc::SYS_fchmod, "fchmod"),
    (libc::SYS_fcntl, "fcntl"),
    (libc::SYS_fstat, "fstat"),
    (libc::SYS_fstatfs, "fstatfs"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_futex, "futex"),
    (libc::SYS_getdents64, "getdents64"),
    (libc::SYS_geteuid, "geteuid"),
    (libc::SYS_getpid, "getpid"),
    (libc::SYS_getrandom, "getrandom"),
    (libc::SYS_linkat, "linkat"),
    (libc::SYS_lseek, "lseek"),
    (libc::SYS_madvise, "madvise"),
    (libc::SYS_mmap, "mmap"),
    (libc::SYS_munmap, "munmap"),
    (libc::SYS_newfstatat, "newfstatat"),
    (libc::SYS_openat, "openat"),
    (libc::SYS_openat2, "openat2"),
    (libc::SYS_pread64, "pread64"),
    (libc::SYS_prlimit64, "prlimit64"),
    (libc::SYS_pwrite64, "pwrite64"),
    (libc::SYS_read, "read"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_statx, "statx"),
    (libc::SYS_unlinkat, "unlinkat"),
];
