//! A region with both rings, and the steps that are made with it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tombolo::ends::{Mpsc, Spsc};
use tombolo::inspect::Image;
use tombolo::options::MpscOrder;
use tombolo::{EventsRegion, OpenOptions, RecvTimeoutError, wait_any};
use tombolo_abi::{RingControl, RingEntry, RingKind};

use super::context::Context;
use super::model::Line;
use super::play::{Kind, Play};
use super::tally::Tally;
use crate::{Failure, Rng, scratch};

/// Messages of one world.
const MESSAGES: u64 = 500;
/// Producers of an MPSC ring, or lanes.
const PRODUCERS: u16 = 4;
/// The first worlds, in which ends are asked for that are taken: each refusal takes 100 ms.
const WORLDS_THAT_ASK: u64 = 12;
/// Steps after which it is first tried.
const ASKS_FROM: u64 = 50;

/// A region, and all that is done with it.
#[derive(Debug)]
pub(super) struct World {
    seed: u64,
    number: u64,
    steps: u64,
    path: PathBuf,
    _directory: TempDir,
    region: EventsRegion,
    spsc: Play<Spsc>,
    mpsc: Play<Mpsc>,
    context: Context,
    /// Of a hundred steps, how many send.
    sends_percent: u64,
    asks: [bool; 2],
}

impl World {
    /// World `number` of `seed`.
    pub(super) fn new(seed: u64, number: u64) -> Result<Self, Failure> {
        let mut rng = Rng::of_part(seed, number);
        let directory = scratch()?;
        let path = directory.path().join("region");
        let order =
            if number.is_multiple_of(2) { MpscOrder::Total } else { MpscOrder::PerProducer };
        let capacities = [4096, 4096, 8192];
        let options = OpenOptions::new()
            .spsc_capacity(rng.choose(&capacities))
            .mpsc_capacity(rng.choose(&capacities))
            .max_message(rng.choose(&[200, 1000]))
            .max_handles(if number % 6 < 2 { 0 } else { 3 })
            .producers(PRODUCERS)
            .mpsc_order(order);
        drop(EventsRegion::open_path_with(&path, options)?);
        let lines = set_positions(&path, &mut rng)?;
        let mut region = EventsRegion::open_path(&path)?;
        let (spsc, mpsc): (Vec<_>, Vec<_>) =
            lines.into_iter().partition(|(entry, _)| entry.ring_kind() == Some(RingKind::Spsc));
        let are_small = number % 4 < 2;
        let name = if order == MpscOrder::Total { "MPSC" } else { "lanes" };
        Ok(Self {
            spsc: play("SPSC", spsc, 1, are_small, &mut region)?,
            mpsc: play(name, mpsc, PRODUCERS.into(), are_small, &mut region)?,
            seed,
            number,
            steps: 0,
            path,
            _directory: directory,
            region,
            context: Context::new(rng.number())?,
            sends_percent: 50,
            asks: [number <= WORLDS_THAT_ASK; 2],
        })
    }

    /// Makes steps until enough messages were sent, then takes what is left.
    pub(super) fn run(&mut self, tally: &mut Tally) -> Result<(), Failure> {
        std::mem::swap(tally, &mut self.context.tally);
        let goal = self.context.tally.sent + MESSAGES;
        while self.context.tally.sent < goal {
            self.steps += 1;
            self.context.rng = Rng::of_part(self.seed, self.number << 32 | self.steps);
            self.step()?;
        }
        self.finish()?;
        std::mem::swap(tally, &mut self.context.tally);
        Ok(())
    }

    /// What went wrong, and how it came to that.
    pub(super) fn explain(&self, error: &dyn std::error::Error) -> Failure {
        let Self { number, steps, context, .. } = self;
        format!("world {number}, step {steps}: {error}; the last steps:\n{}", context.traced())
            .into()
    }

    fn step(&mut self) -> Result<(), Failure> {
        let Self { spsc, mpsc, region, context, .. } = self;
        if context.rng.percent(2) {
            self.sends_percent = context.rng.choose(&[15, 50, 50, 85]);
        }
        match context.rng.below(200) {
            0..5 => spsc.change_ends(region, context),
            5..13 => mpsc.change_ends(region, context),
            13..17 => {
                spsc.attach_all(region, context)?;
                mpsc.attach_all(region, context)
            }
            17..26 => self.wait_any(),
            26 => self.open_again(),
            27 => spsc.see_senders_off(context),
            28 => mpsc.see_senders_off(context),
            29 => spsc.fill(context),
            30 => mpsc.fill(context),
            31..36 if self.asks.contains(&true) && self.steps >= ASKS_FROM => self.ask_for_taken(),
            _ => {
                let is_send = context.rng.percent(self.sends_percent);
                match (is_send, context.rng.percent(40)) {
                    (true, true) => spsc.send(context),
                    (true, false) => mpsc.send(context),
                    (false, true) => spsc.receive(context),
                    (false, false) => mpsc.receive(context),
                }
            }
        }
    }

