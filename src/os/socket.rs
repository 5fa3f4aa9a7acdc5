//! Packets with descriptors, over connections of type SEQPACKET: to a name in a directory, or made as a
//! pair.
//!
//! Nothing here waits. Every descriptor is close-on-exec from its first moment.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
    SocketType, sockopt,
};

use super::descriptor::Descriptor;
use super::file::FileId;
use super::{fork, umask};
use crate::crash::test_point;

/// Connections that may wait to be accepted; the kernel's own limit may be lower.
const BACKLOG: i32 = 4096;

/// Descriptors that a packet can hold: the kernel's `SCM_MAX_FD`.
const DESCRIPTORS_MAX: usize = 253;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// What was found in front of a queue.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Bytes of it, perhaps more than fit into the buffer.
    pub(crate) len: usize,
    /// Descriptors of our own on what travels with it.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// Whether some descriptors are missing, because the process may have no more.
    pub(crate) is_cut: bool,
}

/// Two sockets that are connected with each other.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)
}

/// Opens a socket of which no forked child keeps a copy: a child would keep its queue, and the handles
/// in it, after this process has exited.
fn private(open: impl FnOnce() -> Result<OwnedFd, Errno>) -> Result<Descriptor, Errno> {
    let no_forks = fork::hold_off()?;
    Descriptor::private(open()?, &no_forks)
}

/// Whether `fd` is a socket of the kind that is used here.
pub(crate) fn is_of_packets(fd: BorrowedFd<'_>) -> bool {
    sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(fd) == Ok(SocketType::SEQPACKET)
}

/// From now on nothing comes to `socket`.
pub(crate) fn stop_receiving(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::net::shutdown(socket, Shutdown::Read)
}

/// Whether nothing comes to `socket` any more, and nothing has.
pub(crate) fn receives_nothing(socket: BorrowedFd<'_>) -> bool {
    peek_bytes(socket, &mut [0]) == Ok(0)
}

/// A socket that is connected to nothing.
pub(super) fn new() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)
}

/// The address of `name` in `dir`, short enough whatever the directory's path.
fn address(dir: BorrowedFd<'_>, name: &str) -> Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new(format!("/proc/thread-self/fd/{}/{name}", dir.as_raw_fd()))
}

/// Listens at `name` in `dir`; `mode` is the permission to connect.
///
/// The mode is the socket's before it has a name, and the name's from its first moment: once it is there,
/// another process may exchange it for a link.
///
/// # Errors
/// [`Errno::ADDRINUSE`] if something has that name, which stays.
pub(crate) fn listen(dir: BorrowedFd<'_>, name: &str, mode: Mode) -> Result<Descriptor, Errno> {
    let socket = private(new)?;
    rustix::fs::fchmod(&socket, mode)?;
    umask::bind(socket.as_fd(), &address(dir, name)?)?;
    match rustix::net::listen(&socket, BACKLOG) {
        Ok(()) => Ok(socket),
        Err(error) => {
            let _ = remove(dir, name);
            Err(error)
        }
    }
}

/// What `name` in `dir` stands for. Links are not followed.
pub(crate) fn file_at(dir: BorrowedFd<'_>, name: &str) -> Result<FileId, Errno> {
    let found = retry_on_intr(|| rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW))?;
    Ok(FileId::of(&found))
}

/// Removes `name` from `dir`, which is no error if it is not there.
pub(crate) fn remove(dir: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::NOENT) | Ok(()) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes `name` from `dir` if it is a socket's at which no process listens any more.
pub(crate) fn remove_stale(dir: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    match connect(dir, name) {
        Err(Errno::CONNREFUSED) => remove(dir, name),
        _ => Ok(()),
    }
}

/// Connects to the process that listens at `name` in `dir`, which may be no link: connecting would follow
/// it, perhaps to a program that knows nothing of this.
pub(crate) fn connect(dir: BorrowedFd<'_>, name: &str) -> Result<Descriptor, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = retry_on_intr(|| rustix::fs::openat(dir, name, flags, Mode::empty()))?;
    test_point!("connect.found");
    let address = SocketAddrUnix::new(format!("/proc/thread-self/fd/{}", found.as_raw_fd()))?;
    let socket = private(new)?;
    retry_on_intr(|| rustix::net::connect(&socket, &address))?; // what is no socket refuses
    Ok(socket)
}

