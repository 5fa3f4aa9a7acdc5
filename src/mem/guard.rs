//! Surviving a region's file being cut short under a live mapping.
//!
//! Whoever may write to a file may also truncate it, and the next access to a page that is gone is
//! a SIGBUS, which ends the process. So mappings are registered here, and a handler puts a private
//! page of zeros where one of theirs is missing and marks the mapping as cut. The access goes on;
//! every operation looks at the mark before it says that it succeeded. Faults elsewhere, and signals
//! that somebody sent, go to whoever handled them before.
//!
//! The list of mappings only ever grows, by nodes that are used again: the handler walks it with
//! plain loads and needs no lock. A thread that blocks SIGBUS is beyond help: the kernel ends the
//! process without asking.
//!
//! | edge | release side | acquire side | carries |
//! |---|---|---|---|
//! | `listed` | `register` stores an even `version` | the handler loads `version` | the range |
//! | `cut` | the handler stores `is_cut` | an operation loads it behind a fence | zeros may have been read |
//!
//! Source: the same thing is done for buffers that clients share with a Wayland compositor.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
    fence,
};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use crate::os::fork;

/// A mapping that faults are looked up in.
#[derive(Debug)]
struct Node {
    is_taken: AtomicBool,
    /// Odd while the fields below change. Whoever took the node writes them.
    version: AtomicUsize,
    start: AtomicUsize,
    /// 0 where nothing is registered.
    end: AtomicUsize,
    /// The process that has the mapping; its forked children don't.
    owner: AtomicU64,
    is_cut: AtomicBool,
    next: *const Node,
}

// SAFETY: `next` is written before the node is shared and leads to a node that is never freed; the
// other fields are atomics.
unsafe impl Sync for Node {}

static NODES: AtomicPtr<Node> = AtomicPtr::new(null_mut());

impl Node {
    fn set(&self, start: usize, end: usize) {
        let version = self.version.load(Relaxed); // ours: the node is taken
        self.version.store(version.wrapping_add(1), Relaxed);
        fence(Release); // who sees a new field sees the odd version
        self.is_cut.store(false, Relaxed);
        self.start.store(start, Relaxed);
        self.end.store(end, Relaxed);
        self.owner.store(fork::present(), Relaxed);
        self.version.store(version.wrapping_add(2), Release); // `listed`
    }

    /// Whether `address` lies in the mapping. A node that is being changed has no mapping that
    /// anybody uses.
    fn holds(&self, address: usize) -> bool {
        let version = self.version.load(Acquire); // `listed`
        let inside = (self.start.load(Relaxed)..self.end.load(Relaxed)).contains(&address);
        let is_ours = self.owner.load(Relaxed) == fork::present();
        fence(Acquire);
        inside && is_ours && version.is_multiple_of(2) && version == self.version.load(Relaxed)
    }
}

/// A registered mapping. Dropping it, before the memory is unmapped, ends the registration.
#[derive(Debug)]
pub(super) struct Guard {
    node: &'static Node,
}

impl Guard {
    /// Registers `len` bytes at `start`.
    pub(super) fn register(start: *const u8, len: usize) -> io::Result<Self> {
        install()?;
        let node = take_node();
        node.set(start.addr(), start.addr() + len);
        Ok(Self { node })
    }

    /// Whether a page of the mapping was found missing.
    #[inline]
    pub(super) fn is_cut(&self) -> bool {
        self.mark().is_set()
    }

    /// Where that is noted, for as long as the registration lasts.
    pub(super) fn mark(&self) -> CutMark {
        CutMark(&self.node.is_cut)
    }
}

/// The note that a page of a mapping was found missing. Of no meaning once that mapping is gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct CutMark(&'static AtomicBool);

impl CutMark {
    #[inline]
    pub(super) fn is_set(self) -> bool {
        fence(Acquire); // `cut`: behind the loads that may have seen zeros
        self.0.load(Relaxed)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.node.set(0, 0);
        self.node.is_taken.store(false, Release);
    }
}

fn nodes() -> impl Iterator<Item = &'static Node> {
    let mut next = NODES.load(Acquire).cast_const();
    std::iter::from_fn(move || {
        // SAFETY: null, or a node that `take_node` leaked and shared by a Release store.
        let node = unsafe { next.as_ref() }?;
        next = node.next;
        Some(node)
    })
}

