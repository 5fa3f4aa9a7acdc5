//! All descriptors that the library keeps, each with the file that it was opened on, and what becomes of them
//! in a forked child.
//!
//! A child has copies, which share locks, listening and queues with ours. Before `fork` returns in the child,
//! each private one is replaced there by a socket that is connected to nothing: the number stays taken, so
//! that the child's copy of the value still owns what it closes. In the parent, `fork` may return a moment
//! before that: so code that drops a lock unlocks it first, and code that stops listening shuts down.
//!
//! The table only grows, to as many places as there were descriptors at once. It changes while forks are
//! held off, but for places that become vacant, by one store each: so the one thread of a child always
//! finds it intact, and takes no memory and no lock.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicI32, AtomicU64};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::file::FileId;

/// A place in the table. Every word changes while forks are held off, or when its owner gives it back.
#[derive(Debug)]
pub(super) struct Place {
    /// The number, [`VACANT`] or [`LOST`].
    number: AtomicI32,
    /// The process that forked children don't have it from, by its number; [`SHARED`] if they do.
    maker: AtomicU64,
    /// What is open there: in a child, what replaced it.
    dev: AtomicU64,
    ino: AtomicU64,
}

/// Belongs to no descriptor.
const VACANT: RawFd = -1;
/// Belongs to a descriptor that was closed behind our back.
const LOST: RawFd = -2;
/// No process's number.
pub(super) const SHARED: u64 = 0;

const PLACE_COUNT: usize = 32;

/// Some places, and the next ones.
#[derive(Debug)]
struct Chunk {
    places: [Place; PLACE_COUNT],
    next: OnceLock<Box<Chunk>>,
}

static TABLE: Chunk = Chunk::new();

impl Place {
    /// A place for `number`, which is new and open on the file `id`. With forks held off.
    pub(super) fn take(number: RawFd, maker: u64, id: FileId) -> &'static Self {
        let place = vacant_place(number);
        place.maker.store(maker, Relaxed);
        place.set_id(id);
        place.number.store(number, Release);
        place
    }

    const fn vacant() -> Self {
        let (dev, ino) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { number: AtomicI32::new(VACANT), maker: AtomicU64::new(SHARED), dev, ino }
    }

    pub(super) fn vacate(&self) {
        self.number.store(VACANT, Release);
    }

    /// Whether it still belongs to the descriptor with this number.
    pub(super) fn is_of(&self, number: RawFd) -> bool {
        self.number.load(Relaxed) == number
    }

    /// Whether forked children keep their copies.
    pub(super) fn is_shared(&self) -> bool {
        self.maker.load(Relaxed) == SHARED
    }

    /// Whether `fd` leads to the file that is open there.
    pub(super) fn is_file_of(&self, fd: BorrowedFd<'_>) -> bool {
        self.id().is_file(fd)
    }

    fn id(&self) -> FileId {
        FileId { dev: self.dev.load(Relaxed), ino: self.ino.load(Relaxed) }
    }

    fn set_id(&self, id: FileId) {
        self.dev.store(id.dev, Relaxed);
        self.ino.store(id.ino, Relaxed);
    }

    /// In a child: puts a copy of `inert` in the place of what is the parent's, or closes it if there is
    /// none.
    fn give_up(&self, number: RawFd, inert: Option<(&OwnedFd, FileId)>) {
        if let Some((inert, id)) = inert {
            // SAFETY: `number` is open on a file of the library's, which the caller has checked, and stays
            // open; whatever the child does with it next, it does with the copy of `inert`.
            let got = unsafe { libc::dup3(inert.as_raw_fd(), number, libc::O_CLOEXEC) };
            if got == number {
                return self.set_id(id);
            }
        }
        self.number.store(LOST, Relaxed); // the value owns nothing from here on
        // SAFETY: as before, and nothing closes it later: its value takes it to be lost.
        unsafe { libc::close(number) };
    }
}

impl Chunk {
    const fn new() -> Self {
        Self { places: [const { Place::vacant() }; PLACE_COUNT], next: OnceLock::new() }
    }
}

/// All places that there are.
pub(super) fn places() -> impl Iterator<Item = &'static Place> {
    let chunks = std::iter::successors(Some(&TABLE), |chunk| chunk.next.get().map(|next| &**next));
    chunks.flat_map(|chunk| &chunk.places)
}

/// A vacant place for `number`, which is new: any other descriptor that had it was closed. With forks
/// held off.
fn vacant_place(number: RawFd) -> &'static Place {
    let mut vacant = None;
    for place in places() {
        match place.number.load(Acquire) {
            VACANT => vacant = vacant.or(Some(place)),
            _ => {
                // If it is that number, and its value hasn't just closed it and gives the place back.
                let _ = place.number.compare_exchange(number, LOST, Relaxed, Relaxed);
            }
        }
    }
    vacant.unwrap_or_else(more_places)
}

fn more_places() -> &'static Place {
    let mut last = &TABLE;
    while let Some(next) = last.next.get() {
        last = next;
    }
    &last.next.get_or_init(|| Box::new(Chunk::new())).places[0]
}

/// What the child's side of a fork does: replaces what is its parent's alone. `present` is the number of the
/// process that does it. Takes no memory and no lock.
pub(super) fn disown_inherited(present: u64) {
    let mut inert = None;
    for place in places() {
        let (number, maker) = (place.number.load(Acquire), place.maker.load(Relaxed));
        if number < 0 || maker == SHARED || maker == present {
            continue;
        }
        // SAFETY: used for asking only what file it is, which is answered by an error if it isn't open.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        if !place.is_file_of(borrowed) {
            place.number.store(LOST, Relaxed); // closed behind our back, before the fork
            continue;
        }
        inert = inert.or_else(new_inert); // at the limit of descriptors not before one was closed
        place.give_up(number, inert.as_ref().map(|(fd, id)| (fd, *id)));
    }
}

/// A descriptor that nothing comes from and nothing goes to.
fn new_inert() -> Option<(OwnedFd, FileId)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).ok()?;
    let id = FileId::of(&rustix::fs::fstat(&fd).ok()?);
    Some((fd, id))
}
