//! Surviving a region's file being cut short under a live mapping.
//!
//! A process that may write to a file may also truncate it, and the next access to a lost page is a
//! SIGBUS, which ends the process. So mappings are registered here, and if one of their pages is missing,
//! a handler maps a private page of zeros there and marks the mapping as cut. The access goes on;
//! every operation checks the mark before it reports success. Faults elsewhere, and signals that a
//! process sent, go to the handlers that were there before: see [`super::handler`].
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

use std::ptr::null_mut;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
    fence,
};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use crate::os::fork;

/// A mapping in which faults are searched.
#[derive(Debug)]
struct Node {
    is_taken: AtomicBool,
    /// Odd while the fields below change. The thread that took the node writes them.
    version: AtomicUsize,
    start: AtomicUsize,
    /// 0 if nothing is registered.
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
        fence(Release); // a reader that sees a new field sees the odd version
        self.is_cut.store(false, Relaxed);
        self.start.store(start, Relaxed);
        self.end.store(end, Relaxed);
        self.owner.store(fork::present(), Relaxed);
        self.version.store(version.wrapping_add(2), Release); // `listed`
    }

    /// Whether `address` lies in the mapping. A node that is being changed has no mapping in use.
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
    /// Registers `len` bytes at `start`. The handler has been installed.
    pub(super) fn register(start: *const u8, len: usize) -> Self {
        let node = take_node();
        node.set(start.addr(), start.addr() + len);
        Self { node }
    }

    /// Whether a page of the mapping was found missing.
    #[inline]
    pub(super) fn is_cut(&self) -> bool {
        fence(Acquire); // `cut`: behind the loads that may have seen zeros
        self.mark().load(Relaxed)
    }

    /// The mark that says so, valid as long as the registration; of no meaning after the mapping is removed.
    /// Load it behind a fence, as above.
    pub(super) fn mark(&self) -> &'static AtomicBool {
        &self.node.is_cut
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

/// Puts a page of zeros at `address` if it lies in a registered mapping.
pub(super) fn patch(address: usize) -> bool {
    let Some(node) = nodes().find(|node| node.holds(address)) else { return false };
    node.is_cut.store(true, Release); // `cut`
    let page_len = rustix::param::page_size();
    let page = std::ptr::without_provenance_mut(address & !(page_len - 1));
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: replaces one page of a mapping that is registered, and so still mapped. Its words are
    // only ever accessed as atomics or by copies: zeros are as good as any content.
    unsafe { mmap_anonymous(page, page_len, access, flags) }.is_ok()
}
