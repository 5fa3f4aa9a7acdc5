//! Locks that are there for the time of a call: none of a process that is killed stays with its forked
//! children, and none is held while a call sleeps.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tombolo::options::CreatePolicy;
use tombolo::{Error, EventsRegion, OpenOptions, SpscSender};
use tombolo_abi::LOCK_INIT;

mod support;
use support::overlay::Overlay;
use support::process::{Peer, report, role, wait_for_parent};
use support::{Dir, small, write_private};

const SOON: Duration = Duration::from_secs(10);
/// Short, beside how long one waits for who holds a lock.
const AT_ONCE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(4);

#[test]
fn peer_process() {
    let Some((role, path)) = role() else { return };
    match role.as_str() {
        "creator" => fork_under_the_lock(&path, large()),
        "replacer" => fork_under_the_lock(&path, large().policy(CreatePolicy::CreateNew)),
        "owner" => own_and_fork(&path),
        "waiting" => wait_for_a_taken_end(&path),
        other => panic!("no such role: {other}"),
    }
}

/// Takes long enough to make that the lock is seen.
fn large() -> OpenOptions {
    small().spsc_capacity(64 << 20)
}

/// Whether another description than `file` holds the lock of who creates, replaces or attaches.
fn is_init_locked(file: &File) -> bool {
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: LOCK_INIT as libc::off_t,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the call reads and writes one `flock`, which `lock` is.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) };
    assert_eq!(result, 0);
    libc::c_int::from(lock.l_type) != libc::F_UNLCK
}

static IS_HELD_UP: AtomicBool = AtomicBool::new(false);

/// Keeps the thread that it interrupts where it is.
extern "C" fn hold_up(_: libc::c_int) {
    IS_HELD_UP.store(true, SeqCst);
    loop {
        // SAFETY: sleeps until a signal.
        unsafe { libc::pause() };
    }
}

/// Forks while another thread holds the init lock in the middle of opening `path`.
fn fork_under_the_lock(path: &Path, options: OpenOptions) {
    // SAFETY: the handler makes one store and sleeps, which any thread may at any time.
    unsafe { libc::signal(libc::SIGUSR1, hold_up as *const () as libc::sighandler_t) };
    let file = File::options().read(true).write(true).open(path).unwrap();
    // SAFETY: names the thread that runs this.
    let (tell, told) = std::sync::mpsc::channel();
    let path = path.to_owned();
    thread::spawn(move || {
        // SAFETY: as before.
        tell.send(unsafe { libc::pthread_self() }).unwrap();
        let _ = EventsRegion::open_path_with(path, options);
    });
    let thread = told.recv().unwrap();
    let start = Instant::now();
    while !is_init_locked(&file) {
        assert!(start.elapsed() < SOON, "the lock was never seen");
    }
    // SAFETY: the thread runs, or is held up; it is not joined.
    unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
    while !IS_HELD_UP.load(SeqCst) {
        assert!(start.elapsed() < SOON);
    }
    // SAFETY: the child only waits and leaves by `_exit`.
    if unsafe { libc::fork() } == 0 {
        wait_for_parent();
        // SAFETY: as before.
        unsafe { libc::_exit(0) };
    }
    report(if is_init_locked(&file) { "ready" } else { "too late" });
    wait_for_parent();
}

