//! A process closes all its descriptors, those of the library with them, and opens others that get the same
//! numbers (daemonising does). The library says so, and does nothing to what belongs to others: neither
//! while it is used on nor when it is dropped.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::fstat;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use tombolo::options::FileSystemPolicy;
use tombolo::{Error, EventsRegion, MpscConsumer, MpscProducer, SpscReceiver, SpscSender};

mod support;
use support::carrying::{numbered, numbers_of, open_count, packet};
use support::overlay::Overlay;
use support::process::{Peer, report, role, wait_for_parent};
use support::{Dir, small};

const SOON: Duration = Duration::from_secs(10);
/// More than the library has open here.
const STRANGERS: usize = 60;

/// In processes of their own, as everything is closed.
#[test]
fn peer_process() {
    let Some((role, path)) = role() else { return };
    let (deed, kind) = role.split_once('-').unwrap();
    let options = match kind {
        "bytes" => small(),
        "stacked" => small().file_system(FileSystemPolicy::Any),
        _ => small().max_handles(8),
    };
    let open = || match kind {
        "nameless" => EventsRegion::anonymous(options.clone()).unwrap(),
        _ => EventsRegion::open_path_with(&path, options.clone()).unwrap(),
    };
    match deed {
        "used" => are_harmless_to_strangers(open, &path, Ends::are_told),
        "dropped" => are_harmless_to_strangers(open, &path, |_| {}),
        "reopened" => are_harmless_beside_new_ones(open),
        "succeeded" => leaves_a_successor_alone(open),
        "sockets" => sockets_alone_are_closed(open),
        other => panic!("no such deed: {other}"),
    }
    report("ready");
    wait_for_parent();
}

/// A region with both ends of both rings owned, and handles on their way if there may be some.
struct Ends {
    region: EventsRegion,
    spsc: (SpscSender, SpscReceiver),
    mpsc: (MpscProducer, MpscConsumer),
}

impl Ends {
    fn of(mut region: EventsRegion) -> Self {
        let (spsc, mpsc) = (region.split_spsc().unwrap(), region.split_mpsc().unwrap());
        let mut ends = Self { region, spsc, mpsc };
        ends.spsc.1.attach().unwrap();
        ends.mpsc.1.attach().unwrap();
        for _ in 0..10 {
            let _ = (ends.spsc.1.try_recv(), ends.mpsc.1.try_recv()); // what was left behind
        }
        ends.carry();
        ends
    }

    /// Sends and receives one message with a handle on each ring, or one without.
    fn carry(&mut self) {
        let has_handles = self.spsc.0.send_packet(packet(7, 1)).is_ok();
        if has_handles {
            self.mpsc.0.send_packet(packet(8, 1)).unwrap();
            assert_eq!(numbers_of(&self.spsc.1.recv().unwrap().handles), [7]);
            assert_eq!(numbers_of(&self.mpsc.1.recv().unwrap().handles), [8]);
        }
        self.carry_bytes();
    }

    fn carry_bytes(&mut self) {
        self.spsc.0.send(b"bytes").unwrap();
        self.mpsc.0.send(b"bytes").unwrap();
        assert_eq!(self.spsc.1.recv().unwrap().data, b"bytes");
        assert_eq!(self.mpsc.1.recv().unwrap().data, b"bytes");
    }

    /// Asserts that the one thing to be done is told, however they are used.
    fn are_told(&mut self) {
        let is_told = |error: &String| error.contains("drop this handle and open the region again");
        let start = Instant::now();
        loop {
            let errors = self.use_all();
            let is_other = |error: &String| error.contains("no descriptors are left");
            assert!(!errors.iter().any(is_other), "told to close some: {errors:#?}");
            if errors.iter().any(is_told) {
                return;
            }
            assert!(start.elapsed() < SOON, "{errors:#?}"); // the watcher looks once in a second
        }
    }

