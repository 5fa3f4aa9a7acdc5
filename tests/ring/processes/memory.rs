//! The words that the processes share, and their stores on the way there.
//!
//! Stores go to a buffer of their process and arrive in any order that the orderings allow: stores
//! to one word in order, a Release store after everything before it. A store arrives no earlier than
//! somebody looks, which loses no behaviour and keeps the number of states small.

use super::super::super::Word;

/// Most words of a data area.
const AREA: usize = 16;
/// All words: the data area's, seven of the control block, incarnations of slots, the epoch.
pub(super) const CELLS: usize = AREA + 7 + SLOTS + 1;
/// Slots that there are.
pub(super) const SLOTS: usize = 5;

/// A place in the memory that is shared.
pub(super) type Cell = u8;

/// Counts the deaths that the consumer's process has seen.
pub(super) const EPOCH: Cell = (CELLS - 1) as Cell;

/// Where `word` lies; `None` for counters, on which nobody's decisions depend.
pub(super) fn cell(word: Word, capacity: u64) -> Option<Cell> {
    let control = match word {
        Word::Data(position) => return Some((position % capacity / 8) as Cell),
        Word::Lock => 0,
        Word::Tail => 1,
        Word::ZeroedTo => 2,
        Word::HeadCache => 3,
        Word::Head => 4,
        Word::RxWake => 5,
        Word::TxWake => 6,
        _ => return None,
    };
    Some(AREA as Cell + control)
}

/// Where the incarnation of `slot` lies.
pub(super) fn incarnation(slot: u16) -> Cell {
    (AREA + 7) as Cell + slot as Cell
}

/// A store on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Store {
    pub(super) to: Cell,
    pub(super) value: u64,
    pub(super) is_release: bool,
    /// Whether it was stored since its process's last step that others can see.
    pub(super) is_marked: bool,
}

/// The words themselves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shared(pub(super) [u64; CELLS]);

impl Shared {
    pub(super) fn get(&self, cell: Cell) -> u64 {
        self.0[usize::from(cell)]
    }

    pub(super) fn set(&mut self, cell: Cell, value: u64) {
        self.0[usize::from(cell)] = value;
    }

    /// Everything in `buffer` arrives.
    pub(super) fn drain(&mut self, buffer: &mut Vec<Store>) {
        for store in buffer.drain(..) {
            self.set(store.to, store.value);
        }
    }

    /// The first store of `buffer` to `cell` arrives, and whatever must arrive before it. `false`
    /// where there is none.
    pub(super) fn arrive(&mut self, buffer: &mut Vec<Store>, cell: Cell) -> bool {
        let Some(index) = buffer.iter().position(|store| store.to == cell) else { return false };
        let store = buffer[index];
        if store.is_release {
            buffer.drain(..=index).for_each(|store| self.set(store.to, store.value));
        } else {
            buffer.remove(index);
            self.set(cell, store.value);
            buffer[..index].iter_mut().for_each(|before| before.is_marked = false);
        }
        true
    }
}
