//! Openers at once on a file system that holds one region: one creates it, and the others join.

use std::path::Path;
use std::process::Command;

use crate::creation::check_sound;
use crate::openers::{Crowd, OPENERS, judge};
use crate::{Failure, Report, Run, Setting, scratch};

/// No opener is refused for lack of space.
pub(crate) const RUN: Run = Run {
    name: "space",
    about: "2, 8 and 64 openers at once, 200 times each, if one region fits: none is refused",
    body: run,
    roles: &[],
};

const ROUNDS: u64 = 200;

/// A file system in memory; it ends when dropped.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn new(at: &'a Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", "size=64m,mode=700", "none"]).arg(at).output();
        mount.is_ok_and(|output| output.status.success()).then_some(Self(at))
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

fn run(setting: &Setting) -> Result<Report, Failure> {
    let directory = scratch()?;
    let mut report = Report::new();
    let Some(mount) = Mount::new(directory.path()) else {
        report.note("skipped", "this user may not mount");
        return Ok(report);
    };
    let path = directory.path().join("region");
    let mut crowd = Crowd::start(setting, &path)?;
    for openers in [2, 8, OPENERS] {
        let rounds = setting.count(ROUNDS, 3);
        for round in 0..rounds {
            play(&mut crowd, &path, openers)
                .map_err(|error| format!("{openers} openers, round {round}: {error}"))?;
        }
        report.count(&format!("rounds of {openers} openers with exactly one creator"), rounds);
        report.count(&format!("openings by {openers}"), rounds * openers as u64);
    }
    crowd.finish()?;
    drop(mount);
    Ok(report)
}

fn play(crowd: &mut Crowd, path: &Path, openers: usize) -> Result<(), Failure> {
    crowd.open(openers, 2)?;
    judge(&crowd.opened()?)?;
    check_sound(path)?;
    Ok(std::fs::remove_file(path)?)
}
