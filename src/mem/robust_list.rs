//! The list of words that the kernel marks when a thread dies (`man 2 set_robust_list`).
//!
//! A *node* in each slot leads to the next; a word beside it, at one distance for all, holds the
//! thread's id. When the thread ends, by whatever cause, its kernel walks the list, marks each word
//! and wakes a sleeper on it.
//!
//! The nodes lie in shared memory, where a peer may change them. **They are only ever written here**:
//! the order is kept in private memory, and only the kernel, which trusts nothing, reads a node. A
//! peer can at worst cut the list; a process that then gets no notification finds out by the next tick.
//!
//! Every change is one store, so that the kernel finds a list whenever the process is killed.

use std::io;
use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Relaxed, Release},
};

use rustix::thread::{futex, gettid};
use tombolo_abi::Slot;

use super::Mapping;

/// From a node to the word that it stands for.
const NODE_TO_WORD: i64 = offset_of!(Slot, liveness) as i64 - offset_of!(Slot, robust_node) as i64;

/// What the kernel knows of: `struct robust_list_head`.
#[derive(Debug)]
#[repr(C)]
struct Head {
    first: AtomicU64,
    node_to_word: i64,
    pending: AtomicU64,
}

/// The list of one thread, for as long as that thread lives. Others may change it, one at a time.
#[derive(Debug)]
pub(crate) struct RobustList {
    head: &'static Head,
    thread: u32,
    /// In the kernel's order.
    nodes: Vec<Node>,
}

/// A slot in a mapping, by its offset.
#[derive(Debug)]
struct Node {
    mapping: Arc<Mapping>,
    slot_offset: u64,
}

impl Node {
    /// The node's word, which leads to the next.
    fn next(&self) -> &AtomicU64 {
        self.mapping.word_u64(self.slot_offset + offset_of!(Slot, robust_node) as u64)
    }

    fn word(&self) -> &AtomicU32 {
        self.mapping.word_u32(self.slot_offset + offset_of!(Slot, liveness) as u64)
    }
}

impl RobustList {
    /// Gives the calling thread a list of its own, in place of the one that the C library keeps for
    /// robust mutexes: for a thread that locks none.
    ///
    /// # Errors
    /// If the kernel or a filter in front of it refuses.
    pub(crate) fn install() -> io::Result<Self> {
        let head: &'static Head = Box::leak(Box::new(Head {
            first: AtomicU64::new(0),
            node_to_word: NODE_TO_WORD,
            pending: AtomicU64::new(0),
        }));
        head.first.store(address(&head.first), Release);
        // SAFETY: the call takes the address and the length of a head, which lives as long as the
        // program. The kernel reads it when this thread ends, and bears anything that it leads to.
        let result = unsafe { libc::syscall(libc::SYS_set_robust_list, head, size_of::<Head>()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let thread = gettid().as_raw_nonzero().get().unsigned_abs();
        Ok(Self { head, thread, nodes: Vec::new() })
    }

    /// Puts the slot at `slot_offset` of `mapping` on the list: the kernel marks its liveness word when
    /// the thread ends.
    pub(crate) fn link(&mut self, mapping: &Arc<Mapping>, slot_offset: u64) {
        let node = Node { mapping: mapping.clone(), slot_offset };
        // A word without the thread's id would be passed over, one without the waiters' bit marked
        // in silence.
        node.word().store(self.thread | futex::WAITERS, Release);
        node.next().store(self.after(None), Release);
        self.head.first.store(address(node.next()), Release);
        self.nodes.insert(0, node);
    }

    /// Takes the slot off the list, before its mapping goes. Does nothing if it is not on it.
    pub(crate) fn unlink(&mut self, mapping: &Arc<Mapping>, slot_offset: u64) {
        let is_it =
            |node: &Node| Arc::ptr_eq(&node.mapping, mapping) && node.slot_offset == slot_offset;
        let Some(index) = self.nodes.iter().position(is_it) else { return };
        let next = self.after(Some(index));
        let before = match index.checked_sub(1) {
            Some(before) => self.nodes[before].next(),
            None => &self.head.first,
        };
        before.store(next, Release);
        let node = self.nodes.remove(index);
        // Free, unless another has taken it already.
        let own = self.thread | futex::WAITERS;
        let _ = node.word().compare_exchange(own, 0, Release, Relaxed);
    }

    /// Takes off what lies in mappings that were cut short: their nodes are lost, and the kernel
    /// would stop there.
    pub(crate) fn unlink_cut(&mut self) {
        while let Some(node) = self.nodes.iter().find(|node| node.mapping.is_cut()) {
            let (mapping, slot_offset) = (node.mapping.clone(), node.slot_offset);
            self.unlink(&mapping, slot_offset);
        }
    }

    /// The address of what comes after the node at `index`, or first of all.
    fn after(&self, index: Option<usize>) -> u64 {
        let next = index.map_or(0, |index| index + 1);
        self.nodes.get(next).map_or(address(&self.head.first), |node| address(node.next()))
    }
}

fn address(word: &AtomicU64) -> u64 {
    word.as_ptr() as u64
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::atomic::Ordering::Acquire;

    use super::*;

    const LEN: u64 = 4096;

    fn mapping() -> Arc<Mapping> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(LEN).unwrap();
        Arc::new(Mapping::new(file.as_fd(), LEN).unwrap())
    }

    fn word(mapping: &Mapping) -> u32 {
        mapping.word_u32(offset_of!(Slot, liveness) as u64).load(Acquire)
    }

    /// The liveness words of a thread's three slots after its end, in the order in which it put them on its
    /// list. It had taken off the one at `gone`, and its mapping was removed. `None` if there are no such
    /// lists.
    fn words_after_death(gone: usize) -> Option<Vec<u32>> {
        let mut kept: Vec<_> = (0..3).map(|_| mapping()).collect();
        let mut linked = kept.clone();
        kept.remove(gone);
        let thread = std::thread::spawn(move || -> io::Result<RobustList> {
            let mut list = RobustList::install()?;
            linked.iter().for_each(|mapping| list.link(mapping, 0));
            let mapping = linked.remove(gone);
            list.unlink(&mapping, 0);
            assert_eq!(word(&mapping), 0);
            Ok(list) // the kernel reads its head when the thread ends
        });
        let _list = thread.join().unwrap().ok()?;
        Some(kept.iter().map(|mapping| word(mapping)).collect())
    }

    #[test]
    fn the_kernel_marks_all_that_is_on_the_list_also_where_something_was_taken_off() {
        for gone in 0..3 {
            let Some(words) = words_after_death(gone) else {
                return eprintln!("skipped: the kernel refuses robust lists");
            };
            let are_marked = words.iter().all(|word| word & futex::OWNER_DIED != 0);
            assert!(are_marked, "{gone} taken off: {words:x?}");
        }
    }
}