#[test]
fn a_creator_that_is_killed_is_taken_over_at_once_though_a_child_of_it_lives() {
    let dir = Dir::new();
    let path = dir.file("r");
    write_private(&path, b""); // so that it is made in place
    let peer = Peer::start("peer_process", "creator", &path);
    signal(&peer, Signal::KILL); // the child stays until the peer is dropped
    let start = Instant::now();
    let region = EventsRegion::open_path_with(&path, small().join_timeout(PATIENCE)).unwrap();
    assert!(region.is_creator());
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

#[test]
fn a_replacer_that_is_killed_hinders_no_claim_and_no_other_though_a_child_of_it_lives() {
    let dir = Dir::new();
    let path = dir.file("r");
    let mut tx = tx_of(&path);
    let peer = Peer::start("peer_process", "replacer", &path);
    signal(&peer, Signal::KILL);
    let start = Instant::now();
    while let Err(error) = tx.attach() {
        assert!(start.elapsed() < AT_ONCE, "{error}");
    }
    drop(tx);
    let new = small().policy(CreatePolicy::CreateNew).join_timeout(PATIENCE);
    assert!(EventsRegion::open_path_with(&path, new).unwrap().is_creator());
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

fn stacked() -> OpenOptions {
    small().file_system(tombolo::options::FileSystemPolicy::Any)
}

fn own_and_fork(path: &Path) {
    let (mut tx, _) = EventsRegion::open_path_with(path, stacked()).unwrap().split_spsc().unwrap();
    tx.attach().unwrap();
    // SAFETY: the child only waits and leaves by `_exit`.
    if unsafe { libc::fork() } == 0 {
        wait_for_parent();
        // SAFETY: as before.
        unsafe { libc::_exit(0) };
    }
    report("ready");
    wait_for_parent();
}

#[test]
fn an_owner_that_is_killed_is_followed_at_once_though_a_child_has_the_descriptor_of_its_lock() {
    let overlay = match Overlay::mount() {
        Ok(overlay) => overlay,
        Err(reason) => return eprintln!("skipped, cannot mount an overlay: {}", reason.trim()),
    };
    let path = overlay.file("r");
    let peer = Peer::start("peer_process", "owner", &path);
    let mut region = EventsRegion::open_path_with(&path, stacked()).unwrap();
    let (mut tx, _) = region.split_spsc().unwrap();
    assert!(matches!(tx.attach(), Err(Error::Busy { .. })));
    signal(&peer, Signal::KILL);
    let start = Instant::now();
    while let Err(error) = tx.attach() {
        assert!(start.elapsed() < AT_ONCE, "{error}");
    }
}

fn signal(peer: &Peer, signal: Signal) {
    kill_process(Pid::from_raw(peer.pid() as i32).unwrap(), signal).unwrap();
}

fn tx_of(path: &Path) -> SpscSender {
    EventsRegion::open_path_with(path, small()).unwrap().split_spsc().unwrap().0
}

fn wait_for_a_taken_end(path: &Path) {
    let mut tx = tx_of(path);
    report("ready");
    assert!(tx.send_timeout(b"one", Duration::from_secs(600)).is_err());
}

/// Some that wait for an end that another has, which they were seen to try.
fn waiters(path: &Path) -> (Vec<Peer>, File) {
    let peers = (0..3).map(|_| Peer::start("peer_process", "waiting", path)).collect();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let start = Instant::now();
    while !is_init_locked(&file) {
        assert!(start.elapsed() < SOON, "no one tries");
    }
    (peers, file)
}

#[test]
fn a_region_whose_ends_are_waited_for_is_told_to_be_in_use_at_once() {
    let dir = Dir::new();
    let path = dir.file("r");
    let mut tx = tx_of(&path);
    tx.attach().unwrap();
    let _peers = waiters(&path);
    for _ in 0..20 {
        let start = Instant::now();
        let new = small().policy(CreatePolicy::CreateNew).join_timeout(PATIENCE);
        let refused = EventsRegion::open_path_with(&path, new).unwrap_err();
        let is_told = matches!(refused, Error::InUse { pid, .. } if pid == std::process::id());
        assert!(is_told, "{refused}");
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    }
}

#[test]
fn who_sleeps_until_an_end_is_free_holds_no_lock() {
    let dir = Dir::new();
    let path = dir.file("r");
    let mut tx = tx_of(&path);
    tx.attach().unwrap();
    let (peers, file) = waiters(&path);
    let stop = || {
        peers.iter().for_each(|peer| signal(peer, Signal::STOP));
        thread::sleep(Duration::from_millis(10)); // until they have stopped
        !is_init_locked(&file)
    };
    let go_on = || peers.iter().for_each(|peer| signal(peer, Signal::CONT));
    let (mut found_free, mut looks) = (0, 0);
    while found_free < 5 && looks < 200 {
        found_free += u32::from(stop()); // or one was stopped in the middle of a try
        looks += 1;
        go_on();
    }
    assert!(found_free == 5, "the lock is held while they sleep: {looks} looks");
    while !stop() {
        go_on();
    }
    drop(tx);
    let new = small().policy(CreatePolicy::CreateNew).join_timeout(PATIENCE);
    assert!(EventsRegion::open_path_with(&path, new).unwrap().is_creator());
}
