//! The words that the processes share, and their stores on the way there.
//!
//! Stores go to a buffer of their process and arrive in any order that the orderings allow: stores
//! to one word in order, a Release store after everything before it. A store arrives no earlier than
//! somebody looks, which loses no behaviour and keeps the number of states small.

use super::super::super::Word;

/// Most words of a data area, or of all lanes' together.
const AREA: usize = 16;
/// All words: the data area's, eight of the control block, incarnations of slots, the epoch.
pub(super) const CELLS: usize = AREA + 8 + SLOTS + 1;
/// Most lanes of a group.
pub(super) const LANES: usize = 2;
/// How far the positions of one lane are from those of the next, here and in what is known of messages.
const LANE_STEP: u64 = 1 << 32;
/// Slots that there are.
pub(super) const SLOTS: usize = 5;

/// A place in the memory that is shared.
pub(super) type Cell = u8;

/// Counts the deaths that the consumer's process has seen.
pub(super) const EPOCH: Cell = (CELLS - 1) as Cell;

/// Where `word` lies; `None` for counters, on which nobody's decisions depend.
pub(super) fn cell(word: Word, capacity: u64) -> Option<Cell> {
    let control = match word {
        Word::Data(position) => {
            let lane = position / LANE_STEP * (AREA / LANES) as u64;
            return Some((lane + position % LANE_STEP % capacity / 8) as Cell);
        }
        Word::Lock => 0,
        Word::Tail => 1,
        Word::Skipped => 2, // the tail of lane 1, see below
        Word::HeadCache => 3,
        Word::Head => 4,
        Word::RxWake => 5,
        Word::TxWake => 6,
        Word::Summary(0) => 7,
        _ => return None,
    };
    Some(AREA as Cell + control)
}

/// What stands here for `word` of `lane`. The words of a control block that only a locked ring has are
/// those of lane 1.
pub(super) fn lane_word(lane: u8, word: Word) -> Word {
    match (lane, word) {
        (0, _) => word,
        (_, Word::Data(position)) => Word::Data(lane_position(lane, position)),
        (_, Word::Tail) => Word::Skipped,
        (_, Word::Head) => Word::HeadCache,
        (_, Word::TxWake) => Word::LockBreaks,
        _ => word,
    }
}

/// What stands here for a position of `lane`.
pub(super) fn lane_position(lane: u8, position: u64) -> u64 {
    u64::from(lane) * LANE_STEP + position
}

/// The lane of a position, and the position there.
pub(super) fn split_position(position: u64) -> (u64, u64) {
    (position / LANE_STEP, position % LANE_STEP)
}

/// Where the incarnation of `slot` lies.
pub(super) fn incarnation(slot: u16) -> Cell {
    (AREA + 8) as Cell + slot as Cell
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
