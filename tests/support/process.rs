//! A process of its own for a part of a test: this very program, told what to be.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

const ROLE: &str = "TOMBOLO_TEST_ROLE";
const PATH: &str = "TOMBOLO_TEST_PATH";

/// A child that ends with the test, by SIGKILL if it has not ended before.
pub(crate) struct Peer {
    child: Child,
}

/// What this process was told to be, and the region to be it on.
pub(crate) fn role() -> Option<(String, PathBuf)> {
    Some((std::env::var(ROLE).ok()?, std::env::var_os(PATH)?.into()))
}

/// Says to the parent that it has come this far.
pub(crate) fn report(line: &str) {
    println!("\npeer: {line}");
    std::io::stdout().flush().unwrap();
}

/// The next thing that the parent tells; none once it has let go, or is gone.
pub(crate) fn hear() -> Option<String> {
    std::io::stdin().lines().next()?.ok()
}

/// Waits until the parent lets go, or is gone.
pub(crate) fn wait_for_parent() {
    let _ = std::io::stdin().read(&mut [0]);
}

/// The program of an example, which a run of all tests has made.
pub(crate) fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(program.exists(), "a part of the tests alone has no examples: cargo build --examples");
    program
}

/// The test `entry` of this program as `role` on `path`, to be started.
pub(crate) fn command(entry: &str, role: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([entry, "--exact", "--nocapture"]).env(ROLE, role).env(PATH, path);
    command
}

/// `own`, started by the last of what `wrapper` runs.
pub(crate) fn behind(mut wrapper: Command, own: &Command) -> Command {
    wrapper.arg(own.get_program()).args(own.get_args());
    wrapper.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    wrapper
}

impl Peer {
    /// Starts the test `entry` of this program as `role`, and waits until it has reported `ready`.
    pub(crate) fn start(entry: &str, role: &str, path: &Path) -> Self {
        let mut peer = Self::start_without_waiting(entry, role, path);
        assert_eq!(peer.next_report(), "ready");
        peer
    }

    /// As [`Self::start`], of one that reports something else first.
    pub(crate) fn start_without_waiting(entry: &str, role: &str, path: &Path) -> Self {
        Self::spawn(command(entry, role, path))
    }

    /// Starts what [`command`] has made, without waiting.
    pub(crate) fn spawn(mut command: Command) -> Self {
        Self { child: command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Says something to it.
    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The next thing that it reported; empty once it is gone.
    pub(crate) fn next_report(&mut self) -> String {
        let stdout = self.child.stdout.as_mut().unwrap();
        // Byte by byte: what is read ahead here would be lost for the next call.
        let lines = BufReader::with_capacity(1, stdout).lines().map_while(Result::ok);
        let mut reports = lines.filter_map(|line| Some(line.strip_prefix("peer: ")?.to_owned()));
        reports.next().unwrap_or_default()
    }

    /// Ends it where it is.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it where it is, and leaves its children what they have of it, until this is dropped.
    pub(crate) fn kill_alone(&self) {
        let pid = Pid::from_raw(self.pid() as i32).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT; // it stays to be waited for
        waitid(WaitId::Pid(pid), options).unwrap();
    }

    /// Lets it go on.
    pub(crate) fn let_go(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Lets it go on to its end.
    pub(crate) fn finish(mut self) {
        self.let_go();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
