//! Creators killed at each of their system calls.

use super::crew::Crew;
use super::disk::Scene;
use super::histogram::Histogram;
use super::round::skipped;
use super::stepped::{Company, DONE, Kill, Round, play};
use crate::{Failure, Report, Rng, Run, Setting, Size};

/// Kills at each call, first with nobody about and then with three others at work.
pub(crate) const RUN: Run = Run {
    name: "create-syscalls",
    about: "kill a creator at each of its system calls: the others get one whole region",
    body: run,
    roles: &[super::opener::ROLE],
};

/// What a creator may find.
const SCENES: [Scene; 3] = [Scene::Absent, Scene::Empty, Scene::HalfMade];

/// More calls than any opening makes.
const CALLS_MAX: u64 = 1000;

/// Rounds in the full size for each call, each with another head start of the one killed.
const STARTS: u64 = 5;

/// What a run has seen so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// By call, what was found on the disk after a kill.
    pub(super) histogram: Histogram,
    /// Kills with nobody about.
    pub(super) alone: u64,
    /// Kills with others at work.
    pub(super) raced: u64,
    /// Rounds in which another than the one killed made the region.
    pub(super) by_others: u64,
    /// Rounds in which the one killed had made it.
    pub(super) by_killed: u64,
    /// Rounds whose region came after a name that was gone.
    pub(super) started_over: u64,
    /// Retired regions left beside the new one.
    pub(super) retired: u64,
}

impl Tally {
    fn add(&mut self, kill: Kill, round: Round) {
        let Round::Killed { call, found, agreed, retired } = round else { return };
        let (count, company) = match kill.company {
            Company::Later => (&mut self.alone, "alone"),
            _ => (&mut self.raced, "raced"),
        };
        *count += 1;
        match agreed.creators {
            0 => self.by_killed += 1,
            _ => self.by_others += 1,
        }
        self.retired += retired;
        self.started_over += u64::from(agreed.generation != kill.scene.next_generation());
        self.histogram.add(format!("{}, {company}, {call}", kill.scene.name()), found);
    }
}

/// Kills with nobody about at call 1, 2 and so on, and last when the region is open; gives how many
/// calls there are, or `None` where nobody may trace.
pub(super) fn kill_alone(
    crew: &mut Crew,
    kill: Kill,
    tally: &mut Tally,
) -> Result<Option<u64>, Failure> {
    for call in 1..CALLS_MAX {
        let kill = Kill { call, ..kill };
        let round = play(crew, kill)?;
        if matches!(round, Round::Refused) {
            return Ok(None);
        }
        let is_last = matches!(&round, Round::Killed { call, .. } if call == DONE);
        tally.add(kill, round);
        if is_last {
            return Ok(Some(call - 1));
        }
    }
    Err("opening never ends".into())
}

/// Kills at each of `calls` calls, and at half as many more that one makes who comes too late, with
/// three others at work, which start at an earlier one.
pub(super) fn kill_in_company(
    crew: &mut Crew,
    kill: Kill,
    (calls, rng): (u64, &mut Rng),
    tally: &mut Tally,
) -> Result<(), Failure> {
    for call in 1..=calls + calls / 2 {
        let start = rng.below(call);
        let company = if rng.percent(50) { Company::Held(start) } else { Company::From(start) };
        let kill = Kill { call, company, ..kill };
        tally.add(kill, play(crew, kill)?);
    }
    Ok(())
}

/// How often to go through all calls in company.
pub(super) fn starts(setting: &Setting) -> u64 {
    match setting.size {
        Size::Full => STARTS,
        Size::Tenth | Size::Hundredth => 1,
    }
}

fn run(setting: &Setting) -> Result<Report, Failure> {
    let mut crew = Crew::new(setting)?;
    let mut rng = Rng::new(setting.seed);
    let (mut report, mut tally) = (Report::new(), Tally::default());
    for scene in SCENES {
        let (call, company) = (0, Company::Later);
        let kill = Kill { scene, capacity: 1 << 16, policy: "open", call, company };
        let Some(calls) = kill_alone(&mut crew, kill, &mut tally)? else { return Ok(skipped()) };
        report.count(&format!("calls, {}", scene.name()), calls);
        for _ in 0..starts(setting) {
            kill_in_company(&mut crew, kill, (calls, &mut rng), &mut tally)?;
        }
    }
    report_kills(&mut report, &tally);
    for found in ["absent", "empty", "state 1", "ready"] {
        report.count(&format!("kills that left it {found}"), tally.histogram.in_column(found));
    }
    enough(report, &tally)
}

/// Puts into the report what both runs say.
pub(super) fn report_kills(report: &mut Report, tally: &Tally) {
    tally.histogram.report(report);
    report.count("kills with nobody about", tally.alone);
    report.count("kills with three others at work", tally.raced);
    report.count("regions made by another than the one killed", tally.by_others);
    report.count("regions made by the one killed", tally.by_killed);
}

/// Fails where there were too few kills.
pub(super) fn enough(report: Report, tally: &Tally) -> Result<Report, Failure> {
    match tally.alone + tally.raced {
        kills if kills < 100 => Err(format!("only {kills} kills\n{report}").into()),
        _ => Ok(report),
    }
}
