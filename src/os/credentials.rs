//! Who is at the other end of a connection.
//!
//! `rustix` cannot tell of a peer whose process this pid namespace doesn't show: the kernel gives
//! process id 0 then. It knows nothing of groups.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsRawFd, BorrowedFd};

/// The user behind the other end of `socket`, at the time when it connected or listened.
pub(crate) fn peer_user(socket: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(peer(socket)?.uid)
}

/// Whether whoever is at the other end was a member of `group` then. Of a peer with more than 1,024
/// groups only the main one is believed.
pub(crate) fn peer_is_member(socket: BorrowedFd<'_>, group: u32) -> bool {
    peer(socket).is_ok_and(|peer| peer.gid == group)
        || peer_groups(socket).is_ok_and(|groups| groups.contains(&group))
}

fn peer(socket: BorrowedFd<'_>) -> io::Result<libc::ucred> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    let place = (&raw mut found).cast();
    // SAFETY: the kernel writes at most `len` bytes to `place`, which is a `ucred` of that length
    // and lives across the call; the descriptor is borrowed for the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            place,
            &raw mut len,
        )
    };
    if result == 0 { Ok(found) } else { Err(io::Error::last_os_error()) }
}

/// The supplementary groups of the peer; an error where there are more than there is room for.
fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<libc::gid_t>> {
    let mut found = vec![0; 1024];
    let mut len = size_of_val(&found[..]) as libc::socklen_t;
    let place = found.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `len` bytes to `place`, which is a vector of that length and
    // lives across the call; the descriptor is borrowed for the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            place,
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    found.truncate(len as usize / size_of::<libc::gid_t>());
    Ok(found)
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
