//! What a handle leads to is told by looking, for every kind of descriptor, and looking changes
//! nothing. Row X4 of the fault table.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::{CWD, FileType, MemfdFlags, Mode, OFlags, fcntl_get_seals, memfd_create};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
use tombolo::handle::HandleError;
use tombolo::{EventsRegion, Handle, HandleType, Rights};
use tombolo_abi::{LOCK_SLOTS, MAGIC, SLOT_COUNT_MAX};

mod support;
use support::*;

fn type_of(fd: impl Into<OwnedFd>) -> HandleType {
    Handle::new(fd).handle_type()
}

/// A descriptor of the region that holds the lock byte at `start`, as one that owns an endpoint does.
fn locked(region: &EventsRegion, start: u64) -> OwnedFd {
    let fd = region.to_fd().unwrap();
    lock(fd.as_fd(), start);
    fd
}

fn lock(fd: BorrowedFd<'_>, start: u64) {
    let (l_type, l_whence) = (libc::F_WRLCK as i16, libc::SEEK_SET as i16);
    let lock = libc::flock { l_type, l_whence, l_start: start as i64, l_len: 1, l_pid: 0 };
    // SAFETY: `lock` is a `flock` and lives across the call, and the descriptor is borrowed for it.
    assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &lock) }, 0);
}

#[test]
fn a_regular_file_is_a_file_whatever_its_length_and_mode() {
    let dir = Dir::new();
    let path = dir.file("plain");
    for bytes in [&b""[..], b"seven b", b"more than the eight bytes of a magic number"] {
        fs::write(&path, bytes).unwrap();
        assert_eq!(type_of(File::open(&path).unwrap()), HandleType::File);
        let write_only = OpenOptions::new().write(true).open(&path).unwrap();
        assert_eq!(type_of(write_only), HandleType::File);
    }
    assert_eq!(type_of(tempfile::tempfile().unwrap()), HandleType::File);
}

#[test]
fn a_directory_a_socket_and_both_ends_of_a_pipe_are_told() {
    let dir = Dir::new();
    assert_eq!(type_of(File::open(dir.path()).unwrap()), HandleType::Directory);
    let (reader, writer) = std::io::pipe().unwrap();
    assert_eq!((type_of(reader), type_of(writer)), (HandleType::Pipe, HandleType::Pipe));
    let (stream, _) = UnixStream::pair().unwrap();
    assert_eq!(type_of(stream), HandleType::Socket);
    assert_eq!(type_of(TcpListener::bind("127.0.0.1:0").unwrap()), HandleType::Socket);
    assert_eq!(type_of(UdpSocket::bind("127.0.0.1:0").unwrap()), HandleType::Socket);
}

#[test]
fn eventfd_epoll_and_pidfd_are_told_apart_though_they_are_no_files() {
    assert_eq!(type_of(eventfd(0, EventfdFlags::CLOEXEC).unwrap()), HandleType::EventFd);
    assert_eq!(type_of(epoll::create(epoll::CreateFlags::CLOEXEC).unwrap()), HandleType::Epoll);
    assert_eq!(type_of(pidfd_open(getpid(), PidfdFlags::empty()).unwrap()), HandleType::PidFd);
}

#[test]
fn a_timer_and_a_device_are_other_things() {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).unwrap();
    assert_eq!(type_of(timer), HandleType::Other);
    assert_eq!(type_of(File::open("/dev/null").unwrap()), HandleType::Other);
}

#[test]
fn memory_is_a_memfd_with_seals_or_without_and_a_file_on_tmpfs_is_not() {
    for flags in [MemfdFlags::CLOEXEC, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING] {
        let memory = memfd_create(c"plain memory", flags).unwrap();
        assert_eq!(type_of(memory), HandleType::MemFd);
    }
    let dir = Dir::new();
    let file = File::create_new(dir.file("memfd:forged")).unwrap();
    println!("seals of a file there: {:?}", fcntl_get_seals(&file));
    assert_eq!(type_of(file.try_clone().unwrap()), HandleType::File);
    fs::remove_file(dir.file("memfd:forged")).unwrap();
    assert_eq!(type_of(file), HandleType::File, "without a name it is no memfd either");
}

#[test]
fn a_region_is_told_by_its_magic_with_a_name_or_without() {
    let dir = Dir::new();
    let named = EventsRegion::open_path_with(dir.file("a"), small()).unwrap();
    assert_eq!(type_of(named.to_fd().unwrap()), HandleType::Region);
    let read_only = File::open(dir.file("a")).unwrap();
    assert_eq!(type_of(read_only), HandleType::Region);
    let anonymous = EventsRegion::anonymous(small()).unwrap();
    assert_eq!(type_of(anonymous.to_fd().unwrap()), HandleType::Region);
}

#[test]
fn a_region_that_cannot_be_read_is_a_file_and_one_that_is_damaged_still_a_region() {
    let dir = Dir::new();
    drop(EventsRegion::open_path_with(dir.file("a"), small()).unwrap());
    let write_only = OpenOptions::new().write(true).open(dir.file("a")).unwrap();
    assert_eq!(type_of(write_only), HandleType::File);
    fs::write(dir.file("damaged"), MAGIC).unwrap();
    assert_eq!(type_of(File::open(dir.file("damaged")).unwrap()), HandleType::Region);
    fs::write(dir.file("shorter"), &MAGIC[..7]).unwrap();
    assert_eq!(type_of(File::open(dir.file("shorter")).unwrap()), HandleType::File);
}

