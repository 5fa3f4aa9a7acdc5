//! The program `examples/collector.rs` under kills: each line of a send that returned is in the file once.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Failure, Report, Rng, Run, Setting, scratch};

/// Writers and a collector are killed and come back.
pub(crate) const RUN: Run = Run {
    name: "collector",
    about: "8 writers and a collector (examples/collector.rs), 200 kills, Ctrl-C: each line once",
    body: run,
    roles: &[],
};

const KILLS: u64 = 200;
const WRITERS: usize = 8;

/// How soon each process ends after Ctrl-C.
const SOON: Duration = Duration::from_secs(2);

/// A process of the example.
#[derive(Debug)]
struct Part {
    child: Child,
    label: String,
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// All of them.
#[derive(Debug)]
struct Bench {
    program: PathBuf,
    directory: PathBuf,
    /// Writers, and the collector last.
    parts: Vec<Part>,
    lives: u64,
    /// Lines that each life of a writer said to have sent.
    sent: HashMap<String, Arc<AtomicU64>>,
    readers: Vec<JoinHandle<()>>,
}

impl Bench {
    fn new(setting: &Setting, directory: &Path) -> Result<Self, Failure> {
        let program = setting.program.with_file_name("examples").join("collector");
        if !program.exists() {
            let program = program.display();
            return Err(format!("no {program}: cargo build [--release] --example collector").into());
        }
        let (directory, sent, readers) = (directory.to_owned(), HashMap::new(), Vec::new());
        let mut bench = Self { program, directory, parts: Vec::new(), lives: 0, sent, readers };
        for index in 0..=WRITERS {
            let part = bench.start(index)?;
            bench.parts.push(part);
        }
        Ok(bench)
    }

    fn file(&self) -> PathBuf {
        self.directory.join("lines")
    }

    fn start(&mut self, index: usize) -> Result<Part, Failure> {
        let mut command = Command::new(&self.program);
        command.env("TOMBOLO_DIR", &self.directory).stderr(Stdio::null());
        if index == WRITERS {
            // It ends by Ctrl-C alone.
            command.arg("collect").arg(self.file()).arg("1000000000").stdin(Stdio::null());
            return Ok(Part { child: command.spawn()?, label: "the collector".to_owned() });
        }
        self.lives += 1;
        let label = format!("w{}", self.lives);
        command.args(["write", &label]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (Some(mut input), Some(output)) = (input, output) else {
            return Err("no pipes".into());
        };
        let sent = self.sent.entry(label.clone()).or_default().clone();
        // Both end with the writer.
        thread::spawn(move || {
            for number in 0u64.. {
                if writeln!(input, "{number}").is_err() {
                    return;
                }
                thread::sleep(Duration::from_micros(200));
            }
        });
        self.readers.push(thread::spawn(move || {
            for _ in BufReader::new(output).lines().map_while(Result::ok) {
                sent.fetch_add(1, Relaxed);
            }
        }));
        Ok(Part { child, label })
    }

    /// Kills one of them, and starts it again.
    fn kill(&mut self, index: usize) -> Result<(), Failure> {
        let part = self.parts.get_mut(index).ok_or("no such part")?;
        part.child.kill()?;
        let status = part.child.wait()?;
        if status.code().is_some() {
            return Err(format!("{:?} had ended by itself with {status}", part.label).into());
        }
        self.parts[index] = self.start(index)?;
        Ok(())
    }

    /// Waits until all have something to do: before that, Ctrl-C would end them as it ends any program.
    fn settle(&self) -> Result<(), Failure> {
        let len = || std::fs::metadata(self.file()).map(|file| file.len());
        let (before, deadline) = (len()?, Instant::now() + Duration::from_secs(30));
        let has_sent = |part: &Part| self.sent[&part.label].load(Relaxed) > 0;
        while !self.parts[..WRITERS].iter().all(has_sent) || len()? == before {
            if Instant::now() > deadline {
                return Err("a part does nothing".into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Presses Ctrl-C for all; gives how long the last of them took to end.
    fn end(&mut self) -> Result<Duration, Failure> {
        let started = Instant::now();
        for part in &self.parts {
            let pid = Pid::from_raw(part.child.id() as i32).ok_or("a process without a number")?;
            kill_process(pid, Signal::INT)?;
        }
        for part in &mut self.parts {
            let status = loop {
                match part.child.try_wait()? {
                    Some(status) => break status,
                    None if started.elapsed() > SOON => {
                        return Err(format!("{:?} has not ended", part.label).into());
                    }
                    None => thread::sleep(Duration::from_millis(1)),
                }
            };
            if !status.success() {
                return Err(format!("{:?} ended with {status}", part.label).into());
            }
        }
        Ok(started.elapsed())
    }

    /// Judges the file: of each life of a writer the lines from 0 on, once, in order, and at least those
    /// that it said to have sent. Gives how many lines there are.
    fn judge(&mut self) -> Result<u64, Failure> {
        for reader in self.readers.drain(..) {
            reader.join().map_err(|_| "a thread panicked")?;
        }
        let mut next: HashMap<String, u64> = HashMap::new();
        for line in BufReader::new(std::fs::File::open(self.file())?).lines() {
            let line = line?;
            let words: Vec<_> = line.split(' ').collect();
            let [_, _, _, label, number] = words[..] else {
                return Err(format!("{line:?}").into());
            };
            let next = next.entry(label.to_owned()).or_default();
            if number.parse() != Ok(*next) {
                return Err(format!("line {number} of {label} in the place of {next}").into());
            }
            *next += 1;
        }
        for (label, sent) in &self.sent {
            let (sent, found) = (sent.load(Relaxed), next.get(label).copied().unwrap_or(0));
            if found < sent {
                return Err(format!("{label} has sent {sent} lines, {found} are there").into());
            }
        }
        Ok(next.values().sum())
    }
}

fn run(setting: &Setting) -> Result<Report, Failure> {
    let directory = scratch()?;
    let mut bench = Bench::new(setting, directory.path())?;
    let mut rng = Rng::new(setting.seed);
    let (mut writers, mut collectors) = (0, 0);
    for kill in 0..setting.count(KILLS, 8) {
        thread::sleep(Duration::from_micros(1000 + rng.below(40_000)));
        // Each second time the collector: of nine parts it does most.
        let index = if kill % 2 == 0 { WRITERS } else { rng.below(WRITERS as u64) as usize };
        bench.kill(index)?;
        *(if index == WRITERS { &mut collectors } else { &mut writers }) += 1;
    }
    bench.settle()?;
    let took = bench.end()?;
    let lines = bench.judge()?;
    let mut report = Report::new();
    report.count("writers killed", writers);
    report.count("collectors killed", collectors);
    report.count("lines, each there once and in its writer's order", lines);
    report.count(
        "lines of sends that had returned",
        bench.sent.values().map(|sent| sent.load(Relaxed)).sum(),
    );
    report.note("longest from Ctrl-C to the end of a process", format!("{took:.1?}"));
    Ok(report)
}
