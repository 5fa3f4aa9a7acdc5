//! Header words of records, and lock words.

use tombolo_abi::{LockWord, MESSAGE_LEN_MAX, Record, RecordError, RecordKind, RecordRules};

use super::{Outcomes, edge};
use crate::{Failure, Rng};

/// Judges a header word by rules of a sound or of a damaged entry.
pub(super) fn judge(rng: &mut Rng, outcomes: &mut Outcomes) -> Result<(), Failure> {
    if rng.percent(25) {
        let (rules, position) = (any_rules(rng), edge(rng));
        let word = any_word(rng, &rules, position);
        let judged = rules.decode(word, position); // any answer will do
        outcomes.add("record by damaged rules", name(&judged));
        return Ok(());
    }
    let rules = sane_rules(rng);
    let position = edge(rng).wrapping_sub(8 * rng.below(64)) & rules.align.wrapping_neg();
    let word = any_word(rng, &rules, position);
    let judged = rules.decode(word, position);
    if let Ok(Some(record)) = &judged {
        let to_end = rules.capacity - (position & (rules.capacity - 1));
        let fits = rules.record_len(record) <= to_end;
        if !fits || rules.encode(record, position) != word {
            return Err(format!("accepted {word:#x} at {position}, {rules:?}").into());
        }
    }
    outcomes.add("record", name(&judged));
    Ok(())
}

/// As [`judge`], and a lock word.
pub(super) fn judge_with_lock(rng: &mut Rng, outcomes: &mut Outcomes) -> Result<(), Failure> {
    let word = match rng.below(3) {
        0 => edge(rng),
        1 => rng.number(),
        _ => 1 << 63 | rng.number() & 0x7fff_ffff_0000_ffff,
    };
    let outcome = match LockWord::from_word(word) {
        None if word == LockWord::FREE => "free",
        None => "refused",
        Some(lock) if lock.to_word() == word => "held",
        Some(lock) => return Err(format!("{word:#x} is not {lock:?}").into()),
    };
    outcomes.add("lock word", outcome);
    judge(rng, outcomes)
}

/// Rules that a sound entry can give.
fn sane_rules(rng: &mut Rng) -> RecordRules {
    let capacity = 1 << (12 + rng.below(29));
    let longest = (capacity / 4 - 512).min(u64::from(MESSAGE_LEN_MAX));
    RecordRules {
        capacity,
        align: 8 << rng.below(6),
        max_message: rng.below(longest) as u32,
        max_handles: rng.below(65) as u16,
        key: rng.number(),
    }
}

fn any_rules(rng: &mut Rng) -> RecordRules {
    RecordRules {
        capacity: edge(rng),
        align: edge(rng),
        max_message: edge(rng) as u32,
        max_handles: edge(rng) as u16,
        key: edge(rng),
    }
}

/// Zero, garbage, an honest word, or one with a bit or two flipped.
fn any_word(rng: &mut Rng, rules: &RecordRules, position: u64) -> u64 {
    let word = rules.encode(&any_record(rng, rules, position), position);
    match rng.below(8) {
        0 => 0,
        1 => rng.number(),
        2 => word ^ 1 << rng.below(64),
        3 => word ^ 1 << rng.below(64) ^ 1 << rng.below(64),
        _ => word,
    }
}

fn any_record(rng: &mut Rng, rules: &RecordRules, position: u64) -> Record {
    let index = position & rules.capacity.wrapping_sub(1);
    let to_end = rules.capacity.wrapping_sub(index) & 0x0fff_ffff;
    if rng.percent(25) {
        return Record::pad(to_end);
    }
    let kinds = [RecordKind::Data, RecordKind::Call, RecordKind::Reply, RecordKind::Unknown(12)];
    let longest = u64::from(rules.max_message).min(to_end.saturating_sub(8));
    let excess = if rng.percent(10) { rng.below(100) } else { 0 };
    let handles = if rng.percent(50) { 0 } else { rng.below(70) as u8 };
    Record {
        kind: rng.choose(&kinds),
        payload_len: (rng.below(longest + 1) + excess).min(0x0fff_ffff) as u32,
        handle_count: handles,
        ext: rng.percent(70),
        flags: rng.number() as u8,
    }
}

fn name(judged: &Result<Option<Record>, RecordError>) -> &'static str {
    match judged {
        Ok(Some(_)) => "accepted",
        Ok(None) => "not committed",
        Err(RecordError::Kind { .. }) => "Kind",
        Err(RecordError::Tag { .. }) => "Tag",
        Err(RecordError::Len { .. }) => "Len",
        Err(RecordError::Handles { .. }) => "Handles",
        Err(RecordError::MissingExt) => "MissingExt",
        Err(RecordError::Padding { .. }) => "Padding",
        Err(_) => "another error",
    }
}
