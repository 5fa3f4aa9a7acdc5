//! Takes out every check, comparison and fence of the library in turn, and runs its tests.
//!
//! All mutants are compiled at once, into a copy of the tree; a variable of the environment says which is
//! on. A first run of each test finds which mutants it comes to; then each mutant meets the tests that come
//! to it, quickest first, until one fails. Constant functions, macros, and what only formats are left alone.
//!
//! `mutants [--fresh] [--list] [--again] [--longest SECONDS] [--jobs COUNT] [PATTERN...]`, at the tree's root:
//! mutants whose name contains a pattern, or all. Verdicts are kept in `target/mutants/verdicts.txt`, and those
//! known are not sought again but with `--fresh`, or for survivors with `--again`.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

mod find;
mod flags;
mod kill;
mod lists;
mod site;
mod tests;
mod tree;
mod worker;

use kill::Verdict;
use lists::Verdicts;
use site::Mutant;
use tests::Test;
use tree::{Built, Sources};
use worker::Worker;

type Failure = Box<dyn std::error::Error>;

/// Where equivalent mutants are named.
const EQUIVALENT: &str = "tools/mutants/equivalent.txt";

/// What was asked for.
#[derive(Debug)]
struct Wanted {
    patterns: Vec<String>,
    fresh: bool,
    again: bool,
    list: bool,
    longest: f64,
    jobs: usize,
    work: PathBuf,
}

impl Wanted {
    fn parse() -> Result<Self, Failure> {
        let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
        let work = std::env::current_dir()?.join(target).join("mutants");
        let (patterns, longest) = (Vec::new(), f64::INFINITY);
        let jobs = std::thread::available_parallelism()?.get();
        let mut wanted =
            Self { patterns, fresh: false, again: false, list: false, longest, jobs, work };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--fresh" => wanted.fresh = true,
                "--again" => wanted.again = true,
                "--list" => wanted.list = true,
                "--jobs" => wanted.jobs = arguments.next().ok_or("how many?")?.parse()?,
                "--longest" => wanted.longest = arguments.next().ok_or("how long?")?.parse()?,
                _ => wanted.patterns.push(argument),
            }
        }
        Ok(wanted)
    }

    fn is_wanted(&self, mutant: &Mutant) -> bool {
        let key = mutant.key();
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| key.contains(pattern))
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mutants: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether none survives.
fn run() -> Result<bool, Failure> {
    let wanted = Wanted::parse()?;
    let sources = Sources::read()?;
    let text = std::fs::read_to_string(EQUIVALENT).unwrap_or_default();
    let equivalents = lists::equivalents(&text, &sources.mutants)?;
    if wanted.list {
        for mutant in sources.mutants.iter().filter(|mutant| wanted.is_wanted(mutant)) {
            println!("{}:{}: {}", mutant.file, mutant.line, mutant.key());
        }
        return Ok(true);
    }
    std::fs::create_dir_all(&wanted.work)?;
    let built = tree::build(&sources, &wanted.work)?;
    let workers = (0..wanted.jobs).map(Worker::new).collect::<Result<Vec<_>, _>>()?;
    let tests = tests::recorded(&built, sources.mutants.len(), &wanted.work, &workers)?;
    for test in tests.iter().filter(|test| !test.passed) {
        println!("fails with no mutant on, and is left out: {}", test.name);
    }
    let path = wanted.work.join("verdicts.txt");
    if wanted.fresh {
        let _ = std::fs::remove_file(&path);
    }
    let verdicts = Mutex::new(Verdicts::open(&path)?);
    let ids: Vec<u32> = (1..)
        .zip(&sources.mutants)
        .filter(|(id, mutant)| !built.left_out.contains(id) && wanted.is_wanted(mutant))
        .map(|(id, _)| id)
        .collect();
    let todo: Vec<u32> = ids
        .iter()
        .copied()
        .filter(|id| {
            let key = sources.mutants[*id as usize - 1].key();
            let known = verdicts.lock().expect("no panic").known.get(&key).cloned();
            let is_known = match known {
                Some(Verdict::Killed(_)) => true,
                Some(_) => !wanted.again,
                None => false,
            };
            !is_known && !equivalents.contains_key(&key)
        })
        .collect();
    println!("mutants: {} to try", todo.len());
    judge_all(&todo, &sources.mutants, &built, &tests, &workers, &verdicts, &wanted)?;
    let known = verdicts.into_inner().expect("no panic").known;
    Ok(report(&ids, &sources.mutants, &equivalents, &known))
}

fn judge_all(
    todo: &[u32],
    mutants: &[Mutant],
    built: &Built,
    tests: &[Test],
    workers: &[Worker],
    verdicts: &Mutex<Verdicts>,
    wanted: &Wanted,
) -> Result<(), Failure> {
    let next = AtomicUsize::new(0);
    let work = |worker: &Worker| -> Result<(), String> {
        while let Some(id) = todo.get(next.fetch_add(1, Relaxed)) {
            let mutant = &mutants[*id as usize - 1];
            let verdict = kill::judge(*id, tests, &built.binaries, worker, wanted.longest)
                .map_err(|error| error.to_string())?;
            if !matches!(verdict, Verdict::Killed(_)) {
                println!("{verdict:?}: {}:{}: {}", mutant.file, mutant.line, mutant.key());
            }
            let added = verdicts.lock().expect("no panic").add(&mutant.key(), verdict);
            added.map_err(|error| error.to_string())?;
        }
        Ok(())
    };
    worker::all(workers, work)
}

/// Prints the result, and gives whether none survives.
fn report(
    ids: &[u32],
    mutants: &[Mutant],
    equivalents: &HashMap<String, String>,
    known: &HashMap<String, Verdict>,
) -> bool {
    let (mut killed, mut equivalent, mut surviving) = (0, 0, 0);
    for mutant in ids.iter().map(|id| &mutants[*id as usize - 1]) {
        let key = mutant.key();
        if let Some(reason) = equivalents.get(&key) {
            equivalent += 1;
            println!("equivalent: {key}: {reason}");
        } else if matches!(known.get(&key), Some(Verdict::Killed(_))) {
            killed += 1;
        } else {
            surviving += 1;
            let how = known.get(&key);
            let how = if how == Some(&Verdict::NotReached) { "not reached" } else { "survives" };
            println!("{how}: {}:{}: {key}", Path::new(&mutant.file).display(), mutant.line);
        }
    }
    let tried = ids.len();
    println!(
        "mutants: {tried} tried, {killed} killed, {equivalent} equivalent, {surviving} surviving"
    );
    surviving == 0
}