    /// Asks for ends that are taken, of each kind once.
    fn ask_for_taken(&mut self) -> Result<(), Failure> {
        let Self { spsc, mpsc, region, context, asks, .. } = self;
        if asks[0] && spsc.rx.is_some() && !spsc.txs.is_empty() {
            asks[0] = false;
            spsc.ask_for_taken(region, context)?;
        }
        if asks[1] && mpsc.rx.is_some() && mpsc.fill_places(region, context)? {
            asks[1] = false;
            mpsc.ask_for_taken(region, context)?;
        }
        Ok(())
    }

    /// Further ends are of a mapping of their own, as another process's would be.
    fn open_again(&mut self) -> Result<(), Failure> {
        self.context.trace(|| "opened again".to_owned());
        self.context.tally.add("region opened again", 1);
        self.region = EventsRegion::open_path(&self.path)?;
        Ok(())
    }

    /// Waits for either receiver. If there is something, the one that is named gives it.
    fn wait_any(&mut self) -> Result<(), Failure> {
        let Self { spsc, mpsc, context, .. } = self;
        let (Some(one), Some(other)) = (&mut spsc.rx, &mut mpsc.rx) else { return Ok(()) };
        context.trace(|| "wait_any".to_owned());
        match wait_any(&mut [&mut one.end, &mut other.end], Duration::ZERO) {
            Ok(0) => spsc.take_named(context),
            Ok(1) => mpsc.take_named(context),
            Err(RecvTimeoutError::Timeout) => {
                context.tally.add("wait_any: nothing there", 1);
                spsc.check_empty().and(mpsc.check_empty())
            }
            other => Err(format!("wait_any: {other:?}").into()),
        }
    }

    /// Takes all that is left.
    fn finish(&mut self) -> Result<(), Failure> {
        let Self { spsc, mpsc, region, context, .. } = self;
        spsc.finish(region, context)?;
        mpsc.finish(region, context)
    }
}

impl<K: Kind> Play<K> {
    /// Receives from an end that was named as ready.
    fn take_named(&mut self, context: &mut Context) -> Result<(), Failure> {
        self.count(context, "wait_any");
        if self.is_empty() && !self.is_disconnected() {
            return Err("an end was named that has nothing".into());
        }
        self.borrow(context)
    }

    fn finish(&mut self, region: &mut EventsRegion, context: &mut Context) -> Result<(), Failure> {
        self.attach_receiver(region, context)?;
        while !self.is_empty() {
            self.receive(context)?;
        }
        self.check_empty()
    }
}

/// Lets all rings of the region at `path` start just before 2^64, and gives where.
fn set_positions(path: &Path, rng: &mut Rng) -> Result<Vec<(RingEntry, u64)>, Failure> {
    let image = Image::open(path)?;
    let file = File::options().write(true).open(path)?;
    let mut starts = Vec::new();
    for ring in image.rings() {
        let entry = ring.entry;
        let start = (rng.below(entry.capacity / 8) * 8).wrapping_neg();
        let control = |offset: usize| entry.control_offset + offset as u64;
        let is_shared = entry.ring_kind() == Some(RingKind::Mpsc);
        let head_cache = if is_shared { start } else { 0 };
        for (offset, word) in [
            (std::mem::offset_of!(RingControl, head), start),
            (std::mem::offset_of!(RingControl, tail), start),
            (std::mem::offset_of!(RingControl, head_cache), head_cache),
        ] {
            file.write_all_at(&word.to_le_bytes(), control(offset))?;
        }
        starts.push((entry, start));
    }
    Ok(starts)
}

fn play<K: Kind>(
    name: &'static str,
    lines: Vec<(RingEntry, u64)>,
    places: usize,
    are_small: bool,
    region: &mut EventsRegion,
) -> Result<Play<K>, Failure> {
    let first = lines.first().ok_or("a region without a ring")?.0;
    let ring = K::split(region)?.0.ring();
    let lines = lines
        .iter()
        .zip(ring..)
        .map(|((entry, start), ring)| Line::new(ring, entry.capacity, *start));
    Ok(Play {
        name,
        lines: lines.collect(),
        txs: Vec::new(),
        rx: None,
        max_message: first.max_message as usize,
        max_handles: first.max_handles.into(),
        are_small,
        places,
    })
}
