//! Other handlers of SIGBUS in the process: none is taken out, none hides a region's fault for long,
//! and a fault that belongs to no handler ends the process.
//!
//! Each case runs in a process of its own, as a role of the test `host`.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::thread;

use memmap2::MmapRaw;
use tombolo::{EventsRegion, SpscReceiver, SpscSender};

mod support;
use support::process::{command, role};
use support::{Dir, small};

/// What a host's process exits with if its handler was called for what is not its own.
const WRONGLY_CALLED: i32 = 77;

struct Region {
    region: EventsRegion,
    tx: SpscSender,
    _rx: SpscReceiver,
}

impl Region {
    fn open(path: &Path) -> Self {
        let mut region = EventsRegion::open_path_with(path, small()).unwrap();
        let (mut tx, mut rx) = region.split_spsc().unwrap();
        tx.attach().unwrap();
        rx.attach().unwrap();
        Self { region, tx, _rx: rx }
    }

    /// Cuts the file short and uses the region: ends the process if that is not survived.
    fn survives_a_cut(&mut self) {
        let path = self.region.path().unwrap();
        File::options().write(true).open(path).unwrap().set_len(0).unwrap();
        assert!(self.tx.try_send(b"after").is_err());
    }
}

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// The present action.
fn action() -> libc::sigaction {
    // SAFETY: all zeros is a valid `sigaction`.
    let mut found: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: asks for the present action only; `found` is a valid place for it.
    assert_eq!(unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), &mut found) }, 0);
    found
}

/// Sets `wanted` and gives what was there.
fn set_action(wanted: &libc::sigaction) -> libc::sigaction {
    let before = action();
    // SAFETY: `wanted` came from `action`, or has a handler of this file.
    assert_eq!(unsafe { libc::sigaction(libc::SIGBUS, wanted, null_mut()) }, 0);
    before
}

fn action_of(handler: usize, flags: c_int) -> libc::sigaction {
    // SAFETY: all zeros is a valid `sigaction`.
    let mut wanted: libc::sigaction = unsafe { std::mem::zeroed() };
    wanted.sa_sigaction = handler;
    wanted.sa_flags = flags;
    wanted
}

fn set_handler(handler: Handler) -> libc::sigaction {
    set_action(&action_of(handler as usize, libc::SA_SIGINFO | libc::SA_ONSTACK))
}

fn set_special(special: usize) {
    set_action(&action_of(special, 0));
}

fn is_present(handler: Handler) -> bool {
    action().sa_sigaction == handler as usize
}

fn raise() {
    // SAFETY: sends a signal to this very thread.
    unsafe { libc::raise(libc::SIGBUS) };
}

/// What the kernel sends, if it is to tell early, of memory that failed and that no access waits for.
fn tell_of_failed_memory() {
    // SAFETY: all zeros is a valid `siginfo_t`.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    (info.si_signo, info.si_code) = (libc::SIGBUS, libc::BUS_MCEERR_AO);
    let (process, call) = (std::process::id(), libc::SYS_rt_tgsigqueueinfo);
    // SAFETY: takes nothing.
    let own = unsafe { libc::gettid() };
    // SAFETY: `info` is a valid place; a thread may tell itself anything, and has it on return.
    let sent = unsafe { libc::syscall(call, process, own, libc::SIGBUS, &raw const info) };
    assert_eq!(sent, 0);
}

/// Calls what `chaining` found installed.
static BELOW: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
static CALLS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];

fn pass_on(index: usize, signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    CALLS[index].fetch_add(1, SeqCst);
    match BELOW[index].load(SeqCst) {
        libc::SIG_DFL | libc::SIG_IGN => {}
        below => {
            // SAFETY: what `chain` found was installed with SA_SIGINFO.
            let below = unsafe { std::mem::transmute::<usize, Handler>(below) };
            below(signal, info, context);
        }
    }
}

extern "C" fn chaining(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    pass_on(0, signal, info, context);
}

extern "C" fn chaining_too(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    pass_on(1, signal, info, context);
}

