//! Creators killed at any moment.

use std::hint;
use std::thread;
use std::time::{Duration, Instant};

use super::crew::{Crew, Opener, Task};
use super::disk::{Found, Ground, Scene};
use super::histogram::Histogram;
use super::opener::now_ns;
use super::round::{OPENERS, release_after};
use crate::{Failure, Report, Rng, Run, Setting};

/// Kills at random moments while a region is being made.
pub(crate) const RUN: Run = Run {
    name: "create-spread",
    about: "kill creators at random moments, half of them at least before anybody sees the region",
    body: run,
    roles: &[],
};

/// Kills in the full size.
const KILLS: u64 = 1000;

/// Creations that are timed before.
const TIMED: usize = 9;

/// How far beyond the usual time the moments of killing reach at first, in hundredths of it.
const REACH: u64 = 130;

/// Columns of time.
const BUCKETS: u64 = 10;

/// One way of creating, and how long it takes here.
#[derive(Debug)]
struct Kind {
    scene: Scene,
    capacity: u64,
    /// From the release until opening begins, usually.
    start_ns: u64,
    /// From the release until there is a region, usually.
    end_ns: u64,
    /// How far the moments of killing reach now, in hundredths of the time that it takes.
    reach: u64,
    kills: u64,
    /// Kills after which there was no region yet.
    before: u64,
}

impl Kind {
    /// Times the creation of regions of `capacity` in `scene`.
    fn measure(crew: &mut Crew, scene: Scene, capacity: u64) -> Result<Self, Failure> {
        let mut times = Vec::new();
        for _ in 0..TIMED {
            let ground = Ground::new()?;
            scene.set(&ground, capacity)?;
            let mut opener = crew.start(Task { path: &ground.path(), capacity, policy: "open" })?;
            let released_ns = now_ns();
            opener.release()?;
            let opened = crew.opened(std::slice::from_ref(&opener))?[0];
            opener.dismiss()?;
            times.push((opened.started_ns - released_ns, opened.ended_ns - released_ns));
        }
        let start_ns = median(times.iter().map(|(start, _)| *start));
        let end_ns = median(times.iter().map(|(_, end)| *end));
        Ok(Self { scene, capacity, start_ns, end_ns, reach: REACH, kills: 0, before: 0 })
    }

    fn usual_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns).max(1)
    }

    /// The moment of the next kill, after the release.
    fn draw(&self, rng: &mut Rng) -> u64 {
        self.start_ns + rng.below(self.usual_ns() * self.reach / 100)
    }

    /// Brings the reach back where too many kills come too late or too early.
    fn learn(&mut self, is_before: bool) {
        self.kills += 1;
        self.before += u64::from(is_before);
        let share = self.before * 100 / self.kills;
        match share {
            0..65 => self.reach = (self.reach * 95 / 100).max(30),
            85.. => self.reach = (self.reach * 105 / 100).min(400),
            _ => {}
        }
    }

    /// The row of the histogram for a kill at `moment_ns`.
    fn row(&self, moment_ns: u64) -> String {
        let part = (moment_ns - self.start_ns) * BUCKETS / self.usual_ns();
        let path = self.scene.name();
        match part {
            BUCKETS.. => format!("{path}, later than usual"),
            part => format!("{path}, {part:>2}/{BUCKETS} of the time"),
        }
    }
}

fn median(numbers: impl Iterator<Item = u64>) -> u64 {
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort_unstable();
    numbers[numbers.len() / 2]
}

fn run(setting: &Setting) -> Result<Report, Failure> {
    let mut crew = Crew::new(setting)?;
    let mut rng = Rng::new(setting.seed);
    let mut kinds = Vec::new();
    for capacity in [1 << 16, 1 << 20, 1 << 22] {
        for scene in [Scene::Absent, Scene::Empty] {
            kinds.push(Kind::measure(&mut crew, scene, capacity)?);
        }
    }
    let (mut report, mut histogram) = (Report::new(), Histogram::default());
    let kills = setting.count(KILLS, 100);
    for number in 0..kills {
        let kind = &mut kinds[number as usize % 6];
        let moment_ns = kind.draw(&mut rng);
        let found = kill_at(&mut crew, kind, moment_ns)
            .map_err(|error| format!("kill {number}, {moment_ns} ns, {kind:?}: {error}"))?;
        histogram.add(kind.row(moment_ns), found.label(0));
        kind.learn(found.joinable().is_none());
    }
    report_kinds(&mut report, &kinds);
    histogram.report(&mut report);
    for found in ["absent", "empty", "state 1", "ready"] {
        report.count(&format!("kills that left it {found}"), histogram.in_column(found));
    }
    let before = kinds.iter().map(|kind| kind.before).sum();
    report.count("kills", kills);
    report.count("kills before publication", before);
    if before * 2 < kills {
        return Err(format!("too few kills before publication\n{report}").into());
    }
    Ok(report)
}

fn report_kinds(report: &mut Report, kinds: &[Kind]) {
    for kind in kinds {
        let name = format!("{}, rings of {} KiB", kind.scene.name(), kind.capacity >> 10);
        let (usual_us, kills, before) = (kind.usual_ns() / 1000, kind.kills, kind.before);
        let text = format!("made in {usual_us} us; killed {kills}, {before} before publication");
        report.note(&name, text);
    }
}

/// Kills a creator at a moment, and lets others race for what is left; gives what that was.
fn kill_at(crew: &mut Crew, kind: &Kind, moment_ns: u64) -> Result<Found, Failure> {
    let ground = Ground::new()?;
    kind.scene.set(&ground, kind.capacity)?;
    let path = ground.path();
    let task = Task { path: &path, capacity: kind.capacity, policy: "open" };
    let others = crew.start_many(task, OPENERS)?;
    let victim = crew.start(task)?;
    kill_after(victim, Duration::from_nanos(moment_ns))?;
    let found = Found::look_closely(&path)?;
    release_after(crew, &ground, others, (kind.scene, found, 0))?;
    ground.check_clean()?;
    Ok(found)
}

/// Releases the opener and kills it after `moment`.
fn kill_after(mut victim: Opener, moment: Duration) -> Result<(), Failure> {
    let released = Instant::now();
    victim.release()?;
    let asleep = moment.saturating_sub(Duration::from_micros(200));
    if !asleep.is_zero() {
        thread::sleep(asleep);
    }
    while released.elapsed() < moment {
        hint::spin_loop();
    }
    victim.kill()
}
