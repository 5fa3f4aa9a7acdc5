//! The children of one cell, seen from the parent.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::actor::{Order, Percentiles, Role, Side};
use crate::system::Failure;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A child process. It is killed with the value.
#[derive(Debug)]
struct Member {
    child: Child,
    orders: ChildStdin,
    answers: ChildStdout,
    /// What was read and not yet taken.
    text: String,
}

impl Member {
    fn start(role: &Role) -> Result<Self, Failure> {
        let side = role.side.to_possible_value().ok_or("a side without a name")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("child").args(["--system", &role.system]).args(["--test", &role.test.name()]);
        command.args(["--size", &role.size.to_string()]).args(["--side", side.get_name()]);
        command.args(["--producers", &role.producers.to_string()]);
        command.args(["--index", &role.index.to_string()]).args(["--unique", &role.unique]);
        command.args(["--cpu", &role.cpu.to_string()]);
        command.args(["--other-cpu", &role.other_cpu.to_string()]);
        command.arg("--directory").arg(Path::new(&role.directory));
        if role.crowded {
            command.arg("--crowded");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take().ok_or("no pipe to the child")?;
        let answers = child.stdout.take().ok_or("no pipe from the child")?;
        Ok(Self { child, orders, answers, text: String::new() })
    }

    fn tell(&mut self, line: &str) -> Result<(), Failure> {
        Ok(writeln!(self.orders, "{line}")?)
    }

    /// The next line, if it has been read.
    fn next_line(&mut self) -> Option<String> {
        let end = self.text.find('\n')?;
        let rest = self.text.split_off(end + 1);
        let line = std::mem::replace(&mut self.text, rest);
        Some(line.trim_end().to_owned())
    }

    fn read(&mut self) -> Result<(), Failure> {
        let mut bytes = [0; 512];
        match self.answers.read(&mut bytes)? {
            0 => Err("a child process ended".into()),
            len => {
                self.text.push_str(&String::from_utf8_lossy(&bytes[..len]));
                Ok(())
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.child.kill().ok(); // it may be waiting for a side that failed
        self.child.wait().ok();
    }
}

/// What came out of one order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    /// Nanoseconds a message, or a round; 0 for a check.
    pub(crate) ns: f64,
    /// Whether something else was given the processor of one of them meanwhile.
    pub(crate) was_disturbed: bool,
}

/// All children of a cell: whoever follows first, then whoever leads.
#[derive(Debug)]
pub(crate) struct Crew {
    members: Vec<Member>,
    followers: usize,
}

impl Crew {
    /// Starts them and waits until their ends are open.
    pub(crate) fn start(roles: &[Role]) -> Result<Self, Failure> {
        let members: Result<Vec<_>, _> = roles.iter().map(Member::start).collect();
        let followers = roles.iter().filter(|role| role.side == Side::Follow).count();
        let mut crew = Self { members: members?, followers };
        let all = 0..crew.members.len();
        crew.answers(all, "open")?;
        Ok(crew)
    }

    /// Has them do it.
    pub(crate) fn obey(&mut self, order: Order) -> Result<Turn, Failure> {
        let line = match order {
            Order::Check { count } => format!("check {count}"),
            Order::Run { count, samples } => format!("run {count} {samples}"),
        };
        let (followers, all) = (0..self.followers, 0..self.members.len());
        for member in &mut self.members[followers.clone()] {
            member.tell(&line)?;
        }
        self.answers(followers, "ready")?; // they are looking by now
        for member in &mut self.members[self.followers..] {
            member.tell(&line)?;
        }
        let done = self.answers(all, "done")?;
        let words = || done.iter().filter_map(|line| line.split_once(' '));
        let ns = words().find_map(|(ns, _)| ns.parse().ok()).unwrap_or_default();
        Ok(Turn { ns, was_disturbed: words().any(|(_, evictions)| evictions != "0") })
    }

    /// Of the rounds that were timed one by one, if this cell does that.
    pub(crate) fn percentiles(&mut self) -> Result<Option<Percentiles>, Failure> {
        let last = self.members.len() - 1; // whoever leads
        self.members[last].tell("report")?;
        let answers = self.answers(last..last + 1, "percentiles")?;
        let numbers: Result<Vec<f64>, _> = answers[0].split_whitespace().map(str::parse).collect();
        Ok(<[f64; 3]>::try_from(numbers?).ok())
    }

    /// One line of each of these members, which must begin with `word`; gives what is behind it.
    fn answers(
        &mut self,
        range: std::ops::Range<usize>,
        word: &str,
    ) -> Result<Vec<String>, Failure> {
        let deadline = Instant::now() + PATIENCE;
        let mut found = vec![None; range.len()];
        loop {
            for (member, found) in self.members[range.clone()].iter_mut().zip(&mut found) {
                if found.is_none() {
                    *found = member.next_line();
                }
            }
            if let Some(line) = found.iter().flatten().find(|line| !line.starts_with(word)) {
                return Err(line.strip_prefix("failed ").unwrap_or(line).into());
            }
            if found.iter().all(Option::is_some) {
                let behind = |line: String| line[word.len()..].trim().to_owned();
                return Ok(found.into_iter().flatten().map(behind).collect());
            }
            self.read_some(deadline)?;
        }
    }

    /// Waits until anybody says something: a side that fails also ends the wait for the others.
    fn read_some(&mut self, deadline: Instant) -> Result<(), Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let events: Vec<PollFlags> = {
            let watch = |member| PollFd::new(member, PollFlags::IN);
            let mut fds: Vec<_> = self.members.iter().map(|m| watch(&m.answers)).collect();
            if poll(&mut fds, Some(&timeout))? == 0 {
                return Err(format!("no answer within {} s", PATIENCE.as_secs()).into());
            }
            fds.iter().map(PollFd::revents).collect()
        };
        for (member, events) in self.members.iter_mut().zip(events) {
            if !events.is_empty() {
                member.read()?;
                if let Some(why) = member.text.lines().find_map(|l| l.strip_prefix("failed ")) {
                    return Err(why.into());
                }
            }
        }
        Ok(())
    }
}
