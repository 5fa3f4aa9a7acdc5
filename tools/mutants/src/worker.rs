//! Running tests in a process, and ending what they leave behind.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::Failure;
use crate::tree::Binary;

/// Private memory that a process may have.
const DATA_KIB_MAX: u64 = 6 << 20;

/// How a run of tests ended.
#[derive(Debug, PartialEq)]
pub(crate) enum Ended {
    Well,
    /// These failed; none is named if the program died.
    Failed(Vec<String>),
    TimedOut,
}

/// One of those who run tests at the same time.
pub(crate) struct Worker {
    pub(crate) number: usize,
    directory: PathBuf,
}

impl Worker {
    pub(crate) fn new(number: usize) -> Result<Self, Failure> {
        // Other runs may have the same process id, each in a namespace of its own.
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let name = format!("tombolo-mutants-{}-{since_1970:x}-{number}", std::process::id());
        let worker = Self { number, directory: std::env::temp_dir().join(name) };
        worker.tidy()?;
        Ok(worker)
    }

    /// Removes what tests have left behind.
    fn tidy(&self) -> Result<(), Failure> {
        let _ = fs::remove_dir_all(&self.directory);
        fs::create_dir_all(&self.directory)?;
        Ok(fs::set_permissions(&self.directory, fs::Permissions::from_mode(0o1777))?)
    }

    /// Runs tests of one binary; gives how they ended, and after how many seconds.
    pub(crate) fn run(
        &self,
        binary: &Binary,
        names: &[&str],
        variable: (&str, &str),
        patience: Duration,
    ) -> Result<(Ended, f64), Failure> {
        let output = self.directory.join("output");
        let limited = format!("ulimit -d {DATA_KIB_MAX}; exec \"$0\" \"$@\"");
        let start = Instant::now();
        let mut child = Command::new("sh")
            .args(["-c", &limited])
            .arg(&binary.path)
            .arg("--exact")
            .args(names)
            .current_dir(&binary.directory)
            .env("TMPDIR", &self.directory)
            .env("TOMBOLO_MUTANT_WORKER", &self.directory)
            .env(variable.0, variable.1)
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if start.elapsed() > patience {
                break None;
            }
            std::thread::sleep((start.elapsed() / 8).min(Duration::from_millis(20)));
        };
        let seconds = start.elapsed().as_secs_f64();
        self.end_all(child.id());
        let ended = match status {
            None => {
                child.wait()?;
                Ended::TimedOut
            }
            Some(status) if status.success() => Ended::Well,
            Some(_) => {
                let text = String::from_utf8_lossy(&fs::read(&output)?).into_owned();
                let failed = |name: &&&str| text.contains(&format!("test {name} ... FAILED"));
                Ended::Failed(names.iter().filter(failed).map(|name| (*name).to_owned()).collect())
            }
        };
        self.tidy()?;
        Ok((ended, seconds))
    }

    /// Ends what tests have started and not ended: the group, and what left it.
    fn end_all(&self, group: u32) {
        let mut ids = vec![format!("-{group}")];
        let mark = format!("TOMBOLO_MUTANT_WORKER={}", self.directory.display());
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let is_ours = environment.split(|byte| *byte == 0).any(|one| one == mark.as_bytes());
            if is_ours && name.bytes().all(|byte| byte.is_ascii_digit()) {
                ids.push(name);
            }
        }
        let mut kill = Command::new("kill");
        let _ = kill.args(["-KILL", "--"]).args(ids).stderr(Stdio::null()).status();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Lets all workers do `work` at the same time.
pub(crate) fn all(
    workers: &[Worker],
    work: impl Fn(&Worker) -> Result<(), String> + Sync,
) -> Result<(), Failure> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers.iter().map(|worker| scope.spawn(|| work(worker))).collect();
        for thread in threads {
            thread.join().map_err(|_| "a worker panicked")??;
        }
        Ok(())
    })
}
