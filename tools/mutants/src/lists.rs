//! The list of equivalent mutants, and what earlier runs have found.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use crate::Failure;
use crate::kill::Verdict;
use crate::site::Mutant;

/// Mutants that no test can tell from the original, each with the reason: a line with the mutant's name,
/// and below it the reason, indented.
pub(crate) fn equivalents(
    text: &str,
    mutants: &[Mutant],
) -> Result<HashMap<String, String>, Failure> {
    let mut found: HashMap<String, String> = HashMap::new();
    let mut last = None;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with(' ') {
            let key: &String = last.as_ref().ok_or("a reason without a mutant")?;
            let reason = found.entry(key.clone()).or_default();
            *reason = format!("{reason} {}", line.trim()).trim().to_owned();
        } else {
            last = Some(line.to_owned());
            if found.insert(line.to_owned(), String::new()).is_some() {
                return Err(format!("named equivalent twice: {line}").into());
            }
        }
    }
    let keys: std::collections::HashSet<_> = mutants.iter().map(Mutant::key).collect();
    let mut wrong = Vec::new();
    for (key, reason) in &found {
        if !keys.contains(key) {
            wrong.push(format!("named equivalent, and there is no such mutant: {key}"));
        } else if reason.is_empty() {
            wrong.push(format!("named equivalent without a reason: {key}"));
        }
    }
    if wrong.is_empty() { Ok(found) } else { Err(wrong.join("\n").into()) }
}

/// What is known of mutants, by name. Lives in a file, to which each verdict is added.
pub(crate) struct Verdicts {
    file: File,
    pub(crate) known: HashMap<String, Verdict>,
}

impl Verdicts {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let verdict = |line: &str| {
            let mut fields = line.split('\t');
            let verdict = match (fields.next()?, fields.next()?) {
                ("killed", by) => Verdict::Killed(by.to_owned()),
                ("survived", _) => Verdict::Survived,
                _ => Verdict::NotReached,
            };
            Some((fields.next()?.to_owned(), verdict))
        };
        let known = text.lines().filter_map(verdict).collect();
        Ok(Self { file: OpenOptions::new().create(true).append(true).open(path)?, known })
    }

    pub(crate) fn add(&mut self, key: &str, verdict: Verdict) -> Result<(), Failure> {
        let (word, by) = match &verdict {
            Verdict::Killed(by) => ("killed", by.as_str()),
            Verdict::Survived => ("survived", ""),
            Verdict::NotReached => ("not reached", ""),
        };
        writeln!(self.file, "{word}\t{by}\t{key}")?;
        self.known.insert(key.to_owned(), verdict);
        Ok(())
    }
}