/// Installs `chaining`, or `chaining_too`, over what is there.
fn chain(index: usize) {
    BELOW[index].store(action().sa_sigaction, SeqCst);
    set_handler([chaining, chaining_too][index]);
}

fn calls() -> [u32; 2] {
    [0, 1].map(|index| CALLS[index].load(SeqCst))
}

/// Takes every SIGBUS for itself, as its process's end.
extern "C" fn greedy(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: ends the process without running anything else.
    unsafe { libc::_exit(WRONGLY_CALLED) };
}

/// A mapping of this file's own, whose file was cut short.
struct Missing(MmapRaw);

impl Missing {
    fn new(path: &Path) -> Self {
        std::fs::write(path, vec![1; PAGE_LEN]).unwrap();
        let file = File::options().read(true).write(true).open(path).unwrap();
        let map = MmapRaw::map_raw(&file).unwrap();
        file.set_len(0).unwrap();
        Self(map)
    }

    fn read(&self) -> u8 {
        // SAFETY: a mapped page, though of a file that no longer has it: the read faults.
        unsafe { self.0.as_ptr().read_volatile() }
    }
}

const PAGE_LEN: usize = 4096;

/// What `mending` puts a page in place of.
static MENDED: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// Lets all others try first, and then puts a page where its own is missing.
extern "C" fn mending(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    pass_on(0, signal, info, context);
    let page = MENDED.load(SeqCst);
    let flags = libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_ANONYMOUS;
    // SAFETY: replaces the page of a `Missing`.
    unsafe { libc::mmap(page, PAGE_LEN, libc::PROT_READ, flags, -1, 0) };
}

/// Which of two signals were blocked in `looking`: SIGBUS and SIGUSR1.
static BLOCKED: AtomicU32 = AtomicU32::new(u32::MAX);

fn blocked() -> u32 {
    // SAFETY: all zeros is a valid set.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: asks for this thread's set only; `set` is a valid place for it.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &mut set) };
    // SAFETY: the set was written by the call.
    let is_blocked = |signal| unsafe { libc::sigismember(&set, signal) } as u32;
    is_blocked(libc::SIGBUS) | is_blocked(libc::SIGUSR1) << 1
}

extern "C" fn looking(_: c_int) {
    BLOCKED.store(blocked(), SeqCst);
    CALLS[0].fetch_add(1, SeqCst);
}

/// The one process in which each case runs.
#[test]
fn host() {
    let Some((role, path)) = role() else { return };
    // SAFETY: ends this process if it goes round in circles.
    unsafe { libc::alarm(30) };
    match role.as_str() {
        "chained-sent" => chained_sent(&path),
        "covered" => covered(&path),
        "removed" => removed(&path),
        "each-other" => each_other(&path),
        "each-other-below" => each_other_below(&path),
        "each-other-threads" => each_other_on_threads(&path),
        "each-other-sent" => {
            tangle(&path);
            raise();
        }
        "default-sent" => {
            set_special(libc::SIG_DFL);
            let _region = Region::open(&path);
            raise();
        }
        "failed-memory" => {
            set_special(libc::SIG_DFL);
            let _region = Region::open(&path);
            tell_of_failed_memory();
        }
        "failed-memory-ignored" => {
            set_special(libc::SIG_IGN);
            let mut region = Region::open(&path);
            tell_of_failed_memory();
            region.survives_a_cut();
        }
        "ignored-sent" => {
            set_special(libc::SIG_IGN);
            let mut region = Region::open(&path);
            raise();
            region.survives_a_cut();
        }
        "ignored-fault" => {
            set_special(libc::SIG_IGN);
            let _region = Region::open(&path);
            Missing::new(&path.with_extension("own")).read();
        }
        "reset" => reset(&path, Missing::new(&path.with_extension("own"))),
        "masks" => masks(&path),
        "mending" => mends_its_own(&path),
        "blocked" => thread_that_blocks(&path),
        "many" => many_handlers(&path),
        other => panic!("no such role: {other}"),
    }
}

fn status_of(role: &str) -> ExitStatus {
    let dir = Dir::new();
    let mut command = command("host", role, &dir.file("r"));
    command.stdout(Stdio::null()).status().unwrap()
}

