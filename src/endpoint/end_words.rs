//! What the slots of a channel's end show of it as an object: its id, its user signals, its name.
//!
//! | word | writers | edge |
//! |---|---|---|
//! | `koid` | the owner | none: the reader checks nothing by it |
//! | `signals` | the owner and the peer, by compare-and-swap | `signal`: the change and a fence, before the look at `rx_wake`; a sleeper's arming and fence, before its look at `signals` |
//! | `name_seq`, `name` | the owner, one thread at a time | `name`: a reader that sees one new word sees that the count has changed |
//!
//! A peer may have written anything there: what is read is a number, eight bits of a mask, or text that is cut and
//! converted.

use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};

use tombolo_abi::{NAME_LEN_MAX, Slot, end_signals, name_bytes};

use crate::crash::{left_out, test_point};
use crate::endpoint::{slot_offset, slot_u32};
use crate::region::Region;

/// Attempts to read a name that is being written, or that its writer left half written.
const TRIES: u32 = 8;

/// Attempts to change the signals while another process does.
const CHANGES_MAX: u32 = 1 << 10;

/// Words of a name.
const NAME_WORDS: usize = size_of::<[u8; 32]>() / size_of::<u64>();

/// The words of an object in a slot. Of a mapping that is this process's: [`Region::check_ours`] comes first.
#[derive(Clone, Debug)]
pub(crate) struct EndWords {
    region: Arc<Region>,
    slot: u16,
}

impl EndWords {
    pub(crate) fn new(region: &Arc<Region>, slot: u16) -> Self {
        Self { region: region.clone(), slot }
    }

    /// For the owner.
    pub(crate) fn set_koid(&self, koid: u64) {
        self.u64_at(offset_of!(Slot, koid)).store(koid, Relaxed);
    }

    /// User signals and count.
    pub(crate) fn signals(&self) -> u32 {
        self.signals_word().load(Acquire)
    }

    fn signals_word(&self) -> &AtomicU32 {
        slot_u32(&self.region, self.slot, offset_of!(Slot, signals))
    }

    /// Takes `clear` from the user signals and adds `set`, as one step. Gives whether that changed anything; then a
    /// fence and a look for sleepers is to follow.
    pub(crate) fn change_signals(&self, clear: u32, set: u32) -> bool {
        let word = self.signals_word();
        let mut found = word.load(Acquire);
        for _ in 0..CHANGES_MAX {
            let changed = end_signals::changed(found, clear, set);
            if changed == found {
                return false;
            }
            test_point!("signals.to-change");
            if left_out!("the comparison of signals") {
                word.store(changed, Release);
                return true;
            }
            match word.compare_exchange(found, changed, AcqRel, Acquire) {
                Ok(_) => return true,
                Err(other) => found = other,
            }
        }
        // No honest process changes it so often: what this one wants is as good.
        word.store(end_signals::changed(found, clear, set), Release);
        true
    }

    /// The name, as text that is not checked.
    pub(crate) fn name(&self) -> String {
        let (seq, words) = self.name_words();
        let name = read_name(seq, words).map(u64::to_ne_bytes);
        let mut bytes = [0; 32];
        bytes.as_chunks_mut().0.iter_mut().zip(name).for_each(|(to, from)| *to = from);
        String::from_utf8_lossy(name_bytes(&bytes)).into_owned()
    }

    /// Stores as much of `name` as there is space for. For the owner, and one thread at a time.
    pub(crate) fn set_name(&self, name: &str) {
        let len = (0..=NAME_LEN_MAX.min(name.len())).rev().find(|len| name.is_char_boundary(*len));
        let name = &name[..len.unwrap_or(0)];
        let mut bytes = [0; 32];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        let mut parts = [0; NAME_WORDS];
        parts
            .iter_mut()
            .zip(bytes.as_chunks().0)
            .for_each(|(to, from)| *to = u64::from_ne_bytes(*from));
        let (seq, words) = self.name_words();
        write_name(seq, words, parts);
    }

    fn name_words(&self) -> (&AtomicU32, [&AtomicU64; NAME_WORDS]) {
        let seq = slot_u32(&self.region, self.slot, offset_of!(Slot, name_seq));
        let words = std::array::from_fn(|index| {
            self.u64_at(offset_of!(Slot, name) + index * size_of::<u64>())
        });
        (seq, words)
    }

