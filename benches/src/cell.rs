//! What is measured, piece by piece.

use std::collections::BTreeMap;

use crate::actor::{Percentiles, Role, Side};
use crate::crew::Turn;
use crate::place::Cpus;
use crate::registry::{Entry, Kind, Registry};
use crate::stats::Summary;
use crate::system::{Failure, Waiting};
use crate::test::Test;

/// One system in one test, at one size, with so many producers.
#[derive(Debug)]
pub(crate) struct Cell<'a> {
    pub(crate) entry: &'a Entry,
    /// What its children are to be, but for side, index and processors.
    role: Role,
    cpus: Cpus,
}

/// What came out of a cell.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) test: Test,
    pub(crate) system: &'static str,
    pub(crate) kind: Kind,
    pub(crate) size: usize,
    pub(crate) producers: usize,
    /// Nanoseconds a message or round in each repetition, and of single rounds.
    pub(crate) result: Result<(Summary, Option<Percentiles>), String>,
    pub(crate) disturbance: Disturbance,
    /// One for each repetition, in their order.
    turns: Vec<Turn>,
}

impl Outcome {
    /// Nanoseconds over those of another: the median of the ratios within each repetition, where
    /// they took turns. The machine changes between repetitions; within one it seldom does.
    pub(crate) fn over(&self, other: &Self) -> Option<f64> {
        if self.test.turn(self.size) != other.test.turn(other.size) {
            let median = |outcome: &Self| outcome.result.as_ref().ok().map(|(all, _)| all.median);
            return Some(median(self)? / median(other)?);
        }
        let pairs = || self.turns.iter().zip(&other.turns);
        let ratio = |(of, over): (&Turn, &Turn)| of.ns / over.ns;
        let calm = pairs().filter(|(of, over)| !of.was_disturbed && !over.was_disturbed);
        let calm: Vec<f64> = calm.map(ratio).collect();
        let enough = calm.len() * 4 >= self.turns.len();
        let ratios = if enough { calm } else { pairs().map(ratio).collect() };
        Summary::of(ratios).map(|summary| summary.median)
    }
}

/// How often something else was given one of the processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disturbance {
    /// So seldom that the turns in which it was are left out.
    Seldom,
    /// So often that they are not.
    Mostly,
}

/// Tests and systems that are asked for; all where there are none.
#[derive(Debug, Default)]
pub(crate) struct Only(Vec<(Test, Option<String>)>);

impl Only {
    /// Each is a test, or a test and a system with a comma between.
    pub(crate) fn new(wanted: &[String]) -> Result<Self, Failure> {
        let names = || Test::ALL.iter().map(|test| test.name()).collect::<Vec<_>>().join(", ");
        let parse = |text: &String| {
            let (name, system) = match text.split_once(',') {
                Some((name, system)) => (name, Some(system.to_owned())),
                None => (text.as_str(), None),
            };
            let test = Test::ALL.into_iter().find(|test| test.name() == name);
            let test = test.ok_or_else(|| format!("no test '{name}'; there are {}", names()))?;
            Ok::<_, Failure>((test, system))
        };
        Ok(Self(wanted.iter().map(parse).collect::<Result<_, _>>()?))
    }

    /// The systems that are named.
    pub(crate) fn systems(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|(_, system)| system.as_deref())
    }

    /// Floors are always taken with what is compared with them.
    fn wants(&self, test: Test, system: &str) -> bool {
        let wants = |(wanted, only): &(Test, Option<String>)| {
            let is_floor = wanted.floor() == Some(system) && wanted.turn(0) == test.turn(0);
            is_floor || *wanted == test && only.as_ref().is_none_or(|name| name == system)
        };
        self.0.is_empty() || self.0.iter().any(wants)
    }
}

