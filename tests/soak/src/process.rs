//! Child processes of a run.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};
use tempfile::TempDir;

use crate::{Failure, Setting};

/// A directory for the files of a run, removed when dropped.
///
/// # Errors
/// Where none can be made.
pub fn scratch() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("soak-").tempdir()
}

/// Lets no core be dumped of this process: the kernel would take its time over it.
///
/// # Errors
/// The system's refusal.
pub(crate) fn leave_no_core() -> io::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    Ok(setrlimit(Resource::Core, none)?)
}

/// A child process; killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    role: String,
}

impl Process {
    /// Starts the program of `setting` as `role` with `arguments`.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(setting: &Setting, role: &str, arguments: &[&str]) -> Result<Self, Failure> {
        Self::start_with(setting, role, arguments, &[])
    }

    /// As [`Self::start`], with environment variables.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start_with(
        setting: &Setting,
        role: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Self, Failure> {
        let mut command = Command::new(&setting.program);
        command.envs(variables.iter().copied());
        Self::spawn(command, role, arguments)
    }

    /// As [`Self::start`], by the program `wrapper[0]`, which takes ours for the last of its own
    /// arguments. It is the wrapper that is killed, and the child with it.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start_under(
        setting: &Setting,
        wrapper: &[&str],
        role: &str,
        arguments: &[&str],
    ) -> Result<Self, Failure> {
        let (first, rest) = wrapper.split_first().ok_or("no wrapper")?;
        let mut command = Command::new(first);
        command.args(rest).arg(&setting.program);
        Self::spawn(command, role, arguments)
    }

    fn spawn(mut command: Command, role: &str, arguments: &[&str]) -> Result<Self, Failure> {
        command.arg("child").arg(role).args(arguments).stdin(Stdio::null());
        let program = command.get_program().to_owned();
        let child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
        Ok(Self { child, role: role.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn is_running(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Kills it with SIGKILL and reaps it. Gives whether that killed it: `false` where it had ended
    /// before.
    ///
    /// # Errors
    /// Where it had ended by itself and not well.
    pub fn kill(mut self) -> Result<bool, Failure> {
        self.child.kill()?;
        let status = self.child.wait()?;
        if status.signal() == Some(9) {
            return Ok(true);
        }
        self.judge(status).map(|()| false)
    }

    /// Sends it SIGKILL, and doesn't wait for its end. It has not been waited for.
    ///
    /// # Errors
    /// The system's refusal.
    pub(crate) fn kill_now(&mut self) -> Result<(), Failure> {
        Ok(self.child.kill()?)
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// Where it did not end well, or not before `limit` was over; then it is killed.
    pub fn finish(mut self, limit: Duration) -> Result<(), Failure> {
        let status = self.wait(limit)?;
        self.judge(status)
    }

    /// Waits until it has ended somehow.
    ///
    /// # Errors
    /// Where it did not end before `limit` was over.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, Failure> {
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_micros(100);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(format!("{} did not end in {limit:?}", self.role).into());
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    fn judge(&self, status: ExitStatus) -> Result<(), Failure> {
        if status.success() {
            return Ok(());
        }
        Err(format!("{} ended with {status}", self.role).into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}
