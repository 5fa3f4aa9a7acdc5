//! What receivers noted, held against what senders did.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::Failure;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// It came with all its handles.
    Whole = 0,
    /// Its handles were told to be lost.
    Lost = 1,
    /// There were no descriptors for them, the first time.
    WithoutDescriptors = 2,
}

/// Bytes of a note, so many that none lies on two pages: a write of those ends between them where the
/// process is killed.
pub(super) const NOTE_LEN: u64 = 64;

/// One note of a receiver.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) sender: u64,
    pub(super) number: u64,
    pub(super) receiver: u64,
    pub(super) handles: u64,
    pub(super) what: What,
}

impl Entry {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let Self { sender, number, receiver, handles, what } = self;
        [sender, number, receiver, handles, what as u64, 0, 0, 0].map(u64::to_le_bytes).concat()
    }

    fn from_words([sender, number, receiver, handles, what, ..]: [u64; 8]) -> Option<Self> {
        let kinds = [What::Whole, What::Lost, What::WithoutDescriptors];
        let what = kinds.into_iter().find(|one| *one as u64 == what)?;
        Some(Self { sender, number, receiver, handles, what })
    }
}

/// The sum of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ledger {
    pub(super) messages: u64,
    pub(super) handles: u64,
    pub(super) lost: u64,
    pub(super) without_descriptors: u64,
    pub(super) repeated: u64,
}

impl Ledger {
    /// Reads the notes in `directory`. Each sender's messages were noted from the first to the last,
    /// none left out; one is there twice only where the receiver changed in between.
    pub(super) fn read(directory: &Path) -> Result<Self, Failure> {
        let notes = fs::read(directory.join("received"))?;
        let (words, []) = notes.as_chunks::<8>() else { return Err("a torn note".into()) };
        let words: Vec<_> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let mut ledger = Self::default();
        let mut last: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for entry in words.as_chunks::<8>().0 {
            let entry = Entry::from_words(*entry).ok_or("a note of nothing")?;
            if entry.what == What::WithoutDescriptors {
                ledger.without_descriptors += 1;
                continue;
            }
            let before = last.insert(entry.sender, (entry.number, entry.receiver));
            match before {
                None if entry.number == 0 => {}
                Some((number, _)) if entry.number == number + 1 => {}
                Some((number, receiver))
                    if entry.number == number && entry.receiver != receiver =>
                {
                    ledger.repeated += 1;
                    continue;
                }
                _ => return Err(format!("{entry:?} behind {before:?}").into()),
            }
            ledger.messages += 1;
            match entry.what {
                What::Lost => ledger.lost += 1,
                _ => ledger.handles += entry.handles,
            }
        }
        check_all_came(directory, &last)?;
        Ok(ledger)
    }
}

/// Whether everything came that a sender was told to be sent.
fn check_all_came(directory: &Path, last: &BTreeMap<u64, (u64, u64)>) -> Result<(), Failure> {
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let Some(sender) = name.strip_prefix("sent-") else { continue };
        let sent = fs::read(directory.join(&*name))?;
        let sent = sent.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let came = last.get(&sender.parse()?).map_or(0, |(number, _)| number + 1);
        if came < sent {
            return Err(format!("sender {sender} sent {sent} messages, {came} came").into());
        }
    }
    Ok(())
}
