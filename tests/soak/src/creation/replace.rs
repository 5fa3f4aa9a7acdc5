//! Replacers killed at each of their system calls.

use super::crew::Crew;
use super::disk::Scene;
use super::round::skipped;
use super::stepped::{Company, Kill};
use super::syscalls::{Tally, enough, kill_alone, kill_in_company, report_kills, starts};
use crate::{Failure, Report, Rng, Run, Setting};

/// Kills at each call of replacing.
pub(crate) const RUN: Run = Run {
    name: "create-replace",
    about: "kill a replacer at each of its system calls: the others get one whole region",
    body: run,
    roles: &[],
};

fn run(setting: &Setting) -> Result<Report, Failure> {
    let mut crew = Crew::new(setting)?;
    let mut rng = Rng::new(setting.seed);
    let (mut report, mut tally) = (Report::new(), Tally::default());
    let (call, company, capacity) = (0, Company::Later, 1 << 16);
    let retired = Kill { scene: Scene::Retired, capacity, policy: "open", call, company };
    let Some(calls) = kill_alone(&mut crew, retired, &mut tally)? else { return Ok(skipped()) };
    report.count("calls, retired", calls);
    for _ in 0..starts(setting) {
        kill_in_company(&mut crew, retired, (calls, &mut rng), &mut tally)?;
    }
    // Beside a process that insists on a new region others may rightly join the old one, so that
    // here all come later.
    let orphan = Kill { scene: Scene::Orphan, policy: "new", ..retired };
    let calls = kill_alone(&mut crew, orphan, &mut tally)?;
    report.count("calls, orphan", calls.unwrap_or(0));
    report_kills(&mut report, &tally);
    for found in ["old", "retired", "absent", "ready"] {
        report.count(&format!("kills that left it {found}"), tally.histogram.in_column(found));
    }
    report.count("retired regions left beside the new, then swept", tally.retired);
    report.note("regions that came after a gap in the name, of generation 1", tally.started_over);
    enough(report, &tally)
}
