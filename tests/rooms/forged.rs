//! The check finds each kind of break, in trees that are made for it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

use crate::check::{Break, Kind, breaks};

const TABLE: &str = "
| path | what is there |
|---|---|
| `src/` | the library |

| room | what it is | may use of ours |
|---|---|---|
| `error`, `words` | words for all | nothing |
| `low` | the lowest | abi |
| `middle` | what stands on it | `low::open` |
| `high` | the top | all above |
| `tools/` | a package | low |
";

/// Sound, although its comments, strings and tests name what its code must not.
const SOUND: &[(&str, &str)] = &[
    (
        "lib.rs",
        "mod error; mod words; mod low; mod middle; mod high;\npub use high::{High, Other};",
    ),
    ("error.rs", "pub struct Error;\n#[cfg(test)] mod tests { use crate::high::High; }"),
    ("words.rs", "use crate::error::Error;"),
    (
        "low/mod.rs",
        "//! As [`crate::high`] /* does.\nmod closed;\npub mod open;\npub use self::open::Open;
        /* crate::high::A /* nested */ crate::high::B */
        pub struct Low<'a>(&'a str, char);
        const LOW: Low = Low(\"crate::high::A \\\" crate::high::B\", '\"'); // crate::high::C
        const RAW: &str = r#\"crate::\"high::A\"#;
        #[cfg(test)]
        #[allow(dead_code)]
        fn test<A, B>(_: [A; 2], _: B) { crate::high::test(); }
        #[cfg(all(test, feature = \"more\"))]
        use crate::high::More;",
    ),
    ("low/closed.rs", "#![cfg(test)]\nuse crate::high::High;"),
    (
        "low/open.rs",
        "use super::Low;\nuse crate::words::Word;\nuse tombolo_abi::Header;\npub struct Open;",
    ),
    ("middle.rs", "use crate::{error::Error, low::open::{self, Open}};\nfn f() { open::g() }"),
    (
        "high.rs",
        "use crate::low::{Low, Open as Other};\nuse std::fmt;\nmod below;\npub use below::Below;",
    ),
    ("high/below.rs", "use super::Other;\nfn f() -> impl Sized + use<'_> { crate::middle::f() }"),
];

static TREES: AtomicU32 = AtomicU32::new(0);

/// A directory that goes away with its value.
struct Forged(PathBuf);

impl Forged {
    /// The sound tree, with other texts for some of its files.
    fn new(changes: &[(&str, &str)], table: &str) -> Self {
        let number = TREES.fetch_add(1, Ordering::Relaxed);
        let dir = env::temp_dir().join(format!("rooms-{}-{number}", process::id()));
        let forged = Self(dir);
        for (file, text) in SOUND.iter().chain(changes) {
            let path = forged.0.join("src").join(file);
            fs::create_dir_all(path.parent().expect("it is in src")).expect("made");
            fs::write(path, text).expect("written");
        }
        fs::write(forged.0.join("CONTRIBUTING.md"), table).expect("written");
        forged
    }
}

