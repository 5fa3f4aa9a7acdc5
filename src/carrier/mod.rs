//! How handles cross: on a connection of sockets beside each ring.
//!
//! ```text
//! sender                          kernel                      receiver
//!   connect ------------------>   listener's backlog
//!   Hello, HandlePacket ------>   queue of the connection
//!   publish the record ------------------------------------>  sees the record: its handles are there
//!                                                             accept, peek, take; free the record
//! ```
//!
//! * The packet is sent before the record is published. So a receiver never waits for one.
//! * A packet belongs to the record of the same slot, incarnation and position, and to no other.
//! * What is in a queue belongs to the kernel: it outlives its sender, and is closed when its receiver
//!   exits.
//! * A receiver peeks at a packet, then takes it: if the process may not have so many descriptors, all of
//!   them stay in the queue.
//! * A listener has a name beside the region's file, see `listener`. Of a region without a name, the connections
//!   themselves are transferred: a sender makes a pair of sockets and puts one of them into the ring's
//!   rendezvous, which all share; the receiver takes it out. It need not be the same receiver.
//! * Nothing here ever waits. Senders connect when they first send handles; a ring whose messages may
//!   carry none opens no socket.
//!
//! Sources: the socket calls are those of `unix(7)`. That a peek duplicates descriptors, and that a
//! packet is all or nothing, is Linux's.

mod connection;
mod door;
mod incoming;
mod intake;
mod listener;
mod outgoing;

pub(crate) use self::connection::{NotFetched, Wanted};
pub(crate) use self::incoming::Incoming;
pub(crate) use self::intake::Intake;
pub(crate) use self::outgoing::{HandOver, Outgoing, Unsent};

use std::os::fd::{AsFd, BorrowedFd};

use tombolo_abi::{CarriedHandle, HANDLE_COUNT_MAX, HandlePacket};

use crate::os::credentials::{peer_is_member, peer_user};
use crate::region::Region;

/// Bytes of one handle in a packet.
const CARRIED_LEN: usize = size_of::<CarriedHandle>();

/// Bytes of the longest packet.
const PACKET_LEN_MAX: usize = size_of::<HandlePacket>() + HANDLE_COUNT_MAX as usize * CARRIED_LEN;

/// Whether the process at the other end of `socket` may use the region: one of this user, of the region's
/// owner or of root, of its group if that may write to it, or any if all may. In a directory that all may
/// write to, any process can listen in the place of a receiver.
fn is_trusted(region: &Region, socket: BorrowedFd<'_>) -> bool {
    let (Ok(user), Ok(stat)) = (peer_user(socket), region.stat()) else {
        return false;
    };
    let own = rustix::process::geteuid().as_raw();
    [own, stat.st_uid, 0].contains(&user)
        || stat.st_mode & 0o002 != 0
        || stat.st_mode & 0o020 != 0 && peer_is_member(socket, stat.st_gid)
}

/// As [`is_trusted`], for a socket that is owned.
fn admit<T: AsFd>(region: &Region, socket: T) -> Option<T> {
    is_trusted(region, socket.as_fd()).then_some(socket)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, fchown};

    use rustix::process::{Gid, Uid, geteuid};
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

    use super::*;
    use crate::os::socket;

    const STRANGER: u32 = 65_534;

    #[test]
    fn another_user_is_trusted_only_if_it_may_write_to_the_region() {
        if !geteuid().is_root() {
            return eprintln!("skipped: only root can be another user");
        }
        let directory = tempfile::tempdir().unwrap();
        let region = crate::EventsRegion::open_path(directory.path().join("r")).unwrap();
        let region = region.shared();
        let connect = || {
            let (user, group) = (Uid::from_raw(STRANGER), Gid::from_raw(STRANGER));
            set_thread_groups(&[]).unwrap(); // of this thread
            set_thread_res_gid(group, group, group).unwrap();
            set_thread_res_uid(user, user, user).unwrap();
            socket::pair().unwrap()
        };
        let (socket, _other) = std::thread::scope(|scope| scope.spawn(connect).join().unwrap());
        let file = std::fs::File::open(directory.path().join("r")).unwrap();
        for (group, mode, expected) in [
            (0, 0o600, false),
            (0, 0o604, false),
            (0, 0o606, true),
            (0, 0o660, false),
            (STRANGER, 0o640, false),
            (STRANGER, 0o660, true),
        ] {
            fchown(&file, None, Some(group)).unwrap();
            file.set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
            let found = is_trusted(region, socket.as_fd());
            assert_eq!(found, expected, "group {group}, mode {mode:o}");
        }
    }
}
