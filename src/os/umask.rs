//! Giving a socket a name with exactly the socket's mode, whatever the process's umask.
//!
//! The kernel gives the name the mode that `fchmod` set on the socket, less the umask. The umask belongs
//! to all threads, so it isn't changed here: a child that shares memory and descriptors with this process,
//! and not its umask, makes the one call. This thread sleeps meanwhile, as in `posix_spawn`. The child
//! sends no signal when it ends, and only a wait with `__WALL` could meet it.
//!
//! If such a child is refused (by a filter, or a limit of processes), the name gets what the umask leaves.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::os::fd::BorrowedFd;

use rustix::fs::Mode;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::SocketAddrUnix;
use rustix::process::{Pid, WaitOptions, waitpid};

use super::signals::Blocked;

/// 64 KiB, of which the child uses some hundred bytes.
const STACK_LEN: usize = (64 << 10) / size_of::<u128>();

/// What the child does, and how that went.
struct Bind<'a> {
    socket: BorrowedFd<'a>,
    address: &'a SocketAddrUnix,
    result: Option<Result<(), Errno>>,
}

/// Binds `socket` to `address` with no umask.
pub(crate) fn bind(socket: BorrowedFd<'_>, address: &SocketAddrUnix) -> Result<(), Errno> {
    let mut bind = Bind { socket, address, result: None };
    in_child(&mut bind);
    let Bind { result, .. } = bind;
    result.unwrap_or_else(|| rustix::net::bind(socket, address))
}

fn in_child(bind: &mut Bind<'_>) {
    let mut stack = vec![0u128; STACK_LEN]; // aligned as a stack must be
    let top = stack.as_mut_ptr_range().end.cast::<c_void>();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES;
    let place = (&raw mut *bind).cast::<c_void>();
    let _signals = Blocked::new(); // a handler must not run on the child's stack
    // SAFETY: `top` is the aligned end of a stack that outlives the child, as `CLONE_VFORK` keeps this
    // thread from going on until the child has ended. `run` makes system calls and touches nothing but
    // `bind`, which is borrowed mutably until then.
    let child = unsafe { libc::clone(run, top, flags, place) };
    if let Some(child) = Pid::from_raw(child.max(0)) {
        // Removes its entry among the processes. If another thread has waited for it, nothing is left to do.
        let options = WaitOptions::from_bits_retain(libc::__WALL.cast_unsigned());
        let _ = retry_on_intr(|| waitpid(Some(child), options));
    }
}

extern "C" fn run(place: *mut c_void) -> i32 {
    // SAFETY: the `Bind` that `in_child` passed, which nothing else uses while this runs.
    let bind = unsafe { &mut *place.cast::<Bind<'_>>() };
    rustix::process::umask(Mode::empty());
    bind.result = Some(rustix::net::bind(bind.socket, bind.address));
    0
}

#[cfg(test)]
mod tests {
    use std::fs::metadata;
    use std::os::fd::AsFd;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::Command;

    use super::*;
    use crate::os::staged::{self, Call};

    /// Makes a name in the directory with a mode that the process's umask forbids; gives the name's mode.
    fn mode_of_new_name(dir: &Path, name: &str) -> u32 {
        let socket = crate::os::socket::new().unwrap();
        rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o666)).unwrap();
        bind(socket.as_fd(), &SocketAddrUnix::new(dir.join(name)).unwrap()).unwrap();
        metadata(dir.join(name)).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_name_has_its_mode_though_the_child_cannot_be_waited_for() {
        let dir = tempfile::TempDir::new().unwrap();
        assert!(staged::in_child(|| {
            rustix::process::umask(Mode::from_raw_mode(0o077));
            if !staged::answer(Call::any(libc::SYS_wait4), libc::EPERM) {
                return true; // no filters
            }
            (0..50).all(|name| mode_of_new_name(dir.path(), &name.to_string()) == 0o666)
        }));
    }

    #[test]
    fn nothing_is_left_of_the_child() {
        let dir = tempfile::TempDir::new().unwrap();
        assert!(staged::in_child(|| {
            let _ = mode_of_new_name(dir.path(), "name");
            let options = WaitOptions::from_bits_retain(libc::__WALL.cast_unsigned());
            waitpid(None, options | WaitOptions::NOHANG).is_err_and(|error| error == Errno::CHILD)
        }));
    }

    #[test]
    fn a_child_that_is_refused_costs_the_program_none_of_its_own() {
        let dir = tempfile::TempDir::new().unwrap();
        assert!(staged::in_child(|| {
            rustix::process::umask(Mode::from_raw_mode(0o077));
            let mut own = Command::new("true").spawn().unwrap();
            let is_refused = staged::answer(Call::any(libc::SYS_clone), libc::EAGAIN);
            let mode = mode_of_new_name(dir.path(), "name");
            mode == if is_refused { 0o600 } else { 0o666 } && own.wait().is_ok()
        }));
    }
}
