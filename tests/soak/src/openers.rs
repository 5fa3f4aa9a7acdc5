//! Many openers at once: one of them creates, all others join.

use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

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

/// Sizes of rings: made in no time, and long enough for all others to come meanwhile.
const KIBIBYTES: [u64; 2] = [64, 1024];

/// How long to wait for an opener's line: longer than any opener waits for another.
const LIMIT: Duration = Duration::from_secs(30);

/// The processes, which all read from one pipe and write to another.
#[derive(Debug)]
struct Crowd {
    children: Vec<Child>,
    /// A byte in it lets one thread open; its end lets all end.
    turnstile: Option<PipeWriter>,
    lines: Receiver<String>,
}

impl Crowd {
    /// Starts the processes, each of whose threads opens `path` for each byte that it gets.
    fn start(setting: &Setting, path: &Path) -> Result<Self, Failure> {
        let (input, turnstile) = pipe()?;
        let (output_end, output) = pipe()?;
        let (sender, lines) = channel();
        // Ends when all processes are gone.
        thread::spawn(move || {
            let mut lines = BufReader::new(output_end).lines().map_while(Result::ok);
            lines.all(|line| sender.send(line).is_ok())
        });
        let mut crowd = Self { children: Vec::new(), turnstile: Some(turnstile), lines };
        for _ in 0..PROCESSES {
            let child = spawn(setting, path, (&input, &output))?;
            crowd.children.push(child);
        }
        Ok(crowd)
    }

    /// Lets all open at once, with rings of `KIBIBYTES[size]`; gives what they got.
    fn open(&mut self, size: u8) -> Result<Vec<Opened>, Failure> {
        let turnstile = self.turnstile.as_mut().ok_or("the crowd has gone home")?;
        turnstile.write_all(&[size; PROCESSES * THREADS])?;
        let deadline = Instant::now() + LIMIT;
        (0..PROCESSES * THREADS)
            .map(|_| {
                let left = deadline.saturating_duration_since(Instant::now());
                let line = self.lines.recv_timeout(left);
                let line = line.map_err(|error| format!("an opener is silent: {error}"))?;
                line.parse().map_err(|_| line.into())
            })
            .collect()
    }

    /// Waits until all have ended well.
    fn finish(mut self) -> Result<(), Failure> {
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

/// What the rounds showed.
#[derive(Debug, Default)]
struct Tally {
    openings: u64,
    /// Openings under way before the region was there.
    early: u64,
    /// Most of them in a round.
    early_max: u64,
    /// Rounds in which there were any beside the creator's.
    contended: u64,
    absent: u64,
    in_place: u64,
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
    report.count("openers at once", (PROCESSES * THREADS) as u64);
    report.count("rounds, name absent", tally.absent);
    report.count("rounds, in place", tally.in_place);
    report.count("rounds with exactly one creator", rounds);
    report.count("openings", tally.openings);
    report.count("rounds in which others began before the region was there", tally.contended);
    report.count("openings begun before the region was there", tally.early);
    report.count("most of these in a round", tally.early_max);
    Ok(report)
}

fn play(crowd: &mut Crowd, ground: &Ground, tally: &mut Tally, round: u64) -> Result<(), Failure> {
    let path = ground.path();
    if round.is_multiple_of(2) {
        tally.absent += 1;
    } else {
        File::create_new(&path)?;
        tally.in_place += 1;
    }
    let opened = crowd.open((round / 2 % 2) as u8)?;
    let early = judge(&opened)?;
    check_sound(&path)?;
    ground.check_clean()?;
    std::fs::remove_file(&path)?;
    tally.openings += opened.len() as u64;
    tally.early += early;
    tally.early_max = tally.early_max.max(early);
    tally.contended += u64::from(early > 1);
    Ok(())
}

/// Fails unless one opener created what all have; gives how many had begun when it was done.
fn judge(opened: &[Opened]) -> Result<u64, Failure> {
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
        let opened = Opened::by(|| EventsRegion::open_path_with(path, options));
        let line = match &opened {
            Ok((_region, opened)) => format!("{opened}\n"),
            Err(error) => format!("refused: {error}\n"),
        };
        output.write_all(line.as_bytes())?;
    }
    Ok(())
}
