//! The copy of the tree that holds all mutants.

use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::Failure;
use crate::find::Finder;
use crate::flags;
use crate::site::{Edit, Mutant, Place, rewrite};

/// Where in `src` mutants are made.
const ROOMS: [&str; 11] = [
    "backoff.rs",
    "carrier",
    "deadline.rs",
    "endpoint",
    "ends",
    "handle",
    "mem",
    "os",
    "region",
    "ring",
    "wait",
];
/// Whose tests are run.
const PACKAGES: [&str; 3] = ["tombolo", "tombolo-soak", "tombolo-tools"];
/// Not part of what is copied.
const LEFT: [&str; 2] = ["benches/peers/", "tools/mutants/"];

/// The source's files in which mutants are made, and all mutants.
pub(crate) struct Sources {
    files: Vec<(String, String)>,
    /// A mutant's number is its place here and one.
    pub(crate) mutants: Vec<Mutant>,
}

impl Sources {
    pub(crate) fn read() -> Result<Self, Failure> {
        let mut paths = Vec::new();
        for room in ROOMS {
            collect(&Path::new("src").join(room), &mut paths)?;
        }
        paths.sort();
        let mut files = Vec::new();
        for path in paths {
            files.push((path.display().to_string(), fs::read_to_string(&path)?));
        }
        let mutants = find(&files)?;
        Ok(Self { files, mutants })
    }

    /// Writes the files with all mutants but those in `without`; gives where each mutant is.
    fn write(&self, tree: &Path, without: &HashSet<u32>) -> Result<Vec<Vec<Place>>, Failure> {
        let mut edits: Vec<Vec<(u32, &Edit)>> = self.files.iter().map(|_| Vec::new()).collect();
        for (id, mutant) in (1..).zip(&self.mutants) {
            if !without.contains(&id) {
                mutant.edits.iter().for_each(|edit| edits[edit.file].push((id, edit)));
            }
        }
        let mut places = Vec::new();
        for ((path, source), edits) in self.files.iter().zip(&edits) {
            let rewritten = rewrite(source, edits);
            write_if_other(&tree.join(path), rewritten.text.as_bytes())?;
            places.push(rewritten.places);
        }
        Ok(places)
    }
}

fn collect(path: &Path, into: &mut Vec<PathBuf>) -> Result<(), Failure> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), into)?;
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        into.push(path.to_owned());
    }
    Ok(())
}

fn find(files: &[(String, String)]) -> Result<Vec<Mutant>, Failure> {
    let mut parsed = Vec::new();
    for (path, source) in files {
        parsed.push(syn::parse_file(source).map_err(|error| format!("{path}: {error}"))?);
    }
    let sets: Vec<_> =
        parsed.iter().enumerate().flat_map(|(file, parsed)| flags::sets_of(file, parsed)).collect();
    let (mut mutants, mut uses) = (Vec::new(), Vec::new());
    for (file, (parsed, (path, source))) in parsed.iter().zip(files).enumerate() {
        let mut finder = Finder::new(file, path, source, &sets);
        syn::visit::Visit::visit_file(&mut finder, parsed);
        mutants.append(&mut finder.mutants);
        uses.extend(finder.uses.into_iter().map(|(set, span)| (set, file, span)));
    }
    for (index, set) in sets.iter().enumerate() {
        for (name, whole) in &set.flags {
            let of_set = uses.iter().filter(|(one, ..)| *one == index);
            let after = format!(", {whole})");
            let edits: Vec<_> = of_set
                .map(|(_, file, span)| {
                    Edit::around(*file, span.clone(), "crate::mutants::without($, ", &after)
                })
                .collect();
            if !edits.is_empty() {
                mutants.push(Mutant {
                    file: files[set.file].0.clone(),
                    function: set.name.clone(),
                    what: format!("without the flag `{name}`"),
                    nth: 1,
                    edits,
                    line: set.line,
                });
            }
        }
    }
    mutants.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line))); // stable: outer ones stay first
    Ok(mutants)
}

/// What was built.
pub(crate) struct Built {
    /// Mutants that do not compile.
    pub(crate) left_out: HashSet<u32>,
    pub(crate) binaries: Vec<Binary>,
    /// Another one where anything of the tree is other.
    pub(crate) stamp: String,
}

/// A program of tests.
#[derive(Clone, Debug)]
pub(crate) struct Binary {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) directory: PathBuf,
}

/// Copies the tree with all mutants that compile into `work`, and builds its tests.
pub(crate) fn build(sources: &Sources, work: &Path) -> Result<Built, Failure> {
    let tree = work.join("tree");
    let stamp = copy(&tree, sources)?;
    let root = tree.join("src/lib.rs");
    let lib = fs::read_to_string("src/lib.rs")?.replacen(
        "\nmod os;",
        "\n#[allow(unsafe_code)]\nmod mutants;\nmod os;",
        1,
    );
    write_if_other(&root, lib.as_bytes())?;
    write_if_other(&tree.join("src/mutants.rs"), include_bytes!("../switch.rs"))?;
    let mut left_out = HashSet::new();
    loop {
        let places = sources.write(&tree, &left_out)?;
        let check = ["check", "-p", "tombolo", "--lib", "--features", "__crash_points"];
        let messages = cargo(&tree, work, &check)?;
        let bad = to_leave_out(sources, &places, &messages)?;
        if bad.is_empty() {
            break;
        }
        println!("mutants: {} do not compile", bad.len());
        left_out.extend(bad);
    }
    let mut build = vec!["test", "--no-run", "--features", "tombolo-soak/__crash_points"];
    PACKAGES.iter().for_each(|package| build.extend(["-p", package]));
    build.extend(["--lib", "--bins", "--tests"]);
    let messages = cargo(&tree, work, &build)?;
    let binaries = binaries(&messages);
    if binaries.is_empty() {
        let rendered = messages.iter().filter_map(|one| one["message"]["rendered"].as_str());
        return Err(format!("no tests were built\n{}", rendered.collect::<String>()).into());
    }
    Ok(Built { left_out, binaries, stamp })
}

