//! The tests: which there are, how long each takes, and which mutants it comes to.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::tree::{Binary, Built};

/// How long a test may take when no mutant is on.
const PATIENCE: Duration = Duration::from_secs(900);
/// Private memory that a process may have.
const DATA_KIB_MAX: u64 = 6 << 20;

/// A test, and what was seen when no mutant was on.
#[derive(Debug)]
pub(crate) struct Test {
    /// Its place among the binaries.
    pub(crate) binary: usize,
    pub(crate) name: String,
    pub(crate) seconds: f64,
    pub(crate) passed: bool,
    /// The mutants that it came to.
    pub(crate) ids: BTreeSet<u32>,
}

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
    number: usize,
    directory: PathBuf,
}

impl Worker {
    pub(crate) fn new(number: usize) -> Result<Self, Failure> {
        let name = format!("tombolo-mutants-{}-{number}", std::process::id());
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
            .env("TOMBOLO_MUTANT_WORKER", self.number.to_string())
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
        let mark = format!("TOMBOLO_MUTANT_WORKER={}", self.number);
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

/// All tests, from what an earlier run wrote if the tree is the same.
pub(crate) fn recorded(
    built: &Built,
    mutants: usize,
    work: &Path,
    workers: &[Worker],
) -> Result<Vec<Test>, Failure> {
    let path = work.join("tests.txt");
    if let Some(tests) = read(&path, built) {
        return Ok(tests);
    }
    let mut names = Vec::new();
    for (index, binary) in built.binaries.iter().enumerate() {
        let ignored: HashSet<_> = list(binary, &["--ignored"])?.into_iter().collect();
        let all = list(binary, &[])?.into_iter().filter(|name| !ignored.contains(name));
        names.extend(all.map(|name| (index, name)));
    }
    println!("mutants: {} tests are run with no mutant on", names.len());
    let next = AtomicUsize::new(0);
    let record = |worker: &Worker| -> Result<Vec<Test>, String> {
        let mut tests = Vec::new();
        while let Some((binary, name)) = names.get(next.fetch_add(1, Relaxed)) {
            let one = &built.binaries[*binary];
            let test = record_one(worker, one, *binary, name, mutants, work);
            tests.push(test.map_err(|error| error.to_string())?);
        }
        Ok(tests)
    };
    let mut tests = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers.iter().map(|worker| scope.spawn(|| record(worker))).collect();
        for thread in threads {
            tests.extend(thread.join().map_err(|_| "a worker panicked")??);
        }
        Ok::<(), Failure>(())
    })?;
    write(&path, built, &tests)?;
    Ok(tests)
}

fn list(binary: &Binary, more: &[&str]) -> Result<Vec<String>, Failure> {
    let mut command = Command::new(&binary.path);
    let output = command.args(["--list", "--format", "terse"]).args(more).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

fn record_one(
    worker: &Worker,
    binary: &Binary,
    index: usize,
    name: &str,
    mutants: usize,
    work: &Path,
) -> Result<Test, Failure> {
    let hits = work.join(format!("hits-{}", worker.number));
    fs::write(&hits, vec![0; mutants + 1])?;
    fs::set_permissions(&hits, fs::Permissions::from_mode(0o666))?;
    let variable = ("TOMBOLO_MUTANT_HITS", hits.to_str().ok_or("a path that is no text")?);
    let (ended, seconds) = worker.run(binary, &[name], variable, PATIENCE)?;
    let bytes = fs::read(&hits)?;
    let ids = (0..).zip(bytes).filter(|(_, byte)| *byte != 0).map(|(id, _)| id).collect();
    fs::remove_file(hits)?;
    let passed = ended == Ended::Well;
    Ok(Test { binary: index, name: name.to_owned(), seconds, passed, ids })
}

fn write(path: &Path, built: &Built, tests: &[Test]) -> Result<(), Failure> {
    let mut file = File::create(path)?;
    writeln!(file, "{}", built.stamp)?;
    for test in tests {
        let ids: Vec<_> = test.ids.iter().map(u32::to_string).collect();
        let binary = &built.binaries[test.binary].name;
        let (name, seconds, passed) = (&test.name, test.seconds, test.passed);
        writeln!(file, "{binary}\t{name}\t{seconds:.3}\t{passed}\t{}", ids.join(","))?;
    }
    Ok(())
}

fn read(path: &Path, built: &Built) -> Option<Vec<Test>> {
    let text = fs::read_to_string(path).ok()?;
    let (stamp, lines) = text.split_once('\n')?;
    if stamp != built.stamp {
        return None;
    }
    let test = |line: &str| {
        let mut fields = line.split('\t');
        let binary = fields.next()?;
        Some(Test {
            binary: built.binaries.iter().position(|one| one.name == binary)?,
            name: fields.next()?.to_owned(),
            seconds: fields.next()?.parse().ok()?,
            passed: fields.next()? == "true",
            ids: fields.next()?.split(',').filter_map(|id| id.parse().ok()).collect(),
        })
    };
    lines.lines().map(test).collect()
}
