//! The openers of a round, as the run sees them.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, PipeWriter, Write, pipe};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::opener::{Opened, Part, ROLE};
use crate::{Failure, Setting};

/// How long to wait for a line, or for an end: longer than any opener waits for another.
const LIMIT: Duration = Duration::from_secs(30);

/// Where openers come from, and where their lines arrive.
#[derive(Debug)]
pub(super) struct Crew {
    program: PathBuf,
    /// The number of the next opener.
    next: u64,
    /// What openers write to.
    output: PipeWriter,
    lines: Receiver<String>,
    /// Lines of openers that nobody asked for yet, in the order in which they came.
    early: HashMap<u64, Vec<String>>,
}

/// What an opener is told when it is started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task<'a> {
    /// The region's file.
    pub(super) path: &'a Path,
    /// Bytes of each of its rings.
    pub(super) capacity: u64,
    /// `"open"`, or `"new"` to replace what is there.
    pub(super) policy: &'static str,
}

impl Crew {
    /// A crew without openers.
    pub(super) fn new(setting: &Setting) -> Result<Self, Failure> {
        let (input, output) = pipe()?;
        let (sender, lines) = channel();
        // Ends when the crew and all openers are gone.
        thread::spawn(move || {
            let mut lines = BufReader::new(input).lines().map_while(Result::ok);
            lines.all(|line| sender.send(line).is_ok())
        });
        Ok(Self { program: setting.program.clone(), next: 0, output, lines, early: HashMap::new() })
    }

    /// Starts an opener and waits until it is ready to be released.
    pub(super) fn start(&mut self, task: Task<'_>) -> Result<Opener, Failure> {
        Ok(self.start_many(task, 1)?.remove(0))
    }

    /// Starts `count` openers and waits until they are ready to be released.
    pub(super) fn start_many(
        &mut self,
        task: Task<'_>,
        count: usize,
    ) -> Result<Vec<Opener>, Failure> {
        let openers: Vec<_> = (0..count).map(|_| self.spawn(task)).collect::<Result<_, _>>()?;
        openers.iter().try_for_each(|opener| self.hear(opener, "ready").map(drop))?;
        Ok(openers)
    }

    fn spawn(&mut self, task: Task<'_>) -> Result<Opener, Failure> {
        let number = self.next;
        self.next += 1;
        let mut command = Command::new(&self.program);
        command.arg("child").arg(ROLE.name).arg(number.to_string()).arg(task.path);
        command.arg(task.capacity.to_string()).arg(task.policy);
        let child = command.stdin(Stdio::piped()).stdout(self.output.try_clone()?).spawn()?;
        Ok(Opener::new(number, child))
    }

    /// Waits until each of the openers has its region.
    pub(super) fn opened(&mut self, openers: &[Opener]) -> Result<Vec<Opened>, Failure> {
        openers.iter().map(|opener| self.hear(opener, "opened")?.parse()).collect()
    }

    /// Lets the openers, all of which have the region, pass messages around in it.
    pub(super) fn use_region(&mut self, openers: &mut [Opener]) -> Result<(), Failure> {
        let producers = openers.len() as u8 - 2;
        let first = [Part::Leads(producers), Part::Receives];
        let parts = first.into_iter().chain(std::iter::repeat(Part::Produces));
        for (opener, part) in openers.iter_mut().zip(parts) {
            opener.tell(part.byte())?;
        }
        openers.iter().try_for_each(|opener| self.hear(opener, "used").map(drop))
    }

    /// Waits for the opener's next line, which must start with `word`; gives the rest of it.
    fn hear(&mut self, opener: &Opener, word: &str) -> Result<String, Failure> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(lines) = self.early.get_mut(&opener.number)
                && !lines.is_empty()
            {
                let line = lines.remove(0);
                let rest = line.strip_prefix(word).map(|rest| rest.trim_start().to_owned());
                return rest.ok_or_else(|| format!("wanted {word:?}, an opener {line}").into());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.map_err(|error| format!("no {word:?} of an opener: {error}"))?;
            let (number, text) = line.split_once(' ').ok_or("a line without a number")?;
            self.early.entry(number.parse()?).or_default().push(text.to_owned());
        }
    }
}

/// One opener; killed and reaped when dropped.
#[derive(Debug)]
pub(super) struct Opener {
    number: u64,
    child: Child,
    /// `None` once it was told to end.
    input: Option<ChildStdin>,
}

impl Opener {
    fn new(number: u64, mut child: Child) -> Self {
        let input = child.stdin.take();
        Self { number, child, input }
    }

    /// Its process.
    pub(super) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Lets it open.
    pub(super) fn release(&mut self) -> Result<(), Failure> {
        self.tell(b'o')
    }

    fn tell(&mut self, byte: u8) -> Result<(), Failure> {
        let input = self.input.as_mut().ok_or("it was told to end before")?;
        Ok(input.write_all(&[byte])?)
    }

    /// Kills it and waits until nothing of it is left.
    pub(super) fn kill(mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.wait().map(drop)
    }

    /// Tells it to end and waits until it has, well.
    pub(super) fn dismiss(mut self) -> Result<(), Failure> {
        self.input = None;
        let status = self.wait()?;
        if status.success() { Ok(()) } else { Err(format!("an opener ended with {status}").into()) }
    }

    fn wait(&mut self) -> Result<ExitStatus, Failure> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if started.elapsed() > LIMIT {
                return Err(format!("an opener did not end in {LIMIT:?}").into());
            }
            thread::sleep(Duration::from_micros(50));
        }
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}
