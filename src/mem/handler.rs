//! The process's handler of SIGBUS, and those of others.
//!
//! A process has one action for SIGBUS, and others install theirs, too. Each installation of ours has
//! a *level*, with an entry point of its own, and passes on to the action that it took the place of: a
//! *link*. So another handler may keep ours as what it passes on to, or put it back, and comes to what
//! was below that.
//!
//! A handler that was installed over ours may not pass faults on to it. So each new region checks the
//! action and installs ours on top if it is another. Handlers may then call each other
//! in a ring. A chain that is in order comes to lower and lower levels; a fault, or a signal, that comes
//! back to one goes to what was there before all of ours, and if it comes back even then, to the default
//! action.
//!
//! Stacks of handlers are small: what is kept across a call of another one is little.
//!
//! **No handler of others is ever taken out.** The default action is set only if the process is about
//! to end by it.
//!
//! | edge | release side | acquire side | carries |
//! |---|---|---|---|
//! | `linked` | `link` fills `action` | the handler reads `action` | what to pass on to |

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr::null;
use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use super::delivery::{Delivery, is_repeated};
use super::guard::patch;
use super::pin;
use crate::os::fork;

type EntryPoint = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// The entry points of the levels.
static LEVELS: [EntryPoint; LAST + 1] =
    [on_sigbus::<0>, on_sigbus::<1>, on_sigbus::<2>, on_sigbus::<LAST>];
/// The last level, which has all further links: it passes on to the one that was installed last.
const LAST: usize = 3;
/// More different actions than any process has.
const LINKS_MAX: usize = 64;
/// How often the action may change under us while we install ours.
const ATTEMPTS: u32 = 16;

/// An action that ours took the place of.
struct Link {
    action: OnceLock<libc::sigaction>,
    /// When that was last, in installations.
    installed: AtomicU64,
    /// Whether its handler has given up its place: the default action has that.
    is_spent: AtomicBool,
}

static LINKS: [Link; LINKS_MAX] = [const {
    Link { action: OnceLock::new(), installed: AtomicU64::new(0), is_spent: AtomicBool::new(false) }
}; LINKS_MAX];

