//! Ids of objects.

use std::sync::atomic::{AtomicU64, Ordering};

/// The id of the object that a handle leads to; 0 is none.
///
/// | ids | whose | unique |
/// |---|---|---|
/// | 1024 to 2^63 - 1 | everything that a process made a [`Handle`](crate::Handle) of, in order | in this process, for its life: never given twice |
/// | from 2^63 | ends of channels | in their region, for its life, and the same number in all its processes |
///
/// Duplicates and replacements of a handle keep its id. Two handles with one id are therefore one
/// object; two with different ids may still lead to one file, as the library cannot know where the
/// descriptors it is given come from.
///
/// Ids below 2^63 mean nothing to another process: the same object has a number of its own there. A
/// forked child goes on counting from where its parent was, and the two give the same numbers to
/// different objects.
///
/// # Source
/// The kernel object ids of Zircon, and zCore's, which also begin at 1024.
pub type KoID = u64;

/// The first id of a process.
const FIRST: KoID = 1024;

/// Set in the ids of ends of channels.
const CHANNEL_END: KoID = 1 << 63;

/// The id that the next new handle gets.
static NEXT: AtomicU64 = AtomicU64::new(FIRST);

/// An id that this process has not given before. It would take centuries to come to 2^63.
pub(super) fn next() -> KoID {
    several(1)
}

/// The first of `count` ids in a row that this process has not given before.
pub(super) fn several(count: usize) -> KoID {
    NEXT.fetch_add(count as u64, Ordering::Relaxed) // a counter alone: nothing else is ordered by it
}

/// The id of the `count`-th end of a channel in the region with this uuid, by which all processes
/// agree on it.
///
/// Different for each of 2^63 ends of a region. Ends of two regions have the same id only if
/// their random uuids happen to lie as close together as the regions have had ends.
///
/// # Examples
/// ```
/// use tombolo::object::channel_end_koid;
/// let uuid = [7; 16];
/// assert_ne!(channel_end_koid(uuid, 0), channel_end_koid(uuid, 1));
/// assert!(channel_end_koid(uuid, 0) >= 1 << 63);
/// ```
#[must_use]
pub const fn channel_end_koid(region_uuid: [u8; 16], count: u64) -> KoID {
    let folded = u128::from_le_bytes(region_uuid);
    let base = (folded as u64) ^ ((folded >> 64) as u64);
    CHANNEL_END | base.wrapping_add(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_from_1024_and_are_never_given_twice() {
        let (first, second, third) = (next(), several(64), next());
        assert!(first >= FIRST && second > first && third >= second + 64 && third < CHANNEL_END);
    }

    #[test]
    fn the_ends_of_a_region_have_ids_of_their_own_also_where_the_sum_wraps() {
        for uuid in [[0; 16], [0xff; 16], *b"\xfe\xff\xff\xff\xff\xff\xff\x7f\0\0\0\0\0\0\0\0"] {
            let mut ids: Vec<_> = (0..1000).map(|count| channel_end_koid(uuid, count)).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), 1000);
            assert!(ids.iter().all(|id| *id >= CHANNEL_END));
        }
    }
}
