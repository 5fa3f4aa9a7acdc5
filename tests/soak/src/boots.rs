//! Containers that show boot ids of their own use one region in turns, in which no end has an owner.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tombolo::{EventsRegion, OpenOptions, TryRecvError};

use crate::creation::Ground;
use crate::{Failure, Report, Role, Run, Setting, required};

/// No message is lost between boot ids.
pub(crate) const RUN: Run = Run {
    name: "boots",
    about: "two containers with boot ids of their own pass 10,000 messages in turns: none is lost",
    body: run,
    roles: &[Role { name: "boots-turns", body: take_turns }],
};

const MESSAGES: u64 = 10_000;
/// Messages of a turn.
const OF_A_TURN: u64 = 5;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A container with one process in it.
struct Container {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Container {
    /// `None` if this user may not have one.
    fn start(setting: &Setting, directory: &Path, index: u8) -> Result<Option<Self>, Failure> {
        let id = directory.with_extension(format!("boot-{index}"));
        fs::write(&id, format!("{index:02x}010203-0405-0607-0809-0a0b0c0d0e0f\n"))?;
        let mount = format!("mount --bind {} {BOOT_ID} && exec \"$0\" \"$@\"", id.display());
        let unshare = || {
            let mut command = Command::new("unshare");
            if !rustix::process::geteuid().is_root() {
                command.args(["--user", "--map-root-user"]);
            }
            command.args(["--mount", "sh", "-c", &mount]);
            command
        };
        if !unshare().arg("true").status().is_ok_and(|status| status.success()) {
            return Ok(None);
        }
        let mut command = unshare();
        command.arg(&setting.program);
        command.args(["child", RUN.roles[0].name]).arg(directory).arg(index.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("no pipes".into());
        };
        let mut container = Self { child, input, output: BufReader::new(output) };
        let shown = container.hear()?;
        fs::remove_file(id)?;
        match shown.starts_with(&format!("{index:02x}010203")) {
            true => Ok(Some(container)),
            false => Err(format!("a container shows the boot id {shown:?}").into()),
        }
    }

    fn hear(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// Lets it have a turn.
    fn turn(&mut self) -> Result<(), Failure> {
        self.input.write_all(b"\n")?;
        match self.hear()?.as_str() {
            "done" => Ok(()),
            other => Err(format!("a container says {other:?}").into()),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

fn run(setting: &Setting) -> Result<Report, Failure> {
    let ground = Ground::new()?;
    let path = ground.path();
    let mut report = Report::new();
    let containers = [1, 2].map(|index| Container::start(setting, &path, index));
    let [one, other] = containers;
    let (Some(mut one), Some(mut other)) = (one?, other?) else {
        report.note("skipped", "this user may have no namespace of mounts");
        return Ok(report);
    };
    let turns = setting.count(MESSAGES, 100) / OF_A_TURN;
    for turn in 0..turns {
        let container = if turn % 2 == 0 { &mut one } else { &mut other };
        container.turn().map_err(|error| format!("turn {turn}: {error}"))?;
    }
    let region = EventsRegion::open_path(&path)?;
    if region.generation() != 1 {
        return Err(format!("the region is number {}", region.generation()).into());
    }
    report.count("turns, each in a region whose ends had no owner", turns);
    report.count("messages, all but the last turn's received", turns * OF_A_TURN);
    Ok(report)
}

/// Each line of the input is a turn: receives what the other has sent, and sends some more.
fn take_turns(arguments: &[String]) -> Result<(), Failure> {
    let (path, index): (PathBuf, u8) = (required(arguments, 0)?, required(arguments, 1)?);
    let mut output = io::stdout();
    write!(output, "{}", fs::read_to_string(BOOT_ID)?)?;
    let (mut sent, mut received) = (0u64, 0u64);
    for (turn, line) in (0u64..).zip(io::stdin().lines()) {
        line?;
        // The second has heard of the first's first turn.
        let wanted = OF_A_TURN * if index == 1 { turn } else { turn + 1 };
        take_turn(&path, index, &mut sent, &mut received)?;
        if received != wanted {
            return Err(format!("turn {turn}: received {received} messages of {wanted}").into());
        }
        output.write_all(b"done\n")?;
    }
    Ok(())
}

fn take_turn(path: &Path, index: u8, sent: &mut u64, received: &mut u64) -> Result<(), Failure> {
    let mut region = EventsRegion::open_path_with(path, OpenOptions::new())?;
    let (spsc, mpsc) = (region.split_spsc()?, region.split_mpsc()?);
    if index == 1 {
        return exchange(spsc.0, mpsc.1, sent, received);
    }
    exchange(mpsc.0, spsc.1, sent, received)
}

fn exchange<S: tombolo::ends::Topology, R: tombolo::ends::Topology>(
    mut tx: tombolo::Sender<S>,
    mut rx: tombolo::Receiver<R>,
    sent: &mut u64,
    received: &mut u64,
) -> Result<(), Failure> {
    loop {
        match rx.try_recv() {
            Ok(message) if message.data == received.to_le_bytes() => *received += 1,
            Ok(message) => return Err(format!("{message:?} after {received} messages").into()),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            Err(error) => return Err(error.into()),
        }
    }
    for _ in 0..OF_A_TURN {
        tx.send(&sent.to_le_bytes())?;
        *sent += 1;
    }
    Ok(())
}