    /// Does all that can be done, and gives the errors that there were.
    fn use_all(&mut self) -> Vec<String> {
        let mut errors = Vec::new();
        let mut note = |error: Option<String>| errors.extend(error);
        let ((tx, rx), (producer, consumer)) = (&mut self.spsc, &mut self.mpsc);
        note(self.region.is_current().err().map(|error| error.to_string()));
        note(self.region.to_fds().err().map(|error| error.to_string()));
        note(tx.try_send_packet(packet(1, 1)).err().map(|error| error.to_string()));
        note(producer.try_send_packet(packet(2, 1)).err().map(|error| error.to_string()));
        note(tx.try_send(b"bytes").err().map(|error| error.to_string()));
        let short = Duration::from_millis(1);
        for _ in 0..4 {
            note(rx.recv_timeout(short).err().map(|error| error.to_string()));
            note(consumer.recv_timeout(short).err().map(|error| error.to_string()));
        }
        if let Ok((mut tx, mut rx)) = self.region.split_mpsc() {
            note(tx.attach().err().map(|error| error.to_string()));
            note(rx.attach().err().map(|error| error.to_string()));
        }
        errors
    }
}

/// Closes all but the three that the test's own talk goes through.
fn close_all() {
    // SAFETY: closes what others own and use, which is the point.
    assert_eq!(unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) }, 0);
}

type Id = (u64, u64);

fn id_at(number: RawFd) -> Option<Id> {
    // SAFETY: only asked about; what is not open gives an error.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// Descriptors of the program's own.
#[derive(Default)]
struct Strangers {
    all: Vec<(RawFd, Id)>,
    pairs: Vec<[RawFd; 2]>,
}

impl Strangers {
    /// Files, directories and sockets with something to be received, in the lowest numbers, of which `layout`
    /// says what has which.
    fn open(dir: &Path, layout: usize) -> Self {
        let mut strangers = Self::default();
        for number in 0..STRANGERS {
            match (number + layout) % 3 {
                0 => strangers.keep_pair(),
                1 => drop(strangers.keep(numbered(number as u64))),
                _ => drop(strangers.keep(File::open(dir).unwrap().into())),
            }
        }
        strangers
    }

    fn keep_pair(&mut self) {
        let (flags, kind) = (SocketFlags::NONBLOCK, SocketType::SEQPACKET);
        let pair = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None).unwrap();
        let handle = numbered(3);
        for one in [&pair.0, &pair.1] {
            support::carrying::send(one, b"a stranger's", &[handle.as_fd()]);
        }
        drop(handle);
        let pair = [pair.0, pair.1].map(|one| self.keep(one));
        self.pairs.push(pair);
    }

    fn keep(&mut self, fd: OwnedFd) -> RawFd {
        let number = fd.into_raw_fd();
        self.all.push((number, id_at(number).unwrap()));
        number
    }

    /// Asserts that nothing has happened to them.
    fn assert_untouched(&self, when: &str) {
        for (number, id) in &self.all {
            assert_eq!(id_at(*number), Some(*id), "{when}: {number} is closed");
        }
        for number in self.pairs.as_flattened() {
            // SAFETY: open, as was just seen.
            let fd = unsafe { BorrowedFd::borrow_raw(*number) };
            let mut bytes = [0; 32];
            let received = rustix::net::recv(fd, &mut bytes[..], RecvFlags::PEEK);
            assert_eq!(received, Ok((12, 12)), "{when}: {number} has another packet or none");
            let sent = rustix::net::send(fd, b"more", SendFlags::NOSIGNAL);
            assert_eq!(sent, Ok(4), "{when}: {number} is shut down");
        }
    }
}

fn are_harmless_to_strangers(
    open: impl Fn() -> EventsRegion,
    path: &Path,
    deed: impl Fn(&mut Ends),
) {
    let (mut ends, dir) = (Ends::of(open()), Dir::new());
    let waiting = open(); // has nothing claimed
    let _ = ends.mpsc.0.send_packet(packet(9, 1)); // stays in its queue
    close_all();
    let layout = usize::from(path.as_os_str().as_encoded_bytes().last().unwrap() - b'0');
    let strangers = Strangers::open(dir.path(), layout);
    let is_current = ends.region.is_current();
    let has_name = ends.region.path().is_some();
    assert!(is_current.is_err() || !has_name, "asked of a stranger's directory: {is_current:?}");
    deed(&mut ends);
    strangers.assert_untouched("used");
    drop((ends.spsc, ends.mpsc));
    strangers.assert_untouched("ends dropped");
    drop((ends.region, waiting));
    strangers.assert_untouched("regions dropped");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "made something there");
    if has_name {
        Ends::of(open()).carry();
        strangers.assert_untouched("opened again");
    }
}

