//! The system calls that a channel in anonymous memory needs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use memmap2::{MmapOptions, MmapRaw};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::system::{Failure, Meeting, SoloSystem};

/// A file in memory of the length of a channel's, sealed and mapped; for each of two ends a description with
/// a lock on it, kept by a mapping, and an eventfd; a pair of sockets. A word of each page that a first message
/// touches is stored and loaded, and all is dropped.
#[derive(Debug)]
pub struct BareChannel;

/// Bytes of a channel's region.
const LEN: usize = (2 << 20) + (8 << 10);
/// Pages of it that making it and a message touch: the description, what changes of the rings, and their data.
const PAGES: [usize; 4] = [0, 1, 2, 258];
const PAGE_LEN: usize = 4096;

/// What shows that an end has an owner.
struct End {
    _lock: MmapRaw,
    _doorbell: OwnedFd,
}

impl End {
    fn new(file: &impl AsRawFd, byte: i64) -> Result<Self, Failure> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let own = OpenOptions::new().read(true).write(true).open(path)?;
        lock(&own, byte)?;
        let lock = MmapOptions::new().len(PAGE_LEN).map_raw_read_only(&own)?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self { _lock: lock, _doorbell: eventfd(0, flags)? })
    }
}

fn lock(file: &File, byte: i64) -> Result<(), Failure> {
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the command reads one `flock`, which lives across the call; the descriptor is open.
    let locked = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) };
    if locked == 0 { Ok(()) } else { Err(io::Error::last_os_error().into()) }
}

fn word(mapping: &MmapRaw, page: usize) -> &AtomicU64 {
    assert!((page + 1) * PAGE_LEN <= mapping.len(), "a page of the mapping");
    // SAFETY: aligned and in the mapping, which lives as long as the reference, by the line above.
    unsafe { AtomicU64::from_ptr(mapping.as_mut_ptr().wrapping_add(page * PAGE_LEN).cast()) }
}

impl SoloSystem for BareChannel {
    const NAME: &'static str = "bare-channel";

    fn start(_meeting: &Meeting) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn once(&mut self) -> Result<Duration, Failure> {
        let start = Instant::now();
        let file = memfd_create("bare", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, LEN as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
        let mapping = MmapOptions::new().len(LEN).map_raw(&file)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let sockets = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let ends = (End::new(&file, 0)?, End::new(&file, 1)?);
        PAGES.iter().for_each(|page| word(&mapping, *page).store(1, Release));
        let sum: u64 = PAGES.iter().map(|page| word(&mapping, *page).load(Acquire)).sum();
        drop((ends, sockets, mapping, file));
        let took = start.elapsed();
        if sum == PAGES.len() as u64 { Ok(took) } else { Err("another word came".into()) }
    }
}