fn copy(tree: &Path, sources: &Sources) -> Result<String, Failure> {
    let list = Command::new("git").args(["ls-files", "-co", "--exclude-standard"]).output()?;
    let mut hasher = DefaultHasher::new();
    let list = String::from_utf8(list.stdout)?;
    let rewritten: HashSet<_> = sources.files.iter().map(|(path, _)| path.as_str()).collect();
    for path in list.lines().filter(|path| !LEFT.iter().any(|left| path.starts_with(left))) {
        let Ok(bytes) = fs::read(path) else { continue }; // removed, or a link to a directory
        (path, &bytes).hash(&mut hasher);
        if !rewritten.contains(path) && path != "src/lib.rs" {
            write_if_other(&tree.join(path), &bytes)?;
        }
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn write_if_other(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if fs::read(path).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().ok_or("no directory")?)?;
    Ok(fs::write(path, bytes)?)
}

/// Runs cargo and gives what it says.
fn cargo(tree: &Path, work: &Path, arguments: &[&str]) -> Result<Vec<Value>, Failure> {
    let output = Command::new("cargo")
        .args(arguments)
        .args(["--quiet", "--message-format=json", "--target-dir"])
        .arg(work.join("build"))
        .current_dir(tree)
        .env("RUSTFLAGS", "--cap-lints=allow")
        .envs([("CARGO_PROFILE_DEV_DEBUG", "0"), ("CARGO_PROFILE_TEST_DEBUG", "0")])
        .stderr(std::process::Stdio::inherit())
        .output()?;
    let lines = String::from_utf8(output.stdout)?;
    Ok(lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn binaries(messages: &[Value]) -> Vec<Binary> {
    let is_of_tests =
        |one: &&Value| one["profile"]["test"] == true && one["executable"].is_string();
    let binary = |one: &Value| {
        let manifest = Path::new(one["manifest_path"].as_str()?);
        let directory = manifest.parent()?.to_owned();
        let (target, kind) = (one["target"]["name"].as_str()?, one["target"]["kind"][0].as_str()?);
        let package = directory.file_name()?.to_str()?;
        let name = format!("{package}/{kind}/{target}");
        Some(Binary { name, path: one["executable"].as_str()?.into(), directory })
    };
    messages.iter().filter(is_of_tests).filter_map(binary).collect()
}

/// The mutants on account of which something does not compile: those whose own text an error points
/// at, or the innermost around it.
fn to_leave_out(
    sources: &Sources,
    places: &[Vec<Place>],
    messages: &[Value],
) -> Result<HashSet<u32>, Failure> {
    let (mut bad, mut others) = (HashSet::new(), String::new());
    for message in messages.iter().map(|one| &one["message"]).filter(|one| one["level"] == "error")
    {
        let Some(spans) = message["spans"].as_array() else { continue };
        let spans: Vec<_> = spans
            .iter()
            .filter_map(|span| {
                let path = span["file_name"].as_str()?;
                let file = sources.files.iter().position(|(one, _)| one == path)?;
                let at = |name: &str| span[name].as_u64().map(|at| at as usize);
                Some((file, at("byte_start")?, at("byte_end")?))
            })
            .collect();
        let within = |whole: bool| {
            let candidates = spans.iter().flat_map(|(file, start, end)| {
                places[*file].iter().filter(move |place| {
                    let range = if whole { &place.whole } else { &place.before };
                    range.start < *end
                        && *start < range.end
                        && (!whole || (range.start <= *start && *end <= range.end))
                })
            });
            candidates.min_by_key(|place| place.whole.len()).map(|place| place.id)
        };
        // A guard that is perhaps not dropped: the error is at what comes after.
        let around = spans.iter().copied().reduce(|a, b| (a.0, a.1.min(b.1), a.2.max(b.2)));
        let dropping = around.into_iter().flat_map(|(file, start, end)| {
            places[file].iter().filter(move |place| {
                start <= place.whole.start
                    && place.whole.end <= end
                    && sources.mutants[place.id as usize - 1].what.starts_with("without `drop(")
            })
        });
        if let Some(id) = within(false).or_else(|| within(true)) {
            bad.insert(id);
        } else if let Some(place) = dropping.last() {
            bad.insert(place.id);
        } else if let Some(text) = message["rendered"].as_str() {
            others.push_str(text);
        }
    }
    if bad.is_empty() && !others.is_empty() { Err(others.into()) } else { Ok(bad) }
}