/// All cells, those together that take turns.
pub(crate) fn plan<'a>(registry: &'a Registry, only: &Only, cpus: Cpus) -> Vec<Vec<Cell<'a>>> {
    let mut turns: BTreeMap<_, Vec<Cell>> = BTreeMap::new();
    let needs_two = |test: &Test| matches!(test, Test::RoundTripSleep | Test::CallSleep);
    let makes_sense = |test: &Test| !(cpus.is_one() && needs_two(test));
    for test in Test::ALL.into_iter().filter(makes_sense) {
        for (&size, &producers) in product(test.sizes(), test.producers()) {
            for entry in registry.entries.iter().filter(|entry| entry.is_in(test)) {
                let cell = Cell::new(entry, test, (size, producers), cpus);
                if entry.takes(&cell.role) && only.wants(test, entry.name) {
                    turns.entry(test.turn(size)).or_default().push(cell);
                }
            }
        }
    }
    turns.into_values().collect()
}

fn product<'a, A, B>(a: &'a [A], b: &'a [B]) -> impl Iterator<Item = (&'a A, &'a B)> {
    a.iter().flat_map(move |a| b.iter().map(move |b| (a, b)))
}

impl<'a> Cell<'a> {
    fn new(entry: &'a Entry, test: Test, (size, producers): (usize, usize), cpus: Cpus) -> Self {
        let cpus = match test {
            Test::RoundTripSleepOneCpu | Test::CallSleepOneCpu => {
                Cpus { follow: cpus.lead, ..cpus }
            }
            _ => cpus,
        };
        let role = Role {
            system: entry.name.into(),
            test,
            size,
            producers,
            side: Side::Solo,
            index: 0,
            directory: "/".into(),
            unique: unique(entry.name, test, size, producers),
            cpu: cpus.lead,
            other_cpu: cpus.follow,
            crowded: test.waiting() == Waiting::Busy && (cpus.is_one() || producers > 1),
        };
        Self { entry, role, cpus }
    }

    /// Its children, in a directory of its own: whoever follows first.
    pub(crate) fn roles(&self, directory: std::path::PathBuf) -> Vec<Role> {
        let role = Role { directory, ..self.role.clone() };
        if self.entry.kind != Kind::Processes {
            return vec![role];
        }
        let follow = Role { side: Side::Follow, cpu: self.cpus.follow, ..role.clone() };
        let lead = |index| Role { side: Side::Lead, index, ..role.clone() };
        std::iter::once(follow).chain((0..role.producers).map(lead)).collect()
    }

    pub(crate) fn test(&self) -> Test {
        self.role.test
    }

    pub(crate) fn producers(&self) -> usize {
        self.role.producers
    }

    /// Nanoseconds of the turns that count: those in which nobody else was given one of the
    /// processors, where they are a quarter at least, else all.
    pub(crate) fn choose(&self, turns: &[Turn]) -> (Vec<f64>, Disturbance) {
        let all = || turns.iter().map(|turn| turn.ns).collect();
        if self.role.test.waiting() != Waiting::Busy || self.role.crowded {
            return (all(), Disturbance::Seldom); // who sleeps or yields loses the processor
        }
        let calm = turns.iter().filter(|turn| !turn.was_disturbed);
        let calm: Vec<f64> = calm.map(|turn| turn.ns).collect();
        match calm.len() * 4 >= turns.len() {
            true => (calm, Disturbance::Seldom),
            false => (all(), Disturbance::Mostly),
        }
    }

    pub(crate) fn outcome(
        &self,
        result: Result<(Summary, Option<Percentiles>), String>,
        disturbance: Disturbance,
        turns: Vec<Turn>,
    ) -> Outcome {
        let Role { test, size, producers, .. } = self.role;
        let (system, kind) = (self.entry.name, self.entry.kind);
        Outcome { test, system, kind, size, producers, result, disturbance, turns }
    }

    /// What its turn is called.
    pub(crate) fn describe(&self) -> String {
        let name = self.role.test.name();
        match (self.role.test, self.role.size) {
            (Test::PassHandles, count) => format!("{name}, {count} handles"),
            (_, 0) => name,
            (_, size) => format!("{name}, {size} B"),
        }
    }
}

fn unique(system: &str, test: Test, size: usize, producers: usize) -> String {
    format!("b{}-{}-{system}-{size}-{producers}", std::process::id(), test as usize)
}
