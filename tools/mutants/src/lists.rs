//! The list of equivalent mutants, and what earlier runs have found.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use crate::Failure;
use crate::kill::Verdict;
use crate::site::Mutant;

/// Mutants that no test can tell from the original, each with the reason: lines with mutants' names, and
/// below them, indented, the reason that they share.
pub(crate) fn equivalents(
    text: &str,
    mutants: &[Mutant],
) -> Result<HashMap<String, String>, Failure> {
    let mut found: HashMap<String, String> = HashMap::new();
    let (mut names, mut is_in_reason) = (Vec::new(), true);
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let is_of_reason = line.starts_with(' ');
        if is_of_reason {
            if names.is_empty() {
                return Err("a reason without a mutant".into());
            }
            for name in &names {
                let reason: &mut String = found.entry(String::clone(name)).or_default();
                *reason = format!("{reason} {}", line.trim()).trim().to_owned();
            }
        } else {
            if is_in_reason {
                names.clear();
            }
            names.push(line.to_owned());
            if found.insert(line.to_owned(), String::new()).is_some() {
                return Err(format!("named equivalent twice: {line}").into());
            }
        }
        is_in_reason = is_of_reason;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn mutants(names: &[&str]) -> Vec<Mutant> {
        let mutant = |name: &&str| Mutant {
            file: "file".into(),
            function: "function".into(),
            what: (*name).into(),
            nth: 1,
            edits: Vec::new(),
            line: 1,
        };
        names.iter().map(mutant).collect()
    }

    #[test]
    fn names_above_a_reason_share_it() {
        let text = "# comment\nfile | function | a\nfile | function | b\n  one,\n  two\n\n\
                    file | function | c\n  three\n";
        let found = equivalents(text, &mutants(&["a", "b", "c"])).unwrap();
        let reason = |name: &str| found[&format!("file | function | {name}")].as_str();
        assert_eq!([reason("a"), reason("b"), reason("c")], ["one, two", "one, two", "three"]);
    }

    #[test]
    fn a_name_without_a_reason_or_a_mutant_is_an_error_and_so_is_one_that_stands_twice() {
        let one = &mutants(&["a"]);
        for text in ["file | function | a", "  one", "file | function | b\n  one"] {
            equivalents(text, one).unwrap_err();
        }
        equivalents("file | function | a\n  one\nfile | function | a\n  two", one).unwrap_err();
    }
}