#[test]
fn a_descriptor_that_owns_an_endpoint_is_a_channel_and_cannot_be_duplicated() {
    let region = EventsRegion::anonymous(small()).unwrap();
    for slot in [0, 5, u64::from(SLOT_COUNT_MAX) - 1] {
        let end = Handle::new(locked(&region, LOCK_SLOTS + slot));
        assert_eq!(end.handle_type(), HandleType::Channel, "slot {slot}");
        assert_eq!(end.rights(), Rights::CHANNEL_DEFAULT);
        let missing = Rights::DUPLICATE;
        for rights in [Rights::SAME_RIGHTS, Rights::READ, Rights::empty()] {
            let held = Rights::CHANNEL_DEFAULT;
            let refused = end.duplicate(rights).unwrap_err();
            assert_eq!(refused, HandleError::AccessDenied { held, missing });
        }
        let wanted = Rights::CHANNEL_DEFAULT | Rights::DUPLICATE;
        let refused = end.replace(wanted).unwrap_err();
        assert_eq!(refused, HandleError::InvalidRights { held: Rights::CHANNEL_DEFAULT, wanted });
    }
}

#[test]
fn a_lock_of_somebody_else_or_on_another_byte_makes_no_channel() {
    let region = EventsRegion::anonymous(small()).unwrap();
    let owner = locked(&region, LOCK_SLOTS + 5);
    assert_eq!(type_of(region.to_fd().unwrap()), HandleType::Region, "the lock is another's");
    drop(owner);
    for start in [0, LOCK_SLOTS - 1, LOCK_SLOTS + u64::from(SLOT_COUNT_MAX)] {
        assert_eq!(type_of(locked(&region, start)), HandleType::Region, "byte {start:#x}");
    }
    let plain = tempfile::tempfile().unwrap();
    lock(plain.as_fd(), LOCK_SLOTS + 5);
    assert_eq!(type_of(plain), HandleType::File, "a lock makes no region");
}

#[test]
fn a_descriptor_with_more_locks_than_can_be_read_is_taken_for_an_endpoint() {
    let region = EventsRegion::anonymous(small()).unwrap();
    let fd = region.to_fd().unwrap();
    (0..2000).for_each(|n| lock(fd.as_fd(), 2 * n));
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
    assert!(about.len() > 64 << 10, "{} bytes", about.len());
    assert_eq!(type_of(fd), HandleType::Channel);
}

#[test]
fn the_ends_in_use_of_a_region_keep_no_descriptor_that_could_be_duplicated() {
    let mut region = EventsRegion::anonymous(small()).unwrap();
    let (mut sender, _) = region.split_spsc().unwrap();
    sender.send(b"claims the endpoint").unwrap();
    assert_eq!(type_of(region.to_fd().unwrap()), HandleType::Region);
}

#[test]
fn a_path_only_descriptor_is_a_file_or_a_directory_or_something_else() {
    let dir = Dir::new();
    fs::write(dir.file("plain"), b"bytes").unwrap();
    let _listener = UnixListener::bind(dir.file("socket")).unwrap();
    rustix::fs::mknodat(CWD, dir.file("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let open = |name| {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        type_of(rustix::fs::open(dir.file(name), flags, Mode::empty()).unwrap())
    };
    assert_eq!(open("plain"), HandleType::File);
    assert_eq!(open("."), HandleType::Directory);
    assert_eq!(open("socket"), HandleType::Other, "the name of a socket is none");
    assert_eq!(open("fifo"), HandleType::Other, "the name of a pipe is none");
}

#[test]
fn a_fifo_with_a_name_is_a_pipe_once_it_is_open() {
    let dir = Dir::new();
    rustix::fs::mknodat(CWD, dir.file("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    assert_eq!(type_of(options.open(dir.file("fifo")).unwrap()), HandleType::Pipe);
}

#[test]
fn telling_the_type_reads_nothing_away_and_leaves_the_position() {
    let dir = Dir::new();
    fs::write(dir.file("plain"), b"0123456789").unwrap();
    let mut file = File::open(dir.file("plain")).unwrap();
    file.seek(SeekFrom::Start(4)).unwrap();
    let handle = Handle::new(file);
    assert_eq!(handle.handle_type(), HandleType::File);
    let mut rest = String::new();
    File::from(handle.into_fd()).read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "456789");

    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"in the pipe").unwrap();
    drop(writer);
    let handle = Handle::new(reader);
    assert_eq!(handle.handle_type(), HandleType::Pipe);
    let mut all = String::new();
    File::from(handle.into_fd()).read_to_string(&mut all).unwrap();
    assert_eq!(all, "in the pipe");
}

#[test]
fn telling_the_type_leaves_no_descriptor_open() {
    let dir = Dir::new();
    let region = EventsRegion::open_path_with(dir.file("a"), small()).unwrap();
    let before = dir.open_fds();
    let handle = Handle::new(region.to_fd().unwrap());
    for _ in 0..100 {
        assert_eq!(handle.handle_type(), HandleType::Region);
        assert_eq!(dir.open_fds(), before + 1);
    }
    drop(handle);
    assert_eq!(dir.open_fds(), before);
}

#[test]
fn every_type_has_a_name_of_its_own_for_messages() {
    let names = [
        (HandleType::File, "file"),
        (HandleType::Directory, "directory"),
        (HandleType::Pipe, "pipe"),
        (HandleType::Socket, "socket"),
        (HandleType::EventFd, "eventfd"),
        (HandleType::MemFd, "memfd"),
        (HandleType::Epoll, "epoll"),
        (HandleType::PidFd, "pidfd"),
        (HandleType::Region, "region"),
        (HandleType::Channel, "channel"),
        (HandleType::Other, "other"),
    ];
    for (kind, name) in names {
        assert_eq!(kind.to_string(), name);
    }
}
