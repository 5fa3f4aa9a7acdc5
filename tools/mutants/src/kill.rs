//! Running tests against a mutant until one fails.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Failure;
use crate::tests::Test;
use crate::tree::Binary;
use crate::worker::{Ended, Worker};

/// Tests that are run one by one, the quickest; the others are run together.
const ALONE: usize = 12;
/// No mutant's number.
const NONE: &str = "0";
/// How long tests may take when no mutant is on.
const PATIENCE: Duration = Duration::from_secs(900);
/// Seconds of tests that are run together.
const TOGETHER: f64 = 20.0;

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// By this test.
    Killed(String),
    Survived,
    /// No test comes to it.
    NotReached,
}

/// Tests of one binary that are run at once.
struct Batch<'a> {
    binary: usize,
    tests: Vec<&'a Test>,
    seconds: f64,
}

/// Runs the tests that come to mutant `id`, and take no longer than `longest` seconds.
pub(crate) fn judge(
    id: u32,
    tests: &[Test],
    binaries: &[Binary],
    worker: &Worker,
    longest: f64,
) -> Result<Verdict, Failure> {
    let mut reaching: Vec<_> =
        tests.iter().filter(|test| test.passed && test.ids.contains(&id)).collect();
    if reaching.is_empty() {
        return Ok(Verdict::NotReached);
    }
    reaching.retain(|test| test.seconds <= longest);
    reaching.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let number = id.to_string();
    for batch in batches(&reaching) {
        let binary = &binaries[batch.binary];
        let names: Vec<_> = batch.tests.iter().map(|test| test.name.as_str()).collect();
        let patience = patience(batch.seconds);
        let ended = run(binary, &names, &number, patience, worker)?;
        let suspects = match ended {
            Ended::Well => continue,
            Ended::TimedOut => return Ok(killed(binary, &names, "timed out")),
            Ended::Failed(failed) if failed.is_empty() && names.len() > 1 => {
                return Ok(killed(binary, &names, "died"));
            }
            Ended::Failed(failed) if failed.is_empty() => vec![names[0].to_owned()],
            Ended::Failed(failed) => failed,
        };
        // One that fails now and then by itself proves nothing.
        for suspect in suspects {
            let ended = run(binary, &[&suspect], &number, patience, worker)?;
            if ended != Ended::Well {
                return Ok(killed(binary, &[&suspect], ""));
            }
        }
    }
    Ok(Verdict::Survived)
}

/// How long to wait for what takes so many seconds with no mutant on.
fn patience(seconds: f64) -> Duration {
    Duration::from_secs_f64(10.0 + 3.0 * seconds)
}

/// Runs tests with mutant `number` on. If that takes too long it may be the machine that is slow now: what it
/// takes at present with no mutant on tells.
fn run(
    binary: &Binary,
    names: &[&str],
    number: &str,
    patience_before: Duration,
    worker: &Worker,
) -> Result<Ended, Failure> {
    let (ended, _) = worker.run(binary, names, ("TOMBOLO_MUTANT", number), patience_before)?;
    if ended != Ended::TimedOut {
        return Ok(ended);
    }
    let (_, seconds) = worker.run(binary, names, ("TOMBOLO_MUTANT", NONE), PATIENCE)?;
    let patience = patience(2.0 * seconds);
    if patience <= patience_before {
        return Ok(ended);
    }
    Ok(worker.run(binary, names, ("TOMBOLO_MUTANT", number), patience)?.0)
}

fn killed(binary: &Binary, names: &[&str], how: &str) -> Verdict {
    let others = names.len() - 1;
    let others = if others > 0 { format!(" and {others} others") } else { String::new() };
    let how = if how.is_empty() { String::new() } else { format!(", {how}") };
    Verdict::Killed(format!("{}::{}{others}{how}", binary.name, names[0]))
}

/// The quickest alone, the others together; quick ones first.
fn batches<'a>(tests: &[&'a Test]) -> Vec<Batch<'a>> {
    let (alone, others) = tests.split_at(tests.len().min(ALONE));
    let single =
        |test: &&'a Test| Batch { binary: test.binary, tests: vec![*test], seconds: test.seconds };
    let mut batches: Vec<_> = alone.iter().map(single).collect();
    let mut by_binary: BTreeMap<usize, Vec<Batch<'_>>> = BTreeMap::new();
    for test in others {
        let of_binary = by_binary.entry(test.binary).or_default();
        match of_binary.last_mut() {
            Some(batch) if batch.seconds + test.seconds <= TOGETHER => {
                batch.tests.push(test);
                batch.seconds += test.seconds;
            }
            _ => of_binary.push(single(test)),
        }
    }
    let mut together: Vec<_> = by_binary.into_values().flatten().collect();
    together.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    batches.append(&mut together);
    batches
}
