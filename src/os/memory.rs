//! How the kernel gives out memory.

use std::fs;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

const UNKNOWN: u8 = 0;
const FREELY: u8 = 1;
const STRICTLY: u8 = 2;

/// Whether the kernel gives out a page of memory as long as it can find one, and not only as long as it has kept
/// one for all that it promised. Read once in a process.
pub(crate) fn is_promised_freely() -> bool {
    static KNOWN: AtomicU8 = AtomicU8::new(UNKNOWN);
    let shown = || fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap_or_default();
    is_free_once_known(&KNOWN, shown)
}

fn is_free_once_known(known: &AtomicU8, shown: impl FnOnce() -> String) -> bool {
    // Two threads that come first find the same.
    if known.load(Relaxed) == UNKNOWN {
        known.store(if is_free(&shown()) { FREELY } else { STRICTLY }, Relaxed);
    }
    known.load(Relaxed) == FREELY
}

/// Whether this is what the kernel shows if it does. Nothing is shown without `/proc`.
fn is_free(text: &str) -> bool {
    ["0", "1"].contains(&text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_taken_for_strict() {
        let words = ["0\n", "1\n", "2\n", "", "3\n"];
        assert_eq!(words.map(is_free), [true, true, false, false, false]);
        let shown = fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap_or_default();
        assert_eq!([(); 2].map(|()| is_promised_freely()), [is_free(&shown); 2]);
    }

    #[test]
    fn what_was_found_first_stays() {
        for (first, second, is_free) in [("0\n", "2\n", true), ("2\n", "0\n", false)] {
            let known = AtomicU8::new(UNKNOWN);
            let found = [first, second].map(|text| is_free_once_known(&known, || text.into()));
            assert_eq!(found, [is_free; 2]);
        }
    }
}