fn take_node() -> &'static Node {
    let is_free = |node: &&Node| !node.is_taken.swap(true, Acquire);
    if let Some(node) = nodes().find(is_free) {
        return node;
    }
    let mut head = NODES.load(Acquire);
    loop {
        let node = Box::new(Node {
            is_taken: AtomicBool::new(true),
            version: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            owner: AtomicU64::new(0),
            is_cut: AtomicBool::new(false),
            next: head,
        });
        let node = Box::into_raw(node);
        match NODES.compare_exchange(head, node, AcqRel, Acquire) {
            // SAFETY: just made, never freed, and from here on only shared.
            Ok(_) => return unsafe { &*node },
            Err(found) => {
                head = found;
                // SAFETY: made above and not shared: the exchange failed.
                drop(unsafe { Box::from_raw(node) });
            }
        }
    }
}

/// What handled SIGBUS before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handler, once a process.
fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    let installed = *INSTALLED.get_or_init(|| {
        let mut before = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: asks for the present action only; `before` is a valid place for it.
        if unsafe { libc::sigaction(libc::SIGBUS, null(), before.as_mut_ptr()) } != 0 {
            return false;
        }
        // SAFETY: written by the call, and all zeros is a valid value anyway.
        BEFORE.get_or_init(|| unsafe { before.assume_init() });
        set_handler()
    });
    if installed { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
}

fn set_handler() -> bool {
    // SAFETY: all zeros is a valid `sigaction`: the default handler with no flags.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = on_sigbus as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: `on_sigbus` has the signature that SA_SIGINFO asks for and does only what a signal
    // handler may.
    unsafe { libc::sigaction(libc::SIGBUS, &action, null_mut()) == 0 }
}

fn set_default() {
    // SAFETY: sets the default action, which is always valid.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
}

extern "C" fn on_sigbus(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid `siginfo_t`.
    let info_ref = unsafe { &*info };
    // SAFETY: a fault carries its address; what is in its place otherwise is looked up by nobody.
    let address = unsafe { info_ref.si_addr() }.addr();
    let is_missing_page = matches!(info_ref.si_code, libc::BUS_ADRERR | libc::BUS_MCEERR_AR);
    if is_missing_page && patch(address) {
        return;
    }
    let was_sent = info_ref.si_code <= 0;
    pass_on(signal, info, context, if was_sent { Cause::Sent } else { Cause::Fault });
}

/// Puts a page of zeros at `address` if it lies in a registered mapping.
fn patch(address: usize) -> bool {
    let Some(node) = nodes().find(|node| node.holds(address)) else { return false };
    node.is_cut.store(true, Release); // `cut`
    let page_len = rustix::param::page_size();
    let page = std::ptr::without_provenance_mut(address & !(page_len - 1));
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: replaces one page of a mapping that is registered, and so still mapped, and whose
    // words are only ever accessed as atomics or by copies: zeros are as good as any content.
    unsafe { mmap_anonymous(page, page_len, access, flags) }.is_ok()
}

/// Where a signal comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// An access that is repeated when the handler returns.
    Fault,
    /// A process.
    Sent,
}

/// Does what would have been done without this handler.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void, cause: Cause) {
    let Some(before) = BEFORE.get() else { return set_default() };
    match (before.sa_sigaction, cause) {
        (libc::SIG_IGN, Cause::Sent) => return,
        (libc::SIG_DFL, Cause::Sent) => {
            set_default();
            // SAFETY: sends a signal to this thread; it arrives when the handler returns.
            unsafe { libc::raise(signal) };
            return;
        }
        // Returning repeats the access, which then ends the process; also where SIGBUS was ignored,
        // which the kernel does not do for faults.
        (libc::SIG_DFL | libc::SIG_IGN, Cause::Fault) => return set_default(),
        _ => {}
    }
    if before.sa_flags & libc::SA_RESETHAND != 0 && cause == Cause::Fault {
        set_default();
    }
    call(before, signal, info, context);
    if cause == Cause::Sent {
        set_handler(); // the other may have put the default in place, as for a fault
    }
}

/// Calls the handler in `before`, which is neither of the two special values.
fn call(before: &libc::sigaction, signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    if before.sa_flags & libc::SA_SIGINFO != 0 {
        type WithInfo = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
        // SAFETY: the address of a handler that was installed as one that takes three arguments.
        let handler = unsafe { std::mem::transmute::<usize, WithInfo>(before.sa_sigaction) };
        handler(signal, info, context);
    } else {
        type Plain = extern "C" fn(c_int);
        // SAFETY: the address of a handler that was installed as one that takes one argument.
        let handler = unsafe { std::mem::transmute::<usize, Plain>(before.sa_sigaction) };
        handler(signal);
    }
}