    fn u64_at(&self, offset: usize) -> &AtomicU64 {
        self.region.mapping().word_u64(slot_offset(&self.region, self.slot, offset))
    }

    /// What a new owner does, which takes nothing over. Signals that the peer set before the slot's first owner came
    /// are for that one.
    pub(crate) fn reset(&self, had_owner: bool) {
        self.set_koid(0);
        self.set_name("");
        if had_owner {
            self.change_signals(u32::MAX, 0);
        }
    }
}

fn write_name(seq: &AtomicU32, words: [&AtomicU64; NAME_WORDS], parts: [u64; NAME_WORDS]) {
    let odd = seq.load(Relaxed) | 1; // odd already if a predecessor died here
    seq.store(odd, Relaxed);
    fence(Release); // edge `name`: a reader that sees a new word sees the odd count
    for (word, part) in words.into_iter().zip(parts) {
        test_point!("name.writing");
        word.store(part, Relaxed);
    }
    seq.store(odd.wrapping_add(1), Release);
}

fn read_name(seq: &AtomicU32, words: [&AtomicU64; NAME_WORDS]) -> [u64; NAME_WORDS] {
    let mut found = [0; NAME_WORDS];
    for _ in 0..TRIES {
        let before = seq.load(Acquire);
        for (found, word) in found.iter_mut().zip(words) {
            test_point!("name.reading");
            *found = word.load(Relaxed);
        }
        fence(Acquire); // edge `name`: the words, then the count
        let is_same = seq.load(Relaxed) == before || left_out!("the second look at a name's count");
        if before.is_multiple_of(2) && is_same {
            break;
        }
        std::hint::spin_loop();
    }
    found
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::thread;

    use super::*;
    use crate::crash::turns::{self, Turns};
    use crate::{EventsRegion, OpenOptions};

    fn words() -> EndWords {
        let region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        EndWords::new(region.shared(), 0)
    }

    /// Does the writer's steps between those of a reader: before step `n` of it as many as `due[n]` says.
    struct Between {
        seq: Rc<AtomicU32>,
        words: Rc<[AtomicU64; NAME_WORDS]>,
        due: Vec<u32>,
        steps_read: Cell<usize>,
        written: Cell<u32>,
        left_out: Option<&'static str>,
    }

    /// Steps that write one name: the count, each word, the count.
    const STEPS: u32 = NAME_WORDS as u32 + 2;

    impl Between {
        fn write_step(&self) {
            let step = self.written.get();
            self.written.set(step + 1);
            let name = u64::from(step / STEPS) + 1;
            match step % STEPS {
                0 => self.seq.store(self.seq.load(Relaxed) | 1, Relaxed),
                last if last == STEPS - 1 => self.seq.store(self.seq.load(Relaxed) + 1, Release),
                word => self.words[word as usize - 1].store(name, Relaxed),
            }
        }
    }

    impl Turns for Between {
        fn pass(&self, point: &'static str) {
            if point == "name.reading" {
                let step = self.steps_read.replace(self.steps_read.get() + 1);
                match self.due.get(step) {
                    Some(due) => (0..*due).for_each(|_| self.write_step()),
                    // Nothing stops it half-way for ever.
                    None => {
                        while !self.written.get().is_multiple_of(STEPS) {
                            self.write_step();
                        }
                    }
                }
            }
        }

        fn pass_until_others_have(&self, _: &'static str) {}

        fn sleep(&self, _: Vec<usize>) {}

        fn wake(&self, _: usize) {}

        fn is_left_out(&self, step: &'static str) -> bool {
            self.left_out == Some(step)
        }
    }

    /// Reads while two names are written one behind the other, in all orders in which that happens during so many of
    /// the reader's steps. Gives the first mixture of two names that is found.
    fn first_mixture(
        read_steps: usize,
        left_out: Option<&'static str>,
    ) -> Option<[u64; NAME_WORDS]> {
        let mut due = vec![0; read_steps];
        loop {
            let seq = Rc::new(AtomicU32::new(0));
            let words = Rc::new([0; NAME_WORDS].map(AtomicU64::new));
            let (steps_read, written) = (Cell::new(0), Cell::new(0));
            let (due_too, seq_too, words_too) = (due.clone(), seq.clone(), words.clone());
            let between = Between {
                seq: seq_too,
                words: words_too,
                due: due_too,
                steps_read,
                written,
                left_out,
            };
            let found = turns::with(Some(Rc::new(between)), || read_name(&seq, words.each_ref()));
            if found.iter().any(|word| *word != found[0]) {
                return Some(found);
            }
            // The next way to give two names' steps to the reader's.
            let is_left = |place: &usize| due[*place..].iter().sum::<u32>() < 2 * STEPS;
            let place = (0..read_steps).find(is_left)?;
            due[..place].fill(0);
            due[place] += 1;
        }
    }

    #[test]
    fn a_name_that_is_read_while_it_is_written_is_the_one_before_or_the_one_behind() {
        assert_eq!(first_mixture(6, None), None);
        let mixed = first_mixture(6, Some("the second look at a name's count"));
        assert!(mixed.is_some(), "the search finds no mixture");
    }

    #[test]
    fn a_name_that_stays_half_written_is_read_and_written_all_the_same() {
        let words = words();
        words.set_name("whole");
        words.name_words().0.store(7, Relaxed);
        assert_eq!(words.name(), "whole");
        words.set_name("another");
        assert_eq!((words.name(), words.name_words().0.load(Relaxed)), ("another".into(), 8));
    }

    #[test]
    fn any_bytes_are_a_name() {
        let words = words();
        for part in [0, u64::MAX, 0x0041_4141_4141_4141, 0x8080_8080_c3c3_8080] {
            for seq in [0, 1, u32::MAX] {
                let (count, parts) = words.name_words();
                count.store(seq, Relaxed);
                parts.iter().for_each(|word| word.store(part, Relaxed));
                let name = words.name();
                assert!(name.chars().count() <= NAME_LEN_MAX && !name.contains('\0'), "{name:?}");
            }
        }
    }

    #[test]
    fn a_name_is_cut_at_a_character() {
        let words = words();
        for (given, expected) in [
            ("", String::new()),
            ("a name", "a name".into()),
            (&*"x".repeat(31), "x".repeat(31)),
            (&*"x".repeat(32), "x".repeat(31)),
            (&*"\u{e9}".repeat(31), "\u{e9}".repeat(15)),
            ("before\0behind", "before".into()),
        ] {
            words.set_name(given);
            assert_eq!(words.name(), expected);
        }
    }

    #[test]
    fn no_change_of_the_signals_is_lost_and_each_is_counted() {
        const TIMES: u32 = 20_000;
        let words = words();
        thread::scope(|scope| {
            for bit in 24..28 {
                let words = &words;
                scope.spawn(move || {
                    for time in 0..TIMES {
                        let (clear, set) =
                            if time % 2 == 0 { (0, 1 << bit) } else { (1 << bit, 0) };
                        assert!(words.change_signals(clear, set));
                        assert!(!words.change_signals(clear, set), "that is so already");
                    }
                });
            }
        });
        assert_eq!(words.signals(), 4 * TIMES);
    }

    /// A step of another process comes between the load and the store.
    struct Meanwhile(EndWords, Option<&'static str>, Cell<bool>);

    impl Turns for Meanwhile {
        fn pass(&self, point: &'static str) {
            if point == "signals.to-change" && !self.2.replace(true) {
                turns::quietly(|| self.0.change_signals(0, 1 << 30));
            }
        }

        fn pass_until_others_have(&self, _: &'static str) {}

        fn sleep(&self, _: Vec<usize>) {}

        fn wake(&self, _: usize) {}

        fn is_left_out(&self, step: &'static str) -> bool {
            self.1 == Some(step)
        }
    }

    #[test]
    fn without_the_comparison_a_change_of_the_other_process_is_lost() {
        for (left_out, expected) in
            [(None, 0x4100_0002), (Some("the comparison of signals"), 0x0100_0001)]
        {
            let words = words();
            let meanwhile = Rc::new(Meanwhile(words.clone(), left_out, Cell::new(false)));
            turns::with(Some(meanwhile), || words.change_signals(0, 1 << 24));
            assert_eq!(words.signals(), expected);
        }
    }

    #[test]
    fn a_new_owner_begins_without_name_and_signals_but_for_those_that_were_set_before_the_first() {
        let words = words();
        words.set_koid(9);
        words.set_name("before");
        words.change_signals(0, 1 << 24);
        words.reset(false);
        let koid = words.u64_at(offset_of!(Slot, koid)).load(Relaxed);
        assert_eq!((koid, &*words.name(), words.signals()), (0, "", 0x0100_0001));
        words.reset(true);
        assert_eq!(words.signals(), 2);
    }
}
