//! Many openers at once: one of them creates, all others join.
//!
//! That all of them are on their way before there is a region is not left to chance, which a busy machine
//! would not give: an empty file stands in their way, of which the run holds the lock of who initializes it,
//! until all have begun.

use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use tombolo::{EventsRegion, OpenOptions};

use crate::creation::{Ground, Opened, check_sound};
use crate::{Failure, Report, Role, Run, Setting, required};

/// 64 openers race for one name.
pub(crate) const RUN: Run = Run {
    name: "openers",
    about: "64 openers at once, 1000 times: each time one creates and the others join",
    body: run,
    roles: &[Role { name: "openers-threads", body: serve }],
};

/// Rounds in the full size.
const ROUNDS: u64 = 1000;

/// Processes, and threads of each.
const PROCESSES: usize = 8;
const THREADS: usize = 8;
pub(crate) const OPENERS: usize = PROCESSES * THREADS;

/// Sizes of both rings: made in no time; long enough for all others to come meanwhile; and such that two
/// regions are more than the file system of another run holds.
pub(crate) const KIBIBYTES: [u64; 3] = [64, 1024, 16 << 10];

/// How long an opener waits for another: a busy machine may let none of them run for long.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long to wait for an opener's line: longer than that.
const LIMIT: Duration = Duration::from_secs(90);

/// The line of an opener that begins.
const BEGUN: &str = "begun";

/// The processes, which all read from one pipe and write to another.
#[derive(Debug)]
pub(crate) struct Crowd {
    children: Vec<Child>,
    /// A byte in it lets one thread open; its end lets all end.
    turnstile: Option<PipeWriter>,
    lines: Receiver<String>,
    /// How many open in this round.
    count: usize,
    /// Openers that have begun and those that are done, in this round.
    begun: usize,
    opened: Vec<Opened>,
}

impl Crowd {
    /// Starts the processes, each of whose threads opens `path` for each byte that it gets.
    pub(crate) fn start(setting: &Setting, path: &Path) -> Result<Self, Failure> {
        let (input, turnstile) = pipe()?;
        let (output_end, output) = pipe()?;
        let (sender, lines) = channel();
        // Ends when all processes are gone.
        thread::spawn(move || {
            let mut lines = BufReader::new(output_end).lines().map_while(Result::ok);
            lines.all(|line| sender.send(line).is_ok())
        });
        let (children, turnstile) = (Vec::new(), Some(turnstile));
        let (count, begun, opened) = (0, 0, Vec::new());
        let mut crowd = Self { children, turnstile, lines, count, begun, opened };
        for _ in 0..PROCESSES {
            let child = spawn(setting, path, (&input, &output))?;
            crowd.children.push(child);
        }
        Ok(crowd)
    }

    /// Lets so many open at once, at most [`OPENERS`], with rings of `KIBIBYTES[size]`.
    pub(crate) fn open(&mut self, count: usize, size: u8) -> Result<(), Failure> {
        let turnstile = self.turnstile.as_mut().ok_or("the crowd has gone home")?;
        (self.count, self.begun) = (count, 0);
        Ok(turnstile.write_all(&vec![size; count])?)
    }

    /// Waits until all have begun.
    fn begun(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + LIMIT;
        while self.begun < self.count {
            self.hear(deadline)?;
        }
        Ok(())
    }

    /// Waits until all have the region; gives what they got.
    pub(crate) fn opened(&mut self) -> Result<Vec<Opened>, Failure> {
        let deadline = Instant::now() + LIMIT;
        while self.opened.len() < self.count {
            self.hear(deadline)?;
        }
        Ok(std::mem::take(&mut self.opened))
    }

    fn hear(&mut self, deadline: Instant) -> Result<(), Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = self.lines.recv_timeout(left);
        match line.map_err(|error| format!("an opener is silent: {error}"))?.as_str() {
            BEGUN => self.begun += 1,
            line => self.opened.push(line.parse().map_err(|_| line)?),
        }
        Ok(())
    }

    /// Waits until all have ended well.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.turnstile = None;
        let deadline = Instant::now() + LIMIT;
        for child in &mut self.children {
            let status = loop {
                match child.try_wait()? {
                    Some(status) => break status,
                    None if Instant::now() > deadline => return Err("a process stays".into()),
                    None => thread::sleep(Duration::from_millis(1)),
                }
            };
            if !status.success() {
                return Err(format!("openers ended with {status}").into());
            }
        }
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill(); // it may have ended
            let _ = child.wait();
        }
    }
}

fn spawn(
    setting: &Setting,
    path: &Path,
    (input, output): (&PipeReader, &PipeWriter),
) -> io::Result<Child> {
    let mut command = Command::new(&setting.program);
    command.arg("child").arg(RUN.roles[0].name).arg(path);
    command.stdin(input.try_clone()?).stdout(output.try_clone()?).spawn()
}

