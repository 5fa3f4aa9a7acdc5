//! The places of a ring's words, read while another process may be changing them.

use tombolo_abi::{
    ALIGN_SHIFT_MAX, ALIGN_SHIFT_MIN, CAPACITY_MAX, CAPACITY_MIN, Header, RecordRules, RingControl,
    RingEntry, RingKind,
};

use super::file::RegionFile;
use super::problem::{Place, Problem};

/// Attempts to read positions that contradict each other before that is believed.
const SAMPLES: usize = 3;
/// Bytes of the data area that are read at once.
const EXCERPT_LEN: usize = 4096;

/// A directory entry that was checked for arithmetic: the places of a ring and the rules of its records.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingPlace {
    pub(super) ring: u32,
    pub(super) rules: RecordRules,
    pub(super) control_offset: u64,
    pub(super) data_offset: u64,
}

impl RingPlace {
    /// `None` if the entry is no ring's, or too damaged to walk along its records.
    pub(super) fn new(header: &Header, ring: u32, entry: &RingEntry) -> Option<Self> {
        let kind = entry.ring_kind()?;
        let walkable = kind != RingKind::Memory
            && entry.capacity.is_power_of_two()
            && (CAPACITY_MIN..=CAPACITY_MAX).contains(&entry.capacity)
            && (ALIGN_SHIFT_MIN..=ALIGN_SHIFT_MAX).contains(&entry.align_shift);
        entry.data_offset.checked_add(entry.capacity)?;
        entry.control_offset.checked_add(size_of::<RingControl>() as u64)?;
        let rules = RecordRules::of(entry, header.key);
        let (control_offset, data_offset) = (entry.control_offset, entry.data_offset);
        walkable.then_some(Self { ring, rules, control_offset, data_offset })
    }

    /// The offset in the file of this field of the control block.
    pub(super) fn word_offset(&self, field: &str) -> Option<u64> {
        let field = RingControl::TABLE.field(field)?;
        self.control_offset.checked_add(field.offset as u64)
    }

    /// This field of the control block, read now.
    pub(super) fn word(&self, file: &RegionFile, field: &str) -> Option<u64> {
        file.value_at(self.word_offset(field)?)
    }

    /// Bytes of the data area before the byte at `position`.
    pub(super) fn index(&self, position: u64) -> u64 {
        position & (self.rules.capacity - 1)
    }

    /// The offset in the file of the byte at `position`.
    pub(super) fn data_at(&self, position: u64) -> u64 {
        self.data_offset + self.index(position)
    }
}

/// A ring's two positions, read so that they can be compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Positions {
    pub(super) head: u64,
    pub(super) tail: u64,
}

/// Why a ring has no positions to start from.
#[derive(Clone, Debug)]
pub(super) enum NoPositions {
    /// The file ends before them.
    BeyondFile,
    /// They contradict each other.
    Contradiction(Problem),
}

impl Positions {
    /// Reads head, tail and head again. A healthy ring, however fast it moves, has
    /// `tail - capacity <= later head` and `earlier head <= tail + capacity`.
    pub(super) fn sample(file: &RegionFile, place: &RingPlace) -> Result<Self, NoPositions> {
        let mut wrong = NoPositions::BeyondFile;
        for _ in 0..SAMPLES {
            let words = ["head", "tail", "head"].map(|field| place.word(file, field));
            let [Some(earlier), Some(tail), Some(head)] = words else {
                return Err(NoPositions::BeyondFile);
            };
            match contradiction(place, earlier, tail, head) {
                None => return Ok(Self { head, tail }),
                Some(problem) => wrong = NoPositions::Contradiction(problem),
            }
        }
        Err(wrong)
    }
}

fn contradiction(place: &RingPlace, earlier: u64, tail: u64, head: u64) -> Option<Problem> {
    let control = Place::Control(place.ring);
    let align = place.rules.align;
    for (field, found) in [("head", head), ("tail", tail)] {
        if found % align != 0 {
            let wanted = format!("a multiple of {align}");
            let problem = Problem::new("position", control, field, found, wanted);
            return Some(problem.at(place.word_offset(field)));
        }
    }
    let too_far = |from: u64, to: u64| to.wrapping_sub(from) as i64 > place.rules.capacity as i64;
    let capacity = place.rules.capacity;
    if too_far(head, tail) || too_far(tail, earlier) {
        let wanted = format!("at most the capacity of {capacity} bytes from tail {tail}");
        let problem = Problem::new("position", control, "head", head, wanted);
        return Some(problem.at(place.word_offset("head")));
    }
    None
}

/// Whether `position` lies behind `other`, as a difference: positions wrap.
pub(super) fn is_before(position: u64, other: u64) -> bool {
    (position.wrapping_sub(other) as i64) < 0
}

/// A copy of some bytes of the data area, so that small records don't take a read each.
#[derive(Debug, Default)]
pub(super) struct Excerpt {
    start: u64,
    bytes: Vec<u8>,
}

impl Excerpt {
    /// The header word at `position`, which may be as old as the last [`Excerpt::forget`].
    pub(super) fn word(
        &mut self,
        file: &RegionFile,
        place: &RingPlace,
        position: u64,
    ) -> Option<u64> {
        let index = place.index(position);
        if self.stored(index).is_none() {
            let to_end = place.rules.capacity - index;
            let len = to_end.min(EXCERPT_LEN as u64) as usize;
            *self = Self { start: index, bytes: file.bytes_at(place.data_at(position), len) };
        }
        self.stored(index).map(u64::from_le_bytes)
    }

    /// Reads anew next time.
    pub(super) fn forget(&mut self) {
        self.bytes.clear();
    }

    fn stored(&self, index: u64) -> Option<[u8; 8]> {
        let start = usize::try_from(index.checked_sub(self.start)?).ok()?;
        self.bytes.get(start..)?.first_chunk().copied()
    }
}
