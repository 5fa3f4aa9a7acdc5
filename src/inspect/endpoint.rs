//! Endpoints: what their slots say, and what the kernel says about their owners.

use tombolo_abi::{Header, LOCK_SLOTS, Role, SLOT_COUNT_MAX, SLOT_LEN, Slot, SlotState};

use super::file::RegionFile;
use super::problem::{Place, Problem};
use super::process::Process;

/// Attempts to read a slot before its fields are shown as torn.
const TRIES: usize = 8;

/// Whether the owner of an endpoint is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Liveness {
    /// Its lock byte is held.
    Alive,
    /// The slot says that it is in use, but no process holds its lock byte: the owner died.
    Dead,
    /// It has detached; the slot still shows who it was.
    Left,
    /// The file system doesn't say, or the file is a copy.
    Unknown,
}

/// An endpoint that a process owns or has owned.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointView {
    /// The slot's number.
    pub slot: u32,
    /// The slot as found. Its owner wrote all of it; none of it is checked.
    pub fields: Slot,
    /// Whether the fields may not belong together: their writer died, or kept writing.
    pub torn: bool,
    /// Whether the owner is alive, by the lock byte.
    pub liveness: Liveness,
    /// The process with the id in the slot.
    pub process: Process,
}

impl EndpointView {
    /// The slot's state, if v1 knows it.
    #[must_use]
    pub fn state(&self) -> Option<SlotState> {
        SlotState::from_word(self.fields.state)
    }

    /// The endpoint's role, if v1 knows it.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        Role::from_word(self.fields.role)
    }
}

/// The slot table, by the header.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotTable {
    offset: u64,
    stride: u32,
    count: u32,
    ring_count: u32,
}

impl SlotTable {
    pub(super) fn new(header: &Header) -> Self {
        let plausible = (SLOT_LEN..=1 << 20).contains(&header.slot_len);
        Self {
            offset: header.slot_offset,
            stride: if plausible { header.slot_len } else { SLOT_LEN },
            count: header.slot_count.min(SLOT_COUNT_MAX),
            ring_count: header.ring_count,
        }
    }

    fn slot_offset(&self, slot: u32) -> Option<u64> {
        let start = u64::from(slot).checked_mul(self.stride.into())?;
        self.offset.checked_add(start)
    }

    fn field_offset(&self, slot: u32, field: &str) -> Option<u64> {
        let field = Slot::TABLE.field(field)?;
        self.slot_offset(slot)?.checked_add(field.offset as u64)
    }

    fn word(&self, file: &RegionFile, slot: u32, field: &str) -> Option<u32> {
        file.value_at(self.field_offset(slot, field)?)
    }

    /// Incarnation and process id in `slot`, read now.
    pub(super) fn owner(&self, file: &RegionFile, slot: u32) -> Option<(u32, u32)> {
        if slot >= self.count {
            return None;
        }
        Some((self.word(file, slot, "incarnation")?, self.word(file, slot, "pid")?))
    }

    /// All endpoints that a process owns or has owned, as far as the file reaches.
    pub(super) fn endpoints(&self, file: &RegionFile) -> Vec<EndpointView> {
        (0..self.count).filter_map(|slot| self.endpoint(file, slot)).collect()
    }

    fn endpoint(&self, file: &RegionFile, slot: u32) -> Option<EndpointView> {
        let mut liveness = Liveness::Unknown;
        let (mut fields, mut torn) = self.read(file, slot)?;
        for _ in 0..TRIES {
            let locked = is_held(file, slot);
            let (again, torn_again) = self.read(file, slot)?;
            let same = (fields.state, fields.incarnation) == (again.state, again.incarnation);
            (fields, torn) = (again, torn_again);
            liveness = liveness_of(&fields, locked);
            if same {
                break;
            }
            liveness = Liveness::Unknown; // its owner changed while it was read
        }
        if was_never_used(&fields) && liveness != Liveness::Alive {
            return None;
        }
        let process = Process::find(fields.pid, fields.start_ticks, fields.pid_namespace);
        Some(EndpointView { slot, fields, torn, liveness, process })
    }

    /// The slot, and whether it is torn.
    fn read(&self, file: &RegionFile, slot: u32) -> Option<(Slot, bool)> {
        for _ in 0..TRIES {
            let before = self.word(file, slot, "seqlock")?;
            let fields: Slot = file.value_at(self.slot_offset(slot)?)?;
            let after = self.word(file, slot, "seqlock")?;
            if before % 2 == 0 && before == after {
                return Some((fields, false));
            }
        }
        file.value_at(self.slot_offset(slot)?).map(|fields| (fields, true))
    }

    /// Whether the words of these endpoints have changed, or others have attached.
    pub(super) fn have_moved(&self, file: &RegionFile, endpoints: &[EndpointView]) -> bool {
        let mut endpoints = endpoints.iter().peekable();
        (0..self.count).any(|slot| {
            let seen = endpoints.next_if(|endpoint| endpoint.slot == slot);
            let now = self.slot_offset(slot).and_then(|offset| file.value_at(offset));
            now.is_some_and(|now: Slot| match seen {
                Some(seen) => now != seen.fields,
                None => !was_never_used(&now),
            })
        })
    }

    /// What an owner would never write. A slot that is being written is not checked.
    pub(super) fn problem(&self, endpoint: &EndpointView) -> Option<Problem> {
        let (slot, fields) = (endpoint.slot, &endpoint.fields);
        let wrong = |field: &'static str, found: u32, wanted: &str| {
            let problem = Problem::new("slot", Place::Slot(slot), field, found, wanted);
            Some(problem.at(self.field_offset(slot, field)))
        };
        match endpoint.state() {
            None => wrong("state", fields.state, "0 to 4"),
            Some(SlotState::Attached) if !endpoint.torn => {
                if endpoint.role().is_none() {
                    return wrong("role", fields.role, "1 (receiver) or 2 (sender)");
                }
                if fields.ring >= self.ring_count {
                    return wrong("ring", fields.ring, "a ring of the region");
                }
                None
            }
            Some(_) => None,
        }
    }
}

/// Whether a process holds the slot's lock byte; `None` if the file system doesn't say, and in a copy, which
/// has lock bytes of its own.
pub(super) fn is_held(file: &RegionFile, slot: u32) -> Option<bool> {
    if file.is_copy { None } else { file.is_locked(LOCK_SLOTS + u64::from(slot)) }
}

fn was_never_used(fields: &Slot) -> bool {
    fields.state == SlotState::Free as u32 && fields.incarnation == 0
}

fn liveness_of(fields: &Slot, locked: Option<bool>) -> Liveness {
    match locked {
        None => Liveness::Unknown,
        Some(true) => Liveness::Alive,
        Some(false) if fields.state == SlotState::Free as u32 => Liveness::Left,
        Some(false) => Liveness::Dead,
    }
}
