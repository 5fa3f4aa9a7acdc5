//! A waiter and an actor at work, and what they counted.

use std::time::Duration;

use tombolo_abi::slot_flags;

use super::combination::{Barriers, Combination};
use super::{actor, plan, waiter};
use crate::counters::Counters;
use crate::ends::{End, Side, create, create_small};
use crate::figures;
use crate::{Failure, Process, Report, Setting, scratch};

/// What all pairs of a combination counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    rounds: u64,
    sleeps: u64,
    notified: u64,
    spurious: u64,
    stalled: u64,
    /// `None` if senders never go on without fences.
    unfenced: Option<u64>,
    longest: Duration,
}

/// Lets a pair do `rounds` rounds.
///
/// # Errors
/// What either found.
pub(super) fn run(
    setting: &Setting,
    combination: Combination,
    rounds: u64,
    seed: u64,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let directory = scratch()?;
    let at = |name| directory.path().join(name).to_string_lossy().into_owned();
    match combination.end.side {
        Side::Receiving => create(at("region").as_ref(), combination.end.kind)?,
        Side::Sending => create_small(at("region").as_ref(), combination.end.kind)?,
    }
    let start = |role| {
        let (rounds, seed) = (rounds.to_string(), seed.to_string());
        let mut arguments = vec![at("region"), at("notes"), rounds, seed, at(role)];
        arguments.extend(combination.arguments());
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        Process::start(setting, role, &arguments)
    };
    let (waiter, actor) = (start(waiter::NAME)?, start(actor::NAME)?);
    let limit = Duration::from_secs(60 + rounds / 500);
    waiter.finish(limit)?;
    actor.finish(limit)?;
    let counters = Counters::new(at("region").as_ref(), combination.end.kind)?;
    tally.add(combination, &counters)?;
    let (waited, acted) =
        (figures::load(at(waiter::NAME).as_ref())?, figures::load(at(actor::NAME).as_ref())?);
    tally.rounds += rounds;
    tally.stalled += waited[waiter::STALLED];
    tally.longest = tally.longest.max(Duration::from_nanos(waited[waiter::LONGEST]));
    if plan::may_be_unfenced(combination.end, combination.how)
        && combination.barriers == Barriers::Usable
    {
        *tally.unfenced.get_or_insert(0) += acted[actor::UNFENCED];
    }
    Ok(())
}

impl Tally {
    /// How often the waiter slept.
    pub(super) fn sleeps(&self) -> u64 {
        self.sleeps
    }

    fn add(&mut self, combination: Combination, counters: &Counters) -> Result<(), Failure> {
        let end = combination.end;
        let (waiter, actor) = (counters.slot(end.side)?, counters.slot(end.other().side)?);
        let flags = waiter.flags | actor.flags;
        if combination.barriers == Barriers::Refused && flags & slot_flags::MEMBARRIER_OK != 0 {
            return Err("an end says that barriers reach it, which were refused".into());
        }
        self.sleeps += waiter.sleeps;
        self.notified += actor.wakes_sent;
        self.spurious += counters.control()?.spurious;
        Ok(())
    }

    /// Adds it to `report`.
    pub(super) fn describe(&self, report: &mut Report, end: End, barriers: Barriers) {
        let name = |what: &str| format!("{}, {}, {what}", end.name(), barriers.name());
        report.count(&name("rounds"), self.rounds);
        report.count(&name("sleeps"), self.sleeps);
        report.count(&name("wake-ups sent"), self.notified);
        let short = self.sleeps.saturating_sub(self.notified);
        let Self { spurious, stalled, longest, .. } = self;
        report.note(
            &name("beside"),
            format!(
                "{spurious} spurious, {short} sleeps more than wake-ups, longest {longest:.1?}"
            ),
        );
        if *stalled > 0 {
            report.note(&name(waiter::STALLED), stalled);
        }
        if let Some(unfenced) = self.unfenced {
            report.count(&name(actor::UNFENCED), unfenced);
        }
    }
}
