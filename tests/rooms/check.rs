//! What breaks the order of the rooms.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use crate::table::Table;
use crate::tree::{Import, Tree};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// An import of a room that stands higher.
    Up,
    /// An import of what the root shows, which stands above all rooms.
    Root,
    /// An import that the room's row does not name.
    Unnamed,
    /// Files that import each other, directly or by way of others.
    Circle,
    /// A room without a row, or a row without a room.
    Table,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Break {
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// All breaks of the crate in `dir`, whose table is in `document`.
pub(crate) fn breaks(dir: &Path, document: &Path) -> io::Result<Vec<Break>> {
    let tree = Tree::read(&dir.join("src"))?;
    let table = Table::parse(&fs::read_to_string(document)?);
    let imports = tree.imports();
    let mut breaks = of_table(&tree, &table);
    breaks.extend(imports.iter().filter_map(|import| of_import(&tree, &table, import)));
    breaks.extend(circles(&imports));
    breaks.sort();
    breaks.dedup();
    Ok(breaks)
}

fn of_table(tree: &Tree, table: &Table) -> Vec<Break> {
    let (found, listed) = (tree.rooms(), table.rooms().collect::<BTreeSet<_>>());
    let without_row =
        found.difference(&listed).map(|room| format!("src/{room} has no row in the table"));
    let without_room =
        listed.difference(&found).map(|room| format!("the table's {room} is not in src"));
    without_row.chain(without_room).map(|text| Break { kind: Kind::Table, text }).collect()
}

fn of_import(tree: &Tree, table: &Table, import: &Import) -> Option<Break> {
    let (room, target) = (import.from.first()?, import.names.first()?);
    let place = format!("src/{}:{}", import.file.display(), import.line);
    let path = import.names.join("::");
    let height = table.height(room)?;
    let broken = |kind, why: &str| Some(Break { kind, text: format!("{place}: {path} {why}") });
    if target == room {
        return None;
    }
    if target != "abi" && !tree.rooms().contains(target.as_str()) {
        return broken(Kind::Root, "is a name of the root: import it from its room");
    }
    match table.height(target) {
        Some(other) if other > height => broken(Kind::Up, &format!("stands above {room}")),
        Some(other) if other == height => None,
        _ if table.may_use(height, &import.names) => None,
        _ => broken(Kind::Unnamed, &format!("is not in the row of {room}")),
    }
}

/// A break for each largest set of files that reach each other.
fn circles(imports: &[Import]) -> Vec<Break> {
    let mut arrows = BTreeMap::<&PathBuf, BTreeMap<&PathBuf, &Import>>::new();
    for import in imports.iter().filter(|import| !import.is_facade) {
        if let Some(target) = import.target.as_ref().filter(|target| **target != import.file) {
            arrows.entry(&import.file).or_default().entry(target).or_insert(import);
        }
    }
    let reached: BTreeMap<_, _> =
        arrows.keys().map(|file| (*file, reached_from(file, &arrows))).collect();
    let mut found = BTreeSet::new();
    for (file, others) in &reached {
        let is_in = |other: &&PathBuf| reached.get(*other).is_some_and(|back| back.contains(*file));
        let circle: BTreeSet<_> = others.iter().copied().filter(is_in).collect();
        if !circle.is_empty() {
            found.insert(circle);
        }
    }
    found.iter().map(|circle| circle_break(circle, &arrows)).collect()
}

fn reached_from<'a>(
    from: &'a PathBuf,
    arrows: &BTreeMap<&'a PathBuf, BTreeMap<&'a PathBuf, &Import>>,
) -> BTreeSet<&'a PathBuf> {
    let (mut reached, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(file) = left.pop() {
        for next in arrows.get(file).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(*next) {
                left.push(next);
            }
        }
    }
    reached
}

fn circle_break(
    circle: &BTreeSet<&PathBuf>,
    arrows: &BTreeMap<&PathBuf, BTreeMap<&PathBuf, &Import>>,
) -> Break {
    let files: Vec<_> = circle.iter().map(|file| format!("src/{}", file.display())).collect();
    let mut text = format!("{} import each other:", files.join(", "));
    for file in circle {
        for (target, import) in &arrows[file] {
            if circle.contains(target) {
                let (file, line, path) = (file.display(), import.line, import.names.join("::"));
                text += &format!("\n    src/{file}:{line}: {path}, in src/{}", target.display());
            }
        }
    }
    Break { kind: Kind::Circle, text }
}
