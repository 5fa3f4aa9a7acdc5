//! Descriptors that the library keeps: closed only while they are ours, and removed from forked children
//! if a copy would keep something alive.
//!
//! A process may close all its descriptors behind our back (daemonising does), and open others that get the
//! same numbers. So each is remembered in a table, with the file that it was opened on: dropping one closes the
//! number only if that file is still open there, and if no descriptor of the library has got the number since.
//! The kernel never gives out a number that is in use.
//!
//! A forked child loses its copies of those that are private: see [`super::descriptor_table`].
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::descriptor_table::{Place, SHARED};
use super::file::FileId;
use super::fork::{self, NoForks, Owner};
use crate::crash::test_point;

/// A descriptor of the library's, close-on-exec.
#[derive(Debug)]
pub(crate) struct Descriptor {
    fd: ManuallyDrop<OwnedFd>,
    /// What it was opened on.
    id: FileId,
    kind: FileType,
    place: &'static Place,
}

impl Descriptor {
    /// Keeps `fd`, of which a forked child may have a copy: nothing is locked, listened at or queued by it.
    pub(crate) fn shared(fd: OwnedFd) -> Result<Self, Errno> {
        let _held = fork::hold_off()?;
        Self::new(fd, SHARED)
    }

    /// Keeps `fd`, of which no forked child keeps a copy. Forks have been held off since before it was
    /// opened.
    pub(crate) fn private(fd: OwnedFd, _held: &NoForks) -> Result<Self, Errno> {
        let maker = Owner::current().map_err(|error| Errno::from_io_error(&error));
        let maker = maker.map_err(|errno| errno.unwrap_or(Errno::NOMEM))?;
        Self::new(fd, maker.number())
    }