fn is_fine(role: &str) {
    let status = status_of(role);
    assert!(status.success(), "{status}");
}

fn is_ended_by_the_fault(role: &str) {
    let status = status_of(role);
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
}

fn chained_sent(path: &Path) {
    let mut region = Region::open(path);
    chain(0);
    for round in 1..4 {
        raise();
        assert!(is_present(chaining), "thrown out by a signal that was sent");
        assert_eq!(calls()[0], round);
        if round == 1 {
            // What was there first, the standard library's, takes itself out at the first signal.
            // Without any region, the next would end the process.
            break;
        }
    }
    region.survives_a_cut();
    assert!(is_present(chaining));
}

#[test]
fn a_handler_that_was_installed_over_ours_and_chains_to_it_stays_when_a_signal_is_sent() {
    is_fine("chained-sent");
}

fn covered(path: &Path) {
    let mut first = Region::open(path);
    assert!(first.region.is_guarded());
    set_handler(greedy);
    assert!(!first.region.is_guarded());
    let mut second = Region::open(&path.with_extension("second"));
    assert!(!is_present(greedy));
    assert!(first.region.is_guarded() && second.region.is_guarded());
    second.survives_a_cut();
    first.survives_a_cut();
    raise(); // goes to the one that was there
}

#[test]
fn a_region_that_is_opened_after_another_handler_took_over_protects_all_again() {
    assert_eq!(status_of("covered").code(), Some(WRONGLY_CALLED));
}

fn removed(path: &Path) {
    let first = Region::open(path);
    let ours = set_handler(greedy);
    let mut second = Region::open(&path.with_extension("second"));
    set_action(&ours); // the host takes its handler out, by what it knows
    assert!(first.region.is_guarded());
    raise();
    second.survives_a_cut();
}

#[test]
fn a_handler_that_the_host_takes_out_again_is_not_called_any_more() {
    is_fine("removed");
}

/// Two handlers and ours, of which each calls the next, in a ring.
fn tangle(path: &Path) -> Vec<Region> {
    set_special(libc::SIG_DFL);
    let mut regions = vec![Region::open(path)];
    chain(0);
    regions.push(Region::open(&path.with_extension("second")));
    chain(1);
    regions.push(Region::open(&path.with_extension("third")));
    chain(0); // calls ours now, which calls it
    chain(1);
    regions.push(Region::open(&path.with_extension("fourth")));
    regions
}

fn each_other(path: &Path) {
    let mut regions = tangle(path);
    regions.iter_mut().for_each(Region::survives_a_cut);
    Missing::new(&path.with_extension("own")).read();
}

/// As `each_other`, if ours is not on top.
fn each_other_below(path: &Path) {
    let _regions = tangle(path);
    chain(0);
    Missing::new(&path.with_extension("own")).read();
}

#[test]
fn a_fault_of_none_ends_the_process_even_if_ours_is_below_the_handlers_that_call_each_other() {
    is_ended_by_the_fault("each-other-below");
}

#[test]
fn a_fault_of_none_ends_the_process_even_if_each_handler_calls_the_other() {
    is_ended_by_the_fault("each-other");
}

#[test]
fn a_signal_for_none_ends_the_process_even_if_each_handler_calls_the_other() {
    is_ended_by_the_fault("each-other-sent");
}

fn each_other_on_threads(path: &Path) {
    let _regions = tangle(path);
    let start = std::sync::Barrier::new(16);
    let missing: Vec<_> =
        (0..16).map(|number| Missing::new(&path.with_extension(number.to_string()))).collect();
    thread::scope(|scope| {
        for missing in &missing {
            scope.spawn(|| {
                start.wait();
                missing.read();
            });
        }
    });
}

#[test]
fn faults_of_none_on_many_threads_end_the_process_even_if_each_handler_calls_the_other() {
    is_ended_by_the_fault("each-other-threads");
}

#[test]
fn a_signal_is_sent_to_a_process_without_another_handler_and_ends_it() {
    is_ended_by_the_fault("default-sent");
}