/// The next connection; `None` if none is pending.
pub(crate) fn accept(listener: &Descriptor) -> Result<Option<Descriptor>, Errno> {
    check_ours(listener)?;
    match private(|| retry_on_intr(|| rustix::net::accept_with(listener, FLAGS))) {
        Ok(socket) => Ok(Some(socket)),
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An error unless `socket` is still what it was: nothing is sent to another's socket or taken from it.
fn check_ours(socket: &Descriptor) -> Result<(), Errno> {
    if socket.is_ours() { Ok(()) } else { Err(Errno::NOTCONN) }
}

/// Ends a connection and drops what is in it, also if a forked child has copies of the descriptor.
pub(crate) fn end(socket: Descriptor) {
    if !socket.is_ours() {
        return;
    }
    let _ = rustix::net::shutdown(&socket, Shutdown::Both); // nothing comes after this
    while peek_bytes(socket.as_fd(), &mut [0; 1]).is_ok_and(|len| len > 0)
        && drop_first(&socket).is_ok()
    {}
}

/// Stops listening and refuses pending connections, also if a forked child has copies of the descriptor.
pub(crate) fn stop_listening(listener: Descriptor) {
    if !listener.is_ours() {
        return;
    }
    let _ = rustix::net::shutdown(&listener, Shutdown::Both);
    while let Ok(Some(_)) = accept(&listener) {} // no child has these
}

/// Sends one packet, all of it or nothing. The kernel keeps the descriptors from then on, also after
/// this process has exited.
pub(crate) fn send(
    socket: &Descriptor,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    check_ours(socket)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG); // more than the kernel takes, or none
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let bytes = [IoSlice::new(bytes)];
    retry_on_intr(|| rustix::net::sendmsg(socket, &bytes, &mut control, flags)).map(drop)
}

/// Peeks at the next packet, which stays with all its descriptors: those given are duplicates.
pub(crate) fn peek(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Packet, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC | RecvFlags::TRUNC;
    let mut buffers = [IoSliceMut::new(buffer)];
    let found = receive(|| rustix::net::recvmsg(socket, &mut buffers, &mut control, flags))?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let is_cut = found.flags.contains(ReturnFlags::CTRUNC);
    Ok(Packet { len: found.bytes, descriptors, is_cut })
}

/// As [`peek`], for the bytes alone; gives how many there are.
pub(crate) fn peek_bytes(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT | RecvFlags::TRUNC;
    receive(|| rustix::net::recv(socket, &mut *buffer, flags)).map(|(_, len)| len)
}

/// Takes the next packet and drops it, with the references to descriptors in it.
pub(crate) fn drop_first(socket: &Descriptor) -> Result<(), Errno> {
    check_ours(socket)?;
    let mut buffer = [0; 8];
    receive(|| rustix::net::recv(socket, &mut buffer, RecvFlags::DONTWAIT)).map(drop)
}

/// Runs `receive` once more if it fails because the peer has closed without having read all: the kernel says that
/// once, before what the peer has sent.
fn receive<T>(mut receive: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    match retry_on_intr(&mut receive) {
        Err(Errno::CONNRESET) => retry_on_intr(receive),
        received => received,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::visits;
    use crate::os::staged::{self, Call, usurp};

    /// A connection by name: the sending end, the accepted one.
    fn pair() -> (Descriptor, Descriptor) {
        let directory = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(directory.path()).unwrap();
        let listener = listen(dir.as_fd(), "name", Mode::RWXU).unwrap();
        let sender = connect(dir.as_fd(), "name").unwrap();
        (sender, accept(&listener).unwrap().unwrap())
    }

    #[test]
    fn a_packet_looked_at_stays_with_its_descriptors_and_goes_when_it_is_dropped() {
        let (tx, rx) = pair();
        let (mut end, sent) = std::io::pipe().unwrap();
        send(&tx, b"four", &[sent.as_fd()]).unwrap();
        drop(sent);
        let mut buffer = [0; 16];
        for _ in 0..2 {
            let packet = peek(rx.as_fd(), &mut buffer).unwrap();
            assert_eq!((packet.len, packet.descriptors.len(), packet.is_cut), (4, 1, false));
        }
        assert_eq!(peek_bytes(rx.as_fd(), &mut buffer[..2]).unwrap(), 4);
        drop_first(&rx).unwrap();
        assert_eq!(peek(rx.as_fd(), &mut buffer).unwrap_err(), Errno::AGAIN);
        let at_end = std::io::Read::read(&mut end, &mut [0]).unwrap();
        assert_eq!(at_end, 0, "the writing end is still open somewhere");
    }

    /// A copy, as a forked child has one for a moment.
    fn copy(one: &Descriptor) -> OwnedFd {
        one.as_fd().try_clone_to_owned().unwrap()
    }

    fn is_at_end(pipe: &mut std::io::PipeReader) -> bool {
        rustix::io::ioctl_fionbio(&*pipe, true).unwrap();
        std::io::Read::read(pipe, &mut [0]).is_ok_and(|len| len == 0)
    }

    #[test]
    fn a_connection_that_has_ended_takes_and_keeps_nothing_though_there_is_a_copy() {
        let (tx, rx) = pair();
        let _copy = copy(&rx);
        let (mut end, sent) = std::io::pipe().unwrap();
        for _ in 0..3 {
            send(&tx, b"four", &[sent.as_fd()]).unwrap();
        }
        drop(sent);
        super::end(rx);
        assert!(is_at_end(&mut end), "the handles are open");
        assert_eq!(send(&tx, b"four", &[]).unwrap_err(), Errno::PIPE);
    }

    #[test]
    fn who_stopped_listening_turns_away_all_though_there_is_a_copy() {
        let directory = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(directory.path()).unwrap();
        let listener = listen(dir.as_fd(), "name", Mode::RWXU).unwrap();
        let _copy = copy(&listener);
        let waiting = connect(dir.as_fd(), "name").unwrap();
        stop_listening(listener);
        assert_eq!(send(&waiting, b"four", &[]).unwrap_err(), Errno::PIPE);
        assert_eq!(connect(dir.as_fd(), "name").unwrap_err(), Errno::CONNREFUSED);
    }

    #[test]
    fn no_connection_comes_from_what_another_has_under_the_listeners_number() {
        let directory = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(directory.path()).unwrap();
        let [listener, another] =
            ["name", "another"].map(|name| listen(dir.as_fd(), name, Mode::RWXU).unwrap());
        let _waiting = connect(dir.as_fd(), "another").unwrap();
        usurp(listener.as_fd().as_raw_fd(), &another);
        assert_eq!(accept(&listener).unwrap_err(), Errno::NOTCONN);
        assert!(accept(&another).unwrap().is_some());
    }

    #[test]
    fn what_a_peer_sent_is_there_though_it_has_closed_before_it_read_all() {
        let receives: [fn(&Descriptor) -> Option<usize>; 3] = [
            |rx| peek(rx.as_fd(), &mut [0; 8]).ok().map(|packet| packet.len),
            |rx| peek_bytes(rx.as_fd(), &mut [0; 8]).ok(),
            |rx| drop_first(rx).ok().map(|()| 4),
        ];
        for receive in receives {
            let (tx, rx) = pair();
            send(&tx, b"four", &[]).unwrap();
            send(&rx, b"unread", &[]).unwrap();
            drop(tx);
            assert_eq!(receive(&rx), Some(4));
        }
    }

    #[test]
    fn what_another_has_under_a_sockets_number_stays_as_it_is() {
        let (theirs, other) = pair();
        send(&other, b"a stranger's", &[]).unwrap();
        let usurped = |by: &Descriptor| {
            let (one, _) = pair();
            usurp(one.as_fd().as_raw_fd(), by);
            one
        };
        assert_eq!(send(&usurped(&theirs), b"four", &[]).unwrap_err(), Errno::NOTCONN);
        assert_eq!(drop_first(&usurped(&theirs)).unwrap_err(), Errno::NOTCONN);
        super::end(usurped(&theirs));
        assert_eq!(peek_bytes(theirs.as_fd(), &mut [0; 16]).unwrap(), 12);
        assert_eq!(peek_bytes(other.as_fd(), &mut [0; 16]).unwrap_err(), Errno::AGAIN);
        send(&theirs, b"four", &[]).unwrap();

        let directory = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(directory.path()).unwrap();
        let listener = listen(dir.as_fd(), "name", Mode::RWXU).unwrap();
        let _waiting = connect(dir.as_fd(), "name").unwrap();
        stop_listening(usurped(&listener));
        assert!(accept(&listener).unwrap().is_some());
        connect(dir.as_fd(), "name").unwrap();
    }

    #[test]
    fn a_link_is_a_file_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(directory.path()).unwrap();
        let _listener = listen(dir.as_fd(), "name", Mode::RWXU).unwrap();
        std::os::unix::fs::symlink("name", directory.path().join("link")).unwrap();
        let [name, link] = ["name", "link"].map(|name| file_at(dir.as_fd(), name).unwrap());
        assert_ne!(name, link);
        assert_eq!(connect(dir.as_fd(), "link").unwrap_err(), Errno::CONNREFUSED);
        let path = directory.path().join("name");
        let visit = visits::at("connect.found", move || assert!(staged::is_closed_by_exec(&path)));
        connect(dir.as_fd(), "name").unwrap();
        drop(visit);
    }

    #[test]
    fn a_name_at_which_no_process_can_listen_is_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(directory.path()).unwrap();
        let refused = staged::refusing(Call::any(libc::SYS_listen), Errno::ACCESS, || {
            listen(dir.as_fd(), "name", Mode::RWXU).map(drop)
        });
        let Some(refused) = refused else { return eprintln!("skipped: no filters") };
        assert_eq!(refused, Err(Errno::ACCESS));
        assert_eq!(connect(dir.as_fd(), "name").unwrap_err(), Errno::NOENT);
    }

    #[test]
    fn only_a_local_socket_of_packets_is_one() {
        let is_one = |domain, kind| {
            rustix::net::socket(domain, kind, None).is_ok_and(|one| is_of_packets(one.as_fd()))
        };
        assert!(is_one(AddressFamily::UNIX, SocketType::SEQPACKET));
        assert!(!is_one(AddressFamily::UNIX, SocketType::STREAM));
        assert!(!is_one(AddressFamily::INET, SocketType::STREAM));
        assert!(!is_one(AddressFamily::VSOCK, SocketType::SEQPACKET));
        let unknown = Call::with(libc::SYS_getsockopt, 2, libc::SO_DOMAIN); // of no kind that is known
        let unknown = staged::refusing(unknown, Errno::NOPROTOOPT, || {
            is_one(AddressFamily::UNIX, SocketType::SEQPACKET)
        });
        assert_ne!(unknown, Some(true));
    }

    #[test]
    fn a_packet_longer_than_the_space_for_it_says_so() {
        let (tx, rx) = pair();
        send(&tx, b"four", &[]).unwrap();
        assert_eq!(peek(rx.as_fd(), &mut [0; 2]).unwrap().len, 4);
        assert_eq!(peek_bytes(rx.as_fd(), &mut [0; 2]).unwrap(), 4);
    }

    /// Those of a region without a name are shared, so any process that has them can make them wait.
    #[test]
    fn nothing_waits_for_a_socket_that_another_process_made_wait() {
        use sockopt::Timeout;
        let long = std::time::Duration::from_secs(20);
        let (tx, rx) = pair();
        for one in [&tx, &rx] {
            rustix::io::ioctl_fionbio(one, false).unwrap();
            // So that a call which waits ends.
            sockopt::set_socket_timeout(one, Timeout::Recv, Some(long)).unwrap();
            sockopt::set_socket_timeout(one, Timeout::Send, Some(long)).unwrap();
        }
        let start = std::time::Instant::now();
        assert_eq!(peek(rx.as_fd(), &mut [0; 8]).unwrap_err(), Errno::AGAIN);
        assert_eq!(peek_bytes(rx.as_fd(), &mut [0; 8]).unwrap_err(), Errno::AGAIN);
        assert_eq!(drop_first(&rx).unwrap_err(), Errno::AGAIN);
        let full = (0..100_000).find_map(|_| send(&tx, &[0; 1000], &[]).err());
        assert_eq!(full, Some(Errno::AGAIN));
        assert!(start.elapsed() < long, "it waited {:?}", start.elapsed());
    }

    #[test]
    fn nobody_to_connect_to_is_an_error_and_what_has_the_name_stays() {
        let directory = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(directory.path()).unwrap();
        assert_eq!(connect(dir.as_fd(), "name").unwrap_err(), Errno::NOENT);
        stop_listening(listen(dir.as_fd(), "name", Mode::RWXU).unwrap());
        assert_eq!(connect(dir.as_fd(), "name").unwrap_err(), Errno::CONNREFUSED);
        assert_eq!(listen(dir.as_fd(), "name", Mode::RWXU).unwrap_err(), Errno::ADDRINUSE);
        remove_stale(dir.as_fd(), "name").unwrap();
        let _listener = listen(dir.as_fd(), "name", Mode::RWXU).unwrap();
        remove_stale(dir.as_fd(), "name").unwrap();
        connect(dir.as_fd(), "name").unwrap();
    }
}
