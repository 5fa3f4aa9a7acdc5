//! Surviving a region's file being cut short under a live mapping.
//!
//! Whoever may write to a file may also truncate it, and the next access to a page that is gone is
//! a SIGBUS, which ends the process. So mappings are registered here, and a handler puts a private
//! page of zeros where one of theirs is missing and marks the mapping as cut. The access goes on;
//! every operation looks at the mark before it says that it succeeded. Faults elsewhere go to
//! whoever handled them before.
//!
//! The list of mappings only ever grows, by nodes that are used again: the handler walks it with
//! plain loads and needs no lock.
//!
//! | edge | release side | acquire side | carries |
//! |---|---|---|---|
//! | `listed` | `register` stores `end` last | the handler loads `end` | `start` |
//! | `cut` | the handler stores `is_cut` | an operation loads it on the same thread, or later | |
//!
//! Source: the same thing is done for buffers that clients share with a Wayland compositor.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// A mapping that faults are looked up in.
#[derive(Debug)]
struct Node {
    start: AtomicUsize,
    /// 0 where the node is free.
    end: AtomicUsize,
    is_taken: AtomicBool,
    is_cut: AtomicBool,
    next: *const Node,
}

// SAFETY: `next` is written before the node is shared and leads to a node that is never freed; the
// other fields are atomics.
unsafe impl Sync for Node {}

static NODES: AtomicPtr<Node> = AtomicPtr::new(null_mut());

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
        node.is_cut.store(false, Ordering::Relaxed);
        node.start.store(start.addr(), Ordering::Relaxed);
        node.end.store(start.addr() + len, Ordering::Release); // `listed`
        Ok(Self { node })
    }

    /// Whether a page of the mapping was found missing.
    #[inline]
    pub(super) fn is_cut(&self) -> bool {
        self.node.is_cut.load(Ordering::Relaxed) // `cut`
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.node.end.store(0, Ordering::Release);
        self.node.is_taken.store(false, Ordering::Release);
    }
}

fn nodes() -> impl Iterator<Item = &'static Node> {
    let mut next = NODES.load(Ordering::Acquire).cast_const();
    std::iter::from_fn(move || {
        // SAFETY: null, or a node that `take_node` leaked and shared by a Release store.
        let node = unsafe { next.as_ref() }?;
        next = node.next;
        Some(node)
    })
}

fn take_node() -> &'static Node {
    let is_free = |node: &&Node| !node.is_taken.swap(true, Ordering::Acquire);
    if let Some(node) = nodes().find(is_free) {
        return node;
    }
    let node = Box::leak(Box::new(Node {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        is_taken: AtomicBool::new(true),
        is_cut: AtomicBool::new(false),
        next: null(),
    }));
    let mut head = NODES.load(Ordering::Acquire);
    loop {
        node.next = head;
        match NODES.compare_exchange_weak(head, node, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return node,
            Err(found) => head = found,
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
        // SAFETY: all zeros is a valid `sigaction`: the default handler with no flags.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        // SAFETY: `on_sigbus` has the signature that SA_SIGINFO asks for and does only what a
        // signal handler may.
        unsafe { libc::sigaction(libc::SIGBUS, &action, null_mut()) == 0 }
    });
    if installed { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
}

extern "C" fn on_sigbus(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid `siginfo_t`.
    let info_ref = unsafe { &*info };
    // SAFETY: a SIGBUS that the kernel raised for a fault carries the address; one that a process
    // sent has other numbers in the same place, which are then looked up and not found.
    let address = unsafe { info_ref.si_addr() }.addr();
    if info_ref.si_code > 0 && patch(address) {
        return;
    }
    pass_on(signal, info, context);
}

/// Puts a page of zeros at `address` if it lies in a registered mapping.
fn patch(address: usize) -> bool {
    let holds = |node: &Node| {
        let end = node.end.load(Ordering::Acquire); // `listed`
        address < end && address >= node.start.load(Ordering::Relaxed)
    };
    let Some(node) = nodes().find(|node| holds(node)) else { return false };
    node.is_cut.store(true, Ordering::Relaxed); // `cut`
    let page_len = rustix::param::page_size();
    let page = std::ptr::without_provenance_mut(address & !(page_len - 1));
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: replaces one page of a mapping that is registered, and so still mapped, and whose
    // words are only ever accessed as atomics or by copies: zeros are as good as any content.
    unsafe { mmap_anonymous(page, page_len, access, MapFlags::PRIVATE | MapFlags::FIXED) }.is_ok()
}

/// Does what would have been done without this handler.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let handler = BEFORE.get().map_or(libc::SIG_DFL, |before| before.sa_sigaction);
    let takes_info = BEFORE.get().is_some_and(|before| before.sa_flags & libc::SA_SIGINFO != 0);
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // Back to the default: returning repeats the access, which then ends the process.
        // SAFETY: sets the default action, which is always valid.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    } else if takes_info {
        type WithInfo = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
        // SAFETY: neither of the two special values, so the address of a handler, which was
        // installed as one that takes three arguments.
        let handler = unsafe { std::mem::transmute::<usize, WithInfo>(handler) };
        handler(signal, info, context);
    } else {
        // SAFETY: as above, installed as one that takes one argument.
        let handler = unsafe { std::mem::transmute::<usize, extern "C" fn(c_int)>(handler) };
        handler(signal);
    }
}