/// What the openers of a round find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    /// An empty file whose lock is given back when all have begun: one of them makes it a region.
    InPlace,
    /// One that is removed then: one of them makes a region and gives it the name.
    Removed,
    /// Nothing, and nothing holds them up: as many meet as the machine lets run.
    Absent,
}

impl Scene {
    fn of_round(round: u64) -> Self {
        [Self::InPlace, Self::Removed, Self::Absent][(round % 3) as usize]
    }

    /// Sets the scene; gives what holds the openers up.
    fn set(self, path: &Path) -> Result<Option<File>, Failure> {
        if self == Self::Absent {
            return Ok(None);
        }
        let file = File::create_new(path)?;
        rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)?; // all bytes
        Ok(Some(file))
    }

    /// Lets all go on that have begun.
    fn release(self, path: &Path, held: Option<File>) -> Result<(), Failure> {
        if self == Self::Removed {
            std::fs::remove_file(path)?;
        }
        drop(held);
        Ok(())
    }
}

/// What the rounds showed.
#[derive(Debug, Default)]
struct Tally {
    openings: u64,
    in_place: u64,
    removed: u64,
    absent: u64,
    /// Openings of the last kind that were under way before the region was there, most in a round.
    early_max: u64,
}

fn run(setting: &Setting) -> Result<Report, Failure> {
    let ground = Ground::new()?;
    let mut crowd = Crowd::start(setting, &ground.path())?;
    let mut tally = Tally::default();
    let rounds = setting.count(ROUNDS, 20);
    for round in 0..rounds {
        play(&mut crowd, &ground, &mut tally, round)
            .map_err(|error| format!("round {round}: {error}"))?;
    }
    crowd.finish()?;
    let mut report = Report::new();
    report.count("openers at once", OPENERS as u64);
    report.count("rounds, all begun before a file was made a region", tally.in_place);
    report.count("rounds, all begun before a region got the name", tally.removed);
    report.count("rounds, nothing there and nothing held up", tally.absent);
    report.note("most begun in one of these before the region was there", tally.early_max);
    report.count("rounds with exactly one creator", rounds);
    report.count("openings", tally.openings);
    Ok(report)
}

fn play(crowd: &mut Crowd, ground: &Ground, tally: &mut Tally, round: u64) -> Result<(), Failure> {
    let (path, scene) = (ground.path(), Scene::of_round(round));
    let held = scene.set(&path)?;
    crowd.open(OPENERS, (round % 2) as u8)?;
    if scene != Scene::Absent {
        crowd.begun()?; // and none is done, or it would not get past the lock
        if !crowd.opened.is_empty() {
            return Err(format!("opened past the lock: {:?}", crowd.opened).into());
        }
    }
    scene.release(&path, held)?;
    let opened = crowd.opened()?;
    let early = judge(&opened)?;
    check_sound(&path)?;
    ground.check_clean()?;
    std::fs::remove_file(&path)?;
    tally.openings += opened.len() as u64;
    match scene {
        Scene::InPlace => tally.in_place += 1,
        Scene::Removed => tally.removed += 1,
        Scene::Absent => {
            tally.absent += 1;
            tally.early_max = tally.early_max.max(early);
        }
    }
    Ok(())
}

/// Fails unless one opener created what all have; gives how many had begun when it was done.
pub(crate) fn judge(opened: &[Opened]) -> Result<u64, Failure> {
    let creators: Vec<_> = opened.iter().filter(|one| one.creator).collect();
    let [creator] = creators[..] else {
        return Err(format!("{} creators", creators.len()).into());
    };
    let same = |one: &Opened| (one.uuid, one.generation) == (creator.uuid, 1);
    if let Some(other) = opened.iter().find(|one| !same(one)) {
        return Err(format!("{other:?} is not of {creator:?}").into());
    }
    let early = opened.iter().filter(|one| one.started_ns < creator.ended_ns);
    Ok(early.count() as u64)
}

fn serve(arguments: &[String]) -> Result<(), Failure> {
    let path: PathBuf = required(arguments, 0)?;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| serve_one(&path))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
    })
}

/// Opens once for each byte that it gets.
fn serve_one(path: &Path) -> Result<(), Failure> {
    // Not through the standard library's, which would read ahead of the other threads.
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut output = io::stdout();
    let mut byte = [0];
    while input.read(&mut byte)? > 0 {
        let capacity = KIBIBYTES[usize::from(byte[0])] << 10;
        let options = OpenOptions::new().spsc_capacity(capacity).mpsc_capacity(capacity);
        let options = options.join_timeout(PATIENCE);
        output.write_all(format!("{BEGUN}\n").as_bytes())?;
        let opened = Opened::by(|| EventsRegion::open_path_with(path, options));
        let line = match &opened {
            Ok((_region, opened)) => format!("{opened}\n"),
            Err(error) => format!("refused: {error}\n"),
        };
        output.write_all(line.as_bytes())?;
    }
    Ok(())
}