    fn new(fd: OwnedFd, maker: u64) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(&fd)?;
        let (id, kind) = (FileId::of(&stat), FileType::from_raw_mode(stat.st_mode));
        let place = Place::take(fd.as_raw_fd(), maker, id);
        Ok(Self { fd: ManuallyDrop::new(fd), id, kind, place })
    }

    /// Whether it is still open on what it was opened on; not in a forked child that has no copy. Ask
    /// before anything is done that another file must not suffer.
    pub(crate) fn is_ours(&self) -> bool {
        self.stat().is_ok()
    }

    /// What the kernel says of the file.
    ///
    /// # Errors
    /// [`Errno::BADF`] unless [`Self::is_ours`].
    pub(crate) fn stat(&self) -> Result<Stat, Errno> {
        let stat = rustix::fs::fstat(self.as_fd())?;
        let is_ours = !self.is_lost() && FileId::of(&stat) == self.id;
        if is_ours { Ok(stat) } else { Err(Errno::BADF) }
    }

    /// The file that it was opened on.
    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    fn is_lost(&self) -> bool {
        !self.place.is_of(self.fd.as_raw_fd())
    }

    /// Whether a child could take another descriptor for this one, closed and not yet forgotten. Not for a
    /// socket: its file has no other descriptor.
    fn may_have_a_double(&self) -> bool {
        !self.place.is_shared() && self.kind != FileType::Socket
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // Only if it must be: what is queued in a socket is closed with it, and that may take long.
        let _held = if self.may_have_a_double() { fork::hold_off().ok() } else { None };
        let is_to_close = !self.is_lost() && self.place.is_file_of(self.as_fd());
        if is_to_close {
            // SAFETY: the value is being dropped, so this is done once and nothing uses it afterwards.
            drop(unsafe { ManuallyDrop::take(&mut self.fd) });
        }
        test_point!("descriptor.closed");
        self.place.vacate();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{FromRawFd, IntoRawFd, RawFd};
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::Relaxed;
    use std::sync::{Arc, mpsc};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::crash::visits;
    use crate::os::descriptor_table::{disown_inherited, places};
    use crate::os::ofd::{self, Mode};
    use crate::os::staged::{self, Call, Forked, usurp};

    const BYTE: std::ops::Range<u64> = 0..1;

    fn open(file: &tempfile::NamedTempFile) -> OwnedFd {
        file.reopen().unwrap().into()
    }

    fn private(file: &tempfile::NamedTempFile) -> Descriptor {
        let held = fork::hold_off().unwrap();
        Descriptor::private(open(file), &held).unwrap()
    }

    fn lock(fd: impl AsFd) {
        assert!(ofd::try_lock(fd.as_fd(), BYTE, Mode::Exclusive).unwrap());
    }

    fn is_locked(file: &tempfile::NamedTempFile) -> bool {
        ofd::is_locked(file.as_file().as_fd(), BYTE).unwrap()
    }

    /// Waits until nothing holds the lock: a child that has just been forked may not have run yet.
    fn is_free_soon(file: &tempfile::NamedTempFile) -> bool {
        let start = Instant::now();
        while is_locked(file) && start.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_micros(100));
        }
        !is_locked(file)
    }

    fn id_at(number: RawFd) -> Option<FileId> {
        // SAFETY: only asked about; what is not open gives an error.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::fs::fstat(fd).ok().map(|stat| FileId::of(&stat))
    }

    /// Opens the file once more, at a number that nothing is open at.
    fn open_at(number: RawFd, file: &tempfile::NamedTempFile) -> bool {
        let mut fd = open(file);
        if fd.as_raw_fd() != number {
            fd = rustix::io::fcntl_dupfd_cloexec(&fd, number).unwrap();
        }
        let number_got = fd.into_raw_fd();
        if number_got != number {
            close(number_got); // another thread was faster
        }
        number_got == number
    }

    fn close(number: RawFd) {
        // SAFETY: opened by `usurp`, and owned by nothing else.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }

    #[test]
    fn places_are_used_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let before = places().count();
        (0..500).for_each(|_| drop(Descriptor::shared(open(&file)).unwrap()));
        let more = places().count() - before;
        assert!(more < 500, "{more} places for one descriptor at a time");
    }

    #[test]
    fn a_child_has_no_share_in_what_is_private_and_has_one_in_all_else() {
        let (file, shared) =
            (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let (ours, plain) = (private(&file), open(&shared));
        let everybodys = Descriptor::shared(open(&file)).unwrap();
        lock(&ours);
        lock(&plain);
        let _bystander = Forked::fork(|| !ours.is_ours() && everybodys.is_ours());
        assert!(ours.is_ours() && is_locked(&file), "the parent lost its own");
        drop((ours, plain));
        assert!(is_free_soon(&file), "the child holds the lock");
        assert!(is_locked(&shared), "control: the child has no copies at all");
    }

    #[test]
    fn a_child_drops_its_copy_of_the_value_and_closes_what_replaced_it_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (ours, other) = (private(&file), File::open("/proc/self/exe").unwrap());
        let number = ours.fd.as_raw_fd();
        let _first = Forked::fork(|| {
            let was_taken = id_at(number).is_some();
            // SAFETY: the child never drops the other copy.
            drop(unsafe { std::ptr::read(&raw const ours) });
            was_taken && id_at(number).is_none()
        });
        let _second = Forked::fork(|| {
            usurp(number, &other);
            // SAFETY: as before.
            drop(unsafe { std::ptr::read(&raw const ours) });
            id_at(number) == id_at(other.as_raw_fd())
        });
        assert!(ours.is_ours());
    }

    #[test]
    fn a_child_at_its_limit_of_descriptors_has_no_share_either() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let _limited = Forked::fork(|| {
            let all = [private(&file), private(&file), private(&file)];
            lock(&all[0]);
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: `none` is a limit, and it is this child's.
            unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &none) };
            // SAFETY: the child of the child only waits to be killed, as its parent may.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let none_is_left = all.iter().all(|one| id_at(one.fd.as_raw_fd()).is_none());
                drop(all); // closes nothing
                // SAFETY: ends the child without running the parent's exit handlers.
                unsafe { libc::_exit(i32::from(!none_is_left)) };
            }
            let mut status = -1;
            // SAFETY: `status` is a valid place for the child's status.
            unsafe { libc::waitpid(child, &mut status, 0) };
            all[0].is_ours() && status == 0
        });
    }

    #[test]
    fn a_child_that_is_refused_replacements_has_no_share_and_closes_nothing_later() {
        let refused = staged::refusing(Call::any(libc::SYS_dup3), Errno::PERM, || {
            let file = tempfile::NamedTempFile::new().unwrap();
            let ours = private(&file);
            lock(&ours);
            let number = ours.fd.as_raw_fd();
            let bystander = Forked::fork(|| {
                let was_closed = id_at(number).is_none();
                let is_later = open_at(number, &file);
                // SAFETY: the child never drops the other copy.
                drop(unsafe { std::ptr::read(&raw const ours) });
                was_closed && is_later && id_at(number).is_some()
            });
            drop(ours);
            assert!(is_free_soon(&file));
            drop(bystander);
        });
        if refused.is_none() {
            eprintln!("skipped: no filters");
        }
    }

    #[test]
    fn the_first_number_of_all_is_private_as_well() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let _daemon = Forked::fork(|| {
            // SAFETY: nothing in this child reads from there.
            unsafe { libc::close(0) };
            let own = private(&file);
            let is_first = own.fd.as_raw_fd() == 0;
            let _child = Forked::fork(|| !own.is_ours());
            is_first
        });
    }

    #[test]
    fn a_child_keeps_what_has_the_number_of_one_that_was_closed() {
        let (file, other) =
            (tempfile::NamedTempFile::new().unwrap(), File::open("/proc/self/exe").unwrap());
        let ours = private(&file);
        let number = ours.fd.as_raw_fd();
        usurp(number, &other); // behind our back
        let _first = Forked::fork(|| {
            let is_kept = id_at(number) == id_at(other.as_raw_fd());
            usurp(number, file.as_file());
            // SAFETY: the child never drops the other copy.
            drop(unsafe { std::ptr::read(&raw const ours) });
            is_kept && id_at(number).is_some()
        });
        usurp(number, file.as_file()); // as if nothing had happened
        drop(ours);
        let _second = (0..1000).any(|_| open_at(number, &file)).then(|| {
            let kept = Forked::fork(|| id_at(number) == id_at(file.as_file().as_raw_fd()));
            close(number);
            kept
        });
    }

    /// What `fork` gives a thread while a descriptor is being dropped, closed and not yet forgotten: a child,
    /// or how long to wait for it on.
    fn fork_at_drop(
        ours: Descriptor,
        patience: Duration,
        before: impl FnOnce() + 'static,
        first: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<Forked, Forked> {
        let (done, forked) = mpsc::channel();
        let (early, begun) = mpsc::channel();
        let visit = visits::at("descriptor.closed", move || {
            before();
            thread::spawn(move || done.send(Forked::fork(first)));
            early.send(forked.recv_timeout(patience).map_err(|_| forked)).unwrap();
        });
        drop(ours);
        drop(visit);
        begun.recv().unwrap().map_err(|forked| forked.recv().unwrap())
    }

    #[test]
    fn a_fork_waits_until_a_number_that_another_file_may_get_is_forgotten() {
        let file = Arc::new(tempfile::NamedTempFile::new().unwrap());
        for _ in 0..100 {
            let ours = private(&file);
            let number = ours.fd.as_raw_fd();
            let is_open_again = Arc::new(AtomicBool::new(false));
            let (one, is_open) = (file.clone(), is_open_again.clone());
            let reuse = move || is_open.store(open_at(number, &one), Relaxed);
            let (id, is_open) = (id_at(number), is_open_again.clone());
            let first = move || !is_open.load(Relaxed) || id_at(number) == id;
            let patience = Duration::from_millis(200); // enough for a fork that nothing holds off
            let child = fork_at_drop(ours, patience, reuse, first);
            drop(child.expect_err("the fork came between"));
            if is_open_again.load(Relaxed) {
                return close(number);
            }
        }
        panic!("another thread was faster each time");
    }

    /// What is queued in a socket is closed with it, which may take as long as another process likes.
    #[test]
    fn no_fork_waits_for_what_is_closed_with_a_socket_or_is_shared() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let held = fork::hold_off().unwrap();
        let socket = Descriptor::private(crate::os::socket::new().unwrap(), &held).unwrap();
        drop(held);
        for ours in [socket, Descriptor::shared(open(&file)).unwrap()] {
            let child = fork_at_drop(ours, Duration::from_secs(20), || (), || true);
            drop(child.expect("the fork waited"));
        }
    }

    #[test]
    fn what_was_made_under_a_nested_hold_or_by_a_child_is_private_as_well() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let held = fork::hold_off().unwrap();
        let ours = private(&file);
        let everybodys = Descriptor::shared(open(&file)).unwrap();
        lock(&ours);
        // The holder itself forks; its child makes one of its own, and forks.
        let bystander = Forked::fork(|| {
            let own = private(&file);
            disown_inherited(fork::present()); // as if another handler of the fork had made it, before this one
            let child = Forked::fork(|| !own.is_ours() && !ours.is_ours());
            let is_kept = own.is_ours() && everybodys.is_ours();
            drop(child);
            is_kept
        });
        drop(held);
        drop(ours);
        assert!(is_free_soon(&file));
        drop(bystander);
    }

    #[test]
    fn what_another_file_has_by_now_stays_open() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let other = File::open("/proc/self/exe").unwrap();
        for ours in [Descriptor::shared(open(&file)).unwrap(), private(&file)] {
            let number = ours.fd.as_raw_fd();
            usurp(number, &other);
            assert!(!ours.is_ours());
            drop(ours);
            assert_eq!(id_at(number), id_at(other.as_raw_fd()));
            close(number);
        }
    }

    #[test]
    fn what_a_later_descriptor_on_the_same_file_has_by_now_stays_open() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let earlier = Descriptor::shared(open(&file)).unwrap();
        let number = earlier.fd.as_raw_fd();
        usurp(number, file.as_file());
        // SAFETY: it is the later one's from here on; the earlier one no longer closes it.
        let later = Descriptor::shared(unsafe { OwnedFd::from_raw_fd(number) }).unwrap();
        assert!(!earlier.is_ours());
        drop(earlier);
        assert!(later.is_ours());
        drop(later);
        assert_eq!(id_at(number), None, "nobody closed it");
    }

    #[test]
    fn no_child_ever_has_a_share_however_many_threads_make_and_drop_them() {
        let is_over = AtomicBool::new(false);
        let work = || {
            let file = tempfile::NamedTempFile::new().unwrap();
            let mut kept = Vec::new(); // more than there are places at first
            let mut count = 0;
            while !is_over.load(Relaxed) || count < 100 {
                let ours = private(&file);
                lock(&ours);
                let shared = Descriptor::shared(open(&file)).unwrap();
                assert!(ours.is_ours() && shared.is_ours());
                kept.push(shared);
                kept.truncate(30 + count % 10);
                drop(ours);
                assert!(is_free_soon(&file), "a child holds the lock of round {count}");
                count += 1;
            }
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..3).map(|_| scope.spawn(work)).collect();
            let children: Vec<_> = (0..100).map(|_| Forked::fork(|| true)).collect();
            is_over.store(true, Relaxed);
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            drop(children);
        });
    }
}