fn are_harmless_beside_new_ones(open: impl Fn() -> EventsRegion) {
    let earlier = Ends::of(open());
    close_all();
    let mut again = open();
    let before = open_count();
    drop(earlier);
    assert_eq!(open_count(), before, "what is new was closed");
    drop(again.split_spsc().unwrap());
    let mut ends = Ends::of(again);
    ends.carry();
    assert!(ends.region.is_current().unwrap());
    drop(ends);
}

/// With the locks, ends are lost: they are had by others before they are dropped.
fn leaves_a_successor_alone(open: impl Fn() -> EventsRegion) {
    let (lost, file) = (Ends::of(open()), open().path().unwrap().to_owned());
    close_all();
    let mut ends = Ends::of(open());
    let states = || {
        let image = tombolo::inspect::Image::open(&file).unwrap();
        image.endpoints().iter().map(|end| end.state()).collect::<Vec<_>>()
    };
    let before = states();
    drop(lost);
    assert_eq!(states(), before);
    let (mut tx, mut rx) = open().split_spsc().unwrap();
    assert!(matches!(tx.attach(), Err(Error::Busy { .. })));
    assert!(matches!(rx.attach(), Err(Error::Busy { .. })));
    ends.carry();
}

/// The sockets of a region without a name are exchanged, and nothing else.
fn sockets_alone_are_closed(open: impl Fn() -> EventsRegion) {
    let mut ends = Ends::of(open());
    let is_socket = |number: &RawFd| {
        let entry = std::fs::read_link(format!("/proc/self/fd/{number}"));
        entry.is_ok_and(|entry| entry.as_os_str().as_encoded_bytes().starts_with(b"socket:"))
    };
    let ours: Vec<_> = (3..200).filter(is_socket).collect();
    let mut strangers = Strangers::default();
    strangers.keep_pair();
    let [one, _] = strangers.pairs[0];
    for number in ours {
        // SAFETY: both are open, and the library's is closed behind its back.
        assert_eq!(unsafe { libc::dup2(one, number) }, number);
        strangers.all.push((number, id_at(one).unwrap()));
    }
    assert!(ends.region.to_fds().is_err(), "a stranger's socket is passed on");
    assert!(ends.spsc.0.try_send_packet(packet(1, 1)).is_err());
    assert!(ends.mpsc.0.try_send_packet(packet(2, 1)).is_err());
    strangers.assert_untouched("used");
    ends.carry_bytes();
    drop(ends);
    strangers.assert_untouched("dropped");
}

/// In each of the ways in which strangers get the numbers.
fn run(role: &str) {
    let dir = Dir::new();
    for name in ["0", "1", "2"] {
        Peer::start("peer_process", role, &dir.file(name)).finish();
    }
}

#[test]
fn what_is_dropped_closes_and_ends_nothing_of_others() {
    run("used-bytes");
    run("dropped-bytes");
}

#[test]
fn what_is_dropped_closes_nothing_that_was_opened_again_before() {
    run("reopened-bytes");
}

#[test]
fn nor_if_locks_are_kept_by_descriptors() {
    let overlay = match Overlay::mount() {
        Ok(overlay) => overlay,
        Err(reason) => return eprintln!("skipped, cannot mount an overlay: {}", reason.trim()),
    };
    for deed in ["used", "dropped", "reopened", "succeeded"] {
        for name in ["0", "1", "2"] {
            let (role, path) = (format!("{deed}-stacked"), overlay.file(&format!("{deed}{name}")));
            Peer::start("peer_process", &role, &path).finish();
        }
    }
}

#[test]
fn nor_if_handles_are_on_their_way() {
    for deed in ["used", "dropped", "reopened"] {
        run(&format!("{deed}-handles"));
    }
}

#[test]
fn nor_if_the_region_has_no_name() {
    for deed in ["used", "dropped", "sockets"] {
        run(&format!("{deed}-nameless"));
    }
}