impl Drop for Forged {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn breaks_with(changes: &[(&str, &str)]) -> Vec<Break> {
    let forged = Forged::new(changes, TABLE);
    breaks(&forged.0, &forged.0.join("CONTRIBUTING.md")).expect("it can be read")
}

#[track_caller]
fn assert_one(changes: &[(&str, &str)], kind: Kind, text: &str) {
    let wanted = Break { kind, text: text.to_owned() };
    assert_eq!(breaks_with(changes), [wanted], "of {changes:?}");
}

#[test]
fn a_sound_tree_has_none() {
    assert_eq!(breaks_with(&[]), []);
}

#[test]
fn an_import_upward_is_one_however_it_is_written() {
    let up = "src/low/open.rs:2: high::High stands above low";
    for import in [
        "use crate::high::High;",
        "use crate::{error::Error, high::{High as H}};",
        "use super::super::high::High;",
        "pub(crate) use crate::high::High;",
        "fn f(_: Vec<crate::high::High>) {}",
        "mod inner { use super::super::super::high::High; }",
        "macro_rules! m { () => { $crate::high::High } }",
        "#[cfg(not(test))] use crate::high::High;",
        "#[cfg(test)] use crate::high::Low; use crate::high::High;",
        "struct S { #[cfg(test)] a: u8, b: crate::high::High }",
        "fn f<'a>(_: &'a str) -> char { 'a' } use crate::high::High;",
        r"const C: [char; 2] = ['\'', '\\']; use crate::high::High;",
        "const S: &[u8] = br##\"#\"##; use crate::high::High;",
    ] {
        let low = format!("pub struct Open;\n{import}");
        assert_one(&[("low/open.rs", &low), ("high.rs", "pub struct High;")], Kind::Up, up);
    }
}

#[test]
fn a_path_behind_an_imported_module_is_followed() {
    let changes = [("middle.rs", "use crate::low;\nfn f() { low::g() }")];
    let texts: Vec<_> = breaks_with(&changes).into_iter().map(|found| found.text).collect();
    let wanted = ["low", "low::g"].map(|path| format!(": {path} is not in the row of middle"));
    assert_eq!(
        texts,
        [format!("src/middle.rs:1{}", wanted[0]), format!("src/middle.rs:2{}", wanted[1])]
    );
}

#[test]
fn a_name_of_the_root_is_one() {
    let text = "src/high.rs:1: High is a name of the root: import it from its room";
    assert_one(&[("high.rs", "use crate::High;"), ("high/below.rs", "")], Kind::Root, text);
}

#[test]
fn an_import_that_the_row_does_not_name_is_one() {
    let text = "src/middle.rs:1: low::Low is not in the row of middle";
    assert_one(&[("middle.rs", "use crate::low::Low;")], Kind::Unnamed, text);
    let text = "src/middle.rs:1: abi::Header is not in the row of middle";
    assert_one(&[("middle.rs", "use tombolo_abi::Header;")], Kind::Unnamed, text);
}

#[test]
fn two_files_that_import_each_other_are_one() {
    let changes = [
        ("words.rs", "use crate::error::Error;\npub struct Word;"),
        ("error.rs", "use crate::words::Word;\npub struct Error;"),
    ];
    let text = "src/error.rs, src/words.rs import each other:
    src/error.rs:1: words::Word, in src/words.rs
    src/words.rs:1: error::Error, in src/error.rs";
    assert_one(&changes, Kind::Circle, text);
}

#[test]
fn a_circle_of_three_is_one_also_through_what_a_parent_shows() {
    let changes = [
        ("high.rs", "mod a; mod b; mod c;\npub use a::A; use c::C as See; pub use b::*;"),
        ("high/a.rs", "use super::b::B;\npub struct A;"),
        ("high/b.rs", "use super::See;\npub struct B;"),
        ("high/c.rs", "pub struct C(super::A);"),
    ];
    let text = "src/high/a.rs, src/high/b.rs, src/high/c.rs import each other:
    src/high/a.rs:1: high::b::B, in src/high/b.rs
    src/high/b.rs:1: high::See, in src/high/c.rs
    src/high/c.rs:1: high::A, in src/high/a.rs";
    assert_one(&changes, Kind::Circle, text);
}

#[test]
fn a_parent_that_needs_its_child_and_is_needed_by_it_is_one() {
    let changes = [
        ("high.rs", "mod below;\nuse below::Below;\npub struct High(Below);"),
        ("high/below.rs", "pub struct Below;\nfn f(_: super::High) {}"),
    ];
    let text = "src/high/below.rs, src/high.rs import each other:
    src/high/below.rs:2: high::High, in src/high.rs
    src/high.rs:2: high::below::Below, in src/high/below.rs";
    assert_one(&changes, Kind::Circle, text);
}

#[test]
fn a_room_without_a_row_is_one_and_a_row_without_a_room() {
    let lib = "mod error; mod words; mod low; mod middle; mod high; mod extra;";
    let changes = [("lib.rs", lib), ("extra.rs", "")];
    assert_one(&changes, Kind::Table, "src/extra has no row in the table");
    let lib = "mod error; mod words; mod low; mod high;";
    let changes = [("lib.rs", lib), ("high/below.rs", "")];
    assert_one(&changes, Kind::Table, "the table's middle is not in src");
}

#[test]
fn a_document_without_the_table_is_one() {
    let forged = Forged::new(&[], "# Contributing\n");
    let found = breaks(&forged.0, &forged.0.join("CONTRIBUTING.md")).expect("it can be read");
    assert_eq!(found.iter().filter(|found| found.kind == Kind::Table).count(), 5);
}