#[test]
fn what_the_kernel_tells_of_failed_memory_ends_the_process_unless_that_ignores_it() {
    is_ended_by_the_fault("failed-memory");
    is_fine("failed-memory-ignored");
}

#[test]
fn a_signal_that_the_process_ignores_is_ignored_and_a_fault_is_not() {
    is_fine("ignored-sent");
    is_ended_by_the_fault("ignored-fault");
}

fn reset(path: &Path, missing: Missing) {
    set_action(&action_of(looking as *const () as usize, libc::SA_RESETHAND));
    let mut region = Region::open(path);
    raise();
    assert_eq!(calls()[0], 1);
    assert!(region.region.is_guarded());
    region.survives_a_cut();
    missing.read(); // the handler was there for one signal
}

#[test]
fn a_handler_for_one_signal_is_called_once_and_takes_no_protection_along() {
    is_ended_by_the_fault("reset");
}

fn masks(path: &Path) {
    let mut region = None;
    for (flags, expected) in [(0, 3), (libc::SA_NODEFER, 2)] {
        let mut wanted = action_of(looking as *const () as usize, flags);
        // SAFETY: a set that is all zeros is empty, and SIGUSR1 is a signal.
        unsafe { libc::sigaddset(&mut wanted.sa_mask, libc::SIGUSR1) };
        set_action(&wanted);
        region = Some(Region::open(&path.with_extension(expected.to_string())));
        raise();
        assert_eq!(BLOCKED.load(SeqCst), expected);
        assert_eq!(blocked(), 0, "the mask is what it was");
    }
    assert_eq!(calls()[0], 2);
    region.unwrap().survives_a_cut();
}

#[test]
fn a_handler_runs_with_the_signals_blocked_that_it_asked_for() {
    is_fine("masks");
}

fn mends_its_own(path: &Path) {
    set_special(libc::SIG_DFL);
    let mut region = Region::open(path);
    BELOW[0].store(action().sa_sigaction, SeqCst);
    set_handler(mending);
    let mends = |name: &str| {
        let missing = Missing::new(&path.with_extension(name));
        MENDED.store(missing.0.as_mut_ptr().cast(), SeqCst);
        assert_eq!(missing.read(), 0);
        missing
    };
    let missing = ["one", "two"].map(|name| {
        let missing = mends(name); // at another address each
        assert!(is_present(mending));
        missing
    });
    drop(missing);
    let _second = Region::open(&path.with_extension("second"));
    for _ in 0..5 {
        mends("below"); // at the same address each
        assert!(region.region.is_guarded());
    }
    region.survives_a_cut();
}

#[test]
fn a_handler_that_lets_others_try_first_mends_its_own_faults_and_stays() {
    is_fine("mending");
}

fn thread_that_blocks(path: &Path) {
    let region = Region::open(path);
    // SAFETY: all zeros is an empty set.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a set, and SIGBUS a signal.
    unsafe { libc::sigaddset(&mut set, libc::SIGBUS) };
    // SAFETY: `set` is a set; no old one is asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, null_mut()) };
    assert!(!region.region.is_guarded());
    // SAFETY: as above.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, null_mut()) };
    assert!(region.region.is_guarded());
    // SAFETY: the child only asks, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: ends the child without running what the parent registered.
        unsafe { libc::_exit(region.region.is_guarded().into()) };
    }
    let mut status = -1;
    // SAFETY: `status` is a valid place for the child's status.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(status, 0, "a child does not have the mapping");
}

#[test]
fn a_region_is_not_guarded_on_a_thread_that_blocks_the_signal_nor_in_a_forked_child() {
    is_fine("blocked");
}

/// More installations of the same few handlers than anything in the library has places.
fn many_handlers(path: &Path) {
    let mut first = Region::open(path);
    for round in 0..500 {
        chain(round % 2);
        let mut region = Region::open(&path.with_extension("other"));
        assert!(region.region.is_guarded());
        if round % 50 == 0 {
            region.survives_a_cut();
            std::fs::remove_file(path.with_extension("other")).unwrap();
        }
    }
    first.survives_a_cut();
}

#[test]
fn handlers_may_be_installed_any_number_of_times() {
    is_fine("many");
}
