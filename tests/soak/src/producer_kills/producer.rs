//! A life: a producer that sends until it is killed or told to end.

use std::path::PathBuf;

use tombolo::MpscProducer;

use super::notes::{Notes, Phase};
use super::plan;
use super::waits::Waits;
use crate::clock::now_ns;
use crate::content::Content;
use crate::sending::Batch;
use crate::stream::join;
use crate::{Failure, Rng, required};

/// Most messages in a batch.
const BATCH_MAX: u64 = 4;
/// Of a hundred sends, how many are of a batch.
const BATCH_PERCENT: u64 = 20;

/// Sends: path, seed, notes, waits, which life.
pub(super) fn send(arguments: &[String]) -> Result<(), Failure> {
    let (path, seed): (String, u64) = (required(arguments, 0)?, required(arguments, 1)?);
    let (notes, waits): (PathBuf, PathBuf) = (required(arguments, 2)?, required(arguments, 3)?);
    let life = required(arguments, 4)?;
    let mut region = join(&path)?;
    let (mut sender, _) = region.split_mpsc()?;
    sender.attach()?;
    let mut outgoing = Outgoing {
        sender,
        content: Content::new(seed),
        rng: Rng::of_part(seed, life),
        notes: Notes::open(&notes)?,
        waits: Waits::open(&waits)?,
        life,
        sent: 0,
        batch: Batch::default(),
    };
    while !outgoing.notes.has_reached(Phase::Ending) {
        outgoing.send_some()?;
    }
    outgoing.send_some() // behind the last kill: whatever it left is mended now
}

struct Outgoing {
    sender: MpscProducer,
    content: Content,
    rng: Rng,
    notes: Notes,
    waits: Waits,
    life: u64,
    sent: u64,
    batch: Batch,
}

impl Outgoing {
    /// Sends the next message, or the next few at once.
    fn send_some(&mut self) -> Result<(), Failure> {
        let is_batch = self.rng.percent(BATCH_PERCENT);
        let count = if is_batch { 2 + self.rng.below(BATCH_MAX - 1) } else { 1 };
        let last = self.sent + count;
        self.batch.clear();
        for number in self.sent + 1..last + 1 {
            let (content, key) = (&self.content, plan::key(self.life, number));
            self.batch.add(plan::len(content, key), |message| content.write(key, 0, message));
        }
        let began = self.notes.begin(self.life, last);
        self.batch.send(&mut self.sender)?;
        self.waits.add(now_ns() - began);
        self.notes.end(self.life, last);
        self.sent = last;
        Ok(())
    }
}