/// Installs the handler on top, unless it is there.
///
/// # Errors
/// If the kernel refuses, or others install more handlers than there are places for.
pub(super) fn install() -> io::Result<()> {
    pin::stay_loaded();
    if level_of(&present()?).is_some() {
        return Ok(());
    }
    let _alone = fork::hold_off()?; // a lock that a forked child never finds taken
    for _ in 0..ATTEMPTS {
        let found = present()?;
        if level_of(&found).is_some() {
            return Ok(());
        }
        let level = link(&found)?.min(LAST);
        let replaced = set(&on_top_of(&found, level))?;
        if is_same(&replaced, &found) {
            return Ok(());
        }
        set(&replaced)?; // installed by another thread meanwhile
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// Whether a page that is missing would be noticed, as far as the present action and this thread's
/// blocked signals say.
pub(super) fn is_in_place() -> bool {
    present().is_ok_and(|action| level_of(&action).is_some()) && !is_blocked()
}

fn present() -> io::Result<libc::sigaction> {
    exchange(None)
}

fn set(action: &libc::sigaction) -> io::Result<libc::sigaction> {
    exchange(Some(action))
}

/// Sets an action, or none, and gives the one before.
#[inline(never)]
fn exchange(action: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    let action = action.map_or(null(), std::ptr::from_ref);
    // SAFETY: null, an action that the kernel gave, or one of ours: our handlers have the signature that
    // SA_SIGINFO asks for and do only what a handler may; `before` is a valid place.
    if unsafe { libc::sigaction(libc::SIGBUS, action, before.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: written by the call, and all zeros is a valid value anyway.
    Ok(unsafe { before.assume_init() })
}

/// The level of which `action` is the entry point, if it is ours.
fn level_of(action: &libc::sigaction) -> Option<usize> {
    LEVELS.iter().position(|&entry| entry as usize == action.sa_sigaction)
}

/// The action of the level that passes on to `below`.
fn on_top_of(below: &libc::sigaction, level: usize) -> libc::sigaction {
    let mut action = default_action();
    action.sa_sigaction = LEVELS[level] as usize;
    // Calls of the kernel that a signal interrupts go on as they would without us.
    let restarts = if is_special(below) { libc::SA_RESTART } else { below.sa_flags };
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | restarts & libc::SA_RESTART;
    action
}

fn default_action() -> libc::sigaction {
    // SAFETY: all zeros is a valid `sigaction`: the default action with no flags.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// Whether the action is no handler.
fn is_special(action: &libc::sigaction) -> bool {
    matches!(action.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN)
}

fn is_same(one: &libc::sigaction, other: &libc::sigaction) -> bool {
    /// Set by C libraries on some machines, and not by others' choice.
    const SA_RESTORER: c_int = 0x0400_0000;
    one.sa_sigaction == other.sa_sigaction
        && (one.sa_flags ^ other.sa_flags) & !SA_RESTORER == 0
        && signals().all(|signal| is_in(&one.sa_mask, signal) == is_in(&other.sa_mask, signal))
}

fn signals() -> impl Iterator<Item = c_int> {
    1..=libc::SIGRTMAX().min(64)
}

fn is_in(set: &libc::sigset_t, signal: c_int) -> bool {
    // SAFETY: `set` is a set of signals.
    unsafe { libc::sigismember(set, signal) == 1 }
}

/// The link to `action`, which is made if there is none. With forks held off.
fn link(action: &libc::sigaction) -> io::Result<usize> {
    // The first free one becomes it.
    let is_it = |link: &Link| is_same(link.action.get_or_init(|| *action), action);
    let index = LINKS.iter().position(is_it);
    let index = index.ok_or(io::ErrorKind::QuotaExceeded)?;
    let installed = LINKS.iter().map(|link| link.installed.load(Relaxed)).max();
    LINKS[index].installed.store(installed.unwrap_or(0) + 1, Relaxed);
    LINKS[index].is_spent.store(false, Relaxed);
    Ok(index)
}

/// What `level` passes on to.
fn link_of(level: usize) -> Option<&'static Link> {
    let links = if level == LAST { &LINKS[LAST..] } else { &LINKS[level..=level] };
    let made = links.iter().filter(|link| link.action.get().is_some());
    made.max_by_key(|link| link.installed.load(Relaxed))
}

/// A signal, as the kernel gave it.
struct Signal {
    number: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
    cause: Cause,
}

/// The origin of a signal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// An access to this address, that is repeated when the handler returns.
    Fault { address: usize, code: c_int },
    /// A process; or the kernel, to report failed memory that no access is waiting for.
    Sent,
}

extern "C" fn on_sigbus<const LEVEL: usize>(
    number: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    // SAFETY: null, if another handler had nothing better, or valid: with SA_SIGINFO the kernel passes
    // a valid `siginfo_t`.
    let (address, code) = unsafe { info.as_ref() }.map_or((0, 0), |info| {
        // SAFETY: a fault carries its address; what is in its place otherwise is not used.
        (unsafe { info.si_addr() }.addr(), info.si_code)
    });
    if matches!(code, libc::BUS_ADRERR | libc::BUS_MCEERR_AR) && patch(address) {
        return;
    }
    let is_fault = code > 0 && code != libc::BUS_MCEERR_AO;
    let cause = if is_fault { Cause::Fault { address, code } } else { Cause::Sent };
    pass_on(LEVEL, &Signal { number, info, context, cause });
}

/// Does what would have been done without this handler.
#[inline(never)]
fn pass_on(level: usize, signal: &Signal) {
    let delivery = Delivery::enter(signal.context.addr(), level);
    let link = delivery.level().and_then(link_of);
    let outcome = link.map_or(Outcome::Default, |link| link.take(signal));
    match (outcome, signal.cause) {
        (Outcome::Default, Cause::Sent) => end_by(signal.number),
        // The handler that asked, of which we asked something, may do something about its fault yet.
        (Outcome::Default, Cause::Fault { .. }) if !delivery.is_outermost() => delivery.decline(),
        (Outcome::Default, Cause::Fault { address, .. }) => end_by_fault(address),
        (Outcome::Done, Cause::Fault { address, code }) => {
            if delivery.was_declined() && is_still_there(address, code) {
                end_by_fault(address);
            }
        }
        (Outcome::Done, Cause::Sent) => {}
    }
}

/// What a link did with a signal.
#[derive(PartialEq, Eq)]
enum Outcome {
    /// All that there was to be done.
    Done,
    /// Nothing: the default action is to follow.
    Default,
}

impl Link {
    fn take(&self, signal: &Signal) -> Outcome {
        let is_fault = signal.cause != Cause::Sent;
        let Some(action) = self.action.get().filter(|_| !self.is_spent.load(Acquire)) else {
            return Outcome::Default;
        };
        match action.sa_sigaction {
            libc::SIG_DFL => return Outcome::Default,
            libc::SIG_IGN if is_fault => return Outcome::Default, // as the kernel does
            libc::SIG_IGN => return Outcome::Done,
            _ => {}
        }
        if action.sa_flags & libc::SA_RESETHAND != 0 {
            self.is_spent.store(true, Release);
        }
        let Ok(before) = present() else { return Outcome::Default }; // never: asking cannot fail
        let unmasked = enter_mask_of(action);
        call(action, signal);
        leave_mask(unmasked);
        if !has_fallen_to_default(&before) {
            return Outcome::Done;
        }
        // It took itself out, as far as it knows. What it did take out is put back.
        self.is_spent.store(true, Release);
        install_again(&before);
        if is_fault { Outcome::Default } else { Outcome::Done }
    }
}

/// Whether the action was a handler `before`, and is the default now.
#[inline(never)]
fn has_fallen_to_default(before: &libc::sigaction) -> bool {
    before.sa_sigaction != libc::SIG_DFL
        && present().is_ok_and(|action| action.sa_sigaction == libc::SIG_DFL)
}

#[inline(never)]
fn install_again(action: &libc::sigaction) {
    let _ = set(action); // never fails: it was installed
}

/// What a thread's mask was, in the signals that a handler changes: bits by their numbers, from 1 on.
struct Unmasked {
    added: u64,
    removed: u64,
}

/// Blocks those signals that the kernel would have for the handler in `action`.
#[inline(never)]
fn enter_mask_of(action: &libc::sigaction) -> Unmasked {
    let own = bit(libc::SIGBUS);
    let mut wanted = bits(&action.sa_mask);
    if action.sa_flags & libc::SA_NODEFER == 0 {
        wanted |= own;
    }
    let blocked = bits(&change_mask(libc::SIG_BLOCK, wanted));
    let removed = own & blocked & !wanted;
    change_mask(libc::SIG_UNBLOCK, removed);
    Unmasked { added: wanted & !blocked, removed }
}

#[inline(never)]
fn leave_mask(unmasked: Unmasked) {
    change_mask(libc::SIG_BLOCK, unmasked.removed);
    change_mask(libc::SIG_UNBLOCK, unmasked.added);
}

fn bit(signal: c_int) -> u64 {
    1 << (signal - 1)
}

fn bits(set: &libc::sigset_t) -> u64 {
    signals().filter(|&signal| is_in(set, signal)).fold(0, |bits, signal| bits | bit(signal))
}

/// Blocks or unblocks `signals` for this thread, and gives what was blocked before.
#[inline(never)]
fn change_mask(how: c_int, changed: u64) -> libc::sigset_t {
    // SAFETY: all zeros is an empty set.
    let mut set: libc::sigset_t = unsafe { MaybeUninit::zeroed().assume_init() };
    for signal in signals().filter(|&signal| changed & bit(signal) != 0) {
        // SAFETY: `set` is a set. A number that is no signal is refused.
        unsafe { libc::sigaddset(&mut set, signal) };
    }
    let mut before = set;
    // SAFETY: both are sets. The call fails only for an unknown first argument.
    unsafe { libc::pthread_sigmask(how, &set, &mut before) };
    before
}

fn is_blocked() -> bool {
    is_in(&change_mask(libc::SIG_BLOCK, 0), libc::SIGBUS)
}

/// Calls the handler in `action`, which is neither of the two special values.
fn call(action: &libc::sigaction, signal: &Signal) {
    let &Signal { number, info, context, .. } = signal;
    if action.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: the address of a handler that was installed as one that takes three arguments.
        let handler = unsafe { std::mem::transmute::<usize, EntryPoint>(action.sa_sigaction) };
        handler(number, info, context);
    } else {
        type Plain = extern "C" fn(c_int);
        // SAFETY: the address of a handler that was installed as one that takes one argument.
        let handler = unsafe { std::mem::transmute::<usize, Plain>(action.sa_sigaction) };
        handler(number);
    }
}

/// Ends the process, as the kernel does if a signal is sent and there is no handler.
#[inline(never)]
fn end_by(number: c_int) {
    let _ = set(&default_action());
    change_mask(libc::SIG_UNBLOCK, bit(libc::SIGBUS));
    // SAFETY: sends a signal to this thread, which ends the process at once.
    unsafe { libc::raise(number) };
}

/// Lets the access at `address`, which is repeated, end the process, as the kernel does if there is no
/// handler.
#[inline(never)]
fn end_by_fault(address: usize) {
    let is_on_top = present().is_ok_and(|action| level_of(&action).is_some());
    // A handler above ours may do something about its fault yet. If it doesn't, the access comes here
    // again.
    if is_on_top || is_repeated(address) {
        let _ = set(&default_action());
    }
}

/// Whether the access at `address` would fault again.
#[inline(never)]
fn is_still_there(address: usize, code: c_int) -> bool {
    if code != libc::BUS_ADRERR {
        return is_repeated(address);
    }
    let (no_such_change, word) = (-1, address & !(size_of::<u64>() - 1));
    // SAFETY: always valid, the calling thread's.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    // SAFETY: the kernel reads a word, at any address, and then refuses to do anything with it.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, no_such_change, word, 0, size_of::<u64>())
    };
    // SAFETY: as above.
    let found = unsafe { errno.replace(before) }; // what was interrupted may be about to read it
    result == -1 && found == libc::EFAULT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_has_an_entry_point_of_its_own() {
        for (level, &entry) in LEVELS.iter().enumerate() {
            let mut action = default_action();
            action.sa_sigaction = entry as usize;
            assert_eq!(level_of(&action), Some(level));
        }
    }
}
