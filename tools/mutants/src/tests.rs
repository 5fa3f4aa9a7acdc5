//! The tests: which there are, how long each takes, and which mutants it comes to.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::Failure;
use crate::tree::{Binary, Built};
use crate::worker::{Ended, Worker};

/// How long a test may take when no mutant is on.
const PATIENCE: Duration = Duration::from_secs(900);

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

impl Test {
    fn line(&self, built: &Built) -> String {
        let ids: Vec<_> = self.ids.iter().map(u32::to_string).collect();
        let binary = &built.binaries[self.binary].name;
        let (name, seconds, passed) = (&self.name, self.seconds, self.passed);
        format!("{binary}\t{name}\t{seconds:.3}\t{passed}\t{}", ids.join(","))
    }

    fn parse(line: &str, built: &Built) -> Option<Self> {
        let mut fields = line.split('\t');
        let binary = fields.next()?;
        Some(Self {
            binary: built.binaries.iter().position(|one| one.name == binary)?,
            name: fields.next()?.to_owned(),
            seconds: fields.next()?.parse().ok()?,
            passed: fields.next()? == "true",
            ids: fields.next()?.split(',').filter_map(|id| id.parse().ok()).collect(),
        })
    }
}

/// All tests. Those that an earlier run has seen, if the tree was the same, are not run again.
pub(crate) fn recorded(
    built: &Built,
    mutants: usize,
    work: &Path,
    workers: &[Worker],
) -> Result<Vec<Test>, Failure> {
    let path = work.join("tests.txt");
    let mut tests = read(&path, built);
    let mut names = Vec::new();
    for (index, binary) in built.binaries.iter().enumerate() {
        let ignored: HashSet<_> = list(binary, &["--ignored"])?.into_iter().collect();
        let all = list(binary, &[])?.into_iter().filter(|name| !ignored.contains(name));
        names.extend(all.map(|name| (index, name)));
    }
    names.retain(|(binary, name)| {
        !tests.iter().any(|test| test.binary == *binary && test.name == *name)
    });
    println!("mutants: {} tests are run with no mutant on", names.len());
    let mut file = File::create(&path)?;
    writeln!(file, "{}", built.stamp)?;
    for test in &tests {
        writeln!(file, "{}", test.line(built))?;
    }
    let (next, seen) = (AtomicUsize::new(0), Mutex::new((file, &mut tests)));
    let record = |worker: &Worker| -> Result<(), String> {
        while let Some((binary, name)) = names.get(next.fetch_add(1, Relaxed)) {
            let test = record_one(worker, built, *binary, name, mutants, work);
            let test = test.map_err(|error| error.to_string())?;
            let (file, tests) = &mut *seen.lock().expect("no panic");
            writeln!(file, "{}", test.line(built)).map_err(|error| error.to_string())?;
            tests.push(test);
        }
        Ok(())
    };
    crate::worker::all(workers, record)?;
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
    built: &Built,
    binary: usize,
    name: &str,
    mutants: usize,
    work: &Path,
) -> Result<Test, Failure> {
    let hits = work.join(format!("hits-{}", worker.number));
    fs::write(&hits, vec![0; mutants + 1])?;
    fs::set_permissions(&hits, fs::Permissions::from_mode(0o666))?;
    let variable = ("TOMBOLO_MUTANT_HITS", hits.to_str().ok_or("a path that is no text")?);
    let (ended, seconds) = worker.run(&built.binaries[binary], &[name], variable, PATIENCE)?;
    let bytes = fs::read(&hits)?;
    let ids = (0..).zip(bytes).filter(|(_, byte)| *byte != 0).map(|(id, _)| id).collect();
    fs::remove_file(hits)?;
    Ok(Test { binary, name: name.to_owned(), seconds, passed: ended == Ended::Well, ids })
}

/// What an earlier run has written about the same tree.
fn read(path: &Path, built: &Built) -> Vec<Test> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let Some((stamp, lines)) = text.split_once('\n') else { return Vec::new() };
    let lines = lines.lines().filter(|_| stamp == built.stamp);
    lines.filter_map(|line| Test::parse(line, built)).collect()
}
