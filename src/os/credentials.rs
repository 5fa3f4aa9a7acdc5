//! The process at the other end of a connection.
//!
//! `rustix` cannot report a peer in another pid namespace: the kernel gives process id 0 then. It has no
//! call for groups.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsRawFd, BorrowedFd};

/// The user behind the other end of `socket`, at the time when it connected or listened.
pub(crate) fn peer_user(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let [_pid, user, _group] = peer(socket)?;
    Ok(user)
}

/// Whether the process at the other end was a member of `group` when it connected. Of a peer with more
/// than 1,024 groups only the main one counts.
pub(crate) fn peer_is_member(socket: BorrowedFd<'_>, group: u32) -> bool {
    peer(socket).is_ok_and(|[_pid, _user, main]| main == group)
        || peer_groups(socket).is_ok_and(|groups| groups.contains(&group))
}

/// The peer's process, user and main group, as in a `ucred`.
fn peer(socket: BorrowedFd<'_>) -> io::Result<[u32; 3]> {
    const { assert!(size_of::<libc::ucred>() == size_of::<[u32; 3]>()) };
    let mut found = [0; 3];
    ask(socket, libc::SO_PEERCRED, &mut found)?;
    Ok(found)
}

/// The supplementary groups of the peer; an error if there are more than the buffer holds.
fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<libc::gid_t>> {
    let mut found = vec![0; 1024];
    let count = ask(socket, libc::SO_PEERGROUPS, &mut found)?;
    found.truncate(count);
    Ok(found)
}

/// What the kernel says of the peer in `found`, and in how many numbers.
fn ask(socket: BorrowedFd<'_>, option: libc::c_int, found: &mut [u32]) -> io::Result<usize> {
    let mut len = size_of_val(found) as libc::socklen_t;
    let (socket, place) = (socket.as_raw_fd(), found.as_mut_ptr().cast());
    // SAFETY: the kernel writes at most `len` bytes to `place`, which are those of `found`, borrowed across the
    // call and valid with any bits; the descriptor is borrowed for the call.
    let result = unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, option, place, &raw mut len) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(len as usize / size_of::<u32>())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_other_end_of_a_pair_is_this_user() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(peer_user(ours.as_fd()).unwrap(), own);
        let group = rustix::process::getegid().as_raw();
        assert!(peer_is_member(ours.as_fd(), group));
        let groups = peer_groups(ours.as_fd()).unwrap();
        let own: Vec<_> = rustix::process::getgroups().unwrap();
        assert_eq!(groups, own.iter().map(|group| group.as_raw()).collect::<Vec<_>>());
        let is_in = |id: u32| id == group || groups.contains(&id);
        let others = (1..).find(|id| !is_in(*id)).unwrap();
        assert!(!peer_is_member(ours.as_fd(), others));
    }

    #[test]
    fn no_process_is_behind_what_is_no_socket() {
        let file = File::open("/proc/self/exe").unwrap();
        assert!(peer_user(file.as_fd()).is_err());
        let group = rustix::process::getegid().as_raw();
        assert!(!peer_is_member(file.as_fd(), group) && !peer_is_member(file.as_fd(), 0));
    }
}
