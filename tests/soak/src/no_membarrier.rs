//! Doing without `membarrier`, as under a filter that knows nothing of it.
#![allow(unsafe_code)]

use std::io;

use rustix::thread::set_no_new_privs;

use crate::Failure;

/// Makes `membarrier` fail with `EPERM` in this thread, and in all that it starts from here on.
/// There is no way back. Anybody may do that to himself.
///
/// # Errors
/// Where the kernel refuses, or goes on executing barriers.
pub(crate) fn refuse_membarrier() -> Result<(), Failure> {
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let number = 0; // offset of the call's number in `seccomp_data`
    // Load the number; where it is the one, go on, else pass over one instruction; return either.
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, number),
        libc::sock_filter {
            jf: 1,
            ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_membarrier as u32)
        },
        statement(libc::BPF_RET | libc::BPF_K, refuse),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set_no_new_privs(true)?; // what an ordinary user has to give up for a filter
    // SAFETY: the kernel reads `len` instructions at `filter`, which `program` holds until the end
    // of this function, and copies them.
    let set =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if set != 0 {
        return Err(io::Error::last_os_error().into());
    }
    expect_refusal()
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn expect_refusal() -> Result<(), Failure> {
    // SAFETY: asking what there is takes two numbers and touches no memory.
    let answer = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_QUERY, 0) };
    let error = io::Error::last_os_error();
    if answer != -1 || error.raw_os_error() != Some(libc::EPERM) {
        return Err(format!("membarrier is not refused: {answer}, {error}").into());
    }
    Ok(())
}
